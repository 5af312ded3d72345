//! "Did you mean": the known word that is closest to a misspelt one.

use strsim::osa_distance;

/// Longer words are not typed by hand.
const MAX_CHARS: usize = 64;

/// The closest known word, if a third of its letters or fewer differ; the first of equals.
///
/// What differs are letters to insert, remove, replace or swap with their neighbour.
pub fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = letters(word)?;
    let limit = (letters.chars().count() / 3).max(1);
    known
        .filter_map(|it| Some((osa_distance(&letters, &self::letters(it)?), it)))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, it)| it)
}

fn letters(word: &str) -> Option<String> {
    (word.chars().take(MAX_CHARS + 1).count() <= MAX_CHARS).then(|| word.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_errors_and_nothing_else() {
        let known = ["awq", "gptq", "hqq", "int8_weights", "rtn"];
        let suggest = |word| suggest(word, known.into_iter());
        assert_eq!(suggest("gtpq"), Some("gptq"));
        assert_eq!(suggest("RTN"), Some("rtn"));
        assert_eq!(suggest("int8_weight"), Some("int8_weights"));
        assert_eq!(suggest("smooth"), None);
        assert_eq!(suggest(""), None);
        assert_eq!(suggest(&"x".repeat(1 << 20)), None);
    }
}

//! "Did you mean": the known word that is closest to a misspelt one.

/// Longer words are not typed by hand.
const MAX_CHARS: usize = 64;

/// The closest known word, if a third of its letters or fewer differ; the first of equals.
pub fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = letters(word)?;
    let limit = (letters.len() / 3).max(1);
    known
        .filter_map(|it| Some((distance(&letters, &self::letters(it)?), it)))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, it)| it)
}

fn letters(word: &str) -> Option<Vec<char>> {
    let letters: Vec<char> = word.chars().take(MAX_CHARS + 1).collect();
    (letters.len() <= MAX_CHARS).then(|| letters.iter().map(char::to_ascii_lowercase).collect())
}

/// Letters to insert, remove, replace or swap with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
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

//! What is looked at in a tokenizer file before the library reads it: sizes that it would allocate,
//! and texts that it would grow.

use serde::Deserialize;
use serde_json::Value;

use super::charsmap;

/// A larger file is not read; the largest published ones have 40 MB.
pub(super) const MOST_BYTES: u64 = 256 << 20;
/// Steps of a normalizer or decoder.
const MOST_STEPS: usize = 64;
/// How many times longer a text may become. Published ones make three bytes of a space.
const MOST_GROWTH: usize = 256;
/// Bytes that are put before a text.
const MOST_ADDED: usize = 4096;

/// The parts that change texts; everything else is the library's to check.
#[derive(Deserialize)]
struct Parts {
    normalizer: Option<Value>,
    decoder: Option<Value>,
}

/// What one part does to the length of a text.
#[derive(Default)]
struct Steps {
    count: usize,
    /// `None`: beyond all measure.
    growth: Option<usize>,
    added: usize,
}

/// Why a tokenizer file is not to be used. Files that are none are the library's to refuse.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let Ok(parts) = serde_json::from_slice::<Parts>(json) else { return Ok(()) };
    for (name, part) in [("normalizer", parts.normalizer), ("decoder", parts.decoder)] {
        let Some(part) = part else { continue };
        let mut steps = Steps { growth: Some(1), ..Steps::default() };
        steps.take(&part).map_err(|reason| format!("has a {name} that {reason}"))?;
        if steps.count > MOST_STEPS {
            return Err(format!("has a {name} of more than {MOST_STEPS} steps"));
        }
        if steps.growth.is_none_or(|it| it > MOST_GROWTH) || steps.added > MOST_ADDED {
            return Err(format!(
                "has a {name} that makes texts more than {MOST_GROWTH} times longer"
            ));
        }
    }
    Ok(())
}

impl Steps {
    /// The parser has a limit to how deep values are nested.
    fn take(&mut self, part: &Value) -> Result<(), String> {
        self.count += 1;
        let list = ["normalizers", "decoders"].iter().find_map(|it| part.get(it)?.as_array());
        list.into_iter().flatten().try_for_each(|it| self.take(it))?;
        match part.get("type").and_then(Value::as_str) {
            Some("Replace") => self.replace(part),
            Some("Prepend") => {
                self.added = self.added.saturating_add(text(part, "prepend").len());
                Ok(())
            }
            Some("Precompiled") => {
                let longest = charsmap::check(text(part, "precompiled_charsmap"))?;
                self.grow(longest);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, factor: usize) {
        self.growth = self.growth.and_then(|it| it.checked_mul(factor.max(1)));
    }

    fn replace(&mut self, part: &Value) -> Result<(), String> {
        let pattern = part.get("pattern").unwrap_or(&Value::Null);
        // An expression may match a single byte.
        let shortest = pattern.get("String").and_then(Value::as_str).map_or(1, str::len);
        let is_empty = pattern.get("Regex").and_then(Value::as_str) == Some("");
        if shortest == 0 || is_empty {
            return Err("replaces nothing by something".into());
        }
        self.grow(text(part, "content").len().div_ceil(shortest));
        Ok(())
    }
}

fn text<'a>(part: &'a Value, field: &str) -> &'a str {
    part.get(field).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(normalizer: &str) -> Result<(), String> {
        check(format!(r#"{{"normalizer": {normalizer}, "model": {{}}}}"#).as_bytes())
    }

    fn replace(pattern: &str, content: &str) -> String {
        format!(r#"{{"type": "Replace", "pattern": {pattern}, "content": "{content}"}}"#)
    }

    fn sequence(steps: &[String]) -> String {
        format!(r#"{{"type": "Sequence", "normalizers": [{}]}}"#, steps.join(", "))
    }

    #[test]
    fn what_published_tokenizers_do_is_fine() {
        let llama = [
            r#"{"type": "Prepend", "prepend": "▁"}"#.to_owned(),
            replace(r#"{"String": " "}"#, "▁"),
            replace(r#"{"Regex": " {2,}"}"#, "▁"),
        ];
        assert_eq!(of(&sequence(&llama)), Ok(()));
        assert_eq!(of("null"), Ok(()));
        assert_eq!(check(b"no JSON"), Ok(()));
    }

    #[test]
    fn texts_do_not_grow_without_bound() {
        let doubles = replace(r#"{"String": "a"}"#, "aa");
        assert_eq!(of(&sequence(&vec![doubles.clone(); 8])), Ok(()));
        assert!(of(&sequence(&vec![doubles.clone(); 9])).unwrap_err().contains("256 times longer"));
        // However deep they lie, and in a decoder too.
        let nested = sequence(&[sequence(&vec![doubles; 40])]);
        assert!(of(&nested).is_err());
        let decoder = format!(r#"{{"decoder": {}}}"#, nested.replace("normalizers", "decoders"));
        assert!(check(decoder.as_bytes()).unwrap_err().starts_with("has a decoder"));
        let prepends = format!(r#"{{"type": "Prepend", "prepend": "{}"}}"#, "x".repeat(5000));
        assert!(of(&prepends).is_err());
        assert!(of(&sequence(&vec![r#"{"type": "NFC"}"#.to_owned(); 64])).is_err());
    }

    #[test]
    fn nothing_is_not_replaced() {
        for pattern in [r#"{"String": ""}"#, r#"{"Regex": ""}"#] {
            assert!(of(&replace(pattern, "x")).unwrap_err().contains("replaces nothing"));
        }
    }
}

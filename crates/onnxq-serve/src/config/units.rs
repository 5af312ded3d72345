//! Scalars as people write them: `5m`, `2GiB`, `0`, `-1`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de::Visitor};

/// How a duration is written, for messages about one that is not.
pub(super) const DURATIONS: &str = "500ms, 30s, 5m, 1h or a number of seconds";

/// A text or a number, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scalar, D::Error> {
        from.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }
}

/// `None` if it is no duration, or one of more than a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * factor;
    (seconds <= 366.0 * 86400.0).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let read = ["250ms", "30", "1.5m", " 2 h ", "0"].map(|it| duration(it).unwrap());
        assert_eq!(read.map(|it| it.as_millis()), [250, 30_000, 90_000, 7_200_000, 0]);
        for wrong in ["", "m", "-1", "5x", "1e3", "1..2", "9999999999h", "NaN"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}

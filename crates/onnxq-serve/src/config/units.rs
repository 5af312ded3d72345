//! Scalars as people write them: `5m`, `2GiB`, `0`, `-1`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de::Visitor};

use onnxq_ir::human;

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
    // Nothing has no unit.
    let time = if text.trim() == "0" { Duration::ZERO } else { human::parse_duration(text)? };
    (time <= YEAR).then_some(time)
}

/// Longer times would leave the range of a clock.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_within_a_year() {
        let read = ["250ms", "1.5m", " 2 h ", "0"].map(|it| duration(it).unwrap());
        assert_eq!(read.map(|it| it.as_millis()), [250, 90_000, 7_200_000, 0]);
        for wrong in ["", "m", "-1", "5", "9999999999h", "NaN"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}

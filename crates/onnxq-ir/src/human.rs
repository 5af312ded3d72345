//! Numbers, counts, sizes and times as people read and write them.

use std::time::Duration;

use bytesize::ByteSize;

/// `8 of 513 samples`: which part of the data a figure is of.
pub fn of_samples(part: usize, whole: usize) -> String {
    let s = if part.max(whole) == 1 { "" } else { "s" };
    let [few, all] = [part, whole].map(|it| grouped(it as u64));
    if whole > part { format!("{few} of {all} sample{s}") } else { format!("{few} sample{s}") }
}

/// `1,142,372`: counts as people read them.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.004123`, `12.34`, `123,456`, `1.234e-9`.
pub fn number(value: f64) -> String {
    let scientific = format!("{value:.3e}");
    // Of what is left after rounding: 999.96 has four digits before the point.
    let exponent = scientific.split_once('e').and_then(|it| it.1.parse::<i32>().ok());
    match exponent {
        _ if value == 0.0 => "0".to_owned(),
        Some(3..=8) => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", grouped(value.abs().round() as u64))
        }
        Some(exponent @ -4..=2) => format!("{value:.*}", (3 - exponent) as usize),
        _ => scientific,
    }
}

/// Of a fraction.
pub fn percent(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

/// `26.3 MB`: sizes as people read them, in powers of ten, as --max-size and disks count.
pub fn bytes(count: u64) -> String {
    ByteSize(count).display().si().to_string()
}

/// A size as people write it: `4.6MB` and `4.6M` are 4,600,000 bytes, `2GiB` is 2^31, `1048576`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let ends_bare = text.ends_with(|it: char| "kKmMgGtT".contains(it));
    let text = if ends_bare { format!("{text}B") } else { text.to_owned() };
    text.parse().ok().map(|ByteSize(count)| count)
}

/// A time as people write it: `250ms`, `30s`, `10m`, `1.5h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|it: char| it.is_ascii_alphabetic())?);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * seconds).ok()
}

/// How a time is written, for messages about one that is not.
pub const TIMES: &str = "250ms, 30s, 10m or 1h";

/// How a size is written, for messages about one that is not.
pub const SIZES: &str = "500MB, 2GB (powers of ten), 1.5GiB (powers of two) or a number of bytes";

/// `a, b or c`, with the word for `or`.
pub fn listed<T: AsRef<str>>(words: &[T], or: &str) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match &words[..] {
        [first @ .., last] if !first.is_empty() => format!("{} {or} {last}", first.join(", ")),
        few => few.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let read = |text| parse_duration(text).map(|it| it.as_millis());
        let cases = [("250ms", 250), ("30s", 30_000), ("1.5 h", 5_400_000), ("10m", 600_000)];
        for (text, expected) in cases {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["", "10", "-1s", "s", "1d", "1e400s", "NaNs"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn digits_come_in_groups() {
        assert_eq!([0, 999, 1000, 1_142_372].map(grouped), ["0", "999", "1,000", "1,142,372"]);
    }

    #[test]
    fn numbers_have_four_digits() {
        let cases = [
            (0.0, "0"),
            (0.004_123_4, "0.004123"),
            (-0.5, "-0.5000"),
            (12.344_9, "12.34"),
            (0.2 - 0.21, "-0.01000"),
            (999.94, "999.9"),
            (999.96, "1,000"),
            (-123_456.4, "-123,456"),
            (1.234e-9, "1.234e-9"),
            (f64::MAX, "1.798e308"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(percent(0.98442), "98.44 %");
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        let sizes = [0, 1023, 1024, 1_048_575, 26_319_258, 3 << 40];
        let texts = ["0 B", "1.0 kB", "1.0 kB", "1.0 MB", "26.3 MB", "3.3 TB"];
        assert_eq!(sizes.map(bytes), texts);
        let read = ["0 B", "1.5 MiB", "7", "2gib", "1kB", "-1", "x"].map(parse_bytes);
        assert_eq!(read, [Some(0), Some(3 << 19), Some(7), Some(2 << 30), Some(1000), None, None]);
        let read = ["2G", "4.6MB", "4.6m", "1k", "M", "KB"].map(parse_bytes);
        let expected = [Some(2_000_000_000), Some(4_600_000), Some(4_600_000), Some(1000)];
        assert_eq!(read[..4], expected);
        assert_eq!(read[4..], [None, None]);
    }
}

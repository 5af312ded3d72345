//! How many values a pass can look at within a budget of memory.

use super::CalibrateError;

/// What looking at a value takes, the value itself included.
pub(super) struct Cost<'a> {
    pub value: &'a str,
    pub bytes: u64,
}

/// How many of the values, from the first on, one pass can look at; `limit` at most.
///
/// A value that alone exceeds the budget is an error as soon as it is reached.
pub(super) fn fitting<'a>(
    costs: impl Iterator<Item = Cost<'a>>,
    memory: u64,
    limit: usize,
) -> Result<usize, CalibrateError> {
    let (mut total, mut count) = (0u64, 0);
    for Cost { value, bytes } in costs {
        if bytes > memory {
            let value = value.to_owned();
            return Err(CalibrateError::Memory { value, needed: bytes, memory });
        }
        total += bytes;
        if total > memory || count == limit {
            break;
        }
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(list: &[u64], memory: u64, limit: usize) -> Result<usize, CalibrateError> {
        fitting(list.iter().map(|it| Cost { value: "x", bytes: *it }), memory, limit)
    }

    #[test]
    fn as_many_as_memory_and_the_limit_allow() {
        assert_eq!(fit(&[], 10, 9).unwrap(), 0);
        assert_eq!(fit(&[4, 6, 1], 10, 9).unwrap(), 2);
        assert_eq!(fit(&[4, 5, 1], 10, 9).unwrap(), 3);
        assert_eq!(fit(&[4, 5, 1], 10, 1).unwrap(), 1);
        assert!(matches!(fit(&[4, 11], 10, 1), Err(CalibrateError::Memory { needed: 11, .. })));
    }
}

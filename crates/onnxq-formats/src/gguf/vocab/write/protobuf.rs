//! Fields of a message of Protocol Buffers, one after another: <https://protobuf.dev/programming-guides/encoding/>.

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Field<'a> {
    /// A whole number; negative ones are those of 64 bits.
    Number(u64),
    Bytes(&'a [u8]),
    Float(f32),
    Double,
}

/// The fields of a message with their numbers. The last one is `None` if the message ends too early, or has groups,
/// which nothing writes any more.
pub(super) struct Fields<'a>(pub(super) Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = self.0.take().filter(|bytes| !bytes.is_empty())?;
        let field = field(&mut bytes);
        self.0 = field.map(|_| bytes);
        Some(field)
    }
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = number(bytes)?;
    let field = match key & 7 {
        0 => Field::Number(number(bytes)?),
        1 => take(bytes, 8).map(|_| Field::Double)?,
        2 => {
            let length = usize::try_from(number(bytes)?).ok()?;
            Field::Bytes(take(bytes, length)?)
        }
        5 => Field::Float(f32::from_le_bytes(take(bytes, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((key >> 3, field))
}

/// Seven bits in each byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_one_after_another() {
        let bytes = b"\x08\x96\x01\x12\x02ab\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\0\0";
        let all: Vec<_> = Fields(Some(bytes)).collect::<Option<_>>().unwrap();
        let expected = [
            (1, Field::Number(150)),
            (2, Field::Bytes(b"ab")),
            (3, Field::Float(1.0)),
            (4, Field::Double),
        ];
        assert_eq!(all, expected);
        for length in 1..bytes.len() {
            let ends = [3, 7, 12].contains(&length);
            assert_eq!(Fields(Some(&bytes[..length])).all(|it| it.is_some()), ends, "{length}");
        }
        let below = [&b"\x08"[..], &[0xff; 9], b"\x01"].concat();
        assert_eq!(Fields(Some(&below)).next(), Some(Some((1, Field::Number(u64::MAX)))));
        let endless = [0xffu8; 20];
        assert_eq!(Fields(Some(&endless)).collect::<Vec<_>>(), [None]);
        assert_eq!(Fields(Some(b"\x0b")).collect::<Vec<_>>(), [None]);
    }
}

//! The table of replacements that SentencePiece puts into tokenizer files (`precompiled_charsmap`): the
//! library follows its numbers without looking where they lead.
//!
//! It is the size of a trie in bytes, the trie as a double array of 32-bit units (Darts), and texts that
//! end in a zero byte, which its leaves point into.

const NO_TABLE: &str = "has a table of replacements that is damaged";

/// Checks that each step that a text can take stays within the table. How long its longest text is.
pub(super) fn check(base64: &str) -> Result<usize, String> {
    let bytes = decode(base64).ok_or(NO_TABLE)?;
    let table = parse(&bytes).filter(Table::is_sound).ok_or(NO_TABLE)?;
    Ok(table.texts.split('\0').map(str::len).max().unwrap_or(0))
}

struct Table<'a> {
    units: Vec<u32>,
    texts: &'a str,
}

fn parse(bytes: &[u8]) -> Option<Table<'_>> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()? / 4 * 4;
    let (trie, texts) = rest.split_at_checked(size)?;
    let units = trie.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it)).collect();
    Some(Table { units, texts: std::str::from_utf8(texts).ok()? })
}

impl Table<'_> {
    /// Follows every path from the root.
    fn is_sound(&self) -> bool {
        let Some(root) = self.units.first() else { return false };
        let mut seen = vec![false; self.units.len()];
        let mut open = vec![offset(*root)];
        while let Some(node) = open.pop() {
            for letter in 1..=255 {
                let at = node ^ letter;
                let Some(unit) = self.units.get(at).copied() else { return false };
                // The highest bit is no label but marks a value.
                if unit & 0x8000_00FF != letter as u32 || std::mem::replace(&mut seen[at], true) {
                    continue;
                }
                let next = at ^ offset(unit);
                if unit >> 8 & 1 == 1 && !self.leads_to_text(next) {
                    return false;
                }
                open.push(next);
            }
        }
        true
    }

    fn leads_to_text(&self, leaf: usize) -> bool {
        let value = self.units.get(leaf).map(|it| (it & 0x7FFF_FFFF) as usize);
        value.is_some_and(|it| self.texts.is_char_boundary(it))
    }
}

fn offset(unit: u32) -> usize {
    ((unit as usize) >> 10) << ((unit as usize & 0x200) >> 6)
}

/// `None` if it is no base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie of one letter, `a`, whose leaf is at `0x100` and points to the text at `value`.
    fn table(value: u32) -> Vec<u8> {
        let mut units = vec![0u32; 0x200];
        // Its children begin at 0.
        units[0] = 0;
        units[usize::from(b'a')] = (0x100 ^ u32::from(b'a')) << 10 | 0x100 | u32::from(b'a');
        units[0x100] = 0x8000_0000 | value;
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|it| it.to_le_bytes()));
        bytes.extend("ä\0".as_bytes());
        bytes
    }

    fn is_sound(bytes: &[u8]) -> bool {
        parse(bytes).is_some_and(|it| it.is_sound())
    }

    #[test]
    fn tables_are_followed() {
        assert!(is_sound(&table(0)) && is_sound(&table(2)));
        // Into the middle of a letter, and beyond the texts.
        assert!(!is_sound(&table(1)) && !is_sound(&table(99)));
        // The leaf is beyond the trie.
        let mut wild = table(0);
        let unit = (0x7FFFu32 << 10 | 0x100 | u32::from(b'a')).to_le_bytes();
        wild[4 + 4 * usize::from(b'a')..][..4].copy_from_slice(&unit);
        assert!(!is_sound(&wild));
    }

    #[test]
    fn sizes_are_claims() {
        // 4 GiB, and nothing behind it.
        assert!(check("/////wAAAAAAAAAA").is_err());
        assert!(check("AAAA/////w==").is_err());
        assert!(check("no base64!").is_err());
        assert!(check("").is_err());
        let empty = "A".repeat(6);
        assert!(check(&empty).is_err());
    }

    #[test]
    fn base64_is_read() {
        assert_eq!(decode("YW55IGNhcm5hbCBwbGVhcw==").unwrap(), b"any carnal pleas");
    }
}

//! Names from a model are untrusted bytes: they are escaped before they are printed.

use std::fmt::{self, Write};

/// Text from a model, shown with control, direction and invisible characters escaped.
///
/// Cut in the middle beyond [`MAX_CHARS`] characters.
#[derive(Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

pub const MAX_CHARS: usize = 120;

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.chars().count();
        if count <= MAX_CHARS {
            return self.0.chars().try_for_each(|it| write_char(f, it));
        }
        let half = MAX_CHARS / 2;
        self.0.chars().take(half).try_for_each(|it| write_char(f, it))?;
        f.write_char('…')?;
        self.0.chars().skip(count - half).try_for_each(|it| write_char(f, it))
    }
}

/// A whole line with everything escaped that could move a cursor or forge another line.
pub fn escape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for it in line.chars() {
        write_char(&mut out, it).expect("writing to a string");
    }
    out
}

fn write_char(f: &mut impl Write, it: char) -> fmt::Result {
    if is_dangerous(it) { write!(f, "\\u{{{:x}}}", u32::from(it)) } else { f.write_char(it) }
}

fn is_dangerous(it: char) -> bool {
    it.is_control()
        || matches!(u32::from(it),
            0x00ad | 0x061c | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x2069 | 0xfeff | 0xfff9..=0xfffb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_moves_the_cursor_or_forges_lines() {
        let name = "a\x1b]8;;http://evil\x07\u{202e}gpj\n::error::pwn";
        let shown = Untrusted(name).to_string();
        assert_eq!(shown, r"a\u{1b}]8;;http://evil\u{7}\u{202e}gpj\u{a}::error::pwn");
        assert_eq!(escape(name), shown);
    }

    #[test]
    fn cuts_long_names_in_the_middle() {
        let name = "x".repeat(1 << 20);
        assert_eq!(Untrusted(&name).to_string().chars().count(), MAX_CHARS + 1);
    }
}

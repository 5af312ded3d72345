//! Text within XML, whatever it holds.

use onnxq_ir::untrusted::escape;

/// For text and for values of attributes. Characters that XML 1.0 cannot hold are shown or dropped.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for it in escape(raw).chars() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => {}
            it => out.push(it),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_markup() {
        assert_eq!(
            text("<a b='c'>&\"\u{0}\n\u{ffff}"),
            "&lt;a b=&#39;c&#39;&gt;&amp;&quot;\\u{0}\\u{a}"
        );
    }
}

//! Words, strings and numbers of the ONNX text syntax, with `#` comments.

use super::ParseError;
use crate::{ir::Name, untrusted::Untrusted};

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
pub(super) struct Fail {
    pub at: usize,
    pub message: String,
}

pub(super) type Result<T> = std::result::Result<T, Fail>;

/// A name and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Ident {
    pub at: usize,
    pub text: Name,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// Where the next token begins.
    pub(super) fn at(&mut self) -> usize {
        loop {
            let rest = self.rest().trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return self.at;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    pub(super) fn peek(&mut self) -> Option<char> {
        self.at();
        self.rest().chars().next()
    }

    /// The next word, without consuming it; empty if something else is next.
    pub(super) fn peek_word(&mut self) -> &'a str {
        self.at();
        let rest = self.rest();
        if rest.starts_with(|it: char| it.is_ascii_digit()) {
            return "";
        }
        let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
        &rest[..end.unwrap_or(rest.len())]
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.at();
        let hit = self.rest().starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    pub(super) fn word(&mut self) -> Result<&'a str> {
        let word = self.peek_word();
        if word.is_empty() {
            return Err(self.unexpected("a name"));
        }
        self.at += word.len();
        Ok(word)
    }

    /// A bare or quoted name.
    pub(super) fn name(&mut self) -> Result<Ident> {
        let at = self.at();
        if self.peek() == Some('"') {
            return Ok(Ident { at, text: self.text()?.into() });
        }
        Ok(Ident { at, text: self.word()?.into() })
    }

    /// A quoted string that is UTF-8.
    pub(super) fn text(&mut self) -> Result<String> {
        let at = self.at();
        String::from_utf8(self.string()?).map_err(|_| fail(at, "the string is not UTF-8"))
    }

    /// A quoted string of any bytes: `\xff` is one of them, `\u{1f}` a character; `\n` and `\t`
    /// as usual; any other character after `\` stands for itself.
    pub(super) fn string(&mut self) -> Result<Vec<u8>> {
        let at = self.at();
        self.expect("\"")?;
        let mut out = Vec::new();
        while let Some(it) = self.next() {
            match it {
                '"' => return Ok(out),
                '\\' => self.escape(&mut out)?,
                _ => push(&mut out, it),
            }
        }
        Err(fail(at, "the string has no end"))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let at = self.at;
        let bad = || fail(at, "the escape is not of the form `\\xff` or `\\u{1f}`");
        match self.next() {
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('u') => {
                let (digits, _) = self
                    .rest()
                    .strip_prefix('{')
                    .and_then(|it| it.split_once('}'))
                    .filter(|(it, _)| it.len() <= 6)
                    .ok_or_else(bad)?;
                self.at += digits.len() + 2;
                let it = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                push(out, it.ok_or_else(bad)?);
            }
            Some('x') => {
                let digits = self.rest().get(..2).ok_or_else(bad)?;
                self.at += 2;
                out.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            }
            Some(it) => push(out, it),
            None => return Err(bad()),
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let it = self.rest().chars().next()?;
        self.at += it.len_utf8();
        Some(it)
    }

    /// A number as it is written: `-8`, `1.5e-3`, `-inf`, `nan`.
    pub(super) fn number(&mut self) -> Result<&'a str> {
        self.at();
        let rest = self.rest();
        let mut last = ' ';
        let end = rest.find(|it: char| {
            let sign = matches!(it, '-' | '+') && matches!(last, ' ' | 'e' | 'E');
            last = it;
            !(sign || it == '.' || it.is_ascii_alphanumeric())
        });
        let number = &rest[..end.unwrap_or(rest.len())];
        if number.parse::<f64>().is_err() || number.starts_with('+') {
            return Err(self.unexpected("a number"));
        }
        self.at += number.len();
        Ok(number)
    }

    /// The error that something else stands here.
    pub(super) fn unexpected(&mut self, expected: &str) -> Fail {
        let at = self.at();
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(it) => match self.peek_word() {
                "" => format!("`{}`", Untrusted(it.encode_utf8(&mut [0; 4]))),
                word => format!("`{}`", Untrusted(word)),
            },
        };
        fail(at, format!("expected {expected}, found {found}"))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

pub(super) fn fail(at: usize, message: impl Into<String>) -> Fail {
    Fail { at, message: message.into() }
}

/// Whether a name needs no quotes: the identifiers of the reference parser, without the words
/// that it takes for types or numbers.
pub(super) fn is_bare(name: &str) -> bool {
    is_word(name) && !super::types::is_type_word(name) && name.parse::<f32>().is_err()
}

pub(super) fn is_word(name: &str) -> bool {
    name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
        && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

fn push(out: &mut Vec<u8>, it: char) {
    out.extend_from_slice(it.encode_utf8(&mut [0; 4]).as_bytes());
}

impl Fail {
    pub(super) fn locate(self, text: &str) -> ParseError {
        let before = &text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
        ParseError { line, column, message: self.message }
    }
}

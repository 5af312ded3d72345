//! Sizes as text: `past + sequence`, `4*batch`, `floor((height + 1)/2)`, `min(512, sequence)`.

use std::{fmt::Write, sync::Arc};

use super::expr::{Atom, Expr};

const MAX_LEN: usize = 256;

/// Reads what [`print()`] writes; any other text is a name of its own.
pub(super) fn parse(text: &str) -> Expr {
    let name = || Expr::atom(Atom::Name(text.into()));
    if text.len() > MAX_LEN {
        return name();
    }
    let mut parser = Parser { rest: text, depth: 0 };
    match parser.sum() {
        // A name that looks like a number is still a name.
        Some(it) if parser.rest.trim().is_empty() && it.constant().is_none() => it,
        _ => name(),
    }
}

/// `None` if the text would be too long, or would read as something else.
pub(super) fn print(it: &Expr) -> Option<Arc<str>> {
    let mut terms = it.terms.iter();
    if let (Some((factors, 1)), None) = (terms.next(), terms.next())
        && let [Atom::Name(name)] = &factors[..]
    {
        return Some(name.clone());
    }
    let mut out = String::new();
    write_sum(it, &mut out)?;
    (out.len() <= MAX_LEN).then(|| out.into())
}

/// Positive terms, negative terms, the constant; each in the order of their names.
fn write_sum(it: &Expr, out: &mut String) -> Option<()> {
    let names = || it.terms.iter().filter(|(factors, _)| !factors.is_empty());
    let ordered = names().filter(|it| *it.1 > 0).chain(names().filter(|it| *it.1 < 0));
    let start = out.len();
    for (factors, coefficient) in ordered {
        write_sign(*coefficient, out.len() == start, out);
        let mut separator = "";
        if coefficient.unsigned_abs() != 1 {
            write!(out, "{}", coefficient.unsigned_abs()).ok()?;
            separator = "*";
        }
        for atom in factors {
            out.push_str(separator);
            separator = "*";
            write_atom(atom, out)?;
        }
    }
    let offset = it.offset();
    if offset != 0 || out.len() == start {
        write_sign(offset, out.len() == start, out);
        write!(out, "{}", offset.unsigned_abs()).ok()?;
    }
    Some(())
}

fn write_sign(coefficient: i64, first: bool, out: &mut String) {
    out.push_str(match (coefficient < 0, first) {
        (false, true) => "",
        (true, true) => "-",
        (false, false) => " + ",
        (true, false) => " - ",
    });
}

fn write_atom(atom: &Atom, out: &mut String) -> Option<()> {
    match atom {
        Atom::Name(it) if name_len(it) == it.len() => out.push_str(it),
        Atom::Name(_) => return None,
        Atom::Floor(inner, by) => {
            let (open, close) = if inner.terms.len() > 1 { ("(", ")") } else { ("", "") };
            write!(out, "floor({open}").ok()?;
            write_sum(inner, out)?;
            write!(out, "{close}/{by})").ok()?;
        }
        Atom::Min(limit, inner) => {
            write!(out, "min({limit}, ").ok()?;
            write_sum(inner, out)?;
            out.push(')');
        }
    }
    Some(())
}

/// The bytes at the start of `text` that make a name; 0 if it starts with none.
///
/// Exporters write `p2o.Dim.0` and `batch-size`: a dash is a minus only after a space.
fn name_len(text: &str) -> usize {
    if !text.starts_with(|it: char| it.is_alphabetic() || it == '_') {
        return 0;
    }
    text.find(|it: char| !(it.is_alphanumeric() || "_.-:".contains(it))).unwrap_or(text.len())
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Option<Expr> {
        const MAX_DEPTH: usize = 8;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut sum = Expr::default();
        let mut sign = if self.eat("-") { -1 } else { 1 };
        loop {
            sum = sum.add(&self.product()?.scale(sign)?)?;
            sign = match () {
                () if self.eat("+") => 1,
                () if self.eat("-") => -1,
                () => break,
            };
        }
        self.depth -= 1;
        Some(sum)
    }

    fn product(&mut self) -> Option<Expr> {
        let mut product = self.factor()?;
        while self.eat("*") {
            product = product.mul(&self.factor()?)?;
        }
        Some(product)
    }

    fn factor(&mut self) -> Option<Expr> {
        if self.eat("floor(") {
            let parentheses = self.eat("(");
            let dividend = self.sum()?;
            self.expect(if parentheses { ")/" } else { "/" })?;
            let by = self.number()?;
            self.expect(")")?;
            return dividend.div_floor(by);
        }
        if self.eat("min(") {
            let limit = if self.eat("-") { -self.number()? } else { self.number()? };
            self.expect(",")?;
            let inner = self.sum()?;
            self.expect(")")?;
            return inner.smaller(&Expr::from(limit));
        }
        self.rest = self.rest.trim_start();
        match name_len(self.rest) {
            0 => self.number().map(Expr::from),
            len => Some(Expr::atom(Atom::Name(self.take(len).into()))),
        }
    }

    /// A number that no name is glued to.
    fn number(&mut self) -> Option<i64> {
        self.rest = self.rest.trim_start();
        let digits = self.rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(self.rest.len());
        let number = self.take(digits).parse().ok()?;
        (name_len(self.rest) == 0).then_some(number)
    }

    fn take(&mut self, len: usize) -> &str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.eat(token).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::expr::tests::exprs, *};
    use crate::tensor::Dim;

    proptest! {
        #[test]
        fn text_reads_back(it in exprs()) {
            if it.constant().is_none() && let Some(text) = print(&it) {
                prop_assert_eq!(parse(&text), it, "{}", text);
            }
        }

        #[test]
        fn any_text_is_some_size(text in "[ab1 +*/()-]{0,20}|\\PC{0,9}") {
            let it = parse(&text);
            prop_assert!(it.constant().is_none());
        }
    }

    fn normal(text: &str) -> Dim {
        parse(text).dim()
    }

    #[test]
    fn spellings_are_normal() {
        for (text, want) in [
            ("sequence + past", "past + sequence"),
            ("b*a*3+1+a*b", "4*a*b + 1"),
            ("floor((h - 1)/2) + 1", "floor((h + 1)/2)"),
            ("floor((floor((h + 1)/2) + 1)/2)", "floor((h + 3)/4)"),
            ("floor(2*h/4)", "floor(h/2)"),
            ("p2o.Dim.0", "p2o.Dim.0"),
            ("batch-size", "batch-size"),
            ("12", "12"),
            ("h/2", "h/2"),
            ("min(512, s)", "min(512, s)"),
        ] {
            assert_eq!(normal(text), Dim::Symbol(want.into()), "{text}");
        }
    }

    #[test]
    fn odd_names_do_not_enter_expressions() {
        let odd = parse("h/2");
        assert_eq!(odd.add(&Expr::from(1)).unwrap().dim(), Dim::Unknown);
        assert_eq!(odd.scale(2).unwrap().div_exact(&Expr::from(2)).unwrap().dim(), normal("h/2"));
    }
}

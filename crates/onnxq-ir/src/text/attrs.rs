//! The grammar of attributes: `axis = 1`, `alpha: float = 1`, `value = float[2] {1, 2}`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    elements,
    lex::{Fail, Ident, Result, fail},
    parse::Parser,
    tree::{Data, Graph, Value},
    types::is_type_word,
};
use crate::{
    ir::{Attr, Sparse},
    tensor::Tensor,
    untrusted::Untrusted,
};

/// The kinds of attributes: name and number (`AttributeProto.AttributeType`).
const KINDS: [(&str, i32); 14] = [
    ("float", 1),
    ("floats", 6),
    ("graph", 5),
    ("graphs", 10),
    ("int", 2),
    ("ints", 7),
    ("sparse_tensor", 11),
    ("sparse_tensors", 12),
    ("string", 3),
    ("strings", 8),
    ("tensor", 4),
    ("tensors", 9),
    ("type_proto", 13),
    ("type_protos", 14),
];

pub(super) fn kind_name(number: i32) -> Option<&'static str> {
    KINDS.iter().find(|it| it.1 == number).map(|it| it.0)
}

/// One value, before it is known whether a number is an integer or a float.
enum One<'a> {
    Number(&'a str),
    String(Bytes),
    Tensor(Tensor),
    Sparse(Sparse),
    Type(Bytes),
    Graph(Graph),
}

impl<'a> Parser<'a> {
    pub(super) fn attr(&mut self) -> Result<(Ident, Value)> {
        let name = self.text.name()?;
        self.attr_after(name)
    }

    /// An attribute whose name was read already.
    pub(super) fn attr_after(&mut self, name: Ident) -> Result<(Ident, Value)> {
        let kind = if self.text.eat(":") { Some(self.kind()?) } else { None };
        self.text.expect("=")?;
        let at = self.text.at();
        let value = if self.text.eat("@") {
            let name = self.text.name()?.text;
            Value::Plain(Attr::Ref { name, kind: kind.map_or(0, |it| it.1) })
        } else if self.text.eat("[") {
            let items = self.list("]", Parser::one)?;
            let kind = match (kind, items.first()) {
                (Some(kind), _) => kind,
                (None, Some(first)) => list_kind(first, &items),
                (None, None) => return Err(fail(at, "an empty list needs a type")),
            };
            list(kind, items).ok_or_else(|| mismatch(at, kind.0))?
        } else {
            let one = self.one()?;
            let kind = kind.unwrap_or_else(|| one.kind());
            single(kind, one).ok_or_else(|| mismatch(at, kind.0))?
        };
        Ok((name, value))
    }

    fn kind(&mut self) -> Result<(&'static str, i32)> {
        let at = self.text.at();
        let word = self.text.word()?;
        let kind = KINDS.iter().find(|it| it.0 == word);
        kind.copied().ok_or_else(|| fail(at, format!("no attribute is a `{}`", Untrusted(word))))
    }

    fn one(&mut self) -> Result<One<'a>> {
        let at = self.text.at();
        let word = self.text.peek_word();
        match self.text.peek() {
            Some('"') => {
                let string = self.text.string()?;
                if !matches!(self.text.peek(), Some('(')) {
                    return Ok(One::String(string.into()));
                }
                let name = String::from_utf8(string).map_err(|_| fail(at, "the name is not UTF-8"));
                Ok(One::Graph(self.graph_after(name?.into())?))
            }
            Some(_) if is_type_word(word) => self.tensor_or_type(),
            Some('_' | 'a'..='z' | 'A'..='Z') if word.parse::<f32>().is_err() => {
                Ok(One::Graph(self.graph()?))
            }
            _ => Ok(One::Number(self.text.number()?)),
        }
    }

    fn tensor_or_type(&mut self) -> Result<One<'a>> {
        let ty = self.ty()?;
        if !matches!(self.text.peek(), Some('{' | '=' | '"' | '_' | 'a'..='z' | 'A'..='Z')) {
            return Ok(One::Type(ty.encode().into()));
        }
        // The reference printer writes the name that an attribute's tensor may have.
        if !matches!(self.text.peek(), Some('{' | '=')) {
            self.text.name()?;
        }
        self.text.eat("=");
        Ok(match self.data(&ty)? {
            Data::Dense(it) => One::Tensor(it),
            Data::Sparse(it) => One::Sparse(it),
        })
    }
}

impl One<'_> {
    fn kind(&self) -> (&'static str, i32) {
        match self {
            One::Number(_) if self.int().is_some() => ("int", 2),
            One::Number(_) => ("float", 1),
            One::String(_) => ("string", 3),
            One::Tensor(_) => ("tensor", 4),
            One::Graph(_) => ("graph", 5),
            One::Sparse(_) => ("sparse_tensor", 11),
            One::Type(_) => ("type_proto", 13),
        }
    }

    fn int(&self) -> Option<i64> {
        let One::Number(it) = self else { return None };
        it.parse().ok()
    }

    fn float(&self) -> Option<f32> {
        let One::Number(it) = self else { return None };
        elements::float(it)
    }
}

/// The kind of a list by its first item; a single float among integers makes all of them floats.
fn list_kind(first: &One, items: &[One]) -> (&'static str, i32) {
    match first.kind().1 {
        1 | 2 if items.iter().all(|it| it.int().is_some()) => ("ints", 7),
        1 | 2 => ("floats", 6),
        3 => ("strings", 8),
        4 => ("tensors", 9),
        5 => ("graphs", 10),
        11 => ("sparse_tensors", 12),
        _ => ("type_protos", 14),
    }
}

fn single((_, kind): (&str, i32), one: One) -> Option<Value> {
    Some(Value::Plain(match (kind, one) {
        (1, one) => Attr::Float(one.float()?),
        (2, one) => Attr::Int(one.int()?),
        (3, One::String(it)) => Attr::String(it),
        (4, One::Tensor(it)) => Attr::Tensor(it),
        (5, One::Graph(it)) => return Some(Value::Graph(it)),
        (11, One::Sparse(it)) => Attr::Sparse(Arc::new(it)),
        (13, One::Type(it)) => Attr::Type(it),
        _ => return None,
    }))
}

fn list((_, kind): (&str, i32), items: Vec<One>) -> Option<Value> {
    fn all<'a, T>(items: Vec<One<'a>>, pick: fn(One<'a>) -> Option<T>) -> Option<Vec<T>> {
        items.into_iter().map(pick).collect()
    }
    macro_rules! pick {
        ($kind:ident) => {
            all(items, |it| if let One::$kind(it) = it { Some(it) } else { None })?
        };
    }
    Some(Value::Plain(match kind {
        6 => Attr::Floats(all(items, |it| it.float())?),
        7 => Attr::Ints(all(items, |it| it.int())?),
        8 => Attr::Strings(pick!(String)),
        9 => Attr::Tensors(pick!(Tensor)),
        10 => return Some(Value::Graphs(pick!(Graph))),
        12 => Attr::Sparses(pick!(Sparse).into_iter().map(Arc::new).collect()),
        14 => Attr::Types(pick!(Type)),
        _ => return None,
    }))
}

fn mismatch(at: usize, kind: &str) -> Fail {
    fail(at, format!("the value is not a `{kind}`"))
}

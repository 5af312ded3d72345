//! The grammar of models, graphs, nodes and types.

use std::collections::HashSet;

use super::{
    elements::{self, Filler},
    lex::{Ident, Lexer, Result, fail},
    tree::{Data, File, Function, Graph, Header, Node, Typed},
    types::{Type, is_type_word},
};
use crate::{
    ir::{Name, Op, Sparse, normal_domain},
    tensor::{DType, Dim, Tensor, TensorType},
    untrusted::Untrusted,
};

/// Graphs and types nest no deeper.
const MAX_DEPTH: usize = 100;

pub(super) struct Parser<'a> {
    pub text: Lexer<'a>,
    pub filler: Filler,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parser<'a> {
        Parser { text: Lexer::new(text), filler: Filler::default(), depth: 0 }
    }

    pub(super) fn file(&mut self) -> Result<File> {
        let header = self.header()?;
        let graph = self.graph()?;
        let (mut functions, mut seen) = (Vec::new(), HashSet::new());
        while self.text.peek().is_some() {
            let at = self.text.at();
            let function = self.function()?;
            let Function { header, graph, .. } = &function;
            let domain = normal_domain(&header.domain).to_owned();
            if !seen.insert((domain, graph.name.clone(), header.overload.clone())) {
                return Err(fail(at, "another function has the same name"));
            }
            functions.push(function);
        }
        Ok(File { header, graph, functions })
    }

    fn header(&mut self) -> Result<Header> {
        let mut header = Header::default();
        if !self.text.eat("<") || self.text.eat(">") {
            return Ok(header);
        }
        loop {
            let at = self.text.at();
            let key = self.text.word()?;
            self.text.expect(":")?;
            match key {
                "doc_string" => header.doc = self.text.text()?,
                "domain" => header.domain = self.text.text()?,
                "ir_version" => header.ir_version = Some(self.int()?),
                "metadata_props" => header.metadata = self.pairs(|it| it.text.text())?,
                "model_version" => header.model_version = self.int()?,
                "opset_import" => header.opsets = Some(self.opsets()?),
                "overload" => header.overload = self.text.text()?,
                "producer_name" => header.producer_name = self.text.text()?,
                "producer_version" => header.producer_version = self.text.text()?,
                _ => return Err(fail(at, format!("there is no field `{}`", Untrusted(key)))),
            }
            if !self.text.eat(",") {
                self.text.expect(">")?;
                return Ok(header);
            }
        }
    }

    fn opsets(&mut self) -> Result<Vec<(Name, i64)>> {
        let mut seen = HashSet::new();
        let list = self.pairs(Parser::int)?.into_iter();
        let list = list.map(|(domain, version)| (Name::from(normal_domain(&domain)), version));
        // The first entry of a domain counts, as in a file.
        Ok(list.filter(|it| seen.insert(it.0.clone())).collect())
    }

    fn pairs<T>(&mut self, value: fn(&mut Parser<'a>) -> Result<T>) -> Result<Vec<(String, T)>> {
        self.text.expect("[")?;
        self.list("]", |it| {
            let key = it.text.text()?;
            it.text.expect(":")?;
            Ok((key, value(it)?))
        })
    }

    fn function(&mut self) -> Result<Function> {
        let header = self.header()?;
        let name = self.text.name()?.text;
        let (mut attributes, mut defaults) = (Vec::new(), Vec::new());
        if self.text.eat("<") {
            self.list(">", |it| {
                let name = it.text.name()?;
                match it.text.peek() {
                    Some(':' | '=') => defaults.push(it.attr_after(name)?),
                    _ => attributes.push(name.text.to_string()),
                }
                Ok(())
            })?;
        }
        let graph = self.graph_after(name)?;
        Ok(Function { header, attributes, defaults, graph })
    }

    pub(super) fn graph(&mut self) -> Result<Graph> {
        let name = self.text.name()?.text;
        self.graph_after(name)
    }

    /// A graph whose name was read already.
    pub(super) fn graph_after(&mut self, name: Name) -> Result<Graph> {
        self.nested(|it| {
            let inputs = if it.text.eat("(") { it.list(")", Parser::typed)? } else { Vec::new() };
            it.text.expect("=>")?;
            it.text.expect("(")?;
            let outputs = it.list(")", Parser::typed)?;
            let locals = if it.text.eat("<") { it.list(">", Parser::typed)? } else { Vec::new() };
            it.text.expect("{")?;
            let mut nodes = Vec::new();
            while !it.text.eat("}") {
                nodes.push(it.node()?);
            }
            Ok(Graph { name, inputs, outputs, locals, nodes })
        })
    }

    fn typed(&mut self) -> Result<Typed> {
        let ty = if is_type_word(self.text.peek_word()) { Some(self.ty()?) } else { None };
        let name = self.text.name()?;
        let data = match &ty {
            Some(ty) if self.text.eat("=") => Some(self.data(ty)?),
            _ => None,
        };
        Ok(Typed { name, ty, data })
    }

    /// Elements in braces; `{...}` for elements that were left out.
    pub(super) fn data(&mut self, ty: &Type) -> Result<Data> {
        let at = self.text.at();
        self.text.expect("{")?;
        match ty {
            Type::Tensor(ty) => Ok(Data::Dense(self.elements(at, ty)?)),
            Type::Sparse(ty) => {
                let indices = self.tensor()?;
                self.text.expect(",")?;
                let values = self.tensor()?;
                self.text.expect("}")?;
                let shape = fixed(at, ty)?;
                Ok(Data::Sparse(Sparse { values, indices, shape }))
            }
            _ => Err(fail(at, "only tensors have elements")),
        }
    }

    fn tensor(&mut self) -> Result<Tensor> {
        let at = self.text.at();
        let ty = self.tensor_type()?;
        self.text.expect("{")?;
        self.elements(at, &ty)
    }

    fn elements(&mut self, at: usize, ty: &TensorType) -> Result<Tensor> {
        let shape = fixed(at, ty)?;
        if !self.text.eat("...") {
            return elements::parse(&mut self.text, ty.dtype, &shape);
        }
        self.text.expect("}")?;
        let tensor = self.filler.tensor(ty.dtype, &shape);
        tensor.ok_or_else(|| fail(at, "the tensor is too large"))
    }

    fn node(&mut self) -> Result<Node> {
        let mut name = Name::from("");
        if self.text.eat("[") {
            if self.text.peek() != Some(']') {
                name = self.text.name()?.text;
            }
            self.text.expect("]")?;
        }
        let outputs = self.names('=')?;
        self.text.expect("=")?;
        let op = self.op()?;
        let mut attrs = if self.text.eat("<") { self.list(">", Parser::attr)? } else { Vec::new() };
        self.text.expect("(")?;
        let inputs = self.names(')')?;
        self.text.expect(")")?;
        if attrs.is_empty() && self.text.eat("<") {
            attrs = self.list(">", Parser::attr)?;
        }
        Ok(Node { name, op, attrs, inputs, outputs })
    }

    /// `a, , b`: nothing before a comma is an empty name; after the last one it is no name.
    fn names(&mut self, close: char) -> Result<Vec<Ident>> {
        let mut list = Vec::new();
        while self.text.peek() != Some(close) {
            list.push(match self.text.peek() {
                Some(',') => Ident { at: self.text.at(), text: "".into() },
                _ => self.text.name()?,
            });
            if !self.text.eat(",") {
                break;
            }
        }
        Ok(list)
    }

    /// `com.microsoft.MatMulNBits`, `Op:overload`; the last part is the name.
    fn op(&mut self) -> Result<Op> {
        let mut domain = String::new();
        let mut name = self.text.name()?.text;
        while self.text.eat(".") {
            if !domain.is_empty() {
                domain.push('.');
            }
            domain.push_str(&name);
            name = self.text.name()?.text;
        }
        let overload = if self.text.eat(":") { self.text.name()?.text } else { "".into() };
        Ok(Op { domain: normal_domain(&domain).into(), name, overload })
    }

    pub(super) fn ty(&mut self) -> Result<Type> {
        self.nested(|it| {
            if DType::from_name(it.text.peek_word()).is_some() {
                return Ok(Type::Tensor(it.tensor_type()?));
            }
            let word = it.text.word()?;
            it.text.expect("(")?;
            let ty = match word {
                "map" => {
                    let key = it.dtype()?;
                    it.text.expect(",")?;
                    Type::Map(key, Box::new(it.ty()?))
                }
                "opaque" => it.opaque()?,
                "optional" => Type::Optional(Box::new(it.ty()?)),
                "seq" => Type::Seq(Box::new(it.ty()?)),
                "sparse_tensor" => Type::Sparse(it.tensor_type()?),
                _ => Type::Raw(it.text.string()?),
            };
            it.text.expect(")")?;
            Ok(ty)
        })
    }

    fn opaque(&mut self) -> Result<Type> {
        let mut parts = Vec::new();
        while self.text.peek() != Some(')') && self.text.peek() != Some(',') {
            parts.push(self.text.name()?.text);
            if !self.text.eat(".") {
                break;
            }
        }
        let (first, mut name) = (parts.join("."), String::new());
        if !self.text.eat(",") {
            return Ok(Type::Opaque { domain: name, name: first });
        }
        name.push_str(&self.text.name()?.text);
        Ok(Type::Opaque { domain: first, name })
    }

    fn tensor_type(&mut self) -> Result<TensorType> {
        let dtype = self.dtype()?;
        if !self.text.eat("[") {
            return Ok(TensorType { dtype, shape: Some(Vec::new()) });
        }
        let at = self.text.at();
        let dims = self.list("]", Parser::dim)?;
        let fixed: Vec<usize> = dims.iter().map(|it| it.fixed().unwrap_or(1)).collect();
        if dtype.nbytes_of(&fixed).is_none() {
            return Err(fail(at, "the dimensions multiply to more than memory can address"));
        }
        Ok(TensorType { dtype, shape: if dims.is_empty() { None } else { Some(dims) } })
    }

    fn dtype(&mut self) -> Result<DType> {
        let dtype = DType::from_name(self.text.peek_word());
        let dtype = dtype.ok_or_else(|| self.text.unexpected("an element type"))?;
        self.text.word()?;
        Ok(dtype)
    }

    fn dim(&mut self) -> Result<Dim> {
        match self.text.peek() {
            Some('?') => {
                self.text.expect("?")?;
                Ok(Dim::Unknown)
            }
            Some('0'..='9') => {
                let at = self.text.at();
                // ONNX stores a dimension as int64.
                let number = self.text.number()?.parse::<i64>().ok();
                let size = number.and_then(|it| usize::try_from(it).ok());
                size.map(Dim::Fixed).ok_or_else(|| fail(at, "the dimension is not an int64"))
            }
            _ => {
                let symbol = self.text.name()?.text;
                Ok(if symbol.is_empty() { Dim::Unknown } else { Dim::Symbol(symbol) })
            }
        }
    }

    pub(super) fn int(&mut self) -> Result<i64> {
        let at = self.text.at();
        let number = self.text.number()?;
        number.parse().map_err(|_| fail(at, format!("`{number}` does not fit int64")))
    }

    /// Items with commas between, up to and including `close`.
    pub(super) fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Parser<'a>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut list = Vec::new();
        while !self.text.eat(close) {
            list.push(item(self)?);
            if !self.text.eat(",") {
                self.text.expect(close)?;
                break;
            }
        }
        Ok(list)
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Parser<'a>) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(fail(self.text.at(), format!("nests deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}

fn fixed(at: usize, ty: &TensorType) -> Result<Vec<usize>> {
    ty.fixed_shape().ok_or_else(|| fail(at, "a tensor with elements needs a fixed shape"))
}

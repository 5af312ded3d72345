//! A model as text: one line per node, constants only if they are small.

use std::fmt::Write;

use super::{
    attrs::kind_name,
    elements,
    lex::{is_bare, is_word},
    types::{Type, dotted, print_tensor},
};
use crate::{
    ir::{
        Attr, Attrs, Def, Function, GraphId, Model, Name, NodeId, Op, Sparse, ValueId,
        unique_names, unique_node_names,
    },
    tensor::{Tensor, TensorType},
    untrusted::escape,
};

/// Lists of inputs and outputs that do not fit are broken, one item per line.
const WIDTH: usize = 100;

#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Tensors with more elements are printed as type and name only.
    pub max_elements: usize,
    /// Print the types of values between nodes.
    pub value_info: bool,
}

impl Default for PrintOptions {
    fn default() -> PrintOptions {
        PrintOptions { max_elements: 8, value_info: false }
    }
}

pub fn print_with(model: &Model, options: &PrintOptions) -> String {
    let mut printer = Printer {
        model,
        options,
        names: unique_names(model),
        node_names: unique_node_names(model),
        out: String::new(),
    };
    printer.header();
    printer.graph(&name(&model.graph(model.main).name), model.main, 0);
    printer.out.push('\n');
    for function in &model.functions {
        printer.function(function);
    }
    printer.out
}

struct Printer<'a> {
    model: &'a Model,
    options: &'a PrintOptions,
    names: Vec<Name>,
    node_names: Vec<Name>,
    out: String,
}

impl Printer<'_> {
    fn header(&mut self) {
        let it = self.model;
        let mut fields = vec![format!("ir_version: {}", it.ir_version), print_opsets(&it.opsets)];
        text_field(&mut fields, "producer_name", &it.producer_name);
        text_field(&mut fields, "producer_version", &it.producer_version);
        text_field(&mut fields, "domain", &it.domain);
        if it.model_version != 0 {
            fields.push(format!("model_version: {}", it.model_version));
        }
        text_field(&mut fields, "doc_string", &it.doc);
        metadata_field(&mut fields, &it.metadata);
        writeln!(self.out, "<{}>", fields.join(", ")).expect("writing to a string");
    }

    fn function(&mut self, it: &Function) {
        let mut fields = vec![format!("domain: {}", quoted(it.op.domain.as_bytes()))];
        text_field(&mut fields, "overload", &it.op.overload);
        fields.push(print_opsets(&it.opsets));
        text_field(&mut fields, "doc_string", &it.doc);
        metadata_field(&mut fields, &it.metadata);
        writeln!(self.out, "<{}>", fields.join(", ")).expect("writing to a string");
        let mut attributes: Vec<String> = it.attributes.iter().map(|it| attr_name(it)).collect();
        attributes.extend(self.attrs(&it.defaults));
        let mut head = name(&it.op.name);
        if !attributes.is_empty() {
            write!(head, " <{}>", attributes.join(", ")).expect("writing to a string");
        }
        self.graph(&head, it.body, 0);
        self.out.push('\n');
    }

    /// Prints a graph whose first line continues at the end of the output.
    fn graph(&mut self, head: &str, id: GraphId, level: usize) {
        let graph = self.model.graph(id);
        let inputs: Vec<String> = graph.inputs.iter().map(|it| self.input(*it)).collect();
        let outputs: Vec<String> = graph.outputs.iter().map(|it| self.typed(*it)).collect();
        let line = format!("{head} ({}) => ({})", inputs.join(", "), outputs.join(", "));
        if line.chars().count() + level * INDENT.len() <= WIDTH {
            self.out.push_str(&line);
        } else {
            write!(self.out, "{head} (").expect("writing to a string");
            self.lines(&inputs, level);
            self.out.push_str(") => (");
            self.lines(&outputs, level);
            self.out.push(')');
        }
        let locals = self.locals(id);
        if !locals.is_empty() {
            self.out.push_str(" <");
            self.lines(&locals, level);
            self.out.push('>');
        }
        self.out.push_str(" {\n");
        for node in self.model.nodes_of(id) {
            self.node(node, level + 1);
        }
        self.indent(level);
        self.out.push('}');
    }

    /// Items on lines of their own, one step deeper.
    fn lines(&mut self, items: &[String], level: usize) {
        for (i, item) in items.iter().enumerate() {
            self.out.push_str(if i == 0 { "\n" } else { ",\n" });
            self.indent(level + 1);
            self.out.push_str(item);
        }
        if !items.is_empty() {
            self.out.push('\n');
            self.indent(level);
        }
    }

    fn input(&self, id: ValueId) -> String {
        let typed = self.typed(id);
        match &self.model.value(id).def {
            Def::Input(_, Some(default)) => format!("{typed} = {}", self.elements(default)),
            _ => typed,
        }
    }

    fn typed(&self, id: ValueId) -> String {
        let name = name(&self.names[id.index()]);
        self.type_of(id).map_or(name.clone(), |ty| format!("{ty} {name}"))
    }

    fn type_of(&self, id: ValueId) -> Option<String> {
        let value = self.model.value(id);
        // What a constant is, not what a file declares of it: its elements are printed.
        if let Def::Const(tensor) | Def::Input(_, Some(tensor)) = &value.def {
            return Some(tensor_type(tensor));
        }
        if let Some(ty) = &value.ty {
            return Some(print_tensor(ty));
        }
        let info = value.kept.as_ref()?.info.as_ref()?;
        Some(Type::of_value_info(info)?.print())
    }

    /// Constants that have a use, as the writer stores them, and types of computed values.
    fn locals(&self, id: GraphId) -> Vec<String> {
        let graph = self.model.graph(id);
        let used = |it: &&ValueId| !self.model.value(**it).uses.is_empty();
        let mut list: Vec<String> =
            graph.constants.iter().filter(used).filter_map(|it| self.constant(*it)).collect();
        if self.options.value_info {
            let nodes = self.model.nodes_of(id);
            let values = nodes.flat_map(|it| self.model.node(it).outputs.iter().copied());
            let inner = values.filter(|it| !graph.outputs.contains(it));
            let typed = inner
                .filter(|it| self.type_of(*it).is_some() && !self.names[it.index()].is_empty());
            list.extend(typed.map(|it| self.typed(it)));
        }
        list
    }

    fn constant(&self, id: ValueId) -> Option<String> {
        let name = name(&self.names[id.index()]);
        match &self.model.value(id).def {
            Def::Const(tensor) => {
                let ty = tensor_type(tensor);
                Some(match elements::print(tensor, self.options.max_elements) {
                    Some(elements) => format!("{ty} {name} = {elements}"),
                    None => format!("{ty} {name}"),
                })
            }
            Def::Sparse(it) => {
                Some(format!("{} {name} = {}", sparse_type(it), self.sparse_elements(it)))
            }
            Def::Input(..) | Def::Node(_) => None,
        }
    }

    fn node(&mut self, id: NodeId, level: usize) {
        self.indent(level);
        let node = self.model.node(id);
        if let Some(name) = self.node_name(id) {
            write!(self.out, "[{name}] ").expect("writing to a string");
        }
        let outputs = self.list(node.outputs.iter().copied().map(Some));
        let inputs = self.list(node.inputs.iter().copied());
        let op = print_op(&node.op);
        write!(self.out, "{outputs} = {op}").expect("writing to a string");
        if node.attrs.graphs().next().is_some() {
            writeln!(self.out, " ({inputs}) <").expect("writing to a string");
            self.attrs_with_graphs(&node.attrs, level + 1);
            self.indent(level);
            self.out.push_str(">\n");
            return;
        }
        let attrs = self.attrs(&node.attrs);
        if !attrs.is_empty() {
            write!(self.out, " <{}>", attrs.join(", ")).expect("writing to a string");
        }
        writeln!(self.out, " ({inputs})").expect("writing to a string");
    }

    /// The name of a node, unless it says no more than the name of its first output.
    fn node_name(&self, id: NodeId) -> Option<String> {
        let (node, unique) = (self.model.node(id), &self.node_names[id.index()]);
        if let Some(output) = node.outputs.first()
            && (self.model.value(*output).name == node.name
                || self.names[output.index()] == *unique)
        {
            return None;
        }
        if unique.is_empty() { None } else { Some(name(unique)) }
    }

    /// `a, , b`: an absent value is nothing before a comma, but `""` at the end.
    fn list(&self, values: impl ExactSizeIterator<Item = Option<ValueId>>) -> String {
        let last = values.len().saturating_sub(1);
        let names = values.enumerate().map(|(i, it)| {
            let it = it.map_or("", |it| &*self.names[it.index()]);
            if it.is_empty() && i < last { String::new() } else { name(it) }
        });
        names.collect::<Vec<_>>().join(", ")
    }

    fn attrs_with_graphs(&mut self, attrs: &Attrs, level: usize) {
        for (i, (name, attr)) in attrs.iter().enumerate() {
            if i != 0 {
                self.out.push_str(",\n");
            }
            self.indent(level);
            match attr {
                Attr::Graph(id) => {
                    write!(self.out, "{} = ", attr_name(name)).expect("writing to a string");
                    self.subgraph(*id, level);
                }
                Attr::Graphs(list) => {
                    write!(self.out, "{}: graphs = [", attr_name(name))
                        .expect("writing to a string");
                    for (i, id) in list.iter().enumerate() {
                        self.out.push_str(if i == 0 { "" } else { ", " });
                        self.subgraph(*id, level);
                    }
                    self.out.push(']');
                }
                _ => self.out.push_str(&self.attr(name, attr)),
            }
        }
        self.out.push('\n');
    }

    fn subgraph(&mut self, id: GraphId, level: usize) {
        self.graph(&name(&self.model.graph(id).name), id, level);
    }

    fn attrs(&self, attrs: &Attrs) -> Vec<String> {
        attrs.iter().map(|(name, attr)| self.attr(name, attr)).collect()
    }

    fn attr(&self, name: &str, attr: &Attr) -> String {
        let name = attr_name(name);
        let list = |kind: &str, items: Vec<String>| match items.is_empty() {
            true => format!("{name}: {kind} = []"),
            false => format!("{name} = [{}]", items.join(", ")),
        };
        let sparse = |it: &Sparse| format!("{} {}", sparse_type(it), self.sparse_elements(it));
        match attr {
            Attr::Float(it) => format!("{name} = {}", print_float(*it)),
            Attr::Int(it) => format!("{name} = {it}"),
            Attr::String(it) => format!("{name} = {}", quoted(it)),
            Attr::Tensor(it) => format!("{name} = {}", self.tensor(it)),
            Attr::Sparse(it) => format!("{name} = {}", sparse(it)),
            Attr::Type(it) => format!("{name} = {}", Type::of_proto(it).print()),
            Attr::Floats(it) => list("floats", it.iter().map(|it| print_float(*it)).collect()),
            Attr::Ints(it) => list("ints", it.iter().map(i64::to_string).collect()),
            Attr::Strings(it) => list("strings", it.iter().map(|it| quoted(it)).collect()),
            Attr::Tensors(it) => list("tensors", it.iter().map(|it| self.tensor(it)).collect()),
            Attr::Sparses(it) => list("sparse_tensors", it.iter().map(|it| sparse(it)).collect()),
            Attr::Types(it) => {
                list("type_protos", it.iter().map(|it| Type::of_proto(it).print()).collect())
            }
            Attr::Ref { name: of, kind } => match kind_name(*kind) {
                Some(kind) => format!("{name}: {kind} = @{}", attr_name(of)),
                None => format!("{name} = @{}", attr_name(of)),
            },
            // Only a list of no graphs comes here.
            Attr::Graph(_) | Attr::Graphs(_) => format!("{name}: graphs = []"),
        }
    }

    fn tensor(&self, it: &Tensor) -> String {
        format!("{} {}", tensor_type(it), self.elements(it))
    }

    fn elements(&self, it: &Tensor) -> String {
        elements::print(it, self.options.max_elements).unwrap_or_else(|| "{...}".to_owned())
    }

    fn sparse_elements(&self, it: &Sparse) -> String {
        format!("{{{}, {}}}", self.tensor(&it.indices), self.tensor(&it.values))
    }

    fn indent(&mut self, level: usize) {
        self.out.extend(std::iter::repeat_n(INDENT, level));
    }
}

const INDENT: &str = "   ";

/// A name, in quotes unless it is an identifier.
pub(super) fn name(name: &str) -> String {
    if is_bare(name) { name.to_owned() } else { quoted(name.as_bytes()) }
}

/// A string in quotes, with everything escaped that could move a cursor or forge a line.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(&chunk.valid().replace('\\', r"\\").replace('"', "\\\"")));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string");
        }
    }
    out.push('"');
    out
}

fn attr_name(name: &str) -> String {
    if is_word(name) { name.to_owned() } else { quoted(name.as_bytes()) }
}

fn print_op(op: &Op) -> String {
    let mut out = String::new();
    if !op.domain.is_empty() {
        write!(out, "{}.", dotted(&op.domain)).expect("writing to a string");
    }
    out.push_str(&name(&op.name));
    if !op.overload.is_empty() {
        write!(out, ":{}", name(&op.overload)).expect("writing to a string");
    }
    out
}

fn print_opsets(opsets: &[(Name, i64)]) -> String {
    let list: Vec<String> = opsets
        .iter()
        .map(|(it, version)| format!("{} : {version}", quoted(it.as_bytes())))
        .collect();
    format!("opset_import: [{}]", list.join(", "))
}

fn text_field(fields: &mut Vec<String>, key: &str, value: &str) {
    if !value.is_empty() {
        fields.push(format!("{key}: {}", quoted(value.as_bytes())));
    }
}

fn metadata_field(fields: &mut Vec<String>, pairs: &[(String, String)]) {
    if pairs.is_empty() {
        return;
    }
    let pair = |(key, value): &(String, String)| {
        format!("{}: {}", quoted(key.as_bytes()), quoted(value.as_bytes()))
    };
    fields.push(format!(
        "metadata_props: [{}]",
        pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
    ));
}

/// A float that no reader takes for an integer.
fn print_float(value: f32) -> String {
    let text = elements::print_f32(value);
    if text.contains(['.', 'e', 'n']) { text } else { text + ".0" }
}

fn tensor_type(it: &Tensor) -> String {
    print_tensor(&TensorType::new(it.dtype, it.shape.iter().copied()))
}

fn sparse_type(it: &Sparse) -> String {
    let ty = TensorType::new(it.values.dtype, it.shape.iter().copied());
    format!("sparse_tensor({})", print_tensor(&ty))
}

//! The bytes of an `.onnx` file → `Model`.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use bytes::Bytes;
use prost::Message;

use super::{
    Files, KNOWN_IR, KNOWN_OPSET, Limits, LoadError, Loaded, OpenOptions,
    graph_in::{GraphReader, pairs},
    proto::{self, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto},
    scan::{self, Unknown},
    tensor_in::TensorReader,
};
use crate::{
    diag::{Code, Warning},
    ir::{Attrs, Function, KeptModel, Model, Name, Op, normal_domain},
};

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Loaded, LoadError> {
    let mut files = Files::new(path, options.external)?;
    let bytes = files.map_model()?;
    read(bytes, files, options)
}

/// A model in bytes; `files` knows where its external data is.
pub(super) fn read(bytes: Bytes, files: Files, options: &OpenOptions) -> Result<Loaded, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    let scan = scan::scan(&bytes, "ModelProto", &options.limits)?;
    let unknown: Vec<u8> = kept_unknown(&scan.unknown, options)?
        .flat_map(|it| bytes[it.range.clone()].to_vec())
        .collect();
    let proto = ModelProto::decode(bytes).map_err(LoadError::Decode)?;
    check_versions(&proto, options)?;
    check_functions(&proto, &options.limits)?;

    let tensors = TensorReader::new(Some(files), options.limits);
    let mut reader = GraphReader::new(tensors, proto.ir_version());
    header(&mut reader, &proto)?;
    reader.model.kept.unknown = unknown.into();
    let graph = proto.graph.as_ref().ok_or(LoadError::NoGraph)?;
    let main = reader.model.main;
    reader.graph(main, graph)?;
    for function in &proto.functions {
        self::function(&mut reader, function)?;
    }
    let GraphReader { model, tensors, .. } = reader;
    let mut warnings = tensors.overlaps();
    warnings.splice(0..0, tensors.warnings);
    for it in &scan.unknown {
        let fate = if it.depth == 1 { "kept" } else { "dropped" };
        let text = format!("unknown field {} of {} is {fate}", it.number, it.message);
        warnings.push(Warning::new(Code::W107, text));
    }
    let mut seen = HashSet::new();
    warnings.retain(|it| seen.insert(it.clone()));
    let files = tensors.files.ok_or(LoadError::NoGraph)?;
    Ok(Loaded { model, warnings, files })
}

/// Unknown fields of the model itself pass through; deeper ones would be lost.
fn kept_unknown<'a>(
    unknown: &'a [Unknown],
    options: &OpenOptions,
) -> Result<impl Iterator<Item = &'a Unknown>, LoadError> {
    if let Some(lost) = unknown.iter().find(|it| it.depth > 1)
        && !options.drop_unknown
    {
        return Err(LoadError::UnknownField { message: lost.message, number: lost.number });
    }
    Ok(unknown.iter().filter(|it| it.depth == 1))
}

fn check_versions(proto: &ModelProto, options: &OpenOptions) -> Result<(), LoadError> {
    if proto.graph.is_none() {
        return Err(LoadError::NoGraph);
    }
    check_ir_version(proto.ir_version())?;
    let lists = proto.functions.iter().map(|it| &it.opset_import);
    if lists.chain([&proto.opset_import]).any(|it| it.len() > options.limits.opsets) {
        return Err(LoadError::Opsets { limit: options.limits.opsets });
    }
    let functions = proto.functions.iter().map(|it| opsets(&it.opset_import));
    check_opsets(&opsets(&proto.opset_import), functions, options)
}

/// What a text states must be what an `.onnx` file may state: it becomes one.
pub(super) fn check_text(model: &Model, options: &OpenOptions) -> Result<(), LoadError> {
    check_ir_version(model.ir_version)?;
    check_opsets(&model.opsets, model.functions.iter().map(|it| it.opsets.clone()), options)
}

fn check_ir_version(version: i64) -> Result<(), LoadError> {
    if version > KNOWN_IR {
        return Err(LoadError::IrVersion { version, known: KNOWN_IR });
    }
    Ok(())
}

fn check_opsets(
    own: &[(Name, i64)],
    functions: impl Iterator<Item = Vec<(Name, i64)>>,
    options: &OpenOptions,
) -> Result<(), LoadError> {
    if own.is_empty() {
        return Err(LoadError::NoOpset);
    }
    for (domain, version) in own.iter().cloned().chain(functions.flatten()) {
        if version < 0 {
            return Err(LoadError::NegativeOpset { domain: domain.to_string(), version });
        }
        if domain.is_empty() && version > KNOWN_OPSET && !options.allow_unknown_opset {
            let known = KNOWN_OPSET;
            return Err(LoadError::Opset { domain: "ai.onnx".into(), version, known });
        }
    }
    Ok(())
}

fn header<'a>(reader: &mut GraphReader<'a>, proto: &'a ModelProto) -> Result<(), LoadError> {
    let training_info = proto
        .training_info
        .iter()
        .map(|it| Ok(embed_training(reader, it.clone())?.encode_to_vec().into()))
        .collect::<Result<_, LoadError>>()?;
    let model = &mut reader.model;
    model.ir_version = proto.ir_version();
    model.opsets = opsets(&proto.opset_import);
    model.producer_name = proto.producer_name().to_owned();
    model.producer_version = proto.producer_version().to_owned();
    model.domain = proto.domain().to_owned();
    model.model_version = proto.model_version();
    model.doc = proto.doc_string().to_owned();
    model.metadata = pairs(&proto.metadata_props);
    model.kept = KeptModel {
        training_info,
        configuration: proto.configuration.iter().map(|it| it.encode_to_vec().into()).collect(),
        unknown: Default::default(),
    };
    Ok(())
}

/// The first entry of a domain counts.
fn opsets(list: &[proto::OperatorSetIdProto]) -> Vec<(Name, i64)> {
    let mut seen = HashSet::new();
    let entries = list.iter().map(|it| (Name::from(normal_domain(it.domain())), it.version()));
    entries.filter(|it| seen.insert(it.0.clone())).collect()
}

/// Training graphs pass through as they are, so their external tensors move into them.
fn embed_training(
    reader: &mut GraphReader,
    mut info: proto::TrainingInfoProto,
) -> Result<proto::TrainingInfoProto, LoadError> {
    for graph in [&mut info.initialization, &mut info.algorithm].into_iter().flatten() {
        embed(graph, &mut reader.tensors)?;
    }
    Ok(info)
}

fn embed(graph: &mut GraphProto, reader: &mut TensorReader) -> Result<(), LoadError> {
    let attrs = graph.node.iter_mut().flat_map(|it| &mut it.attribute);
    let (mut sparse, mut inner) = (Vec::new(), Vec::new());
    let mut tensors: Vec<&mut TensorProto> = graph.initializer.iter_mut().collect();
    sparse.extend(&mut graph.sparse_initializer);
    for it in attrs {
        tensors.extend(it.t.iter_mut().chain(&mut it.tensors));
        sparse.extend(it.sparse_tensor.iter_mut().chain(&mut it.sparse_tensors));
        inner.extend(it.g.iter_mut().chain(&mut it.graphs));
    }
    for it in sparse {
        tensors.extend(it.values.iter_mut().chain(&mut it.indices));
    }
    for tensor in tensors {
        let bytes = reader.tensor(tensor)?;
        if tensor.data_location() == proto::tensor_proto::DataLocation::External {
            tensor.raw_data = bytes.bytes().ok();
            tensor.data_location = None;
            tensor.external_data.clear();
        }
    }
    inner.into_iter().try_for_each(|it| embed(it, reader))
}

fn function<'a>(reader: &mut GraphReader<'a>, proto: &'a FunctionProto) -> Result<(), LoadError> {
    let body = reader.model.add_graph();
    reader.function(body, proto)?;
    let mut defaults = Attrs::default();
    let mut seen: HashSet<&str> = proto.attribute.iter().map(|it| &**it).collect();
    for it in &proto.attribute_proto {
        if !seen.insert(it.name()) {
            let (node, attribute) = (proto.name().to_owned(), it.name().to_owned());
            return Err(LoadError::DuplicateAttribute { node, attribute });
        }
        let value = reader.attr(it)?.ok_or_else(|| LoadError::Attribute {
            node: proto.name().to_owned(),
            attribute: it.name().to_owned(),
        })?;
        defaults.push(it.name().into(), it.doc_string().to_owned(), value);
    }
    let op = function_op(proto);
    reader.model.functions.push(Function {
        op,
        body,
        opsets: opsets(&proto.opset_import),
        attributes: proto.attribute.clone(),
        defaults,
        doc: proto.doc_string().to_owned(),
        metadata: pairs(&proto.metadata_props),
    });
    Ok(())
}

fn function_op(proto: &FunctionProto) -> Op {
    Op {
        domain: normal_domain(proto.domain()).into(),
        name: proto.name().into(),
        overload: proto.overload().into(),
    }
}

/// No cycles, and no blow-up: 40 functions that call the next one twice are 2^40 nodes.
fn check_functions(proto: &ModelProto, limits: &Limits) -> Result<(), LoadError> {
    let mut bodies: BTreeMap<Op, &FunctionProto> = BTreeMap::new();
    for it in &proto.functions {
        let op = function_op(it);
        let name = op.to_string();
        if bodies.insert(op, it).is_some() {
            return Err(LoadError::DuplicateFunction { name });
        }
    }
    let mut sizes = BTreeMap::new();
    for (op, body) in &bodies {
        let size = count(&body.node, &bodies, &mut sizes, 0, limits)?;
        check_size(size, op, limits)?;
    }
    let nodes = proto.graph.as_ref().map_or(&[][..], |it| &it.node);
    let size = count(nodes, &bodies, &mut sizes, 0, limits)?;
    match bodies.keys().next() {
        Some(op) => check_size(size, op, limits),
        None => Ok(()),
    }
}

fn check_size(size: u64, op: &Op, limits: &Limits) -> Result<(), LoadError> {
    if size <= limits.inlined_nodes {
        return Ok(());
    }
    Err(LoadError::FunctionExpansion { name: op.to_string(), limit: limits.inlined_nodes })
}

/// Nodes after inlining. `sizes` holds finished functions, and `None` for those under way.
fn count(
    nodes: &[NodeProto],
    bodies: &BTreeMap<Op, &FunctionProto>,
    sizes: &mut BTreeMap<Op, Option<u64>>,
    depth: usize,
    limits: &Limits,
) -> Result<u64, LoadError> {
    let mut total = 0u64;
    for node in nodes {
        total = total.saturating_add(1);
        for graph in subgraphs(node) {
            total = total.saturating_add(count(&graph.node, bodies, sizes, depth + 1, limits)?);
        }
        if bodies.is_empty() {
            continue;
        }
        let op = Op {
            domain: normal_domain(node.domain()).into(),
            name: node.op_type().into(),
            overload: node.overload().into(),
        };
        let Some(body) = bodies.get(&op) else { continue };
        let size = match sizes.get(&op) {
            Some(Some(size)) => *size,
            Some(None) => return Err(LoadError::FunctionCycle { name: op.to_string() }),
            // Calls deeper than this would also overflow every other tool's stack.
            None if depth > 512 => {
                let limit = limits.inlined_nodes;
                return Err(LoadError::FunctionExpansion { name: op.to_string(), limit });
            }
            None => {
                sizes.insert(op.clone(), None);
                let size = count(&body.node, bodies, sizes, depth + 1, limits)?;
                sizes.insert(op, Some(size));
                size
            }
        };
        total = total.saturating_add(size);
    }
    Ok(total)
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|it| it.g.iter().chain(&it.graphs))
}

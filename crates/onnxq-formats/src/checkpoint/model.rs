//! An ONNX model as the checkpoint that it was exported from: its weights by the names that exporters leave,
//! in initializers or in the paths of nodes, and the configuration beside it.
//!
//! Names are no proof. Whoever uses such a checkpoint must run both models.

use std::{collections::BTreeMap, path::Path};

use onnxq_ir::{
    Def, Model, NodeId, ValueId,
    onnx::{self, ExternalPolicy, OpenOptions},
    tensor::Tensor,
};

use super::{
    Checkpoint, Config, Weights,
    weights::{Data, Stored},
};
use crate::{CheckpointError, arch};

/// The table of words, which every decoder has, in the spellings of checkpoints.
const WORDS: [&str; 3] = ["model.embed_tokens.weight", "transformer.wte.weight", "wte.weight"];

impl Checkpoint {
    /// Reads an ONNX model and the `config.json` beside it.
    ///
    /// # Errors
    /// What [`onnx::open`] says; E122 without a configuration; E124 if a parameter is not found by its name or has another shape.
    pub fn open_model(path: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        // optimum has models in a folder of that name.
        let places = [folder.to_owned(), folder.join("..")];
        let none = || CheckpointError::NoCheckpoint { path: path.into() };
        let place = places.into_iter().find(|it| it.join("config.json").is_file());
        let place = place.ok_or_else(none)?;
        let file = place.join("config.json");
        let io = |source| CheckpointError::Io { path: file.clone(), source };
        let json = onnxq_ir::fs::read_file(&file).map_err(io)?;
        let loaded = onnx::open(path, &OpenOptions { external: policy, ..OpenOptions::default() })?;
        let named = named(&loaded.model).ok_or_else(none)?;
        let config = || Config::parse("config.json", &json);
        // What is described decides which of the names are parameters.
        let all = weights(named.iter().map(|(name, it)| (name.clone(), it.clone())));
        let described = arch::describe(&config()?, &place, &all)?;
        let params = described.params();
        let is_param = |name: &str| params.iter().any(|it| it.name == name);
        let linears = described.linears();
        let is_turned = |name: &str| linears.iter().any(|it| it.turned && it.weight.name == name);
        let own = named.into_iter().filter(|it| is_param(&it.0));
        let weights = weights(own.map(|(name, tensor)| {
            let is_matrix = tensor.shape.len() == 2;
            let tensor = if is_matrix && is_turned(&name) { tensor.transposed() } else { tensor };
            (name, tensor)
        }));
        let architecture = arch::describe(&config()?, &place, &weights)?;
        weights.check(&architecture, path).map_err(|error| match error {
            CheckpointError::Missing { name, .. } => {
                CheckpointError::Unnamed { path: path.into(), name }
            }
            other => other,
        })?;
        let files = loaded.files.built(path);
        Ok(Checkpoint {
            folder: place,
            architecture,
            weights,
            files,
            words: Vec::new(),
            is_guessed: true,
        })
    }
}

fn weights(named: impl Iterator<Item = (String, Tensor)>) -> Weights {
    let mut weights = Weights::default();
    for (name, tensor) in named {
        let (type_name, shape) = (tensor.dtype.name().to_owned(), tensor.shape.clone());
        let data = if tensor.dtype.is_float() { Data::View(tensor) } else { Data::Other };
        let stored = Stored { name: name.clone(), type_name, shape, data, blocks: None };
        // Names are keys of a map: none is there twice.
        let _ = weights.add(name, stored);
    }
    weights
}

/// Constants by every name that tells what they are, without what stands before all of them; rows are
/// outputs. `None` if there is no table of words.
fn named(m: &Model) -> Option<BTreeMap<String, Tensor>> {
    let mut all: BTreeMap<String, Tensor> = BTreeMap::new();
    for (value, tensor) in m.constants() {
        all.insert(m.value(value).name.to_string(), tensor.clone());
    }
    for node in m.nodes() {
        for (name, tensor) in products(m, node) {
            all.insert(name, tensor);
        }
    }
    let prefix = WORDS.iter().find_map(|words| {
        let mut found = all.keys().filter_map(|it| it.strip_suffix(words));
        found.find(|it| it.is_empty() || it.ends_with('.')).map(str::to_owned)
    })?;
    let own =
        |(name, tensor): (String, Tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor));
    Some(all.into_iter().filter_map(own).collect())
}

/// The weight of a product as checkpoints have it, under the names of the initializer and of the node.
fn products(m: &Model, node: NodeId) -> Vec<(String, Tensor)> {
    let product = m.node(node);
    let is_gemm = product.op.is("Gemm");
    if !is_gemm && !product.op.is("MatMul") {
        return Vec::new();
    }
    let Some(weight) = product.inputs.get(1).copied().flatten() else { return Vec::new() };
    let Some((value, tensor, is_turned)) = matrix(m, weight) else { return Vec::new() };
    let by_rows = is_turned != (is_gemm && m.int_attr(node, "transB", 0) != 0);
    let tensor = if by_rows { tensor } else { tensor.transposed() };
    let mut names = vec![m.value(value).name.to_string()];
    names.extend(module(&product.name).map(|it| format!("{it}.weight")));
    names.into_iter().map(|name| (name, tensor.clone())).collect()
}

/// A constant matrix, perhaps behind a `Transpose`.
fn matrix(m: &Model, value: ValueId) -> Option<(ValueId, Tensor, bool)> {
    let is_matrix = |it: &&Tensor| it.shape.len() == 2;
    if let Some(tensor) = m.constant(value).ok().filter(is_matrix) {
        return Some((value, tensor.clone(), false));
    }
    let Def::Node(node) = m.value(value).def else { return None };
    if !m.node(node).op.is("Transpose") {
        return None;
    }
    let value = m.operand(node, 0).ok()?;
    let tensor = m.constant(value).ok().filter(is_matrix)?;
    Some((value, tensor.clone(), true))
}

/// `model.layers.0.mlp.up_proj` of `/model/layers.0/mlp/up_proj/MatMul`, and of a node that is called so.
fn module(node: &str) -> Option<String> {
    let Some(path) = node.strip_prefix('/') else { return Some(node.to_owned()) };
    Some(path.rsplit_once('/')?.0.replace('/', "."))
}

//! A checkpoint as the tensors and the keys of a GGUF file, as llama.cpp's `convert_hf_to_gguf.py`
//! writes them.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use onnxq_ir::tensor::{DType, Rows, Tensor, TensorError};

use super::{families::Family, keys_of, names};
use crate::{
    CheckpointError,
    arch::{Architecture, Linear, Param},
    build::raised,
    checkpoint::{Checkpoint, weights::Blocks},
    gguf::Value,
};

/// What a file consists of, but for the words.
pub struct Export {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Keys that say what the architecture is.
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<ExportTensor>,
    /// What the format cannot say.
    pub notes: Vec<String>,
}

/// A tensor of a file, and the constants of the graph that it is made of.
pub struct ExportTensor {
    /// As GGUF calls it.
    pub name: String,
    /// Rows before columns.
    pub shape: Vec<usize>,
    /// The type that the checkpoint stores it in; float32 of what is not rounded.
    pub dtype: DType,
    /// Whether a file of a narrower type has it in that: a matrix, but for learnt vectors of places.
    pub is_rounded: bool,
    pub parts: Vec<ExportPart>,
    /// Which row of the parts, below each other, each of its rows is; in their order if there is none.
    pub order: Option<Vec<usize>>,
    /// What the checkpoint has, if it is a GGUF file: of the rows of this tensor in their order.
    pub stored: Option<Blocks>,
}

/// Rows of a tensor that the graph has as one constant.
pub struct ExportPart {
    /// What the graph calls it: a tied table has two names.
    pub names: Vec<String>,
    pub rows: Range<usize>,
    /// `[rows, columns]`, in float32.
    pub tensor: Tensor,
}

impl Checkpoint {
    /// The same as a GGUF file.
    ///
    /// # Errors
    /// E122 of an architecture that GGUF does not have, or that is not written here.
    pub fn export(&self) -> Result<Export, CheckpointError> {
        let family = Family::of(&self.architecture.model_type)?;
        let (mut metadata, mut notes) = (Vec::new(), Vec::new());
        keys_of::write(&self.architecture, family, &mut metadata, &mut notes)?;
        let mut tensors = keys_of::factors(&self.architecture);
        let uses = uses(&self.architecture);
        for (name, parts) in &uses.tensors {
            tensors.push(self.tensor(family, name, parts, &uses)?);
        }
        tensors.sort_by_key(|it| place(&it.name));
        Ok(Export { architecture: family.architecture, metadata, tensors, notes })
    }

    fn tensor(
        &self,
        family: &Family,
        name: &str,
        parts: &[&Param],
        uses: &Uses,
    ) -> Result<ExportTensor, CheckpointError> {
        let theirs = names::to(family, name).ok_or_else(|| CheckpointError::NoName {
            name: name.to_owned(),
            architecture: family.architecture.to_owned(),
        })?;
        let (mut shape, is_turned) = (parts[0].shape.clone(), uses.is_turned(name));
        if is_turned {
            shape.reverse();
        }
        let all = |it: &Param| it.rows.clone().unwrap_or(0..shape[0]);
        let part = |it: &&Param| {
            let tensor = self.weights.get(it);
            let tensor = match self.weights.plus(it) {
                0.0 if is_turned => tensor.transposed(),
                0.0 => tensor,
                plus => raised(tensor, plus),
            };
            ExportPart { names: uses.names(it), rows: all(it), tensor }
        };
        let parts: Vec<ExportPart> = parts.iter().map(part).collect();
        let covered =
            parts.iter().fold(0, |end, it| if it.rows.start == end { it.rows.end } else { end });
        if covered != shape[0] {
            return Err(CheckpointError::NoName {
                name: name.to_owned(),
                architecture: family.architecture.to_owned(),
            });
        }
        let is_rounded = shape.len() == 2 && theirs != names::PLACES;
        let dtype = if is_rounded { self.weights.dtype(name) } else { DType::F32 };
        let order = family.order(&self.architecture, name, shape[0]);
        let stored = self.weights.blocks(name);
        Ok(ExportTensor { name: theirs, shape, dtype, is_rounded, parts, order, stored })
    }
}

impl ExportTensor {
    /// Its values in float32, rows in the order of the file: a view.
    pub fn floats(&self) -> Tensor {
        if self.shape.len() != 2 {
            return self.list();
        }
        let shape = [self.shape[0], self.shape[1]];
        let parts = self.parts.iter().map(|it| it.tensor.clone()).collect();
        let whole = match &self.parts[..] {
            [only] => only.tensor.clone(),
            _ => Tensor::of_rows(DType::F32, shape, Arc::new(Stacked(parts))),
        };
        match &self.order {
            Some(order) => whole.picked(order.clone()),
            None => whole,
        }
    }

    /// A list, which is short.
    fn list(&self) -> Tensor {
        let (parts, order) = (self.parts.iter().map(|it| it.tensor.clone()), self.order.clone());
        let parts: Vec<Tensor> = parts.collect();
        Tensor::lazy(DType::F32, self.shape.clone(), move || {
            let mut values = Vec::new();
            for part in &parts {
                values.extend(part.to_f32()?);
            }
            let values: Vec<f32> = match &order {
                Some(order) => order.iter().map(|it| values[*it]).collect(),
                None => values,
            };
            Tensor::from_f32(&[values.len()], values).bytes()
        })
    }
}

/// Matrices below each other.
struct Stacked(Vec<Tensor>);

impl Rows for Stacked {
    fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
        let (mut out, mut start) = (Vec::new(), 0);
        for part in &self.0 {
            let end = start + part.shape[0];
            let own = rows.start.max(start)..rows.end.min(end);
            if !own.is_empty() {
                let values = part.rows_f32(own.start - start..own.end - start)?;
                let lines = values.chunks_exact(part.shape[1]);
                lines.for_each(|it| out.extend_from_slice(&it[columns.clone()]));
            }
            start = end;
        }
        Ok(out)
    }

    fn place(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// Tensors of the checkpoint with the parts that the graph reads, and what it calls these.
struct Uses<'a> {
    tensors: BTreeMap<String, Vec<&'a Param>>,
    linears: Vec<&'a Linear>,
}

impl Uses<'_> {
    /// Whether the checkpoint has the matrix of a product with inputs in rows.
    fn is_turned(&self, name: &str) -> bool {
        self.linears.iter().any(|linear| linear.turned && linear.weight.name == name)
    }

    /// What the graph calls a part: products name their weights after themselves.
    fn names(&self, param: &Param) -> Vec<String> {
        let same = |it: &&&Linear| it.weight.name == param.name && it.weight.rows == param.rows;
        let own = self.linears.iter().filter(same).map(|it| format!("{}.weight", it.name));
        let mut names: Vec<String> = own.chain([param.name.clone()]).collect();
        names.dedup();
        names
    }
}

fn uses(architecture: &Architecture) -> Uses<'_> {
    let mut tensors: BTreeMap<String, Vec<&Param>> = BTreeMap::new();
    for param in architecture.params() {
        let parts = tensors.entry(param.name.clone()).or_default();
        if parts.iter().all(|it| it.rows != param.rows) {
            parts.push(param);
        }
    }
    for parts in tensors.values_mut() {
        parts.sort_by_key(|it| it.rows.as_ref().map(|it| it.start));
    }
    Uses { tensors, linears: architecture.linears() }
}

/// Tables first, then the blocks in order, then what follows them.
fn place(name: &str) -> (usize, usize, String) {
    let layer = name.strip_prefix("blk.").and_then(|it| it.split_once('.')?.0.parse().ok());
    match layer {
        Some(layer) => (1, layer, name.to_owned()),
        None if name.starts_with("output") => (2, 0, name.to_owned()),
        None => (0, 0, name.to_owned()),
    }
}

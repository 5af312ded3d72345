//! The part of the graph that computes a mask: what it depends on, and what it is for given sizes.

use std::collections::BTreeMap;

use super::{Site, producer};
use onnxq_ir::{
    Def, Model, Name, NoMatch, NodeId, ValueId, eval,
    infer::bind::bind,
    no_match,
    tensor::{DType, Dim, Tensor},
};

/// Nodes of a mask; what is larger is something else.
const MOST_NODES: usize = 256;

/// The nodes whose values the mask needs. Sizes are known without what they are sizes of.
fn cone(m: &Model, mask: ValueId) -> Result<Vec<NodeId>, NoMatch> {
    let mut nodes: Vec<NodeId> = Vec::new();
    let mut work = vec![mask];
    while let Some(value) = work.pop() {
        let Some(node) = producer(m, value) else { continue };
        if nodes.contains(&node) {
            continue;
        }
        if nodes.len() == MOST_NODES || m.node(node).attrs.graphs().next().is_some() {
            return Err(no_match!("the mask is computed in another way ({})", m.node_label(node)));
        }
        nodes.push(node);
        if !is_size(m, node) {
            work.extend(m.node(node).inputs.iter().flatten());
        }
    }
    Ok(nodes)
}

fn is_size(m: &Model, node: NodeId) -> bool {
    m.node(node).op.is("Shape") && m.operand(node, 0).is_ok_and(|it| m.shape(it).is_ok())
}

pub(super) fn nodes(m: &Model, mask: ValueId) -> Result<usize, NoMatch> {
    Ok(cone(m, mask)?.len())
}

/// Inputs of the model whose values the mask needs.
pub(super) fn inputs(m: &Model, mask: ValueId) -> Result<Vec<ValueId>, NoMatch> {
    let mut inputs: Vec<ValueId> = Vec::new();
    for node in cone(m, mask)? {
        if is_size(m, node) {
            continue;
        }
        for &value in m.node(node).inputs.iter().flatten() {
            if matches!(m.value(value).def, Def::Input(..)) && !inputs.contains(&value) {
                inputs.push(value);
            }
        }
    }
    inputs.sort();
    Ok(inputs)
}

/// The largest number or dimension of a constant that may be a length: a window, a block.
pub(super) fn longest(m: &Model, mask: ValueId) -> Result<usize, NoMatch> {
    // Masks are this low, and ends of slices this far.
    const NO_LENGTH: f64 = 1e6;
    let mut longest = 0;
    for node in cone(m, mask)? {
        for &value in m.node(node).inputs.iter().flatten() {
            let Ok(tensor) = m.constant(value) else { continue };
            longest = tensor.shape.iter().copied().fold(longest, usize::max);
            let numbers: Vec<f64> = match tensor.dtype {
                DType::Bool => Vec::new(),
                it if it.is_float() => m.small_f32(value)?.into_iter().map(f64::from).collect(),
                _ => m.small_i64(value)?.into_iter().map(|it| it as f64).collect(),
            };
            let lengths = numbers.into_iter().map(f64::abs).filter(|it| *it < NO_LENGTH);
            longest = lengths.fold(longest, |a, b| a.max(b as usize));
        }
    }
    Ok(longest)
}

/// A trial with sizes of its own.
pub(super) struct Probe<'a> {
    m: &'a Model,
    site: &'a Site,
    batch: usize,
    length: usize,
    past: usize,
    /// What the names of dimensions stand for.
    sizes: BTreeMap<Name, usize>,
}

impl<'a> Probe<'a> {
    pub(super) fn of(
        m: &'a Model,
        site: &'a Site,
        [batch, length, past]: [usize; 3],
    ) -> Result<Probe<'a>, NoMatch> {
        let mut probe = Probe { m, site, batch, length, past, sizes: BTreeMap::new() };
        probe.bind(&site.batch, batch)?;
        probe.bind(&site.length, length)?;
        if let Some(it) = site.past {
            probe.bind(&m.shape(it)?[2], past)?;
        }
        if let Some(it) = site.padding {
            probe.bind(&m.shape(it)?[1], past + length)?;
        }
        Ok(probe)
    }

    /// A dimension has one size.
    fn bind(&mut self, dim: &Dim, size: usize) -> Result<(), NoMatch> {
        match bind(dim, &self.sizes) {
            Dim::Fixed(it) if it == size => Ok(()),
            Dim::Fixed(it) => Err(no_match!("{dim:?} would be both {it} and {size}")),
            Dim::Symbol(name) => {
                self.sizes.insert(name, size);
                self.size(dim).map(|_| ())
            }
            Dim::Unknown => Err(no_match!("a dimension is not known")),
        }
    }

    fn size(&self, dim: &Dim) -> Result<usize, NoMatch> {
        let known = bind(dim, &self.sizes).fixed();
        known.ok_or_else(|| no_match!("the size {dim:?} is not known"))
    }

    /// Compares the mask with what it should be, for several paddings.
    pub(super) fn check(&self) -> Result<(), NoMatch> {
        let total = self.length + self.past;
        let whole = vec![true; self.batch * total];
        if self.site.padding.is_none() {
            return self.compare(&whole);
        }
        self.compare(&whole)?;
        // Some tokens on the left, on the right, and here and there, others in each row.
        let paddings: [fn(usize, usize) -> bool; 3] = [
            |row, at| at > row % 3,
            |row, at| at < 1 + 2 * row,
            |row, at| (at * 7 + row * 3 + at / 5) % 3 != 0,
        ];
        for seen in paddings {
            let padding: Vec<bool> =
                (0..self.batch * total).map(|it| seen(it / total, it % total)).collect();
            self.compare(&padding)?;
        }
        Ok(())
    }

    fn compare(&self, padding: &[bool]) -> Result<(), NoMatch> {
        let total = self.length + self.past;
        let mut values = BTreeMap::new();
        if let Some(it) = self.site.padding {
            values.insert(it, self.padding(it, padding)?);
        }
        let mask = self.value(self.site.mask, &mut values, 0)?;
        let rows = match mask.shape[..] {
            [length, keys] | [1, 1, length, keys] if (length, keys) == (self.length, total) => 1,
            [batch, 1, length, keys]
                if [batch, length, keys] == [self.batch, self.length, total] =>
            {
                batch
            }
            _ => return Err(no_match!("the mask is {:?}", mask.shape)),
        };
        let numbers = mask.to_f32().map_err(|err| no_match!("{err}"))?;
        for n in 0..self.batch {
            for i in 0..self.length {
                let start = ((n % rows) * self.length + i) * total;
                let line = &numbers[start..start + total];
                let sees = |j: usize| j <= self.past + i && padding[n * total + j];
                // Which key a query takes that may see none does not matter.
                let blind = !(0..total).any(sees);
                let exact = self.site.is_term;
                let hides = |it: f32| if exact { it == f32::MIN } else { it <= -1e4 };
                let fits = |(j, it): (usize, &f32)| if sees(j) { *it == 0.0 } else { hides(*it) };
                if (exact || !blind) && !line.iter().enumerate().all(fits) {
                    return Err(no_match!("the mask is not causal with padding (query {i})"));
                }
            }
        }
        Ok(())
    }

    fn padding(&self, input: ValueId, padding: &[bool]) -> Result<Tensor, NoMatch> {
        let shape = [self.batch, self.length + self.past];
        let ints = padding.iter().map(|it| i64::from(*it));
        match self.m.dtype(input) {
            Some(DType::I64) => Ok(Tensor::from_i64(&shape, ints)),
            Some(DType::F32) => Ok(Tensor::from_f32(&shape, ints.map(|it| it as f32))),
            Some(DType::Bool) => {
                let bytes: Vec<u8> = padding.iter().map(|it| u8::from(*it)).collect();
                Ok(Tensor::new(DType::Bool, shape.to_vec(), bytes))
            }
            Some(DType::I32) => {
                let bytes: Vec<u8> = ints.flat_map(|it| (it as i32).to_le_bytes()).collect();
                Ok(Tensor::new(DType::I32, shape.to_vec(), bytes))
            }
            it => Err(no_match!("a padding mask of type {it:?}")),
        }
    }

    fn value(
        &self,
        value: ValueId,
        known: &mut BTreeMap<ValueId, Tensor>,
        depth: usize,
    ) -> Result<Tensor, NoMatch> {
        if let Some(it) = known.get(&value) {
            return Ok(it.clone());
        }
        if let Ok(it) = self.m.constant(value) {
            return Ok(it.clone());
        }
        let name = &self.m.value(value).name;
        let Some(node) = producer(self.m, value).filter(|_| depth < MOST_NODES) else {
            return Err(no_match!("the mask needs `{name}`"));
        };
        let outputs = if is_size(self.m, node) {
            vec![self.shape(node)?]
        } else {
            let mut inputs = Vec::new();
            for it in &self.m.node(node).inputs {
                inputs.push(it.map(|it| self.value(it, known, depth + 1)).transpose()?);
            }
            eval::node(self.m, node, &inputs).map_err(|err| no_match!("`{name}`: {err}"))?
        };
        for (id, tensor) in self.m.node(node).outputs.iter().zip(outputs) {
            known.insert(*id, tensor);
        }
        known.get(&value).cloned().ok_or_else(|| no_match!("`{name}` has no value"))
    }

    /// The sizes that a `Shape` says.
    fn shape(&self, node: NodeId) -> Result<Tensor, NoMatch> {
        let dims = self.m.shape(self.m.operand(node, 0)?)?;
        let at = |name, default: usize| {
            let it = self.m.int_attr(node, name, default as i64);
            let it = if it < 0 { it + dims.len() as i64 } else { it };
            (it.max(0) as usize).min(dims.len())
        };
        let (start, end) = (at("start", 0), at("end", dims.len()));
        let part = dims.get(start..end.max(start)).unwrap_or_default();
        let sizes: Vec<usize> = part.iter().map(|it| self.size(it)).collect::<Result<_, _>>()?;
        Ok(Tensor::from_i64(&[sizes.len()], sizes.into_iter().map(|it| it as i64)))
    }
}

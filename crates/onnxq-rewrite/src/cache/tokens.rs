//! Whether a model treats its tokens one by one, apart from attention: then earlier tokens need
//! not be there, only their keys and values.
//!
//! Each value is followed from the inputs: it is the same for all tokens, it has an axis of
//! tokens, or it holds sizes. An operator that could look along the axis of tokens is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CacheError,
    axes::{axis_of, broadcast, concat, gather, matmul, moved, reduce, reshape, spread},
};
use onnxq_ir::{
    Def, Model, NoMatch, NodeId, ValueId,
    infer::bind,
    no_match,
    ops::{Set, Traits},
    tensor::{DType, Dim},
};

/// How a value depends on the tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Not at all.
    Same,
    /// Numbers that say how many there are, good for shapes only.
    Sizes,
    /// Along this axis lies one token after the other.
    Tokens(usize),
}

use Kind::{Same, Sizes, Tokens};

/// Operators whose result is sizes if their inputs are.
const OF_SIZES: Set = Set::of(Traits::ELEMENTWISE.union(Traits::LAYOUT)).plus(&["ReduceProd"]);

/// The model and what is known of the values seen so far.
pub(super) struct Walk<'a> {
    pub m: &'a Model,
    pub length: &'a Dim,
    padding: Option<ValueId>,
    layers: &'a BTreeSet<NodeId>,
    kinds: BTreeMap<ValueId, Kind>,
    ranges: Vec<NodeId>,
}

/// Proves that only `layers` look at other tokens. Returns the nodes that number the tokens.
pub(super) fn one_by_one(
    m: &Model,
    length: &Dim,
    padding: Option<ValueId>,
    layers: &BTreeSet<NodeId>,
) -> Result<Vec<NodeId>, CacheError> {
    let (kinds, ranges) = (BTreeMap::new(), Vec::new());
    let mut walk = Walk { m, length, padding, layers, kinds, ranges };
    let needed = needed(m, layers);
    for node in m.nodes_of(m.main).filter(|it| needed.contains(it)) {
        let refused =
            |it: NoMatch| CacheError::Node { node: m.node_label(node), reason: it.0.into_owned() };
        let kind = walk.node(node).map_err(refused)?;
        for &output in &m.node(node).outputs {
            walk.check(output, kind).map_err(refused)?;
            walk.kinds.insert(output, kind);
        }
    }
    for &output in &m.graph(m.main).outputs {
        let name = m.value(output).name.to_string();
        let refused = |it: NoMatch| CacheError::Node { node: name, reason: it.0.into_owned() };
        if walk.kind(output).map_err(refused)? == Sizes {
            let reason = "the output says how many tokens there are".to_owned();
            return Err(CacheError::Node { node: m.value(output).name.to_string(), reason });
        }
    }
    Ok(walk.ranges)
}

/// Nodes that outputs need, without the masks of attention.
fn needed(m: &Model, layers: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut work: Vec<ValueId> = m.graph(m.main).outputs.clone();
    while let Some(value) = work.pop() {
        let Def::Node(node) = m.value(value).def else { continue };
        if found.insert(node) {
            let most = if layers.contains(&node) { 3 } else { usize::MAX };
            work.extend(m.node(node).inputs.iter().take(most).flatten());
        }
    }
    found
}

impl Walk<'_> {
    pub(super) fn kind(&self, value: ValueId) -> Result<Kind, NoMatch> {
        if let Some(it) = self.kinds.get(&value) {
            return Ok(*it);
        }
        match self.m.value(value).def {
            Def::Input(..) => self.input(value),
            _ => Ok(Same),
        }
    }

    fn input(&self, value: ValueId) -> Result<Kind, NoMatch> {
        let name = &self.m.value(value).name;
        if self.padding == Some(value) {
            return Err(no_match!("it reads `{name}`, which only masks should"));
        }
        let shape = self.m.shape(value)?;
        let places: Vec<usize> = (0..shape.len()).filter(|it| self.depends(&shape[*it])).collect();
        match places[..] {
            [] if shape.contains(&Dim::Unknown) => {
                Err(no_match!("the shape of `{name}` is not known"))
            }
            [] => Ok(Same),
            [axis] if shape[axis].surely_equals(self.length) => Ok(Tokens(axis)),
            _ => Err(no_match!("the input `{name}` has no single axis of tokens")),
        }
    }

    /// Whether a dimension has to do with the number of tokens.
    fn depends(&self, dim: &Dim) -> bool {
        let names = bind::names(self.length);
        dim == self.length || bind::names(dim).iter().any(|it| names.contains(it))
    }

    /// What inference knows must agree with what is claimed.
    fn check(&self, value: ValueId, kind: Kind) -> Result<(), NoMatch> {
        let it = self.m.value(value);
        if it.uses.is_empty() || kind == Sizes {
            return Ok(());
        }
        let shape = self.m.shape(value)?;
        let fits = |axis: usize| match kind {
            Tokens(it) if it == axis => shape[axis].surely_equals(self.length),
            _ => !self.depends(&shape[axis]),
        };
        let exists = !matches!(kind, Tokens(axis) if axis >= shape.len());
        match exists && (0..shape.len()).all(fits) {
            true => Ok(()),
            false => Err(no_match!("`{}` has no single axis of tokens", it.name)),
        }
    }

    /// Input `index` with its kind.
    pub(super) fn operand(&self, node: NodeId, index: usize) -> Result<(ValueId, Kind), NoMatch> {
        let value = self.m.operand(node, index)?;
        Ok((value, self.kind(value)?))
    }

    pub(super) fn rank(&self, value: ValueId) -> Result<usize, NoMatch> {
        let name = &self.m.value(value).name;
        self.m.rank(value).ok_or_else(|| no_match!("the rank of `{name}` is not known"))
    }

    fn node(&mut self, node: NodeId) -> Result<Kind, NoMatch> {
        let m = self.m;
        let it = m.node(node);
        if it.attrs.graphs().next().is_some() {
            return Err(no_match!("{} has a body", it.op));
        }
        if it.op.is("Shape") || it.op.is("Size") {
            // The padding mask gets longer, so its sizes must not be asked for.
            self.operand(node, 0)?;
            return Ok(Sizes);
        }
        let values: Vec<ValueId> = it.inputs.iter().flatten().copied().collect();
        if self.layers.contains(&node) {
            return self.attention(node);
        }
        let kinds: Vec<(ValueId, Kind)> = values
            .into_iter()
            .map(|it| Ok((it, self.kind(it)?)))
            .collect::<Result<_, NoMatch>>()?;
        let tokens = kinds.iter().any(|it| matches!(it.1, Tokens(_)));
        let sizes = kinds.iter().any(|it| it.1 == Sizes);
        match () {
            () if it.op.is("Range") && (tokens || sizes) => self.range(node),
            () if it.op.is("Expand") || it.op.is("ConstantOfShape") => spread(self, node),
            () if it.op.is("Reshape") && self.operand(node, 0)?.1 != Sizes => reshape(self, node),
            () if !tokens && !sizes => Ok(Same),
            () if !tokens && it.op.is_in(OF_SIZES) => Ok(Sizes),
            () if it.op.has(Traits::ELEMENTWISE) => broadcast(self, &kinds),
            () if it.op.has(Traits::ALONG_AXIS) => {
                self.independent(node, |axis, along| axis != along)
            }
            () if it.op.has(Traits::LAYER_NORM) => {
                self.independent(node, |axis, along| axis < along)
            }
            () if it.op.has(Traits::REDUCTION) => reduce(self, node),
            () => self.special(node),
        }
    }

    fn special(&self, node: NodeId) -> Result<Kind, NoMatch> {
        let op = &self.m.node(node).op;
        match () {
            () if op.is("MatMul") => matmul(self, node),
            () if op.is("Gather") => gather(self, node, "axis"),
            () if op.is("com.microsoft.GatherBlockQuantized") => gather(self, node, "gather_axis"),
            () if op.is("com.microsoft.MatMulNBits") => {
                self.independent(node, |axis, along| axis != along)
            }
            () if op.is("Transpose") || op.is("Squeeze") || op.is("Unsqueeze") => moved(self, node),
            () if op.is("Concat") => concat(self, node),
            () if op.is("Split") => {
                self.constants(node, 1)?;
                let axis = axis_of(self, node, 0, 0)?;
                self.other_axis(node, &[axis])
            }
            () if op.is("Slice") => self.slice(node),
            () if op.is("RotaryEmbedding") => self.rotary(node, [1, 2, 3], false),
            () if op.is("com.microsoft.RotaryEmbedding") => self.rotary(node, [2, 3, 1], true),
            () if op.is("DynamicQuantizeLinear") => Err(no_match!(
                "one scale is computed for all tokens; quantize after the cache is added"
            )),
            () => Err(no_match!("{op} may mix tokens")),
        }
    }

    /// Input 0 along an axis that `fits` finds right; the other inputs are the same for all.
    fn independent(
        &self,
        node: NodeId,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<Kind, NoMatch> {
        let op = &self.m.node(node).op;
        let along = axis_of(self, node, 0, -1)?;
        // With a second summand that has an axis of tokens as well.
        let skip = usize::from(op.name.starts_with("Skip"));
        self.constants(node, 1 + skip)?;
        let (_, first) = self.operand(node, 0)?;
        if skip == 1 && self.operand(node, 1)?.1 != first {
            return Err(no_match!("{op} adds values with different axes of tokens"));
        }
        match first {
            Tokens(axis) if fits(axis, along) => Ok(first),
            _ => Err(no_match!("{op} works along the tokens")),
        }
    }

    /// Inputs from `first` on are the same for all tokens.
    pub(super) fn constants(&self, node: NodeId, first: usize) -> Result<(), NoMatch> {
        for &value in self.m.node(node).inputs.iter().skip(first).flatten() {
            if self.kind(value)? != Same {
                let name = &self.m.value(value).name;
                return Err(no_match!("`{name}` depends on the tokens"));
            }
        }
        Ok(())
    }

    /// Input 0 is changed along `axes`, none of them that of the tokens.
    pub(super) fn other_axis(&self, node: NodeId, axes: &[usize]) -> Result<Kind, NoMatch> {
        match self.operand(node, 0)?.1 {
            Tokens(axis) if !axes.contains(&axis) => Ok(Tokens(axis)),
            _ => Err(no_match!("{} works along the tokens", self.m.node(node).op)),
        }
    }

    fn slice(&self, node: NodeId) -> Result<Kind, NoMatch> {
        self.constants(node, 1)?;
        let (x, _) = self.operand(node, 0)?;
        let rank = self.rank(x)? as i64;
        let axes = self.m.small_i64(self.m.operand(node, 3)?)?;
        let axes: Vec<usize> = axes.iter().map(|it| it.rem_euclid(rank.max(1)) as usize).collect();
        self.other_axis(node, &axes)
    }

    /// `Range(0, length, 1)` numbers the tokens.
    fn range(&mut self, node: NodeId) -> Result<Kind, NoMatch> {
        let m = self.m;
        let (from, step) = (m.operand(node, 0)?, m.operand(node, 2)?);
        let output = m.node(node).output();
        let counts = m.small_i64(from)? == [0] && m.small_i64(step)? == [1];
        let all = m.shape(output)?.first().is_some_and(|it| it.surely_equals(self.length));
        if !counts || !all || m.dtype(output) != Some(DType::I64) {
            return Err(no_match!("the range does not number the tokens"));
        }
        self.ranges.push(node);
        Ok(Tokens(0))
    }

    /// Query, key and value are `[batch, length, heads · size]`.
    fn attention(&self, node: NodeId) -> Result<Kind, NoMatch> {
        for index in 0..3 {
            let (value, kind) = self.operand(node, index)?;
            if kind != Tokens(1) || self.rank(value)? != 3 {
                let name = &self.m.value(value).name;
                return Err(no_match!("`{name}` is not [batch, length, heads · size]"));
            }
        }
        Ok(Tokens(1))
    }

    /// A rotation by the angles of each token, or by those at its position in a table.
    fn rotary(&self, node: NodeId, at: [usize; 3], rows: bool) -> Result<Kind, NoMatch> {
        let (x, kind) = self.operand(node, 0)?;
        if kind != Tokens(if self.rank(x)? == 3 { 1 } else { 2 }) {
            return Err(no_match!("what is rotated has no axis of tokens"));
        }
        let [cos, sin] = [self.operand(node, at[0])?.1, self.operand(node, at[1])?.1];
        let positions = self.operand(node, at[2]).ok();
        let fits = match positions {
            None => [cos, sin] == [Tokens(1); 2],
            Some((_, Tokens(1))) => [cos, sin] == [Same; 2],
            // The first token has the first row, and the rows are those of the tokens.
            Some((it, Same)) => {
                rows && self.m.small_i64(it)? == [0] && [cos, sin] == [Tokens(0); 2]
            }
            _ => false,
        };
        if fits { Ok(kind) } else { Err(no_match!("the angles are not those of the tokens")) }
    }
}

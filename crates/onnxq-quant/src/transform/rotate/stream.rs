//! Finding residual streams: values that are only added to, and read through norms.

use std::collections::BTreeSet;

use super::super::fold::scalable;
use onnxq_ir::{Def, Model, NoMatch, NodeId, User, ValueId, no_match, ops::Traits};

/// A constant operand of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub node: NodeId,
    pub index: usize,
}

/// A norm of the stream and the weights that read what it computes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Norm {
    pub node: NodeId,
    pub readers: Vec<NodeId>,
}

/// Values that a rotation of their `width` channels passes, and all constants around them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stream {
    pub width: usize,
    /// Constants whose last axis are the stream's channels: tables, weights, biases.
    pub writers: Vec<Spot>,
    pub norms: Vec<Norm>,
    /// `MatMul`s that read the stream without a norm.
    pub readers: Vec<NodeId>,
    /// Whether some norm subtracts the mean.
    pub centred: bool,
}

/// The streams of a model, and readers whose stream is not closed.
pub(super) struct Streams {
    pub found: Vec<Stream>,
    pub missed: Vec<(NodeId, NoMatch)>,
}

impl Streams {
    pub(super) fn find(m: &Model) -> Streams {
        let mut streams = Streams { found: Vec::new(), missed: Vec::new() };
        let mut seen: BTreeSet<ValueId> = BTreeSet::new();
        for norm in m.nodes_of(m.main).filter(|it| is_norm(m, *it)) {
            let Ok(input) = m.operand(norm, 0) else { continue };
            if seen.contains(&input) {
                continue;
            }
            let mut flood = Flood::new(m);
            match flood.run(input) {
                Ok(stream) => streams.found.push(stream),
                Err(reason) => {
                    let readers = flood.norms.iter().flat_map(|it| matmuls(m, *it));
                    streams.missed.extend(readers.map(|it| (it, reason.clone())));
                }
            }
            seen.extend(flood.seen);
        }
        streams
    }
}

impl Stream {
    /// The nodes whose weights are around it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let readers = self.norms.iter().flat_map(|it| &it.readers).chain(&self.readers);
        self.writers.iter().map(|it| it.node).chain(readers.copied())
    }

    /// `rotated 576 channels between 61 norms, the tied head behind a product of its own`.
    pub(super) fn describe(&self, tied: bool) -> String {
        let norms = self.norms.len();
        let noun = if norms == 1 { "norm" } else { "norms" };
        let head = if tied { ", the tied head behind a product of its own" } else { "" };
        format!("rotated {} channels between {norms} {noun}{head}", self.width)
    }
}

pub(super) fn is_norm(m: &Model, node: NodeId) -> bool {
    m.node(node).op.has(Traits::LAYER_NORM)
}

/// The `MatMul`s that read what a norm computes.
fn matmuls(m: &Model, norm: NodeId) -> Vec<NodeId> {
    let uses = m.value(m.node(norm).output()).uses.iter();
    let users = uses.filter_map(|it| match it.user {
        User::Node(node) if it.index == 0 => Some(node),
        _ => None,
    });
    users.filter(|it| m.node(*it).op.is("MatMul")).collect()
}

/// Goes from one value of a stream to all others.
struct Flood<'a> {
    m: &'a Model,
    work: Vec<ValueId>,
    seen: BTreeSet<ValueId>,
    norms: BTreeSet<NodeId>,
    writers: Vec<Spot>,
    readers: BTreeSet<NodeId>,
    width: usize,
}

impl<'a> Flood<'a> {
    fn new(m: &'a Model) -> Flood<'a> {
        let (work, seen) = (Vec::new(), BTreeSet::new());
        let (norms, readers, writers) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Flood { m, work, seen, norms, writers, readers, width: 0 }
    }

    fn run(&mut self, first: ValueId) -> Result<Stream, NoMatch> {
        let dim = self.m.shape(first)?.last().and_then(|it| it.fixed());
        let name = &self.m.value(first).name;
        self.width = dim.ok_or_else(|| no_match!("the channels of `{name}` are no number"))?;
        self.join(first);
        let mut open = None;
        // All values are visited, also of a stream that is not closed: nobody needs to look again.
        while let Some(value) = self.work.pop() {
            let found = self.backward(value).and_then(|()| self.forward(value));
            open = open.or(found.err());
        }
        if let Some(reason) = open {
            return Err(reason);
        }
        let norms: Vec<Norm> =
            self.norms.iter().map(|it| self.norm(*it)).collect::<Result<_, NoMatch>>()?;
        let centred = self.norms.iter().any(|it| self.m.node(*it).op.is("LayerNormalization"));
        Ok(Stream {
            width: self.width,
            writers: std::mem::take(&mut self.writers),
            norms,
            readers: self.readers.iter().copied().collect(),
            centred,
        })
    }

    fn join(&mut self, value: ValueId) {
        if self.seen.insert(value) {
            self.work.push(value);
        }
    }

    /// What computes a value of the stream.
    fn backward(&mut self, value: ValueId) -> Result<(), NoMatch> {
        let m = self.m;
        let name = &m.value(value).name;
        let Def::Node(node) = m.value(value).def else {
            return Err(no_match!("`{name}` is not computed"));
        };
        let op = &m.node(node).op;
        match () {
            () if m.node(node).graph != m.main => {
                Err(no_match!("`{name}` is computed in a subgraph"))
            }
            () if op.has(Traits::ADDITIVE) => self.terms(node),
            () if op.is("MatMul") => self.writer(node, 1),
            () if op.is("Gather") && m.int_attr(node, "axis", 0) == 0 => self.writer(node, 0),
            () if op.is("Identity") => m.operand(node, 0).map(|it| self.join(it)),
            () if op.is("Mul") || op.is("Div") => scaled(m, node).map(|it| self.join(it)),
            // Without names, so that a line stands for all layers of a model.
            () => Err(no_match!("its stream comes from {op}, which a rotation does not pass")),
        }
    }

    /// The operands of an addition: values of the stream, or constants that are rotated too.
    fn terms(&mut self, node: NodeId) -> Result<(), NoMatch> {
        for index in 0..self.m.node(node).inputs.len() {
            let value = self.m.operand(node, index)?;
            if self.m.constant(value).is_ok() {
                self.writer(node, index)?;
            } else {
                let last = self.m.shape(value)?.last().and_then(|it| it.fixed());
                if last != Some(self.width) {
                    let name = &self.m.value(value).name;
                    return Err(no_match!("`{name}` is added to all channels"));
                }
                self.join(value);
            }
        }
        Ok(())
    }

    fn writer(&mut self, node: NodeId, index: usize) -> Result<(), NoMatch> {
        let value = self.m.operand(node, index)?;
        let tensor = self.m.constant(value)?;
        scalable(self.m, value, tensor)?;
        let is_matrix = tensor.shape.len() == 2 || self.m.node(node).op.has(Traits::ADDITIVE);
        if tensor.shape.last() != Some(&self.width) || !is_matrix {
            let name = &self.m.value(value).name;
            return Err(no_match!("`{name}` ({tensor:?}) has not {} columns", self.width));
        }
        let spot = Spot { node, index };
        if !self.writers.contains(&spot) {
            self.writers.push(spot);
        }
        Ok(())
    }

    /// What reads a value of the stream.
    fn forward(&mut self, value: ValueId) -> Result<(), NoMatch> {
        let m = self.m;
        for it in m.value(value).uses.clone() {
            let name = &m.value(value).name;
            let User::Node(node) = it.user else {
                return Err(no_match!("`{name}` is an output of the graph"));
            };
            let op = &m.node(node).op;
            match () {
                () if m.node(node).graph != m.main => {
                    return Err(no_match!("`{name}` is read in a subgraph"));
                }
                () if op.has(Traits::LAYER_NORM) && it.index == 0 => {
                    self.norms.insert(node);
                }
                () if op.has(Traits::ADDITIVE) || op.is("Identity") => {
                    self.join(m.node(node).output());
                }
                () if op.is("Mul") || op.is("Div") => {
                    scaled(m, node)?;
                    self.join(m.node(node).output());
                }
                () if op.is("MatMul") && it.index == 0 => {
                    self.reader(node)?;
                    self.readers.insert(node);
                }
                () if op.is("Shape") => {}
                () => return Err(no_match!("`{name}` is read by {}", m.node_label(node))),
            }
        }
        Ok(())
    }

    fn norm(&self, node: NodeId) -> Result<Norm, NoMatch> {
        let (m, label) = (self.m, self.m.node_label(node));
        let (op, outputs) = (&m.node(node).op, &m.node(node).outputs);
        if !(op.is("LayerNormalization")
            || op.is("RMSNormalization")
            || op.is("SimplifiedLayerNormalization"))
        {
            return Err(no_match!("{label} is {op}, which also adds"));
        }
        let axis = m.int_attr(node, "axis", -1);
        let last = m.rank(outputs[0]).map(|it| it as i64 - 1);
        if axis != -1 && Some(axis) != last {
            return Err(no_match!("{label} normalises from axis {axis}"));
        }
        if outputs[1..].iter().any(|it| !m.value(*it).uses.is_empty()) {
            return Err(no_match!("{label} has a second output that is read"));
        }
        shift_over_gain(m, node, self.width)?;
        let output = outputs[0];
        let mut readers = Vec::new();
        for it in &m.value(output).uses {
            let name = &m.value(output).name;
            match it.user {
                User::Node(node) if m.node(node).op.is("MatMul") && it.index == 0 => {
                    self.reader(node)?;
                    readers.push(node);
                }
                User::Node(node) if m.node(node).op.is("Shape") => {}
                User::Node(node) if m.node(node).op.has(Traits::ADDITIVE) => {
                    return Err(no_match!("what its norm computes is itself added to"));
                }
                User::Node(node) => {
                    return Err(no_match!("`{name}` is read by {}", m.node_label(node)));
                }
                _ => return Err(no_match!("`{name}` is an output of the graph")),
            }
        }
        Ok(Norm { node, readers })
    }

    /// The weight of a `MatMul` that reads the stream or a norm of it.
    fn reader(&self, node: NodeId) -> Result<(), NoMatch> {
        let value = self.m.operand(node, 1)?;
        let tensor = self.m.constant(value)?;
        scalable(self.m, value, tensor)?;
        match tensor.shape[..] {
            [rows, _] if rows == self.width => Ok(()),
            _ => {
                let name = &self.m.value(value).name;
                Err(no_match!("`{name}` ({tensor:?}) has not {} rows", self.width))
            }
        }
    }
}

/// What a multiplication or division by one number scales.
fn scaled(m: &Model, node: NodeId) -> Result<ValueId, NoMatch> {
    let one = |index| {
        let value = m.operand(node, index).ok()?;
        let tensor = m.constant(value).ok()?;
        (tensor.numel() == 1).then_some(())
    };
    match () {
        () if one(1).is_some() => m.operand(node, 0),
        () if one(0).is_some() && m.node(node).op.is("Mul") => m.operand(node, 1),
        () => Err(no_match!("{} scales each channel by itself", m.node_label(node))),
    }
}

/// What a norm adds, in units of its gain: `β/γ`, empty if it adds nothing.
pub(super) fn shift_over_gain(m: &Model, node: NodeId, width: usize) -> Result<Vec<f32>, NoMatch> {
    /// Beyond this a float of 32 bits loses digits of what the norm computes.
    const MOST: f32 = 1e3;
    let gain = gain(m, node, width)?;
    let Ok(bias) = m.operand(node, 2) else { return Ok(Vec::new()) };
    let bias = m.small_f32(bias)?;
    if bias.len() != width {
        return Err(no_match!("{} has no bias for each channel", m.node_label(node)));
    }
    let ratio = |(b, g): (&f32, &f32)| if *b == 0.0 { 0.0 } else { b / g };
    let ratios: Vec<f32> = bias.iter().zip(&gain).map(ratio).collect();
    match ratios.iter().all(|it| it.abs() <= MOST) {
        true => Ok(ratios),
        false => Err(no_match!("a gain of {} is next to zero", m.node_label(node))),
    }
}

/// The gain of a norm, one number for each channel.
pub(super) fn gain(m: &Model, node: NodeId, width: usize) -> Result<Vec<f32>, NoMatch> {
    let gain = m.small_f32(m.operand(node, 1)?)?;
    match gain.len() == width {
        true => Ok(gain),
        false => Err(no_match!("{} has no gain for each channel", m.node_label(node))),
    }
}

//! Which nodes of a plan compute with quantized values, and what each quantized value stands for.
//!
//! A node without a weight joins only where it avoids a detour through float: its inputs come as
//! quantized values, and somebody takes its result as quantized values. What that leaves out makes
//! others pointless, so it is repeated until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        ops::Weight,
        plan::{Activation, ActivationScheme, Plan},
    },
    table::{self, Role},
};
use onnxq_ir::{Def, Model, NoMatch, NodeId, User, ValueId, no_match};
use onnxq_numerics::affine::{Affine, Interval, QuantizedType};

/// What computes with quantized values.
#[derive(Default)]
pub struct Layout {
    pub nodes: BTreeMap<NodeId, Member>,
    /// What the quantized values of values stand for; values of the model before anything was
    /// inserted.
    pub values: BTreeMap<ValueId, Affine>,
    /// What the plan allows to compute with quantized values and does not, and why.
    pub left: Vec<(NodeId, NoMatch)>,
}

/// A node that computes with quantized values.
#[derive(Clone, Debug)]
pub struct Member {
    pub role: Role,
    pub quantized: ActivationScheme,
    /// The node's input numbers of activations.
    pub inputs: Vec<usize>,
    /// The `Relu` or `Clip` behind it, which its quantized values make needless.
    pub absorbed: Option<NodeId>,
    /// This node is a `Relu` or `Clip` that another absorbs.
    pub is_absorbed: bool,
    /// Whether its results are quantized values.
    pub yields: bool,
}

impl Layout {
    /// Decides for a model into which nothing was inserted yet.
    pub fn new(m: &Model, plan: &Plan) -> Layout {
        let mut it = Builder::new(m, plan);
        it.finalize();
        it.finish()
    }

    /// The quantized value type of all activations: kernels want the same on all sides.
    fn quantized_type(plan: &Plan) -> QuantizedType {
        let mut sites = plan.sites.iter().filter(|it| it.activation == Some(Activation::Static));
        sites.next().map_or(QuantizedType::default(), |it| it.quantized.dtype)
    }
}

struct Builder<'a> {
    m: &'a Model,
    plan: &'a Plan,
    /// In execution order.
    order: Vec<NodeId>,
    nodes: BTreeMap<NodeId, Member>,
    left: BTreeMap<NodeId, NoMatch>,
}

impl<'a> Builder<'a> {
    fn new(m: &'a Model, plan: &'a Plan) -> Builder<'a> {
        let mut it =
            Builder { m, plan, order: Vec::new(), nodes: BTreeMap::new(), left: BTreeMap::new() };
        for site in plan.sites.iter().filter(|it| it.activation == Some(Activation::Static)) {
            let role = if site.site.kind == Weight::Conv { Role::Conv } else { Role::MatMul };
            it.add(site.site.node, role, site.quantized, vec![0]);
        }
        for region in &plan.region {
            match table::role(m, region.node) {
                Ok(role) => {
                    it.add(region.node, role, region.quantized, table::activations(m, region.node))
                }
                Err(reason) => drop(it.left.insert(region.node, reason)),
            }
        }
        it.order = m.nodes().into_iter().filter(|node| it.nodes.contains_key(node)).collect();
        it
    }

    fn add(&mut self, node: NodeId, role: Role, quantized: ActivationScheme, inputs: Vec<usize>) {
        let (absorbed, is_absorbed, yields) = (None, false, false);
        self.nodes.insert(node, Member { role, quantized, inputs, absorbed, is_absorbed, yields });
    }

    fn finalize(&mut self) {
        loop {
            let before = self.nodes.len();
            let order = self.order.clone();
            // Both ways, so that long chains need few rounds.
            for node in order.iter().rev().chain(&order) {
                if let Some(Err(reason)) = self.nodes.get(node).map(|it| self.check(*node, it)) {
                    // Of a bias nobody expects quantized values.
                    if !self.is_bias(*node) {
                        self.left.insert(*node, reason);
                    }
                    self.nodes.remove(node);
                }
            }
            if self.nodes.len() == before {
                break;
            }
        }
        self.order.retain(|it| self.nodes.contains_key(it));
    }

    /// Why a node cannot, or should not, compute with quantized values as things are.
    fn check(&self, node: NodeId, it: &Member) -> Result<(), NoMatch> {
        self.check_ranges(node, it)?;
        let outputs = &self.m.node(node).outputs;
        match it.role {
            Role::Conv | Role::MatMul => return Ok(()),
            Role::Product => {}
            _ if self.is_bias(node) => return Err(NoMatch("it adds a bias in float".into())),
            _ => {}
        }
        let inputs = table::inputs(self.m, node);
        let given = inputs.iter().filter(|it| self.comes_quantized(node, **it)).count();
        if given * 2 < inputs.len() || given == 0 {
            return Err(NoMatch("its inputs are float".into()));
        }
        let taken = outputs.iter().any(|it| self.is_taken(*it));
        let needless = match it.role {
            Role::Scale(_) | Role::Product => false,
            Role::Clip { .. } => match self.absorber(node) {
                Some(producer) if self.nodes[&producer].role == Role::MatMul => {
                    !self.all_take(outputs[0])
                }
                Some(_) => false,
                None => !taken,
            },
            _ => !taken,
        };
        match needless {
            true => Err(NoMatch("its result is needed in float".into())),
            false => Ok(()),
        }
    }

    fn check_ranges(&self, node: NodeId, it: &Member) -> Result<(), NoMatch> {
        let known = |value: ValueId| match self.plan.ranges.contains_key(&value) {
            true => Ok(()),
            false => Err(no_match!("no range of `{}` is known", self.m.value(value).name)),
        };
        for &index in &it.inputs {
            let value = self.m.operand(node, index)?;
            if !self.comes_quantized(node, value) {
                known(value)?;
            }
        }
        let output = self.m.node(node).output();
        match it.role {
            Role::Conv | Role::Own | Role::Clip { .. } => match self.absorbed_by(node) {
                Some(clip) => known(self.m.node(clip).output()),
                None => known(output),
            },
            Role::MatMul | Role::Product if self.all_take(output) => match self.absorbed_by(node) {
                Some(clip) => known(self.m.node(clip).output()),
                None => known(output),
            },
            _ => Ok(()),
        }
    }

    /// A vector added to the product of a static MatMul.
    fn is_bias(&self, node: NodeId) -> bool {
        let is_product = |it: ValueId| {
            let Def::Node(producer) = self.m.value(it).def else { return false };
            self.nodes.get(&producer).is_some_and(|it| it.role == Role::MatMul)
        };
        let inputs = table::inputs(self.m, node);
        self.m.node(node).op.is("Add")
            && inputs.len() == 1
            && inputs.iter().all(|it| is_product(*it))
    }

    /// Whether a value is the result of a node of the same graph that yields quantized values.
    fn comes_quantized(&self, user: NodeId, value: ValueId) -> bool {
        let Def::Node(producer) = self.m.value(value).def else { return false };
        let same_graph = self.m.node(producer).graph == self.m.node(user).graph;
        same_graph
            && self.nodes.get(&producer).is_some_and(|it| match it.role {
                Role::MatMul | Role::Product => self.all_take(value),
                _ => true,
            })
    }

    fn takes(&self, node: NodeId, index: usize) -> bool {
        self.nodes.get(&node).is_some_and(|it| it.inputs.contains(&index))
    }

    /// Whether some user takes quantized values.
    fn is_taken(&self, value: ValueId) -> bool {
        let mut uses = self.m.value(value).uses.iter();
        uses.any(|it| matches!(it.user, User::Node(node) if self.takes(node, it.index)))
    }

    /// Whether every user takes quantized values.
    fn all_take(&self, value: ValueId) -> bool {
        let uses = &self.m.value(value).uses;
        let takes =
            |it: &onnxq_ir::Use| matches!(it.user, User::Node(node) if self.takes(node, it.index));
        !uses.is_empty() && uses.iter().all(takes)
    }

    /// The `Relu` or `Clip` that is all that uses the result of a node with a range of its own.
    fn absorbed_by(&self, node: NodeId) -> Option<NodeId> {
        let it = self.nodes.get(&node)?;
        let absorbs = matches!(it.role, Role::Conv | Role::Own | Role::MatMul | Role::Product);
        let user = self.m.only_use(self.m.node(node).output()).ok().filter(|_| absorbs)?;
        let same_graph = self.m.node(user).graph == self.m.node(node).graph;
        let clips = matches!(self.nodes.get(&user)?.role, Role::Clip { .. });
        (same_graph && clips).then_some(user)
    }

    /// The node that absorbs this one.
    fn absorber(&self, clip: NodeId) -> Option<NodeId> {
        let Def::Node(producer) = self.m.value(self.m.operand(clip, 0).ok()?).def else {
            return None;
        };
        (self.absorbed_by(producer) == Some(clip)).then_some(producer)
    }

    fn finish(self) -> Layout {
        let mut layout = Layout { nodes: self.nodes.clone(), ..Layout::default() };
        for &node in &self.order {
            let output = self.m.node(node).output();
            let yields = match self.nodes[&node].role {
                Role::MatMul | Role::Product => self.all_take(output),
                _ => true,
            };
            let absorbed = self.absorbed_by(node).filter(|_| yields);
            let is_absorbed = matches!(self.nodes[&node].role, Role::Clip { .. })
                && self.absorber(node).is_some();
            let it = layout.nodes.get_mut(&node).expect("it is a member");
            (it.yields, it.absorbed, it.is_absorbed) = (yields, absorbed, is_absorbed);
            self.affine(node, &mut layout);
        }
        layout.left = self.left.into_iter().collect();
        layout
    }

    /// What the quantized values of a node's operands and results stand for.
    fn affine(&self, node: NodeId, layout: &mut Layout) {
        let it = layout.nodes[&node].clone();
        let dtype = Layout::quantized_type(self.plan);
        for &index in &it.inputs {
            let value = self.m.operand(node, index).expect("activations are given");
            if let (false, Some(range)) =
                (layout.values.contains_key(&value), self.plan.ranges.get(&value))
            {
                layout.values.insert(value, affine(*range, dtype, it.quantized.symmetric));
            }
        }
        if !it.yields || it.is_absorbed {
            return;
        }
        let outputs = self.m.node(node).outputs.clone();
        let input = || {
            let value = self.m.operand(node, it.inputs[0]).expect("activations are given");
            layout.values[&value]
        };
        let (target, result) = match it.role {
            Role::Same => {
                let own = input();
                layout.values.extend(outputs.iter().map(|it| (*it, own)));
                return;
            }
            Role::Scale(factor) => {
                let own = input();
                (outputs[0], Affine { scale: own.scale * factor, ..own })
            }
            Role::Unit => (outputs[0], unit(dtype)),
            _ => {
                let clip = it.absorbed.unwrap_or(node);
                let target = self.m.node(clip).output();
                let range = self.plan.ranges[&target];
                let result = match self.nodes[&clip].role {
                    Role::Clip { lo, hi } => {
                        let range = Interval::new(range.lo.max(lo), range.hi.min(hi));
                        // Symmetric quantized values would leave the bound to a node of its own.
                        affine(range, dtype, false)
                    }
                    _ => affine(range, dtype, it.quantized.symmetric),
                };
                (target, result)
            }
        };
        layout.values.insert(target, result);
    }
}

fn affine(range: Interval, dtype: QuantizedType, symmetric: bool) -> Affine {
    if !symmetric {
        return Affine::new(range, dtype);
    }
    let reach = range.symmetric().hi;
    let (low, high) = dtype.quantized();
    let zero = (low + high + 1) / 2;
    let scale = reach / (high - zero) as f32;
    let scale = if scale.is_normal() { scale } else { 1.0 };
    Affine { dtype, scale, zero }
}

/// 0 to 1, as the kernels of `Softmax` want it.
fn unit(dtype: QuantizedType) -> Affine {
    Affine { dtype, scale: 1.0 / 256.0, zero: dtype.quantized().0 }
}

/// The values whose ranges a static site or a node of the region could need.
pub fn observed(m: &Model, plan: &Plan) -> Vec<(ValueId, ActivationScheme)> {
    let mut wanted: BTreeMap<NodeId, (ActivationScheme, Vec<ValueId>)> = BTreeMap::new();
    for site in plan.sites.iter().filter(|it| it.activation == Some(Activation::Static)) {
        let node = site.site.node;
        let values = m.operand(node, 0).into_iter().chain([m.node(node).output()]).collect();
        wanted.insert(node, (site.quantized, values));
    }
    for region in &plan.region {
        let mut values = table::inputs(m, region.node);
        values.extend(&m.node(region.node).outputs);
        wanted.insert(region.node, (region.quantized, values));
    }
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for node in m.nodes() {
        let Some((quantized, values)) = wanted.get(&node) else { continue };
        // What branches compute cannot be fetched.
        let outside = |it: &&ValueId| match &m.value(**it).def {
            Def::Node(producer) => m.node(*producer).graph == m.main,
            Def::Input(graph, _) => *graph == m.main,
            _ => false,
        };
        let named = values.iter().filter(outside).filter(|it| !m.value(**it).name.is_empty());
        list.extend(named.filter(|it| seen.insert(**it)).map(|it| (*it, *quantized)));
    }
    list
}

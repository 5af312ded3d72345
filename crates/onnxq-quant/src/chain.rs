//! Which convolutions are worth computing in int8 together, because they hand each other quantized
//! values.
//!
//! A convolution by itself pays for turning its input into quantized values and its result back. In
//! a chain only the ends pay, so that convolutions of few channels gain too, and those of each
//! channel by itself, which gain nothing, should not interrupt it: MobileNet and its like. What is
//! weighed are multiplications against numbers: converting one costs twice as much as what kernels do
//! with it, so that one which is handed on counts a third. For a convolution by itself, that is its
//! [`intensity`](super::ops::intensity).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ops::{self, Site, Weight},
    region,
};
use onnxq_ir::{Def, Model, NodeId, User, ValueId};

/// What a number counts that is not converted, measured on MobileNet-like networks and a text detector
/// with AVX-512 VNNI.
const HANDED_ON: f64 = 1.0 / 3.0;

/// For each threshold the convolutions whose chain has at least so many multiplications per number.
#[derive(Default)]
pub(crate) struct Chains {
    members: BTreeMap<u64, BTreeSet<NodeId>>,
}

/// A convolution, per picture: what it multiplies, reads and writes, and whom it meets.
struct Link {
    product: f64,
    read: f64,
    written: f64,
    /// Convolutions that its input comes from; `None`: something comes as float.
    sources: Option<BTreeSet<NodeId>>,
    /// Convolutions that its result goes to; `None`: something takes it as float.
    sinks: Option<BTreeSet<NodeId>>,
}

impl Chains {
    pub(crate) fn of(m: &Model, thresholds: impl Iterator<Item = u64>) -> Chains {
        let thresholds: BTreeSet<u64> = thresholds.collect();
        if thresholds.is_empty() {
            return Chains::default();
        }
        let links = links(m);
        let members = thresholds.into_iter().map(|it| (it, worthwhile(&links, it as f64)));
        Chains { members: members.collect() }
    }

    /// The thresholds that the chain of `node` reaches.
    pub(crate) fn reached(&self, node: NodeId) -> Vec<u64> {
        let reached = self.members.iter().filter(|(_, nodes)| nodes.contains(&node));
        reached.map(|(threshold, _)| *threshold).collect()
    }
}

/// The convolutions that are left when those are taken away that cost more than they save, one by
/// one, and then whole chains.
fn worthwhile(links: &BTreeMap<NodeId, Link>, threshold: f64) -> BTreeSet<NodeId> {
    let mut members: BTreeSet<NodeId> = links.keys().copied().collect();
    let gain = |members: &BTreeSet<NodeId>, node: &NodeId| {
        let link = &links[node];
        let within = |others: &Option<BTreeSet<NodeId>>| {
            others.as_ref().is_some_and(|it| it.is_subset(members))
        };
        let share = |is_within| if is_within { HANDED_ON } else { 1.0 };
        let read = link.read * share(within(&link.sources));
        let written = link.written * share(within(&link.sinks));
        link.product - threshold * (read + written)
    };
    // Only neighbours pay more or less when one goes.
    let lost = |members: &mut BTreeSet<NodeId>, node: &NodeId| {
        let link = &links[node];
        let near: BTreeSet<NodeId> =
            link.sources.iter().chain(&link.sinks).flatten().copied().collect();
        let near: Vec<NodeId> =
            near.into_iter().filter(|it| members.contains(it) && it != node).collect();
        let sum = |members: &BTreeSet<NodeId>| near.iter().map(|it| gain(members, it)).sum::<f64>();
        let before = sum(members) + gain(members, node);
        members.remove(node);
        let after = sum(members);
        members.insert(*node);
        before - after
    };
    loop {
        let mut worst: Option<(f64, NodeId)> = None;
        for node in members.clone() {
            let gain = lost(&mut members, &node);
            if gain < 0.0 && worst.is_none_or(|(least, _)| gain < least) {
                worst = Some((gain, node));
            }
        }
        let Some((_, node)) = worst else { break };
        members.remove(&node);
    }
    for chain in chains(links, &members) {
        if chain.iter().map(|it| gain(&members, it)).sum::<f64>() < 0.0 {
            members.retain(|it| !chain.contains(it));
        }
    }
    members
}

/// Members that hand each other quantized values, directly or through others.
fn chains(links: &BTreeMap<NodeId, Link>, members: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
    let (mut seen, mut chains) = (BTreeSet::new(), Vec::new());
    for &start in members {
        let (mut chain, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(node) = open.pop() {
            if members.contains(&node) && seen.insert(node) {
                chain.insert(node);
                let link = &links[&node];
                open.extend(link.sources.iter().chain(&link.sinks).flatten());
            }
        }
        chains.push(chain);
    }
    chains.retain(|it| !it.is_empty());
    chains
}

fn links(m: &Model) -> BTreeMap<NodeId, Link> {
    let sites: Vec<Site> = m.nodes().into_iter().filter_map(|it| ops::site(m, it)?.ok()).collect();
    let convs: Vec<&Site> = sites.iter().filter(|it| it.kind == Weight::Conv).collect();
    let sizes: Vec<Option<[f64; 2]>> = convs.iter().map(|it| numbers(m, it.node)).collect();
    // Where one size is open, all are taken per pixel: sizes of two kinds cannot be compared.
    let are_known = sizes.iter().all(Option::is_some);
    let mut links = BTreeMap::new();
    for (site, size) in convs.into_iter().zip(sizes) {
        let Some([product, read, written]) = ops::work(m, site) else { continue };
        let [read, written, product] = match size.filter(|_| are_known) {
            Some([of_input, of_output]) => {
                [of_input, of_output, product as f64 * of_output / (written as f64).max(1.0)]
            }
            None => [read as f64, written as f64, product as f64],
        };
        let sources = sources(m, site.node);
        let sinks = sinks(m, site.node);
        links.insert(site.node, Link { product, read, written, sources, sinks });
    }
    links
}

/// How many numbers a convolution reads and writes for one picture, weights aside.
fn numbers(m: &Model, node: NodeId) -> Option<[f64; 2]> {
    let count = |value: ValueId| -> Option<f64> {
        let dims = m.shape(value).ok()?.iter().skip(1).map(|it| it.fixed());
        dims.map(|it| it.map(|it| it as f64)).product()
    };
    Some([count(m.operand(node, 0).ok()?)?, count(m.node(node).output())?])
}

/// Convolutions whose quantized values reach input 0 of `node`; `None` if floats do too.
fn sources(m: &Model, node: NodeId) -> Option<BTreeSet<NodeId>> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![m.operand(node, 0).ok()?];
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let Def::Node(producer) = m.value(value).def else { return None };
        if m.node(producer).op.is("Conv") {
            found.insert(producer);
        } else if hands_on(m, producer) {
            open.extend(region::inputs(m, producer));
        } else {
            return None;
        }
    }
    Some(found)
}

/// Convolutions that take the result of `node` as quantized values; `None` if somebody takes floats.
fn sinks(m: &Model, node: NodeId) -> Option<BTreeSet<NodeId>> {
    let (mut found, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![node]);
    while let Some(node) = open.pop() {
        for reader in m.node(node).outputs.iter().flat_map(|it| &m.value(*it).uses) {
            let User::Node(user) = reader.user else { return None };
            if !seen.insert(user) {
                continue;
            }
            if m.node(user).op.is("Conv") {
                found.insert(user);
            } else if hands_on(m, user) {
                open.push(user);
            } else {
                return None;
            }
        }
    }
    Some(found)
}

/// Whether a node without a weight computes with quantized values and hands them on.
fn hands_on(m: &Model, node: NodeId) -> bool {
    region::role(m, node).is_ok_and(|it| it != region::Role::Product)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Separable blocks of `n` channels on 16 × 16 pixels; `between` stands behind each convolution.
    fn blocks(n: usize, between: &str) -> Model {
        let (mut nodes, mut last) = (String::new(), "x".to_owned());
        for (i, weight) in ["w", "d", "w", "d", "w"].into_iter().enumerate() {
            let group = if weight == "d" { n } else { 1 };
            let pad = if weight == "d" { "pads = [1, 1, 1, 1], " } else { "" };
            nodes += &format!("c{i} = Conv <{pad}group = {group}> ({last}, {weight})\n");
            nodes += &format!("y{i} = {between} (c{i})\n");
            last = format!("y{i}");
        }
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            main (float[1,{n},16,16] x) => (float[1,{n},16,16] {last})
            <float[{n},{n},1,1] w = {{{}}}, float[{n},1,3,3] d = {{{}}}> {{ {nodes} }}",
            vec!["1"; n * n].join(", "),
            vec!["1"; n * 9].join(", ")
        );
        let mut m = onnxq_ir::text::parse(&text).unwrap();
        onnxq_ir::infer::run(&mut m);
        m
    }

    fn members(m: &Model, threshold: u64) -> usize {
        let chains = Chains::of(m, [threshold].into_iter());
        m.nodes().into_iter().filter(|it| chains.reached(*it) == [threshold]).count()
    }

    #[test]
    fn convolutions_that_hand_on_quantized_values_are_weighed_together() {
        // By itself a product of 64 channels has 32 multiplications per number, one of a channel by
        // itself 4.5.
        assert_eq!(members(&blocks(64, "Relu"), 30), 5);
        assert_eq!(members(&blocks(64, "HardSwish"), 30), 3);
        assert_eq!(members(&blocks(64, "HardSwish"), 33), 0);
        assert_eq!(members(&blocks(32, "Relu"), 30), 0);
    }

    #[test]
    fn sizes_that_are_open_count_per_pixel() {
        let mut m = blocks(64, "Relu");
        for node in m.nodes() {
            let output = m.node(node).output();
            m.value_mut(output).ty = None;
        }
        assert_eq!(members(&m, 30), 5);
    }

    #[test]
    fn an_end_that_costs_more_than_it_saves_is_left_out() {
        // The first one does little with many numbers.
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            main (float[1,64,16,16] x) => (float[1,64,16,16] z)
            <float[64,1,1,1] s = {{{}}}, float[64,64,1,1] w = {{{}}}> {{
              a = Conv <group = 64> (x, s)
              b = Relu (a)
              c = Conv (b, w)
              d = Relu (c)
              z = Conv (d, w)
            }}",
            vec!["1"; 64].join(", "),
            vec!["1"; 64 * 64].join(", ")
        );
        let mut m = onnxq_ir::text::parse(&text).unwrap();
        onnxq_ir::infer::run(&mut m);
        assert_eq!(members(&m, 30), 2);
    }
}

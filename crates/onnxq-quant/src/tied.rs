//! An embedding table that is also the weight of the head: one copy, where the file allows it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    format::Format,
    ops::{Weight, rows},
    plan::{Plan, SitePlan},
};
use onnxq_ir::{
    Attrs, Model, NodeId, Patch, ValueId,
    diag::{Code, Warning},
    no_match,
    tensor::{Packing, Part, Tensor},
    untrusted::Untrusted,
};
use onnxq_numerics::scheme::Scales;

/// Bytes that a Reshape must save: below, a node more is not worth it.
pub const WORTH: usize = 1 << 20;

/// Gives a table and the head that is tied to it one scheme, where the formats that the recipe names
/// allow: the one with more bits, else that of the head, which a solver can learn from data.
///
/// Says so in the note of the site that changed. Does nothing where they are one already.
pub fn unify(m: &Model, sites: &mut [SitePlan]) {
    for (table, head) in pairs(m, sites) {
        if same_weight(&sites[table], &sites[head]) {
            continue;
        }
        let head_leads = sites[head].scheme.bits >= sites[table].scheme.bits;
        let order = if head_leads {
            [(head, table), (table, head)]
        } else {
            [(table, head), (head, table)]
        };
        let found =
            order.into_iter().find_map(|(from, to)| Some((to, like(m, &sites[from], &sites[to])?)));
        if let Some((at, site)) = found {
            sites[at] = site;
        }
    }
}

/// Tables and the heads that are tied to them, as indices.
fn pairs(m: &Model, sites: &[SitePlan]) -> Vec<(usize, usize)> {
    let known = |it: &SitePlan| rows(&it.site, m.constant(it.site.weight).ok()?).identity();
    let of = |kind| sites.iter().enumerate().filter(move |it| it.1.site.kind == kind);
    let mut pairs = Vec::new();
    for (table, site) in of(Weight::Gather) {
        let Some(identity) = known(site) else { continue };
        let head = of(Weight::MatMul).find(|it| known(it.1).as_ref() == Some(&identity));
        pairs.extend(head.map(|(head, _)| (table, head)));
    }
    pairs
}

/// `to` with the scheme of `from`; `None` if no format of the recipe can store that.
fn like(m: &Model, from: &SitePlan, to: &SitePlan) -> Option<SitePlan> {
    let fits = |it: &&&Format| {
        let half = from.scales == Scales::Float || it.half_scales;
        half && (it.scheme)(from.scheme, to.activation).is_ok_and(|it| it == from.scheme)
    };
    let format = *to.formats.iter().find(fits)?;
    let label = m.node_label(from.site.node);
    let note = no_match!("stored like `{}`, to which it is tied", Untrusted(&label));
    let SitePlan { scheme, scales, solver, .. } = *from;
    // The one that leads decides about its range.
    Some(SitePlan {
        scheme,
        scales,
        solver,
        format,
        measured: false,
        note: Some(note),
        ..to.clone()
    })
}

/// Where initializers cannot share bytes (in the model file itself), tables become a `Reshape` of
/// the head's quantized values, which ONNX Runtime computes when it loads the model.
///
/// ```text
/// GatherBlockQuantized(w [n, k'], …)   →   GatherBlockQuantized(Reshape(w [n, b, k'']), …)
/// ```
///
/// The head keeps its constant: a kernel prepacks nothing else. Returns how many there were.
pub fn reshape(m: &mut Model) -> usize {
    let op = "com.microsoft.GatherBlockQuantized";
    let found = views(m, op, Packing::Gather, Packing::NBits);
    found.iter().for_each(|(node, head)| reshape_one(m, *node, *head));
    found.len()
}

/// A table of rows that is the weight of an int8 head in columns becomes a `Transpose` of it, which
/// ONNX Runtime computes when it loads the model.
///
/// ```text
/// Gather(w [n, k], i)   →   Gather(Transpose(w [k, n]), i)
/// ```
///
/// Returns how many there were.
pub fn transpose(m: &mut Model) -> usize {
    let found = views(m, "Gather", Packing::PerRow, Packing::PerChannel);
    for &(node, head) in &found {
        let name = format!("{}_rows", m.value(head).name);
        let mut patch = Patch::before(node);
        let attrs = Attrs::default().with("perm", vec![1i64, 0]);
        let table = patch.step(&name, "Transpose", [head.into()], attrs);
        patch.rewire(node, 0, table).apply(m);
    }
    found.len()
}

/// A float head in columns that has the elements of a table of rows becomes a `Transpose` of it, as
/// exporters write it; ONNX Runtime computes it when it loads the model.
///
/// ```text
/// MatMul(x, w [k, n])   →   MatMul(x, Transpose(table [n, k]))
/// ```
///
/// Returns how many there were.
pub fn transpose_heads(m: &mut Model) -> usize {
    let float = |value: ValueId| {
        let tensor = m.constant(value).ok()?;
        let is_table = tensor.dtype.is_float() && tensor.shape.len() == 2;
        (is_table && tensor.quantized().is_none() && tensor.nbytes() >= WORTH).then_some(tensor)
    };
    let operands = |op: &str, index: usize| {
        let nodes = m.nodes().into_iter().filter(|it| m.node(*it).op.is(op));
        let of = |node| m.operand(node, index).ok().map(|it| (node, it));
        nodes.filter_map(of).collect::<Vec<_>>()
    };
    let tables = operands("Gather", 0);
    let table = |head: ValueId| {
        let flipped = float(head)?.transposed().identity()?;
        let is_same = |it: &&(NodeId, ValueId)| {
            float(it.1).and_then(Tensor::identity).is_some_and(|it| it == flipped)
        };
        tables.iter().find(is_same).map(|it| it.1)
    };
    let found: Vec<(NodeId, ValueId, ValueId)> = operands("MatMul", 1)
        .into_iter()
        .filter_map(|(node, head)| Some((node, head, table(head)?)))
        .collect();
    for &(node, head, table) in &found {
        let name = m.value(head).name.to_string();
        let mut patch = Patch::before(node);
        let attrs = Attrs::default().with("perm", vec![1i64, 0]);
        let turned = patch.step(&name, "Transpose", [table.into()], attrs);
        patch.rewire(node, 1, turned).apply(m);
    }
    found.len()
}

/// Look-ups by `op` in tables of one packing, each with the head that has the same quantized values
/// in the other.
fn views(m: &Model, op: &str, table: Packing, head: Packing) -> Vec<(NodeId, ValueId)> {
    let heads = heads(m, head);
    let view = |node: NodeId| {
        let own = m.operand(node, 0).ok().and_then(|it| quantized(m, it, table))?;
        Some((node, *heads.get(&own)?))
    };
    m.nodes().into_iter().filter(|it| m.node(*it).op.is(op)).filter_map(view).collect()
}

/// The quantized values in this packing by what they belong to.
fn heads(m: &Model, packing: Packing) -> BTreeMap<usize, ValueId> {
    let mut heads: BTreeMap<usize, ValueId> = BTreeMap::new();
    for &value in m.graph(m.main).constants.iter().filter(|it| !m.value(**it).uses.is_empty()) {
        if let Some(source) = quantized(m, value, packing) {
            heads.insert(source, value);
        }
    }
    heads
}

fn reshape_one(m: &mut Model, gather: NodeId, head: ValueId) {
    let table = m.operand(gather, 0).expect("it has a table");
    let name = m.value(table).name.to_string();
    let rows = m.constant(table).expect("it is constant").shape[0] as i64;
    let mut patch = Patch::before(gather);
    let shape = patch.constant(&format!("{name}_shape"), Tensor::from_i64(&[2], [rows, -1]));
    let table = patch.step(&name, "Reshape", [head.into(), shape], Attrs::default());
    patch.rewire(gather, 0, table).apply(m);
}

/// What the quantized values in this packing belong to, if they are worth sharing and the other
/// packing that is asked for can be computed from them.
fn quantized(m: &Model, value: ValueId, wanted: Packing) -> Option<usize> {
    let tensor = m.constant(value).ok()?;
    let (source, part, packing) = tensor.quantized()?;
    let blocks = |it: Packing| it.canonical(source.shape(), part) == Packing::NBits;
    let is_channel = matches!(wanted, Packing::PerChannel | Packing::PerRow);
    let shared = packing == wanted && (is_channel || blocks(packing));
    let fits = shared && part == Part::Quantized && tensor.nbytes() >= WORTH;
    fits.then(|| Arc::as_ptr(source).cast::<()>().addr())
}

/// A warning for each table that is also a head and shares no byte with it.
pub fn apart(m: &Model, plan: &Plan) -> Vec<Warning> {
    let sites = &plan.sites;
    let apart = pairs(m, sites).into_iter().filter(|it| !same_weight(&sites[it.0], &sites[it.1]));
    let mut warnings: Vec<Warning> = Vec::new();
    for (table, head) in apart {
        let (table, head) = (&sites[table].site, &sites[head].site);
        let text = format!(
            "`{}` and the head `{}` are tied but stored differently: two copies",
            Untrusted(&m.value(table.weight).name),
            Untrusted(&m.node_label(head.node))
        );
        let warning = Warning::new(Code::W503, text);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// Whether one quantized weight serves both.
fn same_weight(a: &SitePlan, b: &SitePlan) -> bool {
    (a.scheme, a.scales, a.solver) == (b.scheme, b.scales, b.solver)
}

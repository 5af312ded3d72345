//! An embedding table that is also the weight of the head: one copy, where the file allows it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ops::{Site, Weight, rows},
    plan::{Plan, SitePlan},
};
use onnxq_ir::{
    Attrs, Model, NodeId, Patch, ValueId,
    diag::{Code, Warning},
    tensor::{Packing, Part, Tensor},
};

/// Bytes that a Reshape must save: below, a node more is not worth it.
pub const WORTH: usize = 1 << 20;

/// Where initializers cannot share bytes (in the model file itself), tables become a `Reshape` of
/// the head's quantized values, which ONNX Runtime computes when it loads the model.
///
/// ```text
/// GatherBlockQuantized(w [n, k'], …)   →   GatherBlockQuantized(Reshape(w [n, b, k'']), …)
/// ```
///
/// The head keeps its constant: a kernel prepacks nothing else. Returns how many there were.
pub fn reshape(m: &mut Model) -> usize {
    let mut heads: BTreeMap<usize, ValueId> = BTreeMap::new();
    let main: Vec<ValueId> = m.graph(m.main).constants.clone();
    for value in main.into_iter().filter(|it| !m.value(*it).uses.is_empty()) {
        if let Some(source) = quantized(m, value, Packing::NBits) {
            heads.insert(source, value);
        }
    }
    let mut count = 0;
    for node in m.nodes() {
        if !m.node(node).op.is("com.microsoft.GatherBlockQuantized") {
            continue;
        }
        let head = m.operand(node, 0).ok().and_then(|it| quantized(m, it, Packing::Gather));
        if let Some(&head) = head.and_then(|it| heads.get(&it)) {
            reshape_one(m, node, head);
            count += 1;
        }
    }
    count
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

/// What the quantized values in this packing belong to, if another packing has the same bytes and
/// they are worth sharing.
fn quantized(m: &Model, value: ValueId, wanted: Packing) -> Option<usize> {
    let tensor = m.constant(value).ok()?;
    let (source, part, packing) = tensor.quantized()?;
    let shared = packing == wanted && packing.canonical(source.shape(), part) == Packing::NBits;
    let fits = shared && part == Part::Quantized && tensor.nbytes() >= WORTH;
    fits.then(|| Arc::as_ptr(source).cast::<()>().addr())
}

/// A warning for each table that is also a head and shares no byte with it.
pub fn apart(m: &Model, plan: &Plan) -> Vec<Warning> {
    let place = |site: &Site| rows(site, m.constant(site.weight).ok()?).place();
    let of = |kind| plan.sites.iter().filter(move |it| it.site.kind == kind);
    let mut warnings: Vec<Warning> = Vec::new();
    for table in of(Weight::Gather) {
        let Some(at) = place(&table.site) else { continue };
        let heads = of(Weight::MatMul).filter(|it| place(&it.site) == Some(at));
        for head in heads.filter(|it| !same(table, it)) {
            let name = onnxq_ir::untrusted::Untrusted(&m.value(table.site.weight).name);
            let text = format!(
                "`{name}` and the head `{}` are tied but stored differently: two copies",
                onnxq_ir::untrusted::Untrusted(&m.node_label(head.site.node))
            );
            let warning = Warning::new(Code::W503, text);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    warnings
}

fn same(a: &SitePlan, b: &SitePlan) -> bool {
    (a.scheme, a.scales, a.solver) == (b.scheme, b.scales, b.solver) && a.activation == b.activation
}

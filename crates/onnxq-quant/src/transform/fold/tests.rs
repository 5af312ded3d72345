//! Folding keeps the float function, and says no where it could not.

use super::*;
use crate::{
    format::format,
    ops,
    transform::testing::{outputs, parse},
};
use onnxq_ir::tensor::ZeroPoints;
use onnxq_numerics::{
    scheme::{Granularity, Range, Scales, Scheme},
    solve::SolverSpec,
};

/// A model with inferred types, and a plan for all of its MatMuls with constant weights.
fn model(text: &str) -> (Model, Vec<SitePlan>) {
    let m = parse(text);
    let sites = m.nodes().into_iter().filter_map(|it| ops::site(&m, it)?.ok());
    let granularity = Granularity::Block(32);
    let plan = |site| SitePlan {
        quantized: Default::default(),
        site,
        scheme: Scheme {
            bits: 4,
            zero_points: ZeroPoints::Symmetric,
            granularity,
            range: Range::Full,
            superblock: None,
        },
        solver: SolverSpec::Rtn,
        activation: None,
        scales: Scales::Float,
        measured: false,
        note: None,
        format: format("matmul_nbits").unwrap(),
        formats: Vec::new(),
    };
    let sites = sites.map(plan).collect();
    (m, sites)
}

/// Scales that differ between channels, and are equal for tied ones.
fn scales(ties: Ties) -> Vec<f32> {
    let channels = ties.heads * ties.size;
    (0..channels).map(|j| 0.3 + (ties.source(j) * 5 % 7) as f32 * 0.55).collect()
}

/// Applies every group. The outputs must not change, but the sites' inputs must. Says what there
/// was: `norm x2 linear x1`, groups by how many sites they have.
#[track_caller]
fn folds(text: &str, mul: bool) -> String {
    let (mut m, sites) = model(text);
    let before = outputs(&m);
    let (groups, missed) = groups(&m, &sites, mul);
    assert!(missed.is_empty(), "{missed:?}");
    for group in &groups {
        let weight = m.operand(group.sites[0], 1).unwrap();
        apply(&mut m, group, &scales(group.ties)).unwrap();
        assert_ne!(m.operand(group.sites[0], 1).unwrap(), weight);
    }
    m.verify().unwrap();
    let after = outputs(&m);
    assert_eq!(before.len(), after.len());
    let size = before.iter().fold(1f32, |max, it| max.max(it.abs()));
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() <= 1e-5 * size, "{before:?} became {after:?}");
    }
    let parts = groups.iter().map(|it| format!("{} x{}", it.fold.kind, it.sites.len()));
    parts.collect::<Vec<_>>().join(" ")
}

/// The one reason why nothing can be folded.
#[track_caller]
fn refuses(text: &str) -> String {
    let (m, sites) = model(text);
    let (groups, missed) = groups(&m, &sites, false);
    assert!(groups.is_empty(), "{groups:?}");
    let mut reasons: Vec<String> = missed.into_iter().map(|it| it.1.to_string()).collect();
    reasons.dedup();
    let [reason] = &reasons[..] else { panic!("{reasons:?}") };
    reason.clone()
}

fn graph(constants: &str, nodes: &str) -> String {
    format!("main (float[2,3,4] x) => (float[2,3,n] y) <{constants}> {{ {nodes} }}")
}

#[test]
fn norms_of_every_spelling() {
    for nodes in [
        "n = LayerNormalization (x, g, b)",
        "n = LayerNormalization (x, g)",
        "n = RMSNormalization (x, g)",
        "n = SimplifiedLayerNormalization (x, g)",
        "n = com.microsoft.SkipLayerNormalization (x, x, g, b, b)",
        "n = com.microsoft.SkipSimplifiedLayerNormalization (x, x, g)",
        "a = Tanh (x) n = Mul (g, a)",
        "a = Tanh (x) c = Mul (a, g) n = Add (c, b)",
        "a = Tanh (x) c = Mul (a, g) d = Add (b, c) n = Identity (d)",
    ] {
        let text = graph(
            "float[4] g, float[4] b, float[4,5] v, float[4,5] w",
            &format!("{nodes} p = MatMul (n, v) q = MatMul (n, w) y = Add (p, q)"),
        );
        assert_eq!(folds(&text, false), "norm x2", "{nodes}");
    }
}

#[test]
fn linear_layers_before() {
    for nodes in [
        // SwiGLU; the gate is read twice.
        "g = MatMul (x, v) s = Sigmoid (g) a = Mul (g, s) u = MatMul (x, u_w) h = Mul (a, u)",
        "g = MatMul (x, v) s = Sigmoid (g) a = Mul (g, s) u = MatMul (x, u_w) h = Mul (u, a)",
        "u = MatMul (x, v) c = Add (u, b) h = Relu (c)",
        "u = MatMul (x, v) g = MatMul (x, u_w) h = Add (u, g)",
    ] {
        let text = graph(
            "float[4,6] v, float[4,6] u_w, float[6] b, float[6,5] w",
            &format!("{nodes} y = MatMul (h, w)"),
        );
        let (m, sites) = model(&text);
        let (groups, missed) = groups(&m, &sites, false);
        assert_eq!((groups.len(), groups[0].fold.kind), (1, Kind::Linear), "{missed:?}");
        // `x` is an input of the model: with `mul` it is multiplied.
        assert_eq!(folds(&text, true).replace("mul x1", "mul x2"), "mul x2 linear x1");
    }
}

const ATTENTION: &str = "
    q0 = MatMul (x, qw) q1 = Reshape (q0, s4) q = Transpose <perm = [0, 2, 1, 3]> (q1)
    v0 = MatMul (x, vw) v1 = Add (v0, vb)
    v2 = Reshape (v1, s2) v3 = Transpose <perm = [0, 2, 1, 3]> (v2)
    qt = Transpose <perm = [0, 1, 3, 2]> (q)
    l = MatMul (q, qt) p = Softmax <axis = -1> (l)";

fn attention_graph(vw: &str, repeat: &str) -> String {
    let constants = format!(
        "float[4,8] qw, {vw}, float[8,5] w, int64[1] two = {{2}}, int64[4] s4 = {{0, 0, 4, 2}},
         int64[5] wide = {{1, 1, 2, 1, 1}}, int64[4] joined = {{0, 4, -1, 2}},
         int64[3] flat = {{0, 0, 8}}"
    );
    graph(
        &constants,
        &format!(
            "{ATTENTION} {repeat} c = MatMul (p, r) t = Transpose <perm = [0, 2, 1, 3]> (c)
             o = Reshape (t, flat) y = MatMul (o, w)"
        ),
    )
}

#[test]
fn values_of_attention() {
    let plain = attention_graph(
        "float[4,8] vw, float[8] vb, int64[4] s2 = {0, 0, 4, 2}",
        "r = Identity (v3)",
    );
    let shared = attention_graph(
        "float[4,4] vw, float[4] vb, int64[4] s2 = {0, 0, 2, 2}",
        "u = Unsqueeze (v3, two) e = Expand (u, wide) r = Reshape (e, joined)",
    );
    // Without the Identity, which is no part of the pattern.
    let plain = plain.replace("r = Identity (v3)", "").replace("(p, r)", "(p, v3)");
    for text in [&plain, &shared] {
        assert_eq!(folds(text, true), "mul x2 attention x1");
    }
    let (m, sites) = model(&shared);
    let (groups, _) = groups(&m, &sites, false);
    assert_eq!(groups[0].ties, Ties { heads: 4, shared: 2, size: 2 });
}

#[test]
fn values_of_one_attention_node() {
    let text = |more: &str, outputs: &str| {
        graph(
            "float[4,8] qw, float[4,4] kw, float[4,4] vw, float[8,5] w, float[2,2,1,2] past",
            &format!(
                "q = MatMul (x, qw) k = MatMul (x, kw) v = MatMul (x, vw)
                 {outputs} = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v{more})
                 y = MatMul (o, w)"
            ),
        )
    };
    assert_eq!(folds(&text("", "o"), true), "mul x3 attention x1");
    let cached = text(", , past, past", "o, pk, pv");
    assert_eq!(folds(&cached, true), "mul x3 mul x1");
}

#[test]
fn anything_else_is_multiplied_on_request() {
    let text = graph(
        "float[4] g, float[4,4] w, float[4,5] v",
        "n = Mul (x, g) a = MatMul (n, w) r = Add (n, a) t = Tanh (r) y = MatMul (t, v)",
    );
    assert_eq!(folds(&text, true), "mul x1 mul x1");
}

#[test]
fn a_constant_with_other_users_stays_for_them() {
    let text = graph(
        "float[4] g, float[4,4] w",
        "n = Mul (x, g) p = MatMul (n, w) z = Mul (p, g) q = MatMul (z, w) k = MatMul (z, w)
         r = Add (q, k) y = Add (r, g)",
    );
    assert_eq!(folds(&text, false), "norm x1 norm x2");
}

#[test]
fn half_floats_are_scaled_in_their_own_type() {
    let (mut m, sites) = model(
        "main (float16[2,4] x) => (float16[2,5] y) <float16[4] g, float16[4,5] w>
         { n = Mul (x, g) y = MatMul (n, w) }",
    );
    let (groups, _) = groups(&m, &sites, false);
    apply(&mut m, &groups[0], &[2.0, 4.0, 0.5, 1.0]).unwrap();
    let weight = m.constant(m.operand(groups[0].sites[0], 1).unwrap()).unwrap();
    assert_eq!((weight.dtype, &weight.shape[..]), (DType::F16, &[4, 5][..]));
    m.verify().unwrap();
}

#[test]
fn what_cannot_absorb_a_scale_says_why() {
    let check = |nodes: &str, reason: &str| {
        let constants = "float[4] g, float one = {1}, float[4,4] w, float[1,4,4] batch";
        assert_eq!(refuses(&graph(constants, nodes)), reason);
    };
    check("y = MatMul (x, w)", "`x` is not computed");
    check("n = Mul (x, g) a = MatMul (n, w) y = Add (n, a)", "`n` is also read by Add → y");
    check("n = Mul (x, g) y = MatMul (n, w) z = MatMul (n, x)", "`n` is also read by MatMul → z");
    check("n = Tanh (x) y = MatMul (n, w)", "`n` comes from Tanh, which absorbs no scale");
    check("n = Add (x, one) y = MatMul (n, w)", "`x` is not computed");
    check(
        "n = LayerNormalization <axis = 1> (x, g) y = MatMul (n, w)",
        "LayerNormalization → n normalises from axis 1",
    );
    check(
        "a = MatMul (x, batch) b = Relu (a) y = MatMul (b, w)",
        "`batch` (float[1, 4, 4]) has not 4 columns",
    );
    let output = "main (float[2,3,4] x) => (float[2,3,4] n, float[2,3,4] y)
        <float[4] g, float[4,4] w> { n = Mul (x, g) y = MatMul (n, w) }";
    assert_eq!(refuses(output), "`n` is an output of the graph");
    let twice = "main (float[2,3,4] x) => (float[2,3,4] y) <float[4,4] w>
        { a = Softmax (x) u = Mul (a, a) y = MatMul (u, w) }";
    assert_eq!(refuses(twice), "`a` has other uses");
}

//! Laws of the table.

use std::collections::BTreeSet;

use super::*;
use crate::{eval, infer, ir::Op};

/// Exporters write these operators of ONNX Runtime without its domain, and inference knows what
/// they mean.
const WITHOUT_DOMAIN: &[&str] = &[
    "GroupQueryAttention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

#[test]
fn rows_are_sorted_so_that_each_is_found() {
    for table in [standard::OPS, microsoft::OPS] {
        assert!(table.is_sorted_by(|a, b| a.name < b.name));
    }
    for it in all() {
        let found = Op::new(&it.printed()).info();
        assert!(found.is_some_and(|found| std::ptr::eq(found, it)), "{}", it.printed());
    }
    assert!(find("custom", "Relu").is_none() && find("", "NoSuchOperator").is_none());
}

#[test]
fn versions_go_up_to_the_newest() {
    for it in all() {
        assert!(it.versions.is_sorted() && it.versions.iter().all(|it| *it <= NEWEST));
        let is_standard = it.domain.is_empty() && !it.has(Traits::RUNTIME);
        assert_eq!(is_standard, !it.versions.is_empty(), "{}", it.name);
    }
    assert!(all().any(|it| it.versions.last() == Some(&NEWEST)));
}

#[test]
fn what_inference_and_the_evaluator_know_has_a_row() {
    let known = infer::OPS.iter().map(|it| it.0).chain(eval::OPS.iter().map(|it| it.0));
    let missing = known.filter(|it| Op::new(it).info().is_none());
    let missing: BTreeSet<&str> = missing.collect();
    assert_eq!(missing, WITHOUT_DOMAIN.iter().copied().collect());
}

#[test]
fn traits_agree_with_each_other() {
    let both = |a: Traits, b: Traits| {
        all().filter(|it| it.has(a)).for_each(|it| assert!(it.has(b), "{}", it.name));
    };
    both(Traits::UNARY, Traits::ELEMENTWISE);
    both(Traits::LAYER_NORM, Traits::NORM);
    both(Traits::ADDITIVE, Traits::ELEMENTWISE);
    both(Traits::ARITHMETIC, Traits::BINARY);
    both(Traits::BOUNDS, Traits::ELEMENTWISE);
    both(Traits::SELECT, Traits::LAYOUT);
    both(Traits::VIEW, Traits::LAYOUT);
    both(Traits::REARRANGE, Traits::LAYOUT);
    both(Traits::COPY, Traits::LAYOUT);
    both(Traits::INTEGER, Traits::QUANTIZED);
    for it in all() {
        assert!(it.traits.contains(Traits::QUANTIZED) || it.quantized.is_none(), "{}", it.name);
        assert_eq!(it.has(Traits::REDUCTION), it.name.starts_with("Reduce"), "{}", it.name);
    }
}

#[test]
fn inputs_have_one_meaning_each() {
    for it in all() {
        let Some(quantized) = it.quantized else {
            let named = [it.gain, it.bias].into_iter().flatten().chain(it.weights.iter().copied());
            distinct(it, named.collect());
            continue;
        };
        distinct(it, quantized.inputs().collect());
        // A scale is followed by its zero point, or all zero points follow all scales.
        assert!(quantized.inputs().all(|at| at < MOST_INPUTS), "{}", it.name);
        assert_eq!(it.bias, quantized.bias, "{}", it.name);
        assert!(it.weights.is_empty(), "{}", it.name);
    }
}

/// `DynamicQuantizeLSTM` has as many inputs as any operator of a fixed number.
const MOST_INPUTS: usize = 12;

fn distinct(info: &OpInfo, inputs: Vec<usize>) {
    let set: BTreeSet<usize> = inputs.iter().copied().collect();
    assert_eq!(set.len(), inputs.len(), "{}: {inputs:?}", info.name);
}

#[test]
fn weights_have_a_layout() {
    for it in all() {
        let is_stored = it.has(Traits::DEQUANTIZE);
        assert_eq!(it.layout.is_some() || is_stored, !it.weight_inputs().is_empty(), "{}", it.name);
    }
}

#[test]
fn specifications_are_found_by_domain_and_name() {
    let url = |name: &str| Op::new(name).info().map(OpInfo::spec_url).unwrap_or_default();
    assert_eq!(url("MatMul"), "https://onnx.ai/onnx/operators/onnx__MatMul.html");
    assert!(url("com.microsoft.MatMulNBits").ends_with("#com.microsoft.MatMulNBits"));
}

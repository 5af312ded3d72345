//! What an output is: its name first, then its shape and the inputs, then its values.

use super::accumulate::Context;
use crate::data::Batch;
use onnxq_report::figures::Role;

/// Whether an output is kept for the next token.
pub fn is_cache(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("present") || ["past_key", "past_value"].iter().any(|word| name.contains(word))
}

/// The role of a float output of that shape, from its first batch.
pub(super) fn role(name: &str, shape: &[usize], values: &[f32], context: &Context) -> Role {
    let name = name.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|it| name.contains(it));
    let is_tokens = context.ids.is_some() && shape.len() == 3;
    if is_cache(&name) {
        return Role::Cache;
    }
    if name.contains("logits") {
        match shape.len() {
            2 => return Role::Classes,
            3 => return Role::Logits,
            _ => {}
        }
    }
    if shape.len() == 2 && says(&["embed", "pool"]) {
        return Role::Embedding;
    }
    let hidden = says(&["embed", "encod", "hidden", "last_", "state"]);
    match shape.len() {
        3 if is_tokens && !hidden && shape[2] >= 256 => Role::Logits,
        3 if is_tokens => Role::Hidden,
        2 | 3 if are_probabilities(shape, values) => Role::Probabilities,
        4 => Role::Image,
        3 if context.image.is_some() && shape[1] >= 8 && shape[2] >= 8 => Role::Image,
        2 if context.image.is_some() && shape[1] >= 2 => Role::Classes,
        2 if context.ids.is_some() && shape[1] >= 64 => Role::Embedding,
        _ => Role::Values,
    }
}

/// The role of a float output of that shape, whatever its values, in a run on these inputs.
pub fn role_of(name: &str, shape: &[usize], batch: &Batch) -> Role {
    let ids = batch.contains_key("input_ids").then(|| (Vec::new(), [0, 0]));
    role(name, shape, &[], &Context { ids, ..Context::default() })
}

/// Rows that are not negative and add up to one.
fn are_probabilities(shape: &[usize], values: &[f32]) -> bool {
    let width = shape[shape.len() - 1];
    let is_row = |row: &[f32]| {
        let sum: f64 = row.iter().map(|it| f64::from(*it)).sum();
        row.iter().all(|it| (0.0..=1.0 + 1e-6).contains(it)) && (sum - 1.0).abs() < 1e-3
    };
    width >= 2 && !values.is_empty() && values.chunks_exact(width).all(is_row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::Tensor;

    #[test]
    fn names_shapes_and_inputs_tell() {
        let text = Context { ids: Some((vec![0], [1, 1])), ..Context::default() };
        let pixels = ("x".to_owned(), Tensor::from_f32(&[1, 1, 1, 1], [0.0]));
        let image = Context { image: Some(pixels), ..Context::default() };
        let of = |name: &str, shape: &[usize], context: &Context| {
            role(name, shape, &vec![0.3; shape.iter().product()], context)
        };
        assert_eq!(of("last_hidden_state", &[1, 1, 384], &text), Role::Hidden);
        assert_eq!(of("output", &[1, 1, 384], &text), Role::Logits);
        assert_eq!(of("Logits", &[1, 2], &text), Role::Classes);
        assert_eq!(of("output", &[1, 1, 384], &Context::default()), Role::Values);
        assert_eq!(of("present.0.key", &[1, 2, 3, 4], &text), Role::Cache);
        assert_eq!(of("sentence_embedding", &[1, 16], &text), Role::Embedding);
        assert_eq!(of("map", &[1, 1, 8, 8], &image), Role::Image);
        assert_eq!(of("out", &[1, 1000], &image), Role::Classes);
        assert_eq!(role("p", &[2, 2], &[0.5, 0.5, 1.0, 0.0], &image), Role::Probabilities);
    }
}

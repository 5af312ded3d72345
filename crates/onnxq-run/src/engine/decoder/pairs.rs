//! The cache of a decoder by its names: each input of the past, and the output that becomes it.

use super::super::{
    IoInfo,
    roles::{Role, role},
};
use onnxq_ir::untrusted::Untrusted;

/// What exporters call the input, and what the output.
const NAMES: &[(&str, &str)] = &[
    ("past", "present"),
    ("past_key_values", "present"),
    ("past_key_values", "present_key_values"),
];

/// An input of the past and the output that becomes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub past: String,
    pub present: String,
}

/// A whole cache, and where the logits are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pairs {
    pub list: Vec<Pair>,
    pub logits: String,
}

/// Why a model cannot be run with what it remembers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoCache {
    #[error("the model has no inputs for one")]
    None,
    #[error("no output becomes input `{}`", Untrusted(.0))]
    Unpaired(String),
    #[error("output `{}` is of another type than input `{}`", Untrusted(present), Untrusted(past))]
    Types { past: String, present: String },
    #[error("nobody knows what input `{}` wants", Untrusted(.0))]
    Input(String),
    #[error("the model has no output of logits")]
    NoLogits,
}

impl Pairs {
    pub fn of(inputs: &[IoInfo], outputs: &[IoInfo]) -> Result<Pairs, NoCache> {
        let known = |it: &&IoInfo| it.name == "input_ids" || role(&it.name).is_some();
        if let Some(other) = inputs.iter().find(|it| !known(it)) {
            return Err(NoCache::Input(other.name.clone()));
        }
        let logits = logits(outputs).ok_or(NoCache::NoLogits)?.name.clone();
        let past = inputs.iter().filter(|it| role(&it.name) == Some(Role::Past));
        let list = past.map(|it| pair(it, outputs)).collect::<Result<Vec<_>, _>>()?;
        if list.is_empty() { Err(NoCache::None) } else { Ok(Pairs { list, logits }) }
    }
}

/// The output that says how likely each token comes next.
pub(crate) fn logits(outputs: &[IoInfo]) -> Option<&IoInfo> {
    outputs.iter().find(|it| it.name.contains("logits"))
}

fn pair(past: &IoInfo, outputs: &[IoInfo]) -> Result<Pair, NoCache> {
    let becomes = |(old, new): &(&str, &str)| {
        let name = past.name.replacen(old, new, 1);
        outputs.iter().find(|it| it.name == name && name != past.name)
    };
    let present = NAMES.iter().find_map(becomes);
    let present = present.ok_or_else(|| NoCache::Unpaired(past.name.clone()))?;
    let pair = Pair { past: past.name.clone(), present: present.name.clone() };
    match fits(past, present) {
        true => Ok(pair),
        false => Err(NoCache::Types { past: pair.past, present: pair.present }),
    }
}

/// Sizes that both state are the same, unless one is that of the tokens.
fn fits(past: &IoInfo, present: &IoInfo) -> bool {
    let dims = match (&past.ty.shape, &present.ty.shape) {
        (Some(a), Some(b)) if a.len() != b.len() => return false,
        (Some(a), Some(b)) => a.iter().zip(b.iter()).all(|(a, b)| match (a.fixed(), b.fixed()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }),
        _ => true,
    };
    dims && past.ty.dtype == present.ty.dtype
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::{DType, Dim, TensorType};

    fn info(name: &str, dtype: DType, heads: usize) -> IoInfo {
        let dims = ["b", "", "t"].map(|it| Dim::Symbol(it.into()));
        let [batch, _, tokens] = dims;
        let ty = TensorType::new(dtype, [batch, Dim::Fixed(heads), tokens, Dim::Fixed(8)]);
        IoInfo { name: name.into(), ty }
    }

    fn of(past: &str, present: &str) -> Result<Pairs, NoCache> {
        let inputs = [info("input_ids", DType::I64, 1), info(past, DType::F32, 2)];
        Pairs::of(&inputs, &[info("logits", DType::F32, 1), info(present, DType::F32, 2)])
    }

    #[test]
    fn names_of_several_exporters_belong_together() {
        for (past, present) in [
            ("past_key_values.0.key", "present.0.key"),
            ("past_key_values.0.value", "present_key_values.0.value"),
            ("past_key_0", "present_key_0"),
            ("past.0.key", "present.0.key"),
        ] {
            let expected = Pair { past: past.into(), present: present.into() };
            assert_eq!(of(past, present).unwrap().list, [expected], "{past}");
        }
    }

    #[test]
    fn what_is_no_cache_says_why() {
        let past = "past_key_values.0.key";
        let unpaired = NoCache::Unpaired(past.into());
        assert_eq!(of(past, "present.1.key"), Err(unpaired));
        let logits = || info("logits", DType::F32, 1);
        let given = |inputs: &[IoInfo], outputs: &[IoInfo]| Pairs::of(inputs, outputs).unwrap_err();
        assert_eq!(given(&[info("input_ids", DType::I64, 1)], &[logits()]), NoCache::None);
        assert_eq!(given(&[], &[]), NoCache::NoLogits);
        let image = NoCache::Input("pixel_values".into());
        assert_eq!(given(&[info("pixel_values", DType::F32, 1)], &[logits()]), image);
        for other in [info("present.0.key", DType::F16, 2), info("present.0.key", DType::F32, 4)] {
            let error = given(&[info(past, DType::F32, 2)], &[logits(), other]);
            assert!(matches!(error, NoCache::Types { .. }), "{error}");
        }
    }
}

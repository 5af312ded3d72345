//! Recipes: which weights become what, as data. The comments of the fields are the manual.

mod adapt;
mod distil;
mod error;
pub mod gate;
mod gguf;
pub mod load;
mod manual;
pub mod metrics;
mod place;
mod renamed;
pub mod resolve;
mod schema;
mod select;
mod weight;
mod words;
mod yaml;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    adapt::{ActivationCandidate, AdaptGoal, AdaptSpec},
    distil::{DistilSpec, Group, LossName, Rates},
    error::RecipeError,
    gate::Gate,
    load::{SHIPPED, apply_set, load, load_text, source},
    place::{Place, Position},
    schema::schema,
    select::{Candidate, Merged, NamePattern, Selector, Unmatched},
    weight::{Weight, WeightSpec, WeightType},
    words::{AUTO, for_this_cpu},
    yaml::to_yaml,
};
pub use self::{load::MAX_BYTES, yaml::parse as parse_yaml};
use crate::{
    format::GGUF,
    plan::ActivationScheme,
    target::{self, Target},
    transform::TransformSpec,
};
use onnxq_ir::diag::Warning;
use onnxq_numerics::{
    affine::QuantizedType,
    observe::ObserverSpec,
    scheme::Range,
    specs::{Settings, Wrong},
    stats::Needs,
};

/// The version of the format that this program reads.
pub const VERSION: u32 = 1;

/// The item of `prepare` that stands for the standard list.
pub const STANDARD: &str = "standard";

/// How to quantize a model: what the target is, and for each kind of weight what to store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The version of this format: 1.
    pub onnxq: u32,
    /// The name that reports show.
    pub name: String,
    /// What the recipe is for. The first sentence is shown by `onnxq recipe list`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The recipe that this one changes: a shipped name, or a path relative to this file. Fields
    /// given here replace the parent's; entries of `quantize` are appended to the parent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// The class of CPUs to emit for, one of [`target::TARGETS`].
    #[schemars(description = manual::target())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Passes and rules to run first, in order. The item `standard` stands for the standard list,
    /// which is also the default; `[]` runs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Vec<String>>,
    /// How inputs of weights are observed, for solvers that need to know them. The samples
    /// themselves are given with `--calibration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationSpec>,
    /// Changes of the float model that make it easier to quantize and leave what it computes the
    /// same, in order. Replaces the parent's list; `[]` means none.
    #[schemars(description = manual::transforms())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transforms: Option<Vec<TransformSpec>>,
    /// What data given with `--calibration` decides about the activations of each node. Without
    /// data, `quantize` alone counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapt: Option<AdaptSpec>,
    /// What `quantize` chooses from for each weight under `--max-size`, `--max-kl` or
    /// `--target-bpw`. Only weights whose activations stay in float take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<MixedSpec>,
    /// Trains the quantized model against the float one, on the samples of `--calibration`. Replaces the
    /// parent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distil: Option<DistilSpec>,
    /// What to quantize, and how. Later entries win, field by field. A node that no entry matches
    /// stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantize: Vec<Entry>,
    /// What the result must satisfy; `quantize --validate` and `validate` exit with 1 if it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<Vec<Gate>>,
    #[serde(skip)]
    pub place: Place,
    /// What to tell the user about how it is written.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// How inputs of weights are observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CalibrationSpec {
    /// Each layer sees what the quantized layers before it make of the samples, and its weights aim
    /// at what the float model has there, so that later layers make up for earlier ones. Takes
    /// about twice the time. Default: false, every layer sees the float model.
    #[serde(skip_serializing_if = "is_false")]
    pub sequential: bool,
    /// How many samples to run. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Tokens per sample that text is cut into, if the model leaves it open. Default: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
}

/// What to choose from for each weight.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixedSpec {
    /// How a weight may be stored, each laid over what `quantize` says of it: what a candidate
    /// leaves out stays. What a weight's format cannot store is left out. Default: uint2 in blocks
    /// of 64 and 32, uint4 in blocks of 128 and 32, uint8 in blocks of 128, and in blocks of 32 with
    /// float16 scales.
    pub candidates: Vec<WeightSpec>,
}

/// One rule: the nodes it matches, and the settings it gives them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Operators it applies to, as `onnxq inspect` prints them: `MatMul`,
    /// `com.microsoft.Attention`. Without this key: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<String>>,
    /// Names of nodes it applies to: globs (`*` any text, `?` one character) or, after `re:`,
    /// regular expressions. Both must match the whole name. Without this key: all names. A pattern
    /// that matches no node is an error, unless the entry is `optional`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// Weights with fewer elements are not matched: their scales and the extra nodes would cost
    /// more than they save.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_elements: Option<usize>,
    /// Only nodes whose activation is the result of an activation function (Gelu, SiLU, a gate),
    /// directly or through elementwise operators, are matched: the second half of feed-forward
    /// blocks, where outliers are common. `false` matches all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_activation_function: Option<bool>,
    /// Only nodes whose result is an output of the model, directly or after a bias or a cast, are
    /// matched: the head of a language model. `false` matches all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<bool>,
    /// Only nodes that compute the values of an attention are matched: with 4 bits they lose most
    /// for their size. `false` matches all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_value: Option<bool>,
    /// Only nodes whose activation is the result of an attention are matched: what projects it back.
    /// `false` matches all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_attention: Option<bool>,
    /// Only nodes that read or write a residual stream which the transform `rotate` has rotated are
    /// matched: those of language models, mostly. `false` matches all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<bool>,
    /// The entry counts only where there is calibration data, or statistics of some: what data does
    /// better, in a recipe that works without. `false`: only where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<bool>,
    /// Only convolutions of each channel by itself are matched, which gain little from int8.
    /// `false` matches all other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depthwise: Option<bool>,
    /// Only products whose weight is several matrices are matched, of rank 3 or more: one for each slice
    /// of the activation, as for each expert of a mixture. `false` matches all other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batched: Option<bool>,
    /// Only nodes with at least so many multiplications per number that they read or write are
    /// matched, `kn / (k + n)` for a weight `[k, n]`: where int8 saves more time than it takes to
    /// turn floats into quantized values and back. Convolutions of a single pixel have none. Those
    /// that hand each other quantized values are weighed together, and numbers that are not
    /// converted count a third.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_intensity: Option<u64>,
    /// Only nodes with at most so many multiplications per number that they read or write: products
    /// with few columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_intensity: Option<u64>,
    /// How the weight is stored. Nodes without a weight are matched by entries without this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<WeightSpec>,
    /// How the other operand is quantized when the model runs: `none` leaves it in float. In an
    /// entry without `weight`: that nodes without weights may compute with the quantized values of
    /// the static nodes around them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<ActivationSpec>,
    /// Formats to try in order, by their names in [`FORMATS`](crate::format::FORMATS); the first
    /// that can store the weight is used. If none fits, the node stays in float and the plan says
    /// why.
    #[schemars(description = manual::formats())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Vec<FormatName>>,
    /// Leaves the matching nodes as they are; `false` takes back what an earlier entry says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,
    /// Why, for people who read the plan or the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The patterns of `names` may match nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    #[serde(skip)]
    pub place: Place,
}

pub type FormatName = String;

/// Which of the integers stand for weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightRange {
    /// All of them.
    #[default]
    Full,
    /// The same number on both sides of zero: -127..127.
    Narrow,
    /// One bit less, -64..64: for CPUs whose int8 kernels add pairs of products in 16 bits.
    Reduced,
    /// With `--calibration`, narrow where one bit less would cost more than what saturates on such
    /// CPUs, else reduced.
    Measured,
}

impl WeightRange {
    /// The range until something is measured.
    pub fn range(self) -> Range {
        match self {
            WeightRange::Full => Range::Full,
            WeightRange::Narrow => Range::Narrow,
            WeightRange::Reduced | WeightRange::Measured => Range::Reduced,
        }
    }
}

/// `none`, or how the activation is quantized.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ActivationSpec {
    /// `none`: it stays in float.
    Float,
    Quantized(ActivationFields),
}

/// How an activation is quantized. Each field may be left to an earlier entry.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivationFields {
    /// The integers that stand for the activations. Default: uint8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<QuantizedType>,
    /// When the range is found. Default: dynamic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ActivationRange>,
    /// How many activations share a range. Default: tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<ActivationGranularity>,
    /// Which of the values seen in calibration the quantized values of a static range must span.
    /// Default: min_max.
    #[schemars(description = manual::observers())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverSpec>,
    /// A static range reaches as far below zero as above, except behind a `Relu`. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationRange {
    /// In each run, from the values themselves: needs no data now, costs a pass over them then.
    #[default]
    Dynamic,
    /// Once, from calibration data: convolutions have fast integer kernels only so.
    Static,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationGranularity {
    /// All of the tensor.
    #[default]
    Tensor,
    /// Each row (token) is divided by its own largest magnitude first, so that one outlier does
    /// not cost the others their precision.
    Row,
}

/// All settings of an activation.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Activation {
    pub range: ActivationRange,
    pub granularity: ActivationGranularity,
    pub quantized: ActivationScheme,
}

impl Recipe {
    /// Whether its results are GGUF files.
    pub fn is_gguf(&self) -> bool {
        let names = |it: &Entry| it.format.iter().flatten().any(|it| it == GGUF.name);
        self.quantize.iter().any(names)
    }

    /// Whether it works only with calibration data.
    pub fn needs_data(&self) -> bool {
        let by_entry = |it: &Entry| {
            let solver = it.weight.and_then(|it| it.solver).unwrap_or_default();
            let activation = it.activation.and_then(ActivationSpec::complete);
            solver.solver().needs() > Needs::Nothing
                || activation.is_some_and(|it| it.range == ActivationRange::Static)
        };
        if self.distil.is_some() {
            return true;
        }
        let transforms = self.transforms.iter().flatten();
        let always = self.quantize.iter().filter(|it| it.calibrated != Some(true));
        always.into_iter().any(by_entry) || transforms.into_iter().any(|it| it.needs_data())
    }

    /// The target; loading has checked its name.
    pub fn target(&self) -> &'static Target {
        let name = self.target.as_deref().unwrap_or("generic");
        target::target(name).unwrap_or_else(|| panic!("target `{name}` was not checked"))
    }

    /// Names of passes and rules to run first; `standard` is what that item stands for.
    pub fn prepare<'a>(&'a self, standard: &'a [&'a str]) -> Vec<&'a str> {
        let Some(names) = &self.prepare else { return standard.to_vec() };
        let expand = |it: &'a String| match it.as_str() {
            STANDARD => standard.to_vec(),
            name => vec![name],
        };
        names.iter().flat_map(expand).collect()
    }

    /// Leaves nodes of matching names as they are, as `--exclude` does.
    pub fn exclude(&mut self, pattern: &str) {
        self.push_flag(pattern, true, "--exclude");
    }

    /// Takes back what earlier entries skip, as `--include` does.
    pub fn include(&mut self, pattern: &str) {
        self.push_flag(pattern, false, "--include");
    }

    fn push_flag(&mut self, pattern: &str, skip: bool, flag: &str) {
        let position = Position::argument(&format!("{flag} {pattern}"));
        self.place.set(&format!("quantize.{}", self.quantize.len()), position.clone());
        self.quantize.push(Entry {
            names: Some(vec![pattern.to_owned()]),
            skip: Some(skip),
            reason: Some(flag.to_owned()),
            place: position.into(),
            ..Entry::default()
        });
    }
}

impl Settings for MixedSpec {
    fn check(&self) -> Result<(), Wrong> {
        match self.candidates.is_empty() {
            true => Err(Wrong::new("candidates", "there is nothing to choose from")),
            false => Ok(()),
        }
    }
}

impl ActivationSpec {
    /// The observer that these settings name.
    pub fn observer(&self) -> Option<&ObserverSpec> {
        match self {
            ActivationSpec::Float => None,
            ActivationSpec::Quantized(it) => it.observer.as_ref(),
        }
    }

    /// These settings, except where `later` says otherwise. What only refines how activations are
    /// quantized does not begin to quantize them.
    pub fn merge(self, later: ActivationSpec) -> ActivationSpec {
        let (old, new) = match (self, later) {
            (ActivationSpec::Quantized(old), ActivationSpec::Quantized(new)) => (old, new),
            (ActivationSpec::Float, ActivationSpec::Quantized(new))
                if new.dtype.is_none() && new.range.is_none() =>
            {
                return ActivationSpec::Float;
            }
            _ => return later,
        };
        ActivationSpec::Quantized(ActivationFields {
            dtype: new.dtype.or(old.dtype),
            range: new.range.or(old.range),
            granularity: new.granularity.or(old.granularity),
            observer: new.observer.or(old.observer),
            symmetric: new.symmetric.or(old.symmetric),
        })
    }

    /// With the defaults in the gaps; `None` for float.
    pub fn complete(self) -> Option<Activation> {
        let ActivationSpec::Quantized(fields) = self else { return None };
        let quantized = ActivationScheme {
            dtype: fields.dtype.unwrap_or_default(),
            symmetric: fields.symmetric.unwrap_or(false),
            observer: fields.observer.unwrap_or_default(),
        };
        Some(Activation {
            range: fields.range.unwrap_or_default(),
            granularity: fields.granularity.unwrap_or_default(),
            quantized,
        })
    }
}

fn is_false(it: &bool) -> bool {
    !it
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::ZeroPoints;
    use onnxq_numerics::scheme::Scheme;

    #[test]
    fn the_standard_list_stands_where_its_name_does() {
        let mut recipe = load("avx2").unwrap();
        assert_eq!(recipe.prepare(&["a", "b"]), ["a", "b"]);
        recipe.prepare = Some(vec!["x".into(), STANDARD.into(), "y".into()]);
        assert_eq!(recipe.prepare(&["a", "b"]), ["x", "a", "b", "y"]);
        recipe.prepare = Some(Vec::new());
        assert!(recipe.prepare(&["a", "b"]).is_empty());
    }

    #[test]
    fn later_settings_win_field_by_field() {
        let early = WeightSpec {
            symmetric: Some(false),
            range: Some(WeightRange::Narrow),
            ..WeightSpec::default()
        };
        let late = WeightSpec { range: Some(WeightRange::Reduced), ..WeightSpec::default() };
        let weight = early.merge(late).complete();
        let Scheme { zero_points, range, .. } = weight.scheme;
        assert_eq!((zero_points, range), (ZeroPoints::Asymmetric, Range::Reduced));

        let row = ActivationFields {
            granularity: Some(ActivationGranularity::Row),
            ..Default::default()
        };
        let row = ActivationSpec::Quantized(row);
        let tensor = ActivationSpec::Quantized(ActivationFields::default());
        assert_eq!(row.merge(tensor), row);
        assert_eq!(row.merge(ActivationSpec::Float), ActivationSpec::Float);
        // A granularity alone does not begin to quantize what is to stay float.
        assert_eq!(ActivationSpec::Float.merge(row), ActivationSpec::Float);
        let ranged = ActivationFields { range: Some(Default::default()), ..Default::default() };
        let ranged = ActivationSpec::Quantized(ranged);
        assert_eq!(ActivationSpec::Float.merge(ranged), ranged);
    }
}

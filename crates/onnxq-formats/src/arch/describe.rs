//! Which families of architectures are known, and what their configurations have in common.

use std::path::Path;

use super::{
    Activation, Architecture, Head, Linear, Pooling, bert, common, distilbert, gemma, gemma2,
    gemma3, gpt2, llama, mistral, phi3, qwen2, qwen3, roberta,
};
use crate::{CheckpointError, Config, Weights};

/// An architecture by the `model_type` of its configuration.
pub struct Family {
    pub model_type: &'static str,
    /// What `architectures` may name, and what stands on top of the blocks.
    pub classes: &'static [(&'static str, Top)],
    describe: fn(&Source) -> Result<Architecture, CheckpointError>,
}

/// What a class of transformers computes of the last vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Top {
    /// The next token.
    Tokens,
    /// Nothing, or what a `modules.json` of sentence-transformers says.
    Vectors,
    TokenClasses,
    Classes,
}

/// What an architecture is described from.
pub(super) struct Source<'a> {
    pub config: &'a Config,
    pub folder: &'a Path,
    pub weights: &'a Weights,
    pub family: &'static Family,
    pub top: Top,
}

const fn family(
    model_type: &'static str,
    classes: &'static [(&'static str, Top)],
    describe: fn(&Source) -> Result<Architecture, CheckpointError>,
) -> Family {
    Family { model_type, classes, describe }
}

/// In alphabetical order.
pub const ARCHITECTURES: &[Family] = &[
    family("bert", bert::CLASSES, bert::describe),
    family("distilbert", distilbert::CLASSES, distilbert::describe),
    family("gemma", &[("GemmaForCausalLM", Top::Tokens)], gemma::describe),
    family("gemma2", &[("Gemma2ForCausalLM", Top::Tokens)], gemma2::describe),
    family("gemma3_text", &[("Gemma3ForCausalLM", Top::Tokens)], gemma3::describe),
    family("gpt2", &[("GPT2LMHeadModel", Top::Tokens)], gpt2::describe),
    family("llama", &[("LlamaForCausalLM", Top::Tokens)], llama::describe),
    family("mistral", &[("MistralForCausalLM", Top::Tokens)], mistral::describe),
    family("phi3", &[("Phi3ForCausalLM", Top::Tokens)], phi3::describe),
    family("qwen2", &[("Qwen2ForCausalLM", Top::Tokens)], qwen2::describe),
    family("qwen3", &[("Qwen3ForCausalLM", Top::Tokens)], qwen3::describe),
    family("roberta", roberta::CLASSES, roberta::describe),
];

/// What a configuration means.
///
/// # Errors
/// E121 if a field is wrong, E122 if one is not known or not implemented.
pub(crate) fn describe(
    config: &Config,
    folder: &Path,
    weights: &Weights,
) -> Result<Architecture, CheckpointError> {
    let model_type = config.text_or("model_type", "")?;
    let unknown = |name: String, known: Vec<&str>| CheckpointError::Architecture {
        name,
        known: known.join(", "),
    };
    let types = || ARCHITECTURES.iter().map(|it| it.model_type).collect();
    let family = ARCHITECTURES.iter().find(|it| it.model_type == model_type);
    let family = family.ok_or_else(|| unknown(model_type.clone(), types()))?;
    let named = config.texts_if("architectures")?.unwrap_or_default();
    let class = match &named[..] {
        [only] => family.classes.iter().find(|it| it.0 == *only),
        [] => return Err(config.wrong("architectures", "is missing")),
        _ => return Err(config.wrong("architectures", "must name one class")),
    };
    let classes = || family.classes.iter().map(|it| it.0).collect();
    let (_, top) = class.ok_or_else(|| unknown(named[0].clone(), classes()))?;
    config.ignore(common::NEUTRAL);
    let source = Source { config, folder, weights, family, top: *top };
    let architecture = (family.describe)(&source)?;
    config.finish(&model_type)?;
    Ok(architecture)
}

/// Sizes that every family states, if not under the same names.
pub(super) struct Shape {
    pub model_type: String,
    pub hidden: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    pub inner: usize,
}

/// More layers than any network has.
const MOST_LAYERS: usize = 4096;
/// A wider head than any network has: each pair of its elements has a frequency, before weights are looked at.
const WIDEST_HEAD: usize = 1 << 16;

impl Shape {
    /// # Errors
    /// E121 if sizes contradict each other.
    pub(super) fn checked(self) -> Result<Shape, CheckpointError> {
        let wrong = |problem: String| Err(CheckpointError::Contradiction { problem });
        if self.layers > MOST_LAYERS {
            return wrong(format!("{} layers are more than any network has", self.layers));
        }
        if self.head_size > WIDEST_HEAD {
            return wrong(format!("heads of {} are wider than any network's", self.head_size));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, groups) = (self.heads, self.kv_heads);
            return wrong(format!("{heads} heads cannot share {groups} of keys and values"));
        }
        Ok(self)
    }
}

impl Source<'_> {
    /// An activation function by the name that transformers has for it.
    pub(super) fn activation(
        &self,
        field: &str,
        default: &str,
    ) -> Result<Activation, CheckpointError> {
        Ok(match &*self.config.text_or(field, default)? {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            _ => return Err(self.config.refuse(field)),
        })
    }

    /// The prefix of a model inside of a class with a head: there or, in older files, not.
    pub(super) fn prefix(&self, prefix: &str) -> String {
        let has = self.weights.names().any(|it| it.starts_with(prefix));
        if has { prefix.to_owned() } else { String::new() }
    }

    /// A head over the vocabulary, tied to the table of words or of its own.
    pub(super) fn tokens(
        &self,
        words: &super::Param,
        (name, tied): (&str, bool),
        softcap: Option<f32>,
    ) -> Head {
        let [vocabulary, hidden] = words.shape[..] else { unreachable!("a table is a matrix") };
        let mut weight = Linear::new(name, [hidden, vocabulary], false);
        if tied {
            weight.weight = words.clone();
        }
        Head::Tokens { weight, softcap }
    }

    /// How many classes a classifier has.
    pub(super) fn labels(&self) -> Result<usize, CheckpointError> {
        let (named, counted) =
            (self.config.entries_if("id2label")?, self.config.size_if("num_labels")?);
        Ok(counted.or(named.filter(|it| *it > 0)).unwrap_or(2))
    }

    /// What sentence-transformers makes of the vectors, if its files lie beside.
    pub(super) fn vectors(&self) -> Result<Head, CheckpointError> {
        let read = |name: &str| -> Result<Option<Vec<u8>>, CheckpointError> {
            let path = self.folder.join(name);
            match onnxq_ir::fs::read_file(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CheckpointError::Io { path, source }),
            }
        };
        let Some(modules) = read("modules.json")? else { return Ok(Head::Hidden) };
        let steps = super::heads::steps(&modules)?;
        let (mut pooling, mut normalize) = (Pooling::Mean, false);
        for step in steps {
            match step.kind {
                super::heads::Step::Transformer => {}
                super::heads::Step::Normalize => normalize = true,
                super::heads::Step::Pooling => {
                    let name = format!("{}/config.json", step.path);
                    let bytes = read(&name)?.unwrap_or_else(|| b"{}".to_vec());
                    pooling = super::heads::pooling(&name, &bytes)?;
                }
            }
        }
        Ok(Head::Sentence { pooling, normalize })
    }
}

//! What a transformer consists of, block by block, with the name of each of its parameters: what a
//! configuration is read into, and what a graph is made of.

mod bert;
mod common;
mod describe;
mod distilbert;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod heads;
mod llama;
mod mistral;
mod params;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;
mod rotary;

use std::ops::Range;

use self::describe::Shape;

pub(crate) use self::describe::describe;
pub use self::{
    describe::{ARCHITECTURES, Family, Top},
    rotary::Rotary,
};

/// A whole network.
pub struct Architecture {
    /// `model_type` of the configuration.
    pub model_type: String,
    /// Length of a token's vector between blocks.
    pub hidden: usize,
    pub vocabulary: usize,
    /// Tokens that it was made for.
    pub context: usize,
    pub embedding: Embedding,
    /// Rotary embeddings that blocks refer to.
    pub rotaries: Vec<Rotary>,
    pub blocks: Vec<Block>,
    /// After the last block.
    pub norm: Option<Norm>,
    pub head: Head,
    /// Ends of names of tensors that files may hold and nothing reads.
    pub buffers: Vec<&'static str>,
}

/// A tensor of the checkpoint, or some rows of one.
#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    /// Of the whole tensor, as it must be stored.
    pub shape: Vec<usize>,
    pub rows: Option<Range<usize>>,
    /// Added to each element: Gemma's norms store their distance from 1.
    pub plus: f32,
}

/// `x · weightᵀ + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// What its nodes are called.
    pub name: String,
    /// `[out, in]`; `[in, out]` if it is `turned`.
    pub weight: Param,
    pub bias: Option<Param>,
    /// Stored as GPT-2 does, inputs in rows.
    pub turned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NormKind {
    /// Divided by the root of the mean square (Zhang and Sennrich 2019).
    Rms,
    /// Mean 0 and variance 1 (Ba et al. 2016).
    Layer,
}

#[derive(Clone, Debug)]
pub struct Norm {
    pub name: String,
    pub kind: NormKind,
    pub weight: Param,
    pub bias: Option<Param>,
    pub epsilon: f32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

/// Tokens become vectors.
pub struct Embedding {
    /// `[vocabulary, hidden]`.
    pub words: Param,
    pub positions: Option<Positions>,
    /// `[types, hidden]`.
    pub types: Option<Param>,
    /// All of them are multiplied by it.
    pub scale: Option<f32>,
    pub norm: Option<Norm>,
}

/// A learnt vector for each place.
pub struct Positions {
    /// `[places, hidden]`.
    pub table: Param,
    pub from: Places,
}

/// What the place of a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Places {
    /// What `position_ids` says.
    Given,
    /// 0, 1, 2, …
    Counted,
    /// Counted among the tokens that are no padding, from `padding + 1` on; padding is at `padding`.
    /// RoBERTa tells it by its id.
    Unpadded { padding: usize },
}

/// One layer. A sublayer is `sum_norm(x + output_norm(body(input_norm(x))))`, without the norms that
/// it lacks.
pub struct Block {
    pub attention: Sublayer<Attention>,
    pub mlp: Sublayer<Mlp>,
}

pub struct Sublayer<T> {
    pub name: String,
    pub input_norm: Option<Norm>,
    pub body: T,
    pub output_norm: Option<Norm>,
    pub sum_norm: Option<Norm>,
}

pub struct Attention {
    pub qkv: Qkv,
    pub out: Linear,
    pub q_norm: Option<Norm>,
    pub k_norm: Option<Norm>,
    pub heads: usize,
    /// Of keys and values: a divisor of `heads`.
    pub kv_heads: usize,
    pub head_size: usize,
    /// Of the products of queries and keys.
    pub scale: f32,
    /// `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A query sees this many keys, itself included.
    pub window: Option<usize>,
    /// An index into [`Architecture::rotaries`].
    pub rotary: Option<usize>,
}

pub enum Qkv {
    Apart(Box<[Linear; 3]>),
    /// Queries, keys and values beside each other in one product.
    Joint(Linear),
}

pub struct Mlp {
    /// `down(activation(gate(x)) * up(x))`; without: `down(activation(up(x)))`.
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

/// What is computed of the vectors after the last block.
pub enum Head {
    /// The next token, of a decoder with a cache: `logits`.
    Tokens { weight: Linear, softcap: Option<f32> },
    /// The vectors themselves: `last_hidden_state`.
    Hidden,
    /// `token_embeddings`, and one vector for the text: `sentence_embedding`.
    Sentence { pooling: Pooling, normalize: bool },
    /// A class of each token: `logits`.
    TokenClasses(Linear),
    /// A class of the text by its first token: `logits`.
    Classes { hidden: Option<(Linear, Activation)>, out: Linear },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The mean over tokens that are no padding.
    Mean,
}

impl Architecture {
    /// One without rotary embeddings, a last norm and tensors to pass over.
    fn new(shape: &Shape, embedding: Embedding, blocks: Vec<Block>, head: Head) -> Self {
        Architecture {
            model_type: shape.model_type.clone(),
            hidden: shape.hidden,
            vocabulary: shape.vocabulary,
            context: shape.context,
            embedding,
            rotaries: Vec::new(),
            blocks,
            norm: None,
            head,
            buffers: Vec::new(),
        }
    }

    /// Whether it makes text, token by token.
    pub fn is_decoder(&self) -> bool {
        matches!(self.head, Head::Tokens { .. })
    }

    /// Whether files may hold a tensor that nothing reads: a buffer, or a head for training.
    pub(crate) fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|it| match it.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *it || name.ends_with(&format!(".{it}")),
        })
    }
}

impl Activation {
    /// What papers call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "GELU",
            Activation::GeluTanh => "GELU by tanh",
            Activation::Relu => "ReLU",
            Activation::Silu => "SiLU",
            Activation::Tanh => "tanh",
        }
    }
}

impl Attention {
    /// Between all tokens before or around, with neither norms nor places of its own.
    fn new(shape: &Shape, qkv: Qkv, out: Linear) -> Attention {
        Attention {
            qkv,
            out,
            q_norm: None,
            k_norm: None,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_size: shape.head_size,
            scale: (shape.head_size as f32).powf(-0.5),
            softcap: None,
            window: None,
            rotary: None,
        }
    }
}

impl Embedding {
    /// Words alone.
    fn of_words(words: Param) -> Embedding {
        Embedding { words, positions: None, types: None, scale: None, norm: None }
    }
}

impl Param {
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Param {
        Param { name: name.into(), shape: shape.into(), rows: None, plus: 0.0 }
    }

    pub fn rows(mut self, rows: Range<usize>) -> Param {
        self.rows = Some(rows);
        self
    }
}

impl Linear {
    /// `name.weight` and, if it has one, `name.bias`.
    pub fn new(name: &str, [inputs, outputs]: [usize; 2], has_bias: bool) -> Linear {
        let weight = Param::new(format!("{name}.weight"), [outputs, inputs]);
        let bias = has_bias.then(|| Param::new(format!("{name}.bias"), [outputs]));
        Linear { name: name.to_owned(), weight, bias, turned: false }
    }

    /// How many numbers it makes.
    pub fn outputs(&self) -> usize {
        match &self.weight.rows {
            Some(rows) => rows.len(),
            None => self.weight.shape[usize::from(self.turned)],
        }
    }

    /// The same with inputs in rows.
    pub fn turned(mut self) -> Linear {
        self.weight.shape.reverse();
        self.turned = true;
        self
    }

    /// Outputs `rows` of it, under another name.
    pub fn part(&self, name: &str, rows: Range<usize>) -> Linear {
        let part = |it: &Param| it.clone().rows(rows.clone());
        Linear {
            name: name.to_owned(),
            weight: part(&self.weight),
            bias: self.bias.as_ref().map(part),
            turned: false,
        }
    }
}

impl Norm {
    pub fn rms(name: &str, size: usize, epsilon: f64) -> Norm {
        Norm::new(NormKind::Rms, name, size, epsilon)
    }

    pub fn layer(name: &str, size: usize, epsilon: f64) -> Norm {
        Norm::new(NormKind::Layer, name, size, epsilon)
    }

    fn new(kind: NormKind, name: &str, size: usize, epsilon: f64) -> Norm {
        let param = |it: &str| Param::new(format!("{name}.{it}"), [size]);
        let bias = (kind == NormKind::Layer).then(|| param("bias"));
        let (name, weight) = (name.to_owned(), param("weight"));
        Norm { name, kind, weight, bias, epsilon: epsilon as f32 }
    }

    /// Its weight is stored less 1.
    pub fn plus_one(mut self) -> Norm {
        self.weight.plus = 1.0;
        self
    }
}

impl<T> Sublayer<T> {
    pub fn new(name: &str, body: T) -> Sublayer<T> {
        let (input_norm, output_norm, sum_norm) = (None, None, None);
        Sublayer { name: name.to_owned(), input_norm, body, output_norm, sum_norm }
    }

    /// Normed before it, as Llama is.
    pub fn after(mut self, norm: Norm) -> Sublayer<T> {
        self.input_norm = Some(norm);
        self
    }

    /// Its result is normed before it is added, as Gemma 2 does.
    pub fn then(mut self, norm: Norm) -> Sublayer<T> {
        self.output_norm = Some(norm);
        self
    }

    /// The sum is normed, as BERT does.
    pub fn summed(mut self, norm: Norm) -> Sublayer<T> {
        self.sum_norm = Some(norm);
        self
    }
}

//! What is known of each operator, stated once: what it is, which inputs are weights, scales and
//! zero points or decide sizes, which versions changed it, what float16 and bfloat16 may hold.
//!
//! These are facts. What a room does with operators is a policy, which stays there as a mask over
//! [`Traits`]. Nodes keep their operators as text, so those without a row pass through.

mod microsoft;
mod quantized;
mod releases;
mod standard;
mod traits;

pub use self::{
    quantized::{Operand, QuantizedOp},
    releases::{BROUGHT, Brought, OPSETS, Release, When},
    standard::NEWEST,
    traits::{Set, Traits},
};

/// The domain of ONNX Runtime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// One row: an operator.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    /// The standard domain is `""`.
    pub domain: &'static str,
    pub name: &'static str,
    pub traits: Traits,
    /// Versions of the standard operator set that changed the schema, the first being the one
    /// that introduced it; empty for operators that are not of the standard.
    pub versions: &'static [i64],
    pub narrow: Narrow,
    /// Inputs that are weights in float.
    pub weights: &'static [usize],
    /// How the first of the weights lies in memory, in float or quantized.
    pub layout: Option<Layout>,
    /// The factor of a norm, one number per channel.
    pub gain: Option<usize>,
    /// What is added to the result, one number per channel.
    pub bias: Option<usize>,
    /// Inputs whose numbers decide how large the result is, or which of several graphs runs.
    pub sizes: &'static [usize],
    pub quantized: Option<&'static QuantizedOp>,
}

/// What an operator takes of narrow floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Narrow {
    /// The first operator set from which it takes float16; 0: none.
    pub float16: i64,
    /// The first operator set from which it takes bfloat16; 0: none.
    pub bfloat16: i64,
    /// Inputs that stay float32 whatever the others are.
    pub stay: &'static [usize],
    /// Why it overflows or loses digits in a narrow type.
    pub risk: Option<&'static str>,
}

/// How a weight lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `[n, blocks, bytes]`: packed blocks of each column.
    Blocks,
    /// `[outputs, inputs / groups, …]`: a kernel for each output channel.
    Conv,
    /// `[inputs, outputs / groups, …]`: kernels for each input channel.
    ConvTranspose,
    /// Several weights inside one operator.
    Fused,
    /// `[k, n]`, or `[n, k]` with the attribute `transB`.
    Gemm,
    /// `[k, n]`: `y = x · w`.
    MatMul,
    /// `[directions, gates · hidden, inputs]`: of the input, and of the state.
    Recurrent,
    /// `[rows, columns]`, looked up by row.
    Table,
}

impl Layout {
    /// Whether each result is a sum of products of one activation with this weight.
    pub fn is_product(self) -> bool {
        matches!(self, Layout::Conv | Layout::ConvTranspose | Layout::Gemm | Layout::MatMul)
    }
}

/// The row of an operator.
pub fn find(domain: &str, name: &str) -> Option<&'static OpInfo> {
    let table = match domain {
        "" => standard::OPS,
        MICROSOFT => microsoft::OPS,
        _ => return None,
    };
    table.binary_search_by(|it| it.name.cmp(name)).ok().map(|at| &table[at])
}

/// The row of an operator of this name, whatever its domain; the standard one if there are two.
pub fn named(name: &str) -> Option<&'static OpInfo> {
    find("", name).or_else(|| find(MICROSOFT, name))
}

/// Every row, in alphabetical order within each domain.
pub fn all() -> impl Iterator<Item = &'static OpInfo> {
    standard::OPS.iter().chain(microsoft::OPS)
}

/// Whether domain and name are those of a printed name: `MatMul`, `com.microsoft.MatMulNBits`.
pub(crate) fn is(domain: &str, name: &str, printed: &str) -> bool {
    match printed.rsplit_once('.') {
        Some((its, own)) => domain == its && name == own,
        None => domain.is_empty() && name == printed,
    }
}

impl OpInfo {
    /// Whether it has one of the traits.
    pub fn has(&self, traits: Traits) -> bool {
        self.traits.intersects(traits)
    }

    /// Inputs that are the weights of a layer, in float or quantized.
    pub fn weight_inputs(&self) -> Vec<usize> {
        match self.quantized {
            Some(it) => it.weights.iter().map(|it| it.values).collect(),
            None => self.weights.to_vec(),
        }
    }

    /// Whether it computes with weights that are quantized.
    pub fn has_quantized_weights(&self) -> bool {
        self.quantized.is_some_and(|it| !it.weights.is_empty())
    }

    /// How messages and files name the operator: `MatMul`, `com.microsoft.MatMulNBits`.
    pub fn printed(&self) -> String {
        match self.domain {
            "" => self.name.to_owned(),
            domain => format!("{domain}.{}", self.name),
        }
    }

    /// The page that specifies the operator.
    pub fn spec_url(&self) -> String {
        const STANDARD: &str = "https://onnx.ai/onnx/operators";
        const RUNTIME: &str =
            "https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md";
        match self.domain.is_empty() && !self.has(Traits::RUNTIME) {
            true => format!("{STANDARD}/onnx__{}.html", self.name),
            false => format!("{RUNTIME}#{MICROSOFT}.{}", self.name),
        }
    }

    const fn is(mut self, traits: Traits) -> OpInfo {
        self.traits = self.traits.union(traits);
        self
    }

    const fn unary(self) -> OpInfo {
        self.is(Traits::ELEMENTWISE).is(Traits::UNARY)
    }

    const fn binary(self) -> OpInfo {
        self.is(Traits::ELEMENTWISE).is(Traits::BINARY)
    }

    const fn variadic(self) -> OpInfo {
        self.is(Traits::ELEMENTWISE).is(Traits::VARIADIC)
    }

    const fn narrow(mut self, float16: i64, bfloat16: i64) -> OpInfo {
        self.narrow.float16 = float16;
        self.narrow.bfloat16 = bfloat16;
        self
    }

    const fn stay(mut self, inputs: &'static [usize]) -> OpInfo {
        self.narrow.stay = inputs;
        self
    }

    const fn risk(mut self, why: &'static str) -> OpInfo {
        self.narrow.risk = Some(why);
        self
    }

    const fn weights(mut self, layout: Layout, inputs: &'static [usize]) -> OpInfo {
        self.weights = inputs;
        self.layout = Some(layout);
        self
    }

    const fn layout(mut self, layout: Layout) -> OpInfo {
        self.layout = Some(layout);
        self
    }

    const fn gain(mut self, input: usize) -> OpInfo {
        self.gain = Some(input);
        self
    }

    const fn bias(mut self, input: usize) -> OpInfo {
        self.bias = Some(input);
        self
    }

    const fn sized(mut self, inputs: &'static [usize]) -> OpInfo {
        self.sizes = inputs;
        self
    }

    const fn quantized(mut self, inputs: &'static QuantizedOp) -> OpInfo {
        self.quantized = Some(inputs);
        self.bias = inputs.bias;
        self.is(Traits::QUANTIZED)
    }
}

/// A row of which nothing is known yet but its name.
const fn row(domain: &'static str, name: &'static str, versions: &'static [i64]) -> OpInfo {
    let narrow = Narrow { float16: 0, bfloat16: 0, stay: &[], risk: None };
    let traits = Traits::NONE;
    let (weights, layout, gain, bias, sizes, quantized) = (&[], None, None, None, &[], None);
    OpInfo { domain, name, traits, versions, narrow, weights, layout, gain, bias, sizes, quantized }
}

#[cfg(test)]
mod tests;

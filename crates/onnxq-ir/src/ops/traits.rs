//! What operators are, as sets of bits that rooms combine into their policies.

/// A set of traits. One that is set is a fact that callers rely on; one that is missing promises
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traits(u32);

macro_rules! traits {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The place of each bit.
        #[allow(
            clippy::upper_case_acronyms,
            non_camel_case_types,
            reason = "they number the constants of the same names"
        )]
        enum Bit { $($name,)* }

        impl Traits {
            $($(#[$doc])* pub const $name: Traits = Traits(1 << Bit::$name as u32);)*

            /// Every trait with its name, in alphabetical order.
            pub const ALL: &[(&str, Traits)] = &[$((stringify!($name), Traits::$name),)*];
        }
    };
}

traits! {
    /// An activation function of hidden layers, or the nonlinear part of one.
    ACTIVATION,
    /// A sum or difference of its operands.
    ADDITIVE,
    /// Works along the axis `axis`, the last if that is not stated; the others are independent.
    ALONG_AXIS,
    /// One of the four basic operations.
    ARITHMETIC,
    /// Takes queries, keys and values as inputs 0, 1 and 2.
    ATTENTION,
    /// Two operands of which either may be an activation.
    BINARY,
    /// Limits a value by others.
    BOUNDS,
    /// Changes the element type to one that it states.
    CAST,
    /// Sums products: of matrices, or of a kernel with what is under it.
    CONTRACTION,
    /// Runs the graphs in its attributes.
    CONTROL_FLOW,
    /// The result is the input.
    COPY,
    /// Turns quantized values into floats.
    DEQUANTIZE,
    /// Each element of the result depends on one element of each operand, which broadcast.
    ELEMENTWISE,
    /// Fills places with one value.
    FILL,
    /// A positive factor of a channel of input 0 becomes a factor of that channel of the result.
    HOMOGENEOUS,
    /// Multiplies quantized values and sums the products as integers.
    INTEGER,
    /// Normalizes along `axis` and the axes after it.
    LAYER_NORM,
    /// Moves or repeats elements and changes none.
    LAYOUT,
    /// The result is never below zero.
    NON_NEGATIVE,
    /// Takes mean, variance or length out of groups of elements.
    NORM,
    /// Sums up windows of the spatial axes.
    POOL,
    /// Turns floats into quantized values of a stated scale.
    QUANTIZE,
    /// Reads or makes quantized values.
    QUANTIZED,
    /// Gives another result each time, or may in training.
    RANDOM,
    /// Gives all elements of one input another order or shape.
    REARRANGE,
    /// One number for all elements along the axes `axes`.
    REDUCTION,
    /// Not of the standard: ONNX Runtime has it in the standard domain, at every version.
    RUNTIME,
    /// Some elements of the first input, chosen by their positions.
    SELECT,
    /// One operand.
    UNARY,
    /// As many operands as there are inputs, all alike.
    VARIADIC,
    /// The same elements in the same order under another shape.
    VIEW,
}

impl Traits {
    /// No trait at all.
    pub const NONE: Traits = Traits(0);

    /// All traits of both.
    pub const fn union(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    /// Whether the sets share a trait.
    pub const fn intersects(self, other: Traits) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` are here.
    pub const fn contains(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The operators of a policy: those with one of some traits, but for exceptions by name.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    any: Traits,
    none: Traits,
    plus: &'static [&'static str],
    minus: &'static [&'static str],
}

impl Set {
    /// Operators with at least one of the traits.
    pub const fn of(any: Traits) -> Set {
        Set { any, none: Traits::NONE, plus: &[], minus: &[] }
    }

    /// Leaves out operators with one of these traits.
    pub const fn without(self, none: Traits) -> Set {
        Set { none, ..self }
    }

    /// Adds operators by printed name.
    pub const fn plus(self, plus: &'static [&'static str]) -> Set {
        Set { plus, ..self }
    }

    /// Leaves out operators by printed name.
    pub const fn minus(self, minus: &'static [&'static str]) -> Set {
        Set { minus, ..self }
    }

    /// Whether an operator belongs to the set; one without a row does not, except by name.
    pub fn has(&self, domain: &str, name: &str) -> bool {
        let is_one_of = |list: &[&str]| list.iter().any(|it| super::is(domain, name, it));
        let by_traits =
            || super::find(domain, name).is_some_and(|it| it.has(self.any) && !it.has(self.none));
        is_one_of(self.plus) || !is_one_of(self.minus) && by_traits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trait_has_a_bit_of_its_own() {
        assert!(Traits::ALL.is_sorted_by(|a, b| a.0 < b.0));
        for (i, (_, one)) in Traits::ALL.iter().enumerate() {
            assert!(Traits::ALL[i + 1..].iter().all(|it| !it.1.intersects(*one)));
        }
    }

    #[test]
    fn exceptions_win_over_traits() {
        const SET: Set = Set::of(Traits::CONTRACTION)
            .without(Traits::QUANTIZED)
            .plus(&["ConvInteger"])
            .minus(&["com.microsoft.FusedMatMul"]);
        assert!(SET.has("", "Conv") && SET.has("", "ConvInteger"));
        assert!(!SET.has("", "MatMulInteger") && !SET.has("", "Relu"));
        assert!(!SET.has("com.microsoft", "FusedMatMul") && !SET.has("custom", "Conv"));
    }
}

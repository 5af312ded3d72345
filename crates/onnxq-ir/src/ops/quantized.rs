//! Where quantized operators have their values, scales and zero points.

/// Inputs of a quantized operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuantizedOp {
    /// Activations; those without scale and zero point are floats.
    pub operands: &'static [Operand],
    /// Quantized constants, or what dequantizing makes of them.
    pub weights: &'static [Operand],
    pub bias: Option<usize>,
    /// Scale and zero point of the result.
    pub y: Option<[usize; 2]>,
    /// Several values share a byte, and the attribute `bits` says how many bits each takes.
    pub packed: bool,
}

/// Quantized values and what they stand for, by input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operand {
    pub values: usize,
    pub scale: Option<usize>,
    pub zero: Option<usize>,
}

impl QuantizedOp {
    /// Inputs that are scales, in order.
    pub fn scales(&self) -> Vec<usize> {
        let own = self.parts().filter_map(|it| it.scale);
        own.chain(self.y.map(|it| it[0])).collect()
    }

    /// Inputs that are scales or zero points.
    pub fn scales_and_zeros(&self) -> impl Iterator<Item = usize> {
        let own = self.parts().flat_map(|it| [it.scale, it.zero]).flatten();
        own.chain(self.y.into_iter().flatten())
    }

    /// Every input that has a meaning here.
    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        let values = self.parts().map(|it| it.values);
        values.chain(self.scales_and_zeros()).chain(self.bias)
    }

    fn parts(&self) -> impl Iterator<Item = &'static Operand> {
        self.operands.iter().chain(self.weights)
    }
}

const fn operand(values: usize, scale: usize, zero: usize) -> Operand {
    Operand { values, scale: Some(scale), zero: Some(zero) }
}

const fn float(values: usize) -> Operand {
    Operand { values, scale: None, zero: None }
}

/// An integer product leaves scales to what follows it.
const fn unscaled(values: usize, zero: usize) -> Operand {
    Operand { values, scale: None, zero: Some(zero) }
}

const NONE: QuantizedOp =
    QuantizedOp { operands: &[], weights: &[], bias: None, y: None, packed: false };

pub(super) const BLOCK_MATMUL: QuantizedOp = QuantizedOp {
    operands: &[float(0)],
    weights: &[operand(1, 2, 3)],
    bias: Some(5),
    packed: true,
    ..NONE
};

pub(super) const BLOCK_TABLE: QuantizedOp =
    QuantizedOp { weights: &[operand(0, 2, 3)], packed: true, ..NONE };

pub(super) const DEQUANTIZE: QuantizedOp = QuantizedOp { weights: &[operand(0, 1, 2)], ..NONE };

pub(super) const DYNAMIC_LSTM: QuantizedOp = QuantizedOp {
    operands: &[float(0)],
    weights: &[operand(1, 8, 9), operand(2, 10, 11)],
    bias: Some(3),
    ..NONE
};

pub(super) const DYNAMIC_MATMUL: QuantizedOp =
    QuantizedOp { operands: &[float(0)], weights: &[operand(1, 2, 3)], bias: Some(4), ..NONE };

pub(super) const INTEGER_PRODUCT: QuantizedOp =
    QuantizedOp { operands: &[unscaled(0, 2)], weights: &[unscaled(1, 3)], ..NONE };

pub(super) const MATMUL_TO_FLOAT: QuantizedOp = QuantizedOp {
    operands: &[operand(0, 2, 4)],
    weights: &[operand(1, 3, 5)],
    bias: Some(6),
    ..NONE
};

pub(super) const QGEMM: QuantizedOp = QuantizedOp {
    operands: &[operand(0, 1, 2)],
    weights: &[operand(3, 4, 5)],
    bias: Some(6),
    y: Some([7, 8]),
    ..NONE
};

pub(super) const QLINEAR_BINARY: QuantizedOp =
    QuantizedOp { operands: &[operand(0, 1, 2), operand(3, 4, 5)], y: Some([6, 7]), ..NONE };

pub(super) const QLINEAR_CONV: QuantizedOp = QuantizedOp { bias: Some(8), ..QLINEAR_MATMUL };

pub(super) const QLINEAR_MATMUL: QuantizedOp = QuantizedOp {
    operands: &[operand(0, 1, 2)],
    weights: &[operand(3, 4, 5)],
    y: Some([6, 7]),
    ..NONE
};

pub(super) const QUANTIZE: QuantizedOp =
    QuantizedOp { operands: &[float(0)], y: Some([1, 2]), ..NONE };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_in_order() {
        assert_eq!(QGEMM.scales(), [1, 4, 7]);
        assert_eq!(MATMUL_TO_FLOAT.scales(), [2, 3]);
        let sides: Vec<usize> = DYNAMIC_LSTM.scales_and_zeros().collect();
        assert_eq!(sides, [8, 9, 10, 11]);
    }
}

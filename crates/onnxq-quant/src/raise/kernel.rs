//! Convolutions whose kernels are quantized, with a scale for each output.

use super::{
    Input, Weight, Weights,
    operand::{Channels, activation, constant, dequantize, optional, quantized_of},
};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match};

/// The kernels of a convolution, a row for each output, and how its activation is quantized.
pub fn kernel(m: &Model, node: NodeId, weights: &mut Weights) -> Result<(Weight, Input), NoMatch> {
    let op = &m.node(node).op;
    if op.is("QLinearConv") {
        let (quantized, scales) = (m.operand(node, 3)?, m.operand(node, 4)?);
        let channels = channels(quantized, scales, optional(m, node, 5));
        let (x, scale) = (m.operand(node, 0)?, m.operand(node, 1)?);
        let x = quantized_of(m, x, scale, optional(m, node, 2));
        return Ok((channels.kernels(m, weights)?, x));
    }
    if !op.is("Conv") {
        return Err(no_match!("{op} is no convolution of a known form"));
    }
    let weight = dequantize(m, m.operand(node, 1)?)?;
    let (quantized, scales) = (m.operand(weight, 0)?, m.operand(weight, 1)?);
    let of_one = constant(m, scales)?.0.numel() == 1;
    if !of_one && m.int_attr(weight, "axis", 1) != 0 {
        return Err(NoMatch("its scales are not along its outputs".into()));
    }
    let channels = channels(quantized, scales, optional(m, weight, 2));
    Ok((channels.kernels(m, weights)?, activation(m, m.operand(node, 0)?)))
}

fn channels(quantized: ValueId, scales: ValueId, zero_points: Option<ValueId>) -> Channels {
    Channels { quantized, scales, zero_points, turned: true, block: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::QSource;

    #[test]
    fn kernels_of_both_forms_are_rows() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]>
            main (uint8[1,2,4,4] x) => (float[1,3,4,4] y, uint8[1,3,4,4] z)
            <int8[3,2,1,1] w = {1, 2, 3, 4, 5, 6}, float[3] s = {1, 2, 3}, float one = {0.5},
             uint8 zero = {7}> {
                f = DequantizeLinear (x, one, zero)
                dq = DequantizeLinear <axis = 0> (w, s)
                y = Conv (f, dq)
                z = QLinearConv (x, one, zero, w, s, w0, one, zero)
            }";
        let text = text.replace("uint8 zero", "int8[3] w0 = {0, 0, 0}, uint8 zero");
        let m = onnxq_ir::text::parse(&text).unwrap();
        for op in ["Conv", "QLinearConv"] {
            let node = m.nodes().into_iter().find(|it| m.node(*it).op.is(op)).unwrap();
            let (weight, x) = kernel(&m, node, &mut Weights::default()).unwrap();
            let solved = weight.source.solve(1..3).unwrap();
            assert_eq!((weight.source.shape().n, weight.source.shape().k), (3, 2), "{op}");
            assert_eq!(solved.dequantize().into_raw_vec_and_offset().0, [6.0, 8.0, 15.0, 18.0]);
            assert!(matches!(x, Input::Quantized { dynamic: false, .. }), "{op}");
        }
        let dq = m.nodes().into_iter().find(|it| m.node(*it).op.is("DequantizeLinear")).unwrap();
        assert!(kernel(&m, dq, &mut Weights::default()).is_err());
    }
}

//! Every check; to add one, add a function to a file here and a row.

mod conv;
mod dequantize;
mod fused;
mod gather;
mod hints;
mod integer;
mod nbits;
mod scales;
mod versions;

use super::{Check, Factor, Found, ModelIndex, Severity, factor};
use onnxq_ir::NodeId;

macro_rules! checks {
    ($($code:literal $name:literal $run:path, $help:literal;)*) => {
        /// In the order of their quantized values.
        pub const CHECKS: &[Check] =
            &[$(Check { code: $code, name: $name, help: $help, run: $run },)*];
    };
}

checks! {
    "L101" "u8-weights" integer::u8_weights, "uint8 weights in integer products: the kernels for int8 weights are up to 4 times faster.";
    "L102" "s8-activations" integer::s8_activations, "int8 activations in operator form: on x86 only a reference kernel takes them.";
    "L103" "accuracy-level" nbits::accuracy_level, "MatMulNBits without accuracy_level 4: the weight is dequantized in each run.";
    "L104" "float-zero-points" nbits::float_zero_points, "MatMulNBits with float zero points: no fast kernel takes them.";
    "L105" "nbits-block" nbits::block, "MatMulNBits with a block size that fails, or that is slower than 128.";
    "L106" "group-index" nbits::group_index, "MatMulNBits with g_idx, which is deprecated and has no fast kernel.";
    "L107" "computed-nbits" nbits::computed, "MatMulNBits whose weight, scales or zero points are no constants: they are not prepacked.";
    "L108" "computed-scales" nbits::computed_scales, "MatMulNBits with a constant weight and computed scales or zero points: it is packed without them, and results are wrong.";
    "L110" "per-tensor-weight" dequantize::per_tensor, "DequantizeLinear with one scale of shape [1] before MatMul: not fused, the weight is dequantized in each run.";
    "L111" "transposed-weight" dequantize::transposed, "DequantizeLinear and Transpose before MatMul: not fused, the weight is dequantized in each run.";
    "L112" "wrong-axis" dequantize::wrong_axis, "DequantizeLinear before MatMul with scales along another axis than the fusion wants.";
    "L113" "gemm-weight" dequantize::gemm, "DequantizeLinear before Gemm: not fused, the weight is dequantized in each run.";
    "L114" "dequantized-table" dequantize::gather, "DequantizeLinear before Gather: the whole table is dequantized in each run.";
    "L115" "unfused-weight" dequantize::other, "DequantizeLinear of a large constant that no fusion takes.";
    "L116" "fused-at-load" dequantize::fused_at_load, "DequantizeLinear before MatMul, which ONNX Runtime converts each time it loads the model.";
    "L120" "typed-gather" gather::typed, "GatherBlockQuantized of int4 or uint4 elements: far slower than packed bytes.";
    "L121" "implicit-zero" gather::implicit_zero, "GatherBlockQuantized without zero points: their default depends on the element type.";
    "L130" "relu-range" conv::relu_range, "Conv and Relu with a symmetric range behind them: the fusion to QLinearConv is lost.";
    "L131" "depthwise-u8" conv::depthwise, "A depthwise convolution with uint8 weights per channel.";
    "L132" "conv-integer" conv::conv_integer, "ConvInteger: slower than the float convolution.";
    "L140" "16-bit" integer::sixteen_bit, "Activations in 16 bits: nothing is fused, each tensor is converted back and forth.";
    "L150" "slow-fusion" fused::slow_fusion, "Operators that were fused for a GPU and are slow on a CPU.";
    "L151" "residual-layernorm" fused::residual, "Add before LayerNormalization: ONNX Runtime fuses them to SkipLayerNormalization.";
    "L152" "bias-outside" fused::bias_outside, "DynamicQuantizeMatMul with its bias in an Add behind it.";
    "L153" "quantized-twice" fused::quantized_twice, "An activation that is quantized by more than one DynamicQuantizeLinear.";
    "L160" "opset" versions::opset, "A form of quantization that the imported operator set does not have.";
    "L161" "scale" scales::scale, "A scale that is NaN, infinite or zero.";
    "L162" "half-dynamic" versions::half_dynamic, "DynamicQuantizeLinear of float16, which the operator does not take.";
    "L170" "float-weight" hints::float_weight, "A large float weight in a model that is otherwise quantized.";
    "L171" "loose-rmsnorm" hints::loose_rmsnorm, "RMSNorm written as several nodes.";
    "L172" "loose-attention" hints::loose_attention, "Attention of a decoder with a cache, written as several nodes.";
    "L180" "no-kernel" asked_elsewhere, "ONNX Runtime does not load the model: it has no CPU kernel for a node, or refuses the graph.";
}

/// Only the runtime knows; whoever runs the checks asks it.
fn asked_elsewhere(_: &ModelIndex, _: NodeId) -> Option<Found> {
    None
}

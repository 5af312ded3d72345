//! ONNX Runtime's own operators, as far as they occur in models that are read or written here.

use super::{
    Layout::{Blocks, Conv, Fused, Gemm, MatMul, Recurrent, Table},
    MICROSOFT, OpInfo, Traits, quantized, row,
};

const ACTIVATION: Traits = Traits::ACTIVATION;
const ATTENTION: Traits = Traits::ATTENTION;
const CONTRACTION: Traits = Traits::CONTRACTION;
const DEQUANTIZE: Traits = Traits::DEQUANTIZE;
const ELEMENTWISE: Traits = Traits::ELEMENTWISE;
const INTEGER: Traits = Traits::INTEGER;
const LAYER_NORM: Traits = Traits::LAYER_NORM;
const NORM: Traits = Traits::NORM;
const QUANTIZE: Traits = Traits::QUANTIZE;
const QUANTIZED: Traits = Traits::QUANTIZED;
const RANDOM: Traits = Traits::RANDOM;

/// In alphabetical order.
pub(super) const OPS: &[OpInfo] = &[
    op("Attention").narrow(1, 0).weights(Fused, &[1]).bias(2),
    op("BiasDropout").is(RANDOM),
    op("BiasGelu").is(ELEMENTWISE).is(ACTIVATION).narrow(1, 0).bias(1),
    op("BiasSoftmax"),
    op("BitmaskBiasDropout").is(RANDOM),
    op("BitmaskDropout").is(RANDOM),
    op("DequantizeLinear").is(ELEMENTWISE).is(DEQUANTIZE).quantized(&quantized::DEQUANTIZE),
    op("DynamicQuantizeLSTM").is(INTEGER).quantized(&quantized::DYNAMIC_LSTM).layout(Recurrent),
    op("DynamicQuantizeMatMul")
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::DYNAMIC_MATMUL)
        .layout(MatMul),
    op("EmbedLayerNormalization").is(NORM).weights(Fused, &[2, 3, 4]),
    op("FastGelu").is(ELEMENTWISE).is(ACTIVATION).narrow(1, 0).bias(1),
    op("FusedConv").is(CONTRACTION).bias(2),
    op("FusedGemm").is(CONTRACTION).bias(2),
    op("FusedMatMul").is(CONTRACTION).narrow(1, 0),
    op("GatherBlockQuantized").narrow(1, 0).quantized(&quantized::BLOCK_TABLE).layout(Table),
    op("Gelu").is(ELEMENTWISE).is(ACTIVATION).narrow(1, 0),
    op("GroupNorm").is(NORM).gain(1).bias(2),
    // Scales of a quantized cache.
    op("GroupQueryAttention").is(ATTENTION).narrow(1, 0).stay(&[12, 13]),
    op("Inverse"),
    op("MatMulBnb4").is(CONTRACTION).is(QUANTIZED),
    op("MatMulIntegerToFloat")
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::MATMUL_TO_FLOAT)
        .layout(MatMul),
    op("MatMulNBits")
        .is(CONTRACTION)
        .narrow(1, 0)
        .quantized(&quantized::BLOCK_MATMUL)
        .layout(Blocks),
    op("MultiHeadAttention").is(ATTENTION).narrow(1, 0),
    op("NhwcMaxPool").is(QUANTIZED),
    op("Pad"),
    op("QAttention").is(QUANTIZED).weights(Fused, &[1]),
    op("QEmbedLayerNormalization").is(NORM).is(QUANTIZED).weights(Fused, &[2, 3, 4]),
    op("QGemm").is(CONTRACTION).is(INTEGER).quantized(&quantized::QGEMM).layout(Gemm),
    op("QLinearAdd").quantized(&quantized::QLINEAR_BINARY),
    op("QLinearAveragePool").is(QUANTIZED),
    op("QLinearConcat").is(QUANTIZED),
    op("QLinearConv").is(CONTRACTION).is(INTEGER).quantized(&quantized::QLINEAR_CONV).layout(Conv),
    op("QLinearGlobalAveragePool").is(QUANTIZED),
    op("QLinearLeakyRelu").is(QUANTIZED),
    op("QLinearMul").quantized(&quantized::QLINEAR_BINARY),
    op("QLinearReduceMean").is(QUANTIZED),
    op("QLinearSigmoid").is(QUANTIZED),
    op("QLinearSoftmax").is(QUANTIZED),
    op("QLinearWhere").is(QUANTIZED),
    op("QuantizeLinear").is(ELEMENTWISE).is(QUANTIZE).quantized(&quantized::QUANTIZE),
    op("QuickGelu").is(ELEMENTWISE).is(ACTIVATION).narrow(1, 0),
    op("RotaryEmbedding").narrow(1, 0),
    op("Sampling").is(RANDOM),
    op("SimplifiedLayerNormalization").is(LAYER_NORM).is(NORM).gain(1),
    op("SkipLayerNormalization").is(LAYER_NORM).is(NORM).narrow(1, 0).gain(2).bias(3),
    op("SkipSimplifiedLayerNormalization").is(LAYER_NORM).is(NORM).narrow(1, 0).gain(2),
    op("TransposeMatMul").is(CONTRACTION),
    op("Trilu"),
];

const fn op(name: &'static str) -> OpInfo {
    row(MICROSOFT, name, &[])
}

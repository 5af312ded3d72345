//! The operators of the standard domain, and those that ONNX Runtime adds to it.
//!
//! Versions are from `onnx.defs.get_all_schemas_with_history()` of onnx 1.23.2: for each schema of
//! the domain `""`, its `name` and `since_version`. Narrow floats are from the type constraints of
//! the same schemas.

use super::{
    Layout::{Conv, ConvTranspose, Gemm, MatMul, Recurrent, Table},
    OpInfo, Traits, quantized, row,
};

const ACTIVATION: Traits = Traits::ACTIVATION;
const ADDITIVE: Traits = Traits::ADDITIVE;
const ALONG_AXIS: Traits = Traits::ALONG_AXIS;
const ARITHMETIC: Traits = Traits::ARITHMETIC;
const ATTENTION: Traits = Traits::ATTENTION;
const BINARY: Traits = Traits::BINARY;
const BOUNDS: Traits = Traits::BOUNDS;
const CAST: Traits = Traits::CAST;
const CONTRACTION: Traits = Traits::CONTRACTION;
const CONTROL_FLOW: Traits = Traits::CONTROL_FLOW;
const COPY: Traits = Traits::COPY;
const DEQUANTIZE: Traits = Traits::DEQUANTIZE;
const ELEMENTWISE: Traits = Traits::ELEMENTWISE;
const FILL: Traits = Traits::FILL;
const HOMOGENEOUS: Traits = Traits::HOMOGENEOUS;
const INTEGER: Traits = Traits::INTEGER;
const LAYER_NORM: Traits = Traits::LAYER_NORM;
const LAYOUT: Traits = Traits::LAYOUT;
const NON_NEGATIVE: Traits = Traits::NON_NEGATIVE;
const NORM: Traits = Traits::NORM;
const POOL: Traits = Traits::POOL;
const QUANTIZE: Traits = Traits::QUANTIZE;
const QUANTIZED: Traits = Traits::QUANTIZED;
const RANDOM: Traits = Traits::RANDOM;
const REARRANGE: Traits = Traits::REARRANGE;
const REDUCTION: Traits = Traits::REDUCTION;
const RUNTIME: Traits = Traits::RUNTIME;
const SELECT: Traits = Traits::SELECT;
const VARIADIC: Traits = Traits::VARIADIC;
const VIEW: Traits = Traits::VIEW;

/// The newest operator set of the table.
pub const NEWEST: i64 = 28;

/// In alphabetical order.
pub(super) const OPS: &[OpInfo] = &[
    op("Abs", &[1, 6, 13]).unary().is(NON_NEGATIVE).narrow(1, 13),
    op("Acos", &[7, 22]).unary().narrow(7, 22),
    op("Acosh", &[9, 22]).unary().narrow(9, 22),
    op("Add", &[1, 6, 7, 13, 14]).binary().is(ADDITIVE).is(ARITHMETIC).narrow(1, 13),
    op("Affine", &[]).unary().is(RUNTIME),
    op("AffineGrid", &[20]).narrow(20, 20).sized(&[1]),
    op("And", &[1, 7]).binary(),
    op("ArgMax", &[1, 11, 12, 13]).narrow(1, 13),
    op("ArgMin", &[1, 11, 12, 13]).narrow(1, 13),
    op("Asin", &[7, 22]).unary().narrow(7, 22),
    op("Asinh", &[9, 22]).unary().narrow(9, 22),
    op("Atan", &[7, 22]).unary().narrow(7, 22),
    op("Atanh", &[9, 22]).unary().narrow(9, 22),
    op("Attention", &[23, 24, 25]).is(ATTENTION).narrow(23, 23),
    op("AveragePool", &[1, 7, 10, 11, 19, 22]).is(HOMOGENEOUS).is(POOL).narrow(1, 22),
    op("BatchNormalization", &[1, 6, 7, 9, 14, 15]).is(NORM).narrow(1, 14).gain(1).bias(2),
    op("Bernoulli", &[15, 22]).is(RANDOM),
    op("BitCast", &[26]),
    op("BitShift", &[11, 28]).binary(),
    op("BitwiseAnd", &[18]).binary(),
    op("BitwiseNot", &[18]).unary(),
    op("BitwiseOr", &[18]).binary(),
    op("BitwiseXor", &[18]).binary(),
    op("BlackmanWindow", &[17]).sized(&[0]),
    op("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28]).unary().is(CAST).narrow(1, 13),
    op("CastLike", &[15, 19, 21, 23, 24, 25]).is(ELEMENTWISE).narrow(15, 15),
    op("CausalConvWithState", &[27]).narrow(27, 27),
    op("Ceil", &[1, 6, 13]).unary().narrow(1, 13),
    op("Celu", &[12, 28]).unary().is(ACTIVATION).narrow(28, 28),
    op("CenterCropPad", &[18]).narrow(18, 18).sized(&[1]),
    op("Clip", &[1, 6, 11, 12, 13]).is(ELEMENTWISE).is(BOUNDS).narrow(1, 13),
    op("Col2Im", &[18]).narrow(18, 18).sized(&[1]),
    op("Compress", &[9, 11, 28]).narrow(9, 28).sized(&[1]),
    op("Concat", &[1, 4, 11, 13]).is(VARIADIC).is(LAYOUT).narrow(1, 13),
    op("ConcatFromSequence", &[11]),
    op("Constant", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25]),
    op("ConstantOfShape", &[9, 20, 21, 23, 24, 25]).is(FILL).narrow(9, 20).sized(&[0]),
    op("Conv", &[1, 11, 22]).is(CONTRACTION).narrow(1, 22).weights(Conv, &[1]).bias(2),
    op("ConvInteger", &[10])
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::INTEGER_PRODUCT)
        .layout(Conv),
    op("ConvTranspose", &[1, 11, 22])
        .is(CONTRACTION)
        .narrow(1, 22)
        .weights(ConvTranspose, &[1])
        .bias(2),
    op("Cos", &[7, 22]).unary().narrow(7, 22).risk("angles grow with positions"),
    op("Cosh", &[9, 22]).unary().narrow(9, 22),
    op("Crop", &[]).is(RUNTIME),
    op("CumProd", &[26]).narrow(26, 26),
    op("CumSum", &[11, 14]).narrow(14, 14).risk("sums of many elements lose digits"),
    op("DFT", &[17, 20]).sized(&[1]),
    op("DeformConv", &[19, 22]).is(CONTRACTION).narrow(19, 22).bias(3),
    op("DepthToSpace", &[1, 11, 13, 28]).is(LAYOUT).narrow(1, 13),
    op("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28])
        .is(ELEMENTWISE)
        .is(DEQUANTIZE)
        .quantized(&quantized::DEQUANTIZE),
    op("Det", &[11, 22]).narrow(11, 22),
    op("Div", &[1, 6, 7, 13, 14]).binary().is(ARITHMETIC).narrow(1, 13),
    op("Dropout", &[1, 6, 7, 10, 12, 13, 22]).is(RANDOM).narrow(1, 13),
    op("DynamicQuantizeLinear", &[11]).is(QUANTIZED),
    op("DynamicSlice", &[]).is(RUNTIME),
    op("Einsum", &[12, 28]).is(CONTRACTION).narrow(12, 28),
    op("Elu", &[1, 6, 22]).unary().is(ACTIVATION).narrow(1, 22),
    op("Equal", &[1, 7, 11, 13, 19]).binary().narrow(11, 13),
    op("Erf", &[9, 13]).unary().is(ACTIVATION).narrow(9, 13),
    op("Exp", &[1, 6, 13]).unary().is(NON_NEGATIVE).narrow(1, 13).risk("exponentials overflow"),
    op("Expand", &[8, 13]).is(LAYOUT).narrow(8, 13).sized(&[1]),
    op("EyeLike", &[9, 22]),
    op("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25]).is(LAYOUT).is(VIEW).narrow(1, 13),
    op("Floor", &[1, 6, 13]).unary().narrow(1, 13),
    op("GRU", &[1, 3, 7, 14, 22]).narrow(1, 22).weights(Recurrent, &[1, 2]).bias(3),
    op("Gather", &[1, 11, 13]).is(LAYOUT).is(SELECT).narrow(1, 13).weights(Table, &[0]),
    op("GatherElements", &[11, 13]).is(LAYOUT).is(SELECT).narrow(11, 13),
    op("GatherND", &[11, 12, 13]).is(LAYOUT).is(SELECT).narrow(11, 13),
    op("Gelu", &[20]).unary().is(ACTIVATION).narrow(20, 20),
    op("Gemm", &[1, 6, 7, 9, 11, 13]).is(CONTRACTION).narrow(1, 13).weights(Gemm, &[1]).bias(2),
    op("GlobalAveragePool", &[1, 22]).is(HOMOGENEOUS).is(POOL).narrow(1, 22),
    op("GlobalLpPool", &[1, 2, 22]).is(POOL).narrow(1, 22),
    op("GlobalMaxPool", &[1, 22]).is(HOMOGENEOUS).is(POOL).narrow(1, 22),
    op("Greater", &[1, 7, 9, 13]).binary().narrow(1, 13),
    op("GreaterOrEqual", &[12, 16]).binary().narrow(12, 16),
    op("GridSample", &[16, 20, 22]).narrow(16, 22),
    op("GroupNormalization", &[18, 21]).is(NORM).narrow(21, 21).gain(1).bias(2),
    op("HammingWindow", &[17]).sized(&[0]),
    op("HannWindow", &[17]).sized(&[0]),
    op("HardSigmoid", &[1, 6, 22]).unary().is(ACTIVATION).narrow(1, 22),
    op("HardSwish", &[14, 22]).unary().is(ACTIVATION).narrow(14, 22),
    op("Hardmax", &[1, 11, 13]).is(ALONG_AXIS).narrow(1, 13),
    op("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25])
        .unary()
        .is(COPY)
        .is(HOMOGENEOUS)
        .is(LAYOUT)
        .narrow(1, 13),
    op("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25]).is(CONTROL_FLOW).sized(&[0]),
    op("ImageDecoder", &[20]),
    op("ImageScaler", &[]).is(RUNTIME),
    op("InstanceNormalization", &[1, 6, 22]).is(NORM).narrow(1, 22).gain(1).bias(2),
    op("IsInf", &[10, 20]).unary().narrow(20, 20),
    op("IsNaN", &[9, 13, 20]).unary().narrow(9, 13),
    op("LRN", &[1, 13]).is(NORM).narrow(1, 13),
    op("LSTM", &[1, 7, 14, 22]).narrow(1, 22).weights(Recurrent, &[1, 2]).bias(3),
    op("LayerNormalization", &[17]).is(LAYER_NORM).is(NORM).narrow(17, 17).gain(1).bias(2),
    op("LeakyRelu", &[1, 6, 16]).unary().is(ACTIVATION).is(HOMOGENEOUS).narrow(1, 16),
    op("Less", &[1, 7, 9, 13]).binary().narrow(1, 13),
    op("LessOrEqual", &[12, 16]).binary().narrow(12, 16),
    op("LinearAttention", &[27]).narrow(27, 27),
    op("Log", &[1, 6, 13]).unary().narrow(1, 13).risk("logarithms of small numbers lose digits"),
    op("LogSoftmax", &[1, 11, 13]).is(ALONG_AXIS).narrow(1, 13),
    op("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25]).is(CONTROL_FLOW).sized(&[0, 1]),
    op("LpNormalization", &[1, 22]).is(ALONG_AXIS).is(NORM).narrow(1, 22),
    op("LpPool", &[1, 2, 11, 18, 22]).is(POOL).narrow(1, 22),
    op("MatMul", &[1, 9, 13]).is(BINARY).is(CONTRACTION).narrow(1, 13).weights(MatMul, &[1]),
    op("MatMulInteger", &[10])
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::INTEGER_PRODUCT)
        .layout(MatMul),
    op("Max", &[1, 6, 8, 12, 13]).variadic().is(BOUNDS).narrow(1, 13),
    op("MaxPool", &[1, 8, 10, 11, 12, 22]).is(HOMOGENEOUS).is(POOL).narrow(1, 22),
    op("MaxRoiPool", &[1, 22]).is(POOL).narrow(1, 22),
    op("MaxUnpool", &[9, 11, 22]).narrow(9, 22).sized(&[2]),
    op("Mean", &[1, 6, 8, 13]).variadic().narrow(1, 13),
    op("MeanVarianceNormalization", &[9, 13]).is(NORM).narrow(9, 13),
    op("MelWeightMatrix", &[17]).sized(&[0, 1]),
    op("Min", &[1, 6, 8, 12, 13]).variadic().is(BOUNDS).narrow(1, 13),
    op("Mish", &[18, 22]).unary().is(ACTIVATION).narrow(18, 22),
    op("Mod", &[10, 13, 28]).binary().narrow(10, 13),
    op("Mul", &[1, 6, 7, 13, 14]).binary().is(ARITHMETIC).narrow(1, 13),
    op("Multinomial", &[7, 22]).is(RANDOM),
    op("Neg", &[1, 6, 13]).unary().narrow(1, 13),
    op("NegativeLogLikelihoodLoss", &[12, 13, 22]).narrow(12, 22),
    op("NonMaxSuppression", &[10, 11]).sized(&[0, 1, 2, 3, 4]),
    op("NonZero", &[9, 13]).narrow(9, 13).sized(&[0]),
    op("Not", &[1]).unary(),
    op("OneHot", &[9, 11, 28]).narrow(9, 28).stay(&[0, 1]).sized(&[1]),
    op("Optional", &[15, 28]),
    op("OptionalGetElement", &[15, 18, 28]),
    op("OptionalHasElement", &[15, 18, 28]),
    op("Or", &[1, 7]).binary(),
    op("PRelu", &[1, 6, 7, 9, 16]).is(ELEMENTWISE).is(ACTIVATION).is(HOMOGENEOUS).narrow(1, 16),
    op("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25]).is(FILL).narrow(1, 13).sized(&[1]),
    op("ParametricSoftplus", &[]).unary().is(RUNTIME),
    op("Pow", &[1, 7, 12, 13, 15]).binary().narrow(1, 13).risk("powers overflow"),
    op("QLinearConv", &[10])
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::QLINEAR_CONV)
        .layout(Conv),
    op("QLinearMatMul", &[10, 21])
        .is(CONTRACTION)
        .is(INTEGER)
        .quantized(&quantized::QLINEAR_MATMUL)
        .layout(MatMul),
    op("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28])
        .is(ELEMENTWISE)
        .is(QUANTIZE)
        .quantized(&quantized::QUANTIZE),
    op("RMSNormalization", &[23]).is(LAYER_NORM).is(NORM).narrow(23, 23).gain(1),
    op("RNN", &[1, 7, 14, 22]).narrow(1, 22).weights(Recurrent, &[1, 2]).bias(3),
    op("RandomNormal", &[1, 22]).is(RANDOM),
    op("RandomNormalLike", &[1, 22]).is(RANDOM),
    op("RandomUniform", &[1, 22]).is(RANDOM),
    op("RandomUniformLike", &[1, 22]).is(RANDOM),
    op("Range", &[11, 27]).sized(&[0, 1, 2]),
    op("Reciprocal", &[1, 6, 13]).unary().narrow(1, 13),
    op("ReduceL1", &[1, 11, 13, 18])
        .is(REDUCTION)
        .narrow(1, 13)
        .risk("sums of many elements overflow"),
    op("ReduceL2", &[1, 11, 13, 18]).is(REDUCTION).narrow(1, 13).risk("sums of squares overflow"),
    op("ReduceLogSum", &[1, 11, 13, 18, 28])
        .is(REDUCTION)
        .narrow(1, 13)
        .risk("sums of many elements overflow"),
    op("ReduceLogSumExp", &[1, 11, 13, 18, 28])
        .is(REDUCTION)
        .narrow(1, 13)
        .risk("exponentials overflow"),
    op("ReduceMax", &[1, 11, 12, 13, 18, 20]).is(REDUCTION).narrow(1, 13),
    op("ReduceMean", &[1, 11, 13, 18]).is(REDUCTION).narrow(1, 13),
    op("ReduceMin", &[1, 11, 12, 13, 18, 20]).is(REDUCTION).narrow(1, 13),
    op("ReduceProd", &[1, 11, 13, 18]).is(REDUCTION).narrow(1, 13).risk("products overflow"),
    op("ReduceSum", &[1, 11, 13])
        .is(REDUCTION)
        .narrow(1, 13)
        .risk("sums of many elements overflow"),
    op("ReduceSumSquare", &[1, 11, 13, 18])
        .is(REDUCTION)
        .narrow(1, 13)
        .risk("sums of squares overflow"),
    op("RegexFullMatch", &[20]),
    op("Relu", &[1, 6, 13, 14])
        .unary()
        .is(ACTIVATION)
        .is(HOMOGENEOUS)
        .is(NON_NEGATIVE)
        .narrow(1, 13),
    op("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25])
        .is(LAYOUT)
        .is(REARRANGE)
        .is(VIEW)
        .narrow(1, 13)
        .sized(&[1]),
    op("Resize", &[10, 11, 13, 18, 19]).narrow(10, 13).stay(&[1, 2]).sized(&[1, 2, 3]),
    op("ReverseSequence", &[10, 28]).is(LAYOUT).narrow(10, 28),
    op("RoiAlign", &[10, 16, 22]).narrow(10, 22),
    op("RotaryEmbedding", &[23]).narrow(23, 23),
    op("Round", &[11, 22]).unary().narrow(11, 22),
    op("STFT", &[17]).sized(&[1, 3]),
    op("ScaledTanh", &[]).unary().is(RUNTIME),
    op("Scan", &[8, 9, 11, 16, 19, 21, 23, 24, 25]).is(CONTROL_FLOW),
    op("Scatter", &[9, 11]).narrow(9, 0),
    op("ScatterElements", &[11, 13, 16, 18]).narrow(11, 13),
    op("ScatterND", &[11, 13, 16, 18]).narrow(11, 13),
    op("Selu", &[1, 6, 22]).unary().is(ACTIVATION).narrow(1, 22),
    op("SequenceAt", &[11]),
    op("SequenceConstruct", &[11]),
    op("SequenceEmpty", &[11]),
    op("SequenceErase", &[11]),
    op("SequenceInsert", &[11]),
    op("SequenceLength", &[11]),
    op("SequenceMap", &[17]).is(CONTROL_FLOW),
    op("Shape", &[1, 13, 15, 19, 21, 23, 24, 25]),
    op("Shrink", &[9]).unary().narrow(9, 0),
    op("Sigmoid", &[1, 6, 13]).unary().is(ACTIVATION).is(NON_NEGATIVE).narrow(1, 13),
    op("Sign", &[9, 13]).unary().narrow(9, 13),
    op("SimplifiedLayerNormalization", &[])
        .is(LAYER_NORM)
        .is(NORM)
        .is(RUNTIME)
        .narrow(1, 0)
        .gain(1),
    op("Sin", &[7, 22]).unary().narrow(7, 22).risk("angles grow with positions"),
    op("Sinh", &[9, 22]).unary().narrow(9, 22),
    op("Size", &[1, 13, 19, 21, 23, 24, 25]),
    op("Slice", &[1, 10, 11, 13]).is(LAYOUT).is(SELECT).narrow(1, 13).sized(&[1, 2, 3, 4]),
    op("Softmax", &[1, 11, 13]).is(ALONG_AXIS).is(NON_NEGATIVE).narrow(1, 13),
    op("SoftmaxCrossEntropyLoss", &[12, 13]).narrow(12, 13),
    op("Softplus", &[1, 22]).unary().is(ACTIVATION).narrow(1, 22).risk("exponentials overflow"),
    op("Softsign", &[1, 22]).unary().narrow(1, 22),
    op("SpaceToDepth", &[1, 13, 28]).is(LAYOUT).narrow(1, 13),
    op("Split", &[1, 2, 11, 13, 18]).is(LAYOUT).narrow(1, 13).sized(&[1]),
    op("SplitToSequence", &[11, 24]).sized(&[1]),
    op("Sqrt", &[1, 6, 13]).unary().is(NON_NEGATIVE).narrow(1, 13),
    op("Squeeze", &[1, 11, 13, 21, 23, 24, 25]).is(LAYOUT).is(VIEW).narrow(1, 13),
    op("StringConcat", &[20]),
    op("StringNormalizer", &[10]),
    op("StringSplit", &[20]),
    op("Sub", &[1, 6, 7, 13, 14]).binary().is(ADDITIVE).is(ARITHMETIC).narrow(1, 13),
    op("Sum", &[1, 6, 8, 13]).variadic().is(ADDITIVE).narrow(1, 13),
    op("SwiGLU", &[28]).narrow(28, 28),
    op("Swish", &[24]).unary().is(ACTIVATION).narrow(24, 24),
    op("Tan", &[7, 22]).unary().narrow(7, 22),
    op("Tanh", &[1, 6, 13]).unary().is(ACTIVATION).narrow(1, 13),
    op("TensorScatter", &[24]).narrow(24, 24),
    op("TfIdfVectorizer", &[9]),
    op("ThresholdedRelu", &[10, 22]).unary().is(ACTIVATION).narrow(10, 22),
    op("Tile", &[1, 6, 13]).is(LAYOUT).narrow(1, 13).sized(&[1]),
    op("TopK", &[1, 10, 11, 24]).narrow(1, 24).sized(&[1]),
    op("Transpose", &[1, 13, 21, 23, 24, 25]).is(LAYOUT).is(REARRANGE).narrow(1, 13),
    op("Trilu", &[14]).narrow(14, 14),
    op("Unique", &[11, 28]).narrow(11, 28).sized(&[0]),
    op("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25]).is(LAYOUT).is(VIEW).narrow(1, 13),
    op("Upsample", &[1, 7, 9, 10]).narrow(1, 0).stay(&[1]).sized(&[1]),
    op("Where", &[9, 16]).is(ELEMENTWISE).narrow(9, 16),
    op("Xor", &[1, 7]).binary(),
];

const fn op(name: &'static str, versions: &'static [i64]) -> OpInfo {
    row("", name, versions)
}

//! Every rule; to add one, add a file and a line.

mod accuracy_level;
mod affine_to_conv;
mod attention_mask;
mod channels;
mod computed_scales;
mod constant_to_initializer;
mod dynamic_bias;
mod einsum_to_matmul;
mod expand_to_constant;
mod explicit_zeros;
mod fold_affine;
mod fold_affine_inputs;
mod fold_batchnorm;
mod fuse_attention;
mod fuse_gelu;
mod fuse_hardswish;
mod fuse_layernorm;
mod fuse_rmsnorm;
mod fuse_rotary;
mod fuse_silu;
mod fuse_skip_rmsnorm;
mod gate_of_residual;
mod gather_of_dequantized;
mod gather_of_gather;
mod gemm_of_dequantized;
mod gemm_to_matmul;
mod heads;
mod identity_of_constant;
mod integer_zero_points;
mod merge_reshape;
mod merge_transpose;
mod packed_gather;
mod part_of_shape;
mod per_channel_scales;
mod recode;
mod remove_cast;
mod remove_dropout;
mod remove_expand;
mod remove_identity;
mod remove_slice;
mod reshape_to_constant;
mod signed_weights;
mod sum_before_layernorm;
mod transpose_of_concat;
mod transpose_of_constant;
mod transpose_of_dequantized;
mod unflatten_matmul;
mod unfuse_activation;
mod unfuse_bias_gelu;
mod unfuse_matmul;
mod unfuse_skip_layernorm;
mod unmerge_heads;

pub(crate) use self::signed_weights::is_float_product;
pub(crate) use self::{
    computed_scales::must_not_be_constant,
    fuse_attention::Site,
    fuse_hardswish::hard_swish,
    heads::{size_of, sized},
};
use super::Rule;
use onnxq_ir::{
    Def, Model, NoMatch, NodeId, Patch, Ref, User, ValueId, no_match,
    tensor::{DType, Tensor, from_f32, to_f32},
};

/// In alphabetical order.
pub const RULES: &[&Rule] = &[
    &accuracy_level::ACCURACY_LEVEL,
    &affine_to_conv::AFFINE_TO_CONV,
    &computed_scales::COMPUTED_SCALES,
    &constant_to_initializer::CONSTANT_TO_INITIALIZER,
    &dynamic_bias::DYNAMIC_BIAS,
    &einsum_to_matmul::EINSUM_TO_MATMUL,
    &expand_to_constant::EXPAND_TO_CONSTANT,
    &explicit_zeros::EXPLICIT_ZEROS,
    &fold_affine::FOLD_AFFINE,
    &fold_affine_inputs::FOLD_AFFINE_INPUTS,
    &fold_affine::FOLD_AFFINE_TRANSPOSED,
    &fold_batchnorm::FOLD_BATCHNORM,
    &fuse_attention::FUSE_ATTENTION,
    &fuse_gelu::FUSE_GELU,
    &fuse_hardswish::FUSE_HARDSWISH,
    &fuse_hardswish::FUSE_HARDSWISH_DIV,
    &fuse_layernorm::FUSE_LAYERNORM,
    &fuse_rmsnorm::FUSE_RMSNORM,
    &fuse_rotary::FUSE_ROTARY,
    &fuse_silu::FUSE_SILU,
    &fuse_skip_rmsnorm::FUSE_SKIP_RMSNORM,
    &gate_of_residual::GATE_OF_RESIDUAL,
    &gather_of_dequantized::GATHER_OF_DEQUANTIZED,
    &gather_of_gather::GATHER_OF_GATHER,
    &part_of_shape::GATHER_OF_SHAPE,
    &gemm_of_dequantized::GEMM_OF_DEQUANTIZED,
    &gemm_to_matmul::GEMM_TO_MATMUL,
    &identity_of_constant::IDENTITY_OF_CONSTANT,
    &integer_zero_points::INTEGER_ZERO_POINTS,
    &merge_reshape::MERGE_RESHAPE,
    &merge_transpose::MERGE_TRANSPOSE,
    &packed_gather::PACKED_GATHER,
    &per_channel_scales::PER_CHANNEL_SCALES,
    &remove_cast::REMOVE_CAST,
    &remove_dropout::REMOVE_DROPOUT,
    &remove_expand::REMOVE_EXPAND,
    &remove_identity::REMOVE_IDENTITY,
    &remove_slice::REMOVE_SLICE,
    &reshape_to_constant::RESHAPE_TO_CONSTANT,
    &signed_weights::SIGNED_WEIGHTS,
    &signed_weights::SIGNED_WEIGHTS_CONV,
    &signed_weights::SIGNED_WEIGHTS_DEQUANTIZE,
    &signed_weights::SIGNED_WEIGHTS_FLOAT,
    &signed_weights::SIGNED_WEIGHTS_FUSED,
    &signed_weights::SIGNED_WEIGHTS_QLINEAR,
    &part_of_shape::SLICE_OF_SHAPE,
    &sum_before_layernorm::SUM_BEFORE_LAYERNORM,
    &transpose_of_concat::TRANSPOSE_OF_CONCAT,
    &transpose_of_constant::TRANSPOSE_OF_CONSTANT,
    &transpose_of_dequantized::TRANSPOSE_OF_DEQUANTIZED,
    &unflatten_matmul::UNFLATTEN_MATMUL,
    &unfuse_bias_gelu::UNFUSE_BIAS_FAST_GELU,
    &unfuse_bias_gelu::UNFUSE_BIAS_GELU,
    &unfuse_activation::UNFUSE_CONV_ACTIVATION,
    &unfuse_activation::UNFUSE_GEMM_ACTIVATION,
    &unfuse_matmul::UNFUSE_MATMUL,
    &unfuse_skip_layernorm::UNFUSE_SKIP_LAYERNORM,
    &unmerge_heads::UNMERGE_HEADS,
];

/// What the nodes that replace `node` are called: recipes select by name.
fn stem(m: &Model, node: NodeId) -> String {
    let it = m.node(node);
    if it.name.is_empty() { m.value(it.output()).name.to_string() } else { it.name.to_string() }
}

/// Whoever uses the output of `node` uses `value` instead.
fn bypass(m: &Model, node: NodeId, value: ValueId) -> Result<Patch, NoMatch> {
    let output = m.node(node).output();
    let patch = Patch::before(node);
    if !m.is_output(output) || can_be_output(m, output, value) {
        return Ok(patch.replace(output, value.into()));
    }
    rewire_users(m, output, value.into(), patch)
}

/// Whoever uses the output of `node` uses a new constant instead.
fn bypass_by_constant(
    m: &Model,
    node: NodeId,
    name: &str,
    tensor: Tensor,
) -> Result<Patch, NoMatch> {
    let output = m.node(node).output();
    let mut patch = Patch::before(node);
    let constant = patch.constant(name, tensor);
    if !m.is_output(output) {
        return Ok(patch.replace(output, constant));
    }
    rewire_users(m, output, constant, patch)
}

/// Outputs of a graph keep the value they have; only the nodes use `new`.
fn rewire_users(m: &Model, old: ValueId, new: Ref, mut patch: Patch) -> Result<Patch, NoMatch> {
    let mut any = false;
    for it in &m.value(old).uses {
        if let User::Node(user) = it.user {
            patch = patch.rewire(user, it.index, new);
            any = true;
        }
    }
    if any {
        Ok(patch)
    } else {
        Err(no_match!("`{}` is an output of the graph", m.value(old).name))
    }
}

/// Whether `value` can take the place and the name of `output` among the outputs of its graph.
fn can_be_output(m: &Model, output: ValueId, value: ValueId) -> bool {
    let Def::Node(producer) = m.value(value).def else { return false };
    let graph = m.node(producer).graph;
    let mut outputs = m.value(output).uses.iter().filter(|it| matches!(it.user, User::Output(_)));
    let only = outputs.next().is_some_and(|it| it.user == User::Output(graph));
    only && outputs.next().is_none() && !m.is_output(value)
}

/// Both operands of a node.
pub(crate) fn pair(m: &Model, node: NodeId) -> Result<(ValueId, ValueId), NoMatch> {
    Ok((m.operand(node, 0)?, m.operand(node, 1)?))
}

/// What `find` makes of `a`, with `b`; or the other way round. Most operands commute.
fn one_of<T>(
    m: &Model,
    a: ValueId,
    b: ValueId,
    find: impl Fn(ValueId) -> Result<T, NoMatch>,
) -> Result<(T, ValueId), NoMatch> {
    // The reason worth telling is that of the operand that is computed.
    let constant = m.constant(a).is_ok();
    match (find(a), find(b)) {
        (Ok(it), _) => Ok((it, b)),
        (_, Ok(it)) => Ok((it, a)),
        (Err(_), Err(reason)) if constant => Err(reason),
        (Err(reason), Err(_)) => Err(reason),
    }
}

/// The type of `value` must be one that ONNX Runtime has a kernel for.
fn of_type(m: &Model, value: ValueId, types: &[DType]) -> Result<(), NoMatch> {
    match m.dtype(value) {
        Some(it) if types.contains(&it) => Ok(()),
        Some(it) => Err(no_match!("ONNX Runtime has no kernel for {it}")),
        None => Err(no_match!("the type of `{}` is not known", m.value(value).name)),
    }
}

/// The value of a constant with one element.
fn scalar(m: &Model, value: ValueId) -> Result<f32, NoMatch> {
    let tensor = m.constant(value)?;
    let name = &m.value(value).name;
    if tensor.numel() != 1 || tensor.shape.len() > 1 {
        return Err(no_match!("`{name}` is no scalar ({tensor:?})"));
    }
    let one = tensor.to_f32().map_err(|err| no_match!("`{name}`: {err}"))?;
    one.first().copied().ok_or_else(|| no_match!("`{name}` is empty"))
}

/// A new constant with one element.
fn number(patch: &mut Patch, name: &str, value: f32, dtype: DType) -> Result<Ref, NoMatch> {
    let bytes = from_f32(dtype, &[value]).map_err(|err| no_match!("{err}"))?;
    Ok(patch.constant(name, Tensor::new(dtype, Vec::new(), bytes)))
}

/// A reduction must be over the last axis and keep it.
fn last_axis(m: &Model, reduce: NodeId) -> Result<(), NoMatch> {
    let axes = match m.ints_attr(reduce, "axes") {
        Some(it) => it.to_vec(),
        None => m.small_i64(m.operand(reduce, 1)?)?,
    };
    let x = m.operand(reduce, 0)?;
    let last = m.rank(x).map_or(i64::MAX, |it| it as i64 - 1);
    match axes[..] {
        [axis] if axis == -1 || axis == last => {}
        _ => return Err(no_match!("{} is over axes {axes:?}", m.node(reduce).op)),
    }
    match m.int_attr(reduce, "keepdims", 1) {
        1 => Ok(()),
        _ => Err(no_match!("{} drops the axis", m.node(reduce).op)),
    }
}

/// Moving a node into the body of a loop would repeat it.
fn same_graph(m: &Model, a: NodeId, b: NodeId) -> Result<(), NoMatch> {
    if m.node(a).graph == m.node(b).graph {
        return Ok(());
    }
    Err(no_match!("{} and {} are in different graphs", m.node(a).op, m.node(b).op))
}

/// Types whose values survive a detour through `f32`.
fn scalable(tensor: &Tensor) -> Result<(), NoMatch> {
    match tensor.dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        it => Err(no_match!("weights of type {it} are not scaled")),
    }
}

/// Element `i` times `factor(i)`. Lazy: rewriting a large model does not load its weights.
fn scaled(tensor: &Tensor, factor: impl Fn(usize) -> f32 + Send + Sync + 'static) -> Tensor {
    let base = tensor.clone();
    Tensor::lazy(base.dtype, base.shape.clone(), move || {
        let mut values = vec![0.0; base.numel()];
        to_f32(base.dtype, &base.bytes()?, &mut values)?;
        values.iter_mut().enumerate().for_each(|(i, it)| *it *= factor(i));
        Ok(from_f32(base.dtype, &values)?.into())
    })
}

/// The transposed view of a constant matrix.
fn transposed(m: &Model, value: ValueId) -> Result<Tensor, NoMatch> {
    let (tensor, name) = (m.constant(value)?, &m.value(value).name);
    if tensor.shape.len() != 2 {
        return Err(no_match!("`{name}` is no matrix ({tensor:?})"));
    }
    // The view moves whole bytes.
    if tensor.dtype.bits() == 0
        || !tensor.dtype.bits().is_multiple_of(8)
        || tensor.quantized().is_some()
    {
        return Err(no_match!("`{name}` is packed ({tensor:?})"));
    }
    Ok(tensor.transposed())
}

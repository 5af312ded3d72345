//! What quantization knows of operators: where the weight is, and which axis it sums over.

use onnxq_ir::{
    Model, NoMatch, NodeId, Op, User, ValueId, no_match,
    ops::{Layout, Set, Traits},
    tensor::{DType, Tensor},
};

/// Where the weight of an operator is, and how a quantized weight replaces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// Input 1, `[k, n]`: `y = x · w`.
    MatMul,
    /// Input 1, `[…, k, n]`: so many matrices, each of which multiplies its slice of `x`.
    Batched(usize),
    /// Input 0, `[rows, columns]`, looked up by row.
    Gather,
    /// Input 1, `[outputs, inputs / groups, …]`: a kernel for each output channel.
    Conv,
    /// Input 1, `[inputs, outputs / groups, …]`: kernels for each input channel.
    ConvTranspose,
    /// Inputs 1 and 2, `[directions, gates · hidden, inputs]` each: of the input and of the state.
    Recurrent,
    /// The node has weights, but no format here stores them; the text says why.
    Float(&'static str),
    /// The weights are quantized already.
    Quantized,
}

/// What is to be done with the weights of an operator; `None`: it is not known to have any.
fn weight_of(op: &Op) -> Option<Weight> {
    let info = op.info()?;
    if info.has_quantized_weights() {
        // ONNX Runtime's other quantized operators are named by their constants, as unknown ones.
        let own = matches!(info.layout, Some(Layout::Blocks | Layout::MatMul | Layout::Table));
        return (info.domain.is_empty() || own).then_some(Weight::Quantized);
    }
    Some(match op.float_layout()? {
        Layout::Blocks => return None,
        Layout::Conv => Weight::Conv,
        Layout::ConvTranspose => Weight::ConvTranspose,
        Layout::Fused => Weight::Float(FUSED),
        Layout::Gemm => Weight::Float(GEMM),
        Layout::MatMul => Weight::MatMul,
        Layout::Recurrent => Weight::Recurrent,
        Layout::Table => Weight::Gather,
    })
}

const FUSED: &str = "the weights are inside a fused operator; quantize before fusing";
const GEMM: &str = "it could not be rewritten as MatMul and Add";

/// The weight of a node that could be quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    pub node: NodeId,
    pub kind: Weight,
    pub weight: ValueId,
}

/// The site at a node. `None`: the node has no weights at all, so nothing needs to be said.
pub fn site(m: &Model, node: NodeId) -> Option<Result<Site, NoMatch>> {
    let op = &m.node(node).op;
    let Some(kind) = weight_of(op) else { return unknown(m, node) };
    let index = match kind {
        Weight::Float(reason) => return Some(Err(NoMatch(reason.into()))),
        Weight::Quantized => {
            // The float consumer of a DequantizeLinear is what counts; this is just storage.
            return Some(Err(NoMatch("it is quantized already".into())));
        }
        _ => *op.info()?.weights.first()?,
    };
    let weight = match m.operand(node, index) {
        Ok(it) => it,
        Err(reason) => return Some(Err(reason)),
    };
    let mut site = Site { node, kind, weight };
    match m.constant(weight) {
        Ok(tensor) if kind == Weight::MatMul && tensor.shape.len() > 2 => {
            let slices = &tensor.shape[..tensor.shape.len() - 2];
            site.kind = Weight::Batched(slices.iter().product());
            check(m, &site, tensor).transpose()
        }
        Ok(tensor) => check(m, &site, tensor).transpose(),
        Err(_) if kind == Weight::Gather => None,
        Err(reason) => Some(Err(variable(m, node, weight).unwrap_or(reason))),
    }
}

/// `None`: not a weight (indices, shapes).
fn check(m: &Model, site: &Site, tensor: &Tensor) -> Result<Option<Site>, NoMatch> {
    let name = &m.value(site.weight).name;
    if !tensor.dtype.is_float() {
        if site.kind == Weight::Gather {
            return Ok(None);
        }
        return Err(no_match!("its weight is {} already", tensor.dtype));
    }
    if !matches!(tensor.dtype, DType::F32 | DType::F16) {
        return Err(no_match!("no kernel of ONNX Runtime takes {} scales", tensor.dtype));
    }
    let is_kernel = matches!(site.kind, Weight::Conv | Weight::ConvTranspose);
    if is_kernel && tensor.shape.len() < 3 {
        return Err(no_match!("weight `{name}` has rank {}, no kernel", tensor.shape.len()));
    }
    if site.kind == Weight::Recurrent {
        recurrent(m, site.node)?;
    } else if !is_kernel && !is_batched(site) && tensor.shape.len() != 2 {
        return Err(no_match!("weight `{name}` has rank {}, not 2", tensor.shape.len()));
    }
    if tensor.numel() == 0 {
        return Err(no_match!("weight `{name}` is empty"));
    }
    same_type(m, site, tensor.dtype)?;
    if site.kind == Weight::Gather && m.int_attr(site.node, "axis", 0) != 0 {
        return Err(no_match!("it gathers along axis {}", m.int_attr(site.node, "axis", 0)));
    }
    Ok(Some(*site))
}

/// A node whose activation has another type than its weight is none that runs, and what would
/// quantize that activation is no better.
fn same_type(m: &Model, site: &Site, weight: DType) -> Result<(), NoMatch> {
    if site.kind == Weight::Gather {
        return Ok(());
    }
    let x = m.operand(site.node, 0)?;
    match m.dtype(x) {
        Some(it) if it != weight => {
            Err(no_match!("`{}` is {it}, its weight {weight}", m.value(x).name))
        }
        _ => Ok(()),
    }
}

/// Whether both weights of a recurrent operator are constant matrices for each direction.
fn recurrent(m: &Model, node: NodeId) -> Result<(), NoMatch> {
    for &index in m.node(node).op.info().map_or(&[][..], |it| it.weights) {
        let value = m.operand(node, index)?;
        let (name, tensor) = (&m.value(value).name, m.constant(value)?);
        if tensor.shape.len() != 3 || tensor.numel() == 0 {
            return Err(no_match!("weight `{name}` is {tensor:?}, not of rank 3"));
        }
    }
    Ok(())
}

fn variable(m: &Model, node: NodeId, weight: ValueId) -> Option<NoMatch> {
    if m.constant(m.operand(node, 0).ok()?).is_ok() {
        return Some(NoMatch("not a weight: its constant is the left input".into()));
    }
    match &m.value(weight).def {
        onnxq_ir::Def::Input(_, None) | onnxq_ir::Def::Node(_) => {
            let quantized = m.producer(weight, "DequantizeLinear").is_ok();
            Some(NoMatch(match quantized {
                true => "its weight is quantized already".into(),
                false => "not a weight: both inputs are computed in the model".into(),
            }))
        }
        _ => None,
    }
}

/// A node of an operator that the table lacks: worth a word if it has a large constant, or a matrix of
/// any size. Vectors and numbers are biases and factors.
fn unknown(m: &Model, node: NodeId) -> Option<Result<Site, NoMatch>> {
    const LARGE: usize = 4096;
    let large = m
        .node(node)
        .inputs
        .iter()
        .flatten()
        .filter_map(|it| m.constant(*it).ok().filter(|it| it.dtype.is_float()))
        .any(|it| it.numel() >= LARGE || it.shape.iter().filter(|size| **size > 1).count() > 1);
    large.then(|| Err(no_match!("no format stores the constants of {}", m.node(node).op)))
}

/// The weight as rows: one per output channel, or one per entry of a table.
pub fn rows(site: &Site, tensor: &Tensor) -> Tensor {
    match site.kind {
        Weight::MatMul => tensor.transposed(),
        Weight::Batched(_) => tensor.transposed_slices(),
        Weight::Conv | Weight::ConvTranspose => {
            let rows = tensor.shape[0];
            tensor.reshaped(vec![rows, tensor.numel() / rows.max(1)])
        }
        Weight::Recurrent => {
            let inputs = tensor.shape[2];
            tensor.reshaped(vec![tensor.numel() / inputs, inputs])
        }
        _ => tensor.clone(),
    }
}

/// The opposite of [`rows`]: the weight as its node reads it, whose shape is `shape`.
pub fn from_rows(site: &Site, rows: &Tensor, shape: &[usize]) -> Tensor {
    match site.kind {
        Weight::MatMul => rows.transposed(),
        Weight::Batched(slices) => {
            let (n, k) = (rows.shape[0] / slices, rows.shape[1]);
            rows.reshaped(vec![slices, n, k]).transposed_slices().reshaped(shape.to_vec())
        }
        _ => rows.reshaped(shape.to_vec()),
    }
}

/// All weights of the site's node: a recurrent layer has two.
pub fn weights(m: &Model, site: &Site) -> Vec<(usize, Site)> {
    let known = m.node(site.node).op.info().map_or(&[][..], |it| it.weights);
    let list = if site.kind == Weight::Recurrent { known } else { &known[..known.len().min(1)] };
    let weight = |index: &usize| {
        Some((*index, Site { weight: m.operand(site.node, *index).ok()?, ..*site }))
    };
    list.iter().filter_map(weight).collect()
}

/// Why recipes for another kind of weights leave this one alone.
pub fn unasked(kind: Weight) -> Option<&'static str> {
    match kind {
        Weight::Conv | Weight::ConvTranspose => {
            Some("without calibration, int8 convolutions run slower than float ones")
        }
        _ => None,
    }
}

/// Multiplications per number that a node reads or writes, weights aside: what a kernel of integers
/// can save over what turning floats into quantized values and back costs. It is `kn / (k + n)` for
/// `[k, n]`; for a convolution per pixel, so `k` is its channels only where numbers are counted.
///
/// A convolution of one pixel counts as 0: it takes no time either way.
pub fn intensity(m: &Model, site: &Site) -> u64 {
    work(m, site).map_or(0, |[product, read, written]| product / (read + written).max(1))
}

/// Multiplications, and numbers that are read and written, per row or pixel. `None`: it takes no
/// time to speak of.
pub(crate) fn work(m: &Model, site: &Site) -> Option<[u64; 3]> {
    let dims: Vec<u64> = m.constant(site.weight).ok()?.shape.iter().map(|it| *it as u64).collect();
    let work = match (site.kind, &dims[..]) {
        (Weight::MatMul | Weight::Batched(_), [.., k, n]) => [k * n, *k, *n],
        (Weight::Conv, [out, channels, ..]) => {
            let groups = m.int_attr(site.node, "group", 1).max(1) as u64;
            [dims.iter().product(), channels * groups, *out]
        }
        _ => return None,
    };
    let is_pixel = |it: &onnxq_ir::tensor::Shape| {
        it.len() > 2 && it[2..].iter().all(|it| it.fixed() == Some(1))
    };
    match m.shape(m.node(site.node).output()).is_ok_and(is_pixel) {
        true => None,
        false => Some(work),
    }
}

/// Whether a node multiplies by several matrices, each with its slice of the activation.
pub fn is_batched(site: &Site) -> bool {
    matches!(site.kind, Weight::Batched(_))
}

/// Whether a node is a convolution of each channel by itself.
pub fn is_depthwise(m: &Model, node: NodeId) -> bool {
    let channels = || m.constant(m.operand(node, 1).ok()?).ok()?.shape.get(1).copied();
    m.node(node).op.is("Conv") && m.int_attr(node, "group", 1) > 1 && channels() == Some(1)
}

/// Operators through which a row keeps its outliers.
const KEEPS_OUTLIERS: Set =
    Set::of(Traits::ARITHMETIC.union(Traits::CAST).union(Traits::COPY).union(Traits::REARRANGE))
        .plus(&["Dropout", "Pow"]);

/// Whether input 0 of `node` is the result of an activation function, directly or through
/// elementwise operators: the input of the second half of a feed-forward block.
pub fn is_after_activation_function(m: &Model, node: NodeId) -> bool {
    // Gelu in single operators is six deep; further back lies another layer.
    const DEPTH: usize = 8;
    let mut values: Vec<ValueId> = m.operand(node, 0).into_iter().collect();
    for _ in 0..DEPTH {
        let producers: Vec<NodeId> = values
            .iter()
            .filter_map(|it| match m.value(*it).def {
                onnxq_ir::Def::Node(id) => Some(id),
                _ => None,
            })
            .collect();
        if producers.iter().any(|it| m.node(*it).op.has(Traits::ACTIVATION)) {
            return true;
        }
        let keeps = |it: &NodeId| m.node(*it).op.is_in(KEEPS_OUTLIERS) || is_hadamard(m, *it);
        let through = producers.iter().filter(|it| keeps(it));
        values = through.flat_map(|it| m.node(*it).inputs.iter().flatten().copied()).collect();
        values.sort();
        values.dedup();
    }
    false
}

/// Whether a node multiplies by a Hadamard matrix: square, all elements of one magnitude. It spreads
/// an outlier over some channels of its row.
pub fn is_hadamard(m: &Model, node: NodeId) -> bool {
    const LARGEST: usize = 1024;
    let matrix = || m.constant(m.operand(node, 1)?);
    let Some(matrix) = matrix().ok().filter(|_| m.node(node).op.is("MatMul")) else { return false };
    let is_square = matches!(matrix.shape[..], [k, n] if k == n && (2..=LARGEST).contains(&n));
    let flat = |it: Vec<f32>| it.iter().all(|value| value.abs() == it[0].abs() && *value != 0.0);
    is_square && matrix.dtype.is_float() && matrix.to_f32().is_ok_and(flat)
}

/// Operators between a head and the model's output.
const AFTER_HEAD: Set = Set::of(Traits::ARITHMETIC.union(Traits::CAST).union(Traits::COPY))
    .plus(&["Reshape", "Tanh"])
    .minus(&["Sub"]);

/// Whether the result of `node` is an output of the model, directly or through elementwise
/// operators (a bias, a cast, a cap on logits): the head of a language model or a classifier.
pub fn is_head(m: &Model, node: NodeId) -> bool {
    // A cap is three operators deep, a bias and a cast two more.
    const DEPTH: usize = 6;
    downstream(m, node, AFTER_HEAD, DEPTH).any(|it| m.is_output(it))
}

/// Operators between the product that makes the values of an attention and the attention: a bias,
/// heads, those of the past.
const AFTER_VALUES: Set = Set::of(
    Traits::ADDITIVE
        .union(Traits::CAST)
        .union(Traits::COPY)
        .union(Traits::LAYOUT)
        .union(Traits::REARRANGE),
);

/// Whether the result of `node` is the values of an attention, which the probabilities are
/// multiplied with.
pub fn is_attention_value(m: &Model, node: NodeId) -> bool {
    const DEPTH: usize = 8;
    let is_values = |user: &onnxq_ir::Use| match user.user {
        User::Node(id) if m.node(id).op.is("MatMul") => user.index == 1 && is_softmax(m, id),
        User::Node(id) => user.index == 2 && m.node(id).op.has(Traits::ATTENTION),
        User::Output(_) | User::Annotation(_) => false,
    };
    downstream(m, node, AFTER_VALUES, DEPTH).any(|it| m.value(it).uses.iter().any(is_values))
}

/// Whether input 0 of `node` is the result of an attention, also with its heads put together.
pub fn is_after_attention(m: &Model, node: NodeId) -> bool {
    const DEPTH: usize = 4;
    let mut value = m.operand(node, 0);
    for _ in 0..DEPTH {
        let Ok(onnxq_ir::Def::Node(id)) = value.map(|it| m.value(it).def.clone()) else {
            return false;
        };
        if m.node(id).op.has(Traits::ATTENTION) || m.node(id).op.is("MatMul") && is_softmax(m, id) {
            return true;
        }
        if !m.node(id).op.is_in(KEEPS_ROWS) {
            return false;
        }
        value = m.operand(id, 0);
    }
    false
}

const KEEPS_ROWS: Set = Set::of(Traits::CAST.union(Traits::COPY).union(Traits::REARRANGE));

fn is_softmax(m: &Model, node: NodeId) -> bool {
    m.operand(node, 0).is_ok_and(|it| m.producer(it, "Softmax").is_ok())
}

/// The results of `node`, then what `through` makes of them, at most `depth` operators deep.
fn downstream(
    m: &Model,
    node: NodeId,
    through: Set,
    depth: usize,
) -> impl Iterator<Item = ValueId> {
    let mut all = m.node(node).outputs.clone();
    let mut values = all.clone();
    for _ in 1..depth {
        let users = values.iter().flat_map(|it| &m.value(*it).uses);
        let users = users.filter_map(|it| match it.user {
            User::Node(id) => Some(id),
            _ => None,
        });
        let next = users.filter(|it| m.node(*it).op.is_in(through));
        values = next.flat_map(|it| m.node(it).outputs.clone()).collect();
        values.sort();
        values.dedup();
        all.extend(&values);
    }
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_forward_blocks_are_found_and_norms_are_not() {
        let text = "main (float[n,4] x) => (float[n,4] y, float[n,4] z)
            <float[4,4] up, float[4,4] gate, float[4,4] down, float[4] scale> {
              n = Mul (x, scale)
              u = MatMul (n, up)
              g = MatMul (n, gate)
              s = Sigmoid (g)
              silu = Mul (g, s)
              h = Mul (silu, u)
              y = MatMul (h, down)
              r = Add (x, y)
              m = Mul (r, scale)
              z = MatMul (m, up)
            }";
        let m = onnxq_ir::text::parse(text).unwrap();
        let matmuls = m.nodes().into_iter().filter(|it| m.node(*it).op.is("MatMul"));
        let found: Vec<bool> = matmuls.map(|it| is_after_activation_function(&m, it)).collect();
        assert_eq!(found, [false, false, true, false]);
    }

    #[test]
    fn heads_are_what_outputs_come_from() {
        let text = "main (float[n,4] x) => (float[n,4] y)
            <float[4,4] w, float[4] bias> {
              h = MatMul (x, w)
              s = Sigmoid (h)
              l = MatMul (s, w)
              y = Add (l, bias)
            }";
        let m = onnxq_ir::text::parse(text).unwrap();
        let matmuls = m.nodes().into_iter().filter(|it| m.node(*it).op.is("MatMul"));
        let found: Vec<bool> = matmuls.map(|it| is_head(&m, it)).collect();
        assert_eq!(found, [false, true]);
    }

    #[test]
    fn values_of_an_attention_are_found_fused_or_not() {
        let fused = "<ir_version: 10, opset_import: [\"\" : 23]>
            main (float[1,n,8] x) => (float[1,n,8] y)
            <float[8,8] q, float[8,8] k, float[8,8] v, float[8] bias, float[8,8] o> {
              qs = MatMul (x, q)
              ks = MatMul (x, k)
              vs = MatMul (x, v)
              vb = Add (vs, bias)
              a = Attention <q_num_heads = 2, kv_num_heads = 2> (qs, ks, vb)
              y = MatMul (a, o)
            }";
        let single = "main (float[n,8] x) => (float[n,8] y)
            <float[8,8] q, float[8,8] k, float[8,8] v, float[8,8] o> {
              qs = MatMul (x, q)
              ks = MatMul (x, k)
              kt = Transpose (ks)
              scores = MatMul (qs, kt)
              p = Softmax (scores)
              vs = MatMul (x, v)
              a = MatMul (p, vs)
              y = MatMul (a, o)
            }";
        for text in [fused, single] {
            let m = onnxq_ir::text::parse(text).unwrap();
            let products = m.nodes().into_iter().filter(|it| m.node(*it).op.is("MatMul"));
            let values = products.filter(|it| is_attention_value(&m, *it));
            let names: Vec<String> =
                values.map(|it| m.value(m.node(it).output()).name.to_string()).collect();
            assert_eq!(names, ["vs"]);
        }
    }

    /// ONNX Runtime refuses such nodes, and what quantizes their activation takes float only.
    #[test]
    fn an_activation_of_another_type_is_left() {
        let reason = |ty: &str| {
            let text = format!(
                "main ({ty}[n,4] x) => (float[n,4] y) <float[4,4] w> {{ y = MatMul (x, w) }}"
            );
            let m = onnxq_ir::text::parse(&text).unwrap();
            site(&m, m.nodes()[0]).unwrap().err().map(|it| it.to_string())
        };
        assert_eq!(reason("float"), None);
        for ty in ["int64", "bool", "float16", "uint8", "double"] {
            assert_eq!(reason(ty).unwrap(), format!("`x` is {ty}, its weight float"));
        }
    }

    #[test]
    fn quantized_weights_are_done_and_fused_ones_kept() {
        let weight = |op: &str| weight_of(&Op::new(op));
        let done = ["ConvInteger", "DequantizeLinear", "com.microsoft.MatMulNBits"];
        assert!(done.iter().all(|it| weight(it) == Some(Weight::Quantized)));
        assert_eq!(weight("com.microsoft.Attention"), Some(Weight::Float(FUSED)));
        assert_eq!(weight("GRU"), Some(Weight::Recurrent));
        let unknown = ["Relu", "com.microsoft.QGemm", "com.microsoft.QAttention"];
        assert!(unknown.iter().all(|it| weight(it).is_none()));
    }
}

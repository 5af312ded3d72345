//! `Einsum` of an activation and a constant weight becomes `MatMul`, so that weights have one form.
//!
//! ```text
//! Einsum <"bsd,dnh->bsnh"> (x, w)     →   Reshape(MatMul(x, w [d, n·h]), [0, 0, n, h])
//! Einsum <"bsnh,nhd->bsd"> (x, w)     →   MatMul(Reshape(x, [0, 0, n·h]), w [n·h, d])
//! Einsum <"bnsd,nde->bnse"> (x, w)    →   MatMul(x, w)
//! ```
//!
//! A label of both operands and the result counts slices, one of both operands alone is summed over.

use std::ops::Range;

use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Tensor},
};

pub(super) const EINSUM_TO_MATMUL: Rule = Rule {
    name: "einsum-to-matmul",
    help: "write Einsum with a constant weight as MatMul, with Reshape and Transpose where needed",
    root: "Einsum",
    apply,
};

fn apply(m: &Model, einsum: NodeId) -> Result<Patch, NoMatch> {
    let (x, w, terms) = operands(m, einsum)?;
    let tensor = m.constant(w)?;
    let labels = Labels::of(&terms)?;
    let sizes = sizes(m, x, tensor, &terms)?;
    let weight = weight(tensor, &terms[1], &labels, &sizes)?;
    let name = super::stem(m, einsum);
    let step = |what: &str| format!("{name}.{what}");

    let mut patch = Patch::before(einsum);
    let mut left: Ref = x.into();
    left = transposed(&mut patch, &step("rows"), left, &terms[0], &labels.left());
    if labels.summed.len() > 1 {
        let leading = labels.left().len() - labels.summed.len();
        let total = sizes.product(&labels.summed);
        left = reshaped(&mut patch, &step("flat"), left, leading, &[total]);
    }
    let weight = match weight {
        Some(it) => patch.constant(&m.value(w).name, it),
        None => w.into(),
    };
    let own = &m.node(einsum).name;
    let product = patch.named(own, &step("product"), "MatMul", [left, weight], Attrs::default());
    let mut y = product;
    if labels.columns.len() > 1 {
        let shape: Vec<i64> = labels.columns.iter().map(|it| sizes.of(*it)).collect();
        y = reshaped(&mut patch, &step("split"), y, labels.result_rows(), &shape);
    }
    let y = transposed(&mut patch, &step("result"), y, &labels.result(), &terms[2]);
    Ok(patch.replace(m.node(einsum).output(), y))
}

type Term = Vec<char>;

/// The activation, the weight, and the labels of both and of the result.
fn operands(m: &Model, einsum: NodeId) -> Result<(ValueId, ValueId, [Term; 3]), NoMatch> {
    if m.node(einsum).inputs.len() != 2 {
        return Err(no_match!("it has {} operands, not 2", m.node(einsum).inputs.len()));
    }
    let (a, b) = (m.operand(einsum, 0)?, m.operand(einsum, 1)?);
    let [left, right, result] = equation(m, einsum)?;
    let (x, w, texts) = match (m.constant(a), m.constant(b)) {
        (Err(_), Ok(_)) => (a, b, [left, right, result]),
        (Ok(_), Err(_)) => (b, a, [right, left, result]),
        (Ok(_), Ok(_)) => return Err(no_match!("both operands are constant")),
        (Err(_), Err(reason)) => return Err(reason),
    };
    Ok((x, w, terms(m, x, texts)?))
}

/// Labels of the three terms, with one for each axis that an ellipsis of the activation stands for.
fn terms(m: &Model, x: ValueId, texts: [String; 3]) -> Result<[Term; 3], NoMatch> {
    const ELLIPSIS: &str = "...";
    let mut free = ('A'..='Z').filter(|it| !texts.iter().any(|text| text.contains(*it)));
    let mut axes = String::new();
    if texts[0].contains(ELLIPSIS) {
        let rank = m.rank(x).ok_or_else(|| no_match!("the rank behind its ellipsis is unknown"))?;
        let own = texts[0].len() - ELLIPSIS.len();
        axes = free.by_ref().take(rank.saturating_sub(own)).collect();
    }
    let [x, w, y] = [0, 1, 2]
        .map(|at| if at == 1 { texts[1].clone() } else { texts[at].replacen(ELLIPSIS, &axes, 1) });
    let terms = [x, w, y].map(|it| it.chars().collect::<Term>());
    for term in &terms {
        let repeats = term.iter().enumerate().any(|(at, it)| term[..at].contains(it));
        if repeats || !term.iter().all(char::is_ascii_alphabetic) {
            let text = texts.join(" ");
            return Err(no_match!(
                "its equation (`{text}`) repeats a label or the weight has an ellipsis"
            ));
        }
    }
    Ok(terms)
}

fn equation(m: &Model, einsum: NodeId) -> Result<[String; 3], NoMatch> {
    let text = m.node(einsum).attrs.get("equation").and_then(|it| it.as_bytes());
    let text = text.and_then(|it| std::str::from_utf8(it).ok()).unwrap_or("");
    let text: String = text.chars().filter(|it| !it.is_whitespace()).collect();
    let (operands, result) = match text.split_once("->") {
        Some((operands, result)) => (operands, result.to_owned()),
        None if text.contains('.') => (&*text, format!("...{}", once(&text))),
        None => (&*text, once(&text)),
    };
    let Some((left, right)) = operands.split_once(',') else {
        return Err(no_match!("its equation `{text}` is not of two operands"));
    };
    Ok([left.to_owned(), right.to_owned(), result])
}

/// The result that an equation does not state: the labels that occur once, in order.
fn once(operands: &str) -> String {
    let mut labels: Vec<char> = operands.chars().filter(char::is_ascii_alphabetic).collect();
    labels.sort();
    labels.retain(|it| operands.matches(*it).count() == 1);
    labels.into_iter().collect()
}

/// What each label is to the product.
struct Labels {
    /// Rows but the last of them, in the order of the activation.
    rows: Term,
    /// A matrix for each of them.
    slices: Term,
    /// The last of the rows.
    row: Option<char>,
    summed: Term,
    /// In the order of the result.
    columns: Term,
}

impl Labels {
    fn of([x, w, y]: &[Term; 3]) -> Result<Labels, NoMatch> {
        let pick = |of: &Term, keep: &dyn Fn(&char) -> bool| -> Term {
            of.iter().copied().filter(|it| keep(it)).collect()
        };
        let mut rows = pick(x, &|it| !w.contains(it) && y.contains(it));
        let slices = pick(x, &|it| w.contains(it) && y.contains(it));
        let summed = pick(x, &|it| w.contains(it) && !y.contains(it));
        let columns = pick(y, &|it| w.contains(it) && !x.contains(it));
        let row = rows.pop();
        let all = rows.len() + usize::from(row.is_some()) + slices.len();
        let of_weight = slices.len() + summed.len() + columns.len();
        if x.len() != all + summed.len() || w.len() != of_weight {
            return Err(no_match!("it sums an operand by itself"));
        }
        if y.len() != all + columns.len() {
            return Err(no_match!("its result has a label that no operand has"));
        }
        if summed.is_empty() || columns.is_empty() {
            return Err(no_match!("it is no product with a matrix"));
        }
        if row.is_none() && !slices.is_empty() {
            return Err(no_match!("each of its slices has one row"));
        }
        Ok(Labels { rows, slices, row, summed, columns })
    }

    /// The axes of the left operand of the product.
    fn left(&self) -> Term {
        [self.leading(), self.summed.clone()].concat()
    }

    /// The axes of the result of the product, its columns apart.
    fn result(&self) -> Term {
        [self.leading(), self.columns.clone()].concat()
    }

    fn leading(&self) -> Term {
        self.rows.iter().chain(&self.slices).copied().chain(self.row).collect()
    }

    fn result_rows(&self) -> usize {
        self.leading().len()
    }
}

/// The sizes of the weight's labels.
struct Sizes<'a> {
    term: &'a Term,
    shape: &'a [usize],
}

impl Sizes<'_> {
    fn of(&self, label: char) -> i64 {
        let at = self.term.iter().position(|it| *it == label);
        at.map_or(1, |it| self.shape[it] as i64)
    }

    fn product(&self, labels: &[char]) -> i64 {
        labels.iter().map(|it| self.of(*it)).product()
    }
}

fn sizes<'a>(
    m: &Model,
    x: ValueId,
    weight: &'a Tensor,
    [left, right, _]: &'a [Term; 3],
) -> Result<Sizes<'a>, NoMatch> {
    if !matches!(weight.dtype, DType::F16 | DType::F32) || right.len() != weight.shape.len() {
        return Err(no_match!("its weight is {weight:?}, not of {} axes", right.len()));
    }
    let sizes = Sizes { term: right, shape: &weight.shape };
    let Ok(shape) = m.shape(x) else { return Ok(sizes) };
    // ONNX Runtime repeats an axis of one element.
    let other = |(label, dim): (&char, &onnxq_ir::tensor::Dim)| {
        right.contains(label) && dim.fixed().is_some_and(|it| it as i64 != sizes.of(*label))
    };
    match left.len() != shape.len() || left.iter().zip(shape.iter()).any(other) {
        true => Err(no_match!("`{}` has other sizes than its labels", m.value(x).name)),
        false => Ok(sizes),
    }
}

/// The weight as the product takes it, `[slices…, k, n]`; `None`: as it is.
fn weight(
    tensor: &Tensor,
    term: &Term,
    labels: &Labels,
    sizes: &Sizes,
) -> Result<Option<Tensor>, NoMatch> {
    let slices: Vec<usize> = labels.slices.iter().map(|it| sizes.of(*it) as usize).collect();
    let [k, n] = [&labels.summed, &labels.columns].map(|it| sizes.product(it) as usize);
    let shape = |last: [usize; 2]| [&slices[..], &last].concat();
    let order = |last: [&Term; 2]| [&labels.slices[..], last[0], last[1]].concat();
    if *term == order([&labels.summed, &labels.columns]) {
        let own = shape([k, n]);
        return Ok((tensor.shape != own).then(|| tensor.reshaped(own)));
    }
    if *term == order([&labels.columns, &labels.summed]) && slices.is_empty() {
        return Ok(Some(tensor.reshaped(vec![n, k]).transposed()));
    }
    let perm = permutation(term, &order([&labels.summed, &labels.columns]));
    Ok(Some(permuted(tensor, &perm)?.reshaped(shape([k, n]))))
}

/// Where each axis of `to` is in `from`.
fn permutation(from: &Term, to: &Term) -> Vec<usize> {
    to.iter().filter_map(|it| from.iter().position(|own| own == it)).collect()
}

/// The elements in another order of axes, in memory.
fn permuted(tensor: &Tensor, perm: &[usize]) -> Result<Tensor, NoMatch> {
    let bytes = tensor.bytes().map_err(|err| no_match!("{err}"))?;
    let (width, shape) = (tensor.dtype.bits() / 8, &tensor.shape);
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let axes: Vec<(usize, usize)> = perm.iter().map(|it| (shape[*it], stride(*it))).collect();
    let mut out = Vec::with_capacity(bytes.len());
    copy(&bytes, 0, &axes, width, &mut out);
    Ok(Tensor::new(tensor.dtype, perm.iter().map(|it| shape[*it]).collect(), out))
}

fn copy(bytes: &[u8], at: usize, axes: &[(usize, usize)], width: usize, out: &mut Vec<u8>) {
    let Some(((size, stride), rest)) = axes.split_first() else {
        let place: Range<usize> = at * width..(at + 1) * width;
        return out.extend_from_slice(&bytes[place]);
    };
    (0..*size).for_each(|it| copy(bytes, at + it * stride, rest, width, out));
}

/// A value with its axes in another order, unless they are in it.
fn transposed(patch: &mut Patch, name: &str, x: Ref, from: &Term, to: &Term) -> Ref {
    if from == to {
        return x;
    }
    let perm: Vec<i64> = permutation(from, to).into_iter().map(|it| it as i64).collect();
    patch.step(name, "Transpose", [x], Attrs::default().with("perm", perm))
}

/// A value with all but its first axes in another shape.
fn reshaped(patch: &mut Patch, name: &str, x: Ref, leading: usize, last: &[i64]) -> Ref {
    // Zero means "as in the input".
    let shape = [&vec![0; leading][..], last].concat();
    let shape = Tensor::from_i64(&[shape.len()], shape);
    let shape = patch.constant(&format!("{name}.shape"), shape);
    patch.step(name, "Reshape", [x, shape], Attrs::default())
}

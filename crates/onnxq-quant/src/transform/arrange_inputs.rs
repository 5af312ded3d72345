//! Inputs of products in the arrangement that the integers of their file are for.
//!
//! A checkpoint that is quantized already has integers which no operator of ONNX takes for inputs as
//! they are: those of GPTQ with `desc_act` are in groups of inputs that are no neighbours, and the types of
//! ggml with a minimum have one for each block that is no integer. With the inputs of a group side by
//! side (`Gather`), or followed by the sums of blocks (`ReduceSum`, `Concat`), `y = x·w` is
//! `y = x'·w'` with the integers of the file in `w'`. See [`Inputs`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ChangeModel, Changed, Transform, Work};
use crate::ops::{self, Site, Weight};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{Inputs, Tensor, TensorError},
};
use onnxq_numerics::specs::Settings;

/// Inputs in the order, and with the sums, that the integers of a quantized checkpoint are for, so that
/// `as_stored` keeps them. Needs no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ArrangeInputs {}

impl Settings for ArrangeInputs {}

impl Transform for ArrangeInputs {
    fn work(&self) -> Work<'_> {
        Work::Model(self)
    }
}

impl ChangeModel for ArrangeInputs {
    fn change(&self, m: &mut Model) -> Result<Changed, TensorError> {
        let mut missed = Vec::new();
        let (mut made, mut count) = (BTreeMap::new(), 0);
        for node in m.nodes() {
            match Product::find(m, node) {
                Some(Ok(it)) => {
                    it.apply(m, &mut made);
                    count += 1;
                }
                Some(Err(reason)) => missed.push((node, reason)),
                None => {}
            }
        }
        let summary = match count {
            0 => "no integers of the file need other inputs".to_owned(),
            1 => "inputs arranged for the integers of 1 product".to_owned(),
            many => format!("inputs arranged for the integers of {many} products"),
        };
        Ok(Changed { summary, missed, float: Vec::new(), rotated: Vec::new() })
    }
}

/// A product whose file has integers for other inputs.
struct Product {
    node: NodeId,
    x: ValueId,
    weight: ValueId,
    /// Axes of the activation, and the extent of its last one.
    rank: usize,
    k: usize,
    inputs: Inputs,
    /// `[k', n]`.
    arranged: Tensor,
}

/// What inputs were arranged to already.
type Made = BTreeMap<(ValueId, Inputs), ValueId>;

impl Product {
    /// `None`: a node whose integers need no other inputs.
    fn find(m: &Model, node: NodeId) -> Option<Result<Product, NoMatch>> {
        let site = ops::site(m, node)?.ok().filter(|it| it.kind == Weight::MatMul)?;
        let origin = ops::rows(&site, m.constant(site.weight).ok()?).origin()?;
        let found = origin.arranged.filter(|_| origin.integers.is_none())?;
        let arranged = found.tensor(origin.kind).transposed();
        Some(Product::new(m, site, found.inputs, arranged))
    }

    fn new(m: &Model, site: Site, inputs: Inputs, arranged: Tensor) -> Result<Product, NoMatch> {
        const AXES_AS_INPUT: i64 = 13;
        let (node, weight) = (site.node, site.weight);
        let x = m.operand(node, 0)?;
        // A table that is also the head's weight would be there twice.
        m.only_use(weight)?;
        let k = m.constant(weight)?.shape[0];
        if m.opset("") < AXES_AS_INPUT {
            return Err(no_match!("`ReduceSum` takes its axes as an input from opset 13 on"));
        }
        let rank = m.rank(x).filter(|it| *it > 0);
        let rank =
            rank.ok_or_else(|| no_match!("the rank of `{}` is not known", m.value(x).name))?;
        Ok(Product { node, x, weight, rank, k, inputs, arranged })
    }

    /// The product of the arranged inputs. Those that read the same inputs share them.
    fn apply(self, m: &mut Model, made: &mut Made) {
        let label = m.value(self.weight).name.to_string();
        let known = (self.x, self.inputs.clone());
        let mut patch = Patch::before(self.node);
        let (x, is_new) = match made.get(&known) {
            Some(it) => (Ref::from(*it), false),
            None => (self.arrange(m, &mut patch), true),
        };
        let weight = patch.constant(&label, self.arranged);
        let done = patch.rewire(self.node, 0, x).rewire(self.node, 1, weight).apply(m);
        if is_new {
            made.insert(known, done.value(x));
        }
    }

    fn arrange(&self, m: &Model, patch: &mut Patch) -> Ref {
        let stem = m.value(self.x).name.to_string();
        let last = Attrs::default().with("axis", -1i64);
        match &self.inputs {
            Inputs::Ordered(order) => {
                let places = Tensor::from_i64(&[order.len()], order.iter().map(|it| *it as i64));
                let order = patch.constant(&format!("{stem}_order"), places);
                patch.step(&format!("{stem}_ordered"), "Gather", [self.x.into(), order], last)
            }
            Inputs::Summed { block, digits, radix } => {
                let mut parts = vec![self.x.into(), self.sums(patch, &stem, *block)];
                for _ in 1..*digits {
                    let part =
                        patch.constant("digit", Tensor::from_f32(&[], [1.0 / *radix as f32]));
                    let inputs = [parts[parts.len() - 1], part];
                    let finer = format!("{stem}_sums_finer");
                    parts.push(patch.step(&finer, "Mul", inputs, Attrs::default()));
                }
                patch.step(&format!("{stem}_with_sums"), "Concat", parts, last)
            }
        }
    }

    /// The sum of each block of inputs.
    fn sums(&self, patch: &mut Patch, stem: &str, block: usize) -> Ref {
        let tail = [self.k / block, block].map(|it| it as i64);
        let dims = std::iter::repeat_n(0, self.rank - 1).chain(tail);
        let apart = patch.constant("blocks", Tensor::from_i64(&[self.rank + 1], dims));
        let inputs = [self.x.into(), apart];
        let apart = patch.step(&format!("{stem}_blocks"), "Reshape", inputs, Attrs::default());
        let axis = patch.constant("axes", Tensor::from_i64(&[1], [-1]));
        let attrs = Attrs::default().with("keepdims", 0i64);
        patch.step(&format!("{stem}_sums"), "ReduceSum", [apart, axis], attrs)
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, sync::Arc};

    use super::*;
    use crate::{
        as_stored,
        transform::testing::{outputs, parse},
    };
    use onnxq_ir::tensor::{Arranged, DType, Origin, QMatrix, QShape, QSource, Rows, ZeroPoints};

    /// A matrix whose integers are for other inputs.
    struct Stored {
        inputs: Inputs,
        k: usize,
    }

    impl Stored {
        fn weight(inputs: &Inputs, n: usize) -> Tensor {
            let k = match inputs {
                Inputs::Ordered(_) => 4,
                Inputs::Summed { block, digits, .. } => 4 + digits * 4 / block,
            };
            let source = Arc::new(Stored { inputs: inputs.clone(), k });
            Tensor::of_rows(DType::F32, [n, 4], source).transposed()
        }
    }

    impl QSource for Stored {
        fn shape(&self) -> QShape {
            QShape {
                n: 5,
                k: self.k,
                block: 2,
                bits: 4,
                zero_points: ZeroPoints::Symmetric,
                scale: DType::F32,
                superblock: None,
            }
        }

        fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
            let shape = QShape { n: rows.len(), ..self.shape() };
            let codes = rows
                .clone()
                .flat_map(|row| (0..self.k).map(move |k| ((row * 7 + k * 5) % 16) as u8));
            let scales = vec![0.5; shape.n * shape.blocks()];
            Ok(QMatrix::new(shape, codes.collect(), scales, None))
        }
    }

    impl Rows for Stored {
        fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
            let made = self.solve(rows)?.dequantize();
            let value = |row: usize, column: usize| match &self.inputs {
                Inputs::Ordered(order) => {
                    made[(row, order.iter().position(|from| *from == column).unwrap())]
                }
                Inputs::Summed { block, digits, radix } => {
                    let rest = |digit: usize| {
                        let at = 4 + digit * 4 / block + column / block;
                        made[(row, at)] / (*radix as f32).powi(digit as i32)
                    };
                    made[(row, column)] + (0..*digits).map(rest).sum::<f32>()
                }
            };
            let lines = 0..made.nrows();
            Ok(lines
                .flat_map(|row| columns.clone().map(move |at| (row, at)))
                .map(|at| value(at.0, at.1))
                .collect())
        }

        fn place(&self) -> usize {
            self.k
        }

        fn origin(self: Arc<Self>) -> Option<Origin> {
            let (inputs, grid) = (self.inputs.clone(), QShape { k: 4, ..self.shape() });
            let arranged = Some(Arranged { inputs, integers: self });
            Some(Origin { kind: "stored".into(), grid, integers: None, arranged })
        }
    }

    const TWO: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
        main (float[2,3,4] x) => (float[2,3,5] y, float[2,3,5] z) <float[4,5] a, float[4,5] b> {
          y = MatMul (x, a)
          z = MatMul (x, b)
        }";

    fn model(inputs: &Inputs, text: &str) -> Model {
        let mut m = parse(text);
        for node in
            m.nodes().into_iter().filter(|it| m.node(*it).op.is("MatMul")).collect::<Vec<_>>()
        {
            let mut patch = Patch::before(node);
            let weight = patch.constant("w", Stored::weight(inputs, 5));
            patch.rewire(node, 1, weight).apply(&mut m);
        }
        m
    }

    fn ways() -> [Inputs; 3] {
        [
            Inputs::Ordered([2, 0, 3, 1].into()),
            Inputs::Summed { block: 2, digits: 1, radix: 256 },
            Inputs::Summed { block: 2, digits: 2, radix: 16 },
        ]
    }

    #[test]
    fn the_function_stays_and_the_integers_are_those_of_the_file() {
        for inputs in ways() {
            let mut m = model(&inputs, TWO);
            let before = outputs(&m);
            let done = ArrangeInputs {}.change(&mut m).unwrap();
            assert_eq!(done.summary, "inputs arranged for the integers of 2 products");
            assert!(done.missed.is_empty());
            for (a, b) in outputs(&m).iter().zip(&before) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{inputs:?}: {a} {b}");
            }
            let products = m.nodes().into_iter().filter(|it| m.node(*it).op.is("MatMul"));
            let read: Vec<ValueId> = products
                .map(|node| {
                    let site = ops::site(&m, node).unwrap().unwrap();
                    assert!(as_stored::origin(&m, &site).unwrap().integers.is_some());
                    m.operand(node, 0).unwrap()
                })
                .collect();
            assert_eq!(read[0], read[1], "what reads the same inputs shares them");
            let again = ArrangeInputs {}.change(&mut m).unwrap();
            assert_eq!(again.summary, "no integers of the file need other inputs");
        }
    }

    #[test]
    fn what_cannot_be_arranged_says_why() {
        let reason = |text: &str| {
            let done = ArrangeInputs {}.change(&mut model(&ways()[2], text)).unwrap();
            done.missed[0].1.to_string()
        };
        let old = TWO.replace("17", "12");
        assert_eq!(reason(&old), "`ReduceSum` takes its axes as an input from opset 13 on");
        let mut m = model(&ways()[0], TWO);
        let nodes = m.nodes();
        let weight = m.operand(nodes[0], 1).unwrap();
        Patch::before(nodes[1]).rewire(nodes[1], 1, weight.into()).apply(&mut m);
        let done = ArrangeInputs {}.change(&mut m).unwrap();
        assert_eq!(done.missed.len(), 2);
        assert!(done.missed[0].1.to_string().ends_with("has other uses"));
    }
}

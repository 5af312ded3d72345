//! What a file has of a float tensor that it stores in integers.

use std::{fmt, ops::Range, sync::Arc};

use ndarray::Array2;

use super::{DType, Data, QMatrix, QShape, QSource, Rows, Tensor, TensorError, rows::runs};

/// How a file stores a matrix that is read as floats.
#[derive(Clone)]
pub struct Origin {
    /// The type, as its format calls it: `Q4_0`.
    pub kind: Arc<str>,
    /// The grid of its integers, or the nearest one if they lie on none that ONNX has.
    pub grid: QShape,
    /// Its integers: dequantized they are the floats, bit for bit.
    pub integers: Option<Arc<dyn QSource>>,
    /// Its integers for inputs that lie in another way, where only those are of a grid that ONNX has. In
    /// another order they are the floats; with sums, up to the last digit of what the sums weigh.
    pub arranged: Option<Arranged>,
}

/// Integers of a matrix for another arrangement of its inputs.
#[derive(Clone)]
pub struct Arranged {
    pub inputs: Inputs,
    /// `[n, k']`, of as many inputs as there are then.
    pub integers: Arc<dyn QSource>,
}

/// How inputs of a matrix, `[…, k]`, are arranged for the integers that its file has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Inputs {
    /// In another order: where each of them comes from.
    Ordered(Arc<[usize]>),
    /// Followed by the sum of each block of so many, `digits` times, each time divided by `radix` once
    /// more. A value that all weights of a block have in common, as the minimum of ggml's types, is
    /// a weight of the block's sum.
    Summed { block: usize, digits: usize, radix: u32 },
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { kind, grid, integers, arranged } = self;
        let how = match (integers, arranged) {
            (Some(_), _) => "exact",
            (None, Some(_)) => "arranged",
            (None, None) => "nearest",
        };
        write!(f, "{kind} {grid:?} {how}")
    }
}

impl Tensor {
    /// What a file has of this matrix, if it is read from one that stores it in integers: of the whole
    /// of it, or of some rows. What is computed from such a matrix has none.
    pub fn origin(&self) -> Option<Origin> {
        if self.dtype != DType::F32 {
            return None;
        }
        match &self.data {
            Data::Rows(source) => source.clone().origin(),
            Data::Picked { base, rows } => {
                let Origin { kind, grid, integers, arranged } = base.origin()?;
                let grid = QShape { n: rows.len(), ..grid };
                let picked =
                    |base| Arc::new(Picked { base, rows: rows.clone() }) as Arc<dyn QSource>;
                let arranged = arranged
                    .map(|it| Arranged { inputs: it.inputs, integers: picked(it.integers) });
                Some(Origin { kind, grid, integers: integers.map(picked), arranged })
            }
            _ => None,
        }
    }
}

impl Arranged {
    /// The float matrix, `[n, k']`, that the arranged inputs are multiplied with, of a type that its file
    /// calls `kind`.
    pub fn tensor(&self, kind: Arc<str>) -> Tensor {
        let grid = self.integers.shape();
        let rows = Dequantized { kind, integers: self.integers.clone() };
        Tensor::of_rows(DType::F32, [grid.n, grid.k], Arc::new(rows))
    }
}

/// The floats of integers.
struct Dequantized {
    kind: Arc<str>,
    integers: Arc<dyn QSource>,
}

impl Rows for Dequantized {
    fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
        let values = self.integers.solve(rows)?.dequantize();
        Ok(values.slice(ndarray::s![.., columns]).iter().copied().collect())
    }

    fn place(&self) -> usize {
        Arc::as_ptr(&self.integers).addr()
    }

    fn origin(self: Arc<Self>) -> Option<Origin> {
        let (kind, grid) = (self.kind.clone(), self.integers.shape());
        Some(Origin { kind, grid, integers: Some(self.integers.clone()), arranged: None })
    }
}

/// Some rows of integers, in an order of their own.
struct Picked {
    base: Arc<dyn QSource>,
    rows: Arc<[usize]>,
}

impl QSource for Picked {
    fn shape(&self) -> QShape {
        QShape { n: self.rows.len(), ..self.base.shape() }
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let parts: Vec<QMatrix> =
            runs(&self.rows[rows]).map(|run| self.base.solve(run)).collect::<Result<_, _>>()?;
        Ok(QMatrix::stacked(self.shape(), &parts))
    }
}

impl QMatrix {
    /// Integers and scales, row by row; without zero points zero is in the middle.
    ///
    /// # Panics
    /// If there are not as many as the shape says.
    pub fn new(
        shape: QShape,
        quantized: Vec<u8>,
        scales: Vec<f32>,
        zero_points: Option<Vec<u8>>,
    ) -> QMatrix {
        let (blocks, fits) = ((shape.n, shape.blocks()), "as many as the shape says");
        let zero_points = match zero_points {
            Some(it) => Array2::from_shape_vec(blocks, it).expect(fits),
            None => Array2::from_elem(blocks, shape.middle()),
        };
        let quantized = Array2::from_shape_vec((shape.n, shape.k), quantized).expect(fits);
        QMatrix::plain(
            shape,
            quantized,
            Array2::from_shape_vec(blocks, scales).expect(fits),
            zero_points,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ZeroPoints;

    const GRID: QShape = QShape {
        n: 4,
        k: 2,
        block: 2,
        bits: 8,
        zero_points: ZeroPoints::Symmetric,
        scale: DType::F16,
        superblock: None,
    };

    /// A row of ones, twos, and so on.
    struct Made;

    impl QSource for Made {
        fn shape(&self) -> QShape {
            GRID
        }

        fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
            let n = rows.len();
            let quantized = Array2::from_shape_fn((n, 2), |it| 129 + (rows.start + it.0) as u8);
            let zero_points = Array2::from_elem((n, 1), 128);
            Ok(QMatrix::plain(GRID, quantized, Array2::from_elem((n, 1), 0.5), zero_points))
        }
    }

    impl Rows for Made {
        fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
            let line = |row| columns.clone().map(move |_| 0.5 * (row + 1) as f32);
            Ok(rows.flat_map(line).collect())
        }

        fn place(&self) -> usize {
            7
        }

        fn origin(self: Arc<Self>) -> Option<Origin> {
            let inputs = Inputs::Ordered([0, 1].into());
            let arranged = Some(Arranged { inputs, integers: self.clone() });
            Some(Origin { kind: "made".into(), grid: GRID, integers: Some(self), arranged })
        }
    }

    #[test]
    fn views_of_rows_keep_integers_and_what_is_computed_has_none() {
        let base = Tensor::of_rows(DType::F32, [4, 2], Arc::new(Made));
        for view in [base.clone(), base.transposed().transposed(), base.picked([2, 3, 0, 0])] {
            let origin = view.origin().unwrap();
            assert_eq!(origin.grid.n, 4);
            let source = origin.integers.unwrap();
            assert_eq!(source.shape(), GRID);
            let arranged = origin.arranged.unwrap().tensor("made".into());
            assert_eq!(arranged.to_f32().unwrap(), view.to_f32().unwrap());
            assert_eq!(arranged.transposed().rows_f32(1..2).unwrap().len(), 4);
            assert!(arranged.origin().unwrap().integers.is_some());
            let values = source.solve(0..4).unwrap().dequantize();
            assert_eq!(values.as_slice().unwrap(), view.to_f32().unwrap());
            let part = source.solve(1..3).unwrap();
            assert_eq!(part.shape.n, 2);
            assert_eq!(part.dequantize().as_slice().unwrap(), view.rows_f32(1..3).unwrap());
        }
        let none: [Tensor; 5] = [
            base.transposed(),
            base.scaled(0, [1.0; 4]),
            base.cast(DType::F16),
            base.cast(DType::F16).cast(DType::F32),
            base.reshaped(vec![2, 4]),
        ];
        assert!(none.iter().all(|it| it.origin().is_none()));
        assert!(base.picked([]).origin().unwrap().integers.unwrap().solve(0..0).is_ok());
    }
}

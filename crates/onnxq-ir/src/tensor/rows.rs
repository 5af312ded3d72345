//! Matrices whose rows are made when they are read, and rows in another order.

use std::{ops::Range, sync::Arc};

use super::{DType, Data, Origin, Tensor, TensorError};

/// Something that makes the rows of a float matrix, as those of a file of blocks.
pub trait Rows: Send + Sync {
    /// The elements at these rows and columns, row by row. They depend on nothing else that is read.
    fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError>;
    /// Where lies what rows are made of: matrices of one shape and one place are equal.
    fn place(&self) -> usize;
    /// What the file has, if it has integers: of all rows, without reading them.
    fn origin(self: Arc<Self>) -> Option<Origin> {
        None
    }
}

impl Tensor {
    /// A matrix whose rows are made whenever they are read.
    pub fn of_rows(dtype: DType, shape: [usize; 2], source: Arc<dyn Rows>) -> Tensor {
        assert!(dtype.is_float(), "rows are made of floats");
        Tensor { dtype, shape: shape.to_vec(), data: Data::Rows(source) }
    }

    /// These rows of a float matrix, in this order: a view, which reads them when it is read.
    pub fn picked(&self, rows: impl Into<Arc<[usize]>>) -> Tensor {
        let [count, columns] = self.shape[..] else { panic!("rows of a matrix, not of {self:?}") };
        let rows = rows.into();
        assert!(rows.iter().all(|it| *it < count), "rows that {self:?} has");
        if let Data::Cast(base) = &self.data {
            return base.picked(rows).cast(self.dtype);
        }
        let shape = vec![rows.len(), columns];
        let data = Data::Picked { base: Arc::new(self.clone()), rows };
        Tensor { dtype: self.dtype, shape, data }
    }

    /// Some rows and columns of a float matrix.
    pub(super) fn part(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<f32>, TensorError> {
        match &self.data {
            Data::Rows(source) => self.rounded(source.read(rows, columns)?),
            Data::Picked { base, rows: places } => {
                // What is computed as a whole is computed once.
                let base = base.held()?;
                let mut out = Vec::with_capacity(rows.len() * columns.len());
                for run in runs(&places[rows]) {
                    out.extend(base.part(run, columns.clone())?);
                }
                Ok(out)
            }
            _ => {
                let all = self.rows_f32(rows)?;
                let lines = all.chunks_exact(self.shape[1].max(1));
                Ok(lines.flat_map(|it| &it[columns.clone()]).copied().collect())
            }
        }
    }
}

/// Neighbours that also lie beside each other.
pub(super) fn runs(places: &[usize]) -> impl Iterator<Item = Range<usize>> {
    places.chunk_by(|a, b| a + 1 == *b).map(|it| it[0]..it[0] + it.len())
}

/// Some columns of a matrix, as rows.
pub(super) fn columns(of: &Tensor, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
    let count = of.shape[0];
    let lines = of.part(0..count, columns.clone())?;
    let mut out = vec![0.0; lines.len()];
    for (row, line) in lines.chunks_exact(columns.len().max(1)).enumerate() {
        for (column, value) in line.iter().enumerate() {
            out[column * count + row] = *value;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_f32;

    /// Ten times the row and the column.
    struct Made;

    impl Rows for Made {
        fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
            let line = |row| columns.clone().map(move |column| (10 * row + column) as f32);
            Ok(rows.flat_map(line).collect())
        }

        fn place(&self) -> usize {
            7
        }
    }

    fn made(dtype: DType) -> Tensor {
        Tensor::of_rows(dtype, [3, 4], Arc::new(Made))
    }

    #[test]
    fn rows_are_made_when_they_are_read() {
        let tensor = made(DType::F32);
        assert_eq!((tensor.nbytes(), tensor.is_view(), tensor.place()), (48, true, None));
        assert_eq!(tensor.rows_f32(1..2).unwrap(), [10., 11., 12., 13.]);
        assert_eq!(
            tensor.bytes().unwrap(),
            from_f32(DType::F32, &tensor.to_f32().unwrap()).unwrap()
        );
        let turned = tensor.transposed();
        assert_eq!(turned.rows_f32(1..3).unwrap(), [1., 11., 21., 2., 12., 22.]);
        assert_eq!(turned.held().unwrap().to_f32().unwrap(), turned.to_f32().unwrap());
        assert_eq!(turned.rows_f32(0..4).unwrap(), turned.to_f32().unwrap());
        assert_eq!(tensor.reshaped(vec![12]).to_f32().unwrap(), tensor.to_f32().unwrap());
        let half = made(DType::F16).cast(DType::F32);
        assert_eq!(half.to_f32().unwrap(), tensor.to_f32().unwrap());
        assert_eq!(tensor.scaled(0, [0., 1., 2.]).rows_f32(2..3).unwrap(), [40., 42., 44., 46.]);
        assert_eq!(tensor.identity(), made(DType::F32).identity());
        assert_ne!(tensor.identity(), made(DType::F16).identity());
    }

    #[test]
    fn picked_rows_are_those_of_the_base() {
        let base = Tensor::from_f32(&[3, 2], [0., 1., 2., 3., 4., 5.]);
        let view = base.picked([2, 0, 1]);
        let values = [4., 5., 0., 1., 2., 3.];
        assert_eq!((view.is_view(), view.place(), view.nbytes()), (true, None, 24));
        assert_eq!(view.to_f32().unwrap(), values);
        assert_eq!(view.rows_f32(1..3).unwrap(), values[2..]);
        assert_eq!(view.transposed().to_f32().unwrap(), [4., 0., 2., 5., 1., 3.]);
        assert_eq!(view.transposed().rows_f32(1..2).unwrap(), [5., 1., 3.]);
        assert_eq!(view.picked([1, 1]).to_f32().unwrap(), [0., 1., 0., 1.]);
        assert_eq!(base.cast(DType::F16).picked([2, 0, 1]).to_f32().unwrap(), values);
        assert_eq!(base.cast(DType::F16).picked([1]).transposed().to_f32().unwrap(), [2., 3.]);
        let lazy = Tensor::lazy(DType::F32, vec![3, 2], move || base.bytes());
        assert_eq!(lazy.picked([2, 0, 1]).to_f32().unwrap(), values);
        assert_eq!(made(DType::F32).picked([2, 1]).rows_f32(1..2).unwrap(), [10., 11., 12., 13.]);
    }

    #[test]
    fn the_same_rows_of_the_same_matrix_are_one_tensor() {
        let base = made(DType::F32);
        assert_eq!(base.picked([2, 0]).identity(), base.picked([2, 0]).identity());
        assert_ne!(base.picked([2, 0]).identity(), base.picked([0, 2]).identity());
    }
}

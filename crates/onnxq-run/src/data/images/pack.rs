//! Bytes of pixels become numbers in the order that the model takes.

use super::{
    super::DataError,
    Pixels,
    describe::{Channels, Description, Layout},
};
use crate::engine::IoInfo;
use onnxq_ir::tensor::{DType, from_f32};

/// The numbers of the model's input.
pub(super) struct Pack {
    pub channels: Channels,
    pub dtype: DType,
    layout: Layout,
    /// What each of the 256 bytes becomes, for each channel.
    values: Vec<Vec<f32>>,
}

impl Pack {
    pub(super) fn new(it: &Description, input: &IoInfo) -> Result<Pack, DataError> {
        let (channels, dtype) = (it.channels, input.ty.dtype);
        if dtype == DType::U8 && it.normalizes() {
            let key = ["scale", "mean", "std"].into_iter().find(|key| it.has(key));
            let what = "the model takes uint8: pixels as they are, without scale, mean and std";
            return Err(it.refuse(key.unwrap_or("scale"), what));
        }
        if dtype != DType::U8 && !dtype.is_float() {
            let (input, expected) = (input.name.clone(), dtype);
            return Err(DataError::DType { input, actual: DType::U8, expected });
        }
        let layout = it.layout.unwrap_or_else(|| guess(input, channels.count()));
        let value =
            |byte: usize, (mean, std): (&f64, &f64)| ((byte as f64 * it.scale - mean) / std) as f32;
        let pairs = it.mean.iter().zip(&it.std);
        let values = pairs.map(|pair| (0..256).map(|byte| value(byte, pair)).collect()).collect();
        Ok(Pack { channels, dtype, layout, values })
    }

    /// Height and width that the model fixes.
    pub(super) fn size(&self, input: &IoInfo) -> [Option<usize>; 2] {
        let axes = if self.layout == Layout::Nchw { [2, 3] } else { [1, 2] };
        axes.map(|axis| input.ty.shape.as_ref()?.get(axis)?.fixed())
    }

    pub(super) fn shape(&self, count: usize, height: usize, width: usize) -> Vec<usize> {
        let channels = self.channels.count();
        match self.layout {
            Layout::Nchw => vec![count, channels, height, width],
            Layout::Nhwc => vec![count, height, width, channels],
        }
    }

    /// Adds an image to the bytes of a tensor.
    pub(super) fn append(&self, pixels: &Pixels, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        let count = self.channels.count();
        let pixels = &pixels.bytes;
        // The channel and place of each number, in the order of the tensor.
        let planes = (0..count).flat_map(|it| (it..pixels.len()).step_by(count));
        if self.dtype == DType::U8 {
            match self.layout {
                Layout::Nchw => bytes.extend(planes.map(|at| pixels[at])),
                Layout::Nhwc => bytes.extend_from_slice(pixels),
            }
            return Ok(());
        }
        let value = |at: usize| self.values[at % count][usize::from(pixels[at])];
        let values: Vec<f32> = match self.layout {
            Layout::Nchw => planes.map(value).collect(),
            Layout::Nhwc => (0..pixels.len()).map(value).collect(),
        };
        bytes.extend(from_f32(self.dtype, &values).expect("the type is one of floats"));
        Ok(())
    }
}

/// The axis that the model fixes to the number of channels; the first of two.
fn guess(input: &IoInfo, channels: usize) -> Layout {
    let fixed = |axis: usize| input.ty.shape.as_ref().and_then(|it| it.get(axis)?.fixed());
    let last = fixed(1) != Some(channels) && fixed(3) == Some(channels);
    if last { Layout::Nhwc } else { Layout::Nchw }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::{Tensor, TensorType};

    fn input(dtype: DType, dims: [usize; 4]) -> IoInfo {
        IoInfo { name: "x".into(), ty: TensorType::new(dtype, dims) }
    }

    fn packed(text: &str, input: &IoInfo) -> Result<Tensor, DataError> {
        let it = Description::parse(&format!("onnxq: 1\n{text}"), "x")?;
        let pack = Pack::new(&it, input)?;
        let mut bytes = Vec::new();
        let pixels = Pixels { height: 1, width: 2, bytes: vec![0, 51, 102, 255, 153, 204] };
        pack.append(&pixels, &mut bytes)?;
        Ok(Tensor::new(pack.dtype, pack.shape(1, 1, 2), bytes))
    }

    #[test]
    fn pixels_are_scaled_shifted_and_divided_per_channel() {
        let text = "scale: 1/255\nmean: [0, 0.5, 0.25]\nstd: [1, 2, 0.5]";
        let planes = packed(text, &input(DType::F32, [1, 3, 1, 2])).unwrap();
        assert_eq!(planes.shape, [1, 3, 1, 2]);
        let expected = [0.0, 1.0, -0.15, 0.05, 0.3, 1.1];
        for (a, b) in planes.to_f32().unwrap().iter().zip(expected) {
            approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-6);
        }
        let last = packed(text, &input(DType::F16, [1, 1, 2, 3])).unwrap();
        assert_eq!((last.dtype, last.shape.as_slice()), (DType::F16, &[1, 1, 2, 3][..]));
        let expected = [0.0, -0.15, 0.3, 1.0, 0.05, 1.1];
        for (a, b) in last.to_f32().unwrap().iter().zip(expected) {
            approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-3);
        }
    }

    #[test]
    fn bytes_stay_bytes() {
        let planes = packed("", &input(DType::U8, [1, 3, 1, 2])).unwrap();
        assert_eq!(planes.to_i64().unwrap(), [0, 255, 51, 153, 102, 204]);
        let last = packed("layout: nhwc", &input(DType::U8, [1, 1, 2, 3])).unwrap();
        assert_eq!(last.to_i64().unwrap(), [0, 51, 102, 255, 153, 204]);
        let error = packed("scale: 1/255", &input(DType::U8, [1, 3, 1, 2])).unwrap_err();
        assert!(error.to_string().starts_with("x:2:8: the model takes uint8"), "{error}");
        assert!(packed("", &input(DType::I64, [1, 3, 1, 2])).is_err());
    }
}

//! Images as samples: a description says how a picture becomes an input of the model.

#[cfg(feature = "images")]
mod decode;
mod describe;
mod find;
mod geometry;
mod pack;

use std::path::{Path, PathBuf};

pub use self::describe::SHIPPED;
use self::{describe::Channels, geometry::Geometry, pack::Pack};
pub(super) use self::{
    describe::{Description, load},
    find::{find, is_image},
};
use super::DataError;
use crate::engine::IoInfo;
use onnxq_ir::tensor::{DType, Tensor};

/// Rows of pixels of one or three bytes each.
#[derive(Debug)]
pub(super) struct Pixels {
    pub height: usize,
    pub width: usize,
    pub bytes: Vec<u8>,
}

impl Pixels {
    pub(super) fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}

/// Images that are read when their batch is.
pub(crate) struct Images {
    /// Which input of the model they are for.
    pub input: usize,
    /// Every image has the same size in the end.
    pub same_size: bool,
    /// The text of the description.
    pub description: String,
    /// One for each sample.
    pub files: Vec<PathBuf>,
    geometry: Geometry,
    pack: Pack,
}

impl Images {
    pub(super) fn new(
        path: &Path,
        files: Vec<PathBuf>,
        description: &Description,
        inputs: &[IoInfo],
    ) -> Result<Images, DataError> {
        let input = choose(path, description, inputs)?;
        let info = &inputs[input];
        let pack = Pack::new(description, info)?;
        let geometry = Geometry::new(description, pack.size(info))?;
        Ok(Images {
            input,
            same_size: geometry.is_fixed(),
            description: description.text.clone(),
            files,
            geometry,
            pack,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Where an image comes from.
    pub(super) fn file(&self, at: usize) -> &Path {
        &self.files[at]
    }

    /// `[N, C, H, W]` or `[N, H, W, C]`.
    pub(super) fn read(&self, rows: std::ops::Range<usize>) -> Result<Tensor, DataError> {
        let mut bytes = Vec::new();
        let mut first: Option<(&PathBuf, [usize; 2])> = None;
        let count = rows.len();
        for file in &self.files[rows] {
            let pixels = pixels(file, &self.geometry, self.pack.channels)?;
            let size = pixels.size();
            let (other, expected) = *first.get_or_insert((file, size));
            if size != expected {
                let other = other.file_name().unwrap_or_default().to_string_lossy();
                let [h, w] = expected;
                let fact = format!(
                    "becomes {} x {}, and `{}` in the same batch {h} x {w}",
                    size[0],
                    size[1],
                    onnxq_ir::untrusted::Untrusted(&other)
                );
                return Err(DataError::Extent { file: file.clone(), fact });
            }
            self.pack.append(&pixels, &mut bytes)?;
        }
        let [h, w] = first.map_or([0, 0], |it| it.1);
        Ok(Tensor::new(self.pack.dtype, self.pack.shape(count, h, w), bytes))
    }
}

/// The image in its final size.
#[cfg(feature = "images")]
fn pixels(file: &Path, sizes: &Geometry, channels: Channels) -> Result<Pixels, DataError> {
    decode::pixels(file, sizes, channels)
}

#[cfg(not(feature = "images"))]
fn pixels(file: &Path, _: &Geometry, _: Channels) -> Result<Pixels, DataError> {
    Err(DataError::NoImages { file: file.into() })
}

/// The input that images are for: the one that is named, or the only one that takes four axes of
/// numbers.
fn choose(path: &Path, it: &Description, inputs: &[IoInfo]) -> Result<usize, DataError> {
    if let Some((name, at)) = &it.input {
        return inputs.iter().position(|input| input.name == *name).ok_or_else(|| {
            let names: Vec<&str> = inputs.iter().map(|it| &*it.name).collect();
            let what = format!("the model has no input `{name}`, but {}", names.join(", "));
            it.value(at, &onnxq_ir::untrusted::escape(&what))
        });
    }
    let takes = |it: &IoInfo| {
        let rank = it.ty.rank().is_none_or(|it| it == 4);
        rank && (it.ty.dtype.is_float() || it.ty.dtype == DType::U8)
            && super::roles::role(&it.name).is_none()
    };
    let mut found = inputs.iter().enumerate().filter(|(_, it)| takes(it)).map(|it| it.0);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (first, second) => {
            let names = first.into_iter().chain(second).chain(found);
            let found = names.map(|it| inputs[it].name.clone()).collect();
            Err(DataError::NoImageInput { file: path.into(), found })
        }
    }
}

//! The layout of ONNX's own tests: `test_data_set_0/input_0.pb`, one `TensorProto` per file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::DataError;
use crate::{
    engine::IoInfo,
    tensor::{DType, Tensor},
    untrusted::Untrusted,
};

/// Folders of the sets in `folder`, by number; `folder` may be a set itself.
pub fn sets(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    if folder.join("input_0.pb").is_file() {
        return Ok(vec![folder.into()]);
    }
    let mut sets = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        if let Some(number) = number(&path, "test_data_set_", "") {
            sets.push((number, path));
        }
    }
    sets.sort();
    Ok(sets.into_iter().map(|(_, path)| path).collect())
}

/// Files `input_0.pb`, `input_1.pb`, … of a set.
pub fn files(set: &Path) -> Result<Vec<(usize, PathBuf)>, DataError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(set).map_err(DataError::io(set))? {
        let path = entry.map_err(DataError::io(set))?.path();
        if let Some(number) = number(&path, "input_", ".pb") {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The tensors of a set, by the name that they state or else by the number of their file.
pub fn read(set: &Path, inputs: &[IoInfo]) -> Result<BTreeMap<String, Tensor>, DataError> {
    let mut given = BTreeMap::new();
    for (number, file) in files(set)? {
        let bytes = fs::read(&file).map_err(DataError::io(&file))?;
        let (stated, tensor) = tensor_from_pb(&bytes)
            .ok_or_else(|| DataError::format(&file, "is not a TensorProto with plain data"))?;
        let by_name = inputs.iter().find(|it| it.name == stated);
        let Some(input) = by_name.or_else(|| inputs.get(number)) else {
            return Err(DataError::format(&file, "is for an input that the model does not have"));
        };
        if given.insert(input.name.clone(), tensor).is_some() {
            let fact = format!("is the second tensor for `{}`", Untrusted(&input.name));
            return Err(DataError::format(&file, fact));
        }
    }
    Ok(given)
}

fn number(path: &Path, prefix: &str, suffix: &str) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
}

/// Reads what `TensorProto`s of test data hold: dims, type, name, and raw or typed numbers.
fn tensor_from_pb(bytes: &[u8]) -> Option<(String, Tensor)> {
    let (mut dims, mut dtype, mut name) = (Vec::new(), None, String::new());
    let (mut raw, mut words, mut typed) = (None, Vec::new(), Vec::new());
    let mut wire = Wire(bytes);
    while !wire.0.is_empty() {
        match wire.field()? {
            (1, Field::Number(it)) => dims.push(usize::try_from(it).ok()?),
            (1, Field::Bytes(it)) => {
                dims.extend(Wire(it).numbers()?.into_iter().map(|it| it as usize));
            }
            (2, Field::Number(it)) => dtype = DType::from_number(i32::try_from(it).ok()?),
            (4 | 10, Field::Bytes(it)) => typed.extend_from_slice(it),
            (4 | 10, Field::Fixed(it)) => typed.extend_from_slice(it),
            (5 | 7 | 11, Field::Bytes(it)) => words.extend(Wire(it).numbers()?),
            (5 | 7 | 11, Field::Number(it)) => words.push(it),
            (8, Field::Bytes(it)) => name = str::from_utf8(it).ok()?.to_owned(),
            (9, Field::Bytes(it)) => raw = Some(it),
            (3 | 6 | 13 | 14, _) => return None,
            _ => {}
        }
    }
    let dtype = dtype.filter(|it| *it != DType::String)?;
    let count = dims.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?;
    let data = match raw {
        Some(it) => it.to_vec(),
        None if words.is_empty() => typed,
        None if dtype.bits() < 8 => return None,
        None => words.iter().flat_map(|it| it.to_le_bytes()[..dtype.bits() / 8].to_vec()).collect(),
    };
    (dtype.nbytes(count)? == data.len()).then(|| (name, Tensor::new(dtype, dims, data)))
}

enum Field<'a> {
    Number(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

/// What is left of a protobuf message.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.number()?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => Field::Fixed(self.take(8)?),
            2 => {
                let len = usize::try_from(self.number()?).ok()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, field))
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let mut list = Vec::new();
        while !self.0.is_empty() {
            list.push(self.number()?);
        }
        Some(list)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codes::Fault, tensor::TensorType};

    /// dims [2], INT64, name "b", packed int64_data {5, -1}.
    const TYPED: &[u8] = &[
        0x08, 2, 0x10, 7, 0x42, 1, b'b', 0x3a, 11, 5, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        1,
    ];

    #[test]
    fn reads_typed_and_raw_tensors() {
        let (name, tensor) = tensor_from_pb(TYPED).unwrap();
        assert_eq!((name.as_str(), tensor.to_i64().unwrap()), ("b", vec![5, -1]));
        let mut raw = vec![0x08, 1, 0x10, 1, 0x4a, 4];
        raw.extend(1.5f32.to_le_bytes());
        assert_eq!(tensor_from_pb(&raw).unwrap().1.to_f32().unwrap(), [1.5]);
    }

    #[test]
    fn lies_about_sizes_are_refused() {
        assert!(tensor_from_pb(&[0x08, 200, 1, 0x10, 1]).is_none());
        assert!(tensor_from_pb(&TYPED[..18]).is_none());
        let mut huge = vec![0x10, 1];
        huge.extend([0x08, 255, 255, 255, 255, 15].repeat(4));
        assert!(tensor_from_pb(&huge).is_none());
    }

    #[test]
    fn sets_are_read_in_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for set in ["test_data_set_10", "test_data_set_2"] {
            fs::create_dir(folder.path().join(set)).unwrap();
            fs::write(folder.path().join(set).join("input_0.pb"), TYPED).unwrap();
        }
        let sets = sets(folder.path()).unwrap();
        assert!(sets[0].ends_with("test_data_set_2") && sets.len() == 2);
        let ty = TensorType::new(DType::I64, [2]);
        let inputs = ["a", "b"].map(|it| IoInfo { name: it.into(), ty: ty.clone() });
        assert_eq!(read(&sets[0], &inputs).unwrap().keys().collect::<Vec<_>>(), ["b"]);
        fs::write(sets[0].join("input_1.pb"), TYPED).unwrap();
        assert_eq!(read(&sets[0], &inputs).unwrap_err().code(), "E601");
    }
}

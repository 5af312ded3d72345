//! The layout of ONNX's own tests: `test_data_set_0/input_0.pb`, one `TensorProto` per file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::DataError;
use crate::engine::IoInfo;
use onnxq_ir::{onnx, tensor::Tensor, untrusted::Untrusted};

/// Folders of the sets in `folder`, by number; `folder` may be a set itself.
pub(super) fn sets(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
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
pub(super) fn files(set: &Path) -> Result<Vec<(usize, PathBuf)>, DataError> {
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
pub(super) fn read(set: &Path, inputs: &[IoInfo]) -> Result<BTreeMap<String, Tensor>, DataError> {
    let mut given = BTreeMap::new();
    for (number, file) in files(set)? {
        let bytes = onnxq_ir::fs::read_file(&file).map_err(DataError::io(&file))?;
        let (stated, tensor) = onnx::tensor_from_pb(bytes.into())
            .map_err(|error| DataError::format(&file, format!("is no tensor: {error}")))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::{DType, TensorType},
    };

    /// dims [2], INT64, name "b", packed int64_data {5, -1}.
    const TYPED: &[u8] = &[
        0x08, 2, 0x10, 7, 0x42, 1, b'b', 0x3a, 11, 5, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        1,
    ];

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
        assert_eq!(read(&sets[0], &inputs).unwrap_err().code(), Code::E601);
    }
}

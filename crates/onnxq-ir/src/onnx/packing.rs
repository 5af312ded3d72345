//! Weights as ONNX Runtime packs them for its kernels, which it notes beside their external data.
//!
//! Of a weight, `prepacked_0` (the number counts the kernels that read it) is
//! `key|offset;length;checksum`, the last part once for each buffer. Other readers do not know the key.

use std::path::Path;

use prost::Message;

use super::{
    ExternalProblem, Files, LoadError, OpenOptions,
    proto::{GraphProto, ModelProto, TensorProto},
    scan,
};

/// Where the weights of a model are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// Packed forms, which lie in files beside the graph.
    pub packed: u64,
    /// Weights that such a form stands for: kernels read that instead.
    pub packed_weights: usize,
    /// Weights in files beside the graph that kernels read as they are.
    pub as_is: u64,
    pub as_is_weights: usize,
    /// Weights in the graph's own file, which every reader copies.
    pub inside: u64,
    pub inside_weights: usize,
}

/// Where the weights of the model at `path` are. Packed forms must lie in their files.
pub fn packing(path: &Path, options: &OpenOptions) -> Result<Packing, LoadError> {
    let mut files = Files::new(path, options.external)?;
    let bytes = files.map_model()?;
    scan::scan(&bytes, "ModelProto", &options.limits)?;
    let proto = ModelProto::decode(bytes).map_err(LoadError::Decode)?;
    let graph = proto.graph.as_ref().ok_or(LoadError::NoGraph)?;
    let mut packing = Packing::default();
    packing.graph(graph, &mut files)?;
    Ok(packing)
}

impl Packing {
    fn graph(&mut self, graph: &GraphProto, files: &mut Files) -> Result<(), LoadError> {
        for tensor in &graph.initializer {
            self.tensor(tensor, files).map_err(|problem| {
                let tensor = tensor.name().to_owned();
                LoadError::External { tensor, problem }
            })?;
        }
        let attributes = graph.node.iter().flat_map(|it| &it.attribute);
        let mut bodies = attributes.flat_map(|it| it.g.iter().chain(&it.graphs));
        bodies.try_for_each(|it| self.graph(it, files))
    }

    fn tensor(&mut self, tensor: &TensorProto, files: &mut Files) -> Result<(), ExternalProblem> {
        if tensor.external_data.is_empty() {
            self.inside += tensor.encoded_len() as u64;
            self.inside_weights += 1;
            return Ok(());
        }
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|it| it.key() == key);
            found.map(|it| it.value()).unwrap_or_default()
        };
        let location = entry("location");
        let size = files.map_external(location)?.len() as u64;
        let (mut packed, mut forms) = (0, 0);
        for it in tensor.external_data.iter().filter(|it| it.key().starts_with("prepacked_")) {
            packed += form(it.value(), location, size)?;
            forms += 1;
        }
        if forms == 0 {
            self.as_is += entry("length").parse::<u64>().unwrap_or(0).min(size);
            self.as_is_weights += 1;
        } else {
            self.packed += packed;
            self.packed_weights += 1;
        }
        Ok(())
    }
}

/// Bytes of a packed form in a file of so many bytes.
fn form(text: &str, location: &str, size: u64) -> Result<u64, ExternalProblem> {
    let wrong = || ExternalProblem::Number { key: "a packed form", value: text.to_owned() };
    let mut buffers = text.split('|').skip(1).peekable();
    buffers.peek().ok_or_else(wrong)?;
    let mut bytes = 0;
    for buffer in buffers {
        let mut numbers = buffer.split(';').map(str::parse::<u64>);
        let (Some(Ok(offset)), Some(Ok(length))) = (numbers.next(), numbers.next()) else {
            return Err(wrong());
        };
        let end = u128::from(offset) + u128::from(length);
        if end > u128::from(size) {
            let location = location.to_owned();
            return Err(ExternalProblem::BeyondEnd { location, offset, end, size });
        }
        bytes += length;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::proto::StringStringEntryProto, *};

    fn tensor(name: &str, entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some((*key).to_owned()),
            value: Some((*value).to_owned()),
        };
        let name = Some(name.to_owned());
        TensorProto {
            name,
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    fn packing_of(tensors: Vec<TensorProto>) -> Result<Packing, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        let graph = GraphProto { initializer: tensors, ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        std::fs::write(folder.path().join("data"), [0; 100]).unwrap();
        packing(&path, &OpenOptions::default())
    }

    #[test]
    fn weights_are_counted_by_where_kernels_read_them() {
        let packing = packing_of(vec![
            tensor(
                "packed",
                &[
                    ("location", "data"),
                    ("length", "20"),
                    ("prepacked_0", "MatMul+1|20;30;0|50;10;0"),
                    ("prepacked_1", "Gemm+2|60;40;0"),
                ],
            ),
            tensor("as_is", &[("location", "data"), ("length", "16")]),
            tensor("inside", &[]),
        ]);
        let packing = packing.unwrap();
        assert_eq!((packing.packed, packing.packed_weights), (80, 1));
        assert_eq!((packing.as_is, packing.as_is_weights), (16, 1));
        assert_eq!((packing.inside, packing.inside_weights), (8, 1));
    }

    #[test]
    fn a_packed_form_lies_in_its_file() {
        let refused = |form: &str| {
            let entries = [("location", "data"), ("length", "20"), ("prepacked_0", form)];
            packing_of(vec![tensor("w", &entries)]).unwrap_err().to_string()
        };
        let text = refused("MatMul+1|20;81;0");
        assert!(
            text.contains("bytes 20 to 101 lie beyond the end of `data` (100 bytes)"),
            "{text}"
        );
        for form in [
            "MatMul+1",
            "MatMul+1|20",
            "MatMul+1|-1;5;0",
            "MatMul+1|20;1;0|",
            "MatMul+1|99999999999999999999;1;0",
        ] {
            let text = refused(form);
            assert!(text.contains("is not a number that fits"), "{form}: {text}");
        }
        let text = refused("MatMul+1|18446744073709551615;18446744073709551615;0");
        assert!(text.contains("beyond the end"), "{text}");
    }
}

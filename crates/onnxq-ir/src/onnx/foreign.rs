//! Files that are no ONNX models: what they are, by their first bytes, and what to do with them.

use std::{io::Read, path::Path};

use super::LoadError;
use crate::human;

/// What the kinds are told by.
const HEAD: u64 = 8192;

struct Head<'a> {
    bytes: &'a [u8],
    path: &'a Path,
}

impl Head<'_> {
    fn starts(&self, magic: &[u8]) -> bool {
        self.bytes.starts_with(magic)
    }

    fn holds(&self, part: &[u8]) -> bool {
        self.bytes.windows(part.len()).any(|window| window == part)
    }

    /// The first letters of a text, in lower case.
    fn text(&self) -> String {
        let head = &self.bytes[..self.bytes.len().min(512)];
        String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_lowercase()
    }

    fn ends(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it.eq_ignore_ascii_case(extension))
    }
}

struct Kind {
    name: &'static str,
    is: fn(&Head) -> bool,
    hint: fn(&Path) -> String,
}

/// The first that fits counts.
const KINDS: &[Kind] = &[
    Kind {
        name: "a pointer of Git LFS to a file that was not fetched",
        is: |head| head.starts(b"version https://git-lfs"),
        hint: |_| "fetch the file itself: git lfs pull".into(),
    },
    Kind {
        name: "an HTML page",
        is: |head| ["<!doctype html", "<html"].iter().any(|it| head.text().starts_with(it)),
        hint: |_| {
            "the download failed; get it again from the address of the file itself, \
             with `curl -fLO ADDRESS`"
                .into()
        },
    },
    Kind {
        name: "an OpenVINO model",
        is: |head| head.text().starts_with("<") && head.holds(b"<net "),
        hint: |_| "OpenVINO files cannot become ONNX again: start from the original model".into(),
    },
    Kind {
        name: "weights of a checkpoint without a graph (safetensors)",
        is: |head| head.bytes.get(8) == Some(&b'{') && head.bytes.get(6..8) == Some(&[0, 0]),
        hint: checkpoint,
    },
    Kind {
        name: "a GGUF file of llama.cpp",
        is: |head| head.starts(b"GGUF"),
        hint: |_| {
            "`onnxq quantize FILE.gguf -r int8_weights -o model.onnx` makes an ONNX model of it"
                .into()
        },
    },
    Kind {
        name: "a TensorFlow Lite model",
        is: |head| head.bytes.get(4..8) == Some(b"TFL3"),
        hint: |path| tf2onnx("--tflite", path),
    },
    Kind {
        name: "a model in the ORT format of ONNX Runtime",
        is: |head| head.bytes.get(4..8) == Some(b"ORTM"),
        hint: |_| "it cannot become ONNX again: start from the .onnx file it was made of".into(),
    },
    Kind {
        name: "a Keras model (HDF5)",
        is: |head| head.starts(b"\x89HDF\r\n"),
        hint: |_| "export it from Keras: model.export(\"model.onnx\", format=\"onnx\")".into(),
    },
    Kind {
        name: "an array of numpy",
        is: |head| head.starts(b"\x93NUMPY"),
        hint: |_| "that is data: pass it as --data or --calibration, and the model first".into(),
    },
    Kind {
        name: "an archive of numpy arrays (.npz)",
        is: |head| head.starts(b"PK\x03\x04") && (head.ends("npz") || head.holds(b".npy")),
        hint: |_| "that is data: pass it as --data or --calibration, and the model first".into(),
    },
    Kind {
        name: "a PyTorch file",
        is: |head| head.starts(b"PK\x03\x04") && head.holds(b"data.pkl"),
        hint: |_| PYTORCH.into(),
    },
    Kind {
        name: "a PyTorch file or another pickle",
        is: |head| matches!(head.bytes, [0x80, 2..=5, ..]),
        hint: |_| PYTORCH.into(),
    },
    Kind {
        name: "a zip archive",
        is: |head| head.starts(b"PK\x03\x04"),
        hint: |path| format!("unpack it first: unzip {}", path.display()),
    },
    Kind {
        name: "a gzip archive",
        is: |head| head.starts(b"\x1f\x8b"),
        hint: |path| format!("unpack it first: gunzip -k {}", path.display()),
    },
    Kind {
        name: "a JSON file",
        is: |head| head.text().starts_with(['{', '[']),
        hint: |path| format!("a checkpoint is given as its folder: {}", folder(path)),
    },
    Kind {
        name: "ONNX text",
        is: |head| head.text().starts_with("<ir_version") || head.text().starts_with("<\n"),
        hint: |path| {
            format!(
                "give it a name that ends in .onnxtxt: {}",
                path.with_extension("onnxtxt").display()
            )
        },
    },
    Kind {
        name: "protobuf in its text form",
        is: |head| {
            let fields = ["ir_version:", "producer_name:", "graph {", "opset_import {"];
            fields.iter().any(|it| head.text().starts_with(it))
        },
        hint: |path| {
            let path = path.display();
            format!(
                "make it binary: python -c \"import onnx; \
                 onnx.save(onnx.load('{path}', format='textproto'), 'model.onnx')\""
            )
        },
    },
    Kind {
        name: "a SavedModel of TensorFlow",
        // Version 1, then the first graph with its description.
        is: |head| head.starts(b"\x08\x01\x12") && head.ends("pb"),
        hint: |path| tf2onnx("--saved-model", Path::new(&folder(path))),
    },
    Kind {
        name: "a TensorFlow graph",
        is: |head| head.starts(b"\x0a") && head.ends("pb"),
        hint: |path| tf2onnx("--graphdef", path),
    },
];

const PYTORCH: &str = "export it first: torch.onnx.export(model, inputs, \"model.onnx\", \
                       dynamo=True), which needs pip install onnxscript; or save a Hugging Face model by \
                       model.save_pretrained(FOLDER, safe_serialization=True) and give the folder";

fn tf2onnx(flag: &str, path: &Path) -> String {
    let path = path.display();
    format!("convert it first: python -m tf2onnx.convert {flag} {path} --output model.onnx")
}

fn checkpoint(path: &Path) -> String {
    let folder = folder(path);
    match Path::new(&folder).join("config.json").is_file() {
        true => format!("give its folder instead, which holds the config.json: {folder}"),
        false => "download the whole folder, config.json too, and give the folder".into(),
    }
}

fn folder(path: &Path) -> String {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
        _ => ".".into(),
    }
}

/// A better error for a file that could not be read as a model, if it is of a known other kind.
pub(super) fn explained(error: LoadError, path: &Path) -> LoadError {
    use LoadError::{Decode, NoGraph, NotProtobuf, Text};
    let may_be_foreign = matches!(&error, NotProtobuf { .. } | Decode(_) | NoGraph | Text(_));
    let head = if may_be_foreign { head(path) } else { None };
    let Some(bytes) = head else { return error };
    let head = Head { bytes: &bytes, path };
    let Some(kind) = KINDS.iter().find(|kind| (kind.is)(&head)) else { return error };
    let kind_name = match lfs_size(&bytes) {
        Some(size) => format!("{}, of {}", kind.name, human::bytes(size)),
        None => kind.name.to_owned(),
    };
    LoadError::Foreign { kind: kind_name, hint: (kind.hint)(path) }
}

/// What a pointer of Git LFS says of its file.
fn lfs_size(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok().filter(|it| it.starts_with("version https"))?;
    text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok())
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::fs::open_file(path).ok()?.take(HEAD).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

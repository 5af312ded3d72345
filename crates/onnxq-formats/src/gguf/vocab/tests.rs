//! Small tokenizers in both directions, and hostile keys.

use std::{fs, path::Path};

use onnxq_ir::diag::{Code, Diagnostic};
use serde_json::{Value as Json, json};

use super::*;
use crate::gguf::{Array, Value};

#[test]
#[ignore]
fn dump() {
    let from = std::env::var("FROM").unwrap();
    let to = std::env::var("TO").unwrap();
    fs::create_dir_all(&to).unwrap();
    for (name, json) in files(Path::new(&from)).unwrap() {
        fs::write(Path::new(&to).join(name), json.to_string()).unwrap();
    }
}

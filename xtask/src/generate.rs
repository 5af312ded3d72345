//! The files that are made from others, and whether they are fresh.

use std::{fs, path::Path};

use crate::{manual, protobuf};

/// A file, or a part of one, and what makes it.
struct Generated {
    path: &'static str,
    /// The name of a part of the file, between two comments; without one it is the whole file.
    part: Option<&'static str>,
    make: fn() -> Result<String, String>,
}

/// In alphabetical order.
const GENERATED: &[Generated] = &[
    Generated { path: "README.md", part: Some("onnxq --help"), make: manual::overview },
    whole("crates/onnxq-ir/src/onnx/proto.rs", protobuf::messages),
    whole("crates/onnxq-ir/src/onnx/schema.rs", protobuf::fields),
    whole("docs/command-line.md", manual::command_line),
    whole("docs/error-codes.md", manual::error_codes),
    whole("recipes/schema.json", || Ok(onnxq_quant::recipe::schema())),
    whole("schemas/report.json", || Ok(onnxq_report::document::schema())),
];

const fn whole(path: &'static str, make: fn() -> Result<String, String>) -> Generated {
    Generated { path, part: None, make }
}

/// Writes every file that is stale.
pub(crate) fn write() -> Result<(), String> {
    for it in GENERATED {
        let (path, fresh) = (root().join(it.path), it.fresh()?);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|err| format!("{}: {err}", folder.display()))?;
        }
        if stored(&path) != fresh {
            fs::write(&path, fresh).map_err(|err| format!("{}: {err}", it.path))?;
            eprintln!("wrote {}", it.path);
        }
    }
    Ok(())
}

/// Fails with the names of the files that are stale.
pub(crate) fn check() -> Result<(), String> {
    let mut stale = Vec::new();
    for it in GENERATED {
        if stored(&root().join(it.path)) != it.fresh()? {
            stale.push(it.path);
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("stale: {}\nhint: `cargo xtask generate` writes them anew", stale.join(", ")))
}

impl Generated {
    /// What the file should hold.
    fn fresh(&self) -> Result<String, String> {
        let made = (self.make)()?;
        let Some(part) = self.part else { return Ok(made) };
        let (start, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end -->");
        let text = stored(&root().join(self.path));
        let found = text.split_once(&start).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(end)?;
            Some(format!("{before}{start}{made}{end}{after}"))
        });
        found.ok_or_else(|| format!("{}: there is no part `{}`", self.path, start.trim()))
    }
}

/// What a file holds; nothing if it does not exist.
fn stored(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

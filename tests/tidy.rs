//! Rules about the code itself that the compiler does not check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A module may use the modules of its own row and of the rows above it; see ARCHITECTURE.md.
const LAYERS: &[&[&str]] = &[
    &["codes", "ctx", "suggest", "tensor", "untrusted"],
    &["ir"],
    &["eval", "infer", "onnx", "text"],
    &["rewrite"],
    &["lint", "quant"],
    &["recipe"],
    &["calibrate", "engine"],
    &["report"],
    &["pipeline"],
    &["cli"],
];

#[test]
fn modules_look_down_only() {
    let row = |module: &str| LAYERS.iter().position(|it| it.contains(&module));
    for path in rust_files("src") {
        let module = module_of(&path);
        let Some(own) = row(&module) else {
            assert!(["lib", "main"].contains(&&*module), "{module} is in no layer");
            continue;
        };
        for used in uses(&production(&path)) {
            let Some(other) = row(&used) else { continue };
            assert!(other <= own, "{}: `{module}` must not use `{used}`", path.display());
        }
    }
}

#[test]
fn foreign_types_stay_in_their_rooms() {
    let rooms = [
        ("prost", "src/onnx/"),
        ("ort::", "src/engine/"),
        ("serde_yaml", "src/recipe/"),
        ("clap", "src/cli/"),
        ("indicatif", "src/cli/ui.rs"),
        ("minijinja", "src/report/emit/html/"),
        ("image::", "src/calibrate/images/decode.rs"),
        ("tokenizers::", "src/calibrate/text_data.rs"),
    ];
    for path in rust_files("src") {
        let text = production(&path);
        for (word, room) in rooms {
            let used = text.lines().any(|it| {
                let code = it.trim_start();
                !code.starts_with("//") && has_word(code, word)
            });
            let inside = path.starts_with(room) || path == Path::new(room);
            assert!(!used || inside, "{}: `{word}` belongs in {room}", path.display());
        }
    }
}

#[test]
fn unsafe_code_stays_where_its_reason_is() {
    let allowed = ["src/engine/", "src/onnx/files.rs", "src/main.rs"];
    for path in rust_files("src") {
        let text = fs::read_to_string(&path).unwrap();
        let count = text.matches("unsafe {").count();
        let reasons = text.matches("SAFETY:").count();
        let inside = allowed.iter().any(|it| path.starts_with(it));
        assert!(count == 0 || inside, "{}: unsafe code", path.display());
        assert!(count <= reasons, "{}: unsafe without a reason", path.display());
    }
}

#[test]
fn files_open_with_what_they_do_and_stay_small() {
    for path in rust_files("src") {
        let text = fs::read_to_string(&path).unwrap();
        if text.starts_with("// Generated") {
            continue;
        }
        assert!(text.starts_with("//! "), "{}: no first sentence", path.display());
        let lines = text.lines().count();
        assert!(lines <= 600, "{}: {lines} lines; its room needs dividing", path.display());
    }
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let hosts = [("py", "pi.org"), ("python", "hosted"), ("npm", "js.org"), ("crates", ".io")]
        .map(|(start, end)| format!("{start}{end}"));
    let words: Vec<&str> = hosts.iter().map(|it| &**it).chain(["/home/", "/root/"]).collect();
    let docs = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", ".ci/run", "Cargo.toml"];
    let files = rust_files("src").into_iter().chain(docs.map(PathBuf::from));
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for word in &words {
            assert!(!text.contains(word), "{}: names {word}", path.display());
        }
    }
}

#[test]
fn every_rewrite_has_a_test_that_fires_and_one_that_does_not() {
    let files: Vec<String> = files("tests/filetests")
        .iter()
        .filter_map(|it| Some(it.file_stem()?.to_str()?.replace('_', "-")))
        .collect();
    for step in onnxq_rewrite::steps() {
        let own = |it: &&String| it.starts_with(step.name());
        let count = files.iter().filter(own).count();
        assert!(count >= 2, "`{}` has {count} filetests of 2", step.name());
    }
}

/// `src/quant/plan.rs` is of module `quant`.
fn module_of(path: &Path) -> String {
    let part = path.iter().nth(1).and_then(|it| it.to_str()).unwrap_or_default();
    part.trim_end_matches(".rs").to_owned()
}

/// The code without its unit tests.
fn production(path: &Path) -> String {
    if path.file_stem().is_some_and(|it| it == "tests" || it == "testing") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|it| !(it.is_alphanumeric() || it == '_'))
    })
}

/// The modules named right after `crate::`, also in `crate::{a::b, c}`.
fn uses(text: &str) -> Vec<String> {
    let ident = |it: &str| {
        it.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect::<String>()
    };
    let mut found = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.push(ident(rest));
            continue;
        };
        let (mut depth, mut item) = (1, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || depth == 1 && c == ',' {
                found.push(ident(item.trim()));
                item.clear();
            } else if depth == 1 {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.retain(|it| !it.is_empty());
    found
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut list = files(dir);
    list.retain(|it| it.extension().is_some_and(|it| it == "rs"));
    list
}

fn files(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
    entries
        .flat_map(|it| if it.is_dir() { files(it.to_str().unwrap()) } else { vec![it] })
        .collect()
}

#[test]
fn finds_grouped_uses() {
    let text = "use crate::{\n a::{B, c},\n d,\n};\ncrate::e::f()";
    assert_eq!(uses(text), ["a", "d", "e"]);
}

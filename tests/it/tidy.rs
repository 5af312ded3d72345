//! Rules about the code itself that the compiler does not check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use onnxq_ir::diag::Code;
use regex::Regex;

/// A crate may depend on those of the rows before it; see ARCHITECTURE.md.
const CRATES: &[&[&str]] = &[
    &["onnxq-ir"],
    &["onnxq-formats", "onnxq-numerics", "onnxq-rewrite", "onnxq-train"],
    &["onnxq-quant"],
    &["onnxq-report"],
    &["onnxq-run"],
    &["onnxq-serve"],
    &["onnxq-pipeline"],
    &["onnxq-cli"],
    &["onnxq"],
];

/// Inside a crate, a module may use those of its own row and of the rows before it. What is not
/// named here is in the first row.
const MODULES: &[(&str, &[&[&str]])] = &[
    ("crates/onnxq-ir/src", &[&["ir"], &["eval", "infer", "onnx", "releases", "text"]]),
    ("crates/onnxq-quant/src", &[&["recipe"]]),
    ("crates/onnxq-run/src", &[&["data"], &["answer", "calibrate", "compare"], &["worker"]]),
];

/// Uses of `it` that are no closure's: names of parameters and of variables. They may only fall.
const MOST_PARAMETERS: usize = 197;
const MOST_VARIABLES: usize = 271;

#[test]
fn crates_look_down_only() {
    let row = |name: &str| CRATES.iter().position(|it| it.contains(&name));
    let mut manifests = vec![("onnxq".to_owned(), PathBuf::from("Cargo.toml"))];
    for entry in fs::read_dir("crates").unwrap().map(|it| it.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        manifests.push((name, entry.path().join("Cargo.toml")));
    }
    for (name, path) in manifests {
        let own = row(&name).unwrap_or_else(|| panic!("{name} is in no row"));
        for used in dependencies(&fs::read_to_string(path).unwrap()) {
            let Some(other) = row(&used) else { continue };
            assert!(other < own, "`{name}` must not depend on `{used}`");
        }
    }
}

#[test]
fn modules_look_down_only() {
    for (root, rows) in MODULES {
        let row = |name: &str| rows.iter().position(|it| it.contains(&name)).map_or(0, |it| it + 1);
        for path in rust_files(root) {
            let module = module_of(path.strip_prefix(root).unwrap());
            if ["lib", "main"].contains(&&*module) {
                continue;
            }
            let own = row(&module);
            for used in uses(&production(&path)) {
                // The graph's types stand at the root of their crate.
                let is_type = used.starts_with(char::is_uppercase);
                let used = if is_type { "ir" } else { &*used };
                let message = format!("{}: `{module}` must not use `{used}`", path.display());
                assert!(row(used) <= own, "{message}");
            }
        }
    }
}

#[test]
fn foreign_types_stay_in_their_rooms() {
    let rooms = [
        ("clap", "crates/onnxq-cli/"),
        ("gemm::", "crates/onnxq-train/src/real.rs"),
        ("image::", "crates/onnxq-run/src/data/images/decode.rs"),
        ("indicatif", "crates/onnxq-cli/src/ui.rs"),
        ("minijinja", "crates/onnxq-report/src/emit/html/"),
        ("minijinja", "crates/onnxq-run/src/data/chat.rs"),
        ("ort::", "crates/onnxq-run/src/engine/"),
        ("os::unix", "crates/onnxq-ir/src/fs/"),
        ("os::unix", "crates/onnxq-run/src/worker/channel/"),
        ("os::windows", "crates/onnxq-ir/src/fs/"),
        ("prost", "crates/onnxq-ir/src/onnx/"),
        ("rustix", "crates/onnxq-ir/src/fs/"),
        ("rustix", "crates/onnxq-run/src/worker/"),
        ("serde_yaml", "crates/onnxq-quant/src/recipe/"),
        ("tokenizers::", "crates/onnxq-run/src/data/text_data.rs"),
        ("tokenizers::", "crates/onnxq-run/src/data/vocabulary.rs"),
    ];
    for path in sources() {
        let text = production(&path);
        for (word, room) in rooms {
            let used = text.lines().any(|it| {
                let code = it.trim_start();
                !code.starts_with("//") && has_word(code, word)
            });
            let mut own = rooms.iter().filter(|it| it.0 == word).map(|it| it.1);
            let inside = own.any(|it| path.starts_with(it) || path == Path::new(it));
            assert!(!used || inside, "{}: `{word}` belongs in {room}", path.display());
        }
    }
}

#[test]
fn unsafe_code_stays_where_its_reason_is() {
    let allowed = [
        "crates/onnxq-ir/src/fs/open.rs",
        "crates/onnxq-run/src/engine/",
        "crates/onnxq-train/src/real.rs",
        "src/main.rs",
    ];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let count = text.matches("unsafe {").count();
        let reasons = text.matches("SAFETY:").count();
        let inside = allowed.iter().any(|it| path.starts_with(it));
        assert!(count == 0 || inside, "{}: unsafe code", path.display());
        assert!(count <= reasons, "{}: unsafe without a reason", path.display());
    }
}

#[test]
fn only_the_command_line_reads_the_environment() {
    let word = Regex::new(r"env::(set_|remove_)?vars?(_os)?\(").unwrap();
    for path in sources() {
        let outside = !path.starts_with("crates/onnxq-cli") && path != Path::new("src/main.rs");
        let found = outside && word.is_match(&production(&path));
        assert!(!found, "{}: reads the environment", path.display());
    }
}

#[test]
fn files_open_with_what_they_do_and_stay_small() {
    for path in sources() {
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
    let homes = ["home", "root"].map(|it| format!("/{it}/"));
    for (path, text) in tracked_texts() {
        // Cargo writes there where its index is.
        if path == Path::new("Cargo.lock") {
            continue;
        }
        for word in hosts.iter().chain(&homes) {
            assert!(!text.contains(word), "{}: names {word}", path.display());
        }
    }
}

#[test]
fn no_merge_was_left_half_done() {
    for (path, text) in tracked_texts() {
        let is_marker = |it: &&str| {
            it.starts_with("<<<<<<< ") || it.starts_with(">>>>>>> ") || *it == "======="
        };
        let marker = text.lines().find(is_marker);
        assert_eq!(marker, None, "{}", path.display());
    }
}

#[test]
fn every_code_is_emitted_and_documents_name_no_others() {
    let table = Path::new("crates/onnxq-ir/src/diag/codes.rs");
    let sources = sources().into_iter().filter(|it| it != table);
    let sources: Vec<String> = sources.map(|it| production(&it)).collect();
    let emitted = Regex::new(r"\bCode::([ENW]\d{3})\b").unwrap();
    let known: BTreeSet<&str> = Code::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(sources.iter().flat_map(|it| firsts(&emitted, it)).collect::<BTreeSet<_>>(), known);
    let named = Regex::new(r"\b([ENW]\d{3})\b").unwrap();
    let documents =
        tracked_texts().into_iter().filter(|it| it.0.extension() == Some("md".as_ref()));
    for text in documents.map(|it| it.1).chain(sources) {
        let unknown = firsts(&named, &text).find(|it| !known.contains(it));
        assert_eq!(unknown, None, "`onnxq explain` does not know it");
    }
}

#[test]
fn it_is_a_word_of_closures() {
    let signature = Regex::new(r"\bfn\s+\w+[^{;]*").unwrap();
    let parameter = Regex::new(r"\bit:\s").unwrap();
    let variable = Regex::new(r"\blet (mut )?it\b").unwrap();
    let (mut parameters, mut variables) = (0, 0);
    for path in ["crates", "src", "tests"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(path).unwrap();
        let of_one = |it: regex::Match| parameter.find_iter(it.as_str()).count();
        parameters += signature.find_iter(&text).map(of_one).sum::<usize>();
        variables += variable.find_iter(&text).count();
    }
    assert!(parameters <= MOST_PARAMETERS, "{parameters} parameters are called `it`");
    assert!(variables <= MOST_VARIABLES, "{variables} variables are called `it`");
}

#[test]
fn every_file_of_tests_is_compiled() {
    let main = fs::read_to_string("tests/it/main.rs").unwrap();
    for entry in fs::read_dir("tests/it").unwrap().map(|it| it.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap();
        let is_module = name == "main" || main.contains(&format!("mod {name};"));
        assert!(is_module, "{name} is missing in tests/it/main.rs");
    }
    let mut beside = fs::read_dir("tests").unwrap().map(|it| it.unwrap().path());
    let stray = beside.find(|it| it.extension().is_some());
    assert_eq!(stray, None, "tests belong in tests/it");
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

/// `plan/mod.rs` and `plan.rs` are of module `plan`.
fn module_of(path: &Path) -> String {
    let part = path.iter().next().and_then(|it| it.to_str()).unwrap_or_default();
    part.trim_end_matches(".rs").to_owned()
}

/// Names in the sections of dependencies, the workspace's list of versions aside.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.starts_with("[workspace");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['=', '.', ' '])) {
            found.push(name.to_owned());
        }
    }
    found
}

/// The code without its unit tests.
pub(crate) fn production(path: &Path) -> String {
    if path.file_stem().is_some_and(|it| it == "tests" || it == "testing") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// What the first group of a pattern matches.
fn firsts<'a>(pattern: &'a Regex, text: &'a str) -> impl Iterator<Item = &'a str> {
    pattern.captures_iter(text).map(|it| it.extract::<1>().1[0])
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

/// The sources of every crate.
fn sources() -> Vec<PathBuf> {
    let crates = fs::read_dir("crates").unwrap().map(|it| it.unwrap().path().join("src"));
    let roots = crates.map(|it| it.to_str().unwrap().to_owned()).chain(["src".to_owned()]);
    roots.flat_map(|it| rust_files(&it)).collect()
}

/// The files that git knows, as far as they are text.
fn tracked_texts() -> Vec<(PathBuf, String)> {
    let output = Command::new("git").args(["ls-files", "-z"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let paths = names.split_terminator('\0').map(PathBuf::from);
    // One that was removed stays in the list until that is committed; a link leads to a folder.
    paths.filter_map(|it| Some((it.clone(), fs::read_to_string(it).ok()?))).collect()
}

pub(crate) fn rust_files(dir: &str) -> Vec<PathBuf> {
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

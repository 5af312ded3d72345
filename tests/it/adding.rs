//! What adding something costs: each patch in `tests/adding` really adds one, and is small.
//!
//! A patch is one file and at most two lines elsewhere; what is generated (`recipes/schema.json`)
//! is not in it. `tests/adding/refresh` makes them anew when the lines around theirs have changed.

use std::{fs, path::Path};

/// Lines that a patch may change in files that exist.
const MOST_LINES: usize = 2;

/// What adding is shown for, in alphabetical order.
const KINDS: &[&str] = &[
    "figure_for_gates",
    "form_to_convert_to",
    "observer",
    "operator",
    "report_format",
    "solver",
    "subcommand",
    "transform",
];

/// A file in a patch.
#[derive(Default)]
struct Change {
    path: String,
    is_new: bool,
    /// Lines as they were, `context` and `-`, of each hunk.
    before: Vec<Vec<String>>,
    added: usize,
    removed: usize,
}

fn changes(patch: &str) -> Vec<Change> {
    let mut list: Vec<Change> = Vec::new();
    for line in patch.lines() {
        if line.starts_with("diff --git ") {
            list.push(Change::default());
        }
        let Some(change) = list.last_mut() else { continue };
        if line == "--- /dev/null" {
            change.is_new = true;
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            change.path = path.to_owned();
        } else if line.starts_with("@@ ") {
            change.before.push(Vec::new());
        } else if let Some(hunk) = change.before.last_mut() {
            match line.split_at_checked(1) {
                Some(("+", _)) => change.added += 1,
                Some(("-", rest)) => {
                    change.removed += 1;
                    hunk.push(rest.to_owned());
                }
                Some((_, rest)) => hunk.push(rest.to_owned()),
                None => hunk.push(String::new()),
            }
        }
    }
    list
}

/// Whether each hunk's lines stand in the file as the patch expects them.
fn applies(change: &Change, root: &Path) -> bool {
    let path = root.join(&change.path);
    if change.is_new {
        return !path.exists();
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    change.before.iter().all(|hunk| lines.windows(hunk.len()).any(|it| it == hunk))
}

#[test]
fn adding_one_is_one_file_and_two_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for kind in KINDS {
        let patch = fs::read_to_string(root.join(format!("tests/adding/{kind}.patch"))).unwrap();
        let changes = changes(&patch);
        let new = changes.iter().filter(|it| it.is_new).count();
        let old = changes.iter().filter(|it| !it.is_new);
        let lines: usize = old.map(|it| it.added + it.removed).sum();
        assert!(new <= 1 && lines <= MOST_LINES, "{kind}: {new} files and {lines} lines");
        assert!(new + lines > 0, "{kind}: an empty patch");
        for it in &changes {
            let advice = "run tests/adding/refresh";
            assert!(applies(it, root), "{kind}: {} has changed; {advice}", it.path);
        }
    }
}

#[test]
fn every_patch_is_of_a_known_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adding");
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<String> =
        names.filter_map(|it| Some(it.to_str()?.strip_suffix(".patch")?.to_owned())).collect();
    names.sort();
    assert_eq!(names, KINDS);
}

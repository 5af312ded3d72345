//! Keys that were called otherwise in earlier versions. The old name is still read, with a warning,
//! so that a recipe of a user does not break by an update.

use onnxq_ir::diag::{Code, Warning};

use super::Place;

/// A section, the old name of a key in it, and the new one. The field of the section's type needs
/// `#[serde(alias)]` too.
const RENAMED: &[(&str, &str, &str)] = &[("adapt", "ways", "candidates")];

/// The path as today's names spell it: `adapt.ways.0` is `adapt.candidates.0`.
pub(super) fn current(path: &str) -> String {
    let renamed = RENAMED.iter().find_map(|(section, old, new)| {
        let rest = path.strip_prefix(section)?.strip_prefix('.')?.strip_prefix(old)?;
        let whole = rest.is_empty() || rest.starts_with('.');
        whole.then(|| format!("{section}.{new}{rest}"))
    });
    renamed.unwrap_or_else(|| path.to_owned())
}

/// Moves the places of old names to the new ones; returns what to tell the user.
pub(super) fn update(place: &mut Place) -> Vec<Warning> {
    let moved = RENAMED.iter().filter_map(|(section, old, new)| {
        let section_place = place.inner.get_mut(*section)?;
        let value = section_place.inner.remove(*old)?;
        let position = value.position.to_string();
        section_place.inner.insert((*new).to_owned(), value);
        let message = format!("{position}: `{section}.{old}` is called `{section}.{new}` now");
        Some(Warning::new(Code::W701, message))
    });
    moved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{apply_set, load_text};

    const OLD: &str = "onnxq: 1\nname: old\nadapt:\n  ways:\n    - activation: none\n      \
                       format: [qdq]\n";

    #[test]
    fn an_old_key_means_the_new_one_and_says_so() {
        let old = load_text(OLD, "old.yaml").unwrap();
        let new = load_text(&OLD.replace("ways", "candidates"), "old.yaml").unwrap();
        assert_eq!(old.adapt, new.adapt);
        assert!(new.warnings.is_empty());
        let told: Vec<String> = old.warnings.iter().map(Warning::to_string).collect();
        let text = "W701: old.yaml:5:5: `adapt.ways` is called `adapt.candidates` now";
        assert_eq!(told, [text]);
    }

    #[test]
    fn an_error_below_an_old_key_has_its_place() {
        let error = load_text(&OLD.replace("[qdq]", "[qdqq]"), "old.yaml").unwrap_err();
        assert!(error.to_string().starts_with("old.yaml:6:15: "), "{error}");
    }

    #[test]
    fn set_takes_the_old_key_too() {
        let recipe = load_text(OLD, "old.yaml").unwrap();
        for path in ["adapt.ways.0.format", "adapt.candidates.0.format"] {
            let set = apply_set(&recipe, &format!("{path}=[]")).unwrap();
            assert_eq!(set.adapt.unwrap().candidates[0].format, Some(Vec::new()));
        }
        assert_eq!(current("adapt.waysides"), "adapt.waysides");
    }
}

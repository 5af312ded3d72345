//! Places in a recipe file, so that an error found much later can still point at its cause.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Printed as `file:line:column`; as the file alone if that is no file but an argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    pub file: Arc<str>,
    /// Counted from 1; 0 if unknown.
    pub line: u32,
    pub column: u32,
}

/// Where a value stands, and where the values inside it stand.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub position: Position,
    /// Fields by name, items of a list by number.
    pub inner: BTreeMap<String, Place>,
}

impl Position {
    /// What was typed on the command line.
    pub fn argument(text: &str) -> Position {
        Position { file: text.into(), line: 0, column: 0 }
    }
}

impl Place {
    /// The position of a path as `weight.granularity` or `names.0`, or of what encloses it.
    pub fn at(&self, path: &str) -> Position {
        let mut place = self;
        for step in path.split('.') {
            let Some(inner) = place.inner.get(step) else { break };
            place = inner;
        }
        place.position.clone()
    }

    /// Says that the value at `path` comes from `position`.
    pub fn set(&mut self, path: &str, position: Position) {
        let mut place = self;
        for step in path.split('.') {
            let outside = Place::from(place.position.clone());
            place = place.inner.entry(step.to_owned()).or_insert(outside);
        }
        *place = position.into();
    }

    /// The value that stands at a position, and its innermost key.
    pub fn find(&self, position: &Position) -> Option<(&str, &Place)> {
        for (key, place) in &self.inner {
            if let Some((inner, found)) = place.find(position) {
                let is_item = inner.bytes().all(|it| it.is_ascii_digit());
                return Some((if is_item { key } else { inner }, found));
            }
            if place.position == *position {
                return Some((key, place));
            }
        }
        None
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        Place { position, inner: BTreeMap::new() }
    }
}

impl Default for Position {
    fn default() -> Position {
        Position::argument("recipe")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_fall_back_to_what_encloses_them() {
        let position = |line, column| Position { file: "a.yaml".into(), line, column };
        let mut place = Place::from(position(1, 1));
        place.set("weight", position(2, 11));
        place.set("names.0", position(3, 7));
        assert_eq!(place.at("weight.solver").to_string(), "a.yaml:2:11");
        assert_eq!(place.at("names.1").to_string(), "a.yaml:1:1");
        assert_eq!(place.find(&position(2, 11)).unwrap().0, "weight");
        assert_eq!(place.find(&position(3, 7)).unwrap().0, "names");
        assert_eq!(Position::argument("--exclude x").to_string(), "--exclude x");
    }
}

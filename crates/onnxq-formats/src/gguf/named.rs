//! A list of things with names of their own: in the order of the file, and found by name.

/// Entries in their order, and that of their names.
#[derive(Clone, Debug)]
pub(super) struct Named<T> {
    entries: Vec<(String, T)>,
    /// Places in `entries`, by name.
    sorted: Vec<usize>,
}

impl<T> Named<T> {
    /// `Err` is a name that is there twice.
    pub(super) fn new(entries: Vec<(String, T)>) -> Result<Named<T>, String> {
        let mut sorted: Vec<usize> = (0..entries.len()).collect();
        sorted.sort_by(|a, b| entries[*a].0.cmp(&entries[*b].0));
        let twice = sorted.windows(2).find(|it| entries[it[0]].0 == entries[it[1]].0);
        match twice {
            Some(pair) => Err(entries[pair[0]].0.clone()),
            None => Ok(Named { entries, sorted }),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&T> {
        let found = self.sorted.binary_search_by(|it| (*self.entries[*it].0).cmp(name)).ok()?;
        Some(&self.entries[self.sorted[found]].1)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &T)> {
        self.entries.iter().map(|(name, it)| (&**name, it))
    }
}

//! The tables are complete.

use super::*;

/// Operators of the standard with the versions that changed them.
fn standard() -> impl Iterator<Item = (&'static str, &'static [i64])> {
    ops::all().filter(|it| !it.versions.is_empty()).map(|it| (it.name, it.versions))
}

#[test]
fn every_change_of_a_schema_has_exactly_one_row() {
    for (op, versions) in standard() {
        for &version in versions[1..].iter().filter(|it| **it > OLDEST) {
            let rules = RULES.iter().filter(|it| it.op == op && it.version == version).count();
            let rows = rules + usize::from(is_same(op, version));
            assert_eq!(rows, 1, "{op} {version}");
        }
    }
}

#[test]
fn rows_say_nothing_of_what_did_not_change() {
    let changed = |op: &str, version: i64| {
        let versions = ops::find("", op).map_or(&[][..], |it| it.versions);
        versions[1..].contains(&version) && version > OLDEST
    };
    for (op, versions) in SAME {
        assert!(versions.iter().all(|it| changed(op, *it)), "{op} {versions:?}");
    }
    assert!(RULES.iter().all(|it| changed(it.op, it.version)));
}

#[test]
fn tables_are_in_order() {
    assert!(SAME.is_sorted_by(|a, b| a.0 < b.0));
    assert!(RULES.is_sorted_by(|a, b| (a.op, a.version) < (b.op, b.version)));
}

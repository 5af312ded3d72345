//! Inputs that once broke a target, and the seeds: nothing breaks on them.

use std::{alloc::System, fs, path::Path};

use cap::Cap;
use onnxq_fuzz::{engine::check, targets::TARGETS};

/// As in the fuzzer, with room for all targets at once.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 1 << 30);

#[test]
fn nothing_breaks_again() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if let Err(finding) = check(target, &fs::read(&path).unwrap()).0 {
                panic!("{}: {}: {}", path.display(), finding.kind, finding.what);
            }
        }
    }
}

#[test]
fn seeds_are_accepted() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let accepted = seeds.iter().filter(|it| matches!(check(target, it).0, Ok(Ok(_)))).count();
        assert!(2 * accepted > seeds.len(), "{}: {accepted} of {} seeds", target.name, seeds.len());
    }
}

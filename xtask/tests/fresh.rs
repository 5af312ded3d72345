//! Generated files are fresh: what `cargo xtask generate --check` says must be nothing.

use std::process::Command;

#[test]
fn nothing_is_stale() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["generate", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

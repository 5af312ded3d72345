//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    forbid_telemetry();
    onnxq_cli::main()
}

/// The official builds of ONNX Runtime report to their maker unless a variable forbids it before
/// they start: the interface's own switch comes after the first report and after an identifier is
/// on the disk.
fn forbid_telemetry() {
    for name in ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"] {
        // SAFETY: no other thread exists yet that could read the environment.
        unsafe { std::env::set_var(name, "1") };
    }
}

//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    onnxq::cli::main()
}

//! `cargo xtask`: tasks of this repository that need more than Cargo.
#![allow(clippy::print_stderr, reason = "a program for people, not a library")]

mod generate;
mod manual;
mod protobuf;

use std::{env, process::ExitCode};

const USAGE: &str = "\
usage: cargo xtask generate [--check]

generate          write every file that is made from another one
generate --check  only say which of them are stale, and fail if any is";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|it| &**it).collect();
    let result = match words[..] {
        ["generate"] => generate::write(),
        ["generate", "--check"] => generate::check(),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

//! The one command: `sutler`.
//!
//! Each command is a file in `command/`, from its arguments to its output. What they share:
//! [`access`] finds whoever owns a store, [`export`] writes contents to the user's files,
//! [`output`] prints for people or as JSON, [`exit`] says what the exit codes mean, [`progress`]
//! draws bars, [`logging`] writes logs to stderr.
//!
//! stdout carries results and nothing else; stderr carries everything meant for a person watching.

mod access;
mod cli;
mod command;
mod dev;
mod exit;
mod export;
mod logging;
mod output;
mod progress;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The one cryptography of the whole program, before anything can ask for another.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: another cryptography provider is installed already");
        return exit::code_of(sutler_node::failure::Kind::Internal).into();
    }
    cli::run()
}

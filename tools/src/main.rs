//! The one command: `sutler`.
//!
//! Each command is a file in `command/`, from its arguments to its output. What they share:
//! [`access`] finds whoever owns a store, [`export`] writes contents to the user's files,
//! [`output`] prints for people or as JSON, [`exit`] says what the exit codes mean, [`progress`]
//! draws bars, [`signing`] leads a change to what is published, [`remote`] is control where that is another
//! machine, [`logging`] writes logs to stderr.
//!
//! stdout carries results and nothing else; stderr carries everything meant for a person watching.

mod access;
mod agreement;
mod cli;
mod command;
mod dev;
mod exit;
mod export;
mod logging;
mod output;
mod progress;
mod remote;
mod signing;

use std::process::ExitCode;

/// Half of what a heap may keep for later.
const HEAP_BLOCK_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    // The one cryptography of the whole program, before anything can ask for another.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: another cryptography provider is installed already");
        return exit::code_of(sutler_node::failure::Kind::Internal).into();
    }
    keep_freed_memory();
    cli::run()
}

/// Has the allocator keep what packets and chunks free, for those that follow.
///
/// glibc gives the top of a heap back to the system beyond 128 KiB, and takes it again a moment
/// later: 45,000 to 150,000 page faults a GiB of `sutler fetch`, 5,000 with this. It raises that bound to twice the
/// largest block that was freed, which is then also the largest that stays in a heap.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(HEAP_BLOCK_BYTES)));
}

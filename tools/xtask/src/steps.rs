//! The commands that each task runs, in order; the first that fails ends the task.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{debian, fuzz, python, tidy};

/// Runs every check; warnings are errors.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let fuzz = format!("{}/Cargo.toml", fuzz::FOLDER);
    run(cargo(["fmt", "--all", "--check"]))?;
    run(cargo(["fmt", "--manifest-path", &fuzz, "--check"]))?;
    tidy(root)?;
    run(cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    run(cargo(["clippy", "--manifest-path", &fuzz, "--", "--deny", "warnings"]))?;
    let mut docs = cargo(["doc", "--workspace", "--no-deps"]);
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    run(docs)?;
    if is_installed("cargo-deny") {
        run(cargo(["deny", "--workspace", "check"]))
    } else {
        println!("xtask: cargo-deny is not installed, so dependencies were not checked against it");
        Ok(())
    }
}

/// Reports every breach of the house rules.
pub(crate) fn tidy(root: &Path) -> anyhow::Result<()> {
    let findings = tidy::findings(root)?;
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if findings.is_empty() { Ok(()) } else { bail!("tidy found {}", findings.len()) }
}

/// Runs every test of the workspace, after seeing to the programs that they need.
pub(crate) fn test(arguments: &[String]) -> anyhow::Result<()> {
    debian::provide()?;
    python::provide();
    // The end-to-end tests run the programs themselves, which `cargo test` alone would not build.
    // All targets, so that features are those of the tests and nothing is built twice.
    run(cargo(["build", "--workspace", "--all-targets"]))?;
    let mut tests = cargo(["test", "--workspace"]);
    tests.args(arguments);
    run(tests)
}

/// Kills `kills` processes in the course of transfers, as chance decides that follows from `seed`.
pub(crate) fn torture(kills: u32, seed: Option<u64>) -> anyhow::Result<()> {
    run(cargo(["build", "--package", "sutler"]))?;
    let mut torture = cargo(["run", "--package", "sutler-tests", "--bin", "torture", "--"]);
    torture.args(["--kills", &kills.to_string()]);
    if let Some(seed) = seed {
        torture.args(["--seed", &seed.to_string()]);
    }
    run(torture)
}

/// Builds what is measured and what measures, and runs it.
pub(crate) fn bench(arguments: &[String]) -> anyhow::Result<()> {
    run(cargo(["build", "--release", "-p", "sutler", "-p", "sutler-benches"]))?;
    // Not by `cargo run`, which would build for one package what was just built for two.
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(2).context("xtask lies two folders below its target")?;
    let mut bench = Command::new(target.join("release").join("sutler-bench"));
    bench.args(arguments);
    run(bench)
}

/// Returns the cargo that runs this program, with its first arguments.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Says the command, runs it, and fails where it fails.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let said = said(&command);
    println!("xtask: {said}");
    let status = command.status().with_context(|| format!("start {said}"))?;
    if status.success() { Ok(()) } else { bail!("{said} failed: {status}") }
}

/// Returns whether the program can be started.
pub(crate) fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

fn said(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

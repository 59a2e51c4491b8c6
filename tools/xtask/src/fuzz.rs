//! Runs the fuzz targets of `tests/fuzz`, for as many minutes as asked.
//!
//! The targets stand on libFuzzer and need a C++ compiler. The coverage that guides it comes from
//! the compiler's own pass, so the stable toolchain will do; there is no address sanitizer, which
//! would have little to say in a workspace that forbids `unsafe`.
//!
//! Seeds are committed beside the targets. What libFuzzer finds of interest stays in the target
//! folder from run to run, and so does an input that made a target fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::steps::{cargo, run};

/// The compiler flags by which a target says where it has been.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Bytes of an input, at most: a little more than a frame, so that "too long" is among them.
const INPUT_BYTES_MAX: usize = 70_000;

/// Where the targets are.
pub(crate) const FOLDER: &str = "tests/fuzz";

/// Runs every target, or those named, for `minutes` each; as many at a time as there are cores.
pub(crate) fn fuzz(minutes: u32, named: &[String]) -> anyhow::Result<()> {
    let targets = targets(Path::new(FOLDER), named)?;
    let output = output()?;
    let programs = build(&output)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut failed = Vec::new();
    for batch in targets.chunks(cores) {
        let mut running = Vec::new();
        for target in batch {
            let mut command = command(&programs, &output, target, minutes)?;
            println!("xtask: fuzz {target} for {minutes} min");
            running.push((target, command.spawn().with_context(|| format!("start {target}"))?));
        }
        for (target, mut child) in running {
            if !child.wait()?.success() {
                failed.push(target.as_str());
            }
        }
    }
    if failed.is_empty() {
        println!("xtask: {} targets, 0 findings", targets.len());
        return Ok(());
    }
    bail!("findings in {}, kept in {}", failed.join(", "), output.join("findings").display())
}

/// Returns the names of the targets, all where none is named.
fn targets(folder: &Path, named: &[String]) -> anyhow::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder.join("src/bin")).context("list the fuzz targets")? {
        let name = entry?.path();
        targets.extend(name.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    if let Some(unknown) = named.iter().find(|name| !targets.contains(name)) {
        bail!("no fuzz target {unknown}; there are {}", targets.join(", "));
    }
    if !named.is_empty() {
        targets.retain(|target| named.contains(target));
    }
    Ok(targets)
}

/// Returns the folder of what is built and found: apart from the ordinary build, whose flags differ.
fn output() -> anyhow::Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let output = std::path::absolute(target)?.join("fuzz");
    fs::create_dir_all(output.join("findings"))?;
    Ok(output)
}

/// Builds all targets with coverage and returns the folder that they are in.
fn build(output: &Path) -> anyhow::Result<PathBuf> {
    let host = env!("HOST");
    // With `--target` the flags reach the targets alone, not the build scripts.
    let mut build = cargo(["build", "--release", "--target", host]);
    build.args(["--manifest-path", &format!("{FOLDER}/Cargo.toml")]);
    build.env("CARGO_TARGET_DIR", output).env("RUSTFLAGS", COVERAGE.join(" "));
    run(build)?;
    Ok(output.join(host).join("release"))
}

fn command(programs: &Path, output: &Path, target: &str, minutes: u32) -> anyhow::Result<Command> {
    let corpus = output.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let mut command = Command::new(programs.join(target));
    // libFuzzer takes a time of 0 for no limit, and 0 runs for the seeds alone.
    command
        .arg(if minutes == 0 {
            "-runs=0".into()
        } else {
            format!("-max_total_time={}", minutes * 60)
        })
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", output.join("findings").display()))
        .args(["-verbosity=0", "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"])
        .arg(corpus)
        .arg(Path::new(FOLDER).join("seeds").join(target));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_committed_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(FOLDER);
        let targets = targets(&folder, &[]).unwrap();
        assert!(targets.contains(&"frame".to_owned()));
        for target in targets {
            let seeds = fs::read_dir(folder.join("seeds").join(&target)).unwrap();
            assert!(seeds.count() > 0, "{target}");
        }
    }

    #[test]
    fn an_unknown_target_is_named() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(FOLDER);
        let error = targets(&folder, &["fame".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("no fuzz target fame; there are"));
    }
}

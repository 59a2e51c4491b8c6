//! `cargo xtask`: what CI runs, what measures, and what tortures.
//!
//! | Question | Room |
//! |---|---|
//! | What does each command run? | [`steps`] |
//! | Which Debian packages do the tests need? | [`debian`] |
//! | How are the fuzz targets run? | [`fuzz`] |
//! | Is the house in order? | [`tidy`] |

mod debian;
mod fuzz;
mod python;
mod steps;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What CI runs, what measures, and what tortures.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, clippy, docs, cargo-deny where it is installed, and tidy; warnings are errors.
    Check,
    /// The house rules that no compiler knows: arrows, headers, sizes, top level.
    Tidy,
    /// Every test of the workspace; installs what they need on Debian when run as root.
    Test {
        /// Handed to `cargo test` as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kills servers and clients at random moments of transfers and of `add`, and checks what is left.
    Torture {
        /// How many processes are killed.
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// What chance follows from; the clock where it is not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The fuzz targets of tests/fuzz, as many at a time as there are cores.
    Fuzz {
        /// How long each of them runs; 0 replays the seeds and what was found before.
        #[arg(long, default_value_t = 10)]
        minutes: u32,
        /// Those to run; all where none is named.
        targets: Vec<String>,
    },
    /// What is fast and what is not: the jobs of benches/, all of them where none is named.
    Bench {
        /// Handed to `sutler-bench` as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&Command::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> anyhow::Result<()> {
    // Cargo says where the sources are now; the program knows where they were when it was built.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    let root =
        Path::new(&xtask).ancestors().nth(2).expect("xtask lies two folders below the workspace");
    std::env::set_current_dir(root)?;
    match task {
        Task::Check => steps::check(root),
        Task::Tidy => steps::tidy(root),
        Task::Test { arguments } => steps::test(arguments),
        Task::Torture { kills, seed } => steps::torture(*kills, *seed),
        Task::Fuzz { minutes, targets } => fuzz::fuzz(*minutes, targets),
        Task::Bench { arguments } => steps::bench(arguments),
    }
}

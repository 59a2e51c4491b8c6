//! `cargo xtask torture`: kills for as long as one likes.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use sutler_tests::torture::{Plan, run};

/// Kills servers and clients at random moments, and checks what is left.
#[derive(Parser)]
struct Command {
    /// How many processes are killed.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// What chance follows from [default: the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Length of the largest content.
    #[arg(long, default_value_t = 200_000_000)]
    bytes_max: usize,
}

fn main() {
    let Command { kills, seed, bytes_max } = Command::parse();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = seed.unwrap_or_else(clock);
    println!("seed {seed}");
    println!("{}", run(Plan { kills, seed, bytes_max }));
}

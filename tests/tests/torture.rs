//! The torture of `cargo xtask torture`, as much of it as fits here.

use std::time::{SystemTime, UNIX_EPOCH};

use sutler_tests::torture::{Plan, run};

// R34, T8: a hundred processes are killed, other ones each time.
#[test]
fn no_kill_loses_what_was_acknowledged_or_fetches_a_chunk_again() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let tally = run(Plan { kills: 100, seed: clock, bytes_max: 40_000_000 });
    eprintln!("seed {clock}: {tally}");
    assert!(tally.clients_killed > 0 && tally.nodes_killed > 0 && tally.adds_killed > 0);
}

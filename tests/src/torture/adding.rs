//! Kills in the middle of `add`: of the command, or of the node that takes what it sends.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::{Stage, parse};
use crate::random::bytes_of;

/// What an `add` writes in a millisecond, about.
const BYTES_A_MS: u64 = 100_000;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Command,
    Node,
}

impl Stage {
    /// Adds a new file to a store that a node owns, or to one that nobody owns, and kills the
    /// command or the node at some moment of it.
    pub(super) fn kill_add(&mut self) {
        let bound = self.random.weighted(&[(4, 64 << 10), (4, 2 << 20), (2, 24 << 20)]);
        let len = 1 + self.random.below(bound);
        let seed = self.random.below(u64::MAX);
        fs::write(self.machine.path("new"), bytes_of(seed, len as usize)).expect("a file");
        let (data, victim) = self.random.weighted(&[
            (3, ("depot", Victim::Command)),
            (2, ("node", Victim::Command)),
            (2, ("node", Victim::Node)),
        ]);
        let moment = Duration::from_millis(3) + self.up_to_ms(30 + len / BYTES_A_MS);
        let mut command = self.machine.spawn("add", ["add", "--data", data, "new", "--json"]);
        if command.ended_by(Instant::now() + moment).is_none() {
            match victim {
                Victim::Command => command.signal(rustix::process::Signal::KILL),
                Victim::Node => self.end_node(),
            }
        } else if victim == Victim::Node {
            self.end_node();
        }
        let ended = command.end();
        if ended.code.is_none() {
            self.tally.kills += 1;
            self.tally.adds_killed += 1;
        }
        if let Some(id) = acknowledged(&ended.stdout) {
            let id = parse(&id);
            assert_eq!(self.id_of_file("new"), Some(id), "{}", self.seed());
            self.added.entry(data).or_default().insert(id);
            self.tally.acknowledged += 1;
        } else {
            assert_ne!(ended.code, Some(0), "{ended:?}; {}", self.seed());
        }
        if victim == Victim::Node {
            self.start_node();
        } else {
            // A command that was not killed has nothing to complain about.
            assert!(matches!(ended.code, None | Some(0)), "{ended:?}; {}", self.seed());
        }
        self.check_added(data);
    }
}

/// Returns the id that an `add` has printed, if it came to that.
fn acknowledged(stdout: &str) -> Option<String> {
    let line: Value = serde_json::from_str(stdout.lines().next()?).ok()?;
    Some(line.get("content")?.as_str()?.to_owned())
}

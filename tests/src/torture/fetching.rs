//! Kills in the middle of a fetch: of the client, of its node, or of both.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use sutler_protocol::geometry::CHUNK_BYTES_MIN;

use super::stage::{Stage, out_of, parse};
use super::survey::survey;
use crate::running::Ended;

/// Requests that a client has open at a time, at most: the streams of one connection.
const REQUESTS_MAX: u64 = 64;

/// How long a client may take that outlives its node, on a busy machine.
const SURVIVAL_MAX: Duration = Duration::from_secs(90);

/// The least time in which a kill may come: a process has hardly started by then.
const START: Duration = Duration::from_millis(20);

impl Stage {
    /// Fetches an item, and kills the client at some moment of it.
    pub(super) fn kill_client(&mut self) {
        let number = self.next_item();
        let before = self.sent_bytes();
        let mut client = self.machine.spawn("client", self.fetch_of(number));
        let ended = match client.ended_by(Instant::now() + self.moment(number)) {
            Some(_) => client.end(),
            None => client.kill(),
        };
        self.ended(number, &ended, Some(before));
    }

    /// Fetches an item, and kills the node at some moment of it. The client is killed soon
    /// afterwards, or goes on when the node is back.
    pub(super) fn kill_node(&mut self) {
        let number = self.next_item();
        let mut client = self.machine.spawn("client", self.fetch_of(number));
        let in_time = client.ended_by(Instant::now() + self.moment(number)).is_some();
        self.end_node();
        let died = Instant::now();
        if in_time {
            let ended = client.end();
            self.start_node();
            self.ended(number, &ended, None);
        } else if self.random.below(4) > 0 {
            let ended = client.kill();
            self.start_node();
            self.ended(number, &ended, None);
        } else {
            self.start_node();
            let status = client.ended_by(died + SURVIVAL_MAX);
            assert!(status.is_some(), "the client waits for ever; {}", self.seed());
            let ended = client.end();
            self.ended(number, &ended, None);
            self.tally.fetches_survived += 1;
            self.tally.survival_max = self.tally.survival_max.max(died.elapsed());
        }
        self.check_added("node");
    }

    /// Fetches the list, and kills that client at some moment of it.
    pub(super) fn kill_list(&mut self) {
        let arguments = ["fetch", "--list", "list", "--data", "crowd", "--from", &self.address];
        let arguments = arguments.into_iter().chain(["--out-dir", "crowd-out", "--json"]);
        let mut client = self.machine.spawn("crowd-client", arguments);
        let ended = match client.ended_by(Instant::now() + START + self.up_to_ms(600)) {
            Some(_) => client.end(),
            None => client.kill(),
        };
        // The last line is the sum, or was cut.
        for line in ended.stdout.lines() {
            let Ok(report) = serde_json::from_str::<Value>(line) else { continue };
            let (Some(id), Some(name)) = (report["content"].as_str(), report["name"].as_str())
            else {
                continue;
            };
            let file = self.id_of_file(&format!("crowd-out/{name}"));
            assert_eq!(file, Some(parse(id)), "{name} was acknowledged; {}", self.seed());
            self.added.entry("crowd").or_default().insert(parse(id));
            self.tally.acknowledged += 1;
        }
        for (name, id) in &self.listed {
            // A file has its name only when all of it is there.
            let found = self.id_of_file(&format!("crowd-out/{name}"));
            assert!(found.is_none_or(|found| found == *id), "{name}; {}", self.seed());
        }
        self.check_added("crowd");
        match ended.code {
            Some(0) => {
                self.added.remove("crowd");
                for used in ["crowd/store", "crowd-out"] {
                    fs::remove_dir_all(self.machine.path(used)).expect("a folder");
                }
            }
            None => {
                self.tally.kills += 1;
                self.tally.clients_killed += 1;
            }
            Some(_) => panic!("{ended:?}; {}", self.seed()),
        }
    }

    /// Looks at what became of a client that fetched an item: it was killed, or has completed.
    fn ended(&mut self, number: usize, ended: &Ended, sent_before: Option<u64>) {
        let sent = sent_before.map(|before| self.sent_bytes() - before);
        let item = &mut self.items[number];
        item.sent_bytes = match (item.sent_bytes, sent) {
            (Some(earlier), Some(now)) => Some(earlier + now),
            _ => None,
        };
        match ended.code {
            None => {
                self.tally.kills += 1;
                self.tally.clients_killed += 1;
                self.killed(number, &ended.stderr);
            }
            Some(0) => self.completed(number, ended),
            Some(_) => panic!("{ended:?}; {}", self.seed()),
        }
    }

    fn killed(&mut self, number: usize, log: &str) {
        let found = survey(&self.data_file(number), &self.items[number].bytes);
        let seed = self.seed();
        let exported = self.id_of_file(&out_of(number));
        let item = &mut self.items[number];
        assert!(exported.is_none_or(|id| id == item.id), "out has other bytes; {seed}");
        assert!(found.torn_chunks <= REQUESTS_MAX, "{found:?}; {seed}");
        let lost = found.lost(log);
        let is_bounded = lost.len() as u64 <= REQUESTS_MAX && lost.values().all(|of| of.len() <= 1);
        assert!(is_bounded, "{lost:?} of {found:?}; {seed}");
        assert!(found.whole_bytes >= item.kept_bytes, "lost: {found:?}; {seed}");
        (item.kept_bytes, item.was_killed) = (found.whole_bytes, true);
        self.tally.torn_chunks += found.torn_chunks;
        self.tally.torn_chunks_max = self.tally.torn_chunks_max.max(found.torn_chunks);
        let lost = lost.len() as u64;
        self.tally.lost_chunks += lost;
        self.tally.lost_chunks_max = self.tally.lost_chunks_max.max(lost);
    }

    /// Checks what a client said of an item that it has fetched, and the file that it wrote.
    pub(super) fn completed(&mut self, number: usize, ended: &Ended) {
        let seed = self.seed();
        let report: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error} in {ended:?}; {seed}"));
        let exported = self.id_of_file(&out_of(number));
        fs::remove_file(self.machine.path(out_of(number))).expect("the exported file");
        let item = &mut self.items[number];
        let bytes = |kind: &str| report["bytes_by_source"][kind].as_u64().expect("a number");
        assert_eq!(exported, Some(item.id), "{report}; {seed}");
        assert_eq!(report["verified"], true, "{report}; {seed}");
        let len = item.bytes.len() as u64;
        let again = item.kept_bytes.checked_sub(bytes("disk"));
        let again = again.unwrap_or_else(|| panic!("more than was there: {report}; {seed}"));
        // A content of one chunk is one request for one chunk.
        assert!(again == 0 || len <= CHUNK_BYTES_MIN, "{again} again: {report}; {seed}");
        assert_eq!(bytes("disk") + bytes("node"), len, "{report}; {seed}");
        item.is_complete = true;
        self.tally.acknowledged += 1;
        if item.was_killed {
            self.tally.fetches_resumed += 1;
            self.tally.kept_bytes += item.kept_bytes;
            self.tally.again_bytes += again;
            let sent = item.sent_bytes.unwrap_or_default();
            self.tally.sent_again_bytes += sent.saturating_sub(len);
        }
        self.added.entry("agent").or_default().insert(item.id);
    }

    /// Returns an item that the client does not have; a large one more often than a small one.
    fn next_item(&mut self) -> usize {
        let left: Vec<(u64, usize)> = (1..)
            .zip(&self.items)
            .filter(|(_, item)| !item.is_complete)
            .map(|(weight, _)| (weight * weight, weight as usize - 1))
            .collect();
        if left.is_empty() {
            self.empty_client();
            return self.items.len() - 1;
        }
        self.random.weighted(&left)
    }

    /// Returns when to kill, after the start of a fetch of an item.
    fn moment(&mut self, number: usize) -> Duration {
        let item = &self.items[number];
        let missing = 1.0 - item.kept_bytes as f64 / item.bytes.len() as f64;
        let rest = item.took.mul_f64(missing).as_millis() as u64;
        START + self.up_to_ms(rest + 50)
    }

    /// Returns a random duration.
    pub(super) fn up_to_ms(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.random.below(most.max(1) * 1000))
    }
}

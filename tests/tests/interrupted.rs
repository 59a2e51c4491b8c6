//! Commands and nodes that are told to stop, or killed, in the middle of a transfer.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sutler_tests::machine::{Machine, NodeProcess};
use sutler_tests::running::Running;

/// The exit code of `sutler --help` for what was stopped on request.
const INTERRUPTED: i32 = 9;

/// So long that a transfer of it is met in the middle, and short on the slowest disk.
const LEN: usize = 100_000_000;

/// What of a content must be there before a transfer counts as begun.
const BEGUN_BYTES: u64 = 4_000_000;

/// A node with one large content, and an agent that has nothing.
struct Transfer {
    machine: Machine,
    node: NodeProcess,
    id: String,
}

impl Transfer {
    fn new() -> Self {
        let machine = Machine::new();
        // A client notices sooner that its node is dead than with the default.
        fs::write(machine.path("agent/sutler.toml"), "transport.idle_timeout_s = 3\n")
            .expect("a config");
        machine.file("large", LEN, 1);
        let id = machine.add("node", "large");
        let node = machine.node(&[]);
        Self { machine, node, id }
    }

    fn arguments(&self) -> Vec<String> {
        let from = self.node.address.to_string();
        ["fetch", &self.id, "--data", "agent", "--from", &from, "--out", "out", "--json"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Starts the fetch, and returns when the first bytes of it are on the disk.
    fn begun(&self) -> Running {
        let mut fetch = self.machine.spawn("fetch", self.arguments());
        let data = format!("agent/store/contents/{}/{}.data", &self.id[..2], self.id);
        let data = self.machine.path(data);
        let until = Instant::now() + Duration::from_mins(1);
        while written(&data) < BEGUN_BYTES {
            assert!(Instant::now() < until, "nothing arrives");
            if fetch.ended_by(Instant::now() + Duration::from_millis(1)).is_some() {
                break;
            }
        }
        fetch
    }

    /// Fetches to the end, and returns what came from the own disk.
    fn resumed(&self) -> u64 {
        let report = self.machine.ok(self.arguments());
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["verified"], true);
        let there = fs::read(self.machine.path("large")).expect("a file");
        assert!(there == fs::read(self.machine.path("out")).expect("a file"));
        report["bytes_by_source"]["disk"].as_u64().expect("a number")
    }
}

/// Returns how many bytes of a file take room on the disk.
fn written(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

// R34
#[test]
fn a_fetch_that_is_stopped_or_killed_goes_on_where_it_ended() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let transfer = Transfer::new();
        let fetch = transfer.begun();
        fetch.signal(signal);
        let ended = fetch.end();
        match ended.code {
            // It was quicker than the signal.
            Some(0) => continue,
            None => assert_eq!(signal, Signal::KILL, "{ended:?}"),
            Some(code) => {
                assert_eq!(code, INTERRUPTED, "{ended:?}");
                assert!(ended.stderr.contains("error: interrupted"), "{ended:?}");
                assert!(ended.stderr.contains("run the same command again"), "{ended:?}");
            }
        }
        assert!(!transfer.machine.path("out").exists(), "half a file has no name");
        assert!(transfer.resumed() >= BEGUN_BYTES / 2);
    }
}

#[test]
fn a_node_that_is_told_to_stop_finishes_what_is_open_or_says_goodbye() {
    for signal in ["TERM", "INT"] {
        let transfer = Transfer::new();
        let fetch = transfer.begun();
        let Transfer { machine, node, id } = transfer;
        let (started, address) = (Instant::now(), node.address.to_string());
        assert_eq!(node.end(signal).code(), Some(0), "SIG{signal}");
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
        // The client waits for it for a while, and finds it again.
        let node = machine.node_listening(&address, "node", &[]);
        let ended = fetch.end();
        if ended.code != Some(0) {
            assert!(ended.stderr.starts_with("error: "), "{ended:?}");
        }
        let transfer = Transfer { machine, node, id };
        transfer.resumed();
    }
}

// R34
#[test]
fn a_client_outlives_the_death_of_its_node() {
    let transfer = Transfer::new();
    let fetch = transfer.begun();
    let Transfer { machine, node, id } = transfer;
    let address = node.address.to_string();
    node.end("KILL");
    let node = machine.node_listening(&address, "node", &[]);
    let ended = fetch.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let transfer = Transfer { machine, node, id };
    assert_eq!(transfer.resumed(), LEN as u64);
}

#[test]
fn an_add_that_is_stopped_leaves_nothing_half_done() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let machine = Machine::new();
        machine.file("large", LEN, 1);
        let add = machine.spawn("add", ["add", "--data", "node", "--how", "copy", "large"]);
        add.signal(signal);
        let ended = add.end();
        assert_ne!(ended.code, Some(1), "{ended:?}");
        machine.add("node", "large");
        machine.ok(["store", "verify", "--data", "node"]);
    }
}

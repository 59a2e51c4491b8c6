//! The machines, the contents, and what is known to be acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use sutler_protocol::ContentId;

use super::{Plan, Tally};
use crate::machine::{Machine, NodeProcess};
use crate::random::{Random, bytes_of};
use crate::running::Ended;

/// Small contents, which are fetched as a list.
const SMALL: u64 = 150;

/// A content that is fetched by itself.
pub(super) struct Item {
    pub(super) id: ContentId,
    pub(super) bytes: Vec<u8>,
    /// What fetching all of it took when nobody was killed.
    pub(super) took: Duration,
    /// What of it lay whole in the client's data file at the last look.
    pub(super) kept_bytes: u64,
    /// What the node sent of it since the client had nothing, while that is known.
    pub(super) sent_bytes: Option<u64>,
    /// Whether a client was killed while it fetched it.
    pub(super) was_killed: bool,
    pub(super) is_complete: bool,
}

/// Everything that is killed, and everything that is checked.
pub(super) struct Stage {
    pub(super) machine: Machine,
    pub(super) random: Random,
    pub(super) items: Vec<Item>,
    /// The names in the list, and what each must be.
    pub(super) listed: BTreeMap<String, ContentId>,
    /// What was acknowledged and must be there, by data folder.
    pub(super) added: BTreeMap<&'static str, BTreeSet<ContentId>>,
    pub(super) tally: Tally,
    node: Option<NodeProcess>,
    pub(super) address: String,
    seed: u64,
}

impl Stage {
    /// Makes the machines and the contents, starts the node, and fetches each once undisturbed.
    pub(super) fn set(plan: Plan) -> Self {
        let machine = Machine::new();
        for data in ["crowd", "fresh"] {
            let out = format!("{data}/identity");
            let role = ["--site", "here", "--role", "agent", "--out", &out];
            machine.ok(["org", "issue", "ca"].into_iter().chain(role));
        }
        // A small disk is not what is tested here, nor how long a client waits for a dead node.
        let config = "store.free_bytes_min = 0\ntransport.idle_timeout_s = 3\n";
        for data in ["node", "agent", "crowd", "depot", "fresh"] {
            fs::create_dir_all(machine.path(data)).expect("a folder");
            fs::write(machine.path(data).join("sutler.toml"), config).expect("a config");
        }
        let mut stage = Self {
            machine,
            random: Random::of(plan.seed),
            items: Vec::new(),
            listed: BTreeMap::new(),
            added: BTreeMap::new(),
            tally: Tally::default(),
            node: None,
            address: "127.0.0.1:0".to_owned(),
            seed: plan.seed,
        };
        let sizes = [1, 65_536, 65_537, 1 << 20, 5_000_001, plan.bytes_max / 5, plan.bytes_max];
        for (number, size) in (0..).zip(sizes.into_iter().filter(|size| *size <= plan.bytes_max)) {
            stage.make_item(number, size);
        }
        stage.make_list();
        stage.start_node();
        stage.rehearse();
        stage
    }

    fn make_item(&mut self, number: u64, size: usize) {
        let bytes = bytes_of(self.seed ^ (number << 32), size);
        fs::write(self.machine.path("item"), &bytes).expect("a file");
        let id = parse(&self.machine.add("node", "item"));
        self.added.entry("node").or_default().insert(id);
        self.items.push(Item {
            id,
            bytes,
            took: Duration::ZERO,
            kept_bytes: 0,
            sent_bytes: Some(0),
            was_killed: false,
            is_complete: false,
        });
    }

    fn make_list(&mut self) {
        let mut list = String::new();
        for number in 0..SMALL {
            let name = format!("small-{number}");
            let len = 1 + self.random.below(64 * 1024) as usize;
            let bytes = bytes_of(self.seed ^ (number << 48), len);
            fs::write(self.machine.path(&name), &bytes).expect("a file");
            let id = ContentId::from_bytes(*blake3::hash(&bytes).as_bytes());
            list += &line(id, &name);
            self.listed.insert(name, id);
            self.added.entry("node").or_default().insert(id);
        }
        fs::write(self.machine.path("list"), list).expect("a list");
        let names = self.listed.keys().map(String::as_str);
        self.machine.ok(["add", "--data", "node"].into_iter().chain(names));
    }

    fn rehearse(&mut self) {
        for number in 0..self.items.len() {
            let started = Instant::now();
            let ended = Ended::of(&mut self.machine.command(self.fetch_of(number)));
            self.items[number].took = started.elapsed();
            self.completed(number, &ended);
        }
        self.empty_client();
    }

    /// Returns the arguments that fetch an item.
    pub(super) fn fetch_of(&self, number: usize) -> Vec<String> {
        let (id, out) = (self.items[number].id.to_string(), out_of(number));
        // Its log says of each chunk when the first byte of it came.
        let log = "warn,sutler_swarm::fetch::receive=trace";
        [
            "--log",
            log,
            "fetch",
            &id,
            "--data",
            "agent",
            "--from",
            &self.address,
            "--out",
            &out,
            "--json",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Lets the client begin anew, after a look at what it had.
    pub(super) fn empty_client(&mut self) {
        self.check_added("agent");
        self.added.remove("agent");
        fs::remove_dir_all(self.machine.path("agent/store")).expect("the client's store");
        for item in &mut self.items {
            (item.kept_bytes, item.sent_bytes) = (0, Some(0));
            (item.was_killed, item.is_complete) = (false, false);
        }
    }

    /// Starts the node where it was before.
    pub(super) fn start_node(&mut self) {
        let node = self.machine.node_listening(&self.address, "node", &[]);
        self.address = node.address.to_string();
        self.node = Some(node);
    }

    /// Kills the node.
    pub(super) fn end_node(&mut self) {
        if let Some(node) = self.node.take() {
            node.end("KILL");
            self.tally.kills += 1;
            self.tally.nodes_killed += 1;
        }
        // Nobody knows any more what it had sent.
        for item in &mut self.items {
            item.sent_bytes = None;
        }
    }

    /// Returns how many bytes the node has sent since it started.
    pub(super) fn sent_bytes(&self) -> u64 {
        let status = self.machine.json(["status", "--data", "node"]);
        status["service"]["bytes_served"].as_u64().expect("a number")
    }

    /// Checks that what was acknowledged in a data folder is there.
    pub(super) fn check_added(&self, data: &str) {
        let Some(added) = self.added.get(data) else { return };
        let rows = self.machine.ok(["store", "ls", "--data", data, "--json"]);
        let mut complete = BTreeSet::new();
        for row in rows.lines() {
            let row: Value = serde_json::from_str(row).expect("a row");
            if row["complete"] == true {
                complete.insert(parse(row["content"].as_str().expect("an id")));
            }
        }
        let lost: Vec<&ContentId> = added.difference(&complete).collect();
        assert!(lost.is_empty(), "{data} has lost {lost:?}; {}", self.seed());
    }

    /// Reads every byte of every store, and brings everything that the node ever acknowledged to a
    /// fresh client.
    pub(super) fn check_everything(&mut self) {
        for data in ["node", "agent", "crowd", "depot"] {
            self.check_added(data);
            if self.machine.path(data).join("store").exists() {
                let found = self.machine.json(["store", "verify", "--data", data]);
                assert_eq!(found["damaged"], serde_json::json!([]), "{data}; {}", self.seed());
            }
        }
        let wanted = &self.added["node"];
        let list: Vec<String> = wanted.iter().map(|id| line(*id, &id.to_string())).collect();
        fs::write(self.machine.path("list"), list.concat()).expect("a list");
        let from = self.address.as_str();
        let fetch = ["fetch", "--list", "list", "--data", "fresh", "--from", from];
        self.machine.ok(fetch.into_iter().chain(["--out-dir", "all"]));
        for id in wanted {
            assert_eq!(self.id_of_file(&format!("all/{id}")), Some(*id), "{}", self.seed());
        }
        let ended = self.node.take().expect("a node").end("TERM");
        assert!(ended.success(), "{ended}");
    }

    /// Returns the content id of what a file has.
    pub(super) fn id_of_file(&self, name: &str) -> Option<ContentId> {
        let bytes = fs::read(self.machine.path(name)).ok()?;
        Some(ContentId::from_bytes(*blake3::hash(&bytes).as_bytes()))
    }

    /// Returns where the client keeps the bytes of an item.
    pub(super) fn data_file(&self, number: usize) -> PathBuf {
        let id = self.items[number].id.to_string();
        self.machine.path(format!("agent/store/contents/{}/{id}.data", &id[..2]))
    }

    /// Says how to do it again.
    pub(super) fn seed(&self) -> String {
        format!("seed {}, {} kills", self.seed, self.tally.kills)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("everything is left as it was, in {}", self.machine.keep().display());
        }
    }
}

/// Returns a line of a list.
fn line(id: ContentId, name: &str) -> String {
    format!("{id}  {name}\n")
}

/// Returns the file that an item is written to.
pub(super) fn out_of(number: usize) -> String {
    format!("out-{number}")
}

/// Reads the content id that a command printed.
pub(super) fn parse(id: &str) -> ContentId {
    id.parse().expect("a content id")
}

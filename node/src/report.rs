//! What commands report, in the words of their JSON output.
//!
//! The same records cross the local socket and are printed by `--json`, so a script sees one shape
//! whether the command opened the store itself or asked the process that owns it. Ids are text
//! here. Fields are added, never renamed or given another meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One content of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRow {
    /// The content id, 64 hex digits.
    pub content: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// How many of them are had and verified, in bytes.
    pub bytes_had: u64,
    /// Whether all are had, checked and durable.
    pub complete: bool,
    /// The file name it was given, if any.
    pub name: Option<String>,
    /// The vendor's digest, as `sha256:` and 64 hex digits, if known.
    pub sha256: Option<String>,
    /// Where a vendor serves it.
    pub origins: Vec<String>,
    /// Whether peers may have it; if not, the proxy holds it for its own clients.
    #[serde(default = "yes")]
    pub offered: bool,
}

/// What a row of an older program means.
const fn yes() -> bool {
    true
}

/// A content that `add` put into a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The content id, 64 hex digits.
    pub content: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// The file name it was given, if any.
    pub name: Option<String>,
    /// Whether the store had all of it before.
    pub existed: bool,
}

/// What kind of source bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// This machine's own store had them already.
    Disk,
    /// Another agent.
    Peer,
    /// A site node.
    Node,
    /// The vendor's server, or a mirror of it.
    Vendor,
}

/// The bytes that one source gave to one fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBytes {
    /// What it is.
    pub kind: SourceKind,
    /// `ADDR:PORT` or URL; absent for the own disk.
    pub address: Option<String>,
    /// Content bytes that verified, in bytes.
    pub bytes: u64,
}

/// A source that was given up, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDropped {
    /// `ADDR:PORT` or URL.
    pub address: String,
    /// The reason, with its causes.
    pub reason: String,
}

/// A content that `fetch` brought; the object that `fetch --json` ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The content id, 64 hex digits.
    pub content: String,
    /// The vendor digest it was asked by, if it was.
    pub sha256: Option<String>,
    /// The file name that goes with it, if known.
    pub name: Option<String>,
    /// Its length, in bytes.
    pub bytes: u64,
    /// From the request to the content being complete, in milliseconds.
    pub elapsed_ms: u64,
    /// Bytes by kind of source. All four kinds are always there.
    pub bytes_by_source: BTreeMap<SourceKind, u64>,
    /// The same, by each source.
    pub sources: Vec<SourceBytes>,
    /// Sources that were given up on the way.
    pub dropped: Vec<SourceDropped>,
    /// Bytes that had to be fetched more than once.
    pub bytes_again: u64,
    /// Whether every chunk agreed with the content id. Nothing is exported otherwise.
    pub verified: bool,
}

/// How far a fetch or a fill has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is fetched: an id, a vendor digest or a URL.
    pub subject: String,
    /// Bytes had and verified.
    pub bytes_had: u64,
    /// Bytes in all, once known.
    pub bytes: Option<u64>,
}

/// A chunk that `store verify` found to be wrong, and took out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The content id, 64 hex digits.
    pub content: String,
    /// Positions of the chunks, counted from 0; empty if the content as a whole is unreadable.
    pub chunks: Vec<u32>,
    /// What was wrong, where it was not the bytes.
    pub reason: Option<String>,
}

/// What `store verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Contents read through.
    pub contents: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What was wrong. Those chunks are no longer had, and will be fetched again when asked for.
    pub damaged: Vec<Damage>,
}

/// What `store gc` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Contents whose bytes were removed.
    pub contents: u64,
    /// Bytes freed.
    pub bytes: u64,
    /// Bytes that the store holds now.
    pub bytes_left: u64,
    /// Bytes by which that is too many, because the rest is pinned or in use.
    pub bytes_excess: u64,
}

/// What `store move` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where the store lies now.
    pub to: String,
    /// Files that have moved.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What `store rebuild-index` found in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Contents in the index now.
    pub contents: u64,
}

/// A content as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// The content id, 64 hex digits.
    pub content: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Bytes in each chunk but the last.
    pub chunk_bytes: u64,
    /// Number of chunks.
    pub chunks: u32,
    /// Runs of chunks that are had, each as first and last position.
    pub had: Vec<(u32, u32)>,
    /// Whether all are had, checked and durable.
    pub complete: bool,
    /// The file name it was given, if any.
    pub name: Option<String>,
    /// SHA-256, as `sha256:` and 64 hex digits, where known.
    pub sha256: Option<String>,
    /// Where a vendor serves it.
    pub origins: Vec<String>,
    /// The chaining value of each chunk, 64 hex digits each.
    pub hashes: Vec<String>,
}

impl Fetched {
    /// Sums `sources` by their kind; all four kinds are there.
    pub fn sum_by_kind(sources: &[SourceBytes]) -> BTreeMap<SourceKind, u64> {
        let mut sums = BTreeMap::from([
            (SourceKind::Disk, 0),
            (SourceKind::Peer, 0),
            (SourceKind::Node, 0),
            (SourceKind::Vendor, 0),
        ]);
        for source in sources {
            *sums.entry(source.kind).or_default() += source.bytes;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D6
    #[test]
    fn all_four_kinds_of_source_are_reported_even_when_unused() {
        let from_node =
            SourceBytes { kind: SourceKind::Node, address: Some("[::1]:7".to_owned()), bytes: 5 };
        let sums = Fetched::sum_by_kind(&[from_node.clone(), from_node]);
        let json = serde_json::to_string(&sums).expect("plain numbers");
        assert_eq!(json, r#"{"disk":0,"peer":0,"node":10,"vendor":0}"#);
    }
}

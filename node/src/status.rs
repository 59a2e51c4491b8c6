//! What a node or agent says of itself: to `sutler status`, and as the base of its metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::SourceKind;

/// The state of one store and of the process that owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The data folder.
    pub data: String,
    /// The store's contents and room.
    pub store: StoreStatus,
    /// The process that serves it. Absent if the command opened the store itself.
    pub service: Option<ServiceStatus>,
}

/// What a store holds, and what it may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Contents known, complete or not.
    pub contents: u64,
    /// Contents that are complete.
    pub contents_complete: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that may be held. Absent: as many as the disk takes.
    pub bytes_max: Option<u64>,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Bytes that stay free on the disk.
    pub free_bytes_min: u64,
}

/// What the process that owns the store is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its name, as the certificate says it.
    pub identity: Option<String>,
    /// Where it serves, `ADDR:PORT`.
    pub listen: Vec<String>,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Connections open now.
    pub connections: u64,
    /// Content bytes sent since it started.
    pub bytes_served: u64,
    /// Content bytes received since it started, by kind of source.
    pub bytes_by_source: BTreeMap<SourceKind, u64>,
    /// The caching proxy, if it is on.
    #[serde(default)]
    pub proxy: Option<ProxyStatus>,
    /// The orders that it passes on, if it follows any.
    #[serde(default)]
    pub orders: Option<OrdersStatus>,
    /// Published contents that control had lost and has back from nodes, since it started.
    #[serde(default)]
    pub contents_returned: u64,
    /// Published contents of which control lacks what it once had, as far as it looks for them.
    #[serde(default)]
    pub contents_lacking: u64,
    /// What expires, as far as it knows: its certificate, and roles of the manifest.
    #[serde(default)]
    pub expiring: Vec<ExpiryStatus>,
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryStatus {
    /// What: a role's name, or `certificate`.
    pub what: String,
    /// When.
    pub expires: String,
    /// Whole days until then; negative if it has.
    pub left_days: i64,
    /// How urgent that is, such as `within 30 days`; empty if it is not.
    pub warning: String,
}

/// What a relay of orders believes, and what waits at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersStatus {
    /// The version of control's newest timestamp. Absent: none was believed yet.
    pub version: Option<u64>,
    /// When control signed it, as it says.
    pub issued: Option<String>,
    /// When it expires.
    pub expires: Option<String>,
    /// Roles of the manifest that are not believed.
    pub refused_roles: Vec<String>,
    /// Denials that travel by themselves and are held.
    pub denials: u64,
    /// Reports that wait for somebody further up.
    pub reports_waiting: u64,
}

/// What the caching proxy has done since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where it listens, as a URL.
    pub url: String,
    /// Requests received.
    pub requests: u64,
    /// Those answered with what was held.
    pub hits: u64,
    /// Those answered with what was held though its origin was in trouble.
    pub stale: u64,
    /// Those refused, of clients that ask for what they may not have.
    pub refused: u64,
    /// Tunnels opened.
    pub tunnels: u64,
    /// Bytes sent to clients that were on the disk already.
    pub bytes_from_disk: u64,
    /// Bytes sent to clients while they came from elsewhere.
    pub bytes_passed: u64,
    /// What became of requests, by host of the origin.
    pub origins: BTreeMap<String, OriginStatus>,
    /// The suites that clients follow.
    pub feeds: Vec<FeedStatus>,
}

/// What became of requests for files of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginStatus {
    /// Requests for its files.
    pub requests: u64,
    /// Those answered with what was held.
    pub hits: u64,
    /// Bytes that came from it.
    pub bytes_from_vendor: u64,
    /// Bytes of its files that came from other nodes.
    pub bytes_from_nodes: u64,
}

/// A suite that clients follow, and whether it vouches for what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// The folder of its Release.
    pub url: String,
    /// `verified`, or in one word why it vouches for nothing, such as `expired-index`.
    pub state: String,
    /// The same in a sentence.
    pub detail: Option<String>,
    /// Whose it is, as a verified Release says it.
    pub owner: Option<String>,
    /// Which suite it is, as a verified Release says it.
    pub suite: Option<String>,
    /// When it was last found to be the newest, in seconds since 1970.
    pub checked_at: u64,
    /// How long ago that was, in seconds.
    pub age_seconds: u64,
    /// Until when it is valid, in seconds since 1970, if it says so.
    pub valid_until: Option<u64>,
    /// Packages that it vouches for, as far as their indexes were read.
    pub packages: u64,
    /// Its indexes that vouch for nothing, each with the reason in one word.
    pub unread: BTreeMap<String, String>,
}

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
}

//! What a fetch did: how far it is, and where the bytes came from.

use std::time::Duration;

use sutler_protocol::ContentId;
use sutler_protocol::fetch::SourceReport;

/// What kind of source bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// An agent.
    Peer,
    /// A site's node.
    Node,
    /// A vendor's server.
    Vendor,
}

/// What one source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceShare {
    /// What it is.
    pub kind: SourceKind,
    /// Its address or URL.
    pub address: String,
    /// Bytes that were verified and new.
    pub bytes: u64,
    /// Bytes that were of no use: they did not verify, or were had already.
    pub wasted_bytes: u64,
    /// Measured goodput in bytes a second, where enough came to tell.
    pub bytes_per_second: Option<u64>,
    /// Why it was left; `None` if it was not.
    pub left: Option<String>,
}

/// What a finished fetch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchReport {
    /// Which content.
    pub content: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// How long the fetch took.
    pub elapsed: Duration,
    /// Bytes that were on the disk already.
    pub disk_bytes: u64,
    /// What each source gave.
    pub sources: Vec<SourceShare>,
}

/// How far a fetch is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes had and verified; while a node still fetches, the bytes that it has.
    pub have_bytes: u64,
    /// Bytes in all, once known.
    pub len: Option<u64>,
    /// Whether a node is still fetching from the vendor.
    pub is_upstream: bool,
    /// Bytes that came from each source.
    pub sources: Vec<(String, u64)>,
}

impl FetchReport {
    pub(super) fn new(content: ContentId) -> Self {
        Self { content, len: 0, elapsed: Duration::ZERO, disk_bytes: 0, sources: Vec::new() }
    }

    /// Returns the bytes that came twice or were of no use.
    pub fn wasted_bytes(&self) -> u64 {
        self.sources.iter().map(|share| share.wasted_bytes).sum()
    }

    /// Returns the bytes that came from sources of a kind.
    pub fn bytes_from(&self, kind: SourceKind) -> u64 {
        self.sources.iter().filter(|share| share.kind == kind).map(|share| share.bytes).sum()
    }

    /// Adds what a source gave to what it gave before.
    pub(super) fn add(&mut self, kind: SourceKind, address: String, gave: SourceReport) {
        let left = gave.left.map(|reason| reason.to_string());
        match self.sources.iter_mut().find(|share| share.address == address) {
            Some(share) => {
                share.bytes += gave.good_bytes;
                share.wasted_bytes += gave.wasted_bytes;
                share.bytes_per_second = gave.bytes_per_second.or(share.bytes_per_second);
                // What it was left for once stays said, even if it did nothing after that.
                share.left = left.or(share.left.take());
            }
            None => self.sources.push(SourceShare {
                kind,
                address,
                bytes: gave.good_bytes,
                wasted_bytes: gave.wasted_bytes,
                bytes_per_second: gave.bytes_per_second,
                left,
            }),
        }
    }

    /// Takes note that all that came was for nothing.
    pub(super) fn begin_again(&mut self) {
        self.disk_bytes = 0;
        for share in &mut self.sources {
            share.wasted_bytes += std::mem::take(&mut share.bytes);
        }
    }

    pub(super) fn finish(&mut self, len: u64, elapsed: Duration) {
        self.len = len;
        self.elapsed = elapsed;
        let fetched: u64 = self.sources.iter().map(|share| share.bytes).sum();
        self.disk_bytes = len.saturating_sub(fetched);
    }
}

impl Progress {
    /// Takes note of how far a node is.
    pub(super) fn upstream(&mut self, have: u64, len: Option<u64>) {
        self.have_bytes = have;
        self.len = len;
        self.is_upstream = true;
    }
}

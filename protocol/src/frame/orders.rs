//! What peers say to each other about orders: documents, news of them, denials and reports.
//!
//! None of it is believed because of who sent it: documents and denials carry signatures of those who give
//! orders, reports one of the device. So they go through any number of hands, and these frames are the
//! same between an agent and its node, a node and control, and two agents.

use serde::{Deserialize, Serialize};

/// Bytes of a document's place, at most: a folder, a digest of 128 digits, and a name of a role or file
/// that a disk still takes, percent-encoded.
pub const PLACE_BYTES_MAX: usize = 1024;

/// Bytes of a document or target file of the manifest, at most: the largest role there is.
pub const DOCUMENT_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// Bytes of a denial that travels by itself, at most: one scope, one content, a reason and a signature.
pub const DENIAL_BYTES_MAX: usize = 16 * 1024;

/// Bytes of one device's report, at most: 10,000 contents with a state and a reason each.
pub const REPORT_BYTES_MAX: u32 = 1024 * 1024;

/// The body of [`Request::Document`](super::Request::Document).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRequest {
    /// Where it lies in a repository, with `metadata/` or `targets/` in front; at most
    /// [`PLACE_BYTES_MAX`] bytes.
    pub place: String,
    /// The most bytes that the asker reads; a longer document is cut there.
    pub bytes_max: u32,
}

/// Something that a watcher did not know yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// There is this `timestamp.json`, of at most
    /// [`TIMESTAMP_BYTES_MAX`](crate::manifest::bounds::TIMESTAMP_BYTES_MAX) bytes. A hint: whoever hears it
    /// verifies it, and fetches what it lacks from wherever it likes.
    Timestamp(Vec<u8>),
    /// Somebody denies a content: at most [`DENIAL_BYTES_MAX`] bytes, signed by an approver.
    Denial(Vec<u8>),
}

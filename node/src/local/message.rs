//! What goes over the local socket: one [`Request`], then [`Reply`]s until the one that ends it.
//!
//! Raw bytes follow [`Request::Add`] (as many as it says) and [`Reply::Fetched`] (as many as its
//! report says). Both ends are of the same installation; a command of another version is told so.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::report::{
    Added, Collected, ContentRow, Fetched, Inspected, Progress, Rebuilt, Verified,
};
use crate::status::Status;

/// The version of these messages. Both ends must agree.
pub const VERSION: u32 = 1;

/// A request, and the version it is written in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`] of the command.
    pub version: u32,
    /// Decoded only after `version` was found to be ours.
    pub request: serde_json::Value,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Take the bytes that follow.
    Add(AddFile),
    /// Download this.
    AddUrl(AddUrl),
    /// Bring a content and stream it back.
    Fetch(FetchRequest),
    /// Every content, as rows.
    List,
    /// Check every byte.
    Verify,
    /// Remove what is not needed.
    Gc {
        /// Bytes to hold at most afterwards; the quota if absent.
        bytes_max: Option<u64>,
    },
    /// Make the index anew.
    RebuildIndex,
    /// Show one content.
    Inspect {
        /// 64 hex digits.
        content: String,
    },
    /// Say how things are.
    Status,
}

/// A file of the user's, whose bytes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddFile {
    /// The file's name, without folders.
    pub name: Option<String>,
    /// Its length, in bytes.
    pub bytes: u64,
    /// The SHA-256 that it must have, `sha256:` and 64 hex digits or the digits alone.
    pub sha256: Option<String>,
}

/// A URL to download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUrl {
    /// `http` or `https`.
    pub url: String,
    /// The SHA-256 that it must have.
    pub sha256: Option<String>,
}

/// A content to bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// A content id, or `sha256:` and a vendor digest.
    pub name: String,
    /// Where the vendor serves it; needed for a vendor digest that the sources do not know yet.
    pub urls: Vec<String>,
    /// The sources: `HOST:PORT` of nodes and agents, or URLs of origins.
    pub sources: Vec<String>,
    /// What the vendor calls the file, where that is known.
    pub file_name: Option<String>,
    /// Whether the bytes are streamed back, or stay in the store.
    pub stream: bool,
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// Not the end: how far it has come.
    Progress(Progress),
    /// Not the end: one content of the list.
    Row(ContentRow),
    /// The end of [`Request::Add`] and [`Request::AddUrl`].
    Added(Added),
    /// The end of [`Request::Fetch`]; the bytes follow where they were asked for.
    Fetched(Fetched),
    /// The end of [`Request::List`].
    Listed,
    /// The end of [`Request::Verify`].
    Verified(Verified),
    /// The end of [`Request::Gc`].
    Collected(Collected),
    /// The end of [`Request::RebuildIndex`].
    Rebuilt(Rebuilt),
    /// The end of [`Request::Inspect`].
    Inspected(Inspected),
    /// The end of [`Request::Status`].
    Status(Box<Status>),
    /// The end of any request: it failed.
    Failed(Failure),
}

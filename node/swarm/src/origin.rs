//! HTTP and HTTPS origins as sources: the vendor's servers and their mirrors.
//!
//! An [`Origins`] is made of the `[origin]` part of a config and asked for bytes of files by URL.
//! It decides where we may go at all (`allow`, `address`), gets there (`dial`, `proxy`), judges
//! each reply before its body (`reply`), and delivers exactly the bytes that were asked for
//! (`body`), neither too slowly nor for ever (`pace`). What is held already is only asked after
//! (`refresh`), and what is none of our business passes through (`tunnel`). What those bytes are worth it does not know:
//! the caller checks them against hash list or digest, and until then they are an origin's claim.
//!
//! An origin that asks for a pause gets it from all of us (`pause`). Absent: retries and the choice
//! between origins are the caller's; see [`OriginError::is_final`] and [`OriginError::retry_after`].

use url::Url;

pub mod address;
pub mod allow;
mod body;
mod client;
pub mod config;
mod dial;
pub mod error;
mod pace;
mod pause;
mod proxy;
pub mod reply;
pub mod tunnel;
mod validators;

pub use allow::{Reach, Refused};
pub use body::OriginBody;
pub use client::{Origins, REDIRECTS_MAX, Refreshed};
pub use config::{AllowEntry, OriginConfig};
pub use dial::SystemResolver;
pub use error::{Blame, OriginConfigError, OriginError};
pub use proxy::ProxyEnvironment;
pub use reply::ReplyFault;
/// How names become addresses, for who brings a resolver of his own.
pub use reqwest::dns::{Addrs, Name, Resolve, Resolving};
pub use tunnel::TunnelError;
pub use validators::Validators;

/// What an origin says about a file. A claim, like its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginFile {
    /// Version and length, to be recorded and given to the next read.
    pub validators: Validators,
    /// Whether the origin answered a range with a range.
    pub ranges: bool,
    /// Where the redirects ended.
    pub final_url: Url,
    /// What the origin says that the bytes are, as received.
    pub content_type: Option<String>,
    /// What the origin says about keeping them, as received.
    pub cache_control: Option<String>,
}

impl OriginFile {
    /// Returns a file of which nothing more is known.
    pub(crate) fn at(final_url: Url, validators: Validators, ranges: bool) -> Self {
        Self { validators, ranges, final_url, content_type: None, cache_control: None }
    }

    /// Returns the length of the whole file in bytes, where the origin says it.
    pub fn len(&self) -> Option<u64> {
        self.validators.len
    }

    /// Returns whether the origin says that the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

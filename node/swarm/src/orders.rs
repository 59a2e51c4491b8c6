//! Orders from machine to machine: what one passes on of the manifest, and what it takes in.
//!
//! A server is given one [`Orders`] and answers requests for documents, watches, denials and reports
//! from it, from the [`Board`] of what this machine believes. A
//! [`Follower`] keeps that up to date from others, an [`Outbox`] hands reports on.
//!
//! | Question | Room |
//! |---|---|
//! | What does a server answer from? | [`Orders`], here |
//! | What does a machine have of the orders? | [`Board`] |
//! | What does it believe? | [`Believer`] |
//! | How does it keep up with others? | [`Follower`] |
//! | How is a manifest made whole? | [`manifest`] |
//! | Where do documents lie that it passes on? | [`Mirror`] |
//! | How do reports travel? | [`Outbox`] |

mod believe;
mod board;
mod follow;
pub mod manifest;
mod mirror;
mod outbox;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sutler_protocol::frame::{PLACE_BYTES_MAX, Refusal, detail};
use tokio::sync::watch;

pub use self::believe::{Believer, FollowError, RefreshError, TRUST_FOLDER};
pub use self::board::{Board, DenyError, Reports};
pub use self::follow::{Follower, POLL_EVERY, SOURCES_MAX};
pub use self::manifest::{Manifest, Statement, UpdateError};
pub use self::mirror::Mirror;
pub use self::outbox::Outbox;
use crate::gateway::{causes, store_failed};
use crate::identity::PeerName;

/// Denials that travel by themselves and are held at a time: each stays until the approvals say the same,
/// and more than that in between is a flood.
pub const DENIALS_MAX: usize = 1_024;

/// What a machine has of the orders, and does with what others bring.
///
/// All methods may wait for the disk, and are called where that is allowed.
pub trait Orders: Send + Sync + 'static {
    /// Returns a document by its place, `metadata/…` or `targets/…`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The disk's; the asker is told to go elsewhere.
    fn document(&self, place: &Place) -> io::Result<Option<Bytes>>;

    /// Returns what watchers are told.
    fn news(&self) -> watch::Receiver<Arc<Latest>>;

    /// Keeps a denial that `from` passed on, once it is verified. One that is known already is taken.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    fn take_denial(&self, from: &PeerName, denial: Bytes) -> Result<(), NotTaken>;

    /// Keeps a device's report that `from` handed over.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    fn take_report(&self, from: &PeerName, report: Bytes) -> Result<(), NotTaken>;
}

/// What is newest. Denials are only ever added, at the end, until a timestamp says what they said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latest {
    /// The newest `timestamp.json`, if there is any.
    pub timestamp: Option<Bytes>,
    /// Denials that travel by themselves, at most [`DENIALS_MAX`].
    pub denials: Vec<Bytes>,
}

/// Where a document lies in a repository: `metadata/` or `targets/` and one or more names, each without a
/// slash, none hidden and none that climbs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Box<str>);

/// Why something was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It is not believed, or old: the other side should not bring it again.
    #[error("refuse what was handed over")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This machine does not take such things at all.
    #[error("this machine takes none")]
    Unwanted,
    /// As many as can be kept are here already; later there may be room.
    #[error("as many as can be kept are here already")]
    Full,
    /// The disk refused.
    #[error("keep what was handed over")]
    Disk(#[source] io::Error),
}

/// How long a peer waits with what found no room, in milliseconds.
const FULL_RETRY_MS: u32 = 10_000;

impl Place {
    /// Reads a place, or returns `None` if there can be no document there.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("metadata/").or_else(|| text.strip_prefix("targets/"))?;
        // Quoted for a URL, so that no character has a meaning for a disk but the slash and the dot.
        let is_name = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain)
        };
        let fits = text.len() <= PLACE_BYTES_MAX && rest.split('/').all(is_name);
        fits.then(|| Self(text.into()))
    }

    /// Returns the place as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<NotTaken> for Refusal {
    fn from(error: NotTaken) -> Self {
        match &error {
            NotTaken::Refused(cause) => Self::NotTaken { detail: detail(&causes(cause.as_ref())) },
            NotTaken::Unwanted => Self::Absent,
            NotTaken::Full => Self::Busy { retry_ms: FULL_RETRY_MS },
            NotTaken::Disk(source) => store_failed(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T14
    #[test]
    fn a_place_stays_in_its_repository() {
        for text in [
            "metadata/timestamp.json",
            "metadata/3.approvals-qa.json",
            "targets/content/2026-11/ab/cd.bash_5.2-1%20x+b1~1_amd64.deb",
        ] {
            assert_eq!(
                Place::parse(text).map(|place| place.as_str().to_owned()).as_deref(),
                Some(text)
            );
        }
        let long = format!("metadata/{}", "x".repeat(PLACE_BYTES_MAX));
        for text in [
            "",
            "metadata",
            "metadata/",
            "/metadata/x",
            "online/snapshot.key",
            "metadata/../online/snapshot.key",
            "metadata//x",
            "metadata/./x",
            "metadata/.hidden",
            "targets/a/../../b",
            "metadata\\x",
            "metadata/..\\x",
            "metadata/a b",
            "metadata/a\0b",
            "metadata/é",
            &long,
        ] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }
}

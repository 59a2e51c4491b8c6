//! How a command reaches the process that owns a store.
//!
//! One process owns a store, by its lock. While a node or an agent does, `add`, `fetch`, `store …`
//! and `status` with the same data folder go through a socket in that folder. The command opens
//! the user's files and streams their bytes, both ways; the owner never opens a path that a user
//! names, so its rights do not become the user's.
//!
//! [`StoreOwner`] is what a command wants of a store. [`crate::owner::OpenStore`] does it in the
//! command's own process, [`LocalClient`] asks the owner, whose [`LocalServer`] hands the request
//! to its own `StoreOwner`. A command does not see which of them it has.
//!
//! Invariants:
//! - only the owner's user and root are answered;
//! - nothing is allocated for a frame beyond its cap ([`frame`]);
//! - a socket is replaced only by whoever holds the store's lock.

pub mod client;
pub mod frame;
pub mod message;
pub mod server;
pub mod socket;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use sutler_cache::Content;

pub use client::LocalClient;
pub use message::{AddFile, AddUrl, FetchRequest};
pub use server::LocalServer;

use crate::failure::Failure;
use crate::report::{
    Added, Collected, ContentRow, Fetched, Inspected, Moved, Progress, Rebuilt, Verified,
};
use crate::status::Status;

/// Told how far a long request has come; breaks when nobody waits for it any more.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What a command wants of a store, wherever that store is open. Every call blocks.
pub trait StoreOwner: Send + Sync {
    /// Puts the bytes of `body` into the store. `body` ends after `request.bytes` bytes, or the
    /// file was cut short while it was read.
    ///
    /// # Errors
    ///
    /// Kind `file` if the body is not as long as claimed, `corrupt` if it has another digest than
    /// claimed, `no-space`, or `store`.
    fn add(&self, request: &AddFile, body: &mut dyn Read) -> Result<Added, Failure>;

    /// Downloads `request.url` into the store.
    ///
    /// # Errors
    ///
    /// Kind `refused` if the origin is not allowed, `unreachable`, `corrupt`, `no-space`, `store`.
    fn add_url(&self, request: &AddUrl, progress: OnProgress<'_>) -> Result<Added, Failure>;

    /// Brings a content into the store from the sources that the request names.
    ///
    /// # Errors
    ///
    /// Any kind; what was verified before is kept, and the next fetch goes on from there.
    fn fetch(&self, request: &FetchRequest, progress: OnProgress<'_>) -> Result<Ready, Failure>;

    /// Hands each content to `row`, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Kind `store` if the store cannot be read.
    fn list(&self, row: &mut dyn FnMut(ContentRow)) -> Result<(), Failure>;

    /// Reads every byte held and checks it.
    ///
    /// # Errors
    ///
    /// Kind `store` if the store cannot be read. Damage is no error but part of the answer.
    fn verify(&self, progress: OnProgress<'_>) -> Result<Verified, Failure>;

    /// Removes what the quota does not need and nothing pins, until at most `bytes_left_max` bytes
    /// are held; without that, until the quota and the minimum of free disk are kept.
    ///
    /// # Errors
    ///
    /// Kind `store` if the disk refuses.
    fn gc(&self, bytes_left_max: Option<u64>) -> Result<Collected, Failure>;

    /// Moves the store to the folder `to`, and leaves a way to it.
    ///
    /// # Errors
    ///
    /// Kind `file` if `to` cannot be used, `no-space`, `store`. The old folder stays the store then.
    fn move_to(&self, to: &Path) -> Result<Moved, Failure>;

    /// Throws the index away and makes a new one from what lies in the folder.
    ///
    /// # Errors
    ///
    /// Kind `store` if the folder cannot be read.
    fn rebuild_index(&self) -> Result<Rebuilt, Failure>;

    /// Shows one content, named by its id.
    ///
    /// # Errors
    ///
    /// Kind `unknown-content` if the store does not know it.
    fn inspect(&self, content: &str) -> Result<Inspected, Failure>;

    /// Says what the store holds and what its owner does.
    ///
    /// # Errors
    ///
    /// Kind `store` if the store cannot be read.
    fn status(&self) -> Result<Status, Failure>;
}

/// A content that is complete in the store, ready to be written where the user wants it.
pub struct Ready {
    /// Where its bytes came from.
    pub report: Fetched,
    /// The bytes.
    pub body: Body,
}

/// The bytes of a content on their way to the user's file.
pub enum Body {
    /// The store is open in this process: it can share extents with the user's file.
    Content(Content),
    /// They come through the socket, exactly as many as the report says.
    Stream(Box<dyn Read + Send>),
}

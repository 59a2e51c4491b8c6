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

use sutler_cache::Content;
use sutler_cache::import::ImportFrom;

pub use client::LocalClient;
pub use message::{AddFile, AddUrl, FetchRequest};
pub use server::LocalServer;

use crate::failure::Failure;
use crate::report::{
    Added, Collected, ContentRow, Fetched, Inspected, Progress, Rebuilt, Verified,
};
use crate::status::Status;

/// Told how far a long request has come; breaks when nobody waits for it any more.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Told what became of one of many, by its position; breaks when no more are wanted.
pub type OnEach<'a> = &'a mut dyn FnMut(usize, Result<Ready, Failure>) -> ControlFlow<()>;

/// What a command wants of a store, wherever that store is open. Every call blocks.
pub trait StoreOwner: Send + Sync {
    /// Puts a file that the caller opened, or a stream of `request.bytes` bytes, into the store.
    ///
    /// # Errors
    ///
    /// Kind `file` if it cannot be read or is not as long as announced, `corrupt` if it has another
    /// digest than claimed, `no-space`, or `store`.
    fn add(&self, request: &AddFile, from: ImportFrom<'_>) -> Result<Added, Failure>;

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

    /// Brings many contents, named by their ids, and hands each over as it is complete.
    ///
    /// # Errors
    ///
    /// Kind `usage` if a name is no id, `interrupted`. What becomes of one is told to `each`.
    fn fetch_many(&self, requests: &[FetchRequest], each: OnEach<'_>) -> Result<(), Failure> {
        for (position, request) in requests.iter().enumerate() {
            let fetched = self.fetch(request, &mut |_| ControlFlow::Continue(()));
            if each(position, fetched).is_break() {
                break;
            }
        }
        Ok(())
    }

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

    /// Removes what is neither pinned nor in use until the limits are kept, or until at most
    /// `bytes_max` bytes are held, if that is given.
    ///
    /// # Errors
    ///
    /// Kind `store` if the owner cannot be asked. What cannot be removed is part of the answer.
    fn gc(&self, bytes_max: Option<u64>) -> Result<Collected, Failure>;

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

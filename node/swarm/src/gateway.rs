//! What a server asks to find a content: the store alone, or a store that can be filled.

use std::future::Future;

use sutler_cache::{Content, Store};
use sutler_protocol::frame::{Class, Refusal, detail};
use sutler_protocol::{ChunkIndex, ContentId, Sha256Digest};
use tokio::sync::watch;
use url::Url;

use crate::arrivals::{Arrivals, Stored};

/// A content that can be served from.
#[derive(Clone)]
pub struct Served {
    /// The content; holding it keeps it from being evicted.
    pub content: Content,
    /// Present while more of it arrives.
    pub stored: Option<Stored>,
    /// Whether chunks that are missing will come by themselves.
    pub is_filling: bool,
    /// Released with the last asker; a store that keeps nothing forgets the content then.
    pub interest: Option<std::sync::Arc<dyn Send + Sync>>,
}

/// How far a fill has come, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Bytes had.
    pub have: u64,
    /// Bytes in all, once the origin has said so.
    pub len: Option<u64>,
}

/// Finds contents for a server.
pub trait Gateway: Send + Sync + 'static {
    /// Finds a content, and begins to fill it if it is missing and can be had.
    ///
    /// Cancel-safe: a fill that was begun goes on without its asker.
    fn open(
        &self,
        id: ContentId,
        class: Class,
    ) -> impl Future<Output = Result<Served, Refusal>> + Send;

    /// Finds what is here of a content, and begins nothing.
    ///
    /// Cancel-safe: it only looks.
    fn held(&self, id: ContentId) -> impl Future<Output = Result<Served, Refusal>> + Send;

    /// Finds the content with a vendor's digest, filling it from `url` if need be, and tells
    /// `filled` how far that has come.
    ///
    /// Cancel-safe: a fill that was begun goes on without its asker.
    fn resolve(
        &self,
        sha256: Sha256Digest,
        url: Url,
        class: Class,
        filled: watch::Sender<Filled>,
    ) -> impl Future<Output = Result<(ContentId, u64), Refusal>> + Send;

    /// Takes note that a chunk was found damaged here and should be fetched again.
    fn damaged(&self, id: ContentId, chunk: ChunkIndex);
}

/// Serves what the store has and what is arriving, and fetches nothing of its own accord.
#[derive(Clone)]
pub struct StoreGateway {
    /// Where contents lie.
    pub store: Store,
    /// What is being fetched in this process.
    pub arrivals: Arrivals,
}

impl StoreGateway {
    /// Looks a content up; `None` if nothing of it is here and nothing is coming, if it is not for
    /// peers, or if a vendor's digest is claimed of it that was not checked yet.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreFailed`] if the store cannot tell.
    pub async fn find(&self, id: ContentId) -> Result<Option<Served>, Refusal> {
        // Subscribed before the store is looked at, so that nothing stored in between is missed.
        let stored = self.arrivals.watch(id);
        Ok(look_up(&self.store, id)
            .await?
            .filter(|content| content.is_offered() && !content.awaits_digest())
            .filter(|content| stored.is_some() || !content.had().is_empty())
            .map(|content| Served { content, stored, is_filling: false, interest: None }))
    }
}

impl Gateway for StoreGateway {
    async fn open(&self, id: ContentId, _class: Class) -> Result<Served, Refusal> {
        self.held(id).await
    }

    async fn held(&self, id: ContentId) -> Result<Served, Refusal> {
        self.find(id).await?.ok_or(Refusal::Unknown)
    }

    async fn resolve(
        &self,
        sha256: Sha256Digest,
        _url: Url,
        _class: Class,
        _filled: watch::Sender<Filled>,
    ) -> Result<(ContentId, u64), Refusal> {
        let id = self.store.by_digest(sha256).ok_or(Refusal::Unknown)?;
        let served = self.find(id).await?.filter(|served| served.content.is_complete());
        served.map(|served| (id, served.content.geometry().len())).ok_or(Refusal::Unknown)
    }

    /// An agent fetches what it lacks when it is next told to; until then the chunk is not served.
    fn damaged(&self, id: ContentId, chunk: ChunkIndex) {
        tracing::warn!(content.id = %id, chunk = chunk.0, "a chunk is damaged on disk");
    }
}

/// Looks a content up in a store, away from the runtime's threads unless it is open already.
///
/// # Errors
///
/// [`Refusal::StoreFailed`] if the store cannot tell.
pub async fn look_up(store: &Store, id: ContentId) -> Result<Option<Content>, Refusal> {
    if let Some(content) = store.open_content(id) {
        return Ok(Some(content));
    }
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.content(id))
        .await
        .map_err(|error| store_failed(&error))?
        .map_err(|error| store_failed(&error))
}

/// Returns the refusal that says what the store's trouble was, with all its causes.
pub fn store_failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::StoreFailed { detail: detail(&causes(error)) }
}

/// Returns an error and its causes in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

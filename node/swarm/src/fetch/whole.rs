//! A content of which no hash list can be had: fetched in order from one origin into quarantine,
//! and believed when the whole agrees.
//!
//! Where nothing is known that it must agree with, the file is what its origin sends. It is gone on
//! with after an interruption only where the origin vouches, by a strong validator, that the rest
//! is of the same version; else it is begun anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sutler_cache::{
    About, Content, Imported, Origin, PartReader, PromoteError, Quarantine, QuarantineError,
    QuarantineKey, Store,
};
use tracing::{debug, info};
use url::Url;

use super::{FetchError, Fetcher, blocking};
use crate::counters::Counters;
use crate::gateway::{Filled, causes};
use crate::origin::reply::ReplyFault;
use crate::origin::{OriginBody, OriginError, OriginFile, Origins, Validators};

/// Bytes handed to the disk at a time.
const WRITE_BYTES: usize = 512 * 1024;

/// How long bytes may wait for more of them before they are written: what a kill costs is at most
/// what the line brings in this time, and who reads them as they come waits no longer.
const WRITE_AFTER: Duration = Duration::from_millis(50);

/// Attempts without a new byte before the origin is given up.
const ATTEMPTS_MAX: u32 = 4;

/// The wait before the second attempt; each later one is twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest wait that an origin may ask for while somebody waits for the file.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Is told what becomes of a file while it is fetched whole.
pub trait Onlooker: Send {
    /// The bytes will lie here. Those of an earlier `begun` are void from now on.
    fn begun(&mut self, part: PartReader) {
        drop(part);
    }

    /// The origin has answered with a file; its bytes are taken if the onlooker wants them.
    fn answered(&mut self, file: &OriginFile) -> Answered {
        let _ = file;
        Answered::Wanted
    }

    /// So much is there.
    fn filled(&mut self, filled: Filled);
}

/// What an onlooker thinks of an origin's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// This is what was asked for.
    Wanted,
    /// It is something else, and nothing of it is kept.
    Unwanted,
}

impl<F: FnMut(Filled) + Send> Onlooker for F {
    fn filled(&mut self, filled: Filled) {
        self(filled);
    }
}

/// Why bytes of a body did not reach the quarantine.
enum PourError {
    Origin(OriginError),
    Fetch(FetchError),
}

/// Fetches whole files from origins into a store. Needs no peers, and so no identity. Cheap to
/// clone.
#[derive(Clone)]
pub struct FileFetcher {
    store: Store,
    origins: Origins,
    counters: Arc<Counters>,
}

impl Fetcher {
    /// Returns what fetches whole files into the same store.
    ///
    /// # Errors
    ///
    /// [`FetchError::NoOrigins`].
    pub fn files(&self) -> Result<FileFetcher, FetchError> {
        let origins = self.origins.clone().ok_or(FetchError::NoOrigins)?;
        Ok(FileFetcher::new(self.store.clone(), origins, self.counters.clone()))
    }

    /// As [`FileFetcher::fetch`], with the origins of this fetcher.
    ///
    /// # Errors
    ///
    /// [`FetchError::NoOrigins`], and as there.
    pub async fn fetch_whole(
        &self,
        key: QuarantineKey,
        url: &Url,
        about: About,
        filled: impl FnMut(Filled) + Send,
    ) -> Result<(Content, u64), FetchError> {
        let (imported, received) = self.files()?.fetch(key, url, about, filled).await?;
        Ok((imported.content, received))
    }
}

impl FileFetcher {
    /// Returns a fetcher into `store` that asks only `origins`, and counts what came.
    pub const fn new(store: Store, origins: Origins, counters: Arc<Counters>) -> Self {
        Self { store, origins, counters }
    }

    /// Fetches a whole file from an origin into quarantine, resuming what an earlier attempt left,
    /// and makes a content of it if it agrees with `key`. Tells `filled` how far it is, and returns
    /// the content with the bytes that came over the line.
    ///
    /// Cancel-safe: what came stays in quarantine, and the next attempt goes on from there.
    ///
    /// # Errors
    ///
    /// [`FetchError::Origin`] if the origin cannot be read to the end,
    /// [`FetchError::Quarantine`] if the store cannot keep the bytes, [`FetchError::Promote`] if
    /// they are not what was asked for.
    pub async fn fetch(
        &self,
        key: QuarantineKey,
        url: &Url,
        about: About,
        mut filled: impl FnMut(Filled) + Send,
    ) -> Result<(Imported, u64), FetchError> {
        self.fetch_seen(key, url, about, None, &mut filled).await
    }

    /// As [`Self::fetch`], for an onlooker, and beginning with an answer that the origin has given
    /// already: one from the file's start.
    ///
    /// Cancel-safe, as [`Self::fetch`].
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`]; [`FetchError::Unwanted`] if the onlooker turned an answer down.
    pub async fn fetch_seen(
        &self,
        key: QuarantineKey,
        url: &Url,
        about: About,
        first: Option<OriginBody>,
        onlooker: &mut impl Onlooker,
    ) -> Result<(Imported, u64), FetchError> {
        let mut received = 0;
        let fetched = self.whole(key, url, &about, first, onlooker, &mut received).await;
        self.counters.fetched_vendor_bytes.add(received);
        Ok((fetched?, received))
    }

    /// As [`Self::fetch`]; adds the bytes that came to `received` and counts them nowhere.
    pub(super) async fn whole(
        &self,
        key: QuarantineKey,
        url: &Url,
        about: &About,
        first: Option<OriginBody>,
        onlooker: &mut impl Onlooker,
        received: &mut u64,
    ) -> Result<Imported, FetchError> {
        let mut is_mixed = false;
        let gathered = self.gather(key, url, about, first, onlooker, received, &mut is_mixed).await;
        match gathered {
            // Its parts may be of two versions that nothing told apart; one alone may be right.
            Err(error) if is_mixed && error.is_mismatch() => {
                info!(%url, "parts of the file do not fit each other, beginning anew");
                self.gather(key, url, about, None, onlooker, received, &mut false).await
            }
            gathered => gathered,
        }
    }

    /// Fetches the file once; tells in `is_mixed` whether that took more than one reply.
    #[expect(clippy::too_many_arguments, reason = "one call with two outcomes to keep apart")]
    async fn gather(
        &self,
        key: QuarantineKey,
        url: &Url,
        about: &About,
        mut first: Option<OriginBody>,
        onlooker: &mut impl Onlooker,
        received: &mut u64,
        is_mixed: &mut bool,
    ) -> Result<Imported, FetchError> {
        let store = self.store.clone();
        let quarantine =
            blocking(move || store.quarantine(key, None)).await?.map_err(FetchError::Quarantine)?;
        let quarantine = Arc::new(quarantine);
        onlooker.begun(quarantine.reader());
        let mut attempts = 0;
        loop {
            let had = quarantine.len();
            *is_mixed |= had > 0;
            let answer = first.take().filter(|_| had == 0);
            let error = match self.pour(&quarantine, url, answer, received, onlooker).await {
                Ok(()) => break,
                Err(PourError::Fetch(error)) => return Err(error),
                Err(PourError::Origin(error)) => error,
            };
            if matches!(error.fault(), Some(ReplyFault::Changed | ReplyFault::WrongLength { .. })) {
                info!(%url, "the file has changed at its origin, beginning anew");
                let begun = quarantine.clone();
                // Told before: nobody takes new bytes for more of the old.
                onlooker.begun(begun.reader());
                blocking(move || begun.restart(None, None))
                    .await?
                    .map_err(FetchError::Quarantine)?;
                *is_mixed = false;
            } else if error.is_final() {
                return Err(FetchError::Origin(error));
            }
            attempts = if quarantine.len() > had { 0 } else { attempts + 1 };
            if attempts >= ATTEMPTS_MAX {
                return Err(FetchError::Origin(error));
            }
            debug!(error = causes(&error), "the origin is asked again");
            let wait = error.retry_after().unwrap_or(RETRY_AFTER * 2_u32.pow(attempts));
            tokio::time::sleep(wait.min(RETRY_AFTER_MAX)).await;
        }
        let mut about = about.clone();
        if let Some(origin) = quarantine.origin() {
            about.origins.retain(|other| other.url != origin.url);
            about.origins.insert(0, origin);
        }
        let promoted = blocking(move || {
            // The last pour's writes are over, so nobody else holds it.
            Arc::into_inner(quarantine).map(|quarantine| quarantine.promote(&about))
        });
        let promoted = promoted.await?.ok_or(FetchError::CutOff)?;
        promoted.map_err(|error| FetchError::Promote(Box::new(error)))
    }

    /// Reads the file from where the quarantine ends.
    async fn pour(
        &self,
        quarantine: &Arc<Quarantine>,
        url: &Url,
        answer: Option<OriginBody>,
        received: &mut u64,
        onlooker: &mut impl Onlooker,
    ) -> Result<(), PourError> {
        let known = quarantine.origin().filter(|origin| origin.url == url.as_str());
        let mut validators = Validators {
            etag: known.as_ref().and_then(|origin| origin.etag.clone()),
            last_modified: known.as_ref().and_then(|origin| origin.last_modified.clone()),
            len: quarantine.expected_len(),
        };
        let is_open = matches!(quarantine.key(), QuarantineKey::Place(_));
        if is_open && !quarantine.is_empty() && validators.if_range().is_none() {
            debug!(%url, "nothing says that the rest is of the same version, beginning anew");
            let begun = quarantine.clone();
            onlooker.begun(begun.reader());
            store_work(move || begun.restart(None, None)).await?;
            validators = Validators::default();
        }
        let had = quarantine.len();
        // What nothing else vouches for is asked about even if all of it is here.
        if quarantine.expected_len() == Some(had) && !is_open {
            onlooker.filled(Filled { have: had, len: Some(had) });
            return Ok(());
        }
        let mut body = match answer {
            Some(body) => body,
            None => self.origins.whole(url, had, &validators).await.map_err(PourError::Origin)?,
        };
        if onlooker.answered(body.file()) == Answered::Unwanted {
            return Err(PourError::Fetch(FetchError::Unwanted));
        }
        let len = body.file().len();
        let origin = Origin {
            url: url.to_string(),
            etag: body.file().validators.etag.clone(),
            last_modified: body.file().validators.last_modified.clone(),
        };
        let begun = quarantine.clone();
        let noted = move || -> Result<(), QuarantineError> {
            begun.expect_len(len)?;
            begun.set_origin(&origin)
        };
        store_work(noted).await?;
        onlooker.filled(Filled { have: had, len });
        let poured = drain(quarantine, &mut body, len, onlooker).await;
        *received += body.received();
        poured?;
        let end = quarantine.clone();
        store_work(move || {
            let len = end.len();
            end.expect_len(Some(len))?;
            end.checkpoint()
        })
        .await
    }
}

/// Writes a body to its end, in order.
async fn drain(
    quarantine: &Arc<Quarantine>,
    body: &mut OriginBody,
    len: Option<u64>,
    onlooker: &mut impl Onlooker,
) -> Result<(), PourError> {
    let begun = quarantine.len();
    let mut offset = begun;
    let mut gathered = Vec::with_capacity(WRITE_BYTES);
    let mut due = Instant::now();
    loop {
        let next = if gathered.is_empty() {
            Some(body.next().await)
        } else {
            // Cancel-safe: bytes leave the body only when they are returned.
            tokio::time::timeout_at(due.into(), body.next()).await.ok()
        };
        if let Some(Ok(Some(bytes))) = &next {
            if gathered.is_empty() {
                // The first do not wait at all: somebody may have waited for them already.
                let wait = if offset == begun { Duration::ZERO } else { WRITE_AFTER };
                due = Instant::now() + wait;
            }
            gathered.extend_from_slice(bytes);
        }
        let is_waiting = matches!(next, Some(Ok(Some(_)))) && Instant::now() < due;
        // What came before a failure is kept, too.
        if !gathered.is_empty() && (gathered.len() >= WRITE_BYTES || !is_waiting) {
            let bytes = std::mem::replace(&mut gathered, Vec::with_capacity(WRITE_BYTES));
            let (written, at) = (quarantine.clone(), offset);
            offset += bytes.len() as u64;
            store_work(move || {
                written.write_at(at, &bytes)?;
                if written.checkpoint_due(Instant::now()) { written.checkpoint() } else { Ok(()) }
            })
            .await?;
            onlooker.filled(Filled { have: offset, len });
        }
        match next {
            None | Some(Ok(Some(_))) => {}
            Some(Ok(None)) => return Ok(()),
            Some(Err(error)) => return Err(PourError::Origin(error)),
        }
    }
}

async fn store_work(
    work: impl FnOnce() -> Result<(), QuarantineError> + Send + 'static,
) -> Result<(), PourError> {
    let done = blocking(work).await.map_err(PourError::Fetch)?;
    done.map_err(|error| PourError::Fetch(FetchError::Quarantine(error)))
}

impl FetchError {
    /// Returns whether the origin or its bytes are to blame, so that another one may do better.
    pub(super) fn is_of_origin(&self) -> bool {
        matches!(self, Self::Origin(_)) || self.is_mismatch()
    }

    fn is_mismatch(&self) -> bool {
        match self {
            Self::Promote(error) => matches!(**error, PromoteError::Mismatch { .. }),
            _ => false,
        }
    }
}

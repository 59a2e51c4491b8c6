//! The bytes of one request: gathered into chunks, verified and stored as they become whole.
//!
//! An origin may answer with the whole content where a part was asked for; all of that is taken then,
//! but for what is had.
//!
//! Invariant: a request holds at most one chunk that is not stored. It takes no byte beyond a chunk
//! from its line before that chunk is written, so a kill costs each open request one chunk at most,
//! on a slow line and on a fast one. What is on its way then, in the windows of the transport and the
//! buffers of the system, was not received yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sutler_cache::{CommitError, Content};
use sutler_protocol::fetch::{End, Partial, RequestId};
use sutler_protocol::frame::{ChunksRequest, Refusal};
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ChunkRange, Geometry};
use tokio::sync::mpsc;
use tracing::trace;

use super::introduce::Link;
use crate::buffers::Buffers;
use crate::disk::Disk;
use crate::gateway::causes;
use crate::origin::{OriginBody, OriginError, Origins, Validators};
use crate::peer::{ChunkStream, Peer, RequestError};

/// How often a slow answer says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_millis(250);

/// Pieces taken from the transport at once.
const PIECES: usize = 32;

/// How long an origin that failed is left alone.
const ORIGIN_PAUSE: Duration = Duration::from_secs(1);

/// How long a peer that shuts down is left alone.
const DRAINING_PAUSE: Duration = Duration::from_millis(500);

/// What a request tells its driver.
pub(super) enum Happening {
    /// An origin answers with the part that it was asked for.
    Part(RequestId),
    /// An origin answers with the whole content instead.
    Whole(RequestId),
    /// Bytes came.
    Bytes(RequestId, u64),
    /// Chunks were verified and written.
    Stored(RequestId, ChunkRange),
    /// A chunk did not verify.
    Corrupt(RequestId, ChunkIndex),
    /// The request is over; this much had come of the chunk after the last whole one.
    Ended(RequestId, Ended, Option<Partial>),
}

/// How a request ended.
pub(super) enum Ended {
    /// In a way that the scheduler judges.
    Told(End),
    /// The connection is gone, and with it all requests to that source.
    LinkLost(String),
    /// The source is of no use for this content.
    Useless(String),
    /// The store failed.
    Store(CommitError),
    /// A thread of the store ended before its work.
    CutOff,
}

/// One request and where its bytes go.
pub(super) struct Receiving {
    pub(super) request: RequestId,
    pub(super) chunks: ChunkRange,
    /// What is here of the first chunk, and was not asked for.
    pub(super) goes_on_from: Option<Partial>,
    pub(super) content: Content,
    pub(super) disk: Arc<Disk>,
    pub(super) buffers: Buffers,
    pub(super) to: mpsc::Sender<Happening>,
}

/// A chunk that is whole and was not verified.
struct Chunk {
    index: ChunkIndex,
    bytes: Vec<u8>,
}

/// Bytes on their way.
enum Incoming {
    Peer(ChunkStream),
    Origin(Box<OriginBody>),
}

impl Receiving {
    /// Sends the request, stores what comes, and reports to the end.
    ///
    /// Cancel-safe: a chunk whose storing was begun is stored, the rest is dropped.
    pub(super) async fn run(
        mut self,
        link: Link,
        asked: ChunksRequest,
        origins: Option<Origins>,
        validators: Validators,
    ) {
        let geometry = self.content.geometry();
        let mut bytes = geometry.bytes(self.chunks);
        bytes.start += asked.skip_bytes;
        let opened = match link {
            Link::Peer(peer) => open_peer(&peer, asked, bytes.end - bytes.start).await,
            Link::Origin(url) => match origins {
                Some(origins) => open_origin(&origins, &url, bytes, &validators).await,
                None => Err(Ended::Useless("this machine may ask no origin".to_owned())),
            },
        };
        let goes_on_from = self.goes_on_from.take();
        let (ended, partial) = match opened {
            Ok(incoming) => {
                let chunks = self.announce(&incoming, geometry).await;
                // A whole brings all of it anyway.
                let goes_on_from = goes_on_from.filter(|_| chunks == self.chunks);
                let mut gather = Gather::new(geometry, chunks, goes_on_from, self.buffers.clone());
                let ended = self.receive(incoming, &mut gather).await;
                (ended, gather.into_partial())
            }
            Err(ended) => (ended, goes_on_from),
        };
        // What one sent who broke the rules is not gone on with.
        let partial = partial.filter(|_| matches!(ended, Ended::Told(_) | Ended::LinkLost(_)));
        // The driver is gone only if the fetch is.
        let _ = self.to.send(Happening::Ended(self.request, ended, partial)).await;
    }

    /// Tells how an origin answers, and returns the chunks that come.
    async fn announce(&self, incoming: &Incoming, geometry: Geometry) -> ChunkRange {
        let Incoming::Origin(body) = incoming else { return self.chunks };
        if self.chunks == geometry.all() {
            return self.chunks;
        }
        let (answer, chunks) = if body.file().ranges {
            (Happening::Part(self.request), self.chunks)
        } else {
            (Happening::Whole(self.request), geometry.all())
        };
        // The driver is gone only if the fetch is.
        let _ = self.to.send(answer).await;
        chunks
    }

    async fn receive(&self, mut incoming: Incoming, gather: &mut Gather) -> Ended {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let mut alive = Instant::now();
        let mut unreported = 0;
        loop {
            let count = match incoming.next(&mut pieces, gather.wanted_bytes()).await {
                Ok(0) => break self.over(unreported, Ended::Told(End::Finished)).await,
                Ok(count) => count,
                Err(ended) => break self.over(unreported, ended).await,
            };
            for piece in &mut pieces[..count] {
                let mut piece = std::mem::take(piece);
                unreported += piece.len() as u64;
                while let Some(chunk) = gather.add(self.request, &mut piece) {
                    self.report_bytes(std::mem::take(&mut unreported)).await;
                    alive = Instant::now();
                    if let Err(ended) = self.store(chunk).await {
                        return ended;
                    }
                }
            }
            if alive.elapsed() >= ALIVE_EVERY {
                alive = Instant::now();
                self.report_bytes(std::mem::take(&mut unreported)).await;
            }
        }
    }

    async fn over(&self, unreported: u64, ended: Ended) -> Ended {
        self.report_bytes(unreported).await;
        ended
    }

    /// Verifies and writes a chunk, unless it is had.
    async fn store(&self, Chunk { index, bytes }: Chunk) -> Result<(), Ended> {
        let content = self.content.clone();
        let put = move || {
            let result = if content.has(index) { Ok(()) } else { content.commit(index, &bytes) };
            (result, bytes)
        };
        let (result, bytes) = self.disk.run(put).await.map_err(|_| Ended::CutOff)?;
        let happening = match result {
            Ok(()) => Happening::Stored(self.request, ChunkRange::one(index)),
            Err(CommitError::Corrupt { .. }) => Happening::Corrupt(self.request, index),
            Err(error) => return Err(Ended::Store(error)),
        };
        self.buffers.give(bytes);
        // The driver is gone only if the fetch is.
        let _ = self.to.send(happening).await;
        Ok(())
    }

    async fn report_bytes(&self, bytes: u64) {
        if bytes > 0 {
            let _ = self.to.send(Happening::Bytes(self.request, bytes)).await;
        }
    }
}

/// Makes chunks of pieces.
struct Gather {
    geometry: Geometry,
    next: ChunkIndex,
    end: ChunkIndex,
    /// What this request goes on from, its bytes in `open`, while that is of the first chunk.
    goes_on_from: Option<Partial>,
    open: Vec<u8>,
    buffers: Buffers,
}

impl Gather {
    fn new(
        geometry: Geometry,
        chunks: ChunkRange,
        mut goes_on_from: Option<Partial>,
        buffers: Buffers,
    ) -> Self {
        let mut open = buffers.take();
        if let Some(partial) = &mut goes_on_from {
            open.append(partial.bytes_mut());
        }
        let (next, end) = (chunks.start(), chunks.end());
        Self { geometry, next, end, goes_on_from, open, buffers }
    }

    /// Returns what came of the chunk that is not whole.
    fn into_partial(mut self) -> Option<Partial> {
        let bytes = std::mem::take(&mut self.open);
        let mut partial =
            self.goes_on_from.take().unwrap_or_else(|| Partial::new(self.next, Vec::new()));
        *partial.bytes_mut() = bytes;
        Some(partial).filter(|partial| !partial.bytes().is_empty())
    }

    /// Returns the bytes that the chunk lacks which is being gathered; at least 1, so that a line's
    /// end is seen.
    fn wanted_bytes(&self) -> usize {
        if self.next >= self.end {
            return 1;
        }
        let place = self.geometry.chunk(self.next);
        ((place.end - place.start) as usize - self.open.len()).max(1)
    }

    /// Takes what the chunk lacks out of `piece`, and returns the chunk if it is whole then. What
    /// comes after the last chunk is dropped.
    fn add(&mut self, request: RequestId, piece: &mut Bytes) -> Option<Chunk> {
        if piece.is_empty() || self.next >= self.end {
            return None;
        }
        if self.open.is_empty() {
            // What a kill may cost is counted by these.
            trace!(request = request.0, chunk = self.next.0, "a chunk begins");
        }
        let wanted = self.wanted_bytes();
        let now = piece.split_to(wanted.min(piece.len()));
        // At once, not by doubling: a buffer's first use is all of a chunk or nothing.
        self.open.reserve_exact(wanted);
        self.open.extend_from_slice(&now);
        if now.len() < wanted {
            return None;
        }
        let bytes = std::mem::replace(&mut self.open, self.buffers.take());
        let chunk = Chunk { index: self.next, bytes };
        self.goes_on_from = None;
        self.next = ChunkIndex(self.next.0 + 1);
        Some(chunk)
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.open));
    }
}

impl Incoming {
    /// Receives the next bytes, from a peer some `wanted` of them; 0 at the end of what was asked
    /// for. What an origin's client has read from its connection comes as it lies there.
    ///
    /// Cancel-safe, as both kinds of stream are.
    async fn next(&mut self, into: &mut [Bytes], wanted: usize) -> Result<usize, Ended> {
        match self {
            Self::Peer(stream) => stream.next(into, wanted).await.map_err(|error| of_peer(&error)),
            Self::Origin(body) => match body.next().await {
                Ok(Some(bytes)) => {
                    into[0] = bytes;
                    Ok(1)
                }
                Ok(None) => Ok(0),
                Err(error) => Err(of_origin(&error)),
            },
        }
    }
}

async fn open_peer(peer: &Peer, asked: ChunksRequest, bytes: u64) -> Result<Incoming, Ended> {
    peer.chunks(asked, bytes).await.map(Incoming::Peer).map_err(|error| of_peer(&error))
}

async fn open_origin(
    origins: &Origins,
    url: &url::Url,
    bytes: std::ops::Range<u64>,
    validators: &Validators,
) -> Result<Incoming, Ended> {
    // To read the whole is also what an origin without ranges can do.
    let body = if bytes.start == 0 && Some(bytes.end) == validators.len {
        origins.whole(url, 0, validators).await
    } else {
        origins.part_or_whole(url, bytes, validators).await
    };
    let body = body.map_err(|error| of_origin(&error))?;
    Ok(Incoming::Origin(Box::new(body)))
}

fn of_peer(error: &RequestError) -> Ended {
    match error {
        // Once it has shut down the connection ends, and it may come back.
        RequestError::Refused(Refusal::Draining) => {
            Ended::Told(End::Later(Instant::now() + DRAINING_PAUSE))
        }
        RequestError::Refused(refusal) => Ended::Told(End::Refused(refusal.clone())),
        RequestError::Connection(_) => Ended::LinkLost(causes(error)),
        RequestError::Violation(_) | RequestError::Garbage(_) => Ended::Useless(causes(error)),
        RequestError::Broken(_) | RequestError::Timeout | RequestError::TooLong { .. } => {
            Ended::Told(End::Failed(causes(error)))
        }
    }
}

fn of_origin(error: &OriginError) -> Ended {
    if error.is_final() {
        return Ended::Useless(causes(error));
    }
    if let Some(after) = error.retry_after() {
        return Ended::Told(End::Later(Instant::now() + after.max(ORIGIN_PAUSE)));
    }
    Ended::Told(End::Failed(causes(error)))
}

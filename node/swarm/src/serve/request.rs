//! One request: read it, find the content, send the answer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use sutler_cache::{Content, ReadError};
use sutler_protocol::ContentId;
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{
    Answer, Body, ChunksRequest, Class, Holding, Mismatch, Open, Opened, Refusal, Request, Resolve,
    URL_BYTES_MAX,
};
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::serve::{Promise, Serve, Step};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::{debug, warn};
use url::Url;

use super::Shared;
use crate::arrivals::Stored;
use crate::gateway::{Filled, Gateway, Served, causes, store_failed};
use crate::identity::{Holders, Instance, PeerName, Role};
use crate::wire::{self, ReceiveError};

/// How long a peer may take to say what it wants once it has opened a stream.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reader may take no byte before it is given up.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Reports of mismatches on one connection that may turn out wrong; later ones are not looked at.
/// An honest peer's are, a few at most, where the harm is done on the way.
const FALSE_REPORTS_MAX: u32 = 16;

/// What such a peer is told to wait, in milliseconds.
const FALSE_REPORT_RETRY_MS: u32 = 60_000;

/// How often a peer that waits for a fill hears of it.
const FILLING_EVERY: Duration = Duration::from_secs(5);

/// What answering one request needs.
pub(super) struct Answering<G> {
    pub(super) shared: Arc<Shared<G>>,
    pub(super) connection: Connection,
    /// Who asks.
    pub(super) name: PeerName,
    pub(super) sending: Arc<Semaphore>,
    /// Reports of this connection about chunks that were good.
    pub(super) false_reports: Arc<AtomicU32>,
    /// Whether a request of this connection watches the orders.
    pub(super) is_watching: Arc<AtomicBool>,
}

/// Why an answer was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the reader went away")]
    Gone(#[source] quinn::WriteError),
    #[error("the reader took nothing for {} s", WRITE_STALL_MAX.as_secs())]
    Stalled,
    #[error("a chunk was found damaged while it was being sent")]
    Damaged,
    #[error("no more of it came")]
    NothingMore,
}

impl<G: Gateway> Answering<G> {
    /// Answers the request on this stream.
    pub(super) async fn run(self, mut send: SendStream, mut receive: RecvStream) {
        self.shared.counters.requests.add(1);
        let request = match timeout(REQUEST_TIMEOUT, wire::receive(&mut receive)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error @ ReceiveError::Frame(_))) => {
                warn!(error = causes(&error), "a peer broke the protocol");
                self.shared.counters.violations.add(1);
                self.connection.close(wire::code(CloseCode::BadFrame), b"");
                return;
            }
            Ok(Err(ReceiveError::Stream(_))) => return,
            Err(_) => return reset(&mut send, CloseCode::TooSlow),
        };
        let mut lease = None;
        let is_control = self.name.role() == Role::Control;
        let answered = match request {
            Request::Document(document) => self.document(&mut send, document).await,
            Request::Open(open) => self.open(&mut send, &open).await,
            Request::Chunks(chunks) => self.chunks(&mut send, &chunks, &mut lease).await,
            Request::Mismatch(mismatch) => self.mismatch(&mut send, &mismatch).await,
            // Control asks for what it has lost (T31): documents, and bytes that are here and that every device may
            // have, so that whoever stole its key learns no more than by a device's. It has nothing fetched, and
            // what it brings nodes hear from it where they ask.
            _ if is_control => self.refuse(&mut send, Refusal::OutOfBounds).await,
            Request::Resolve(resolve) => self.resolve(&mut send, resolve).await,
            Request::Watch => self.watch(&mut send).await,
            Request::Deny(denial) => self.deny(&mut send, denial).await,
            Request::Hello { instance } => self.hello(&mut send, instance).await,
            Request::Report { bytes } => self.report(&mut send, &mut receive, bytes).await,
        };
        match answered {
            Ok(()) => {
                // It fails only if the reader is gone already.
                let _ = send.finish();
                // What was written may still be on its way, and a close would cut it off. The
                // connection's own time-out bounds this. A content stays open meanwhile: its reader
                // is about to ask for more, and to open a large one is to check its whole hash list.
                let _ = send.stopped().await;
                drop(lease);
            }
            Err(error) => {
                debug!(error = causes(&error), "an answer was cut off");
                reset(&mut send, error.close_code());
            }
        }
    }

    /// Finds a content, and has it filled unless it is control that asks, which may be where it would come from.
    async fn find(&self, content: ContentId, class: Class) -> Result<Served, Refusal> {
        match self.name.role() {
            Role::Control => self.shared.gateway.held(content).await,
            Role::Node | Role::Agent => self.shared.gateway.open(content, class).await,
        }
    }

    /// Takes note of the machine, and says so where two have one identity.
    async fn hello(&self, send: &mut SendStream, instance: Instance) -> Result<(), AnswerError> {
        let holders = self.shared.endpoint.heard(&self.name, instance);
        if holders == Holders::Two {
            warn!(address = %self.connection.remote_address(), "duplicate-identity");
            self.shared.counters.duplicate_identities.add(1);
        }
        self.answer(send, &Answer::Greeted { alone: holders == Holders::One }).await
    }

    async fn open(&self, send: &mut SendStream, open: &Open) -> Result<(), AnswerError> {
        let served = match self.find(open.content, open.class).await {
            Ok(served) => served,
            Err(refusal) => return self.refuse(send, refusal).await,
        };
        let content = &served.content;
        // A list has up to 512 KiB, so a reader that never reads must not be owed many.
        let _sending = match open.body {
            Body::List => self.sending.acquire().await.ok(),
            Body::Nothing => None,
        };
        let body = match open.body {
            Body::List if content.geometry().chunks() > 1 => content.hashes().as_bytes().to_vec(),
            Body::List if content.had().is_full() => {
                match self.read(content, 0..content.geometry().len()).await {
                    Ok(bytes) => bytes.to_vec(),
                    // No bytes, and a holding without them: it is asked for once it is mended.
                    Err(unread) => {
                        self.report_damage(content, &unread);
                        match Refusal::from(unread) {
                            Refusal::Damaged | Refusal::NotHeld => Vec::new(),
                            refusal => return self.refuse(send, refusal).await,
                        }
                    }
                }
            }
            Body::List | Body::Nothing => Vec::new(),
        };
        let opened = Answer::Opened(Opened {
            len: content.geometry().len(),
            holding: holding(&served),
            body_bytes: body.len() as u32,
        });
        // One write for both: a small content is then one packet, not two.
        let mut answer = sutler_protocol::frame::encode(&opened);
        answer.extend_from_slice(&body);
        self.shared.counters.served_bytes.add(body.len() as u64);
        self.write(send, answer.into()).await
    }

    /// Sends chunks. The content is open for as long as its `lease`.
    async fn chunks(
        &self,
        send: &mut SendStream,
        asked: &ChunksRequest,
        lease: &mut Option<Content>,
    ) -> Result<(), AnswerError> {
        let mut served = match self.find(asked.content, asked.class).await {
            Ok(served) => served,
            Err(refusal) => return self.refuse(send, refusal).await,
        };
        let content = lease.insert(served.content.clone()).clone();
        let promise = if served.is_filling { Promise::Coming } else { Promise::None };
        let begun = Serve::new(asked, content.geometry(), promise, Instant::now());
        let mut serve = match begun {
            Ok(serve) => serve,
            Err(refusal) => return self.refuse(send, refusal).await,
        };
        let mut passing = None;
        let mut is_announced = false;
        let mut bytes_left = serve.remaining_bytes();
        loop {
            match serve.next(&content.had(), Instant::now()) {
                Step::Done => return Ok(()),
                Step::Wait { until } => {
                    passing = None;
                    if wait(&mut served.stored, until).await == Waited::ForMore {
                        continue;
                    }
                    // It may have gone on under another fill, or there is a reason to tell.
                    match self.find(asked.content, asked.class).await {
                        Err(refusal) if !is_announced => return self.refuse(send, refusal).await,
                        Ok(again) if again.is_filling => served = again,
                        _ => serve.handle_no_more(),
                    }
                }
                Step::Refuse(refusal) if is_announced => {
                    debug!(%refusal, "a promised chunk did not come");
                    return Err(AnswerError::NothingMore);
                }
                Step::Refuse(refusal) => return self.refuse(send, refusal).await,
                Step::Send { bytes, .. } => {
                    // Only what can be sent now holds others back.
                    let passing =
                        passing.get_or_insert_with(|| self.shared.gate.enter(asked.class));
                    // Closed never: the semaphore lives as long as this request.
                    let _sending = self.sending.acquire().await;
                    passing.wait().await;
                    let data = match self.read(&content, bytes).await {
                        Ok(data) => data,
                        Err(unread) => {
                            self.report_damage(&content, &unread);
                            if is_announced {
                                return Err(AnswerError::Damaged);
                            }
                            return self.refuse(send, unread.into()).await;
                        }
                    };
                    if !is_announced {
                        is_announced = true;
                        self.announce(send, bytes_left).await?;
                    }
                    bytes_left -= data.len() as u64;
                    self.shared.counters.served_bytes.add(data.len() as u64);
                    self.write(send, data).await?;
                }
            }
        }
    }

    async fn resolve(&self, send: &mut SendStream, asked: Resolve) -> Result<(), AnswerError> {
        let url = match Url::parse(&asked.url) {
            Ok(url) if asked.url.len() <= URL_BYTES_MAX => url,
            _ => return self.refuse(send, Refusal::OutOfBounds).await,
        };
        let (filled, have) = watch::channel(Filled::default());
        let resolving = self.shared.gateway.resolve(asked.sha256, url, asked.class, filled);
        tokio::pin!(resolving);
        loop {
            // Cancel-safe: `resolving` is polled on, never dropped before it is done.
            match timeout(FILLING_EVERY, &mut resolving).await {
                Ok(Ok((content, len))) => {
                    return self.answer(send, &Answer::Resolved { content, len }).await;
                }
                Ok(Err(refusal)) => return self.refuse(send, refusal).await,
                Err(_) => {
                    let Filled { have, len } = *have.borrow();
                    self.answer(send, &Answer::Filling { have, len }).await?;
                }
            }
        }
    }

    async fn mismatch(&self, send: &mut SendStream, asked: &Mismatch) -> Result<(), AnswerError> {
        let served = match self.find(asked.content, Class::Background).await {
            Ok(served) => served,
            Err(refusal) => return self.refuse(send, refusal).await,
        };
        let chunk = ChunkIndex(asked.chunk);
        if chunk > served.content.geometry().last() {
            return self.refuse(send, Refusal::OutOfBounds).await;
        }
        self.shared.counters.mismatches.add(1);
        if !served.content.had().contains(chunk) {
            return self.answer(send, &Answer::Rechecked { good: false }).await;
        }
        // One who cried wolf is not believed again: hashing for nothing is what it may be after.
        if self.false_reports.load(Ordering::Relaxed) >= FALSE_REPORTS_MAX {
            return self.refuse(send, Refusal::Busy { retry_ms: FALSE_REPORT_RETRY_MS }).await;
        }
        let _sending = self.sending.acquire().await;
        let content = served.content.clone();
        let rechecked = tokio::task::spawn_blocking(move || content.recheck(chunk)).await;
        match rechecked {
            Ok(Ok(good)) => {
                if good {
                    self.false_reports.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.shared.gateway.damaged(asked.content, chunk);
                }
                self.answer(send, &Answer::Rechecked { good }).await
            }
            Ok(Err(error)) => self.refuse(send, store_failed(&error)).await,
            Err(error) => self.refuse(send, store_failed(&error)).await,
        }
    }

    /// Reads verified bytes.
    async fn read(&self, content: &Content, bytes: Range<u64>) -> Result<Bytes, Unread> {
        let (content, buffers) = (content.clone(), self.shared.buffers.clone());
        let read = move || {
            let len = (bytes.end - bytes.start) as usize;
            buffers.filled(len, |into| content.read(bytes, into))
        };
        self.shared.disk.run(read).await.map_err(Unread::CutOff)?.map_err(Unread::Store)
    }

    async fn announce(&self, send: &mut SendStream, bytes: u64) -> Result<(), AnswerError> {
        self.answer(send, &Answer::Chunks { bytes }).await
    }

    pub(super) async fn refuse(
        &self,
        send: &mut SendStream,
        refusal: Refusal,
    ) -> Result<(), AnswerError> {
        debug!(%refusal, "refused");
        self.shared.counters.requests_refused.add(1);
        self.answer(send, &Answer::Refused(refusal)).await
    }

    /// Has a chunk that reading found damaged fetched again.
    fn report_damage(&self, content: &Content, unread: &Unread) {
        match unread {
            Unread::Store(ReadError::Corrupt { chunk, .. }) => {
                self.shared.gateway.damaged(content.id(), *chunk);
            }
            Unread::Store(error) => warn!(error = causes(error), "a content cannot be read"),
            Unread::CutOff(error) => warn!(%error, "a content cannot be read"),
        }
    }

    pub(super) async fn answer(
        &self,
        send: &mut SendStream,
        answer: &Answer,
    ) -> Result<(), AnswerError> {
        self.write(send, sutler_protocol::frame::encode(answer).into()).await
    }

    pub(super) async fn write(
        &self,
        send: &mut SendStream,
        bytes: Bytes,
    ) -> Result<(), AnswerError> {
        let mut left = [bytes];
        // Whatever is taken begins the time anew: a large chunk may need minutes on a slow line.
        while !left[0].is_empty() {
            timeout(WRITE_STALL_MAX, send.write_chunks(&mut left))
                .await
                .map_err(|_| AnswerError::Stalled)?
                .map_err(AnswerError::Gone)?;
        }
        Ok(())
    }
}

impl AnswerError {
    const fn close_code(&self) -> CloseCode {
        match self {
            Self::Gone(_) => CloseCode::Done,
            Self::Stalled | Self::NothingMore => CloseCode::TooSlow,
            Self::Damaged => CloseCode::Damaged,
        }
    }
}

/// Says what is had, or promised.
fn holding(served: &Served) -> Holding {
    let had = served.content.had();
    match (had.is_full(), served.is_filling) {
        (true, _) => Holding::Whole,
        (false, true) => Holding::Filling(had.to_bitmap()),
        (false, false) if served.stored.is_some() => Holding::Growing(had.to_bitmap()),
        (false, false) => Holding::Part(had.to_bitmap()),
    }
}

/// Why bytes were not read.
enum Unread {
    Store(ReadError),
    CutOff(JoinError),
}

impl From<Unread> for Refusal {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Store(ReadError::Corrupt { .. }) => Self::Damaged,
            // It was evicted since it was found.
            Unread::Store(ReadError::Absent { .. }) => Self::NotHeld,
            Unread::Store(error) => store_failed(&error),
            Unread::CutOff(error) => store_failed(&error),
        }
    }
}

/// What waiting for more came to.
#[derive(PartialEq)]
enum Waited {
    /// There may be more now.
    ForMore,
    /// Nobody fetches the content any more.
    ForNothing,
}

/// Waits until more was stored, nobody fetches any more, or it is `until`.
async fn wait(stored: &mut Option<Stored>, until: Instant) -> Waited {
    let Some(watch) = stored else { return Waited::ForNothing };
    tokio::select! {
        // Cancel-safe: it only waits.
        changed = watch.changed() => {
            // What was stored last is looked at once more before giving up.
            if changed.is_err() {
                *stored = None;
            }
            Waited::ForMore
        }
        () = tokio::time::sleep_until(until.into()) => Waited::ForMore,
    }
}

/// Tells a peer that its request came too late.
pub(super) async fn refuse_draining(mut send: SendStream) {
    let answer = sutler_protocol::frame::encode(&Answer::Refused(Refusal::Draining));
    // It fails only if the peer is gone, or wants the answer no more.
    if send.write_chunk(answer.into()).await.is_ok() {
        let _ = send.finish();
        let _ = send.stopped().await;
    }
}

fn reset(send: &mut SendStream, code: CloseCode) {
    // It fails only if the stream is over already.
    let _ = send.reset(wire::code(code));
}

//! The bytes that a client is given: from the store, from a flight while it flies, or straight from
//! an origin.
//!
//! A task reads ahead by [`AHEAD`] blocks, on a worker of its own, and waits for the client by a
//! bounded queue: what a client does not take is not read. A body that cannot be given to its end
//! breaks the connection, so that no client takes a part for the whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use sutler_cache::Content;
use sutler_swarm::disk::Disk;
use sutler_swarm::origin::{OriginBody, Origins, Validators};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::blocks::{self, Block, Blocks};
use super::flight::{Flight, Grows, Label};
use super::tally::Tally;

/// Bytes read at a time, at most.
const BLOCK_BYTES: u64 = blocks::BLOCK_BYTES as u64;

/// Blocks read before the client asks for them.
const AHEAD: usize = 2;

/// A reply's body.
#[derive(Debug)]
pub(super) struct ReplyBody(Kind);

#[derive(Debug)]
enum Kind {
    /// All of it, or nothing.
    Ready(Option<Bytes>),
    /// What a task reads; with how many bytes are left, where that is known.
    Read(mpsc::Receiver<io::Result<Bytes>>, Option<u64>),
}

/// What reads bodies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) disk: Arc<Disk>,
    pub(super) blocks: Blocks,
    pub(super) origins: Origins,
    pub(super) tally: Arc<Tally>,
    /// Owns the tasks that read; each ends with its client.
    pub(super) tasks: TaskTracker,
}

impl ReplyBody {
    /// Returns a body of nothing.
    pub(super) const fn empty() -> Self {
        Self(Kind::Ready(None))
    }

    /// Returns a body that is here already.
    pub(super) fn of(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Ready(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty())))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Ready(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Read(blocks, left) => {
                let next = blocks.poll_recv(context);
                if let (Poll::Ready(Some(Ok(bytes))), Some(left)) = (&next, left) {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                next.map(|block| block.map(|block| block.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Ready(None) | Kind::Read(_, Some(0)))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Ready(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Read(_, Some(left)) => SizeHint::with_exact(*left),
            Kind::Read(_, None) => SizeHint::default(),
        }
    }
}

impl Reader {
    /// Returns the bytes `start..end` of a content that has them all.
    ///
    /// # Errors
    ///
    /// What the disk answered to the first block; a later one breaks the body.
    pub(super) async fn content(
        &self,
        content: Content,
        start: u64,
        end: u64,
        keep: Option<Arc<dyn Send + Sync>>,
    ) -> io::Result<ReplyBody> {
        self.tally.disk_bytes.add(end - start);
        if end - start <= BLOCK_BYTES {
            let block = self.read_content(&content, start, end).await?;
            return Ok(ReplyBody::of(block.freeze()));
        }
        let (blocks, body) = mpsc::channel(AHEAD);
        let reader = self.clone();
        self.tasks.spawn(async move {
            let _keep = keep;
            reader.give_content(&content, start, end, &blocks).await;
        });
        Ok(ReplyBody(Kind::Read(body, Some(end - start))))
    }

    /// Reads a content's bytes to their end, or until the client is gone.
    async fn give_content(
        &self,
        content: &Content,
        mut at: u64,
        end: u64,
        blocks: &mpsc::Sender<io::Result<Bytes>>,
    ) {
        while at < end {
            let until = end.min(at + self.blocks.room() as u64);
            let read = self.read_content(content, at, until).await;
            if blocks.send(read.map(Block::freeze)).await.is_err() {
                return;
            }
            at = until;
        }
    }

    /// Reads some bytes of a content, at most [`BLOCK_BYTES`].
    async fn read_content(&self, content: &Content, start: u64, end: u64) -> io::Result<Block> {
        let content = content.clone();
        self.read((end - start) as usize, move |into| {
            content.read(start..end, into).map_err(io::Error::other)
        })
        .await
    }

    /// Fills a block where the disk may keep its caller waiting.
    async fn read(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Block> {
        let mut block = self.blocks.take(len);
        let read = self.disk.run(move || fill(block.bytes()).map(|()| block));
        read.await.map_err(io::Error::other)?
    }

    /// Returns the bytes of a flight from `start` on, to `end` or to its own end, as long as it is in
    /// the epoch in which it was announced to the client.
    pub(super) fn flight(
        &self,
        flight: Flight,
        epoch: u32,
        start: u64,
        end: Option<u64>,
    ) -> ReplyBody {
        let (blocks, body) = mpsc::channel(AHEAD);
        let reader = self.clone();
        let following = Following { reader, flight, epoch, at: start, end, blocks };
        self.tasks.spawn(following.run());
        ReplyBody(Kind::Read(body, end.map(|end| end - start)))
    }

    /// Returns what an origin sends, which nobody keeps.
    pub(super) fn relay(&self, mut body: OriginBody, len: Option<u64>) -> ReplyBody {
        let (blocks, passed) = mpsc::channel(AHEAD);
        let tally = self.tally.clone();
        self.tasks.spawn(async move { relay(&mut body, &blocks, &tally).await });
        ReplyBody(Kind::Read(passed, len))
    }
}

/// Gives an origin's bytes on as they come.
async fn relay(body: &mut OriginBody, blocks: &mpsc::Sender<io::Result<Bytes>>, tally: &Tally) {
    loop {
        let block = match body.next().await {
            Ok(Some(block)) => Ok(block),
            Ok(None) => return,
            Err(error) => Err(io::Error::other(error)),
        };
        tally.passed_bytes.add(block.as_ref().map_or(0, Bytes::len) as u64);
        if blocks.send(block).await.is_err() {
            return;
        }
    }
}

/// One client of a flight.
struct Following {
    reader: Reader,
    flight: Flight,
    epoch: u32,
    at: u64,
    end: Option<u64>,
    blocks: mpsc::Sender<io::Result<Bytes>>,
}

/// What a client of a flight does next.
enum Next {
    /// Read up to this byte from where the flight keeps them.
    Part(Grows, u64),
    /// Read the rest from the content that it has become.
    Content(Content),
    /// Fetch the rest itself: they are not kept.
    Pass(Label),
    /// Give up.
    Break(String),
}

impl Following {
    async fn run(mut self) {
        let epoch = self.epoch;
        while self.end.is_none_or(|end| self.at < end) {
            let given = match self.next(epoch).await {
                Next::Part(part, until) => {
                    let read = self.read_part(part, until).await;
                    // What was read is void if the file was begun anew meanwhile.
                    if self.flight.state.borrow().epoch == epoch {
                        self.give(read.map(Block::freeze)).await
                    } else {
                        self.give(Err(io::Error::other("the file changed at its origin"))).await
                    }
                }
                Next::Content(content) => {
                    let end = self.end.unwrap_or(content.geometry().len());
                    self.reader.tally.passed_bytes.add(end.saturating_sub(self.at));
                    return self.reader.give_content(&content, self.at, end, &self.blocks).await;
                }
                Next::Pass(label) => return self.pass(&label).await,
                Next::Break(why) => self.give(Err(io::Error::other(why))).await,
            };
            if given.is_break() {
                return;
            }
        }
    }

    /// Waits until there is something to be given, or nothing will be.
    async fn next(&mut self, epoch: u32) -> Next {
        let (at, is_vouched) = (self.at, self.flight.is_vouched);
        let state = self.flight.state.wait_for(|state| {
            state.epoch != epoch || state.end.is_some() || state.readable(is_vouched) > at
        });
        let Ok(state) = state.await else {
            return Next::Break("the fetch was cut off".to_owned());
        };
        match &state.end {
            _ if state.epoch != epoch => Next::Break("the file changed at its origin".to_owned()),
            Some(Ok(content)) => Next::Content(content.clone()),
            Some(Err(failed)) if failed.is_ours() => {
                Next::Pass(state.label.clone().unwrap_or_default())
            }
            Some(Err(failed)) => Next::Break(failed.text()),
            None => match &state.grows {
                Some(part) => Next::Part(part.clone(), state.readable(is_vouched)),
                None => Next::Break("the file lies nowhere".to_owned()),
            },
        }
    }

    async fn read_part(&self, part: Grows, until: u64) -> io::Result<Block> {
        let room = self.reader.blocks.room() as u64;
        let until = until.min(self.at + room).min(self.end.unwrap_or(u64::MAX));
        let at = self.at;
        let fill = move |into: &mut [u8]| match part {
            Grows::Part(part) => part.read_exact_at(into, at),
            Grows::Content(content) => content.read(at..until, into).map_err(io::Error::other),
        };
        self.reader.read((until - at) as usize, fill).await
    }

    async fn give(&mut self, block: io::Result<Bytes>) -> std::ops::ControlFlow<()> {
        let is_last = block.is_err();
        if let Ok(block) = &block {
            self.at += block.len() as u64;
            self.reader.tally.passed_bytes.add(block.len() as u64);
        }
        let given = self.blocks.send(block).await;
        if is_last || given.is_err() {
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Fetches the rest from the origin, for this client alone: there is no room to keep it.
    async fn pass(&mut self, label: &Label) {
        let validators = Validators {
            etag: label.etag.clone(),
            last_modified: label.last_modified.clone(),
            len: label.len,
        };
        debug!(url = self.flight.url.path(), at = self.at, "passed on without being kept");
        let asked = match self.end {
            Some(end) => {
                self.reader.origins.read(&self.flight.url, self.at..end, &validators).await
            }
            None => self.reader.origins.whole(&self.flight.url, self.at, &validators).await,
        };
        match asked {
            Ok(mut body) => relay(&mut body, &self.blocks, &self.reader.tally).await,
            // Nobody to tell if the client is gone.
            Err(error) => drop(self.blocks.send(Err(io::Error::other(error))).await),
        }
    }
}

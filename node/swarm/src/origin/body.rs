//! The bytes of a good reply, exactly as many as were asked for.
//!
//! Invariants:
//! - what is delivered never exceeds what was asked for, whatever the origin sends;
//! - `None` is said only after the last byte; every early end is an error, and stays one.

use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::Response;
use sutler_protocol::geometry::CONTENT_BYTES_MAX;
use tokio::time::{Instant, timeout};

use crate::origin::OriginFile;
use crate::origin::allow::Shown;
use crate::origin::error::OriginError;
use crate::origin::pace::{Pace, Patience, TooSlow};
use crate::origin::reply::{Reading, Rest};

/// How long a body's end may linger after its last byte: it mostly comes in the same packet.
const END_WAIT: Duration = Duration::from_secs(1);

/// A body that is being read.
///
/// Holds its connection back while it is not read: at most the client's buffer, 400 KiB, and what
/// the kernel holds, lie in memory.
#[derive(Debug)]
pub struct OriginBody {
    state: State,
    file: OriginFile,
    /// Bytes to drop before the first that was asked for.
    skip: u64,
    /// Bytes to deliver; `None`: until the body ends.
    take: Option<u64>,
    delivered: u64,
    received: u64,
    rest: Rest,
    pace: Pace,
}

#[derive(Debug)]
enum State {
    Open(Response),
    Ended,
    Failed,
}

impl OriginBody {
    pub(crate) fn new(
        response: Option<Response>,
        file: OriginFile,
        reading: &Reading,
        patience: Patience,
    ) -> Self {
        let &Reading { skip, take, rest, .. } = reading;
        let state = response.map_or(State::Ended, State::Open);
        Self { state, file, skip, take, delivered: 0, received: 0, rest, pace: Pace::new(patience) }
    }

    /// Returns the number of bytes that the body delivers in all, where it is known before its end.
    #[expect(clippy::len_without_is_empty, reason = "a length that may be unknown has no opposite")]
    pub fn len(&self) -> Option<u64> {
        self.take
    }

    /// Returns the number of bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns the number of bytes of the body that came so far, those among them that were dropped:
    /// what this body cost.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns what the reply says about the file, so that a reader needs no probe before.
    pub fn file(&self) -> &OriginFile {
        &self.file
    }

    /// Returns the next bytes, never empty, or `None` after the last.
    ///
    /// Cancel-safe: bytes leave the connection only when they are returned, and the time waited in
    /// a dropped call counts towards the origin's silence.
    ///
    /// # Errors
    ///
    /// [`OriginError`] if the body stalls, is too slow, fails, or is shorter or longer than it
    /// should be. Every later call is then [`OriginError::Spent`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        let next = self.read().await;
        match &next {
            Ok(Some(_)) => {}
            // The connection goes back, or is closed, before the caller looks at the bytes.
            Ok(None) => self.state = State::Ended,
            Err(_) => self.state = State::Failed,
        }
        next
    }

    async fn read(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            let response = match &mut self.state {
                State::Open(response) => response,
                State::Ended => return Ok(None),
                State::Failed => return Err(OriginError::Spent { url: self.url() }),
            };
            if self.skip == 0 && self.take == Some(self.delivered) {
                return if self.rest == Rest::Nothing && follows(response).await {
                    Err(self.long())
                } else {
                    Ok(None)
                };
            }
            match self.receive().await? {
                Some(chunk) => {
                    let wanted = self.cut(chunk)?;
                    if !wanted.is_empty() {
                        self.delivered += wanted.len() as u64;
                        return Ok(Some(wanted));
                    }
                }
                None if self.skip == 0 && self.take.is_none() => {
                    self.take = Some(self.delivered);
                    return Ok(None);
                }
                None => {
                    let missing = self.skip + self.missing().unwrap_or(0);
                    return Err(OriginError::Short { url: self.url(), missing });
                }
            }
        }
    }

    /// Receives the next part of the body as it comes. Cancel-safe, as [`Response::chunk`] is: it
    /// takes a frame only to return it.
    async fn receive(&mut self) -> Result<Option<Bytes>, OriginError> {
        let State::Open(response) = &mut self.state else { return Ok(None) };
        let left = self.pace.silence_left();
        // Counts its time when it is dropped, so in an abandoned call too.
        let lap = Lap { pace: &mut self.pace, since: Instant::now() };
        let received = timeout(left, response.chunk()).await;
        drop(lap);
        match received {
            Err(_) => Err(OriginError::Silent { url: self.url(), after: self.pace.stall() }),
            Ok(Err(error)) => {
                Err(OriginError::Receive { url: self.url(), source: error.without_url() })
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(chunk))) => {
                self.received += chunk.len() as u64;
                match self.pace.received(chunk.len() as u64) {
                    Ok(()) => Ok(Some(chunk)),
                    Err(TooSlow { bytes, over }) => {
                        Err(OriginError::Slow { url: self.url(), bytes, over })
                    }
                }
            }
        }
    }

    /// Cuts what was asked for out of what came: perhaps nothing of it.
    fn cut(&mut self, mut chunk: Bytes) -> Result<Bytes, OriginError> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        chunk.advance(skipped as usize);
        let missing = self.missing().unwrap_or(CONTENT_BYTES_MAX - self.delivered);
        if chunk.len() as u64 > missing {
            if self.rest == Rest::Nothing {
                return Err(self.long());
            }
            chunk.truncate(missing as usize);
        }
        Ok(chunk)
    }

    /// Bytes that are still to be delivered, where that is known.
    fn missing(&self) -> Option<u64> {
        self.take.map(|take| take - self.delivered)
    }

    fn long(&self) -> OriginError {
        let expected = self.take.unwrap_or(CONTENT_BYTES_MAX);
        OriginError::Long { url: self.url(), expected }
    }

    fn url(&self) -> Shown {
        Shown::from(&self.file.final_url)
    }
}

/// Looks past the last byte. Only more bytes count: an end that fails or lingers takes nothing
/// from what was delivered. Cancel-safe: of bytes that it drops, none is wanted.
///
/// Where the reply has a length of its own, the client knows the end without waiting; reading it
/// frees the connection for the next question.
async fn follows(response: &mut Response) -> bool {
    let more = timeout(END_WAIT, response.chunk()).await;
    matches!(more, Ok(Ok(Some(bytes))) if !bytes.is_empty())
}

/// One wait for the origin.
struct Lap<'a> {
    pace: &'a mut Pace,
    since: Instant,
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        self.pace.waited(self.since.elapsed());
    }
}

/// How long a reply's head may take: connection, request, and the origin's own thinking.
pub(crate) fn head_timeout(connect: Duration, patience: Patience) -> Duration {
    connect + patience.stall
}

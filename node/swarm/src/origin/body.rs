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

/// A body that is being read.
///
/// Holds its connection back while it is not read: at most the client's buffer, 400 KiB, and what
/// the kernel holds, lie in memory.
#[derive(Debug)]
pub struct OriginBody {
    /// `None` once the last byte came, or the body failed.
    response: Option<Response>,
    file: OriginFile,
    /// Bytes to drop before the first that was asked for.
    skip: u64,
    /// Bytes to deliver; `None`: until the body ends.
    take: Option<u64>,
    delivered: u64,
    rest: Rest,
    pace: Pace,
}

impl OriginBody {
    pub(crate) fn new(
        response: Option<Response>,
        file: OriginFile,
        reading: &Reading,
        patience: Patience,
    ) -> Self {
        let &Reading { skip, take, rest, .. } = reading;
        let pace = Pace::new(patience);
        Self { response, file, skip, take, delivered: 0, rest, pace }
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
    /// should be. Every later call is then an error too.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            if self.missing() == Some(0) && self.skip == 0 {
                self.response = None;
                return Ok(None);
            }
            let chunk = match self.receive().await {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.response = None;
                    return Err(error);
                }
            };
            let Some(chunk) = chunk else {
                self.response = None;
                if self.take.is_none() && self.skip == 0 {
                    self.take = Some(self.delivered);
                    return Ok(None);
                }
                return Err(self.short());
            };
            if let Some(wanted) = self.cut(chunk)? {
                return Ok(Some(wanted));
            }
        }
    }

    /// Bytes that are still to be delivered, where that is known.
    fn missing(&self) -> Option<u64> {
        self.take.map(|take| take - self.delivered)
    }

    /// Receives the next part of the body as it comes. Cancel-safe, as [`Response::chunk`] is: it
    /// takes a frame only to return it.
    async fn receive(&mut self) -> Result<Option<Bytes>, OriginError> {
        let Some(response) = &mut self.response else {
            return Err(self.short());
        };
        let left = self.pace.silence_left();
        // Counts its time when it is dropped, so in an abandoned call too.
        let lap = Lap { pace: &mut self.pace, since: Instant::now() };
        let received = timeout(left, response.chunk()).await;
        drop(lap);
        let url = || Shown::from(&self.file.final_url);
        match received {
            Err(_) => Err(OriginError::Silent { url: url(), after: self.pace.stall() }),
            Ok(Err(error)) => Err(OriginError::Receive { url: url(), source: error.without_url() }),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(chunk))) => match self.pace.received(chunk.len() as u64) {
                Ok(()) => Ok(Some(chunk)),
                Err(TooSlow { bytes, over }) => Err(OriginError::Slow { url: url(), bytes, over }),
            },
        }
    }

    /// Cuts what was asked for out of what came, or `None` if nothing of it was.
    fn cut(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, OriginError> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        chunk.advance(skipped as usize);
        let missing = self.missing().unwrap_or(CONTENT_BYTES_MAX - self.delivered);
        if chunk.len() as u64 > missing {
            if self.rest == Rest::Nothing {
                self.response = None;
                let expected = self.take.unwrap_or(CONTENT_BYTES_MAX);
                return Err(OriginError::Long { url: Shown::from(&self.file.final_url), expected });
            }
            chunk.truncate(missing as usize);
        }
        self.delivered += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn short(&self) -> OriginError {
        let missing = self.skip + self.missing().unwrap_or(0);
        OriginError::Short { url: Shown::from(&self.file.final_url), missing }
    }
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

//! The serving half of a transfer, without IO: what to send next, and when to give up waiting.
//!
//! A [`Serve`] answers one request for chunks from a content that may still be arriving. Its driver
//! asks [`Serve::next`] with the chunks had at that moment, reads and sends what it is told, and
//! asks again.
//!
//! Invariants:
//! - only chunks that are had are ever sent, in the order asked for;
//! - one step sends at most [`STEP_BYTES_MAX`] bytes;
//! - a wait ends at the request's deadline, or [`WAIT_MAX`] after the last chunk came.

use std::time::{Duration, Instant};

use crate::frame::{ChunksRequest, Refusal};
use crate::geometry::{ChunkIndex, Geometry};
use crate::ranges::{ChunkRange, ChunkRanges};

/// Bytes that one step reads and sends, at most, also of a chunk that has more: larger reads gain nothing, and they are
/// what a slow reader makes us hold. Eight GiB in chunks of 512 KiB cost a server 83 MiB that way.
pub const STEP_BYTES_MAX: u64 = 128 * 1024;

/// How long a request waits for a chunk that is promised and does not come.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// One request for chunks that is being answered.
#[derive(Debug)]
pub struct Serve {
    geometry: Geometry,
    next: ChunkIndex,
    end: ChunkIndex,
    skip_bytes: u64,
    deadline: Option<Instant>,
    waiting_since: Instant,
    promise: Promise,
}

/// What is known of the chunks that are not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// They will come: the content is being filled.
    Coming,
    /// They will not: what is had is all there is.
    None,
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read these bytes of the content, all within `chunks`, and send them.
    Send {
        /// The chunks that the bytes lie in, all had.
        chunks: ChunkRange,
        /// Positions in the content.
        bytes: std::ops::Range<u64>,
    },
    /// Nothing can be sent before more chunks arrive; ask again then, or at this moment.
    Wait {
        /// When the wait is over.
        until: Instant,
    },
    /// Give up: answer or reset with this.
    Refuse(Refusal),
    /// Everything was sent.
    Done,
}

impl Serve {
    /// Accepts a request for chunks of a content of this geometry.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] to answer with.
    pub fn new(
        request: &ChunksRequest,
        geometry: Geometry,
        promise: Promise,
        now: Instant,
    ) -> Result<Self, Refusal> {
        let range = request.range(geometry)?;
        let deadline = (request.deadline_ms > 0)
            .then(|| now + Duration::from_millis(request.deadline_ms.into()));
        Ok(Self {
            geometry,
            next: range.start(),
            end: range.end(),
            skip_bytes: request.skip_bytes,
            deadline,
            waiting_since: now,
            promise,
        })
    }

    /// Returns the raw bytes that are still to be sent.
    pub fn remaining_bytes(&self) -> u64 {
        ChunkRange::new(self.next, self.end).map_or(0, |rest| {
            let bytes = self.geometry.bytes(rest);
            bytes.end - bytes.start - self.skip_bytes
        })
    }

    /// Takes note that nothing more will come: the content is no longer being filled.
    pub fn handle_no_more(&mut self) {
        self.promise = Promise::None;
    }

    /// Returns what to do at `now`, given the chunks that are had.
    pub fn next(&mut self, had: &ChunkRanges, now: Instant) -> Step {
        if self.next == self.end {
            return Step::Done;
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Step::Refuse(Refusal::NotHeld);
        }
        let Some(chunks) = self.ready(had) else {
            return self.wait(now);
        };
        let all = self.geometry.bytes(chunks);
        let start = all.start + self.skip_bytes;
        let end = all.end.min(start + STEP_BYTES_MAX);
        // Only a chunk that is larger than a step is sent in several.
        (self.next, self.skip_bytes) =
            if end == all.end { (chunks.end(), 0) } else { (self.next, end - all.start) };
        self.waiting_since = now;
        Step::Send { chunks, bytes: start..end }
    }

    /// Returns the longest run of had chunks from the next one on that fits a step.
    fn ready(&self, had: &ChunkRanges) -> Option<ChunkRange> {
        let step_chunks = (STEP_BYTES_MAX / self.geometry.chunk_bytes()).max(1) as u32;
        let limit = self.end.0.min(self.next.0 + step_chunks);
        let end = (self.next.0..limit).take_while(|chunk| had.contains(ChunkIndex(*chunk))).count();
        ChunkRange::new(self.next, ChunkIndex(self.next.0 + end as u32))
    }

    fn wait(&self, now: Instant) -> Step {
        let patience = self.waiting_since + WAIT_MAX;
        let until = self.deadline.map_or(patience, |deadline| deadline.min(patience));
        if self.promise == Promise::None || now >= until {
            return Step::Refuse(Refusal::NotHeld);
        }
        Step::Wait { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentId;
    use crate::frame::Class;

    fn request(start: u32, end: u32, skip_bytes: u64, deadline_ms: u32) -> ChunksRequest {
        let content = ContentId::from_bytes([0; 32]);
        let len = 10 * 65_536;
        ChunksRequest { content, len, start, end, skip_bytes, class: Class::Normal, deadline_ms }
    }

    fn geometry() -> Geometry {
        Geometry::of(10 * 65_536).unwrap()
    }

    #[test]
    fn what_is_had_is_sent_in_steps_and_the_rest_is_waited_for() {
        let now = Instant::now();
        let mut had = ChunkRanges::empty(10);
        had.insert_range(ChunkRange::first(6).unwrap());
        let mut serve =
            Serve::new(&request(1, 8, 10, 0), geometry(), Promise::Coming, now).unwrap();
        assert_eq!(serve.remaining_bytes(), 7 * 65_536 - 10);
        let Step::Send { bytes, .. } = serve.next(&had, now) else { panic!("chunks 1..3 are had") };
        assert_eq!(bytes, 65_536 + 10..3 * 65_536);
        let Step::Send { bytes, .. } = serve.next(&had, now) else { panic!("chunks 3..5 are had") };
        assert_eq!(bytes, 3 * 65_536..5 * 65_536);
        let Step::Send { bytes, .. } = serve.next(&had, now) else { panic!("chunk 5 is had") };
        assert_eq!(bytes, 5 * 65_536..6 * 65_536);
        assert_eq!(serve.next(&had, now), Step::Wait { until: now + WAIT_MAX });
        had.insert_range(geometry().all());
        assert!(matches!(serve.next(&had, now), Step::Send { .. }));
        assert_eq!(serve.next(&had, now), Step::Done);
    }

    #[test]
    fn a_chunk_larger_than_a_step_is_sent_in_several() {
        let (now, len) = (Instant::now(), 8 << 30);
        let geometry = Geometry::of(len).unwrap();
        assert_eq!(geometry.chunk_bytes(), 4 * STEP_BYTES_MAX);
        let mut had = ChunkRanges::empty(geometry.chunks());
        had.insert_range(ChunkRange::first(1).unwrap());
        let asked = ChunksRequest { len, ..request(0, 2, 100, 0) };
        let mut serve = Serve::new(&asked, geometry, Promise::None, now).unwrap();
        let mut position = 100;
        for _ in 0..4 {
            let left = serve.remaining_bytes();
            let Step::Send { bytes, .. } = serve.next(&had, now) else { panic!("chunk 0 is had") };
            assert_eq!(bytes.start, position);
            position = bytes.end;
            assert!(bytes.end - bytes.start <= STEP_BYTES_MAX);
            assert_eq!(serve.remaining_bytes(), left - (bytes.end - bytes.start));
        }
        assert_eq!(position, geometry.chunk_bytes());
        assert_eq!(serve.next(&had, now), Step::Refuse(Refusal::NotHeld));
    }

    #[test]
    fn a_chunk_that_never_comes_is_given_up_at_the_bound_and_not_before() {
        let now = Instant::now();
        let had = ChunkRanges::empty(10);
        for (deadline_ms, patience) in [(0, WAIT_MAX), (1_500, Duration::from_millis(1_500))] {
            let asked = request(0, 1, 0, deadline_ms);
            let mut serve = Serve::new(&asked, geometry(), Promise::Coming, now).unwrap();
            let almost = now + patience.saturating_sub(Duration::from_millis(1));
            assert_eq!(serve.next(&had, almost), Step::Wait { until: now + patience });
            assert_eq!(serve.next(&had, now + patience), Step::Refuse(Refusal::NotHeld));
        }
    }

    #[test]
    fn a_chunk_that_is_not_promised_is_refused_at_once() {
        let now = Instant::now();
        let asked = request(0, 1, 0, 0);
        let mut serve = Serve::new(&asked, geometry(), Promise::None, now).unwrap();
        assert_eq!(serve.next(&ChunkRanges::empty(10), now), Step::Refuse(Refusal::NotHeld));
    }
}

//! The books of a fetch: which requests are open, and what each still owes.

use std::time::Instant;

use super::partial::Partial;
use super::source::Parts;
use super::{Ask, Event, Fetch, RequestId, SLOW_FACTOR, SourceId};
use crate::geometry::ChunkIndex;
use crate::ranges::ChunkRange;

/// A request that was sent and has not ended.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceId,
    /// What it was asked for.
    pub(super) chunks: ChunkRange,
    /// Bytes of the first chunk that it was not asked for, and who had sent them.
    pub(super) skip_bytes: u64,
    pub(super) skipped_from: Vec<(SourceId, u64)>,
    /// Those bytes, until whoever receives the answer takes them.
    pub(super) goes_on_from: Option<Partial>,
    /// The first chunk that was not settled; what comes before was stored or did not verify.
    pub(super) next: ChunkIndex,
    pub(super) started: Instant,
    /// When it was last seen to be alive.
    pub(super) last_byte: Instant,
    /// Bytes that came since, too few to count.
    pub(super) trickle_bytes: u64,
    /// When another source may take it over, by what it is expected to need.
    pub(super) due: Instant,
}

impl Fetch {
    pub(super) fn open(&mut self, id: SourceId, chunks: ChunkRange, now: Instant) -> Ask {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        // Whoever gives no parts sends all of it anyway.
        let gives_parts = self.sources.get(&id).is_some_and(|source| source.parts != Parts::Never);
        let partial = if gives_parts { self.partials.take(chunks.start()) } else { None };
        let skip_bytes = self.book(request, id, chunks, partial, now);
        Ask { request, source: id, chunks, skip_bytes }
    }

    /// Enters a request in the books, and returns what it need not bring of its first chunk.
    pub(super) fn book(
        &mut self,
        request: RequestId,
        id: SourceId,
        chunks: ChunkRange,
        goes_on_from: Option<Partial>,
        now: Instant,
    ) -> u64 {
        for chunk in chunks.iter() {
            self.asked[chunk.0 as usize] += 1;
        }
        let partial = goes_on_from.as_ref();
        let mut opened = Request {
            source: id,
            chunks,
            skip_bytes: partial.map_or(0, |partial| partial.bytes().len() as u64),
            skipped_from: partial.map_or_else(Vec::new, |partial| partial.from().to_vec()),
            goes_on_from,
            next: chunks.start(),
            started: now,
            last_byte: now,
            trickle_bytes: 0,
            due: now,
        };
        let bytes = self.owed_bytes(&opened);
        opened.due = now + self.expected(id, bytes) * SLOW_FACTOR;
        if let Some(source) = self.sources.get_mut(&id) {
            source.open(bytes, now);
        }
        let skip_bytes = opened.skip_bytes;
        self.requests.insert(request, opened);
        skip_bytes
    }

    /// Takes a request off the books; what it did not settle may be asked for again.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Request> {
        let mut request = self.requests.remove(&id)?;
        if let Some(rest) = ChunkRange::new(request.next, request.chunks.end()) {
            for chunk in rest.iter() {
                self.forget(chunk);
            }
        }
        let open_bytes = self.owed_bytes(&request);
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.close(open_bytes);
        }
        if let Some(partial) = request.goes_on_from.take() {
            // Nobody took it to go on from it.
            self.handle_partial(request.source, partial);
        }
        Some(request)
    }

    /// Returns the bytes that a request has not settled.
    pub(super) fn owed_bytes(&self, request: &Request) -> u64 {
        let Some(rest) = ChunkRange::new(request.next, request.chunks.end()) else { return 0 };
        let bytes = self.geometry.bytes(rest);
        let is_begun = request.next > request.chunks.start();
        bytes.end - bytes.start - if is_begun { 0 } else { request.skip_bytes }
    }

    pub(super) fn chunk_len(&self, chunk: ChunkIndex) -> u64 {
        let place = self.geometry.chunk(chunk);
        place.end - place.start
    }

    pub(super) fn forget(&mut self, chunk: ChunkIndex) {
        if let Some(asked) = self.asked.get_mut(chunk.0 as usize) {
            *asked = asked.saturating_sub(1);
        }
    }

    /// Stops the requests that still owe something of which nothing is missing any more.
    pub(super) fn cancel_superfluous(&mut self) {
        let superfluous: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                ChunkRange::new(request.next, request.chunks.end())
                    .is_some_and(|rest| !rest.iter().any(|chunk| self.missing.contains(chunk)))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in superfluous {
            self.close(id);
            self.events.push_back(Event::Cancel(id));
        }
    }
}

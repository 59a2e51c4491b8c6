//! Both halves of a transfer against crowds of sources of every manner, on virtual time.
//!
//! Each case is drawn at random: how many sources, what each holds, how fast and how honest it is.
//! What must hold is the same for all of them.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use sutler_protocol::fetch::{Ask, End, Event, Fetch, Kind, Partial, RequestId, SourceId, Status};
use sutler_protocol::frame::{ChunksRequest, Class, Refusal};
use sutler_protocol::geometry::CHUNK_BYTES_MIN;
use sutler_protocol::serve::{Promise, Serve, Step};
use sutler_protocol::{ChunkIndex, ChunkRange, ChunkRanges, ContentId, Geometry};

const TICK: Duration = Duration::from_millis(5);

/// What a source does when it is asked.
#[derive(Clone, Debug)]
enum Manner {
    /// Sends what it was asked for.
    Honest,
    /// Sends other bytes, always.
    Liar,
    /// Takes the request and says nothing.
    Silent,
    /// Sends part of what it was asked for and ends as if that were all.
    Cuts,
    /// Says that it is busy, always.
    Busy,
    /// Says that it has nothing after all.
    Empty,
    /// Is honest until its connection breaks, after so many ticks.
    Breaks(u32),
    /// Sends other bytes until its connection breaks, after so many ticks.
    LiesAndBreaks(u32),
}

impl Manner {
    const fn lies(&self) -> bool {
        matches!(self, Self::Liar | Self::LiesAndBreaks(_))
    }
}

#[derive(Clone, Debug)]
struct Simulated {
    manner: Manner,
    bytes_per_tick: u64,
    /// Holds the chunks of which this bit (by the chunk's index modulo 16) is set.
    held: u16,
    kind: Kind,
    /// Answers with all of the content, whatever it is asked for. Only a vendor does.
    gives_whole: bool,
}

/// A request as the simulated network sees it.
struct Open {
    ask: Ask,
    /// What came of the next chunk: zeros from the honest, ones from the others.
    partial: Partial,
}

impl Open {
    fn next(&self) -> ChunkIndex {
        self.partial.chunk()
    }
}

struct Crowd {
    fetch: Fetch,
    geometry: Geometry,
    sources: Vec<Simulated>,
    open: Vec<Open>,
    now: Instant,
    ticks: u32,
}

fn sources() -> impl Strategy<Value = Vec<Simulated>> {
    let manner = prop_oneof![
        4 => Just(Manner::Honest),
        3 => Just(Manner::Liar),
        1 => Just(Manner::Silent),
        1 => Just(Manner::Cuts),
        1 => Just(Manner::Busy),
        1 => Just(Manner::Empty),
        2 => (1..400_u32).prop_map(Manner::Breaks),
        1 => (1..400_u32).prop_map(Manner::LiesAndBreaks),
    ];
    let held = prop_oneof![2 => Just(u16::MAX), 1 => any::<u16>()];
    let kind = prop_oneof![5 => Just(Kind::Peer), 1 => Just(Kind::Vendor)];
    let source = (manner, 1..4_000_u64, held, kind, any::<bool>());
    let source = source.prop_map(|(manner, rate, held, kind, gives_whole)| {
        let gives_whole = gives_whole && kind == Kind::Vendor;
        let held = if gives_whole { u16::MAX } else { held };
        Simulated { manner, bytes_per_tick: rate * 100, held, kind, gives_whole }
    });
    vec(source, 1..10)
}

impl Simulated {
    fn held(&self, geometry: Geometry) -> ChunkRanges {
        let mut held = ChunkRanges::empty(geometry.chunks());
        for chunk in geometry.all().iter().filter(|chunk| self.held >> (chunk.0 % 16) & 1 == 1) {
            held.insert(chunk);
        }
        held
    }
}

impl Crowd {
    fn new(chunks: u64, sources: Vec<Simulated>, claimant: Option<u32>, seed: u64) -> Self {
        let geometry = Geometry::of(chunks * CHUNK_BYTES_MIN - 1).unwrap();
        let now = Instant::now();
        let missing = ChunkRanges::full(geometry.chunks());
        let mut fetch = Fetch::new(geometry, missing, claimant.map(SourceId), seed, now);
        for (id, source) in (0..).map(SourceId).zip(&sources) {
            fetch.add_source(id, source.kind, source.held(geometry), TICK);
        }
        Self { fetch, geometry, sources, open: Vec::new(), now, ticks: 0 }
    }

    /// Runs until the fetch is done or stuck. Ten virtual minutes are for ever.
    fn run(&mut self) -> Status {
        while self.fetch.status(self.now) == Status::Running {
            assert!(self.ticks < 120_000, "the fetch goes on for ever");
            self.ask();
            self.now += TICK;
            self.ticks += 1;
            self.answer();
            if self.fetch.poll_timeout().is_some_and(|at| at <= self.now) {
                self.fetch.handle_timeout(self.now);
            }
            self.obey();
        }
        self.fetch.status(self.now)
    }

    fn ask(&mut self) {
        while let Some(ask) = self.fetch.poll_ask(self.now) {
            let source = &self.sources[ask.source.0 as usize];
            let held = source.held(self.geometry);
            assert!(held.contains_range(ask.chunks), "{ask:?} is not held there");
            let is_vendor = |id: SourceId| self.sources[id.0 as usize].kind == Kind::Vendor;
            let is_whole = source.gives_whole && ask.chunks == self.geometry.all();
            for chunk in ask.chunks.iter() {
                let same = self
                    .open
                    .iter()
                    .filter(|open| open.ask.chunks.contains(chunk) && chunk >= open.next());
                let askers: Vec<SourceId> = same.map(|open| open.ask.source).collect();
                assert!(!askers.contains(&ask.source), "{chunk} is asked twice of one source");
                assert!(askers.len() < 2 || is_whole, "{chunk} is asked for by {askers:?} already");
                assert!(
                    source.kind == Kind::Peer || !askers.iter().any(|id| is_vendor(*id)),
                    "{chunk} is asked of two vendors"
                );
                assert!(
                    askers.is_empty() || source.kind == Kind::Peer || is_whole,
                    "{chunk} is asked twice, the second time of the vendor"
                );
            }
            let first = ask.chunks.start();
            let partial = self.fetch.take_partial(ask.request);
            let partial = partial.unwrap_or_else(|| Partial::new(first, Vec::new()));
            assert_eq!((partial.bytes().len() as u64, partial.chunk()), (ask.skip_bytes, first));
            self.open.push(Open { ask, partial });
        }
    }

    fn answer(&mut self) {
        for id in 0..self.sources.len() {
            let Simulated { manner, bytes_per_tick, .. } = self.sources[id].clone();
            let id = SourceId(id as u32);
            let requests: Vec<RequestId> = self
                .open
                .iter()
                .filter(|open| open.ask.source == id)
                .map(|open| open.ask.request)
                .collect();
            match manner {
                Manner::Silent => continue,
                Manner::Breaks(after) | Manner::LiesAndBreaks(after) if self.ticks >= after => {
                    self.fetch.handle_lost(id, "the connection broke".to_owned());
                    self.obey();
                    continue;
                }
                _ => {}
            }
            let share = (bytes_per_tick / (requests.len() as u64).max(1)).max(1);
            for request in requests {
                self.deliver(request, &manner, share);
            }
        }
    }

    fn deliver(&mut self, request: RequestId, manner: &Manner, share: u64) {
        let refusal = match manner {
            Manner::Busy => Some(Refusal::Busy { retry_ms: 50 }),
            Manner::Empty => Some(Refusal::NotHeld),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.end(request, End::Refused(refusal));
        }
        let Some(open) = self.open.iter_mut().find(|open| open.ask.request == request) else {
            return;
        };
        let source = &self.sources[open.ask.source.0 as usize];
        if source.gives_whole && open.ask.chunks != self.geometry.all() {
            open.ask.chunks = self.geometry.all();
            open.partial = Partial::new(ChunkIndex(0), Vec::new());
            self.fetch.handle_whole(request, self.now);
            return self.obey();
        }
        if source.kind == Kind::Vendor {
            self.fetch.handle_part(request);
        }
        let chunk_len = |chunk| {
            let place = self.geometry.chunk(chunk);
            (place.end - place.start) as usize
        };
        self.fetch.handle_bytes(request, share, self.now);
        let mut left = share as usize;
        while left > 0 && open.next() < open.ask.chunks.end() {
            let (next, bytes) = (open.next(), open.partial.bytes_mut());
            let now = left.min(chunk_len(next) - bytes.len());
            bytes.resize(bytes.len() + now, manner.lies().into());
            left -= now;
            if bytes.len() < chunk_len(next) {
                break;
            }
            if bytes.contains(&1) {
                self.fetch.handle_corrupt(request, next);
            } else {
                self.fetch.handle_stored(request, ChunkRange::one(next));
            }
            open.partial = Partial::new(ChunkIndex(next.0 + 1), Vec::new());
        }
        let cut = matches!(manner, Manner::Cuts) && open.next() > open.ask.chunks.start();
        if cut || open.next() == open.ask.chunks.end() {
            self.end(request, End::Finished);
        }
    }

    fn end(&mut self, request: RequestId, end: End) {
        self.hand_back(request);
        self.fetch.handle_end(request, end, self.now);
    }

    /// Takes a request off the network, and keeps what had come of its next chunk.
    fn hand_back(&mut self, request: RequestId) {
        let Some(at) = self.open.iter().position(|open| open.ask.request == request) else {
            return;
        };
        let open = self.open.swap_remove(at);
        self.fetch.handle_partial(open.ask.source, open.partial);
    }

    fn obey(&mut self) {
        while let Some(event) = self.fetch.poll_event() {
            match event {
                Event::Cancel(request) => self.hand_back(request),
                Event::Left(source, reason) => {
                    assert!(self.open.iter().all(|open| open.ask.source != source));
                    let manner = &self.sources[source.0 as usize].manner;
                    let is_bad = reason.to_string().contains("verify");
                    assert!(!is_bad || manner.lies(), "{manner:?} was banned");
                }
                Event::WrongLength(source) => {
                    let manner = &self.sources[source.0 as usize].manner;
                    assert!(manner.lies(), "{manner:?} lied about no length");
                }
            }
        }
    }
}

/// An honest source that has everything and moves 20 MB/s.
fn good() -> Simulated {
    let manner = Manner::Honest;
    let (held, kind) = (u16::MAX, Kind::Peer);
    Simulated { manner, bytes_per_tick: 100_000, held, kind, gives_whole: false }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // T7, T6, N6
    #[test]
    fn one_honest_source_is_enough_in_any_crowd(
        mut others in sources(),
        chunks in 1..120_u64,
        seed in any::<u64>(),
    ) {
        others.push(good());
        let mut crowd = Crowd::new(chunks, others, None, seed);
        prop_assert_eq!(crowd.run(), Status::Done);
        prop_assert!(crowd.fetch.missing().is_empty());
        let good_bytes: u64 = crowd.fetch.reports().map(|(_, report)| report.good_bytes).sum();
        prop_assert_eq!(good_bytes, crowd.geometry.len(), "each byte counts once");
    }

    #[test]
    fn a_claimed_length_is_settled_first_and_an_honest_claimant_is_never_blamed(
        mut others in sources(),
        chunks in 2..60_u64,
        seed in any::<u64>(),
    ) {
        others.push(good());
        let claimant = others.len() as u32 - 1;
        let mut crowd = Crowd::new(chunks, others, Some(claimant), seed);
        crowd.ask();
        let last = crowd.geometry.last();
        let first_asks: Vec<SourceId> = crowd
            .open
            .iter()
            .filter(|open| open.ask.chunks.contains(last))
            .map(|open| open.ask.source)
            .collect();
        prop_assert_eq!(first_asks, [SourceId(claimant)]);
        prop_assert_eq!(crowd.run(), Status::Done);
        prop_assert!(crowd.fetch.is_length_proven());
    }

    #[test]
    fn any_crowd_comes_to_an_end_and_invents_nothing(
        sources in sources(),
        chunks in 1..60_u64,
        seed in any::<u64>(),
    ) {
        let can_have = sources.iter().any(|source| {
            !source.manner.lies()
                && !matches!(source.manner, Manner::Silent | Manner::Busy | Manner::Empty)
        });
        let mut crowd = Crowd::new(chunks, sources, None, seed);
        let status = crowd.run();
        prop_assert!(status != Status::Running);
        prop_assert_eq!(status == Status::Done, crowd.fetch.missing().is_empty());
        prop_assert!(can_have || crowd.fetch.missing().is_full());
    }

    /// Whatever order chunks arrive in, what is sent is the asked bytes, in order, each once.
    #[test]
    fn a_request_is_answered_with_exactly_the_bytes_asked_for(
        chunks in 1..40_u32,
        bounds in any::<[u32; 2]>(),
        skip in any::<u64>(),
        arrivals in vec(0..40_u32, 0..60),
    ) {
        let geometry = Geometry::of(u64::from(chunks) * CHUNK_BYTES_MIN - 77).unwrap();
        let start = bounds[0] % chunks;
        let end = start + 1 + bounds[1] % (chunks - start);
        let first = geometry.chunk(ChunkIndex(start));
        let skip_bytes = skip % (first.end - first.start);
        let request = ChunksRequest {
            content: ContentId::from_bytes([0; 32]),
            len: geometry.len(),
            start,
            end,
            skip_bytes,
            class: Class::Normal,
            deadline_ms: 0,
        };
        let now = Instant::now();
        let mut serve = Serve::new(&request, geometry, Promise::Coming, now).unwrap();
        let wanted = geometry.bytes(ChunkRange::new(ChunkIndex(start), ChunkIndex(end)).unwrap());
        prop_assert_eq!(serve.remaining_bytes(), wanted.end - wanted.start - skip_bytes);

        let mut had = ChunkRanges::empty(chunks);
        let mut position = wanted.start + skip_bytes;
        for arrival in arrivals.into_iter().map(Some).chain([None]) {
            match arrival {
                Some(chunk) => { had.insert(ChunkIndex(chunk)); }
                None => had.insert_range(geometry.all()),
            }
            while let Step::Send { chunks, bytes } = serve.next(&had, now) {
                prop_assert!(had.contains_range(chunks));
                prop_assert_eq!(bytes.start, position);
                position = bytes.end;
            }
        }
        prop_assert_eq!(position, wanted.end);
        prop_assert_eq!(serve.next(&had, now), Step::Done);
    }
}

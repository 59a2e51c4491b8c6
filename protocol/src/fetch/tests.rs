//! The scheduler on virtual time: simulated sources of given speeds and manners.

use super::*;
use crate::geometry::CHUNK_BYTES_MIN;

const MS: Duration = Duration::from_millis(1);

fn geometry(chunks: u64) -> Geometry {
    Geometry::of(chunks * CHUNK_BYTES_MIN).unwrap()
}

fn fetch(chunks: u64, claimant: Option<SourceId>, now: Instant) -> Fetch {
    let geometry = geometry(chunks);
    Fetch::new(geometry, ChunkRanges::full(geometry.chunks()), claimant, 1, now)
}

fn whole(fetch: &Fetch) -> ChunkRanges {
    ChunkRanges::full(fetch.geometry.chunks())
}

/// What a simulated source does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest { bytes_per_ms: u64 },
    Liar { bytes_per_ms: u64 },
    Silent,
}

/// Runs a fetch against sources of these manners until it is done or stuck; returns the time taken.
fn run(fetch: &mut Fetch, manners: &[Manner], start: Instant) -> Duration {
    run_at(fetch, manners, start, MS)
}

/// As [`run`], in steps of `step`, each of which counts as a millisecond of sending, and brings a
/// byte at least.
fn run_at(fetch: &mut Fetch, manners: &[Manner], start: Instant, step: Duration) -> Duration {
    let mut now = start;
    let mut open: Vec<(Ask, u64, ChunkIndex)> = Vec::new();
    while fetch.status(now) == Status::Running {
        assert!(now < start + Duration::from_mins(10), "the fetch never ends");
        while let Some(ask) = fetch.poll_ask(now) {
            open.push((ask, 0, ask.chunks.start()));
        }
        now += step;
        for source in 0..manners.len() as u32 {
            let busy = open.iter().filter(|(ask, ..)| ask.source.0 == source).count() as u64;
            for (ask, sent, next) in open.iter_mut().filter(|(ask, ..)| ask.source.0 == source) {
                let (rate, good) = match manners[source as usize] {
                    Manner::Honest { bytes_per_ms } => (bytes_per_ms, true),
                    Manner::Liar { bytes_per_ms } => (bytes_per_ms, false),
                    Manner::Silent => continue,
                };
                let bytes = (rate / busy).max(1);
                *sent += bytes;
                fetch.handle_bytes(ask.request, bytes, now);
                while *sent >= CHUNK_BYTES_MIN && *next < ask.chunks.end() {
                    *sent -= CHUNK_BYTES_MIN;
                    if good {
                        fetch.handle_stored(ask.request, ChunkRange::one(*next));
                    } else {
                        fetch.handle_corrupt(ask.request, *next);
                    }
                    next.0 += 1;
                }
            }
        }
        open.retain(|(ask, _, next)| {
            let over = *next == ask.chunks.end();
            if over {
                fetch.handle_end(ask.request, End::Finished, now);
            }
            !over
        });
        if fetch.poll_timeout().is_some_and(|at| at <= now) {
            fetch.handle_timeout(now);
        }
        while let Some(event) = fetch.poll_event() {
            if let Event::Cancel(request) = event {
                open.retain(|(ask, ..)| ask.request != request);
            }
        }
    }
    now - start
}

#[test]
fn one_source_is_asked_for_the_last_chunk_and_then_in_order() {
    let now = Instant::now();
    let peer = SourceId(0);
    let mut fetch = fetch(40, Some(peer), now);
    fetch.add_source(peer, Kind::Peer, whole(&fetch), MS);
    let asked: Vec<String> =
        std::iter::from_fn(|| fetch.poll_ask(now)).map(|ask| ask.chunks.to_string()).collect();
    assert_eq!(asked, ["39..40", "0..16", "16..32", "32..39"]);
}

#[test]
fn fast_and_slow_sources_share_by_their_speed() {
    let now = Instant::now();
    let mut fetch = fetch(2_000, None, now);
    for id in 0..2 {
        fetch.add_source(SourceId(id), Kind::Peer, whole(&fetch), MS);
    }
    let fast_and_slow =
        [Manner::Honest { bytes_per_ms: 90_000 }, Manner::Honest { bytes_per_ms: 30_000 }];
    let took = run(&mut fetch, &fast_and_slow, now);
    assert_eq!(fetch.status(now), Status::Done);
    let ideal = Duration::from_millis(2_000 * CHUNK_BYTES_MIN / 120_000);
    assert!(took < ideal * 5 / 4, "took {took:?}, ideal {ideal:?}");
    let wasted: u64 = fetch.reports().map(|(_, report)| report.wasted_bytes).sum();
    assert!(wasted <= 8 * 16 * CHUNK_BYTES_MIN, "{wasted} bytes came twice");
}

#[test] // T6
fn a_source_at_a_byte_a_millisecond_costs_at_most_a_tenth() {
    let now = Instant::now();
    let honest = Manner::Honest { bytes_per_ms: 50_000 };
    let alone = {
        let mut fetch = fetch(4_000, None, now);
        fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
        run(&mut fetch, &[honest], now)
    };
    let mut fetch = fetch(4_000, None, now);
    for id in 0..2 {
        fetch.add_source(SourceId(id), Kind::Peer, whole(&fetch), MS);
    }
    let together = run(&mut fetch, &[honest, Manner::Honest { bytes_per_ms: 1 }], now);
    assert_eq!(fetch.status(now), Status::Done);
    assert!(together <= alone * 11 / 10, "{together:?} with the slow one, {alone:?} without");
}

#[test] // T7
fn nine_liars_of_ten_are_banned_and_the_honest_one_finishes() {
    let now = Instant::now();
    let mut fetch = fetch(800, Some(SourceId(9)), now);
    for id in 0..10 {
        fetch.add_source(SourceId(id), Kind::Peer, whole(&fetch), MS);
    }
    let mut manners = [Manner::Liar { bytes_per_ms: 20_000 }; 10];
    manners[9] = Manner::Honest { bytes_per_ms: 20_000 };
    run(&mut fetch, &manners, now);
    assert_eq!(fetch.status(now), Status::Done);
    for (id, report) in fetch.reports() {
        assert_eq!(report.left.is_some(), id != SourceId(9), "{id:?}: {report:?}");
        assert!(id == SourceId(9) || report.good_bytes == 0);
    }
}

#[test] // R38, T8
fn a_chunk_that_a_source_has_mended_is_asked_for_again_but_only_once() {
    let now = Instant::now();
    let mut fetch = fetch(1, None, now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    for is_last in [false, true] {
        let ask = fetch.poll_ask(now).unwrap();
        fetch.handle_corrupt(ask.request, ChunkIndex(0));
        fetch.handle_end(ask.request, End::Finished, now);
        assert_eq!(fetch.poll_ask(now), None);
        let left = fetch.reports().next().unwrap().1.left;
        assert_eq!(left, is_last.then_some(Reason::BadBytes));
        fetch.handle_holding(SourceId(0), whole(&fetch), now);
    }
    assert_eq!(fetch.poll_ask(now), None);
}

#[test] // R38, T8
fn a_chunk_lost_by_the_claimant_says_nothing_of_the_length() {
    let now = Instant::now();
    let mut fetch = fetch(100, Some(SourceId(0)), now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    let last = fetch.poll_ask(now).unwrap();
    assert_eq!(last.chunks, ChunkRange::one(ChunkIndex(99)));
    let other = fetch.poll_ask(now).unwrap();
    fetch.handle_corrupt(other.request, other.chunks.start());
    assert_eq!((fetch.poll_event(), fetch.status(now)), (None, Status::Running));
    fetch.handle_stored(last.request, last.chunks);
    assert!(fetch.is_length_proven());
}

#[test] // R38
fn a_source_that_finds_a_chunk_damaged_is_asked_again_after_a_while() {
    let now = Instant::now();
    let mut fetch = fetch(1, None, now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    let ask = fetch.poll_ask(now).unwrap();
    fetch.handle_end(ask.request, End::Refused(Refusal::Damaged), now);
    assert_eq!(fetch.poll_ask(now), None);
    assert_eq!(fetch.status(now), Status::Running);
    let later = fetch.poll_timeout().unwrap();
    assert_eq!(later, now + DAMAGED_PAUSE);
    assert_eq!(fetch.poll_ask(later).unwrap().chunks, ask.chunks);
}

#[test]
fn silent_sources_are_left_and_alone_they_end_the_fetch() {
    let now = Instant::now();
    let mut fetch = fetch(10, None, now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    let took = run(&mut fetch, &[Manner::Silent], now);
    assert_eq!(fetch.status(now + took), Status::Stuck);
    assert!(took < STALL_MAX * 3, "{took:?}");
    let (_, report) = fetch.reports().next().unwrap();
    assert_eq!(report.left, Some(Reason::Stalled));
}

#[test]
fn what_no_source_has_or_will_have_is_not_waited_for() {
    let now = Instant::now();
    let (one, other) = (SourceId(0), SourceId(1));
    let mut fetch = fetch(10, None, now);
    let mut part = ChunkRanges::empty(10);
    part.insert_range(ChunkRange::first(4).unwrap());
    for id in [one, other] {
        fetch.add_source(id, Kind::Peer, part.clone(), MS);
    }
    fetch.handle_outlook(one, Outlook::Settled);
    for ask in asks(&mut fetch, now) {
        assert_eq!(fetch.status(now), Status::Running);
        fetch.handle_stored(ask.request, ask.chunks);
        fetch.handle_end(ask.request, End::Finished, now);
    }
    assert_eq!(fetch.status(now), Status::Running, "the other one may get more");
    fetch.handle_outlook(other, Outlook::Settled);
    assert_eq!(fetch.status(now), Status::Stuck);
    // It has got more after all.
    part.insert(ChunkIndex(7));
    fetch.handle_holding(other, part, now);
    assert_eq!(fetch.status(now), Status::Running);
    let ask = fetch.poll_ask(now).unwrap();
    assert_eq!(ask.chunks, ChunkRange::one(ChunkIndex(7)));
    // One that lost a chunk may mend it: it says so soon.
    fetch.handle_end(ask.request, End::Refused(Refusal::NotHeld), now);
    assert_eq!(fetch.status(now), Status::Running);
    assert_eq!(fetch.status(now + IDLE_MAX), Status::Stuck);
}

#[test]
fn a_wrong_length_is_the_claimants_fault() {
    let now = Instant::now();
    let (claimant, other) = (SourceId(0), SourceId(1));
    let mut fetch = fetch(40, Some(claimant), now);
    fetch.add_source(claimant, Kind::Peer, whole(&fetch), MS);
    fetch.add_source(other, Kind::Peer, whole(&fetch), MS);
    let asks: Vec<Ask> = std::iter::from_fn(|| fetch.poll_ask(now)).collect();
    let last = asks.iter().find(|ask| ask.chunks.contains(ChunkIndex(39))).unwrap();
    assert_eq!((last.source, last.chunks.count()), (claimant, 1));
    let others = asks.iter().find(|ask| ask.source == other).unwrap();
    fetch.handle_corrupt(others.request, others.chunks.start());
    fetch.handle_corrupt(last.request, ChunkIndex(39));
    let events: Vec<Event> = std::iter::from_fn(|| fetch.poll_event()).collect();
    assert!(events.contains(&Event::WrongLength(claimant)));
    assert!(!events.iter().any(|event| matches!(event, Event::Left(id, _) if *id == other)));
    assert_eq!(fetch.poll_ask(now), None);
}

#[test]
fn a_claimant_without_the_last_chunk_is_doubted_only_after_two_failed_on_it() {
    let now = Instant::now();
    let mut fetch = fetch(40, Some(SourceId(0)), now);
    let mut part = ChunkRanges::empty(40);
    part.insert_range(ChunkRange::first(10).unwrap());
    fetch.add_source(SourceId(0), Kind::Peer, part, MS);
    fetch.add_source(SourceId(1), Kind::Peer, whole(&fetch), MS);
    fetch.add_source(SourceId(2), Kind::Peer, whole(&fetch), MS);
    for sender in [SourceId(1), SourceId(2)] {
        let last = std::iter::from_fn(|| fetch.poll_ask(now))
            .find(|ask| ask.chunks == ChunkRange::one(ChunkIndex(39)))
            .unwrap();
        assert_eq!(last.source, sender);
        assert_eq!(fetch.poll_event(), None);
        fetch.handle_corrupt(last.request, ChunkIndex(39));
        fetch.handle_end(last.request, End::Finished, now);
    }
    let events: Vec<Event> = std::iter::from_fn(|| fetch.poll_event()).collect();
    assert!(events.contains(&Event::WrongLength(SourceId(0))));
}

#[test]
fn what_a_lost_source_owed_is_asked_of_the_others() {
    let now = Instant::now();
    let mut fetch = fetch(64, None, now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    while fetch.poll_ask(now).is_some() {}
    fetch.add_source(SourceId(1), Kind::Peer, whole(&fetch), MS);
    assert_eq!(fetch.poll_ask(now), None);
    fetch.handle_lost(SourceId(0), "connection closed".to_owned());
    assert!(fetch.poll_ask(now).is_some_and(|ask| ask.source == SourceId(1)));
    assert_eq!(fetch.status(now), Status::Running);
    fetch.handle_lost(SourceId(1), "connection closed".to_owned());
    assert_eq!(fetch.status(now), Status::Stuck);
}

#[test]
fn a_busy_source_is_asked_again_when_it_said() {
    let now = Instant::now();
    let mut fetch = fetch(4, None, now);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    let ask = fetch.poll_ask(now).unwrap();
    fetch.handle_end(ask.request, End::Refused(Refusal::Busy { retry_ms: 250 }), now);
    assert_eq!(fetch.poll_ask(now + 249 * MS), None);
    assert_eq!(fetch.poll_timeout(), Some(now + 250 * MS));
    assert!(fetch.poll_ask(now + 250 * MS).is_some());
}

fn asks(fetch: &mut Fetch, now: Instant) -> Vec<Ask> {
    std::iter::from_fn(|| fetch.poll_ask(now)).collect()
}

#[test] // D2
fn a_vendor_is_asked_for_one_thing_until_it_has_shown_that_it_gives_parts() {
    let now = Instant::now();
    let mut fetch = fetch(200, None, now);
    fetch.add_source(SourceId(0), Kind::Vendor, whole(&fetch), MS);
    let first = asks(&mut fetch, now);
    assert_eq!(first.len(), 1);
    fetch.handle_part(first[0].request);
    assert_eq!(asks(&mut fetch, now).len(), 3, "four are in flight");
    // A part that breaks off says nothing else of it.
    fetch.handle_end(first[0].request, End::Failed("reset".to_owned()), now);
    assert_eq!(asks(&mut fetch, now), [], "one that failed proves itself anew");
}

#[test] // D2, N6
fn a_vendor_that_sends_the_whole_is_read_to_its_end_and_asked_nothing_more() {
    let now = Instant::now();
    let mut fetch = fetch(100, None, now);
    fetch.add_source(SourceId(0), Kind::Vendor, whole(&fetch), MS);
    let ask = fetch.poll_ask(now).unwrap();
    fetch.handle_whole(ask.request, now);
    fetch.add_source(SourceId(1), Kind::Vendor, whole(&fetch), MS);
    assert_eq!((fetch.poll_event(), asks(&mut fetch, now)), (None, vec![]));
    for chunk in fetch.geometry.all().iter() {
        fetch.handle_stored(ask.request, ChunkRange::one(chunk));
    }
    assert_eq!(fetch.status(now), Status::Done);
    let (_, report) = fetch.reports().next().unwrap();
    assert_eq!((report.good_bytes, report.wasted_bytes), (fetch.geometry.len(), 0));
}

#[test] // D2
fn a_whole_ends_with_the_last_chunk_that_is_missing() {
    let now = Instant::now();
    let geometry = geometry(100);
    let mut missing = ChunkRanges::empty(geometry.chunks());
    missing.insert(ChunkIndex(30));
    missing.insert(ChunkIndex(50));
    let mut fetch = Fetch::new(geometry, missing, None, 1, now);
    fetch.add_source(SourceId(0), Kind::Vendor, whole(&fetch), MS);
    let ask = fetch.poll_ask(now).unwrap();
    assert_eq!(ask.chunks, ChunkRange::one(ChunkIndex(30)));
    fetch.add_source(SourceId(1), Kind::Peer, whole(&fetch), MS);
    let other = fetch.poll_ask(now).unwrap();
    assert_eq!(other.chunks, ChunkRange::one(ChunkIndex(50)));
    fetch.handle_whole(ask.request, now);
    fetch.handle_stored(ask.request, ChunkRange::first(31).unwrap());
    assert_eq!(fetch.poll_event(), None);
    fetch.handle_stored(other.request, other.chunks);
    assert_eq!(fetch.poll_event(), Some(Event::Cancel(ask.request)));
    assert_eq!(fetch.status(now), Status::Done);
}

#[test] // D2
fn a_whole_is_dropped_where_another_vendor_gives_parts_and_asked_for_when_that_fails() {
    let now = Instant::now();
    let (parts, all) = (SourceId(0), SourceId(1));
    let mut fetch = fetch(200, None, now);
    fetch.add_source(parts, Kind::Vendor, whole(&fetch), MS);
    fetch.add_source(all, Kind::Vendor, whole(&fetch), MS);
    let asked = asks(&mut fetch, now);
    let of = |source| asked.iter().find(|ask| ask.source == source).unwrap().request;
    fetch.handle_whole(of(all), now);
    assert_eq!(fetch.poll_event(), Some(Event::Cancel(of(all))), "the other has not answered yet");
    fetch.handle_part(of(parts));
    assert!(asks(&mut fetch, now).iter().all(|ask| ask.source == parts));
    fetch.handle_lost(parts, "gone".to_owned());
    let asked = asks(&mut fetch, now);
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].source, asked[0].chunks), (all, fetch.geometry.all()));
}

#[test] // D2
fn a_whole_that_always_breaks_off_at_the_same_place_is_not_fetched_for_ever() {
    let now = Instant::now();
    let mut fetch = fetch(40, None, now);
    fetch.add_source(SourceId(0), Kind::Vendor, whole(&fetch), MS);
    let mut times = 0;
    while let Some(ask) = fetch.poll_ask(now) {
        times += 1;
        if ask.chunks != fetch.geometry.all() {
            fetch.handle_whole(ask.request, now);
        }
        fetch.handle_stored(ask.request, ChunkRange::first(10).unwrap());
        fetch.handle_end(ask.request, End::Failed("reset".to_owned()), now);
    }
    assert_eq!((times, fetch.status(now)), (2, Status::Stuck));
}

#[test] // T7
fn a_whole_with_a_bad_chunk_is_not_asked_for_again() {
    let now = Instant::now();
    let mut fetch = fetch(40, None, now);
    fetch.add_source(SourceId(0), Kind::Vendor, whole(&fetch), MS);
    let ask = fetch.poll_ask(now).unwrap();
    fetch.handle_whole(ask.request, now);
    fetch.handle_stored(ask.request, ChunkRange::first(20).unwrap());
    fetch.handle_corrupt(ask.request, ChunkIndex(20));
    let rest = ChunkRange::new(ChunkIndex(21), ChunkIndex(40)).unwrap();
    fetch.handle_stored(ask.request, rest);
    fetch.handle_end(ask.request, End::Finished, now);
    assert_eq!(fetch.missing().count(), 1);
    assert_eq!(fetch.poll_ask(now), None);
}

#[test]
fn the_next_look_is_never_in_the_past() {
    let start = Instant::now();
    let mut fetch = fetch(64, None, start);
    for id in 0..2 {
        fetch.add_source(SourceId(id), Kind::Peer, whole(&fetch), MS);
    }
    let mut now = start;
    let mut looks = 0;
    while fetch.status(now) == Status::Running {
        while let Some(ask) = fetch.poll_ask(now) {
            if ask.source == SourceId(1) {
                let until = now + Duration::from_millis(250);
                fetch.handle_end(ask.request, End::Later(until), now);
            }
        }
        while fetch.poll_event().is_some() {}
        let next = fetch.poll_timeout().unwrap();
        assert!(next > now, "it would spin");
        now = next;
        fetch.handle_timeout(now);
        looks += 1;
    }
    assert!(looks < 2_000, "{looks} looks at nothing");
}

#[test] // T6
fn a_single_source_that_only_trickles_is_left_in_the_end() {
    let start = Instant::now();
    let mut fetch = fetch(4, None, start);
    fetch.add_source(SourceId(0), Kind::Peer, whole(&fetch), MS);
    let trickle = [Manner::Honest { bytes_per_ms: 0 }];
    let took = run_at(&mut fetch, &trickle, start, Duration::from_secs(1));
    assert_eq!(fetch.status(start + took), Status::Stuck);
    assert!(took <= STALL_MAX * 3, "{took:?}");
    let (_, report) = fetch.reports().next().unwrap();
    assert_eq!(report.left, Some(Reason::Stalled));
}

#[test] // T7
fn two_liars_cannot_have_an_honest_claimant_blamed() {
    let now = Instant::now();
    let mut fetch = fetch(40, Some(SourceId(0)), now);
    for id in 0..3 {
        fetch.add_source(SourceId(id), Kind::Peer, whole(&fetch), MS);
    }
    let asks: Vec<Ask> = std::iter::from_fn(|| fetch.poll_ask(now)).collect();
    let last = fetch.geometry.last();
    assert!(asks.iter().all(|ask| !ask.chunks.contains(last) || ask.source == SourceId(0)));
    // What the claimant owes is asked for twice at the end, and there the liars are fast.
    for liar in [SourceId(1), SourceId(2)] {
        let ask = fetch.open(liar, ChunkRange::one(last), now).request;
        fetch.handle_corrupt(ask, last);
        fetch.handle_end(ask, End::Finished, now);
    }
    assert_eq!(fetch.poll_event(), None);
    let honest = asks.iter().find(|ask| ask.chunks.contains(last)).unwrap();
    fetch.handle_stored(honest.request, ChunkRange::one(last));
    assert!(fetch.is_length_proven());
}

//! Chunks that come from several sources, on virtual time.

use std::time::{Duration, Instant};

use super::*;
use crate::fetch::{Ask, End, Event, Kind, STALL_MAX, SourceReport, Status};
use crate::geometry::{CHUNK_BYTES_MIN, Geometry};
use crate::ranges::{ChunkRange, ChunkRanges};

const MS: Duration = Duration::from_millis(1);
const CHUNKS: u32 = 8;
const ONE: SourceId = SourceId(0);
const OTHER: SourceId = SourceId(1);
const THIRD: SourceId = SourceId(2);

fn fetch_of(len: u64, sources: u32, now: Instant) -> Fetch {
    let geometry = Geometry::of(len).unwrap();
    let missing = ChunkRanges::full(geometry.chunks());
    let mut fetch = Fetch::new(geometry, missing.clone(), None, 1, now);
    for id in 0..sources {
        fetch.add_source(SourceId(id), Kind::Peer, missing.clone(), MS);
    }
    fetch
}

fn fetch(sources: u32, now: Instant) -> Fetch {
    fetch_of(u64::from(CHUNKS) * CHUNK_BYTES_MIN, sources, now)
}

fn whole(fetch: &Fetch) -> ChunkRanges {
    ChunkRanges::full(fetch.geometry.chunks())
}

fn part(chunk: u32, bytes: usize) -> Partial {
    Partial::new(ChunkIndex(chunk), vec![0; bytes])
}

/// The next request, with what it goes on from filled up to `bytes`.
fn ask(fetch: &mut Fetch, now: Instant, bytes: usize) -> (Ask, Partial) {
    let ask = fetch.poll_ask(now).unwrap();
    let mut partial =
        fetch.take_partial(ask.request).unwrap_or_else(|| part(ask.chunks.start().0, 0));
    assert_eq!(partial.bytes().len() as u64, ask.skip_bytes);
    partial.bytes_mut().resize(bytes, 0);
    (ask, partial)
}

fn report(fetch: &Fetch, id: SourceId) -> SourceReport {
    fetch.reports().find(|(of, _)| *of == id).unwrap().1
}

#[test] // R34
fn the_next_source_goes_on_in_the_middle_of_a_chunk_and_each_gets_its_due() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    let (first, _) = ask(&mut fetch, now, 0);
    fetch.handle_stored(first.request, ChunkRange::first(3).unwrap());
    fetch.add_source(OTHER, Kind::Peer, whole(&fetch), MS);
    fetch.handle_partial(ONE, part(3, 40_000));
    fetch.handle_lost(ONE, "gone".to_owned());

    let (second, _) = ask(&mut fetch, now, 40_000);
    assert_eq!((second.source, second.skip_bytes), (OTHER, 40_000));
    assert_eq!(second.chunks, ChunkRange::new(ChunkIndex(3), ChunkIndex(8)).unwrap());
    fetch.handle_stored(second.request, second.chunks);
    fetch.handle_end(second.request, End::Finished, now);
    assert_eq!(fetch.status(now), Status::Done);
    let (one, other) = (report(&fetch, ONE), report(&fetch, OTHER));
    assert_eq!(one.good_bytes, 3 * CHUNK_BYTES_MIN + 40_000);
    assert_eq!(other.good_bytes, 5 * CHUNK_BYTES_MIN - 40_000);
    assert_eq!((one.wasted_bytes, other.wasted_bytes), (0, 0));
}

#[test]
fn a_chunk_of_which_a_part_is_here_begins_a_request() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    fetch.handle_partial(ONE, part(5, 1_000));
    let (before, _) = ask(&mut fetch, now, 0);
    let (from, _) = ask(&mut fetch, now, 1_000);
    assert_eq!(
        (before.chunks.to_string(), from.chunks.to_string()),
        ("0..5".into(), "5..8".into())
    );
}

#[test] // R34
fn a_part_grows_with_every_source_that_dies() {
    let now = Instant::now();
    let mut fetch = fetch(3, now);
    for bytes in [10_000, 30_000, 50_000] {
        let (ask, partial) = ask(&mut fetch, now, bytes);
        let source = ask.source;
        fetch.handle_partial(source, partial);
        fetch.handle_lost(source, "gone".to_owned());
        while fetch.poll_event().is_some() {}
    }
    fetch.add_source(SourceId(3), Kind::Peer, whole(&fetch), MS);
    let (last, _) = ask(&mut fetch, now, 50_000);
    fetch.handle_stored(last.request, last.chunks);
    let good: Vec<u64> = fetch.reports().map(|(_, report)| report.good_bytes).collect();
    assert_eq!(good, [10_000, 20_000, 20_000, fetch.geometry.len() - 50_000]);
}

#[test] // R34, T7
fn a_mixed_chunk_that_fails_is_fetched_whole_before_anyone_is_blamed() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    let (first, partial) = ask(&mut fetch, now, 20_000);
    fetch.add_source(OTHER, Kind::Peer, whole(&fetch), MS);
    fetch.handle_partial(ONE, partial);
    fetch.handle_end(first.request, End::Later(now + 1_000 * MS), now);
    let (mixed, _) = ask(&mut fetch, now, 20_000);
    assert_eq!(mixed.source, OTHER);
    assert!(!fetch.handle_corrupt(mixed.request, ChunkIndex(0)), "nobody is to blame");
    assert_eq!(report(&fetch, OTHER).left, None);
    assert_eq!(report(&fetch, ONE).wasted_bytes, 20_000);
    assert_eq!(report(&fetch, OTHER).wasted_bytes, CHUNK_BYTES_MIN - 20_000);
    let rest = ChunkRange::new(ChunkIndex(1), ChunkIndex(8)).unwrap();
    fetch.handle_stored(mixed.request, rest);
    fetch.handle_end(mixed.request, End::Finished, now);

    // Whole, from one source, whatever comes in between.
    fetch.handle_partial(OTHER, part(0, 5_000));
    let (again, _) = ask(&mut fetch, now, 0);
    assert_eq!((again.source, again.skip_bytes), (OTHER, 0));
    assert!(fetch.handle_corrupt(again.request, ChunkIndex(0)), "now it is known who sent it");
    fetch.handle_end(again.request, End::Finished, now);
    assert_eq!(fetch.poll_ask(now), None, "not asked of it again");
}

#[test] // T7
fn a_source_that_went_on_from_its_own_part_answers_for_all_of_the_chunk() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    let (first, partial) = ask(&mut fetch, now, 20_000);
    fetch.handle_partial(ONE, partial);
    fetch.handle_end(first.request, End::Failed("reset".to_owned()), now);
    let (second, _) = ask(&mut fetch, now, 20_000);
    assert!(fetch.handle_corrupt(second.request, ChunkIndex(0)));
    fetch.handle_stored(second.request, ChunkRange::new(ChunkIndex(1), ChunkIndex(8)).unwrap());
    fetch.handle_end(second.request, End::Finished, now);
    assert_eq!(fetch.poll_ask(now), None, "it would send the same again");
    assert_eq!(report(&fetch, ONE).wasted_bytes, CHUNK_BYTES_MIN);
}

#[test] // T7
fn what_one_who_sent_wrong_bytes_has_begun_is_not_gone_on_with() {
    let now = Instant::now();
    let mut fetch = fetch(2, now);
    let (bad, _) = ask(&mut fetch, now, 0);
    fetch.handle_partial(bad.source, part(6, 1_000));
    assert!(fetch.handle_corrupt(bad.request, bad.chunks.start()));
    fetch.handle_partial(bad.source, part(7, 1_000));
    fetch.handle_lost(bad.source, "gone".to_owned());
    while let Some(ask) = fetch.poll_ask(now) {
        assert_eq!(ask.skip_bytes, 0);
    }
    assert_eq!(report(&fetch, bad.source).wasted_bytes, 2_000 + CHUNK_BYTES_MIN);
}

#[test]
fn what_a_stalled_request_had_is_gone_on_with() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    let (stalled, partial) = ask(&mut fetch, now, 12_345);
    let later = now + STALL_MAX;
    fetch.handle_timeout(later);
    assert_eq!(fetch.poll_event(), Some(Event::Cancel(stalled.request)));
    fetch.handle_partial(ONE, partial);
    assert_eq!(fetch.poll_ask(later).unwrap().skip_bytes, 12_345);
}

#[test]
fn a_part_that_nobody_took_is_kept_for_the_next() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    fetch.handle_partial(ONE, part(0, 777));
    let ask = fetch.poll_ask(now).unwrap();
    fetch.handle_end(ask.request, End::Later(now), now);
    let again = fetch.poll_ask(now).unwrap();
    assert_eq!(again.skip_bytes, 777);
    assert_eq!(
        fetch.take_partial(again.request),
        Some(Partial { from: vec![(ONE, 777)], ..part(0, 777) })
    );
    assert_eq!(fetch.take_partial(again.request), None);
}

#[test]
fn no_part_is_kept_that_would_be_of_no_use() {
    let now = Instant::now();
    let mut fetch = fetch(1, now);
    let whole = CHUNK_BYTES_MIN as usize;
    for partial in
        [part(1, 0), part(1, whole), part(1, whole + 1), part(CHUNKS, 5), part(u32::MAX, 5)]
    {
        fetch.handle_partial(ONE, partial);
    }
    fetch.handle_partial(SourceId(9), part(2, 5));
    fetch.handle_partial(ONE, part(3, 50));
    fetch.handle_partial(ONE, part(3, 40));
    let kept: Vec<(u32, u64)> =
        fetch.partials.kept.values().map(|kept| (kept.chunk.0, kept.len())).collect();
    assert_eq!(kept, [(3, 50)]);
    // One whose chunk has come otherwise goes, and counts as wasted.
    let (first, _) = ask(&mut fetch, now, 0);
    fetch.handle_stored(first.request, first.chunks);
    let (rest, _) = ask(&mut fetch, now, 50);
    fetch.handle_partial(ONE, part(5, 70));
    fetch.handle_stored(rest.request, rest.chunks);
    assert_eq!((fetch.status(now), fetch.partials.kept_bytes), (Status::Done, 0));
    let wasted = (whole + whole + 1) as u64 + 5 + 5 + 40 + 70;
    assert_eq!(report(&fetch, ONE).wasted_bytes, wasted);
}

#[test] // T5
fn parts_are_bounded_in_total() {
    let now = Instant::now();
    let mut fetch = fetch_of(64 << 30, 1, now);
    let chunk_bytes = fetch.geometry.chunk_bytes() as usize;
    assert_eq!(chunk_bytes, 4 << 20);
    for chunk in 0..10 {
        fetch.handle_partial(ONE, part(chunk, chunk_bytes - 1));
    }
    assert_eq!(fetch.partials.kept.len(), 4);
    assert!(fetch.partials.kept_bytes <= PARTIAL_BYTES_MAX);
    fetch.drop_partial(ChunkIndex(2));
    fetch.handle_partial(ONE, part(9, chunk_bytes - 1));
    assert_eq!(fetch.partials.kept.len(), 4);
}

#[test] // D2
fn the_whole_of_a_vendor_is_not_gone_on_with_but_begun() {
    let now = Instant::now();
    let mut fetch = fetch(0, now);
    fetch.add_source(THIRD, Kind::Vendor, whole(&fetch), MS);
    fetch.handle_partial(THIRD, part(0, 100));
    let (first, _) = ask(&mut fetch, now, 100);
    fetch.handle_whole(first.request, now);
    assert_eq!(report(&fetch, THIRD).wasted_bytes, 100);
    fetch.handle_partial(THIRD, part(0, 200));
    fetch.handle_end(first.request, End::Failed("reset".to_owned()), now);
    let again = fetch.poll_ask(now).unwrap();
    assert_eq!((again.chunks, again.skip_bytes), (fetch.geometry.all(), 0));
    fetch.handle_stored(again.request, again.chunks);
    assert_eq!(report(&fetch, THIRD).good_bytes, fetch.geometry.len());
}

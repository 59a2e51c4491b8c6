//! Origins that give parts of a file, and those that give all of it or nothing, as sources of
//! contents whose hash list is known.

use sutler_protocol::ChunkIndex;

use super::origin::Origin;
use super::site::{Site, brought, bytes, eventually};

const LEN: usize = 8 << 20;
const CHUNK: usize = 65_536;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2, N6
async fn an_origin_that_sends_only_whole_files_is_asked_once_and_sends_one_copy() {
    for tag in [Some("v1"), None] {
        let (site, file) = (Site::new(), bytes(LEN + 777, 1));
        let origin = Origin::with(&[]).await;
        origin.put("/file", &file, tag);
        origin.without_ranges();
        let node = site.node(&origin);
        let id = node.machine.import_and_evict(&file, &origin.url("/file"));
        brought(site.agent().fetch(id, &[&node.machine]).await, &file);
        assert_eq!((origin.ranges().len(), origin.sent()), (1, file.len() as u64));
        eventually("the fill ends", || node.filler.running() == 0).await;
        assert_eq!(node.machine.counters.fetched_vendor_bytes.value(), file.len() as u64);
        assert_eq!(node.machine.counters.wasted_bytes.value(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2, R34
async fn of_a_whole_file_only_what_is_missing_is_kept_and_nothing_is_asked_for_twice() {
    let (site, file) = (Site::new(), bytes(LEN, 2));
    let origin = Origin::with(&[("/file", &file)]).await;
    origin.without_ranges();
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    // Held: some at the start, in the middle, and at the end.
    let held = [0..5, 40..41, 120..128];
    let content = node.machine.store.content(id).unwrap().unwrap();
    for run in held.clone() {
        let part = &file[run.start as usize * CHUNK..run.end as usize * CHUNK];
        content.commit(ChunkIndex(run.start), part).unwrap();
    }
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(origin.ranges().len(), 1);
    eventually("the fill ends", || node.filler.running() == 0).await;
    let missing = 128 - held.into_iter().map(|run| u64::from(run.end - run.start)).sum::<u64>();
    let counters = &node.machine.counters;
    assert_eq!(counters.fetched_vendor_bytes.value(), missing * CHUNK as u64);
    // What came before the last that was missing could not be left out; the rest was not read.
    assert_eq!(counters.wasted_bytes.value(), 6 * CHUNK as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2
async fn an_origin_gets_several_requests_as_soon_as_it_answers_with_a_part() {
    let (site, file) = (Site::new(), bytes(LEN, 3));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    // Heads go out, bodies wait.
    origin.hold_from(0);
    let (agent, from) = (site.agent(), [&node.machine]);
    let letting_go = async {
        eventually("four are in flight", || origin.ranges().len() == 4).await;
        origin.let_go();
    };
    let (fetched, ()) = tokio::join!(agent.fetch(id, &from), letting_go);
    brought(fetched, &file);
    assert_eq!((origin.ranges().len(), origin.sent()), (LEN / CHUNK / 16, file.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_whole_file_that_breaks_off_is_asked_for_once_more() {
    let (site, file) = (Site::new(), bytes(LEN, 4));
    let origin = Origin::with(&[("/file", &file)]).await;
    origin.without_ranges();
    let cut = LEN as u64 / 2;
    origin.cut_at(cut);
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(origin.ranges(), [Some("bytes=0-1048575".to_owned()), None]);
    assert_eq!(origin.sent(), file.len() as u64 + cut);
}

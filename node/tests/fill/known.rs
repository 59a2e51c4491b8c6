//! Contents that the node knows and lacks: their hash list vouches for what the origin sends.

use sutler_node::fill::Keep;
use sutler_swarm::fetch::{Progress, SourceKind};
use sutler_swarm::{FetchError, SourceAddress};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::origin::Origin;
use super::site::{Site, brought, bytes, eventually, failed, wanted};

const LEN: usize = 4 << 20;
const HALF: u64 = (LEN / 2) as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2, R33
async fn a_content_is_filled_once_however_many_ask_for_it() {
    let (site, file) = (Site::new(), bytes(LEN + 12_345, 1));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    let mut fetches = JoinSet::new();
    for _ in 0..8 {
        let (agent, node) = (site.agent(), node.machine.address);
        let mut wanted = wanted(id, &[]);
        wanted.sources.push(SourceAddress::Peer(node));
        fetches.spawn(async move { agent.fetcher.fetch(&wanted, &watch::Sender::default()).await });
    }
    while let Some(fetched) = fetches.join_next().await {
        let report = brought(fetched.unwrap(), &file);
        assert_eq!(report.bytes_from(SourceKind::Node), file.len() as u64);
    }
    assert_eq!(origin.sent(), file.len() as u64);
    eventually("the fill ends", || node.filler.running() == 0).await;
    assert_eq!(node.machine.counters.fetched_vendor_bytes.value(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_verified_goes_on_to_those_who_wait_while_the_rest_is_still_coming() {
    let (site, file) = (Site::new(), bytes(LEN, 2));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.hold_from(HALF);
    let agent = site.agent();
    let progress = watch::Sender::new(Progress::default());
    let mut seen = progress.subscribe();
    let letting_go = async {
        seen.wait_for(|progress| progress.have_bytes >= HALF).await.unwrap();
        assert!(origin.sent() < file.len() as u64);
        origin.let_go();
    };
    let from = [&node.machine];
    let (fetched, ()) = tokio::join!(agent.fetch_seen(id, &from, &progress), letting_go);
    brought(fetched, &file);
    assert_eq!(origin.sent(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fill_goes_on_without_who_asked_for_it() {
    let (site, file) = (Site::new(), bytes(LEN, 3));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.hold_from(HALF);
    let agent = site.agent();
    let progress = watch::Sender::new(Progress::default());
    let (mut seen, from) = (progress.subscribe(), [&node.machine]);
    tokio::select! {
        fetched = agent.fetch_seen(id, &from, &progress) => {
            panic!("half is held back: {:?}", fetched.is_ok());
        }
        half = seen.wait_for(|progress| progress.have_bytes >= HALF) => drop(half.unwrap()),
    }
    agent.stop().await;
    assert_eq!(node.filler.running(), 1);
    origin.let_go();
    eventually("all of it is here", || node.machine.had_bytes(id) == LEN as u64).await;
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(origin.sent(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2
async fn what_the_node_fetches_for_itself_is_served_and_not_fetched_twice() {
    let (site, file) = (Site::new(), bytes(LEN, 15));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.hold_from(HALF);
    let mut its_own = wanted(id, &[]);
    its_own.sources.push(SourceAddress::Origin(origin.url("/file")));
    let unseen = watch::Sender::default();
    let progress = watch::Sender::new(Progress::default());
    let (mut seen, agent, from) = (progress.subscribe(), site.agent(), [&node.machine]);
    let asking = async {
        eventually("some is here", || node.machine.had_bytes(id) > 0).await;
        let letting_go = async {
            seen.wait_for(|progress| progress.have_bytes > 0).await.unwrap();
            origin.let_go();
        };
        tokio::join!(agent.fetch_seen(id, &from, &progress), letting_go).0
    };
    let (its_own, fetched) = tokio::join!(node.machine.fetcher.fetch(&its_own, &unseen), asking);
    brought(its_own, &file);
    brought(fetched, &file);
    assert_eq!(origin.sent(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fill_that_failed_is_told_with_its_reason_and_not_tried_again_at_once() {
    let (site, file) = (Site::new(), bytes(LEN, 4));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.forget();
    let why = failed(site.agent().fetch(id, &[&node.machine]).await);
    assert!(why.contains("status 404"), "{why}");
    let asked = origin.ranges().len();
    let why = failed(site.agent().fetch(id, &[&node.machine]).await);
    assert!(why.contains("status 404"), "{why}");
    assert_eq!(origin.ranges().len(), asked);
    // The node has not forgotten it: when the origin has it again, so has the node.
    assert!(node.machine.store.content(id).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, R39
async fn other_bytes_at_the_origin_are_refused_and_the_content_stays_known() {
    let (site, file) = (Site::new(), bytes(LEN, 5));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.put("/file", &bytes(LEN, 6), None);
    let why = failed(site.agent().fetch(id, &[&node.machine]).await);
    assert!(why.contains("did not verify"), "{why}");
    assert_eq!(node.machine.had_bytes(id), 0);
    assert!(node.machine.store.content(id).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // N6
async fn a_known_content_comes_from_an_origin_whatever_it_now_says_of_the_file() {
    let (site, file) = (Site::new(), bytes(LEN, 23));
    let origin = Origin::with(&[("/file", &file)]).await;
    origin.put("/file", &file, Some("v1"));
    let node = site.node(&origin);
    let mut known = sutler_cache::Origin::at(origin.url("/file").as_str());
    known.etag = Some("\"v1\"".to_owned());
    let id = node.machine.import_and_evict_of(&file, known);
    // The same bytes under another tag, as after a move to another server.
    origin.put("/file", &file, Some("v2"));
    let report = brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(report.bytes_from(SourceKind::Node), file.len() as u64);
    assert_eq!(origin.sent(), file.len() as u64, "and each byte once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2, R34
async fn an_origin_that_breaks_off_is_asked_for_the_rest() {
    let (site, file) = (Site::new(), bytes(LEN, 8));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    // In the middle of a chunk.
    origin.cut_at(HALF + 100_000);
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(origin.sent(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T16
async fn an_origin_that_is_no_longer_allowed_is_not_asked() {
    let (site, file) = (Site::new(), bytes(LEN, 9));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    let dir = node.stop().await;
    let other = Origin::with(&[]).await;
    let node = site.node_in(&dir, &other, Keep::Yes, None);
    let unknown = site.agent().fetch(id, &[&node.machine]).await.err().unwrap();
    assert!(matches!(unknown, FetchError::Unknown { .. }), "{unknown}");
    assert_eq!((origin.ranges().len(), other.ranges().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R38, T8
async fn a_chunk_that_was_damaged_while_the_node_was_stopped_comes_again_from_the_origin() {
    let (site, file) = (Site::new(), bytes(LEN, 10));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import(&file, Some(&origin.url("/file")));
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::Yes, None);
    node.machine.damage(id, LEN / 3);
    let report = brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(report.wasted_bytes(), 0, "no wrong byte was sent");
    assert_eq!(origin.sent(), 65_536);
    let content = node.machine.store.content(id).unwrap().unwrap();
    eventually("it is complete again", || content.is_complete()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R38, T8
async fn a_chunk_that_was_damaged_while_the_node_ran_is_reported_and_comes_again() {
    let (site, file) = (Site::new(), bytes(LEN, 11));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import(&file, Some(&origin.url("/file")));
    node.machine.damage(id, LEN / 3);
    let report = brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert!(report.wasted_bytes() >= 65_536, "it was refused once");
    assert_eq!(node.machine.counters.mismatches.value(), 1);
    assert_eq!(origin.sent(), 65_536);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R38, T8
async fn a_small_content_that_was_damaged_comes_again_from_the_origin() {
    let (site, file) = (Site::new(), bytes(10_000, 12));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import(&file, Some(&origin.url("/file")));
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::Yes, None);
    node.machine.damage(id, 5_000);
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert_eq!(origin.sent(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R38, T8
async fn what_is_damaged_and_has_no_origin_is_never_served() {
    let (site, file) = (Site::new(), bytes(10_000, 13));
    let origin = Origin::with(&[]).await;
    let node = site.node(&origin);
    let id = node.machine.import(&file, None);
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::Yes, None);
    node.machine.damage(id, 5_000);
    let unknown = site.agent().fetch(id, &[&node.machine]).await.err().unwrap();
    assert!(matches!(unknown, FetchError::Unknown { .. }), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_store_is_told_to_who_asks() {
    let (site, file) = (Site::new(), bytes(LEN, 14));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::Yes, Some(HALF));
    let why = failed(site.agent().fetch(id, &[&node.machine]).await);
    assert!(why.contains("make room"), "{why}");
    assert_eq!(node.machine.store.usage().used_bytes, 0);
}

// T31, T23
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn control_gets_what_is_here_and_has_nothing_filled() {
    let (site, here, elsewhere) = (Site::new(), bytes(LEN, 31), bytes(LEN, 32));
    let origin = Origin::with(&[("/file", &elsewhere)]).await;
    let node = site.node(&origin);
    let evicted = node.machine.import_and_evict(&elsewhere, &origin.url("/file"));
    let held = node.machine.import(&here, None);
    let control = site.control();
    brought(control.fetch(held, &[&node.machine]).await, &here);
    let error = control.fetch(evicted, &[&node.machine]).await.map(drop).unwrap_err();
    assert!(matches!(error, FetchError::Unknown { .. }), "{error}");
    assert_eq!((node.filler.running(), origin.sent()), (0, 0));
    // For a device it is.
    brought(site.agent().fetch(evicted, &[&node.machine]).await, &elsewhere);
    brought(control.fetch(evicted, &[&node.machine]).await, &elsewhere);
}

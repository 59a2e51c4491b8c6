//! A node that keeps nothing: what it filled goes with those who wanted it.

use std::time::Duration;

use sutler_node::fill::Keep;

use super::origin::Origin;
use super::site::{Site, brought, bytes, eventually};

const LEN: usize = 2 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn what_is_not_kept_goes_after_the_last_who_wanted_it_and_is_filled_again() {
    let (site, file) = (Site::new(), bytes(LEN, 1));
    let origin = Origin::with(&[("/file", &file)]).await;
    let keep = Keep::For(Duration::from_millis(500));
    let node = site.node_in(&site.folder(), &origin, keep, None);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    eventually("it is gone", || node.machine.store.usage().used_bytes == 0).await;
    assert!(node.machine.store.content(id).unwrap().is_some(), "it stays known");
    let sent = origin.sent();
    brought(site.agent().fetch(id, &[&node.machine]).await, &file);
    assert!(origin.sent() >= sent + LEN as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn a_fill_that_nobody_waits_for_any_more_is_not_kept_either() {
    let (site, file) = (Site::new(), bytes(LEN, 2));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node_in(&site.folder(), &origin, Keep::For(Duration::ZERO), None);
    let id = node.machine.import_and_evict(&file, &origin.url("/file"));
    origin.hold_from(LEN as u64 / 2);
    let (agent, from) = (site.agent(), [&node.machine]);
    tokio::select! {
        fetched = agent.fetch(id, &from) => panic!("held back: {:?}", fetched.is_ok()),
        () = eventually("half is here", || node.machine.had_bytes(id) > 0) => {}
    }
    agent.stop().await;
    origin.let_go();
    eventually("the fill ends", || node.filler.running() == 0).await;
    eventually("it is gone", || node.machine.store.usage().used_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn a_start_gives_up_what_an_origin_has_and_nothing_else() {
    let (site, file) = (Site::new(), bytes(LEN, 3));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node_in(&site.folder(), &origin, Keep::For(Duration::from_mins(10)), None);
    let passing = node.machine.import(&file, Some(&origin.url("/file")));
    let brought_by_hand = node.machine.import(&bytes(LEN, 4), None);
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::For(Duration::from_mins(10)), None);
    node.filler.vacate();
    assert_eq!(node.machine.had_bytes(passing), 0);
    assert_eq!(node.machine.had_bytes(brought_by_hand), LEN as u64);
    let dir = node.stop().await;
    let node = site.node_in(&dir, &origin, Keep::Yes, None);
    brought(site.agent().fetch(passing, &[&node.machine]).await, &file);
    node.filler.vacate();
    eventually("it is kept", || node.machine.had_bytes(passing) == LEN as u64).await;
}

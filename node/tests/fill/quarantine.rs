//! A content of which no hash list can be had: believed when the whole agrees.

use sutler_protocol::ContentId;
use sutler_swarm::SourceAddress;
use sutler_swarm::fetch::SourceKind;
use tokio::sync::watch;

use super::origin::Origin;
use super::site::{Site, brought, bytes, failed, origins, wanted};

const LEN: usize = 3 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // N6, D6
async fn a_plain_mirror_is_enough_for_who_knows_the_id() {
    let (site, file) = (Site::new(), bytes(LEN, 1));
    let origin = Origin::with(&[("/file", &file)]).await;
    let agent = site.agent_with(Some(origins(&[&origin])));
    let mut wanted = wanted(ContentId::of(&file), &[]);
    wanted.sources.push(SourceAddress::Origin(origin.url("/file")));
    origin.cut_at(LEN as u64 / 2);
    let fetched = agent.fetcher.fetch(&wanted, &watch::Sender::default()).await;
    let report = brought(fetched, &file);
    assert_eq!(report.bytes_from(SourceKind::Vendor), LEN as u64);
    assert_eq!(agent.counters.fetched_vendor_bytes.value(), LEN as u64);
    assert_eq!(origin.sent(), LEN as u64);
    // What has agreed is served as any other.
    brought(site.agent().fetch(wanted.content, &[&agent]).await, &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // N6, T7, R39
async fn other_bytes_than_the_id_says_are_refused_and_nothing_of_them_is_kept() {
    let (site, file) = (Site::new(), bytes(LEN, 2));
    let origin = Origin::with(&[("/file", &bytes(LEN, 3))]).await;
    let agent = site.agent_with(Some(origins(&[&origin])));
    let mut wanted = wanted(ContentId::of(&file), &[]);
    wanted.sources.push(SourceAddress::Origin(origin.url("/file")));
    let why = failed(agent.fetcher.fetch(&wanted, &watch::Sender::default()).await);
    assert!(why.contains("are those of"), "{why}");
    assert_eq!(agent.store.list(), []);
    assert_eq!(agent.store.usage().used_bytes, 0);
    let unknown = failed(site.agent().fetch(wanted.content, &[&agent]).await);
    assert!(unknown.contains("not known"), "{unknown}");
}

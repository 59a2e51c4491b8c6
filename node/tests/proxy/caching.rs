//! What is fetched once and given to many.

use std::time::Duration;

use sutler_node::node::Surroundings;

use super::client::{Client, get};
use super::house::{House, PATIENCE, Running, bytes, config, eventually};
use super::origin::Origin;

const LEN: usize = 4 << 20;
const HALF: usize = LEN / 2;
const DEB: &str = "/debian/pool/main/a/apt/apt_1_amd64.deb";
const INDEX: &str = "/debian/dists/stable/main/binary-amd64/Packages.xz";
/// What apt says with each index that it asks for.
const INSIST: &str = "Cache-Control: max-age=0\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31, D5
async fn the_second_client_costs_the_vendor_nothing() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 1));
    origin.put(DEB, &file, Some("1"));
    let node = house.node(&[&origin]);
    let url = origin.url(DEB);
    let first = get(node.proxy, &url, "").await;
    assert_eq!((first.status, first.mark().as_str()), (200, "MISS"));
    assert!(first.body == file);
    eventually("it is kept", || node.held().1 == 1).await;
    let host = url.trim_start_matches("http://");
    for (form, url) in [("proxy", url.clone()), ("mirror", format!("/{host}"))] {
        let again = get(node.proxy, &url, "").await;
        assert_eq!((again.status, again.mark().as_str()), (200, "HIT"), "{form}");
        assert!(again.body == file, "{form}");
        assert_eq!(again.header("etag").as_deref(), Some("\"1\""));
        assert_eq!(again.header("via").as_deref(), Some("1.1 sutler"));
    }
    assert_eq!((origin.asked().len(), origin.sent()), (1, LEN as u64));

    // And after a restart.
    let dir = node.stop().await;
    let node = house.node_with(&dir, &config(&[&origin]));
    let again = get(node.proxy, &url, "").await;
    assert_eq!(again.mark(), "HIT");
    assert!(again.body == file);
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5, R31
async fn many_clients_at_different_offsets_share_one_copy_while_it_comes() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 2));
    origin.put(DEB, &file, Some("1"));
    origin.hold_from(HALF as u64);
    let node = house.node(&[&origin]);
    let (url, proxy) = (origin.url(DEB), node.proxy);
    let mut first = Client::of(proxy).await;
    first.get(&url, "").await;
    assert!(first.head().await.unwrap().contains("x-cache: MISS"));
    // Half of it is given out while the other half has not left the vendor.
    assert!(first.some(HALF).await == file[..HALF]);
    let mut others = tokio::task::JoinSet::new();
    for start in [0, 1, HALF - 1, HALF, HALF + 1, LEN - 1] {
        let (url, file) = (url.clone(), file.clone());
        others.spawn(async move {
            let reply = get(proxy, &url, &format!("Range: bytes={start}-\r\n")).await;
            assert_eq!(reply.status, 206);
            let range = format!("bytes {start}-{}/{LEN}", LEN - 1);
            assert_eq!(reply.header("content-range"), Some(range));
            assert!(reply.body == file[start..], "from {start}");
        });
    }
    for _ in 0..20 {
        let (url, file) = (url.clone(), file.clone());
        others.spawn(async move { assert!(get(proxy, &url, "").await.body == file) });
    }
    origin.let_go();
    assert!(first.some(HALF).await == file[HALF..]);
    while let Some(other) = others.join_next().await {
        other.unwrap();
    }
    assert_eq!((origin.asked().len(), origin.sent()), (1, LEN as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5
async fn a_client_that_leaves_half_way_does_not_end_the_fetch() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 3));
    origin.put(DEB, &file, Some("1"));
    origin.hold_from(HALF as u64);
    let node = house.node(&[&origin]);
    let mut client = Client::of(node.proxy).await;
    client.get(&origin.url(DEB), "").await;
    client.head().await.unwrap();
    client.some(1000).await;
    drop(client);
    origin.let_go();
    eventually("it is kept", || node.held() == (LEN as u64, 1)).await;
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R28
async fn an_index_is_asked_after_and_fetched_again_only_when_it_changed() {
    let (house, origin) = (House::new(), Origin::new().await);
    let (old, new) = (bytes(100_000, 4), bytes(90_000, 5));
    origin.put(INDEX, &old, Some("1"));
    let node = house.node(&[&origin]);
    let url = origin.url(INDEX);
    assert_eq!(get(node.proxy, &url, INSIST).await.mark(), "MISS");
    eventually("it is kept", || node.held().1 == 1).await;
    let again = get(node.proxy, &url, INSIST).await;
    assert_eq!(again.mark(), "REVALIDATED");
    assert!(again.body == old);
    let has_it = get(node.proxy, &url, &format!("{INSIST}If-None-Match: \"1\"\r\n")).await;
    assert_eq!((has_it.status, has_it.body.len()), (304, 0));
    // Who does not insist is given what was asked after a moment ago.
    assert_eq!(get(node.proxy, &url, "").await.mark(), "HIT");
    assert_eq!(origin.sent(), old.len() as u64);
    assert_eq!(origin.asked().last().unwrap().header("if-none-match").as_deref(), Some("\"1\""));

    origin.put(INDEX, &new, Some("2"));
    let changed = get(node.proxy, &url, INSIST).await;
    assert_eq!(changed.mark(), "MISS");
    assert!(changed.body == new);
    assert_eq!(origin.sent(), (old.len() + new.len()) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_origin_that_is_down_makes_answers_stale_within_a_bound_and_they_say_so() {
    let (house, origin, index) = (House::new(), Origin::new().await, bytes(100_000, 6));
    origin.put(INDEX, &index, Some("1"));
    let node = house.node(&[&origin]);
    let url = origin.url(INDEX);
    get(node.proxy, &url, INSIST).await;
    eventually("it is kept", || node.held().1 == 1).await;
    origin.answer_only(Some(500));
    let stale = get(node.proxy, &url, INSIST).await;
    assert_eq!((stale.status, stale.mark().as_str()), (200, "STALE"));
    assert!(stale.body == index);
    assert!(stale.header("warning").unwrap().starts_with("110"));
    assert!(stale.header("age").is_some());
    // It is not asked again for the next who comes.
    let asked = origin.asked().len();
    assert_eq!(get(node.proxy, &url, INSIST).await.mark(), "STALE");
    assert_eq!(origin.asked().len(), asked);
    let dir = node.stop().await;

    // What was known before a restart is known after it, and no bound means no answer.
    let mut strict = config(&[&origin]);
    strict.http_proxy.stale_hours_max = 0;
    let checked = std::fs::read_to_string(dir.join("proxy/known.json")).unwrap();
    let at = checked.split("\"checked_at\":").nth(1).unwrap().split(',').next().unwrap();
    let older = at.parse::<u64>().unwrap() - 10;
    std::fs::write(
        dir.join("proxy/known.json"),
        checked.replace(&format!("\"checked_at\":{at}"), &format!("\"checked_at\":{older}")),
    )
    .unwrap();
    let node = house.node_with(&dir, &strict);
    let refused = get(node.proxy, &url, INSIST).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_origin_does_not_have_is_not_asked_for_by_every_client() {
    let (house, origin) = (House::new(), Origin::new().await);
    let node = house.node(&[&origin]);
    for path in [DEB, INDEX] {
        for _ in 0..3 {
            let reply = get(node.proxy, &origin.url(path), INSIST).await;
            assert_eq!(reply.status, 404);
            assert!(reply.text().contains("404"), "{}", reply.text());
        }
    }
    assert_eq!(origin.asked().len(), 2);
    // A file that it had and has no more is gone here, too.
    let (url, index) = (origin.url("/dists/x/Release"), bytes(1000, 7));
    origin.put("/dists/x/Release", &index, Some("1"));
    assert!(get(node.proxy, &url, INSIST).await.body == index);
    eventually("it is kept", || node.held().1 == 1).await;
    origin.remove("/dists/x/Release");
    assert_eq!(get(node.proxy, &url, INSIST).await.status, 404);
    assert_eq!(get(node.proxy, &url, "").await.status, 404);
}

/// Waits until a node has counted so many bytes of vendors': each file's when it has them all.
async fn landed(node: &Running, bytes: usize) {
    let (name, count) = ("sutler_proxy_vendor_bytes_total", format!(" {bytes}"));
    let counting = async {
        let is_it = |line: &str| line.starts_with(name) && line.ends_with(&count);
        while !get(node.http.unwrap(), "/metrics", "").await.text().lines().any(is_it) {}
    };
    tokio::time::timeout(PATIENCE, counting).await.expect("they come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn a_node_that_is_to_keep_nothing_passes_through_and_stores_nothing() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 13));
    origin.put(DEB, &file, Some("1"));
    let mut passing = config(&[&origin]);
    passing.store.keep = false;
    passing.http.listen = Some("127.0.0.1:0".parse().unwrap());
    let around = Surroundings { linger: Duration::from_millis(100), ..Surroundings::default() };
    let node = house.node_in(&around, &house.folder(), &passing);
    for asked in 1..=2 {
        let reply = get(node.proxy, &origin.url(DEB), "").await;
        assert_eq!((reply.status, reply.mark().as_str()), (200, "MISS"));
        assert!(reply.body == file, "time {asked}");
        assert_eq!(origin.sent(), (asked * LEN) as u64);
        landed(&node, asked * LEN).await;
        eventually("nothing of it is left", || node.held() == (0, 0)).await;
    }
    // Those who come together still share one copy.
    let (other, before) = ("/debian/pool/main/b/b_1_amd64.deb", origin.sent());
    origin.put(other, &file[..LEN - 1], Some("1"));
    origin.hold_from(HALF as u64);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::of(node.proxy).await;
        client.get(&origin.url(other), "").await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        clients.push(client);
    }
    origin.let_go();
    for mut client in clients {
        assert!(client.some(LEN - 1).await == file[..LEN - 1]);
    }
    assert_eq!(origin.sent(), before + LEN as u64 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T6
async fn absurd_sets_of_ranges_cost_no_more_than_the_whole() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 14));
    origin.put(DEB, &file, Some("1"));
    let node = house.node(&[&origin]);
    let url = origin.url(DEB);
    for set in [
        format!("bytes={}0-", "0-,".repeat(2_000)),
        format!("bytes={}-1", "0-0,".repeat(2_000)),
        format!("bytes=0-{},0-{},-{LEN}", LEN - 1, u64::MAX),
        "bytes=5-4,4-3".to_owned(),
        format!("bytes={}-", "9".repeat(4_000)),
        format!("bytes=-{}", "9".repeat(4_000)),
        "bytes=0-0\r\nRange: bytes=1-1".to_owned(),
    ] {
        let reply = get(node.proxy, &url, &format!("Range: {set}\r\n")).await;
        let what = set.get(..40).unwrap_or(&set);
        match reply.status {
            200 | 206 => assert!(reply.body == file, "{what}"),
            416 => assert!(reply.body.is_empty(), "{what}"),
            other => panic!("{what}: {other}"),
        }
        eventually("it is kept", || node.held() == (LEN as u64, 1)).await;
    }
    assert_eq!((origin.asked().len(), origin.sent()), (1, LEN as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn without_room_the_node_passes_through() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 8));
    origin.put(DEB, &file, Some("1"));
    // Even less than one file fits.
    let mut small = config(&[&origin]);
    small.store.bytes_max = Some(sutler_node::size::ByteCount(HALF as u64));
    let node = house.node_with(&house.folder(), &small);
    for asked in 1..=2 {
        let reply = get(node.proxy, &origin.url(DEB), "").await;
        assert_eq!(reply.status, 200);
        assert!(reply.body == file, "time {asked}");
    }
    assert_eq!(node.held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_origin_forbids_to_keep_or_cannot_name_is_passed_on_each_time() {
    let (house, origin, page) = (House::new(), Origin::new().await, bytes(200_000, 9));
    origin.put_with("/a", &page, Some("1"), "Cache-Control: private, max-age=9\r\n");
    origin.put("/b", &page, None);
    let node = house.node(&[&origin]);
    for path in ["/a", "/b", "/a", "/b"] {
        let reply = get(node.proxy, &origin.url(path), "").await;
        assert_eq!(reply.mark(), "MISS");
        assert!(reply.body == page);
    }
    assert_eq!((origin.asked().len(), node.held()), (4, (0, 0)));
    origin.put("/c", &page, Some("1"));
    assert!(get(node.proxy, &origin.url("/c"), "").await.body == page);
    eventually("it is kept", || node.held().1 == 1).await;
    let mut mark = "MISS".to_owned();
    // That it has come is told a moment after it is kept.
    while mark == "MISS" && origin.asked().len() < 6 {
        mark = get(node.proxy, &origin.url("/c"), INSIST).await.mark();
    }
    assert_eq!(mark, "REVALIDATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5
async fn one_connection_answers_head_ranges_and_pipelined_requests_in_order() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 10));
    origin.put(DEB, &file, Some("1"));
    origin.put(INDEX, &file[..5000], Some("2"));
    let node = house.node(&[&origin]);
    let (deb, index) = (origin.url(DEB), origin.url(INDEX));
    let mut client = Client::of(node.proxy).await;
    client.ask("HEAD", &deb, "").await;
    let head = client.head().await.unwrap();
    assert!(head.contains(&format!("content-length: {LEN}")), "{head}");
    assert_eq!(node.held(), (0, 0));
    client.get(&deb, "").await;
    client.get(&index, "").await;
    client.get(&deb, "Range: bytes=-7\r\n").await;
    client.get(&deb, "Range: bytes=5-9\r\nIf-Range: \"1\"\r\n").await;
    client.get(&deb, "Range: bytes=5-9\r\nIf-Range: \"0\"\r\n").await;
    client.get(&deb, &format!("Range: bytes={LEN}-\r\n")).await;
    client.ask("HEAD", &deb, "").await;
    for (status, body) in [
        (200, &file[..]),
        (200, &file[..5000]),
        (206, &file[LEN - 7..]),
        (206, &file[5..10]),
        (200, &file[..]),
    ] {
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.status, status);
        assert!(reply.body == body);
    }
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 416"), "{head}");
    assert!(head.contains(&format!("content-range: bytes */{LEN}")), "{head}");
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn what_nothing_vouches_for_is_offered_to_no_peer() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 11));
    origin.put(DEB, &file, Some("1"));
    let (node, other) = (house.node(&[&origin]), house.node(&[&origin]));
    get(node.proxy, &origin.url(DEB), "").await;
    eventually("it is kept", || node.held().1 == 1).await;
    let wanted = sutler_swarm::Wanted {
        content: sutler_protocol::ContentId::of(&file),
        about: sutler_cache::About::default(),
        class: sutler_protocol::frame::Class::Normal,
        sources: vec![sutler_swarm::SourceAddress::Peer(node.address)],
    };
    let asked = other.fetcher.fetch(&wanted, &tokio::sync::watch::Sender::default()).await;
    let error = asked.err().expect("it is not offered");
    assert!(error.to_string().contains("not known"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D6, R40
async fn metrics_tell_what_came_from_where() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 12));
    origin.put(DEB, &file, Some("1"));
    let mut watched = config(&[&origin]);
    watched.http.listen = Some("127.0.0.1:0".parse().unwrap());
    let node = house.node_with(&house.folder(), &watched);
    get(node.proxy, &origin.url(DEB), "").await;
    eventually("it is kept", || node.held().1 == 1).await;
    get(node.proxy, &origin.url(DEB), "").await;
    get(node.proxy, "http://other.example/x", "").await;
    let metrics = get(node.http.unwrap(), "/metrics", "").await.text();
    let of = format!("{{origin=\"{}\"}}", origin.address);
    for line in [
        "sutler_proxy_requests_total 3".to_owned(),
        "sutler_proxy_hits_total 1".to_owned(),
        "sutler_proxy_refused_total 1".to_owned(),
        format!("sutler_proxy_disk_bytes_total {LEN}"),
        format!("sutler_proxy_origin_requests_total{of} 2"),
        format!("sutler_proxy_origin_hits_total{of} 1"),
        format!("sutler_proxy_vendor_bytes_total{of} {LEN}"),
        format!("sutler_proxy_node_bytes_total{of} 0"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing:\n{metrics}");
    }
}

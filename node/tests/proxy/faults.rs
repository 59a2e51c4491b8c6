//! What goes wrong at an origin, on the disk and with the process.

use super::client::{Client, get};
use super::house::{House, bytes, config, eventually};
use super::origin::Origin;

const LEN: usize = 4 << 20;
const HALF: u64 = (LEN / 2) as u64;
const DEB: &str = "/pool/a_1_amd64.deb";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R39
async fn a_login_page_is_no_package() {
    let (house, origin) = (House::new(), Origin::new().await);
    let html = "Content-Type: text/html; charset=utf-8\r\n";
    origin.put_with(DEB, b"<html>Log in", Some("1"), html);
    origin.put_with("/dists/x/InRelease", b"<html>Log in", Some("1"), html);
    let node = house.node(&[&origin]);
    for path in [DEB, "/dists/x/InRelease"] {
        let reply = get(node.proxy, &origin.url(path), "").await;
        assert_eq!(reply.status, 502);
        assert!(reply.text().contains("web page"), "{}", reply.text());
    }
    assert_eq!(node.held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn an_origin_that_breaks_off_is_gone_on_with_and_the_client_sees_nothing_of_it() {
    for does_ranges in [true, false] {
        let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 1));
        origin.put(DEB, &file, Some("1"));
        origin.cut_at(HALF);
        if !does_ranges {
            origin.without_ranges();
        }
        let node = house.node(&[&origin]);
        let reply = get(node.proxy, &origin.url(DEB), "").await;
        assert!(reply.body == file && !reply.is_broken);
        let again = LEN as u64 - HALF * u64::from(does_ranges);
        assert_eq!(origin.sent(), HALF + again);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7
async fn a_file_that_changes_on_the_way_breaks_the_connection_and_is_never_mixed() {
    let (house, origin) = (House::new(), Origin::new().await);
    let (old, new) = (bytes(LEN, 2), bytes(LEN, 3));
    origin.put(DEB, &old, Some("1"));
    origin.cut_at(HALF);
    origin.hold_from(HALF - 1);
    let node = house.node(&[&origin]);
    let mut client = Client::of(node.proxy).await;
    client.get(&origin.url(DEB), "").await;
    let mut got = Vec::new();
    client.head().await.unwrap();
    got.extend(client.some(HALF as usize - 1).await);
    origin.put(DEB, &new, Some("2"));
    origin.let_go();
    let mut rest = Vec::new();
    drop(tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut rest).await);
    got.extend(rest);
    assert!(got.len() < LEN, "it was not broken off");
    assert!(old.starts_with(&got), "it was mixed");
    eventually("the new one is kept", || node.held() == (LEN as u64, 1)).await;
    assert!(get(node.proxy, &origin.url(DEB), "").await.body == new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_origin_that_sends_another_length_than_it_says_is_not_believed() {
    let (house, origin) = (House::new(), Origin::new().await);
    origin.put_raw(DEB, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 100000\r\n\r\nshort");
    let node = house.node(&[&origin]);
    let reply = get(node.proxy, &origin.url(DEB), "").await;
    assert!(reply.is_broken && reply.status == 200 && reply.body == b"short");
    assert_eq!(node.held().1, 0);
    // It is not asked again by the next who comes.
    let asked = origin.asked().len();
    assert_eq!(get(node.proxy, &origin.url(DEB), "").await.status, 502);
    assert_eq!(origin.asked().len(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T6
async fn an_origin_that_stalls_is_given_up() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 4));
    origin.put(DEB, &file, Some("1"));
    origin.hold_from(HALF);
    let mut hasty = config(&[&origin]);
    hasty.origin.stall_timeout_ms = 100.try_into().unwrap();
    let node = house.node_with(&house.folder(), &hasty);
    let reply = get(node.proxy, &origin.url(DEB), "").await;
    assert!(reply.is_broken);
    assert!(file.starts_with(&reply.body));
    origin.let_go();
    assert_eq!(node.held().1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_node_that_is_stopped_half_way_goes_on_where_it_was() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 5));
    origin.put(DEB, &file, Some("1"));
    origin.hold_from(HALF);
    let node = house.node(&[&origin]);
    let mut client = Client::of(node.proxy).await;
    client.get(&origin.url(DEB), "").await;
    client.head().await.unwrap();
    client.some(HALF as usize).await;
    drop(client);
    let dir = node.stop().await;
    origin.let_go();
    let node = house.node_with(&dir, &config(&[&origin]));
    let reply = get(node.proxy, &origin.url(DEB), "").await;
    assert!(reply.body == file);
    let range = origin.asked()[1].header("range").expect("it asks for the rest");
    let from: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 0 && from <= HALF, "{range}");
    assert_eq!(origin.asked()[1].header("if-range").as_deref(), Some("\"1\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn a_disk_that_is_full_half_way_costs_the_client_nothing() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 6));
    origin.put(DEB, &file, Some("1"));
    // Nobody knows before that it will not fit.
    origin.without_length();
    let mut small = config(&[&origin]);
    small.store.bytes_max = Some(sutler_node::size::ByteCount(HALF));
    let node = house.node_with(&house.folder(), &small);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (url, proxy) = (origin.url(DEB), node.proxy);
        clients.spawn(async move { get(proxy, &url, "").await });
    }
    while let Some(reply) = clients.join_next().await {
        let reply = reply.unwrap();
        assert!(reply.status == 200 && !reply.is_broken && reply.body == file);
    }
    assert_eq!(node.held().1, 0);
}

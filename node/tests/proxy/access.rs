//! Who is served, and where nobody is led.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sutler_node::node::Surroundings;
use sutler_swarm::origin::{Addrs, AllowEntry, Name, Resolve, Resolving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{Client, get};
use super::house::{House, bytes, config, eventually};
use super::origin::Origin;

const DEB: &str = "/pool/a_1.deb";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T16
async fn only_origins_that_are_allowed_are_asked() {
    let (house, origin, other) = (House::new(), Origin::new().await, Origin::new().await);
    other.put(DEB, b"secret", Some("1"));
    let node = house.node(&[&origin]);
    for url in [
        other.url(DEB),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://localhost/x".to_owned(),
        "http://[::1]/x".to_owned(),
        "http://2130706433/x".to_owned(),
        format!("/https/{}{DEB}", origin.address),
        origin.url("/a/..%2f..%2fetc/passwd"),
    ] {
        let reply = get(node.proxy, &url, "").await;
        assert_eq!(reply.status, 403, "{url}");
        assert!(reply.text().contains("may not be asked"), "{url}: {}", reply.text());
    }
    assert_eq!((origin.asked().len(), other.asked().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T16
async fn an_origin_leads_nobody_inside() {
    let (house, origin, inside) = (House::new(), Origin::new().await, Origin::new().await);
    inside.put("/x", b"secret", Some("1"));
    let node = house.node(&[&origin]);
    let targets = [
        inside.url("/x"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::ffff:169.254.169.254]/".to_owned(),
        "http://localhost:1/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    for (number, target) in targets.iter().enumerate() {
        for suffix in ["deb", "html"] {
            let path = format!("/pool/{number}_1.{suffix}");
            origin.put_raw(
                &path,
                &format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"),
            );
            let reply = get(node.proxy, &origin.url(&path), "").await;
            assert_eq!(reply.status, 403, "{target}: {}", reply.text());
        }
    }
    assert_eq!(inside.asked().len(), 0);
}

/// Answers each look-up with what it was told last, and counts them.
#[derive(Default)]
struct Rebinding {
    answer: Mutex<Vec<IpAddr>>,
    look_ups: AtomicU64,
}

impl Resolve for Rebinding {
    fn resolve(&self, _: Name) -> Resolving {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().unwrap().clone();
        let answer = answer.into_iter().map(|ip| SocketAddr::new(ip, 0));
        Box::pin(async move { Ok(Box::new(answer) as Addrs) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T16
async fn a_name_that_leads_elsewhere_at_its_next_look_up_leads_nobody_inside() {
    let (house, origin, inside) = (House::new(), Origin::new().await, Origin::new().await);
    let root = format!("http://mirror.example:{}", inside.address.port());
    let resolver = Arc::new(Rebinding::default());
    let around = Surroundings { resolver: resolver.clone(), ..Surroundings::default() };
    let mut config = config(&[&origin]);
    config.http_proxy.allow.push(AllowEntry::public(&*root));
    config.http_proxy.allow.push(AllowEntry::public("https://mirror.example"));
    let node = house.node_in(&around, &house.folder(), &config);
    for (number, answer) in [
        // Nowhere at first, which is harmless; then this machine, its network, a cloud's secrets.
        &[][..],
        &["127.0.0.1"],
        &["::1"],
        &["169.254.169.254"],
        &["::ffff:169.254.169.254", "::ffff:127.0.0.1"],
        &["10.0.0.1", "192.168.0.1", "fd00::1"],
    ]
    .into_iter()
    .enumerate()
    {
        let ips = answer.iter().map(|ip| ip.parse().unwrap());
        *resolver.answer.lock().unwrap() = ips.collect();
        // Another each time: what failed is not asked for again at once.
        let path = format!("/pool/{number}_1.deb");
        inside.put(&path, b"secret", Some("1"));
        let asked = resolver.look_ups.load(Ordering::Relaxed);
        let reply = get(node.proxy, &format!("{root}{path}"), "").await;
        let status = if answer.is_empty() { 502 } else { 403 };
        assert_eq!(reply.status, status, "{answer:?}: {}", reply.text());
        assert!(resolver.look_ups.load(Ordering::Relaxed) > asked, "{answer:?}");
    }
    // Behind a redirect, and for a tunnel.
    *resolver.answer.lock().unwrap() = vec!["127.0.0.1".parse().unwrap()];
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {root}/pool/r_1.deb\r\nContent-Length: 0\r\n\r\n");
    origin.put_raw("/pool/r_1.deb", &redirect);
    assert_eq!(get(node.proxy, &origin.url("/pool/r_1.deb"), "").await.status, 403);
    let mut client = Client::of(node.proxy).await;
    client.send("CONNECT mirror.example:443 HTTP/1.1\r\nHost: mirror.example:443\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 403);
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T23
async fn a_client_of_another_network_is_not_even_read() {
    let (house, origin) = (House::new(), Origin::new().await);
    origin.put(DEB, b"x", Some("1"));
    let mut narrow = config(&[&origin]);
    narrow.http_proxy.clients = vec!["10.0.0.0/8".parse().unwrap()];
    let node = house.node_with(&house.folder(), &narrow);
    let mut client = Client::of(node.proxy).await;
    client.get(&origin.url(DEB), "").await;
    assert_eq!(client.head().await, None);
    assert_eq!(origin.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T23
async fn one_client_cannot_take_all_connections() {
    let (house, origin) = (House::new(), Origin::new().await);
    let mut narrow = config(&[&origin]);
    narrow.http_proxy.connections_per_client_max = 2.try_into().unwrap();
    let node = house.node_with(&house.folder(), &narrow);
    let mut first = Client::of(node.proxy).await;
    first.get("/", "").await;
    assert_eq!(first.reply().await.unwrap().status, 200);
    let mut second = Client::of(node.proxy).await;
    second.get("/", "").await;
    assert_eq!(second.reply().await.unwrap().status, 200);
    let mut third = Client::of(node.proxy).await;
    third.get("/", "").await;
    assert_eq!(third.head().await, None);
    drop((first, second));
    let mut is_let_in = false;
    while !is_let_in {
        let mut client = Client::of(node.proxy).await;
        client.get("/", "").await;
        is_let_in = client.head().await.is_some();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T23, T28
async fn where_there_is_a_password_file_everybody_logs_in() {
    let (house, origin) = (House::new(), Origin::new().await);
    origin.put(DEB, b"x", Some("1"));
    let folder = house.folder();
    let path = folder.join("passwords");
    std::fs::write(&path, "anna:secret\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let mut closed = config(&[&origin]);
    closed.http_proxy.password_file = Some(path);
    let node = house.node_with(&folder, &closed);
    let url = origin.url(DEB);
    let mirror = format!("/{}", url.trim_start_matches("http://"));
    let refused = get(node.proxy, &url, "").await;
    assert_eq!(refused.status, 407);
    assert!(refused.header("proxy-authenticate").unwrap().starts_with("Basic"));
    assert_eq!(get(node.proxy, &mirror, "").await.status, 401);
    assert_eq!(get(node.proxy, "/", "").await.status, 401);
    assert_eq!(get(node.proxy, &url, "Proxy-Authorization: Basic YW5uYTp4\r\n").await.status, 407);
    let login = "Basic YW5uYTpzZWNyZXQ=";
    let right = get(node.proxy, &url, &format!("Proxy-Authorization: {login}\r\n")).await;
    assert_eq!(right.status, 200);
    assert_eq!(get(node.proxy, &mirror, &format!("Authorization: {login}\r\n")).await.status, 200);
    // What a client logs in with goes no further.
    assert!(origin.asked().iter().all(|asked| {
        asked.header("authorization").is_none() && asked.header("proxy-authorization").is_none()
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5, T16
async fn a_tunnel_leads_to_allowed_hosts_and_through_the_proxy_before_them() {
    let (house, gate) = (House::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut behind = config(&[]);
    behind.origin.proxy = Some(format!("http://anna:secret@{}", gate.local_addr().unwrap()));
    behind.http_proxy.allow = vec![AllowEntry::public("https://esm.example/apps")];
    let node = house.node_with(&house.folder(), &behind);
    let passing = tokio::spawn(async move {
        let (mut stream, _) = gate.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let mut client = Client::of(node.proxy).await;
    client.send("CONNECT esm.example:443 HTTP/1.1\r\nHost: esm.example:443\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
    // Bytes that no HTTP parser would take.
    client.0.write_all(b"\x16\x03\n\0\r").await.unwrap();
    assert_eq!(client.some(5).await, b"\x16\x03\n\0\r");
    let asked = passing.await.unwrap();
    assert!(asked.starts_with("CONNECT esm.example:443 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic YW5uYTpzZWNyZXQ=\r\n"), "{asked}");
    for (place, status) in
        [("other.example:443", 403), ("esm.example:22", 403), ("169.254.169.254:443", 403)]
    {
        let mut client = Client::of(node.proxy).await;
        client.send(&format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n")).await;
        assert_eq!(client.reply().await.unwrap().status, status, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T6
async fn a_client_that_dribbles_its_request_is_given_up() {
    let (house, origin) = (House::new(), Origin::new().await);
    let mut hasty = config(&[&origin]);
    hasty.http_proxy.head_timeout_ms = 200.try_into().unwrap();
    let node = house.node_with(&house.folder(), &hasty);
    let mut client = Client::of(node.proxy).await;
    let dribbling = async {
        client.send("GET / HTTP/1.1\r\n").await;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1000 {
            tick.tick().await;
            if client.0.write_all(b"X: a\r\n").await.is_err() {
                return;
            }
        }
        panic!("it was read for ever");
    };
    dribbling.await;
    let mut silent = Client::of(node.proxy).await;
    silent.get("/", "").await;
    assert_eq!(silent.reply().await.unwrap().status, 200);
    assert_eq!(silent.head().await, None, "an idle connection is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T6
async fn a_client_that_takes_nothing_is_given_up_and_holds_nobody_up() {
    const LEN: usize = 64 << 20;
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(LEN, 1));
    origin.put(DEB, &file, Some("1"));
    let mut hasty = config(&[&origin]);
    hasty.http_proxy.write_timeout_ms = 300.try_into().unwrap();
    let node = house.node_with(&house.folder(), &hasty);
    let mut slow = Client::of(node.proxy).await;
    slow.get(&origin.url(DEB), "").await;
    slow.head().await.unwrap();
    // The fetch waits for no client.
    eventually("it is kept", || node.held() == (LEN as u64, 1)).await;
    assert!(get(node.proxy, &origin.url(DEB), "").await.body == file);
    eventually("it is given up", || {
        let mut left = [0; 1 << 12];
        // Whatever lies in the buffers is taken; then the connection is over.
        matches!(slow.0.try_read(&mut left), Ok(0) | Err(_))
            && !matches!(slow.0.try_read(&mut left), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    })
    .await;
}

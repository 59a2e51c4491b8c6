//! Origins that misbehave, on loopback, over real sockets: what `sutler_swarm::origin` makes of them.

#[path = "origin/server.rs"]
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use server::{Answer, Server};
use sutler_swarm::origin::{
    AllowEntry, Blame, OriginBody, OriginConfig, OriginError, Origins, ProxyEnvironment, Refused,
    ReplyFault, Validators,
};
use url::Url;

/// Answers every name with loopback.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(addr)) as Addrs) })
    }
}

fn config(allow: Vec<AllowEntry>) -> OriginConfig {
    OriginConfig { allow, ..OriginConfig::default() }
}

/// Short enough for a test to wait out, long enough for a reply over loopback.
fn impatient(allow: Vec<AllowEntry>) -> OriginConfig {
    let quarter = NonZeroU64::new(250).expect("not zero");
    OriginConfig { stall_timeout_ms: quarter, connect_timeout_ms: quarter, ..config(allow) }
}

fn origins(config: &OriginConfig) -> Origins {
    let resolver: Arc<dyn Resolve> = Arc::new(Loopback);
    Origins::with(config, &ProxyEnvironment::default(), &resolver).expect("a config in order")
}

fn of(server: &Server) -> Origins {
    origins(&config(vec![AllowEntry::private(server.url("").as_str())]))
}

async fn collect(mut body: OriginBody) -> Result<Vec<u8>, OriginError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(body.delivered(), bytes.len() as u64);
    assert_eq!(body.len(), Some(bytes.len() as u64), "known at the end");
    Ok(bytes)
}

async fn read(
    origins: &Origins,
    url: &Url,
    bytes: std::ops::Range<u64>,
) -> Result<Vec<u8>, OriginError> {
    collect(origins.read(url, bytes, &Validators::default()).await?).await
}

async fn whole(origins: &Origins, url: &Url) -> Result<Vec<u8>, OriginError> {
    collect(origins.whole(url, 0, &Validators::default()).await?).await
}

/// 3 MB of bytes that differ from place to place.
fn file() -> Arc<[u8]> {
    (0..3_000_000_u32).map(|i| (i ^ (i >> 9)) as u8).collect()
}

#[tokio::test]
async fn a_good_origin_gives_exactly_what_is_asked_for() {
    let file = file();
    let server = Server::start(Answer::file(&file)).await;
    let (origins, url) = (of(&server), server.url("/pool/a.deb"));

    let found = origins.probe(&url).await.expect("a probe");
    assert_eq!((found.len(), found.ranges), (Some(3_000_000), true));
    assert_eq!(found.validators.etag.as_deref(), Some("\"v1\""));
    assert_eq!(found.final_url, url);

    for range in [0..1, 0..3_000_000, 65_536..131_072, 2_999_999..3_000_000, 7..7] {
        let part = &file[range.start as usize..range.end as usize];
        let body = origins.read(&url, range.clone(), &found.validators).await.expect("a body");
        assert_eq!(body.len(), Some(range.end - range.start));
        assert_eq!(collect(body).await.expect("all of it"), part, "{range:?}");
    }
    let body = origins.whole(&url, 2_000_000, &found.validators).await.expect("the rest");
    assert_eq!(collect(body).await.expect("all of it"), &file[2_000_000..]);
    let body = origins.whole(&url, 3_000_000, &found.validators).await.expect("its end");
    assert_eq!(collect(body).await.expect("nothing"), b"");
    assert_eq!(whole(&origins, &url).await.expect("the file"), &file[..]);

    let asked = server.requests();
    assert!(asked.iter().all(|head| head.contains("accept-encoding: identity")), "{asked:?}");
    assert!(asked.iter().all(|head| head.contains("user-agent: sutler/")), "{asked:?}");
    assert!(asked[1].contains("if-range: \"v1\""), "{asked:?}");
    assert!(server.connections() < asked.len(), "connections are used again");
}

#[tokio::test]
async fn several_ranges_in_flight_do_not_mix() {
    let file = file();
    let server = Server::start(Answer::file(&file)).await;
    let (origins, url) = (of(&server), server.url("/a"));
    let mut reads = tokio::task::JoinSet::new();
    for i in 0..12_u64 {
        let (origins, url) = (origins.clone(), url.clone());
        let range = i * 250_000..(i + 1) * 250_000;
        reads.spawn(async move { (i, read(&origins, &url, range).await) });
    }
    while let Some(done) = reads.join_next().await {
        let (i, bytes) = done.expect("no panic");
        let start = i as usize * 250_000;
        assert_eq!(bytes.expect("a part"), &file[start..start + 250_000]);
    }
}

#[tokio::test]
async fn a_whole_file_in_place_of_a_range_is_cut_or_named() {
    let file = file();
    let server = Server::start(Answer::whole_only(&file)).await;
    let (origins, url) = (of(&server), server.url("/a"));

    let found = origins.probe(&url).await.expect("a probe");
    assert_eq!((found.len(), found.ranges), (Some(3_000_000), false));
    assert_eq!(read(&origins, &url, 100..200_000).await.expect("near"), &file[100..200_000]);
    let error = read(&origins, &url, 2_000_000..2_000_001).await.expect_err("far");
    assert_eq!(error.fault(), Some(&ReplyFault::WholeOnly { len: Some(3_000_000) }));
    assert!(error.is_final());
    let body = origins.whole(&url, 2_000_000, &Validators::default()).await.expect("the rest");
    assert_eq!(collect(body).await.expect("all of it"), &file[2_000_000..]);
}

// T5
#[tokio::test]
async fn a_body_of_the_wrong_length_is_an_error_and_stays_one() {
    let short =
        Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n12345");
    let server = Server::start(short).await;
    let (origins, url) = (of(&server), server.url("/a"));
    let mut body = origins.whole(&url, 0, &Validators::default()).await.expect("a head");
    assert_eq!(body.next().await.expect("its first bytes").as_deref(), Some(&b"12345"[..]));
    let error = body.next().await.expect_err("an early end");
    assert!(!error.is_final(), "{error:?}");
    body.next().await.expect_err("still");

    let closed =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nConnection: close\r\n\r\n";
    let server = Server::start(Answer::text(&format!("{closed}12345"))).await;
    let error = read(&of(&server), &server.url("/a"), 0..10).await.expect_err("an early end");
    assert!(matches!(error, OriginError::Short { missing: 5, .. }), "{error:?}");
    let server = Server::start(Answer::text(&format!("{closed}1234567890x"))).await;
    let error = read(&of(&server), &server.url("/a"), 0..10).await.expect_err("too many");
    assert!(matches!(error, OriginError::Long { expected: 10, .. }), "{error:?}");
    assert_eq!(error.blame(), Blame::Origin);
}

#[tokio::test]
async fn a_body_without_a_length_ends_where_its_framing_does() {
    for (head, body) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "hello world"),
        ("HTTP/1.0 200 OK\r\n\r\n", "hello world"),
    ] {
        let server = Server::start(Answer::text(&format!("{head}{body}"))).await;
        let (origins, url) = (of(&server), server.url("/a"));
        let body = origins.whole(&url, 0, &Validators::default()).await.expect("a head");
        assert_eq!(body.len(), None);
        assert_eq!(collect(body).await.expect("a body"), b"hello world");

        let shorter = Validators { len: Some(5), ..Validators::default() };
        let body = origins.whole(&url, 0, &shorter).await.expect("a head");
        let error = collect(body).await.expect_err("more than recorded");
        assert!(matches!(error, OriginError::Long { expected: 5, .. }), "{error:?}");
        let longer = Validators { len: Some(12), ..Validators::default() };
        let body = origins.whole(&url, 0, &longer).await.expect("a head");
        let error = collect(body).await.expect_err("less than recorded");
        assert!(matches!(error, OriginError::Short { missing: 1, .. }), "{error:?}");
    }
    let torn = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n wo";
    let server = Server::start(Answer::text(torn)).await;
    let error = whole(&of(&server), &server.url("/a")).await.expect_err("torn");
    assert!(matches!(error, OriginError::Receive { .. }), "{error:?}");
}

// T5
#[tokio::test]
async fn an_endless_body_ends_at_what_was_asked_for() {
    let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99999/*\r\n\r\n";
    let server = Server::start(Answer::endless(head)).await;
    let error = read(&of(&server), &server.url("/a"), 0..100_000).await;
    match error {
        Ok(bytes) => assert_eq!(bytes.len(), 100_000),
        Err(error) => assert!(matches!(error, OriginError::Long { .. }), "{error:?}"),
    }
    let server = Server::start(Answer::endless("HTTP/1.1 200 OK\r\n\r\n")).await;
    let bytes = read(&of(&server), &server.url("/a"), 0..100_000).await.expect("the start");
    assert_eq!(bytes.len(), 100_000);
    server.gone().await;
}

#[tokio::test]
async fn a_file_that_changes_in_the_middle_is_noticed() {
    let server = Server::start(Answer::file(&file())).await;
    let (origins, url) = (of(&server), server.url("/a"));
    let found = origins.probe(&url).await.expect("a probe");
    origins.read(&url, 0..10, &found.validators).await.expect("not yet changed");

    server.answer(Answer::file_tagged(&file(), "\"v2\""));
    let error = origins.read(&url, 10..20, &found.validators).await.expect_err("changed");
    assert_eq!(error.fault(), Some(&ReplyFault::Changed));
    let error = origins.whole(&url, 10, &found.validators).await.expect_err("changed");
    assert_eq!(error.fault(), Some(&ReplyFault::Changed));

    server.answer(Answer::file_tagged(&file()[..1000], "\"v1\""));
    let error = origins.read(&url, 10..20, &found.validators).await.expect_err("shorter");
    assert_eq!(error.fault(), Some(&ReplyFault::WrongLength { expected: 3_000_000, got: 1000 }));
}

#[tokio::test]
async fn a_busy_origin_says_when_to_come_back() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let text = format!("HTTP/1.1 {status}\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
        let server = Server::start(Answer::text(&text)).await;
        let error = read(&of(&server), &server.url("/a"), 0..1).await.expect_err("busy");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(!error.is_final());
    }
    let server =
        Server::start(Answer::text("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")).await;
    let error = read(&of(&server), &server.url("/a"), 0..1).await.expect_err("missing");
    assert_eq!(error.fault(), Some(&ReplyFault::Status { status: 404 }));
    assert!(error.is_final());
}

// T15
#[tokio::test]
async fn an_encoded_body_is_not_decoded_but_refused() {
    let text = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x08\x00";
    let server = Server::start(Answer::text(text)).await;
    let error = whole(&of(&server), &server.url("/a.deb")).await.expect_err("encoded");
    assert_eq!(error.fault(), Some(&ReplyFault::Encoded));
    let bytes = whole(&of(&server), &server.url("/a.tgz")).await.expect("its own encoding");
    assert_eq!(bytes, b"\x1f\x08\x00");
}

// T6
#[tokio::test]
async fn silence_is_given_up_wherever_it_falls() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    ] {
        let server = Server::start(Answer::text(text).and_wait()).await;
        let origins = origins(&impatient(vec![AllowEntry::private(server.url("").as_str())]));
        let error = whole(&origins, &server.url("/a")).await.expect_err("silence");
        assert!(matches!(error, OriginError::Silent { .. }), "{text}: {error:?}");
        assert_eq!(error.blame(), Blame::Origin);
        assert!(!error.is_final());
        server.gone().await;
    }
}

// T6
#[tokio::test]
async fn silence_is_counted_across_abandoned_waits() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
    let server = Server::start(Answer::text(text).and_wait()).await;
    let origins = origins(&impatient(vec![AllowEntry::private(server.url("").as_str())]));
    let mut body =
        origins.whole(&server.url("/a"), 0, &Validators::default()).await.expect("a head");
    body.next().await.expect("the first half");
    // Each wait is shorter than the patience; abandoned waits must add up, or this never ends.
    let error = loop {
        if let Ok(waited) = tokio::time::timeout(Duration::from_millis(40), body.next()).await {
            break waited.expect_err("silence");
        }
    };
    assert!(matches!(error, OriginError::Silent { .. }), "{error:?}");
}

// T6
#[tokio::test]
async fn a_trickle_is_given_up() {
    let server =
        Server::start(Answer::trickle("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")).await;
    let window = NonZeroU64::new(200).expect("not zero");
    let config = OriginConfig {
        rate_bytes_min: 1_000_000,
        rate_window_ms: window,
        ..config(vec![AllowEntry::private(server.url("").as_str())])
    };
    let error = whole(&origins(&config), &server.url("/a")).await.expect_err("too slow");
    assert!(matches!(error, OriginError::Slow { .. }), "{error:?}");
    server.gone().await;
}

// T5
#[tokio::test]
async fn endless_and_huge_headers_are_cut_off() {
    let many = "X-Filler: filler\r\n".repeat(1000);
    let server = Server::start(Answer::text(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"))).await;
    let error = whole(&of(&server), &server.url("/a")).await.expect_err("too many");
    assert!(matches!(error, OriginError::Reply { .. }), "{error:?}");

    let server = Server::start(Answer::endless("HTTP/1.1 200 OK\r\nX-Filler: ")).await;
    let error = whole(&of(&server), &server.url("/a")).await.expect_err("too long");
    assert!(matches!(error, OriginError::Reply { .. }), "{error:?}");
    server.gone().await;

    let server = Server::start(Answer::text("220 ftp.example ready\r\n").and_wait()).await;
    let error = whole(&of(&server), &server.url("/a")).await.expect_err("no HTTP");
    assert!(matches!(error, OriginError::Reply { .. }), "{error:?}");
    assert_eq!(error.blame(), Blame::Origin);
}

#[tokio::test]
async fn a_reply_with_two_lengths_is_refused() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456";
    let server = Server::start(Answer::text(text)).await;
    let error = whole(&of(&server), &server.url("/a")).await.expect_err("two lengths");
    assert!(matches!(error, OriginError::Reply { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_to_an_allowed_place_is_followed() {
    let file = file();
    let target = Server::start(Answer::file(&file)).await;
    let first = Server::start(Answer::redirect(target.url("/real?sig=secret").as_str())).await;
    let allow = [&first, &target].map(|server| AllowEntry::private(server.url("").as_str()));
    let origins = origins(&config(allow.to_vec()));
    let found = origins.probe(&first.url("/a")).await.expect("a probe");
    assert_eq!(found.final_url, target.url("/real?sig=secret"));
    assert_eq!(read(&origins, &first.url("/a"), 5..9).await.expect("bytes"), &file[5..9]);
    assert!(target.requests()[0].contains("range: bytes=0-0"));
    assert!(!target.requests()[0].contains("referer"));

    let round = Server::start(Answer::redirect("/again")).await;
    let error = whole(&of(&round), &round.url("/a")).await.expect_err("a loop");
    assert!(matches!(error, OriginError::RedirectLoop { .. }), "{error:?}");
    assert_eq!(round.requests().len(), 6);
}

// T16
#[tokio::test]
async fn a_redirect_inside_or_elsewhere_makes_no_connection() {
    let inside = Server::start(Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let port = inside.port();
    for target in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("//127.0.0.1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://other.example:{port}/"),
        "https://mirror.example/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://user:secret@mirror.example/".to_owned(),
        "http://[".to_owned(),
    ] {
        let mirror = Server::start(Answer::redirect(&target)).await;
        let url: Url = format!("http://mirror.example:{}/a", mirror.port()).parse().expect("a URL");
        let origins = origins(&config(vec![AllowEntry::private(url.join("/").expect("a URL"))]));
        let error = whole(&origins, &url).await.expect_err(&target);
        assert!(matches!(error, OriginError::RedirectRefused { .. }), "{target}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert!(error.is_final());
    }
    assert_eq!(inside.connections(), 0);
}

// T16
#[tokio::test]
async fn an_allowed_name_that_leads_inside_makes_no_connection() {
    let inside = Server::start(Answer::file(&file())).await;
    let url: Url = format!("http://mirror.example:{}/a", inside.port()).parse().expect("a URL");
    let root = url.join("/").expect("a URL");
    let guarded = origins(&config(vec![AllowEntry::public(root.clone())]));
    let error = whole(&guarded, &url).await.expect_err("loopback");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(error.blame(), Blame::Path);
    assert_eq!(inside.connections(), 0);

    // The same name behind a redirect.
    let first = Server::start(Answer::redirect(url.as_str())).await;
    let allow = vec![AllowEntry::private(first.url("").as_str()), AllowEntry::public(root.clone())];
    let error = whole(&origins(&config(allow)), &first.url("/a")).await.expect_err("loopback");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(inside.connections(), 0);

    // A connection that one origin may have is not another's.
    let open = AllowEntry::private(root.join("/open").expect("a URL"));
    let both = origins(&config(vec![AllowEntry::public(root), open]));
    read(&both, &url.join("/open/a").expect("a URL"), 0..1).await.expect("it may be inside");
    let error = read(&both, &url, 0..1).await.expect_err("this may not");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(inside.connections(), 1);
}

// T16
#[tokio::test]
async fn what_the_list_does_not_cover_makes_no_connection() {
    let server = Server::start(Answer::file(&file())).await;
    let allow = AllowEntry::private(server.url("/debian").as_str());
    let origins = origins(&config(vec![allow]));
    for path in ["/other", "/debian-security/a", "/debian/..%2fother", "/debian/../other"] {
        let error = whole(&origins, &server.url(path)).await.expect_err(path);
        assert!(matches!(error, OriginError::Refused { .. }), "{path}: {error:?}");
        assert_eq!(error.blame(), Blame::Asker);
        origins.probe(&server.url(path)).await.expect_err(path);
        origins.read(&server.url(path), 0..0, &Validators::default()).await.expect_err(path);
        assert!(matches!(
            origins.permits(&server.url(path)),
            Err(Refused::NotAllowed { .. } | Refused::Ambiguous)
        ));
    }
    assert_eq!(server.connections(), 0);
    origins.permits(&server.url("/debian/a")).expect("covered");
}

#[tokio::test]
async fn a_proxy_gets_the_whole_url_and_no_private_address() {
    let file = file();
    let proxy = Server::start(Answer::file(&file)).await;
    let config = OriginConfig {
        proxy: Some(format!("http://user:pass@proxy.lan:{}", proxy.port())),
        ..config(vec![AllowEntry::public("http://mirror.example")])
    };
    let origins = origins(&config);
    let url = "http://mirror.example/a".parse().expect("a URL");
    assert_eq!(read(&origins, &url, 0..9).await.expect("through the proxy"), &file[..9]);
    let asked = &proxy.requests()[0];
    assert!(asked.starts_with("get http://mirror.example/a http/1.1"), "{asked}");
    assert!(asked.contains("proxy-authorization: basic "), "{asked}");

    proxy.answer(Answer::redirect("http://10.0.0.1/"));
    let error = whole(&origins, &url).await.expect_err("inside");
    assert!(matches!(error, OriginError::RedirectRefused { .. }), "{error:?}");
    assert_eq!(proxy.requests().len(), 2);
}

#[tokio::test]
async fn an_unreachable_origin_is_the_path_s_fault() {
    let server = Server::start(Answer::text("")).await;
    let (origins, url) = (of(&server), server.url("/a"));
    drop(server);
    let error = whole(&origins, &url).await.expect_err("nobody there");
    assert!(matches!(error, OriginError::Connect { .. } | OriginError::Reply { .. }), "{error:?}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn all_that_is_wrong_with_a_config_is_said_at_once() {
    let config = OriginConfig {
        allow: vec![AllowEntry::public("nonsense"), AllowEntry::public("http://127.0.0.1")],
        proxy: Some("socks5://user:secret@proxy.lan".to_owned()),
        ca_files: vec!["/nonexistent/ca.pem".into()],
        ..OriginConfig::default()
    };
    let resolver: Arc<dyn Resolve> = Arc::new(Loopback);
    let error = Origins::with(&config, &ProxyEnvironment::default(), &resolver).expect_err("wrong");
    assert_eq!(error.problems.len(), 4, "{error}");
    let text = error.to_string();
    for part in ["allow[0]", "allow[1]", "loopback", "proxy: ", "/nonexistent/ca.pem"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

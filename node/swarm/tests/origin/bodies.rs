//! Replies and bodies: what comes, how much of it, and how slowly.

use std::num::NonZeroU64;
use std::time::Duration;

use sutler_swarm::origin::{AllowEntry, Blame, OriginConfig, OriginError, ReplyFault, Validators};

use crate::server::{Answer, Server};
use crate::{collect, config, file, of, origins, read, whole};

/// Short enough for a test to wait out, long enough for a reply over loopback.
fn impatient(allow: Vec<AllowEntry>) -> OriginConfig {
    let ms = |ms| NonZeroU64::new(ms).expect("not zero");
    OriginConfig { stall_timeout_ms: ms(250), connect_timeout_ms: ms(1000), ..config(allow) }
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
    let mut body = origins.whole(&url, 2_000_000, &Validators::default()).await.expect("the rest");
    while body.next().await.expect("more of it").is_some() {}
    assert_eq!((body.delivered(), body.received()), (1_000_000, 3_000_000), "what it cost");
    let body = origins.whole(&url, 2_000_000, &Validators::default()).await.expect("the rest");
    assert_eq!(collect(body).await.expect("all of it"), &file[2_000_000..]);
}

// D2
#[tokio::test]
async fn a_part_or_else_the_whole_is_what_the_one_reply_has() {
    let (file, far) = (file(), 2_000_000..2_065_536);
    let recorded = Validators { len: Some(3_000_000), ..Validators::default() };
    for gives_parts in [true, false] {
        let answer = if gives_parts { Answer::file(&file) } else { Answer::whole_only(&file) };
        let server = Server::start(answer).await;
        let (origins, url) = (of(&server), server.url("/a"));
        let body = origins.part_or_whole(&url, far.clone(), &recorded).await.expect("a body");
        assert_eq!(body.file().ranges, gives_parts);
        let expected = if gives_parts { &file[2_000_000..2_065_536] } else { &file[..] };
        assert_eq!(collect(body).await.expect("all of it"), expected);
        assert_eq!(server.requests().len(), 1);
    }
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

#[tokio::test]
async fn an_origin_that_had_enough_of_us_is_left_alone_by_all() {
    let text = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(Answer::text(text)).await;
    let origins = of(&server);
    read(&origins, &server.url("/a"), 0..1).await.expect_err("busy");
    let error = origins.clone().probe(&server.url("/b")).await.expect_err("left alone");
    let left = error.retry_after().expect("how long");
    assert!(left <= Duration::from_secs(7), "{left:?}");
    assert_eq!(server.requests().len(), 1);
    // Other origins are not meant.
    let other = Server::start(Answer::file(&file())).await;
    read(&of(&other), &other.url("/a"), 0..1).await.expect("bytes");
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

//! Peers that lie when they are asked: what they send is refused, they are named, and what honest
//! ones have still arrives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{Answer, Holding, Opened, Refusal, Request};
use sutler_protocol::geometry::CHUNK_BYTES_MIN;
use sutler_protocol::{ContentId, Sha256Digest};
use sutler_swarm::FetchError;
use tokio::sync::watch;

use super::machines::{Organisation, add, bytes, eventually, read, soon, unseen, wanted_of};
use super::raw::{RawServer, Sample, Talk};

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

type Manner = Arc<dyn Fn(Talk) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn manner<F>(answer: impl Fn(Talk) -> F + Send + Sync + 'static) -> Manner
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |talk| Box::pin(answer(talk)))
}

/// Answers requests for chunks with `answer`, and the others as an honest peer does.
fn with_chunks<F>(answer: impl Fn(Talk, Vec<u8>) -> F + Clone + Send + Sync + 'static) -> Manner
where
    F: Future<Output = ()> + Send + 'static,
{
    manner(move |talk| {
        let answer = answer.clone();
        async move {
            match talk.request.clone() {
                Request::Chunks(asked) => {
                    let bytes = talk.sample.asked_for(&asked);
                    answer(talk, bytes).await;
                }
                _ => talk.honest().await,
            }
        }
    })
}

/// Changes what an honest peer says when it is asked to open the content.
fn with_opened(
    change: impl Fn(&mut Opened, &mut Vec<u8>) + Clone + Send + Sync + 'static,
) -> Manner {
    manner(move |talk| {
        let change = change.clone();
        async move {
            match talk.request.clone() {
                Request::Open(open) => {
                    let (mut opened, mut body) = talk.sample.opened(open.body);
                    change(&mut opened, &mut body);
                    talk.open(opened, &body).await;
                }
                _ => talk.honest().await,
            }
        }
    })
}

/// Claims a length that is this much off, and cuts or fills what it sends accordingly.
fn of_length(off: i64) -> Manner {
    manner(move |talk| async move {
        match talk.request.clone() {
            Request::Open(open) => {
                let (mut opened, body) = talk.sample.opened(open.body);
                opened.len = opened.len.strict_add_signed(off);
                talk.open(opened, &body).await;
            }
            Request::Chunks(asked) => {
                let mut bytes = talk.sample.bytes.to_vec();
                bytes.resize(asked.len as usize, 0);
                let end = (asked.end as usize * CHUNK).min(bytes.len());
                let bytes = &bytes[asked.start as usize * CHUNK..end];
                talk.chunks(bytes.len() as u64, bytes).await;
            }
            _ => talk.honest().await,
        }
    })
}

struct Breach {
    what: &'static str,
    manner: Manner,
    /// Part of the reason that the error names.
    reason: &'static str,
    /// How the connection is ended, where the breach does not leave it standing.
    code: Option<CloseCode>,
}

fn breach(
    what: &'static str,
    manner: Manner,
    reason: &'static str,
    code: impl Into<Option<CloseCode>>,
) -> Breach {
    Breach { what, manner, reason, code: code.into() }
}

/// Raw bytes that are not what was asked for.
fn of_bytes() -> Vec<Breach> {
    vec![
        breach(
            "more bytes than were asked for",
            with_chunks(|talk, mut bytes| async move {
                let announced = bytes.len() as u64;
                bytes.extend_from_slice(&[0; CHUNK]);
                talk.chunks(announced, &bytes).await;
            }),
            "more bytes than were asked for",
            CloseCode::TooMuch,
        ),
        breach(
            "another number of bytes announced",
            with_chunks(|talk, bytes| async move {
                talk.chunks(u64::MAX, &bytes).await;
            }),
            "another number of bytes",
            CloseCode::BadFrame,
        ),
        breach(
            "too few bytes",
            with_chunks(|talk, bytes| async move {
                let half = &bytes[..bytes.len() / 2];
                talk.chunks(bytes.len() as u64, half).await;
            }),
            "broke off",
            None,
        ),
        breach(
            "a reset in mid-chunk",
            with_chunks(|mut talk, bytes| async move {
                talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
                talk.say_bytes(&bytes[..CHUNK / 3]).await;
                let _ = talk.send.reset(CloseCode::Damaged.code().into());
            }),
            "broke off",
            None,
        ),
    ]
}

/// Frames that are none, or of another kind.
fn of_frames() -> Vec<Breach> {
    let bad_frame = CloseCode::BadFrame;
    let raw = |bytes: &'static [u8]| {
        with_chunks(move |mut talk, _| async move {
            talk.say_bytes(bytes).await;
        })
    };
    vec![
        // T5: nothing is allocated for what is claimed.
        breach("a frame of 4 GiB", raw(&[0xff; 4096]), "broke the protocol", bad_frame),
        breach("garbage", raw(b"\0\0\0\x05\x01\xee\xee\xee\xee"), "broke the protocol", bad_frame),
        breach("another version", raw(b"\0\0\0\x02\x09\0"), "broke the protocol", bad_frame),
        breach(
            "an answer to another request",
            with_chunks(|mut talk, _| async move {
                talk.say(&Answer::Rechecked { good: true }).await;
            }),
            "an answer to another request",
            bad_frame,
        ),
    ]
}

/// Claims about the content that contradict themselves.
fn of_claims() -> Vec<Breach> {
    let bad_frame = CloseCode::BadFrame;
    vec![
        breach(
            "an endless hash list",
            with_opened(|opened, _| opened.body_bytes = u32::MAX),
            "beyond its bound",
            bad_frame,
        ),
        breach(
            "a hash list that does not merge",
            with_opened(|_, body| body[40] ^= 1),
            "does not merge",
            bad_frame,
        ),
        breach(
            "a hash list of another size",
            with_opened(|opened, body| {
                body.truncate(64);
                opened.body_bytes = 64;
            }),
            "has a hash list of",
            bad_frame,
        ),
        breach(
            "a bitmap of another size",
            with_opened(|opened, _| opened.holding = Holding::Part(vec![0xff; 9])),
            "bitmap",
            bad_frame,
        ),
        breach(
            "a length of another number of chunks",
            with_opened(|opened, _| opened.len += 65_536),
            "has a hash list of",
            bad_frame,
        ),
        breach(
            "a length beyond every content",
            with_opened(|opened, _| opened.len = u64::MAX),
            "",
            bad_frame,
        ),
        breach(
            "a length that its own chunks do not have",
            with_opened(|opened, _| opened.len -= 1),
            "another number of bytes",
            bad_frame,
        ),
        breach("a smaller length of as many chunks", of_length(-1), "wrong length", None),
        breach("a larger length of as many chunks", of_length(1), "wrong length", None),
        breach("every bit wrong", manner(Talk::lying), "", None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T5, T7, N6
async fn whoever_breaks_the_protocol_is_named_and_nothing_is_lost_by_it() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(40 * CHUNK - 100, 1));
    let node = organisation.node();
    add(&node.store, &sample.bytes);
    let breaches = of_bytes().into_iter().chain(of_frames()).chain(of_claims());
    for Breach { what, manner, reason, code } in breaches {
        let agent = organisation.agent();
        let mut liar = RawServer::start(&organisation, &sample, move |talk| manner(talk));
        let wanted = wanted_of(sample.id(), [liar.address]);
        let progress = unseen();
        let fetching = agent.fetcher.fetch(&wanted, &progress);
        let error = soon(what, fetching).await.err().expect(what);
        let FetchError::NoSource { sources, .. } = &error else { panic!("{what}: {error}") };
        let (named, why) = &sources[0];
        assert_eq!(*named, liar.address.to_string(), "{what}");
        assert!(why.contains(reason), "{what}: {why}");
        if let Some(code) = code {
            assert_eq!(liar.close_code().await, u64::from(code.code()), "{what}");
        }
        // The same machine goes on with an honest source, and what verified is not asked again.
        // Not so where the record has a length that the honest one contradicts.
        let kept = agent.store.content(sample.id()).unwrap();
        let kept = kept.filter(|content| content.geometry().len() == sample.len());
        let kept = kept.map_or(0, |content| {
            let geometry = content.geometry();
            let had = content.had();
            let places = had.iter().map(|chunk| geometry.chunk(chunk));
            places.map(|place| place.end - place.start).sum::<u64>()
        });
        let wanted = wanted_of(sample.id(), [node.address]);
        let fetched = soon(what, agent.fetcher.fetch(&wanted, &unseen())).await.expect(what);
        assert_eq!(read(&fetched.content), *sample.bytes, "{what}");
        assert_eq!(fetched.report.disk_bytes, kept, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, D6, R39
async fn nine_liars_of_ten_store_no_byte_and_are_found_out() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(160 * CHUNK, 2));
    let liars: Vec<RawServer> =
        (0..9).map(|_| RawServer::start(&organisation, &sample, Talk::lying)).collect();
    // The honest one waits until each of them has shown what it is.
    let go = watch::Sender::new(false);
    let gate = go.subscribe();
    let honest = RawServer::start(&organisation, &sample, move |talk| {
        let mut gate = gate.clone();
        async move {
            if matches!(talk.request, Request::Chunks(_)) {
                gate.wait_for(|open| *open).await.unwrap();
            }
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let sources = liars.iter().map(|liar| liar.address).chain([honest.address]);
    let wanted = wanted_of(sample.id(), sources);
    let fetcher = agent.fetcher.clone();
    let fetching = tokio::spawn(async move { fetcher.fetch(&wanted, &unseen()).await });
    eventually("every liar is found out", || liars.iter().all(|liar| *liar.reported.borrow() > 0))
        .await;
    // Stored before it verified would show now.
    let content = agent.store.content(sample.id()).unwrap();
    assert!(content.is_none_or(|content| content.had().is_empty()));
    go.send_replace(true);
    let fetched = soon("it completes", fetching).await.unwrap().unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    let honest = honest.address.to_string();
    let (from_honest, from_liars): (Vec<_>, Vec<_>) =
        fetched.report.sources.iter().partition(|share| share.address == honest);
    assert_eq!((from_honest[0].bytes, &from_honest[0].left), (sample.len(), &None));
    assert_eq!(from_liars.len(), 9);
    assert!(from_liars.iter().all(|share| share.bytes == 0 && share.wasted_bytes > 0));
    // Whoever spoiled two pieces of one attempt, or claimed the length and did not show it.
    assert!(from_liars.iter().any(|share| share.left.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7
async fn one_wrong_chunk_is_asked_of_another_and_reported_to_who_sent_it() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(32 * CHUNK, 3));
    let liar = RawServer::start(&organisation, &sample, |talk| async move {
        let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
        let mut bytes = talk.sample.asked_for(&asked);
        if (asked.start..asked.end).contains(&5) {
            bytes[(5 - asked.start as usize) * CHUNK] ^= 1;
        }
        talk.chunks(bytes.len() as u64, &bytes).await;
    });
    // Whoever is honest comes in once the other is found out.
    let reported = liar.reported.clone();
    let honest = RawServer::start(&organisation, &sample, move |talk| {
        let mut reported = reported.clone();
        async move {
            let _ = reported.wait_for(|times| *times > 0).await;
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(sample.id(), [liar.address, honest.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    let share = |address: std::net::SocketAddr| {
        let address = address.to_string();
        fetched.report.sources.iter().find(|share| share.address == address).unwrap().clone()
    };
    assert!(share(liar.address).wasted_bytes >= CHUNK_BYTES_MIN);
    assert!(share(honest.address).bytes >= CHUNK_BYTES_MIN);
    assert!(*liar.reported.borrow() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T6
async fn a_silent_peer_and_one_that_trickles_hold_nobody_up() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(64 * CHUNK, 4));
    let silent = with_chunks(|talk, _| async move {
        let _open = talk;
        std::future::pending::<()>().await;
    });
    let trickling = with_chunks(|mut talk, bytes| async move {
        talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        for byte in bytes {
            pace.tick().await;
            talk.say_bytes(&[byte]).await;
        }
    });
    for slow in [silent, trickling] {
        let slow = RawServer::start(&organisation, &sample, move |talk| slow(talk));
        // Its chunks are asked for before anybody else is there.
        let asked = slow.asked.clone();
        let honest = RawServer::start(&organisation, &sample, move |talk| {
            let mut asked = asked.clone();
            async move {
                let _ = asked.wait_for(|times| *times > 0).await;
                talk.honest().await;
            }
        });
        let agent = organisation.agent();
        let wanted = wanted_of(sample.id(), [slow.address, honest.address]);
        let progress = unseen();
        let fetching = agent.fetcher.fetch(&wanted, &progress);
        let fetched = soon("it completes", fetching).await.unwrap();
        assert_eq!(read(&fetched.content), *sample.bytes);
        assert!(fetched.report.elapsed < Duration::from_secs(20), "{:?}", fetched.report.elapsed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7
async fn a_length_that_nobody_else_shares_keeps_no_honest_peer_out() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK - 7, 5));
    // It is believed first, and then has nothing to show for it.
    let liar = RawServer::start(&organisation, &sample, |mut talk| async move {
        match talk.request.clone() {
            Request::Open(open) => {
                let (mut opened, body) = talk.sample.opened(open.body);
                opened.len += 1;
                talk.open(opened, &body).await;
            }
            _ => talk.say(&Answer::Refused(Refusal::Unknown)).await,
        }
    });
    let asked = liar.asked.clone();
    let honest = RawServer::start(&organisation, &sample, move |talk| {
        let mut asked = asked.clone();
        async move {
            let _ = asked.wait_for(|times| *times > 0).await;
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(sample.id(), [liar.address, honest.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T5
async fn a_node_that_says_without_end_how_far_it_is_is_left() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(10, 6));
    let mut liar = RawServer::start(&organisation, &sample, |mut talk| async move {
        while talk.connection.close_reason().is_none() {
            talk.say(&Answer::Filling { have: 1, len: None }).await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(ContentId::of(b""), [liar.address]);
    let url = "https://vendor.example/file".parse().unwrap();
    let sha256 = Sha256Digest::from_bytes([7; 32]);
    let progress = unseen();
    let fetching = agent.fetcher.fetch_vendor(sha256, &url, wanted, &progress);
    let error = soon("it gives up", fetching).await.err().unwrap();
    assert!(matches!(error, FetchError::Resolve { .. }), "{error}");
    assert_eq!(liar.close_code().await, u64::from(CloseCode::BadFrame.code()));
}

//! Peers that ask for what they should not: each is answered, refused or sent away, at a bounded cost,
//! and the others are served meanwhile.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sutler_cache::backend::faulty::Faulty;
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{
    self, Answer, Body, ChunksRequest, Class, Holding, Mismatch, Open, Refusal, Request, Resolve,
};
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, ChunkIndex};
use sutler_protocol::serve::STEP_BYTES_MAX;
use sutler_protocol::{ChunkRanges, ContentId, Sha256Digest};
use sutler_swarm::identity::Role;
use sutler_swarm::serve::SENDING_MAX;
use sutler_swarm::transport::STREAMS_MAX;

use super::machines::{
    Machine, Organisation, Setup, add, bytes, eventually, read, soon, unseen, wanted,
};
use super::raw::{End, RawClient, Sample};

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

fn open(content: ContentId, body: Body) -> Request {
    Request::Open(Open { content, body, class: Class::Normal })
}

fn mismatch(content: ContentId, chunk: u32) -> Request {
    Request::Mismatch(Mismatch { content, chunk })
}

/// A node that has a sample, and an organisation around it.
fn node_with(sample: &Sample) -> (Organisation, Machine) {
    let organisation = Organisation::new();
    let node = organisation.node();
    add(&node.store, &sample.bytes);
    (organisation, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T5, T9
async fn what_is_no_request_ends_the_connection_and_no_other() {
    let sample = Sample::new(bytes(3 * CHUNK, 1));
    let (organisation, node) = node_with(&sample);
    let bystander = RawClient::connect(&organisation, node.address).await;
    let mut trailing = frame::encode(&open(sample.id(), Body::List));
    trailing[3] += 1;
    trailing.push(0);
    let garbage: [(&str, Vec<u8>); 6] = [
        ("a length of 4 GiB", vec![0xff; 4]),
        ("an empty frame", vec![0; 4]),
        ("a frame without end", vec![0xff; 1 << 20]),
        ("another version", vec![0, 0, 0, 2, 9, 0]),
        ("an unknown request", vec![0, 0, 0, 2, 1, 0xee]),
        ("bytes behind the request", trailing),
    ];
    for ((what, bytes), times) in garbage.into_iter().zip(1..) {
        let hostile = RawClient::connect(&organisation, node.address).await;
        let _streams = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            hostile.send(&bytes, End::Open),
        )
        .await;
        assert_eq!(hostile.close_code().await, u64::from(CloseCode::BadFrame.code()), "{what}");
        assert_eq!(node.counters.violations.value(), times, "{what}");
        let answer = bystander.answer(&open(sample.id(), Body::Nothing)).await.unwrap().0;
        assert!(matches!(answer, Answer::Opened(_)), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T18
async fn half_a_request_on_every_stream_holds_nobody_else_up() {
    let sample = Sample::new(bytes(3 * CHUNK, 2));
    let (organisation, node) = node_with(&sample);
    let hostile = RawClient::connect(&organisation, node.address).await;
    let whole = frame::encode(&open(sample.id(), Body::List));
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(hostile.send(&whole[..whole.len() / 2], End::Open).await);
    }
    // No stream is left to it, of any kind, until it ends one.
    let mut context = Context::from_waker(Waker::noop());
    let one_more = std::pin::pin!(hostile.connection.open_bi()).poll(&mut context);
    assert!(matches!(one_more, Poll::Pending));
    let one_way = std::pin::pin!(hostile.connection.open_uni()).poll(&mut context);
    assert!(matches!(one_way, Poll::Pending));
    assert!(hostile.connection.send_datagram(vec![0; 10].into()).is_err());

    let agent = organisation.agent();
    let wanted = wanted(sample.id(), &[&node]);
    let fetched = soon("others are served", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    // And it is served itself where it says the rest.
    let (mut send, mut receive) = streams.pop().unwrap();
    send.write_all(&whole[whole.len() / 2..]).await.unwrap();
    let answer = soon("it is answered", super::raw::next::<Answer>(&mut receive)).await;
    assert!(matches!(answer, Some(Answer::Opened(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_cannot_be_met_say_why() {
    let sample = Sample::new(bytes(3 * CHUNK, 3));
    let (organisation, node) = node_with(&sample);
    let (content, len) = (sample.id(), sample.len());
    let chunks = |start, end, len, skip_bytes| {
        let (class, deadline_ms) = (Class::Normal, 0);
        Request::Chunks(ChunksRequest { content, len, start, end, skip_bytes, class, deadline_ms })
    };
    let resolve = |url: String| {
        let sha256 = Sha256Digest::from_bytes([1; 32]);
        Request::Resolve(Resolve { sha256, url, class: Class::Normal })
    };
    let far = format!("https://vendor.example/{}", "x".repeat(3_000));
    let out_of_bounds = Refusal::OutOfBounds;
    let cases = [
        (open(ContentId::of(b"nobody has it"), Body::List), Refusal::Unknown),
        (chunks(0, 4, len, 0), out_of_bounds.clone()),
        (chunks(3, 3, len, 0), out_of_bounds.clone()),
        (chunks(2, 1, len, 0), out_of_bounds.clone()),
        (chunks(0, u32::MAX, len, 0), out_of_bounds.clone()),
        (chunks(u32::MAX, u32::MAX, len, 0), out_of_bounds.clone()),
        (chunks(0, 1, len, CHUNK_BYTES_MIN), out_of_bounds.clone()),
        (chunks(0, 1, len, u64::MAX), out_of_bounds.clone()),
        (chunks(0, 1, len - 1, 0), Refusal::LengthDiffers { len }),
        (chunks(0, 1, u64::MAX, 0), Refusal::LengthDiffers { len }),
        (mismatch(content, 3), out_of_bounds.clone()),
        (mismatch(content, u32::MAX), out_of_bounds.clone()),
        (resolve("no url".to_owned()), out_of_bounds.clone()),
        (resolve(far), out_of_bounds),
        // T16: an agent fetches nothing for others, wherever it lies.
        (resolve("http://169.254.169.254/".to_owned()), Refusal::Unknown),
    ];
    let asker = RawClient::connect(&organisation, node.address).await;
    for (request, refusal) in cases {
        let answer = asker.answer(&request).await.unwrap().0;
        assert_eq!(answer, Answer::Refused(refusal), "{request:?}");
    }
    assert_eq!(node.counters.violations.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T18
async fn ten_thousand_requests_on_one_connection_are_answered() {
    let sample = Sample::new(bytes(10, 4));
    let (organisation, node) = node_with(&sample);
    let asker = Arc::new(RawClient::connect(&organisation, node.address).await);
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (asker, id) = (asker.clone(), sample.id());
        askers.spawn(async move {
            for _ in 0..100 {
                let answer = asker.answer(&open(id, Body::List)).await.unwrap().0;
                assert!(matches!(answer, Answer::Opened(_)));
            }
        });
    }
    soon("all are answered", askers.join_all()).await;
    assert_eq!(node.counters.requests.value(), 10_000);
    assert_eq!(node.counters.connections_opened.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T9, T18
async fn a_reader_that_never_reads_is_owed_a_bounded_sum() {
    let sample = Sample::new(bytes(256 * CHUNK, 5));
    let (organisation, node) = node_with(&sample);
    // It lets the server send as much as it likes, and acknowledges it all.
    let mut wide = quinn::TransportConfig::default();
    wide.stream_receive_window((1_u32 << 19).into());
    let hostile = RawClient::connect_with(&organisation, node.address, wide).await.unwrap();
    let everything = Request::Chunks(ChunksRequest {
        content: sample.id(),
        len: sample.len(),
        start: 0,
        end: 256,
        skip_bytes: 0,
        class: Class::Normal,
        deadline_ms: 0,
    });
    let mut unread = Vec::new();
    for _ in 0..STREAMS_MAX / 2 {
        unread.push(hostile.ask(&everything).await);
        unread.push(hostile.ask(&open(sample.id(), Body::List)).await);
    }
    let agent = organisation.agent();
    let wanted = wanted(sample.id(), &[&node]);
    let fetched = soon("others are served", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    // What it lets in itself, and a step beyond for each answer that is on the line.
    let hash_list = 256 * 32;
    let owed = node.counters.served_bytes.value() - sample.len() - hash_list;
    let let_in = u64::from(STREAMS_MAX) / 2 * ((1 << 19) + hash_list);
    assert!(owed <= let_in + SENDING_MAX as u64 * STEP_BYTES_MAX, "{owed} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T8, T9
async fn reports_about_good_chunks_are_looked_at_a_few_times_and_no_more() {
    let sample = Sample::new(bytes(3 * CHUNK, 6));
    let (organisation, node) = node_with(&sample);
    let hostile = RawClient::connect(&organisation, node.address).await;
    let mut looked_at = 0;
    for _ in 0..100 {
        match hostile.answer(&mismatch(sample.id(), 1)).await.unwrap().0 {
            Answer::Rechecked { good } => {
                assert!(good);
                looked_at += 1;
            }
            answer => assert!(matches!(answer, Answer::Refused(Refusal::Busy { .. }))),
        }
    }
    assert_eq!(looked_at, 16);
    let content = node.store.content(sample.id()).unwrap().unwrap();
    assert!(content.is_complete() && content.had().is_full());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T8, R38
async fn a_bit_that_flips_on_disk_is_refused_reported_and_not_served_again() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK, 7));
    let disk = Faulty::new();
    let backend = Some(Arc::new(disk.clone()) as _);
    let rotten = organisation.set_up(Setup { backend, ..Setup::of(Role::Node) });
    let content = add(&rotten.store, &sample.bytes);
    let paths = disk.paths();
    let data = paths.iter().find(|path| path.extension().is_some_and(|end| end == "data"));
    // It is trusted since it was written, so its first reader finds out.
    disk.flip(data.unwrap(), 5 * CHUNK + 100);

    let agent = organisation.agent();
    let from_rotten = wanted(sample.id(), &[&rotten]);
    let fetcher = agent.fetcher.clone();
    let alone = tokio::spawn(async move { fetcher.fetch(&from_rotten, &unseen()).await.map(drop) });
    eventually("it is put down there", || !content.had().contains(ChunkIndex(5))).await;
    let here = || agent.store.content(sample.id()).unwrap().unwrap().had();
    eventually("the rest arrives", || here().count() == 19).await;
    assert_eq!(rotten.counters.mismatches.value(), 1);
    let asker = RawClient::connect(&organisation, rotten.address).await;
    let answer = asker.answer(&open(sample.id(), Body::Nothing)).await.unwrap().0;
    let Answer::Opened(opened) = answer else { panic!("{answer:?}") };
    let mut all_but_one = ChunkRanges::full(20);
    all_but_one.remove(ChunkIndex(5));
    assert_eq!(opened.holding, Holding::Part(all_but_one.to_bitmap()));
    alone.abort();

    let healthy = organisation.node();
    add(&healthy.store, &sample.bytes);
    let from_both = wanted(sample.id(), &[&rotten, &healthy]);
    let fetched = soon("it completes", agent.fetcher.fetch(&from_both, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    assert_eq!(fetched.report.disk_bytes, 19 * CHUNK_BYTES_MIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T8, R38
async fn a_bit_that_flips_while_stopped_is_never_served() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK, 8));
    let disk = Faulty::new();
    let setup = |disk: &Faulty| Setup {
        backend: Some(Arc::new(disk.clone()) as _),
        ..Setup::of(Role::Node)
    };
    let before = organisation.set_up(setup(&disk));
    add(&before.store, &sample.bytes);
    let disk = disk.restart(1);
    let paths = disk.paths();
    let data = paths.iter().find(|path| path.extension().is_some_and(|end| end == "data"));
    disk.flip(data.unwrap(), 5 * CHUNK + 100);
    let after = organisation.set_up(setup(&disk));

    let asker = RawClient::connect(&organisation, after.address).await;
    let damaged = Request::Chunks(ChunksRequest {
        content: sample.id(),
        len: sample.len(),
        start: 5,
        end: 6,
        skip_bytes: 0,
        class: Class::Normal,
        deadline_ms: 0,
    });
    let answer = asker.answer(&damaged).await.unwrap().0;
    assert_eq!(answer, Answer::Refused(Refusal::Damaged));
    let answer = asker.answer(&damaged).await.unwrap().0;
    assert_eq!(answer, Answer::Refused(Refusal::NotHeld));
    assert_eq!(after.counters.served_bytes.value(), 0);
}

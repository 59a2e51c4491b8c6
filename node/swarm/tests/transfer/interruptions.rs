//! What befalls a transfer on its way: lines that drop and move, processes that end, servers that shut
//! down, and sources that are themselves still fetching.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use sutler_cache::{Store, StoreOptions};
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{Answer, Body, ChunksRequest, Class, Open, Refusal, Request};
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, PIECE_CHUNKS};
use sutler_protocol::serve::STEP_BYTES_MAX;
use sutler_protocol::{ContentId, Sha256Digest};
use sutler_swarm::ended::Ended;
use sutler_swarm::fetch::SourceKind;
use sutler_swarm::identity::Role;
use sutler_swarm::peer::RequestError;
use tokio::sync::watch;

use super::machines::{
    Organisation, Setup, add, bytes, eventually, read, soon, unseen, v4, wanted, wanted_of,
};
use super::raw::{RawClient, RawServer, Sample, Talk};
use super::relay::{Line, Relay};

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = digest::digest(&digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().unwrap())
}

fn chunks_of(sample: &Sample, start: u32, end: u32, class: Class) -> Request {
    Request::Chunks(ChunksRequest {
        content: sample.id(),
        len: sample.len(),
        start,
        end,
        skip_bytes: 0,
        class,
        deadline_ms: 0,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_connection_that_drops_in_mid_transfer_is_made_again() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(160 * CHUNK, 1));
    // Each of its first connections breaks in the middle of the third answer.
    let times = Arc::new(AtomicU32::new(0));
    let node = RawServer::start(&organisation, &sample, move |mut talk| {
        let times = times.clone();
        async move {
            let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
            let time = times.fetch_add(1, Ordering::Relaxed);
            if time % 3 == 2 && time < 10 {
                let bytes = talk.sample.asked_for(&asked);
                talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
                talk.say_bytes(&bytes[..bytes.len() / 2]).await;
                talk.connection.close(CloseCode::Draining.code().into(), b"");
                return;
            }
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(sample.id(), [node.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    assert_eq!(fetched.report.sources[0].left, None);
}

/// What a peer was asked for.
type Asked = Arc<Mutex<Vec<ChunksRequest>>>;

fn skipped(asked: &Asked) -> Vec<(u32, u64)> {
    let asked = asked.lock().unwrap();
    let skipped = asked.iter().filter(|asked| asked.skip_bytes > 0);
    skipped.map(|asked| (asked.start, asked.skip_bytes)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn what_had_come_of_a_chunk_is_not_asked_for_again() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(40 * CHUNK, 12));
    let (asked, dies) = (Asked::default(), Arc::new(AtomicBool::new(true)));
    let asks = asked.clone();
    let node = RawServer::start(&organisation, &sample, move |mut talk| {
        let (asks, dies) = (asks.clone(), dies.clone());
        async move {
            let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
            asks.lock().unwrap().push(asked.clone());
            if asked.start == 16 && dies.swap(false, Ordering::SeqCst) {
                let bytes = talk.sample.asked_for(&asked);
                talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
                return talk.say_bytes(&bytes[..2 * CHUNK + 12_345]).await;
            }
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(sample.id(), [node.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    assert_eq!(skipped(&asked), [(18, 12_345)]);
    assert_eq!(fetched.report.bytes_from(SourceKind::Peer), sample.len());
    assert_eq!(fetched.report.wasted_bytes(), 0, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34, T7
async fn a_chunk_begun_by_a_liar_and_ended_by_another_is_fetched_whole_and_nobody_is_blamed() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(40 * CHUNK, 13));
    // It begins with other bytes and dies, and gives nothing else but the last chunk.
    let (died, begun) = (watch::Sender::new(false), Arc::new(AtomicBool::new(false)));
    let dying = died.clone();
    let liar = RawServer::start(&organisation, &sample, move |mut talk| {
        let (dying, begun) = (dying.clone(), begun.clone());
        async move {
            let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
            match asked.start {
                39 => talk.honest().await,
                0 if !begun.swap(true, Ordering::Relaxed) => {
                    let bytes = talk.sample.asked_for(&asked).len() as u64;
                    talk.say(&Answer::Chunks { bytes }).await;
                    talk.say_bytes(&[0; 10_000]).await;
                    // All of it is over there before anybody else may be asked.
                    talk.send.finish().unwrap();
                    let _ = talk.send.stopped().await;
                    dying.send_replace(true);
                }
                _ => talk.say(&Answer::Refused(Refusal::NotHeld)).await,
            }
        }
    });
    // The other one is there only after that.
    let asked = Asked::default();
    let (asks, gate) = (asked.clone(), died.subscribe());
    let honest = RawServer::start(&organisation, &sample, move |talk| {
        let (asks, mut gate) = (asks.clone(), gate.clone());
        async move {
            gate.wait_for(|died| *died).await.unwrap();
            if let Request::Chunks(asked) = &talk.request {
                asks.lock().unwrap().push(asked.clone());
            }
            talk.honest().await;
        }
    });
    let agent = organisation.agent();
    let wanted = wanted_of(sample.id(), [liar.address, honest.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    assert_eq!(skipped(&asked), [(0, 10_000)]);
    let whole = |asked: &ChunksRequest| (asked.start, asked.skip_bytes) == (0, 0);
    assert!(asked.lock().unwrap().iter().any(whole), "and then all of it");
    assert_eq!((*liar.reported.borrow(), *honest.reported.borrow()), (0, 0));
    for share in &fetched.report.sources {
        assert_eq!(share.left, None, "{share:?}");
    }
    assert_eq!(fetched.report.wasted_bytes(), CHUNK_BYTES_MIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_whose_address_changes_in_mid_transfer_completes() {
    let organisation = Organisation::new();
    let sent = bytes(400 * CHUNK, 2);
    let node = organisation.node();
    let id = add(&node.store, &sent).id();
    let relay = Relay::start(node.address, Line::MovesAfter(100)).await;
    let agent = organisation.agent();
    let wanted = wanted_of(id, [relay.address]);
    let fetched = soon("it completes", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), sent);
    assert_eq!(node.counters.connections_opened.value(), 1, "it is the same connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_kept_to_a_process_that_is_no_more_is_made_again_at_once() {
    let organisation = Organisation::new();
    let sent = [bytes(2 * CHUNK, 7), bytes(3 * CHUNK, 8)];
    let (before, after) = (organisation.node(), organisation.node());
    let relay = Relay::start(before.address, Line::Whole).await;
    let agent = organisation.agent();
    for (node, sent) in [before, after].iter().zip(sent) {
        relay.lead_to(node.address);
        let wanted = wanted_of(add(&node.store, &sent).id(), [relay.address]);
        let fetched = soon("it arrives", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
        assert_eq!(read(&fetched.content), sent);
        // Far from the half minute after which silence ends a connection.
        assert!(fetched.report.elapsed < Duration::from_secs(15), "{:?}", fetched.report.elapsed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_machine_that_was_started_anew_ends_the_connections_of_its_last_life() {
    let organisation = Organisation::new();
    let identity = organisation.identity(Role::Node);
    let set_up = |listen: SocketAddr| {
        let identity = Some(identity.clone());
        organisation.set_up(Setup { listen, identity, ..Setup::of(Role::Node) })
    };
    let before = set_up(v4());
    // The same port; another address, because in its first life it never says goodbye.
    let after = set_up((Ipv4Addr::new(127, 0, 0, 2), before.address.port()).into());
    let relay = Relay::start(before.address, Line::Whole).await;
    let agent = organisation.agent();
    let peer = agent.fetcher.endpoint().connect(relay.address).await.unwrap();
    let id = ContentId::of(b"unknown");
    let refused = peer.open(id, Body::Nothing, Class::Normal).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused(Refusal::Unknown)), "{refused:?}");
    relay.lead_to(after.address);
    let ended = peer.open(id, Body::Nothing, Class::Normal).await.unwrap_err();
    assert!(matches!(ended, RequestError::Connection(Ended::Reset)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_machine_at_the_same_address_cannot_end_them() {
    let organisation = Organisation::new();
    let before = organisation.node();
    let listen = (Ipv4Addr::new(127, 0, 0, 3), before.address.port()).into();
    let other = organisation.set_up(Setup { listen, ..Setup::of(Role::Node) });
    let relay = Relay::start(before.address, Line::Whole).await;
    let agent = organisation.agent();
    let peer = agent.fetcher.endpoint().connect(relay.address).await.unwrap();
    let id = ContentId::of(b"unknown");
    peer.open(id, Body::Nothing, Class::Normal).await.unwrap_err();
    relay.lead_to(other.address);
    let ended = peer.open(id, Body::Nothing, Class::Normal).await.unwrap_err();
    let is_silent =
        matches!(ended, RequestError::Connection(Ended::Silence) | RequestError::Timeout);
    assert!(is_silent, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_machine_that_is_killed_in_mid_transfer_is_found_out_by_asking() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK, 11));
    // It sends half of what it owes, and then nothing.
    let killed = RawServer::start(&organisation, &sample, |mut talk| async move {
        let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
        let bytes = talk.sample.asked_for(&asked);
        talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
        talk.say_bytes(&bytes[..bytes.len() / 2]).await;
        std::future::pending::<()>().await;
    });
    let after = organisation.node();
    add(&after.store, &sample.bytes);
    let relay = Relay::start(killed.address, Line::Whole).await;
    let agent = organisation.agent();
    let had = || {
        let content = agent.store.content(sample.id()).unwrap();
        content.is_some_and(|content| !content.had().is_empty())
    };
    let (wanted, progress) = (wanted_of(sample.id(), [relay.address]), unseen());
    let dying = async {
        eventually("some of it is here", had).await;
        relay.lead_to(after.address);
    };
    let fetching = soon("it completes", agent.fetcher.fetch(&wanted, &progress));
    let (fetched, ()) = tokio::join!(fetching, dying);
    let fetched = fetched.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    // Far from the half minute after which silence ends a connection.
    assert!(fetched.report.elapsed < Duration::from_secs(20), "{:?}", fetched.report.elapsed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vendors_file_is_asked_for_again_where_a_kept_connection_leads_nowhere() {
    let organisation = Organisation::new();
    let samples = [Sample::new(bytes(2 * CHUNK, 9)), Sample::new(bytes(3 * CHUNK, 10))];
    let [before, after] =
        [0, 1].map(|node| RawServer::start(&organisation, &samples[node], Talk::honest));
    let relay = Relay::start(before.address, Line::Whole).await;
    let agent = organisation.agent();
    let url = "http://vendor.example/file".parse().unwrap();
    for (node, sample) in [before, after].iter().zip(&samples) {
        relay.lead_to(node.address);
        let wanted = wanted_of(ContentId::of(b""), [relay.address]);
        let (digest, progress) = (sha256(&sample.bytes), unseen());
        let fetching = agent.fetcher.fetch_vendor(digest, &url, wanted, &progress);
        let fetched = soon("it arrives", fetching).await.unwrap();
        assert_eq!(fetched.content.id(), sample.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_fetch_that_is_dropped_costs_a_part_of_a_chunk_for_each_request() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(100 * CHUNK, 3));
    // It answers each request up to the middle of a chunk, and then no more.
    let stalling = RawServer::start(&organisation, &sample, |mut talk| async move {
        let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
        let bytes = talk.sample.asked_for(&asked);
        talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
        talk.say_bytes(&bytes[..bytes.len() - CHUNK / 2]).await;
        std::future::pending::<()>().await;
    });
    let agent = organisation.agent();
    let dropped = {
        let fetcher = agent.fetcher.clone();
        let wanted = wanted_of(sample.id(), [stalling.address]);
        tokio::spawn(async move { fetcher.fetch(&wanted, &unseen()).await.map(drop) })
    };
    // The last chunk and three pieces: all of their whole chunks.
    let whole = 3 * (PIECE_CHUNKS - 1);
    let had = || {
        let content = agent.store.content(sample.id()).unwrap();
        content.map_or(0, |content| content.had().count())
    };
    eventually("all whole chunks are stored", || had() == whole).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());

    // The process ends without a word to the store, and another begins on the same folder.
    let (folder, options) =
        (agent.folder.clone(), StoreOptions { bytes_max: None, free_bytes_min: 0 });
    agent.stop.cancel();
    agent.server.await.unwrap();
    drop((agent.fetcher, agent.store));
    let mut reopened = None;
    eventually("the store is free", || {
        reopened = Store::open(&folder, options).ok();
        reopened.is_some()
    })
    .await;
    drop(reopened);
    let node = organisation.node();
    add(&node.store, &sample.bytes);
    let again = organisation.set_up(Setup { folder: Some(folder), ..Setup::of(Role::Agent) });
    let wanted = wanted(sample.id(), &[&node]);
    let fetched = again.fetcher.fetch(&wanted, &unseen()).await.unwrap();
    assert_eq!(read(&fetched.content), *sample.bytes);
    let kept = u64::from(whole) * CHUNK_BYTES_MIN;
    assert_eq!(fetched.report.disk_bytes, kept);
    assert_eq!(fetched.report.bytes_from(SourceKind::Node), sample.len() - kept);
    assert_eq!(node.counters.served_bytes.value(), sample.len() - kept, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_machine_that_is_killed_and_stays_away_is_given_up_with_a_word_of_what_to_do() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK, 14));
    let killed = RawServer::start(&organisation, &sample, |mut talk| async move {
        let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
        let bytes = talk.sample.asked_for(&asked);
        talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
        talk.say_bytes(&bytes[..bytes.len() / 2]).await;
        std::future::pending::<()>().await;
    });
    let relay = Relay::start(killed.address, Line::Whole).await;
    let agent = organisation.agent();
    let had = || {
        let content = agent.store.content(sample.id()).unwrap();
        content.is_some_and(|content| !content.had().is_empty())
    };
    let (wanted, progress) = (wanted_of(sample.id(), [relay.address]), unseen());
    let fetching = soon("it ends", agent.fetcher.fetch(&wanted, &progress));
    let dying = async {
        eventually("some of it is here", had).await;
        // The port is closed now, as that of a process that was killed.
        drop(relay);
    };
    let (fetched, ()) = tokio::join!(fetching, dying);
    let error = fetched.err().expect("nobody has the rest").to_string();
    let (ip, port) = (wanted.sources[0].to_string(), "nothing listens on UDP port");
    let (ip, _) = ip.split_once(':').unwrap();
    assert!(error.contains(port) && error.contains(ip), "{error}");
    assert!(error.contains("start the node there"), "{error}");
    assert!(had(), "what was verified stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_request_takes_no_byte_beyond_a_chunk_that_is_not_stored() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(20 * CHUNK, 15));
    // It sends a chunk and most of the next, and then nothing.
    let node = RawServer::start(&organisation, &sample, |mut talk| async move {
        let Request::Chunks(asked) = talk.request.clone() else { return talk.honest().await };
        let bytes = talk.sample.asked_for(&asked);
        talk.say(&Answer::Chunks { bytes: bytes.len() as u64 }).await;
        talk.say_bytes(&bytes[..bytes.len().min(2 * CHUNK - 1)]).await;
        std::future::pending::<()>().await;
    });
    let peer = organisation.agent().fetcher.endpoint().connect(node.address).await.unwrap();
    let Request::Chunks(asked) = chunks_of(&sample, 0, 4, Class::Normal) else { unreachable!() };
    let mut stream = peer.chunks(asked, 4 * CHUNK as u64).await.unwrap();
    let (mut pieces, mut came) = ([const { Bytes::new() }; 32], 0);
    while came < CHUNK {
        let count = soon("more comes", stream.next(&mut pieces, CHUNK - came)).await.unwrap();
        came += pieces[..count].iter().map(Bytes::len).sum::<usize>();
    }
    assert_eq!(came, CHUNK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D6
async fn what_is_still_arriving_is_passed_on() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(64 * CHUNK, 4));
    // The node gives the last chunk and a piece, and the rest when the other agent has of it.
    let go = watch::Sender::new(false);
    let gate = go.subscribe();
    let node = RawServer::start(&organisation, &sample, move |talk| {
        let mut gate = gate.clone();
        async move {
            if let Request::Chunks(asked) = &talk.request
                && (16..63).contains(&asked.start)
            {
                gate.wait_for(|open| *open).await.unwrap();
            }
            talk.honest().await;
        }
    });
    let (first, second) = (organisation.agent(), organisation.agent());
    let from_node = wanted_of(sample.id(), [node.address]);
    let from_first = wanted(sample.id(), &[&first]);
    let had = |store: &Store| {
        let content = store.content(sample.id()).unwrap();
        content.map_or(0, |content| content.had().count())
    };
    let fetcher = first.fetcher.clone();
    let one = tokio::spawn(async move { fetcher.fetch(&from_node, &unseen()).await });
    eventually("the first has a piece", || had(&first.store) == 17).await;
    let fetcher = second.fetcher.clone();
    let two = tokio::spawn(async move { fetcher.fetch(&from_first, &unseen()).await });
    eventually("the second has it too", || had(&second.store) == 17).await;
    go.send_replace(true);
    let one = soon("the first completes", one).await.unwrap().unwrap();
    let two = soon("the second completes", two).await.unwrap().unwrap();
    assert_eq!(read(&one.content), *sample.bytes);
    assert_eq!(read(&two.content), *sample.bytes);
    assert_eq!(two.report.bytes_from(SourceKind::Peer), sample.len());
    assert_eq!(two.report.wasted_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_urgent_answer_holds_the_others_back_until_it_is_sent() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(64 * CHUNK, 5));
    let node = organisation.node();
    add(&node.store, &sample.bytes);
    // It reads nothing, so that its answer stays on the way.
    let mut narrow = quinn::TransportConfig::default();
    narrow.stream_receive_window((CHUNK as u32).into());
    let urgent = RawClient::connect_with(&organisation, node.address, narrow).await.unwrap();
    let transport = quinn::TransportConfig::default();
    let normal = RawClient::connect_with(&organisation, node.address, transport).await.unwrap();
    let _unread = urgent.ask(&chunks_of(&sample, 0, 64, Class::Urgent)).await;
    let buffered = || node.counters.served_bytes.value();
    eventually("the urgent answer waits for its reader", || buffered() == STEP_BYTES_MAX).await;
    let mut held = normal.ask(&chunks_of(&sample, 0, 4, Class::Normal)).await;
    eventually("the request has come", || node.counters.requests.value() == 2).await;
    assert_eq!(buffered(), STEP_BYTES_MAX, "nothing is sent beside the urgent");
    urgent.connection.close(0_u32.into(), b"");
    let came = soon("it is sent then", held.read_to_end(5 * CHUNK)).await.unwrap();
    assert!(came.ends_with(&sample.bytes[3 * CHUNK..4 * CHUNK]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_lets_a_running_answer_arrive_and_takes_nothing_new() {
    let organisation = Organisation::new();
    let sample = Sample::new(bytes(128 * CHUNK, 6));
    let node = organisation.node();
    add(&node.store, &sample.bytes);
    let client = RawClient::connect(&organisation, node.address).await;
    let asked = chunks_of(&sample, 0, 128, Class::Normal);
    let (answer, mut running) = client.answer(&asked).await.unwrap();
    assert_eq!(answer, Answer::Chunks { bytes: sample.len() });
    node.stop.cancel();

    let open =
        Request::Open(Open { content: sample.id(), body: Body::Nothing, class: Class::Normal });
    // The first ones may still be in time.
    let refused = soon("new requests are refused", async {
        loop {
            match client.answer(&open).await.unwrap().0 {
                Answer::Opened(_) => {}
                answer => return answer,
            }
        }
    });
    assert_eq!(refused.await, Answer::Refused(Refusal::Draining));
    let transport = quinn::TransportConfig::default();
    let late = RawClient::connect_with(&organisation, node.address, transport).await;
    assert!(late.is_err(), "newcomers are turned away at once");

    let body = soon("all of it arrives", running.read_to_end(sample.bytes.len())).await.unwrap();
    assert!(body == *sample.bytes);
    assert_eq!(client.close_code().await, u64::from(CloseCode::Draining.code()));
    soon("the server ends", node.server).await.unwrap();
}

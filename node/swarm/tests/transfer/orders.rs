//! Documents, news, denials and reports between machines, over real sockets on loopback.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sutler_protocol::frame::{Body, Class, DENIAL_BYTES_MAX, News, Refusal};
use sutler_protocol::{ChunkIndex, ContentId, Sha256Digest};
use sutler_swarm::identity::{
    Identity, LEAF_LIFETIME, Member, PeerName, Role, Validity, random_label,
};
use sutler_swarm::orders::{Latest, NotTaken, Orders, Place};
use sutler_swarm::peer::{Peer, RequestError};
use tokio::sync::watch;

use super::machines::{Machine, Organisation, Setup, add, bytes, read, soon, wanted};

/// Orders in memory. A denial or report that says `bad` is not believed.
struct Board {
    documents: BTreeMap<&'static str, Bytes>,
    latest: watch::Sender<Arc<Latest>>,
    reports: Mutex<Vec<(PeerName, Bytes)>>,
}

impl Board {
    fn new() -> Arc<Self> {
        let documents = [
            ("metadata/timestamp.json", Bytes::from("the timestamp")),
            ("targets/big", Bytes::from(vec![7; 300_000])),
        ];
        let latest = watch::Sender::new(Arc::default());
        Arc::new(Self { documents: documents.into(), latest, reports: Mutex::default() })
    }

    fn tell(&self, change: impl FnOnce(&mut Latest)) {
        self.latest.send_modify(|latest| change(Arc::make_mut(latest)));
    }
}

impl Orders for Board {
    fn document(&self, place: &Place) -> io::Result<Option<Bytes>> {
        Ok(self.documents.get(place.as_str()).cloned())
    }

    fn news(&self) -> watch::Receiver<Arc<Latest>> {
        self.latest.subscribe()
    }

    fn take_denial(&self, _from: &PeerName, denial: Bytes) -> Result<(), NotTaken> {
        if denial == "bad" {
            return Err(NotTaken::Refused("nobody signed it".into()));
        }
        self.tell(|latest| latest.denials.push(denial));
        Ok(())
    }

    fn take_report(&self, from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        if report == "bad" {
            return Err(NotTaken::Unwanted);
        }
        self.reports.lock().unwrap().push((from.clone(), report));
        Ok(())
    }
}

async fn meet(organisation: &Organisation, board: &Arc<Board>) -> (Machine, Machine, Peer) {
    let orders = Some(Arc::clone(board) as Arc<dyn Orders>);
    let node = organisation.set_up(Setup { orders, ..Setup::of(Role::Node) });
    let agent = organisation.agent();
    let peer = agent.fetcher.endpoint().connect(node.address).await.unwrap();
    (node, agent, peer)
}

fn place(text: &str) -> Place {
    Place::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_document_comes_as_it_is_and_never_beyond_its_bound() {
    let (organisation, board) = (Organisation::new(), Board::new());
    let (_node, _agent, peer) = meet(&organisation, &board).await;
    let timestamp = peer.document(&place("metadata/timestamp.json"), 100).await.unwrap();
    assert_eq!(timestamp, Some(Bytes::from("the timestamp")));
    let big = peer.document(&place("targets/big"), 1 << 20).await.unwrap().unwrap();
    assert_eq!(big, vec![7; 300_000]);
    // T5
    let cut = peer.document(&place("targets/big"), 1_001).await.unwrap().unwrap();
    assert_eq!(cut.len(), 1_001);
    assert_eq!(peer.document(&place("metadata/9.root.json"), 100).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_machine_without_orders_says_so() {
    let organisation = Organisation::new();
    let (node, agent) = (organisation.node(), organisation.agent());
    let peer = agent.fetcher.endpoint().connect(node.address).await.unwrap();
    assert_eq!(peer.document(&place("metadata/timestamp.json"), 100).await.unwrap(), None);
    let refused = |error| matches!(error, RequestError::Refused(Refusal::Absent));
    assert!(refused(peer.watch().await.unwrap_err()));
    assert!(refused(peer.deny(&Bytes::from("x")).await.unwrap_err()));
    let report = peer.report(&Bytes::from("x")).await.unwrap_err();
    assert!(matches!(report, RequestError::Refused(Refusal::OutOfBounds)), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watcher_hears_what_is_there_and_then_what_is_new() {
    let (organisation, board) = (Organisation::new(), Board::new());
    board.tell(|latest| latest.timestamp = Some(Bytes::from("1")));
    let (node, agent, peer) = meet(&organisation, &board).await;
    let mut watch = soon("the first", peer.watch()).await.unwrap();
    assert_eq!(soon("the first", watch.next()).await.unwrap(), News::Timestamp(b"1".to_vec()));
    // One watch tells all.
    let second = soon("a refusal", peer.watch()).await.unwrap_err();
    assert!(matches!(second, RequestError::Refused(Refusal::OutOfBounds)), "{second:?}");

    // N2: what a neighbour passes on reaches whoever watches.
    let neighbour = agent.fetcher.endpoint().connect(node.address).await.unwrap();
    neighbour.deny(&Bytes::from("no")).await.unwrap();
    assert_eq!(soon("the denial", watch.next()).await.unwrap(), News::Denial(b"no".to_vec()));
    board.tell(|latest| latest.timestamp = Some(Bytes::from("2")));
    assert_eq!(soon("the second", watch.next()).await.unwrap(), News::Timestamp(b"2".to_vec()));

    // A node that stops does not wait for those who watch it.
    node.stop.cancel();
    assert!(soon("the end", watch.next()).await.is_err());
    soon("the server's end", node.server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_handed_over_is_kept_or_refused_with_its_reason() {
    let (organisation, board) = (Organisation::new(), Board::new());
    let (_node, agent, peer) = meet(&organisation, &board).await;
    let report = Bytes::from(vec![b'r'; 200_000]);
    peer.report(&report).await.unwrap();
    let me = agent.fetcher.endpoint().name().clone();
    assert_eq!(*board.reports.lock().unwrap(), [(me, report)]);
    let unwanted = peer.report(&Bytes::from("bad")).await.unwrap_err();
    assert!(matches!(unwanted, RequestError::Refused(Refusal::Absent)), "{unwanted:?}");
    let refused = peer.deny(&Bytes::from("bad")).await.unwrap_err();
    assert!(refused.to_string().contains("nobody signed it"), "{refused}");
    let long = Bytes::from(vec![0; DENIAL_BYTES_MAX + 1]);
    assert!(matches!(peer.deny(&long).await.unwrap_err(), RequestError::TooLong { .. }));
}

// T31, T23
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn control_gets_documents_and_contents_of_a_node_and_nothing_else() {
    let (organisation, board) = (Organisation::new(), Board::new());
    let (node, agent, _peer) = meet(&organisation, &board).await;
    let folder = organisation.dir.path().join("control");
    let member = Member::Control { id: random_label() };
    organisation.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
    let identity = Some(Identity::load(&folder).unwrap());
    let control = organisation.set_up(Setup { identity, ..Setup::of(Role::Control) });
    let peer = control.fetcher.endpoint().connect(node.address).await.unwrap();
    let timestamp = peer.document(&place("metadata/timestamp.json"), 100).await.unwrap();
    assert_eq!(timestamp, Some(Bytes::from("the timestamp")));
    // What is there it gets as any device does, and is told what is not.
    let bytes = bytes(300_000, 31);
    let id = add(&node.store, &bytes).id();
    let got = control.fetcher.fetch(&wanted(id, &[&node]), &watch::Sender::default()).await;
    assert_eq!(read(&got.unwrap().content), bytes);
    assert!(peer.mismatch(id, ChunkIndex(0)).await.unwrap(), "the chunk is good");
    let unknown = peer.open(ContentId::of(b"x"), Body::List, Class::Background).await.unwrap_err();
    assert!(matches!(unknown, RequestError::Refused(Refusal::Unknown)), "{unknown}");
    let refused =
        |error: RequestError| matches!(error, RequestError::Refused(Refusal::OutOfBounds));
    assert!(refused(peer.watch().await.unwrap_err()));
    assert!(refused(peer.deny(&Bytes::from("a denial")).await.unwrap_err()));
    assert!(refused(peer.report(&Bytes::from("a report")).await.unwrap_err()));
    let url = "http://vendor.example.com/x".parse().unwrap();
    let sha256 = Sha256Digest::from_bytes([7; 32]);
    let resolved = peer.resolve(sha256, &url, Class::Background, |_| {}).await;
    assert!(refused(resolved.unwrap_err()));
    assert!(board.latest.borrow().denials.is_empty());
    // A device has nothing to tell it, and does not let it in.
    let asked = async {
        let peer = control.fetcher.endpoint().connect(agent.address).await.ok()?;
        peer.document(&place("metadata/timestamp.json"), 100).await.ok()
    };
    assert_eq!(asked.await, None);
}

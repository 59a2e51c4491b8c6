//! A control server that answers everything wrong.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use sutler_orders::approvals::Approvals;
use sutler_swarm::identity::PeerName;
use sutler_swarm::orders::{Board, Latest, NotTaken, Orders, Place};
use tokio::sync::watch;

use super::organisation::{Control, Organisation, approvals_path, soon};

/// An answer in the place of the right one.
type How = fn(Option<Bytes>) -> io::Result<Option<Bytes>>;

/// Every way in which a document can be wrong.
const HOWS: [(&str, How); 9] = [
    ("nothing", |_| Ok(None)),
    ("a failure", |_| Err(io::Error::other("not now"))),
    ("no bytes", |_| Ok(Some(Bytes::new()))),
    ("rubbish", |_| Ok(Some(Bytes::from_static(b"\xff\x00{\"signed\":")))),
    ("an empty object", |_| Ok(Some(Bytes::from_static(b"{}")))),
    ("the half of it", |right| Ok(right.map(|right| right.slice(..right.len() / 2)))),
    ("one bit of it changed", |right| {
        let mut bytes = right.unwrap_or_default().to_vec();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        Ok(Some(bytes.into()))
    }),
    ("it without signatures", |right| {
        let mut document: Value =
            serde_json::from_slice(&right.unwrap_or_default()).unwrap_or_default();
        document["signatures"] = json!([]);
        Ok(Some(document.to_string().into()))
    }),
    ("it without an end", |right| {
        let mut bytes = right.unwrap_or_default().to_vec();
        bytes.resize(5 << 20, b' ');
        Ok(Some(bytes.into()))
    }),
];

/// What is asked for in a refresh that brings a new approval.
const PLACES: [&str; 6] = [
    ".root.json",
    "metadata/timestamp.json",
    ".snapshot.json",
    ".targets.json",
    ".approvals-qa.json",
    "targets/approvals/",
];

/// Answers as control does, but for documents at one kind of place.
struct Wrong {
    right: Board,
    now: Mutex<Option<(&'static str, How)>>,
    /// How many answers were wrong.
    count: AtomicUsize,
}

impl Orders for Wrong {
    fn document(&self, place: &Place) -> io::Result<Option<Bytes>> {
        let right = self.right.document(place)?;
        let now = *self.now.lock().unwrap();
        let Some((_, how)) = now.filter(|(wrong, _)| place.as_str().contains(wrong)) else {
            return Ok(right);
        };
        let wrong = how(right);
        self.count.fetch_add(1, Ordering::SeqCst);
        wrong
    }

    fn news(&self) -> watch::Receiver<Arc<Latest>> {
        self.right.news()
    }

    fn take_denial(&self, _: &PeerName, _: Bytes) -> Result<(), NotTaken> {
        Err(NotTaken::Unwanted)
    }

    fn take_report(&self, _: &PeerName, _: Bytes) -> Result<(), NotTaken> {
        Err(NotTaken::Full)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_control_server_that_answers_everything_wrong_changes_nothing() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let wrong = Arc::new(Wrong {
        right: control.machine.board.clone(),
        now: Mutex::default(),
        count: AtomicUsize::default(),
    });
    let server = organisation.server(Arc::clone(&wrong) as _);
    let agent = organisation.follower(None, &[server.address]);
    agent.believes(2).await;
    let mut seq = 1;
    let mut approve = |control: &mut Control| {
        seq += 1;
        control.set(&organisation, "approvals-qa", Some("qa"), seq, Approvals::default());
        control.version()
    };
    for place in PLACES {
        for (what, how) in HOWS {
            let before = wrong.count.load(Ordering::SeqCst);
            *wrong.now.lock().unwrap() = Some((place, how));
            let version = approve(&mut control);
            soon(&format!("{what} for {place}"), async {
                while wrong.count.load(Ordering::SeqCst) == before {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            // That there is no next root is what the right answer says as well.
            assert!(agent.version() < version || place == ".root.json", "{what} for {place}");
            *wrong.now.lock().unwrap() = None;
            let version = approve(&mut control);
            agent.believes(version).await;
            let manifest = agent.board.manifest().borrow().clone().unwrap();
            let right = control.file(&approvals_path());
            assert_eq!(manifest.files[&approvals_path()], *right, "{what} for {place}");
        }
    }
}

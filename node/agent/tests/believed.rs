//! What a device believes of a scope that was left to a directorate, whatever becomes of the directorate.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sutler_agent::believed::{Believed, believe};
use sutler_agent::state::State;
use sutler_orders::approvals::Approvals;
use sutler_orders::mandate::signers;
use sutler_orders::vouched::{Orders, Scope};
use sutler_orders::{Head, Order};
use sutler_protocol::manifest::drive::{self, Keeper, Repository};
use sutler_protocol::manifest::signed::Document;
use sutler_protocol::manifest::{
    Answer, Delegation, Expires, Fetch, Keep, Kept, Kind, Pin, RoleName, Root, Signed, SigningKey,
    Snapshot, TargetFile, TargetPath, Targets, Timestamp as Statement, Trusted, Version,
};
use sutler_protocol::name::Label;
use sutler_swarm::orders::{Manifest, Statement as Stated};

const ROOT: u8 = 1;
const HEAD: u8 = 2;
const APPROVER: u8 = 3;
const STRANGER: u8 = 9;

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().unwrap()
}

fn in_days(days: i64) -> Expires {
    Expires::at(now() + SignedDuration::from_hours(24 * days))
}

fn lab() -> Label {
    "lab".parse().unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn role(name: &str) -> RoleName {
    RoleName::delegated(name).unwrap()
}

/// An organisation of one root key, and what it has signed.
struct House {
    documents: BTreeMap<String, Bytes>,
    files: BTreeMap<TargetPath, Bytes>,
    snapshot: Snapshot,
    targets: Targets,
}

impl Repository for House {
    type Error = Infallible;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, Infallible> {
        let found = self.documents.get(&fetch.place);
        Ok(found.map_or(Answer::Absent, |bytes| Answer::Document(bytes.clone())))
    }
}

struct Nowhere;

impl Keeper for Nowhere {
    type Error = Infallible;

    fn keep(&mut self, _: Keep) -> Result<(), Infallible> {
        Ok(())
    }

    fn load(&mut self, _: &RoleName) -> Option<Bytes> {
        None
    }
}

fn sign<T: Document + serde::Serialize>(document: &T, seed: u8) -> Bytes {
    let mut signed = Signed::propose(document).unwrap();
    signed.sign(&key(seed));
    signed.bytes().clone()
}

fn delegate(document: &mut Targets, name: &str, seed: u8, paths: &[&str]) {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let keys = [key(seed).key().clone()];
    document.delegate(Delegation::new(role(name), &keys, 1, paths), &keys);
}

/// What a directorate says whose approver has this key, until that day.
fn staff(approver: u8, until: Expires) -> Targets {
    let mut staff = Targets::new(Version::FIRST, until);
    for (name, path) in signers(&lab()) {
        delegate(&mut staff, name.as_str(), approver, &[&path]);
    }
    staff
}

impl House {
    fn new() -> Self {
        let mut targets = Targets::new(Version::FIRST, in_days(180));
        delegate(&mut targets, "staff-lab", HEAD, &["approvals/lab/*", "schedules/lab/*"]);
        delegate(&mut targets, "content-2026-11", ROOT, &["content/2026-11/*/*"]);
        let snapshot = Snapshot::new(Version::FIRST, in_days(14));
        let mut house =
            Self { documents: BTreeMap::new(), files: BTreeMap::new(), snapshot, targets };
        house.put("staff-lab", &staff(APPROVER, in_days(30)), HEAD);
        house.approve(APPROVER);
        house
    }

    fn put(&mut self, name: &str, document: &Targets, seed: u8) {
        let bytes = sign(document, seed);
        self.snapshot.set_pin(&role(name), Pin::of(Version::FIRST, &bytes));
        self.documents.insert(role(name).place(Some(Version::FIRST)), bytes);
    }

    fn approve(&mut self, seed: u8) {
        let head = Head {
            organisation: "acme".parse().unwrap(),
            scope: Some(lab()),
            seq: 1,
            issued: "2026-11-28T12:00:00Z".parse().unwrap(),
        };
        let bytes = Bytes::from(Order { head, body: Approvals::default() }.write().unwrap());
        let path = TargetPath::from("approvals/lab/approvals.json");
        let mut approvals = Targets::new(Version::FIRST, in_days(90));
        approvals.set_file(&path, TargetFile::of(&bytes));
        self.files.insert(path, bytes);
        self.put("approvals-lab", &approvals, seed);
    }

    /// What a device makes of it at `at` that has believed this before.
    fn believed(&mut self, before: &Orders, at: Timestamp) -> Believed {
        let mut root = Root::new(Version::FIRST, in_days(365));
        for kind in [Kind::Root, Kind::Targets, Kind::Snapshot, Kind::Timestamp] {
            root.set_keys(kind, &[key(ROOT).key().clone()], 1);
        }
        let targets = sign(&self.targets, ROOT);
        self.snapshot.set_pin(&RoleName::targets(), Pin::of(Version::FIRST, &targets));
        let snapshot = sign(&self.snapshot, ROOT);
        let pin = Pin::of(Version::FIRST, &snapshot);
        let (issued, expires) = (in_days(0), in_days(7));
        let statement = sign(&Statement::new(Version::FIRST, issued, expires, pin), ROOT);
        self.documents.insert("1.targets.json".to_owned(), targets);
        self.documents.insert("1.snapshot.json".to_owned(), snapshot);
        self.documents.insert("timestamp.json".to_owned(), statement.clone());
        let kept = Kept { root: sign(&root, ROOT), ..Kept::default() };
        let mut trusted = Trusted::load(&kept).unwrap();
        drive::refresh(&mut trusted, self, &mut Nowhere, at).unwrap();
        let roles = drive::sweep(&mut trusted, self, &mut Nowhere, at).unwrap();
        let statement = Stated {
            version: Version::FIRST,
            issued: Some(issued.instant()),
            expires,
            bytes: statement,
        };
        let (root_expires, files) = (in_days(365), self.files.clone());
        let manifest = Manifest { statement, as_of: at, root_expires, roles, files };
        let organisation = "acme".parse().unwrap();
        believe(&manifest, Vec::new(), &organisation, &State::default(), before)
    }
}

fn scope(believed: &Believed) -> &Scope {
    assert_eq!(believed.orders.scopes.len(), 1, "{:?}", believed.refused);
    &believed.orders.scopes[0]
}

#[test]
fn what_approvers_sign_ends_with_the_document_that_names_them() {
    let believed = House::new().believed(&Orders::default(), now());
    assert_eq!(believed.refused, Vec::<String>::new());
    let approvals = scope(&believed).approvals.as_ref().unwrap();
    // Signed for 90 days, by somebody who was named for 30.
    assert_eq!(approvals.expires(), in_days(30).instant());
}

// T22
#[test]
fn a_directorates_document_that_is_broken_changes_nothing_of_what_was_believed() {
    let mut house = House::new();
    let before = house.believed(&Orders::default(), now()).orders;
    house.put("staff-lab", &staff(STRANGER, in_days(30)), STRANGER);
    house.approve(STRANGER);
    let believed = house.believed(&before, now());
    assert!(believed.refused.iter().any(|told| told.contains("staff-lab")), "{believed:?}");
    assert_eq!(scope(&believed).approvals, before.scopes[0].approvals);
    // And whoever has believed nothing before believes nothing of the scope now.
    assert!(house.believed(&Orders::default(), now()).orders.scopes.is_empty());
}

#[test]
fn one_whom_the_directorate_names_no_more_says_nothing_new() {
    let mut house = House::new();
    house.put("staff-lab", &staff(STRANGER, in_days(30)), HEAD);
    let believed = house.believed(&Orders::default(), now());
    assert!(scope(&believed).approvals.is_none());
    house.approve(STRANGER);
    assert!(scope(&house.believed(&Orders::default(), now())).approvals.is_some());
}

// T22: who holds the repository and a directorate's keys imports no content by them.
#[test]
fn a_directorate_that_delegates_the_months_contents_imports_none() {
    let mut house = House::new();
    let path = format!("content/2026-11/{}/evil.bin", "ab".repeat(32));
    let mut contents = Targets::new(Version::FIRST, in_days(30));
    contents.set_file(&TargetPath::from(path.as_str()), TargetFile::of(b"evil"));
    house.put("content-2026-11", &contents, HEAD);
    let mut greedy = staff(APPROVER, in_days(30));
    delegate(&mut greedy, "content-2026-11", HEAD, &["content/2026-11/*/*"]);
    house.put("staff-lab", &greedy, HEAD);
    let believed = house.believed(&Orders::default(), now());
    assert!(believed.orders.contents.is_empty());
    assert!(believed.refused.iter().any(|told| told.contains("content-2026-11")), "{believed:?}");
    // Not even named as none: of a document that nobody may sign, nothing is read.
    assert!(!believed.refused.iter().any(|told| told.contains("evil.bin")), "{believed:?}");
}

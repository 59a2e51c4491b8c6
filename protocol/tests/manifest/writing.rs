//! The writing half: what is made and signed here is what the reading half believes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sutler_protocol::manifest::document::RuleError;
use sutler_protocol::manifest::sign::{MergeError, ProposeError, SigningKey};
use sutler_protocol::manifest::signed::Document;
use sutler_protocol::manifest::{
    Delegation, Expires, Kept, Kind, Pin, RoleKeys, RoleName, Root, Signed, Snapshot, TargetFile,
    TargetPath, Targets, Timestamp, VerifyError, Version,
};

use crate::repository::{Device, Repository, days, now, said};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn keys(seeds: &[u8], threshold: u64) -> RoleKeys {
    let listed: BTreeMap<_, _> =
        seeds.iter().map(|seed| (key(*seed).id().clone(), key(*seed).key().clone())).collect();
    let ids: Vec<_> = listed.keys().cloned().collect();
    RoleKeys::new(&listed, &ids, threshold)
}

fn in_days(count: i64) -> Expires {
    Expires::at(now() + days(count))
}

fn signed<T: Document + serde::Serialize>(document: &T, seeds: &[u8]) -> Signed<T> {
    let mut proposal = Signed::propose(document).unwrap();
    for seed in seeds {
        proposal.sign(&key(*seed));
    }
    proposal
}

fn root() -> Root {
    let mut root = Root::new(Version::FIRST, in_days(390));
    let public =
        |seeds: &[u8]| seeds.iter().map(|seed| key(*seed).key().clone()).collect::<Vec<_>>();
    root.set_keys(Kind::Root, &public(&[1, 2, 3]), 2);
    root.set_keys(Kind::Targets, &public(&[1, 2]), 1);
    root.set_keys(Kind::Snapshot, &public(&[4]), 1);
    root.set_keys(Kind::Timestamp, &public(&[5]), 1);
    root
}

/// A repository of what was written, as a client meets it.
fn published(
    root: &Signed<Root>,
    targets: &Targets,
    roles: &[(&str, Signed<Targets>)],
) -> Repository {
    let mut repository = Repository::new();
    repository.places.clear();
    let mut snapshot = Snapshot::new(Version::FIRST, in_days(14));
    let mut place = |name: &RoleName, version, bytes: &Bytes| {
        repository.places.insert(name.place(version), bytes.clone());
    };
    for (name, document) in roles {
        let role = RoleName::delegated(name).unwrap();
        snapshot.set_pin(&role, Pin::of(Version::FIRST, document.bytes()));
        place(&role, Some(Version::FIRST), document.bytes());
    }
    let targets = signed(targets, &[1]);
    snapshot.set_pin(&RoleName::targets(), Pin::of(Version::FIRST, targets.bytes()));
    place(&RoleName::targets(), Some(Version::FIRST), targets.bytes());
    let snapshot = signed(&snapshot, &[4]);
    place(&RoleName::snapshot(), Some(Version::FIRST), snapshot.bytes());
    let pin = Pin::of(Version::FIRST, snapshot.bytes());
    let timestamp = Timestamp::new(Version::FIRST, Expires::at(now()), in_days(7), pin);
    place(&RoleName::timestamp(), None, signed(&timestamp, &[5]).bytes());
    place(&RoleName::root(), Some(Version::FIRST), root.bytes());
    repository
}

#[test]
fn a_manifest_that_was_written_is_believed_delegations_and_all() {
    let root = signed(&root(), &[1, 3]);
    let mut targets = Targets::new(Version::FIRST, in_days(180));
    let role = RoleName::delegated("approvals-lab").unwrap();
    let approvers = [key(6).key().clone(), key(7).key().clone()];
    let paths = vec!["approvals/lab/*".to_owned()];
    targets.delegate(Delegation::new(role, &approvers, 2, paths), &approvers);
    let mut approvals = Targets::new(Version::FIRST, in_days(180));
    let path = TargetPath::from("approvals/lab/approvals.json");
    approvals.set_file(&path, TargetFile::of(b"{}"));

    let one = [("approvals-lab", signed(&approvals, &[6]))];
    let mut device = Device::new(&Kept { root: root.bytes().clone(), ..Kept::default() });
    let mut repository = published(&root, &targets, &one);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [1, 1, 1, 1]);
    assert_eq!(device.trusted.timestamp().unwrap().issued(), Some(now()));
    let error = device.find(path.as_str(), &mut repository).unwrap_err();
    assert!(said(&error).contains("1 of its role's keys have signed it, and 2 are needed"));

    let both = [("approvals-lab", signed(&approvals, &[6, 7]))];
    let mut device = Device::new(&Kept { root: root.bytes().clone(), ..Kept::default() });
    let mut repository = published(&root, &targets, &both);
    device.refresh(&mut repository).unwrap();
    let found = device.find(path.as_str(), &mut repository).unwrap().unwrap();
    assert_eq!(found.file, TargetFile::of(b"{}"));
    // What its delegation does not give it, it cannot name.
    assert_eq!(device.find("approvals/other/approvals.json", &mut repository).unwrap(), None);
}

#[test]
fn a_key_is_called_by_the_sha_256_of_its_canonical_form() {
    let public = key(1).key().keyval.public.clone().unwrap();
    let form = format!(
        "{{\"keytype\":\"ed25519\",\"keyval\":{{\"public\":\"{public}\"}},\"scheme\":\"ed25519\"}}"
    );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form.as_bytes());
    assert_eq!(key(1).id().as_str(), crate::repository::hex(digest.as_ref()));
}

#[test]
fn signatures_are_added_one_by_one_on_different_machines() {
    let document = Targets::new(Version::FIRST, in_days(1));
    let proposal = Signed::propose(&document).unwrap();
    let keys = keys(&[1, 2, 3], 2);
    assert_eq!(proposal.lacks(&keys), 2);

    // Each machine gets the bytes.
    let carried = |signer: u8| {
        let mut copy = Signed::<Targets>::parse(proposal.bytes().clone()).unwrap();
        copy.sign(&key(signer));
        Signed::<Targets>::parse(copy.bytes().clone()).unwrap()
    };
    let (mut first, second) = (carried(1), carried(3));
    assert_eq!(first.fingerprint(), proposal.fingerprint());
    assert!(matches!(first.verify(&keys), Err(VerifyError::Threshold { needed: 2, counted: 1 })));
    first.merge(&second).unwrap();
    assert_eq!((first.lacks(&keys), first.signers(&keys).len()), (0, 2));
    let believed = Signed::<Targets>::parse(first.bytes().clone()).unwrap().verify(&keys).unwrap();
    assert_eq!(*believed.document(), document);
    // Twice by one key is once.
    first.sign(&key(1));
    assert_eq!(first.signers(&keys).len(), 2);
}

#[test]
fn a_signature_is_added_to_exactly_what_was_proposed() {
    let mut document = Targets::new(Version::FIRST, in_days(1));
    let mut proposal = signed(&document, &[1]);
    let before = proposal.bytes().clone();
    document.set_file(&TargetPath::from("x"), TargetFile::of(b"x"));
    assert_eq!(proposal.merge(&signed(&document, &[2])), Err(MergeError::Differs));
    assert_eq!(*proposal.bytes(), before);
    // A signature over other bytes counts for nothing, wherever it was put.
    let mut forged: Value = serde_json::from_slice(&before).unwrap();
    forged["signed"]["version"] = json!(2);
    let forged = Bytes::from(serde_json::to_vec(&forged).unwrap());
    assert_eq!(Signed::<Targets>::parse(forged).unwrap().lacks(&keys(&[1], 1)), 1);
}

#[test]
fn a_document_that_nobody_would_believe_is_not_proposed() {
    let lacking = Signed::propose(&Root::new(Version::FIRST, in_days(1)));
    assert!(matches!(
        lacking,
        Err(ProposeError::Rule {
            kind: Kind::Root,
            source: RuleError::Lacks { field: "roles", .. }
        })
    ));
    let pin = Pin::of(Version::FIRST, b"");
    let week = Timestamp::new(Version::FIRST, in_days(0), in_days(7), pin.clone());
    assert!(Signed::propose(&week).is_ok());
    for (issued, expires) in [(0, 8), (1, 0)] {
        let statement =
            Timestamp::new(Version::FIRST, in_days(issued), in_days(expires), pin.clone());
        let error = Signed::propose(&statement).unwrap_err();
        assert!(said(&error).contains("not within 7 days before expires"), "{error}");
    }
    let mut long = Targets::new(Version::FIRST, in_days(1));
    for number in 0..40_000 {
        long.set_file(&TargetPath::from(format!("x/{number}").as_str()), TargetFile::of(b"x"));
    }
    let error = Signed::propose(&long).unwrap_err();
    assert!(matches!(error, ProposeError::TooLong { kind: Kind::Targets, .. }), "{error}");
}

#[test]
fn a_root_lists_the_keys_that_its_roles_name_and_no_others() {
    let mut root = root();
    assert_eq!(root.keys.len(), 5);
    root.set_keys(Kind::Root, &[key(8).key().clone(), key(8).key().clone()], 1);
    // 1 and 2 are still the targets', 3 is nobody's; one key is one, however often it is given.
    assert_eq!(root.keys.len(), 5);
    assert!(!root.keys.contains_key(key(3).id()));
    assert_eq!(root.roles["root"].keyids.len(), 1);
}

#[test]
fn what_nobody_knows_of_a_document_stays_in_it() {
    let value = json!({
        "_type": "targets", "spec_version": "1.0.99", "version": 3,
        "expires": "2027-01-01T00:00:00Z", "x-new": { "deep": [1, "two", null] },
        "targets": { "a b": {
            "length": 2, "x": true, "custom": { "sutler": { "severity": "unknown" } },
            "hashes": { "sha256": "ab".repeat(32), "sha512": "cd".repeat(64) },
        }},
        "delegations": { "keys": { "k": {
            "keytype": "new", "scheme": "new", "keyval": { "x": 1 }, "y": 2,
        }}, "roles": [{
            "name": "r", "keyids": ["k"], "threshold": 1, "terminating": false, "paths": ["*"],
            "sutler": { "ring": "qa" },
        }]},
    });
    let document: Targets = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), value);
}

/// Texts that JSON and its canonical form treat in different ways, among others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9./-]{1,20}", any::<String>(), Just("\"\\\u{0}\n\u{e9}e\u{301}".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_what_is_read(
        files in proptest::collection::btree_map(text(), (any::<u64>(), text()), 0..8),
        names in proptest::collection::btree_set(text(), 0..4),
        version in 1..u64::MAX,
        expires in 0..200_000_000_000_i64,
    ) {
        let expires = Expires::at(jiff::Timestamp::from_second(expires).unwrap());
        let mut targets = Targets::new(Version::new(version).unwrap(), expires);
        for (path, (length, custom)) in &files {
            let mut file = TargetFile::of(path.as_bytes());
            file.length = *length;
            file.custom = Some(json!({ "sutler": custom }));
            targets.set_file(&TargetPath::from(path.as_str()), file);
        }
        for name in &names {
            let Some(role) = RoleName::delegated(name) else { continue };
            let signer = [key(9).key().clone()];
            targets.delegate(Delegation::new(role, &signer, 1, vec![name.clone()]), &signer);
        }
        let proposal = signed(&targets, &[1, 2]);
        let received = Signed::<Targets>::parse(proposal.bytes().clone()).unwrap();
        let believed = received.verify(&keys(&[1, 2], 2)).unwrap();
        prop_assert_eq!(believed.document(), &targets);
        prop_assert!(received.verify(&keys(&[1, 3], 2)).is_err());
    }
}

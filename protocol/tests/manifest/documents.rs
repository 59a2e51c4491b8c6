//! What a document has to be, and how much of one may come.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sutler_protocol::manifest::{Answer, Kept, LoadError, Refresh, Trusted, Version};

use crate::repository::{Device, Repository, edit, hashes, now, said};

fn refused(repository: &mut Repository) -> (Device, String) {
    let mut device = Device::new(&repository.first_root());
    let error = device.refresh(repository).unwrap_err();
    (device, said(&error))
}

#[test]
fn a_first_refresh_asks_for_what_it_lacks_and_keeps_the_bytes() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(
        repository.asked,
        ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    );
    for role in ["root", "timestamp", "snapshot", "targets"] {
        assert_eq!(device.disk.files[role], repository.newest(role), "{role}");
    }

    repository.asked.clear();
    let mut device = device.restart();
    device.refresh(&mut repository).unwrap();
    assert_eq!(repository.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn the_bytes_are_kept_as_they_came_white_space_and_all() {
    let mut repository = Repository::new();
    let mut odd = b" \n".to_vec();
    odd.extend_from_slice(&repository.newest("timestamp"));
    odd.extend_from_slice(b"\t \n");
    repository.publish_bytes("timestamp", 1, odd.clone().into());
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.disk.files["timestamp"], odd);
}

#[test]
fn fields_that_the_specification_does_not_name_are_signed_and_kept() {
    let mut repository = Repository::new();
    repository["timestamp"]["x-audit"] = json!("2026-11-23T08:00:00Z");
    repository["root"]["x-org"] = json!({ "a": [1, "\u{e9}e\u{301}\"\\\n"] });
    repository["root"]["roles"]["root"]["x-role"] = json!(null);
    repository["snapshot"]["meta"]["targets.json"]["x-pin"] = json!(true);
    repository.add_target("targets", "a", b"a");
    repository["targets"]["targets"]["a"]["custom"] = json!({ "blake3": "ab" });
    repository.publish(&["root", "targets", "snapshot", "timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    let timestamp = device.trusted.timestamp().unwrap();
    assert_eq!(timestamp.extra["x-audit"], "2026-11-23T08:00:00Z");
    let found = device.find("a", &mut repository).unwrap().unwrap();
    assert_eq!(found.file.custom.unwrap()["blake3"], "ab");

    // Changed after it was signed, it is no longer what was signed.
    repository.publish(&["timestamp"]);
    let changed = edit(&repository.newest("timestamp"), |document| {
        document["signed"]["x-audit"] = json!("2026-11-24T08:00:00Z");
    });
    repository.publish_bytes("timestamp", 3, changed);
    device.refresh(&mut repository).unwrap_err();
}

#[test]
fn a_root_that_an_admin_hands_over_has_to_hold_by_itself() {
    let repository = Repository::new();
    let root = repository.newest("root");
    let load = |bytes: Bytes| Trusted::load(&Kept { root: bytes, ..Kept::default() });
    load(root.clone()).unwrap();
    let unsigned = edit(&root, |document| document["signatures"] = json!([]));
    assert!(matches!(load(unsigned), Err(LoadError::Verify { .. })));
    let no_version = edit(&root, |document| {
        document["signed"].as_object_mut().unwrap().remove("version");
    });
    let error = load(no_version).unwrap_err();
    assert!(said(&error).contains("missing field `version`"), "{}", said(&error));
    for nothing in ["", "{}", "null", "{\"signatures\":[]}", "\u{0}"] {
        let error = load(nothing.as_bytes().to_vec().into()).unwrap_err();
        assert!(matches!(error, LoadError::Parse { .. }), "{nothing:?}");
    }
}

#[test]
fn an_error_names_the_document_the_field_and_the_rule() {
    type Change = (&'static str, fn(&mut Value), &'static str);
    let changes: [Change; 11] = [
        (
            "timestamp",
            |signed| signed["_type"] = json!("snapshot"),
            "timestamp: verify it: check its fields: _type is \"snapshot\" instead of \"timestamp\"",
        ),
        ("timestamp", |signed| signed["meta"] = json!({}), "meta lacks snapshot.json"),
        ("timestamp", |signed| signed["version"] = json!(0), "signed.version: versions begin at 1"),
        (
            "timestamp",
            |signed| signed["expires"] = json!("tomorrow"),
            "signed.expires: \"tomorrow\" is no instant",
        ),
        ("timestamp", |signed| signed["spec_version"] = json!("2.0"), "spec_version is \"2.0\""),
        (
            "snapshot",
            |signed| signed["meta"]["targets.json"]["version"] = json!("1"),
            "signed.meta.targets.json.version",
        ),
        (
            "snapshot",
            |signed| {
                signed["meta"].as_object_mut().unwrap().remove("targets.json");
            },
            "meta lacks targets.json",
        ),
        (
            "targets",
            |signed| signed["targets"]["a"] = json!({ "length": 1 }),
            "missing field `hashes`",
        ),
        (
            "targets",
            |signed| signed["delegations"] = json!({ "keys": {}, "roles": [{ "name": "root" }] }),
            "a delegated role cannot be called \"root\"",
        ),
        ("targets", |signed| signed["x"] = json!(1.5), "no integer of 64 bits"),
        (
            "root",
            |signed| {
                signed["roles"].as_object_mut().unwrap().remove("targets");
            },
            "roles lacks targets",
        ),
    ];
    for (role, change, expected) in changes {
        let mut repository = Repository::new();
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        change(repository.signed.get_mut(role).unwrap());
        if expected.contains("64 bits") {
            // It has no form that could be signed.
            let unsigned = json!({ "signatures": [], "signed": repository[role] });
            repository.publish_bytes(role, 2, serde_json::to_vec(&unsigned).unwrap().into());
        } else {
            repository.publish_as_is(role);
        }
        repository.places.remove("3.root.json");
        let (_, error) = refused(&mut repository);
        assert!(error.starts_with("refuse the manifest's "), "{error}");
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

// T4
#[test]
fn bytes_that_are_not_the_pinned_ones_are_refused() {
    for (field, value) in [
        ("length", json!(1)),
        ("hashes", hashes(b"another")),
        ("hashes", json!({ "sha512": "00".repeat(64) })),
        ("hashes", json!({ "md5": "ab" })),
        ("hashes", json!({})),
    ] {
        let mut repository = Repository::new();
        repository.pins_bytes = true;
        repository.publish(&["targets"]);
        repository["snapshot"]["meta"]["targets.json"][field] = value;
        repository.publish(&["snapshot", "timestamp"]);
        let (device, error) = refused(&mut repository);
        assert!(error.contains("compare it with what pins it") || field == "length", "{error}");
        assert_eq!(device.versions(), [1, 2, 2, 0]);
    }
}

#[test]
fn pins_with_length_and_either_hash_are_good() {
    for lacking in ["sha256", "sha512", "none"] {
        let mut repository = Repository::new();
        repository.pins_bytes = true;
        repository.publish(&["targets", "snapshot"]);
        let pin = &mut repository["timestamp"]["meta"]["snapshot.json"];
        pin["hashes"].as_object_mut().unwrap().remove(lacking);
        repository.publish(&["timestamp"]);
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        assert_eq!(device.versions(), [1, 2, 2, 2]);
    }
}

#[test]
fn a_document_under_another_versions_name_is_refused() {
    for role in ["root", "snapshot", "targets"] {
        let mut repository = Repository::new();
        repository[role]["version"] = json!(3);
        let wrong = repository.sign(role);
        repository[role]["version"] = json!(1);
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        repository.places.insert(format!("2.{role}.json"), wrong);
        let (_, error) = refused(&mut repository);
        assert!(error.contains("its field version is 3 instead of 2"), "{role}: {error}");
    }
}

#[test]
fn without_consistent_snapshots_names_have_no_versions() {
    let mut repository = Repository::new();
    repository["root"]["consistent_snapshot"] = json!(false);
    repository.publish(&["root"]);
    let mut device = Device::new(&repository.first_root());
    repository.add_target("targets", "a/b", b"b");
    repository.publish(&["targets", "snapshot", "timestamp"]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(repository.asked[2..], ["timestamp.json", "snapshot.json", "targets.json"]);
    let found = device.find("a/b", &mut repository).unwrap().unwrap();
    assert_eq!(device.trusted.place_of(&found), "a/b");
}

#[test]
fn a_missing_document_ends_the_refresh_and_keeps_what_came_before() {
    for (place, versions) in [
        ("timestamp.json", [1, 1, 1, 1]),
        ("2.snapshot.json", [1, 2, 1, 1]),
        ("2.targets.json", [1, 2, 2, 1]),
    ] {
        let mut repository = Repository::new();
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        repository.publish(&["targets", "snapshot", "timestamp"]);
        repository.places.remove(place);
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("the repository does not have it"), "{error}");
        assert_eq!(device.versions(), versions, "{place}");
        // Half a manifest is searched by nobody; the whole one of before still is.
        let is_whole = place == "timestamp.json";
        assert_eq!(device.find("a", &mut repository).is_ok(), is_whole, "{place}");
    }
}

// T5
#[test]
fn what_goes_on_for_ever_is_cut_off_at_its_bound() {
    let places = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
    let bounds = [64 * 1024, 16 * 1024, 1024 * 1024, 4 * 1024 * 1024];
    for (endless, bytes_max) in places.into_iter().zip(bounds) {
        let mut repository = Repository::new();
        let padded = |len: usize, repository: &Repository| {
            let mut bytes = repository.places.get(endless).map_or_else(Vec::new, |b| b.to_vec());
            bytes.resize(len, b' ');
            Bytes::from(bytes)
        };
        repository.places.insert(endless.into(), padded(bytes_max + 10, &repository));
        let (_, error) = refused(&mut repository);
        assert!(error.contains(&format!("the {bytes_max} bytes")), "{error}");

        // At the bound itself it is still read.
        if endless != "2.root.json" {
            repository.places.insert(endless.into(), padded(bytes_max, &repository));
            Device::new(&repository.first_root()).refresh(&mut repository).unwrap();
        }
    }
}

// T5
#[test]
fn no_more_is_asked_for_than_the_pin_says() {
    let mut repository = Repository::new();
    repository.pins_bytes = true;
    repository.publish(&["targets", "snapshot", "timestamp"]);
    let len = repository.newest("snapshot").len() as u64;
    let mut trusted = Trusted::load(&repository.first_root()).unwrap();
    let mut refresh = Refresh::new(&mut trusted, now());
    refresh.handle_answer(Answer::Absent).unwrap();
    refresh.handle_answer(Answer::Document(repository.newest("timestamp"))).unwrap();
    assert_eq!(refresh.poll_fetch().unwrap().bytes_max, len);
}

#[test]
fn the_last_version_that_there_is_has_no_successor() {
    let mut repository = Repository::new();
    repository["root"]["version"] = json!(u64::MAX);
    let root = repository.sign("root");
    repository.places.insert(format!("{}.root.json", u64::MAX), root.clone());
    let mut device = Device::new(&Kept { root, ..Kept::default() });
    assert_eq!(device.trusted.root().version(), Version::new(u64::MAX).unwrap());
    device.refresh(&mut repository).unwrap_err();
    assert_eq!(device.versions()[1..], [0, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_changed_byte_is_never_believed_as_something_else(at in 0usize..1_000_000, with in any::<u8>()) {
        let repository = Repository::new();
        let honest = repository.newest("timestamp");
        let mut changed = honest.to_vec();
        let at = at % changed.len();
        changed[at] = with;
        let mut trusted = Trusted::load(&repository.first_root()).unwrap();
        let mut refresh = Refresh::new(&mut trusted, now());
        refresh.handle_answer(Answer::Absent).unwrap();
        if refresh.handle_answer(Answer::Document(changed.into())).is_ok() {
            // Only where the signature does not reach: white space, or a name that nobody reads.
            let timestamp = trusted.timestamp().unwrap();
            let honest: Value = serde_json::from_slice(&honest).unwrap();
            let believed: Value = serde_json::from_slice(timestamp.bytes()).unwrap();
            prop_assert_eq!(&believed["signed"], &honest["signed"]);
        }
    }
}

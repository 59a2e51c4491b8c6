//! Older documents than those that were believed, one by one and all together.

use std::collections::BTreeMap;

use serde_json::json;
use sutler_protocol::manifest::{Kept, RoleName, Version};

use crate::repository::{Device, Disk, Repository, edit, said};

const TOP: [&str; 3] = ["targets", "snapshot", "timestamp"];

fn refreshed(repository: &mut Repository) -> Device {
    let mut device = Device::new(&repository.first_root());
    device.refresh(repository).unwrap();
    device
}

// T1
#[test]
fn a_replayed_timestamp_is_refused() {
    let mut repository = Repository::new();
    repository.publish(&["timestamp"]);
    let device = refreshed(&mut repository);
    let old = repository.published["timestamp"][0].clone();
    repository.places.insert("timestamp.json".into(), old);
    repository.asked.clear();
    let mut device = device.restart();
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("its field version is 1, and 2 was believed before"), "{error}");
    assert_eq!(repository.asked, ["2.root.json", "timestamp.json"]);
    assert_eq!(device.versions(), [1, 2, 1, 1]);
}

#[test]
fn another_timestamp_of_the_same_version_is_passed_over() {
    let mut repository = Repository::new();
    let mut device = refreshed(&mut repository);
    repository["timestamp"]["meta"]["snapshot.json"]["version"] = json!(100);
    repository.publish_as_is("timestamp");
    repository.asked.clear();
    device.refresh(&mut repository).unwrap();
    assert_eq!(repository.asked, ["2.root.json", "timestamp.json"]);
    assert_eq!(device.disk.files["timestamp"], repository.published["timestamp"][0]);
}

// T1
#[test]
fn a_new_timestamp_that_pins_an_older_snapshot_is_refused() {
    for pins_bytes in [false, true] {
        let mut repository = Repository::new();
        repository.pins_bytes = pins_bytes;
        repository.publish(&TOP);
        let mut device = refreshed(&mut repository);
        repository["snapshot"]["version"] = json!(1);
        repository.publish_as_is("snapshot");
        repository.publish(&["timestamp"]);
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("pins version 1 of snapshot.json, and 2 was"), "{error}");
        assert_eq!(device.versions(), [1, 2, 2, 2]);
    }
}

// T1
#[test]
fn a_new_snapshot_that_pins_an_older_role_is_refused() {
    for pins_bytes in [false, true] {
        let mut repository = Repository::new();
        repository.pins_bytes = pins_bytes;
        repository.delegate("targets", "a", &json!({ "paths": ["*"] }));
        repository.publish(&["a", "targets", "snapshot", "timestamp"]);
        repository.publish(&["a", "targets", "snapshot", "timestamp"]);
        let device = refreshed(&mut repository);
        for role in ["a", "targets"] {
            let mut device =
                Device { disk: Disk::default(), now: device.now, trusted: device.trusted.clone() };
            let pin = repository["snapshot"]["meta"][format!("{role}.json")].clone();
            repository["snapshot"]["meta"][format!("{role}.json")]["version"] = json!(1);
            repository.publish(&["snapshot", "timestamp"]);
            let error = device.refresh(&mut repository).unwrap_err();
            assert!(said(&error).contains(&format!("of {role}.json, and")), "{}", said(&error));
            assert_eq!(device.versions()[2..], [3, 3]);
            repository["snapshot"]["meta"][format!("{role}.json")] = pin;
        }
    }
}

#[test]
fn a_snapshot_that_forgets_a_role_is_refused() {
    let mut repository = Repository::new();
    repository.delegate("targets", "a", &json!({ "paths": ["*"] }));
    repository.publish(&["a", "targets", "snapshot", "timestamp"]);
    let mut device = refreshed(&mut repository);
    repository["snapshot"]["meta"].as_object_mut().unwrap().remove("a.json");
    repository.publish(&["snapshot", "timestamp"]);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("does not pin a.json, which was"), "{error}");
}

#[test]
fn a_role_that_is_published_and_not_pinned_changes_nothing() {
    let mut repository = Repository::new();
    let mut device = refreshed(&mut repository);
    repository.publish(&["targets"]);
    repository.publish(&["snapshot"]);
    repository.asked.clear();
    device.refresh(&mut repository).unwrap();
    assert_eq!(repository.asked, ["2.root.json", "timestamp.json"]);
    assert_eq!(device.versions(), [1, 1, 1, 1]);
}

// T4
#[test]
fn role_files_of_two_epochs_are_not_mixed() {
    for role in ["snapshot", "targets"] {
        let mut repository = Repository::new();
        repository.pins_bytes = true;
        repository.publish(&TOP);
        repository.add_target("targets", "new", b"new");
        repository.publish(&TOP);
        let (old, new) = (repository.published[role][1].clone(), format!("3.{role}.json"));
        repository.places.insert(new, old);
        let mut device = Device::new(&repository.first_root());
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains(&format!("refuse the manifest's {role}")), "{error}");

        // Without length and hashes the version alone tells them apart.
        repository.pins_bytes = false;
        repository.publish(&TOP);
        let old = repository.published[role][1].clone();
        repository.places.insert(format!("4.{role}.json"), old);
        let mut device = Device::new(&repository.first_root());
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("its field version is 2 instead of 4"), "{error}");
    }
}

// T4
#[test]
fn a_snapshot_that_is_here_is_asked_for_again_where_other_bytes_are_pinned() {
    let mut repository = Repository::new();
    repository.pins_bytes = true;
    repository.publish(&TOP);
    let mut device = refreshed(&mut repository);
    let other = edit(&repository.newest("snapshot"), |document| {
        document["signatures"].as_array_mut().unwrap().push(json!({ "keyid": "x", "sig": "" }));
    });
    repository.publish_bytes("snapshot", 2, other.clone());
    repository.publish(&["timestamp"]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.disk.files["snapshot"], other);
}

// T2: what was lost is gone, and the version that it had still binds.
#[test]
fn the_version_of_a_lost_document_still_binds() {
    let mut repository = Repository::new();
    repository.publish(&TOP);
    let floors = |timestamp, snapshot| {
        let version = |number| Version::new(number).unwrap();
        BTreeMap::from([
            (RoleName::timestamp(), version(timestamp)),
            (RoleName::snapshot(), version(snapshot)),
        ])
    };
    let root = repository.newest("root");
    for (timestamp, snapshot, is_good) in [(2, 2, true), (3, 2, false), (2, 3, false), (1, 1, true)]
    {
        let kept =
            Kept { root: root.clone(), floors: floors(timestamp, snapshot), ..Kept::default() };
        let outcome = Device::new(&kept).refresh(&mut repository);
        assert_eq!(outcome.is_ok(), is_good, "{timestamp} {snapshot}");
    }
}

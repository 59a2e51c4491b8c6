//! New keys: of the root itself, and of the roles below it.

use serde_json::json;
use sutler_protocol::manifest::{Keep, Kept, Refresh, RoleName, Trusted, Version};

use crate::repository::{Device, Repository, SigningKey, now, said, sign};

const TOP: [&str; 3] = ["targets", "snapshot", "timestamp"];

/// The keys a root lists, how many have to sign, and who does.
struct Step(&'static [usize], u64, &'static [usize]);

/// Publishes these roots one after the other, from the first on.
fn rotate(steps: &[Step]) -> Repository {
    let keys: Vec<SigningKey> = (0..10).map(|_| SigningKey::ed25519()).collect();
    let mut repository = Repository::new();
    repository.published.remove("root");
    for (position, Step(listed, threshold, signers)) in steps.iter().enumerate() {
        for key in &keys {
            repository["root"]["keys"][key.id()] = key.public();
        }
        let ids: Vec<String> = listed.iter().map(|index| keys[*index].id()).collect();
        repository["root"]["version"] = json!(position + 1);
        repository["root"]["roles"]["root"] = json!({ "keyids": ids, "threshold": threshold });
        let message = sutler_protocol::manifest::json::canonical(&repository["root"]).unwrap();
        let signatures: Vec<_> = signers
            .iter()
            .map(|index| &keys[*index])
            .map(|key| json!({ "keyid": key.id(), "sig": key.sign(&message) }))
            .collect();
        let root = json!({ "signatures": signatures, "signed": repository["root"] });
        let bytes = serde_json::to_vec(&root).unwrap();
        repository.publish_bytes("root", position as u64 + 1, bytes.into());
    }
    repository
}

// T11
#[test]
fn a_root_is_believed_if_the_one_before_and_it_itself_vouch_for_it() {
    let five: &[usize] = &[0, 1, 2, 3, 4];
    let good: [&[Step]; 8] = [
        &[Step(&[1], 1, &[1]), Step(&[2], 1, &[2, 1]), Step(&[2], 1, &[2])],
        &[Step(&[1], 1, &[3, 1, 4]), Step(&[2], 1, &[3, 2, 1, 4]), Step(&[2], 1, &[3, 2, 4])],
        &[Step(five, 3, &[0, 2, 4]), Step(five, 3, &[0, 4, 1]), Step(five, 3, &[0, 1, 3])],
        &[Step(five, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 4, 1])],
        &[
            Step(five, 3, &[0, 2, 4]),
            Step(&[5, 6, 7, 8, 9], 3, &[0, 2, 4, 5, 6, 7]),
            Step(&[5, 6, 7, 8, 9], 3, &[5, 6, 7]),
        ],
        &[Step(&[1, 2, 3], 1, &[1]), Step(&[1, 2, 3], 2, &[1, 2])],
        &[Step(&[1, 2, 3], 2, &[1, 2]), Step(&[1, 2, 3], 1, &[1, 2]), Step(&[1, 2], 1, &[1])],
        &[Step(&[1], 1, &[1]), Step(&[1, 2], 2, &[1, 2])],
    ];
    for steps in good {
        let mut repository = rotate(steps);
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        assert_eq!(device.versions()[0], steps.len() as u64);
        assert_eq!(device.disk.files["root"], repository.newest("root"));
    }
    let bad: [&[Step]; 6] = [
        // Not by the old keys.
        &[Step(&[1], 1, &[1]), Step(&[2], 1, &[2, 3, 4])],
        &[Step(five, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 4, 5])],
        &[Step(&[1, 2, 3], 2, &[1, 2]), Step(&[1, 2, 3], 1, &[1])],
        // Not by the new ones.
        &[Step(&[1], 1, &[1]), Step(&[2], 1, &[1, 3, 4])],
        &[Step(five, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 2, 4])],
        &[Step(&[1, 2, 3], 1, &[1]), Step(&[1, 2, 3], 2, &[2])],
    ];
    for steps in bad {
        let mut repository = rotate(steps);
        let mut device = Device::new(&repository.first_root());
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("of its role's keys have signed it"), "{error}");
        assert_eq!(device.versions(), [1, 0, 0, 0]);
    }
}

// T11
#[test]
fn roots_go_up_one_by_one_and_none_is_left_out() {
    let mut repository = Repository::new();
    for _ in 0..4 {
        repository.publish(&["root"]);
    }
    repository.places.remove("3.root.json");
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions()[0], 2);

    // The one after the next in the place of the next.
    let later = repository.published["root"][3].clone();
    repository.places.insert("3.root.json".into(), later);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("its field version is 4 instead of 3"), "{error}");
    let same = repository.published["root"][1].clone();
    repository.places.insert("3.root.json".into(), same);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("its field version is 2 instead of 3"), "{error}");
}

#[test]
fn one_refresh_goes_through_256_roots_and_the_next_goes_on() {
    let mut repository = Repository::new();
    for _ in 0..300 {
        repository.publish(&["root"]);
    }
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [257, 1, 1, 1]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [301, 1, 1, 1]);
}

#[test]
fn new_keys_of_a_role_are_the_ones_that_count() {
    for role in TOP {
        let mut repository = Repository::new();
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        let old = repository.signers.remove(role).unwrap();
        repository.rotate(role);
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        device.refresh(&mut repository).unwrap();
        assert_eq!(device.versions(), [2, 2, 2, 2]);

        // Signed by the old key, which somebody has stolen.
        repository.publish(&TOP);
        let version = repository[role]["version"].as_u64().unwrap();
        let stolen = sign(&repository[role], &old);
        repository.publish_bytes(role, version, stolen);
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("verify it: 0 of its role's keys"), "{role}: {error}");
    }
}

#[test]
fn a_timestamp_that_a_thief_drove_up_comes_down_with_new_keys() {
    let mut repository = Repository::new();
    repository["timestamp"]["version"] = json!(99_999);
    repository.publish_as_is("timestamp");
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions()[1], 99_999);

    repository.rotate("timestamp");
    repository["timestamp"]["version"] = json!(1);
    repository.publish_as_is("timestamp");
    device.refresh(&mut repository).unwrap_err();
    repository.publish(&["root"]);
    let mut device = device.restart();
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [2, 1, 1, 1]);
    assert_eq!(device.restart().versions(), [2, 1, 1, 1]);
}

#[test]
fn a_snapshot_that_a_thief_drove_up_comes_down_with_new_keys() {
    let mut repository = Repository::new();
    repository["snapshot"]["version"] = json!(99_999);
    repository.publish_as_is("snapshot");
    repository.publish(&["timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions()[2], 99_999);

    repository.rotate("snapshot");
    repository.rotate("timestamp");
    repository["snapshot"]["version"] = json!(1);
    repository.publish_as_is("snapshot");
    repository.publish(&["timestamp", "root"]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [2, 3, 1, 1]);
}

#[test]
fn targets_that_a_thief_drove_up_come_down_with_new_keys_of_the_snapshot() {
    let mut repository = Repository::new();
    repository["targets"]["version"] = json!(99_999);
    repository.publish_as_is("targets");
    repository.publish(&["snapshot", "timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();

    repository["targets"]["version"] = json!(2);
    repository.publish_as_is("targets");
    repository.rotate("snapshot");
    repository.publish(&["snapshot", "timestamp", "root"]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [2, 3, 3, 2]);
}

#[test]
fn a_key_that_is_only_added_lets_nobody_go_back() {
    let mut repository = Repository::new();
    repository.publish(&["timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    repository.add_key("timestamp", SigningKey::ed25519());
    repository.publish(&["root"]);
    let old = repository.published["timestamp"][0].clone();
    repository.places.insert("timestamp.json".into(), old);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("and 2 was believed before"), "{error}");
}

#[test]
fn what_is_forgotten_is_said_before_anything_more_is_fetched() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    repository.rotate("timestamp");
    repository.publish(&["root"]);

    // A crash after the new root was kept, and before the old timestamp was forgotten.
    let kept = Kept {
        root: repository.newest("root"),
        timestamp: device.disk.files.get("timestamp").cloned(),
        snapshot: device.disk.files.get("snapshot").cloned(),
        ..Kept::default()
    };
    let mut trusted = Trusted::load(&kept).unwrap();
    assert!(trusted.timestamp().is_none() && trusted.snapshot().is_some());
    let mut refresh = Refresh::new(&mut trusted, now());
    assert_eq!(refresh.poll_keep(), Some(Keep::Forget { role: RoleName::timestamp() }));
    assert_eq!(refresh.poll_keep(), None);
}

#[test]
fn the_version_of_a_lost_document_binds_until_its_keys_are_new() {
    let mut repository = Repository::new();
    let floors = [(RoleName::timestamp(), Version::new(7).unwrap())].into();
    let kept = Kept { root: repository.newest("root"), floors, ..Kept::default() };
    let mut device = Device::new(&kept);
    device.refresh(&mut repository).unwrap_err();
    repository.rotate("timestamp");
    repository.publish(&["root", "timestamp"]);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [2, 2, 1, 1]);
}

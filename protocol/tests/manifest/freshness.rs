//! What expires, and when that matters.

use serde_json::json;

use crate::repository::{Device, Repository, days, in_days, now, said};

const TOP: [&str; 3] = ["targets", "snapshot", "timestamp"];

fn refreshed(repository: &mut Repository) -> Device {
    let mut device = Device::new(&repository.first_root());
    device.refresh(repository).unwrap();
    device
}

// T3
#[test]
fn a_frozen_manifest_brings_nothing_new_once_its_timestamp_expired() {
    let mut repository = Repository::new();
    repository["timestamp"]["expires"] = in_days(7);
    repository.publish(&["timestamp"]);
    let mut device = refreshed(&mut repository);
    device.now = now() + days(7) - jiff::SignedDuration::from_secs(1);
    device.refresh(&mut repository).unwrap();

    device.now = now() + days(8);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("timestamp: it expired at 2026-11-30T09:00:00Z"), "{error}");
    device.find("a", &mut repository).unwrap_err();
    // What was believed is still there, for those who serve it.
    assert_eq!(device.versions(), [1, 2, 1, 1]);
}

#[test]
fn an_expired_document_is_not_kept() {
    for (role, versions) in
        [("timestamp", [1, 1, 1, 1]), ("snapshot", [1, 2, 1, 1]), ("targets", [1, 2, 2, 1])]
    {
        let mut repository = Repository::new();
        let mut device = refreshed(&mut repository);
        repository[role]["expires"] = in_days(-5);
        repository.publish(&TOP);
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains(&format!("{role}: it expired at 2026-11-18")), "{error}");
        assert_eq!(device.versions(), versions);
        assert_eq!(device.restart().versions(), versions);
    }
}

#[test]
fn an_expired_root_is_kept_and_nothing_after_it_is_asked_for() {
    let mut repository = Repository::new();
    let mut device = refreshed(&mut repository);
    repository["root"]["expires"] = in_days(-1);
    repository.publish(&["root", "timestamp"]);
    repository.asked.clear();
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("root: it expired at"), "{error}");
    assert_eq!(repository.asked, ["2.root.json", "3.root.json"]);
    assert_eq!(device.restart().versions(), [2, 1, 1, 1]);
}

#[test]
fn an_expired_root_on_the_way_to_a_good_one_does_no_harm() {
    let mut repository = Repository::new();
    repository["root"]["expires"] = in_days(-1);
    repository.publish(&["root"]);
    repository["root"]["expires"] = in_days(1);
    repository.publish(&["root"]);
    assert_eq!(refreshed(&mut repository).versions(), [3, 1, 1, 1]);
}

#[test]
fn a_device_that_was_off_for_long_comes_back_by_what_is_new() {
    let mut repository = Repository::new();
    repository["timestamp"]["expires"] = in_days(7);
    repository["snapshot"]["expires"] = in_days(7);
    repository["targets"]["expires"] = in_days(7);
    repository.publish(&TOP);
    let device = refreshed(&mut repository);
    for role in ["root", "targets", "snapshot", "timestamp"] {
        repository[role]["expires"] = in_days(400);
    }
    repository.publish(&["root"]);
    repository.publish(&TOP);
    let mut device = device.restart();
    device.now = now() + days(300);
    device.refresh(&mut repository).unwrap();
    assert_eq!(device.versions(), [2, 3, 3, 3]);

    // Expired or not, what was believed tells a replay of something older.
    for role in TOP {
        let old = repository.published[role][1].clone();
        repository.places.insert(format!("{role}.json"), old);
    }
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("its field version is 2, and 3 was believed"), "{error}");
}

#[test]
fn expired_targets_that_are_here_are_asked_for_again_and_refused() {
    let mut repository = Repository::new();
    repository["targets"]["expires"] = in_days(7);
    repository.publish(&TOP);
    let mut device = refreshed(&mut repository);
    repository["timestamp"]["expires"] = in_days(90);
    repository["snapshot"]["expires"] = in_days(90);
    repository.publish(&["snapshot", "timestamp"]);
    device.now = now() + days(18);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("targets: it expired"), "{error}");
    repository["targets"]["expires"] = in_days(90);
    repository.publish(&TOP);
    device.refresh(&mut repository).unwrap();
}

#[test]
fn the_time_of_a_refresh_is_the_time_it_began() {
    // A root with the last seconds of its life is enough for all of it.
    let mut repository = Repository::new();
    repository["root"]["expires"] = json!("2026-11-23T09:00:01Z");
    repository.publish(&["root"]);
    refreshed(&mut repository);
    repository["root"]["expires"] = json!("2026-11-23T09:00:00Z");
    repository.publish(&["root"]);
    Device::new(&repository.first_root()).refresh(&mut repository).unwrap_err();
}

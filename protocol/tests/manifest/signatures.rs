//! Whose signature counts, and how many.

use serde_json::json;

use crate::repository::{Device, Repository, SigningKey, edit, said};

fn refreshed(repository: &mut Repository) -> Device {
    let mut device = Device::new(&repository.first_root());
    device.refresh(repository).unwrap();
    device
}

#[test]
fn keys_of_the_three_kinds_of_the_specification_count() {
    for key in [SigningKey::ed25519(), SigningKey::ecdsa(), SigningKey::rsa()] {
        let mut repository = Repository::new();
        let id = key.id();
        repository.add_key("root", key);
        repository["root"]["roles"]["root"]["threshold"] = json!(2);
        repository.publish(&["root"]);
        let mut device = refreshed(&mut repository);
        assert_eq!(device.versions()[0], 2);

        // The same with one bit of that key's signature changed: refused.
        repository.publish(&["root"]);
        let wrong = edit(&repository.newest("root"), |document| {
            let signatures = document["signatures"].as_array_mut().unwrap();
            let signature = signatures.iter_mut().find(|one| one["keyid"] == id).unwrap();
            let sig = signature["sig"].as_str().unwrap();
            let last = if sig.ends_with('0') { '1' } else { '0' };
            signature["sig"] = json!(format!("{}{last}", &sig[..sig.len() - 1]));
        });
        repository.publish_bytes("root", 3, wrong);
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("1 of its role's keys have signed it, and 2"), "{error}");
        assert_eq!(device.versions()[0], 2);
    }
}

#[test]
fn the_older_name_of_an_ecdsa_key_is_known() {
    let mut repository = Repository::new();
    let key = SigningKey::ecdsa();
    let id = key.id();
    repository.rotate("timestamp");
    repository.signers.insert("timestamp".into(), vec![key]);
    let public = repository.signers["timestamp"][0].public();
    repository["root"]["keys"][&id] = public;
    repository["root"]["keys"][&id]["keytype"] = json!("ecdsa-sha2-nistp256");
    repository["root"]["roles"]["timestamp"]["keyids"] = json!([id]);
    repository.publish(&["root", "timestamp"]);
    refreshed(&mut repository);
}

#[test]
fn a_threshold_that_is_not_met_is_refused() {
    let mut repository = Repository::new();
    for _ in 0..2 {
        repository.add_key("snapshot", SigningKey::ed25519());
    }
    repository["root"]["roles"]["snapshot"]["threshold"] = json!(3);
    repository.publish(&["root", "snapshot", "timestamp"]);
    let mut device = refreshed(&mut repository);
    assert_eq!(device.versions(), [2, 2, 2, 1]);

    repository.signers.get_mut("snapshot").unwrap().pop();
    repository.publish(&["snapshot", "timestamp"]);
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("refuse the manifest's snapshot: verify it: 2 of"), "{error}");
    assert_eq!(device.versions(), [2, 3, 2, 1]);
}

#[test]
fn more_keys_than_there_are_can_never_sign() {
    let mut repository = Repository::new();
    repository["root"]["roles"]["targets"]["threshold"] = json!(2);
    repository.publish(&["root"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap_err();
    assert_eq!(device.versions(), [2, 1, 1, 0]);
}

#[test]
fn one_key_under_two_ids_counts_once() {
    for key in [SigningKey::ed25519(), SigningKey::ecdsa(), SigningKey::rsa()] {
        let mut repository = Repository::new();
        let public = key.public_otherwise();
        repository.add_key("timestamp", key);
        repository["root"]["keys"]["another"] = public;
        let timestamp = &mut repository["root"]["roles"]["timestamp"];
        timestamp["threshold"] = json!(3);
        timestamp["keyids"].as_array_mut().unwrap().push(json!("another"));
        repository.publish(&["root", "timestamp"]);
        let twice = edit(&repository.newest("timestamp"), |document| {
            let mut copy = document["signatures"][1].clone();
            copy["keyid"] = json!("another");
            document["signatures"].as_array_mut().unwrap().push(copy);
        });
        repository.publish_bytes("timestamp", 2, twice);
        let mut device = Device::new(&repository.first_root());
        let error = device.refresh(&mut repository).unwrap_err();
        assert!(said(&error).contains("2 of its role's keys have signed it, and 3"), "{error}");

        // It is a key all right: alone it is enough.
        let timestamp = &mut repository["root"]["roles"]["timestamp"];
        timestamp["threshold"] = json!(1);
        timestamp["keyids"] = json!(["another"]);
        repository.publish(&["root"]);
        Device::new(&repository.first_root()).refresh(&mut repository).unwrap();
    }
}

#[test]
fn one_id_listed_many_times_counts_once() {
    let mut repository = Repository::new();
    let snapshot = &mut repository["root"]["roles"]["snapshot"];
    let id = snapshot["keyids"][0].clone();
    snapshot["keyids"] = json!(vec![id; 9]);
    snapshot["threshold"] = json!(2);
    repository.publish(&["root", "snapshot", "timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap_err();
    assert_eq!(device.versions()[2], 0);
}

#[test]
fn two_signatures_of_one_id_are_refused_however_good() {
    let mut repository = Repository::new();
    let twice = edit(&repository.newest("snapshot"), |document| {
        let copy = document["signatures"][0].clone();
        document["signatures"].as_array_mut().unwrap().push(copy);
    });
    repository.publish_bytes("snapshot", 1, twice);
    let mut device = Device::new(&repository.first_root());
    let error = device.refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("its field signatures has the key id"), "{error}");
    assert_eq!(device.versions(), [1, 1, 0, 0]);
}

#[test]
fn wrong_empty_and_foreign_signatures_beside_good_ones_do_no_harm() {
    let mut repository = Repository::new();
    repository.add_key("timestamp", SigningKey::ed25519());
    repository.add_key("timestamp", SigningKey::ecdsa());
    repository.add_key("timestamp", SigningKey::ed25519());
    repository.publish(&["root", "timestamp"]);
    let noisy = edit(&repository.newest("timestamp"), |document| {
        let signatures = document["signatures"].as_array_mut().unwrap();
        signatures[0]["sig"] = json!("");
        signatures[1]["sig"] = json!("no hex");
        signatures[2]["sig"] = json!("00".repeat(70));
        signatures.push(json!({ "keyid": "stranger", "sig": "ab", "x-note": 1 }));
    });
    repository.publish_bytes("timestamp", 2, noisy);
    assert_eq!(refreshed(&mut repository).versions()[1], 2);
}

#[test]
fn keys_of_unknown_kinds_stand_in_a_document_and_never_count() {
    let mut repository = Repository::new();
    let strange = [
        json!({ "keytype": "sigstore-oidc", "scheme": "Fulcio", "keyval": { "identity": "a@b", "issuer": "c" } }),
        json!({ "keytype": "ed25519", "scheme": "ed448", "keyval": { "public": "ab" } }),
        json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": "ab" } }),
        json!({ "keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": { "public": "no PEM" } }),
        json!({ "keytype": "ml-dsa", "scheme": "ml-dsa-65", "keyval": { "public": "ab" } }),
    ];
    for (position, key) in strange.into_iter().enumerate() {
        let id = format!("strange-{position}");
        repository["root"]["keys"][&id] = key;
        let keyids = &mut repository["root"]["roles"]["timestamp"]["keyids"];
        keyids.as_array_mut().unwrap().push(json!(id));
    }
    repository["root"]["roles"]["timestamp"]["keyids"].as_array_mut().unwrap().push(json!("none"));
    repository.publish(&["root", "timestamp"]);
    let mut device = refreshed(&mut repository);
    assert_eq!(device.versions()[..2], [2, 2]);

    repository["root"]["roles"]["timestamp"]["threshold"] = json!(2);
    repository.publish(&["root", "timestamp"]);
    let noisy = edit(&repository.newest("timestamp"), |document| {
        let signatures = document["signatures"].as_array_mut().unwrap();
        signatures.extend((0..5).map(|n| json!({ "keyid": format!("strange-{n}"), "sig": "ab" })));
    });
    repository.publish_bytes("timestamp", 3, noisy);
    device.refresh(&mut repository).unwrap_err();
}

#[test]
fn an_id_need_not_be_a_hash_of_its_key() {
    let mut repository = Repository::new();
    let id = repository["root"]["roles"]["timestamp"]["keyids"][0].as_str().unwrap().to_owned();
    let key = repository["root"]["keys"][&id].clone();
    repository["root"]["keys"]["laptop"] = key;
    repository["root"]["roles"]["timestamp"]["keyids"] = json!(["laptop"]);
    repository.publish(&["root", "timestamp"]);
    let renamed = edit(&repository.newest("timestamp"), |document| {
        document["signatures"][0]["keyid"] = json!("laptop");
    });
    repository.publish_bytes("timestamp", 2, renamed);
    assert_eq!(refreshed(&mut repository).versions()[1], 2);
}

#[test]
fn a_flood_of_signatures_is_refused_before_any_is_checked() {
    let mut repository = Repository::new();
    let flood = edit(&repository.newest("targets"), |document| {
        let signatures = document["signatures"].as_array_mut().unwrap();
        signatures.extend((0..256).map(|n| json!({ "keyid": n.to_string(), "sig": "00" })));
    });
    repository.publish_bytes("targets", 1, flood);
    repository.publish(&["snapshot", "timestamp"]);
    let error = Device::new(&repository.first_root()).refresh(&mut repository).unwrap_err();
    assert!(said(&error).contains("257 entries, and 256 are allowed"), "{}", said(&error));
}

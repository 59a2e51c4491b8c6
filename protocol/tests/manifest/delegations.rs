//! Who may name which files, and what one broken role does to the others.

use bytes::Bytes;
use serde_json::{Value, json};
use sutler_protocol::manifest::{Check, MismatchError, TargetPath, Trusted};

use crate::repository::{Device, Disk, Repository, SigningKey, days, in_days, now, said, sign};

/// Delegations: from whom, to whom, and how.
type Graph = Vec<(&'static str, &'static str, Value)>;

/// Where every search begins.
const TOP: &str = "targets";

fn any() -> Value {
    json!({ "paths": ["*"] })
}

/// Publishes delegations, each from, to, and how.
fn graph(delegations: &[(&str, &str, Value)]) -> (Repository, Device) {
    let mut repository = Repository::new();
    for (delegator, role, more) in delegations {
        repository.delegate(delegator, role, more);
    }
    publish_all(&mut repository);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    repository.asked.clear();
    (repository, device)
}

fn publish_all(repository: &mut Repository) {
    let roles: Vec<String> = repository.signed.keys().cloned().collect();
    let is_delegated = |role: &&String| !["root", "snapshot", "timestamp"].contains(&role.as_str());
    let roles: Vec<&str> = roles.iter().filter(is_delegated).map(String::as_str).collect();
    repository.publish(&roles);
    repository.publish(&["snapshot", "timestamp"]);
}

/// The roles that were asked for, in order.
fn visited(repository: &mut Repository) -> Vec<String> {
    let asked = std::mem::take(&mut repository.asked);
    let role = |place: &String| place.split('.').nth(1).unwrap().to_owned();
    asked.iter().map(role).collect()
}

#[test]
fn roles_are_looked_into_depth_first_in_the_order_of_their_delegation() {
    let terminating = || json!({ "paths": ["*"], "terminating": true });
    let py = || json!({ "paths": ["*.py"] });
    let graphs: [(Graph, &[&str]); 12] = [
        (vec![(TOP, "A", any())], &["A"]),
        (vec![(TOP, "A", any()), (TOP, "B", any())], &["A", "B"]),
        (vec![(TOP, "A", any()), (TOP, "B", any()), ("B", "C", any())], &["A", "B", "C"]),
        (
            vec![(TOP, "A", any()), (TOP, "B", any()), ("A", "C", any()), ("A", "D", any())],
            &["A", "C", "D", "B"],
        ),
        (
            vec![(TOP, "A", any()), (TOP, "B", any()), ("A", "C", any()), ("C", "D", any())],
            &["A", "C", "D", "B"],
        ),
        (
            vec![
                (TOP, "A", any()),
                (TOP, "B", any()),
                ("A", "C", terminating()),
                ("A", "D", any()),
            ],
            &["A", "C"],
        ),
        (
            vec![
                (TOP, "A", any()),
                (TOP, "B", any()),
                ("A", "C", terminating()),
                ("C", "D", any()),
            ],
            &["A", "C", "D"],
        ),
        (vec![(TOP, "A", py()), (TOP, "B", any()), ("A", "C", any())], &["B"]),
        (
            vec![(TOP, "A", any()), (TOP, "B", any()), ("A", "C", py()), ("C", "D", any())],
            &["A", "B"],
        ),
        // A circle.
        (
            vec![
                (TOP, "A", any()),
                (TOP, "B", any()),
                ("B", "C", any()),
                ("C", "D", any()),
                ("D", "B", any()),
            ],
            &["A", "B", "C", "D"],
        ),
        (vec![(TOP, "B", py()), (TOP, "A", terminating()), (TOP, "C", any())], &["A"]),
        (vec![(TOP, "A", terminating()), (TOP, "B", any()), ("A", "C", any())], &["A", "C"]),
    ];
    for (delegations, expected) in graphs {
        let (mut repository, mut device) = graph(&delegations);
        assert_eq!(device.find("missing", &mut repository).unwrap(), None);
        assert_eq!(visited(&mut repository), expected);
        // What was read is read from the disk after a restart, and nothing is asked for.
        let mut device = device.restart();
        assert_eq!(device.find("missing", &mut repository).unwrap(), None);
        assert!(repository.asked.is_empty());
    }
}

#[test]
fn a_file_is_found_only_where_every_delegation_on_the_way_allows_it() {
    let (mut repository, _) = graph(&[
        ("targets", "A", json!({ "paths": ["*.doc", "*.md"] })),
        ("targets", "B", json!({ "paths": ["releases/*/*"] })),
        ("B", "C", json!({ "paths": ["releases/x/*"] })),
        ("B", "D", json!({ "paths": ["releases/y/*.zip"] })),
    ]);
    repository.add_target("targets", "top", b"top");
    repository.add_target("A", "README.md", b"a");
    repository.add_target("A", "releases/x/stolen", b"not his to name");
    repository.add_target("C", "releases/x/v1", b"c");
    repository.add_target("D", "releases/y/v1.zip", b"d");
    repository.add_target("D", "releases/z/v1.zip", b"z");
    publish_all(&mut repository);
    let cases: [(&str, Option<&str>, &[&str]); 6] = [
        ("top", Some("targets"), &[]),
        ("README.md", Some("A"), &["A"]),
        ("releases/x/v1", Some("C"), &["B", "C"]),
        ("releases/y/v1.zip", Some("D"), &["B", "D"]),
        ("releases/z/v1.zip", None, &["B"]),
        ("releases/x/stolen", None, &["B", "C"]),
    ];
    for (path, role, expected) in cases {
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        repository.asked.clear();
        let found = device.find(path, &mut repository).unwrap();
        assert_eq!(found.map(|found| found.role.to_string()).as_deref(), role, "{path}");
        assert_eq!(visited(&mut repository), expected, "{path}");
    }
}

#[test]
fn the_first_role_that_names_a_file_decides_which_bytes_it_is() {
    let (mut repository, mut device) =
        graph(&[("targets", "first", any()), ("targets", "second", any())]);
    repository.add_target("first", "f", b"first");
    repository.add_target("second", "f", b"second");
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    let found = device.find("f", &mut repository).unwrap().unwrap();
    assert_eq!((found.role.as_str(), found.file.length), ("first", 5));
    assert_eq!(found.file.hashes.check(b"first"), Ok(()));
}

// T22
#[test]
fn one_broken_role_stops_only_the_searches_that_lead_through_it() {
    type Break = fn(&mut Repository);
    let breaks: [(&str, Break); 7] = [
        ("absent", |repository| drop(repository.places.remove("2.broken.json"))),
        ("no JSON", |repository| {
            repository.places.insert("2.broken.json".into(), Bytes::from_static(b"<html>"));
        }),
        ("unsigned", |repository| {
            let bytes = sign(&repository["broken"], &[SigningKey::ed25519()]);
            repository.places.insert("2.broken.json".into(), bytes);
        }),
        ("expired", |repository| {
            repository["broken"]["expires"] = in_days(-1);
            repository.publish(&["broken", "snapshot", "timestamp"]);
        }),
        ("not pinned", |repository| {
            // A new snapshot of a device that has none: there is nothing that it could forget.
            repository["snapshot"]["meta"].as_object_mut().unwrap().remove("broken.json");
            repository.publish(&["snapshot", "timestamp"]);
        }),
        ("endless", |repository| {
            let bytes = vec![b' '; 4 * 1024 * 1024 + 2];
            repository.places.insert("2.broken.json".into(), bytes.into());
        }),
        ("against the rules", |repository| {
            let role = json!({ "name": "x", "keyids": [], "threshold": 1, "terminating": false });
            repository["broken"]["delegations"] = json!({ "keys": {}, "roles": [role] });
            repository.publish(&["broken", "snapshot", "timestamp"]);
        }),
    ];
    for (what, do_break) in breaks {
        let (mut repository, _) = graph(&[
            ("targets", "broken", json!({ "paths": ["broken/*", "both/*"] })),
            ("targets", "good", json!({ "paths": ["good/*", "both/*"] })),
        ]);
        repository.add_target("good", "good/f", b"f");
        repository.add_target("good", "both/f", b"f");
        publish_all(&mut repository);
        for place in ["2.broken.json", "3.broken.json"] {
            repository.places.entry(place.into()).or_default();
        }
        do_break(&mut repository);
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        for _ in 0..2 {
            assert!(device.find("good/f", &mut repository).unwrap().is_some(), "{what}");
            let error = device.find("broken/f", &mut repository).unwrap_err();
            assert!(said(&error).starts_with("refuse the manifest's broken: "), "{what}: {error}");
            // Who can block a role does not thereby choose another one to answer for it.
            device.find("both/f", &mut repository).unwrap_err();
            device.refresh(&mut repository).unwrap();
        }
        assert!(!device.disk.files.contains_key("broken"), "{what}");
    }
}

#[test]
fn a_role_is_believed_by_the_delegation_that_led_to_it() {
    // Two delegations to a role of the same name, with different keys.
    let (mut repository, mut device) = graph(&[
        ("targets", "left", json!({ "paths": ["left/*"] })),
        ("targets", "right", json!({ "paths": ["right/*"] })),
        ("left", "shared", any_of("left")),
        ("right", "shared", any_of("right")),
    ]);
    repository.add_target("shared", "left/f", b"f");
    repository.add_target("shared", "right/f", b"f");
    publish_all(&mut repository);
    // Both keys have signed it: both ways are good.
    device.refresh(&mut repository).unwrap();
    assert!(device.find("left/f", &mut repository).unwrap().is_some());
    assert!(device.find("right/f", &mut repository).unwrap().is_some());

    // Only the left one has: what was believed by way of the left is not by way of the right.
    repository.signers.get_mut("shared").unwrap().truncate(1);
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    assert!(device.find("left/f", &mut repository).unwrap().is_some());
    let error = device.find("right/f", &mut repository).unwrap_err();
    assert!(said(&error).contains("shared: verify it: 0 of its role's keys"), "{error}");
    let mut device = device.restart();
    device.find("right/f", &mut repository).unwrap_err();
    assert!(device.find("left/f", &mut repository).unwrap().is_some());
}

fn any_of(folder: &str) -> Value {
    json!({ "paths": [format!("{folder}/*")] })
}

#[test]
fn a_delegation_has_its_own_threshold() {
    let (mut repository, mut device) = graph(&[("targets", "two", any())]);
    let second = SigningKey::ed25519();
    let delegations = &mut repository["targets"]["delegations"];
    delegations["keys"][second.id()] = second.public();
    let delegation = &mut delegations["roles"][0];
    delegation["threshold"] = json!(2);
    delegation["keyids"].as_array_mut().unwrap().push(json!(second.id()));
    repository.add_target("two", "f", b"f");
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    let error = device.find("f", &mut repository).unwrap_err();
    assert!(said(&error).contains("1 of its role's keys have signed it, and 2"), "{error}");

    repository.signers.get_mut("two").unwrap().push(second);
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    assert!(device.find("f", &mut repository).unwrap().is_some());
}

#[test]
fn a_delegated_role_that_has_expired_is_fetched_anew() {
    let (mut repository, _) = graph(&[("targets", "a", any())]);
    for role in ["root", "targets", "snapshot", "timestamp"] {
        repository[role]["expires"] = in_days(90);
    }
    repository["a"]["expires"] = in_days(7);
    repository.add_target("a", "f", b"f");
    repository.publish(&["root"]);
    publish_all(&mut repository);
    let mut device = Device::new(&repository.first_root());
    device.refresh(&mut repository).unwrap();
    assert!(device.find("f", &mut repository).unwrap().is_some());

    device.now = now() + days(18);
    device.refresh(&mut repository).unwrap();
    let error = device.find("f", &mut repository).unwrap_err();
    assert!(said(&error).contains("refuse the manifest's a: it expired"), "{error}");
    repository["a"]["expires"] = in_days(21);
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    assert!(device.find("f", &mut repository).unwrap().is_some());
}

#[test]
fn a_kept_role_that_is_not_the_pinned_one_is_fetched() {
    let (mut repository, mut device) = graph(&[("targets", "a", any())]);
    repository.add_target("a", "f", b"f");
    repository.pins_bytes = true;
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    for kept in [
        repository.published["a"][0].clone(),
        Bytes::from_static(b"torn"),
        Bytes::new(),
        repository.newest("targets"),
    ] {
        let mut device =
            Device { disk: Disk::default(), now: device.now, trusted: device.trusted.clone() };
        device.disk.files.insert("a".into(), kept);
        assert!(device.find("f", &mut repository).unwrap().is_some());
        assert_eq!(device.disk.files["a"], repository.newest("a"));
    }
}

#[test]
fn roles_of_unusual_names_are_asked_for_in_quotes() {
    for (name, place) in [
        ("?", "1.%3F.json"),
        ("#", "1.%23.json"),
        ("/delegated", "1.%2Fdelegated.json"),
        ("../delegated", "1...%2Fdelegated.json"),
        ("..", "1....json"),
        ("a b", "1.a%20b.json"),
        ("50%", "1.50%25.json"),
    ] {
        let (mut repository, mut device) = graph(&[("targets", name, any())]);
        assert_eq!(device.find("f", &mut repository).unwrap(), None);
        assert_eq!(repository.asked, [place]);
    }
}

#[test]
fn bins_share_their_keys_and_hold_the_paths_of_their_hashes() {
    for (bits, bin, bins) in [(1, "bin-0", 2_u32), (5, "bin-0a", 32), (8, "bin-55", 256)] {
        let mut repository = Repository::new();
        let key = SigningKey::ed25519();
        repository["targets"]["delegations"] = json!({
            "keys": { key.id(): key.public() },
            "succinct_roles": {
                "keyids": [key.id()], "threshold": 1, "bit_length": bits, "name_prefix": "bin",
            },
        });
        let width = bin.len() - 4;
        repository.signers.insert(bin.into(), vec![key]);
        for number in 0..bins {
            let name = format!("bin-{number:0width$x}");
            repository["snapshot"]["meta"][format!("{name}.json")] = json!({ "version": 1 });
        }
        repository.add_role(bin);
        repository.add_target(bin, "file1.txt", b"f");
        repository.publish(&[bin, "targets", "snapshot", "timestamp"]);
        let mut device = Device::new(&repository.first_root());
        device.refresh(&mut repository).unwrap();
        repository.asked.clear();
        let found = device.find("file1.txt", &mut repository).unwrap().unwrap();
        assert_eq!(found.role.as_str(), bin);
        assert_eq!(visited(&mut repository), [bin]);
    }
}

#[test]
fn a_search_looks_into_32_delegated_roles_and_no_more() {
    let names: Vec<String> = (0..40).map(|number| format!("role-{number:02}")).collect();
    let chain: Vec<_> = std::iter::once("targets")
        .chain(names.iter().map(String::as_str))
        .zip(&names)
        .map(|(delegator, role)| (delegator, role.as_str(), any()))
        .collect();
    let (mut repository, mut device) = graph(&chain);
    repository.add_target("role-31", "near", b"f");
    repository.add_target("role-32", "far", b"f");
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    assert!(device.find("near", &mut repository).unwrap().is_some());
    let error = device.find("far", &mut repository).unwrap_err();
    assert!(said(&error).contains("role-32: the search came through 32"), "{error}");
}

#[test]
fn a_search_wants_a_manifest_that_was_refreshed() {
    let mut repository = Repository::new();
    let mut device = Device::new(&repository.first_root());
    let error = device.find("f", &mut repository).unwrap_err();
    assert!(said(&error).contains("refuse the manifest's timestamp"), "{error}");
    device.refresh(&mut repository).unwrap();
    device.now = now() + days(31);
    device.find("f", &mut repository).unwrap_err();
}

#[test]
fn a_target_file_lies_behind_its_digest_and_is_checked_as_it_comes() {
    let (mut repository, mut device) = graph(&[]);
    repository.add_target("targets", "a/b c.deb", b"content");
    publish_all(&mut repository);
    device.refresh(&mut repository).unwrap();
    let found = device.find("a/b c.deb", &mut repository).unwrap().unwrap();
    let sha256 = repository["targets"]["targets"]["a/b c.deb"]["hashes"]["sha256"].as_str();
    let place = format!("a/{}.b%20c.deb", sha256.unwrap());
    assert_eq!(Trusted::place_of(&device.trusted, &found), place);
    assert_eq!(found.path, TargetPath::from("a/b c.deb"));

    let mut check = Check::new(found.file.length, &found.file.hashes).unwrap();
    check.update(b"cont").unwrap();
    let mut longer = check.clone();
    check.update(b"ent").unwrap();
    assert_eq!(check.finish(), Ok(()));
    longer.update(b"enT").unwrap();
    assert!(longer.clone().finish().is_err());
    assert_eq!(longer.update(b"x"), Err(MismatchError::TooLong { bytes_max: 7 }));
}

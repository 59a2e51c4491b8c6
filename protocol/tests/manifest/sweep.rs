//! Every role read at one time: what is found then is what a search finds.

use proptest::prelude::*;
use serde_json::json;
use sutler_protocol::manifest::{Fault, RoleName, TargetPath};

use crate::repository::{Device, Repository, in_days, said, sign};

fn path(text: &str) -> TargetPath {
    TargetPath::from(text)
}

/// Publishes what was signed, every role of it.
fn publish(repository: &mut Repository) -> Device {
    let roles: Vec<String> = repository.signed.keys().cloned().collect();
    let top = ["root", "snapshot", "timestamp"];
    let roles: Vec<&str> =
        roles.iter().map(String::as_str).filter(|role| !top.contains(role)).collect();
    repository.publish(&roles);
    repository.publish(&["snapshot", "timestamp"]);
    let mut device = Device::new(&repository.first_root());
    device.refresh(repository).unwrap();
    device
}

#[test]
fn every_role_is_read_once_and_kept_for_the_next_start() {
    let mut repository = Repository::new();
    repository.delegate("targets", "a", &json!({ "paths": ["a/*"] }));
    repository.delegate("a", "deep", &json!({ "paths": ["a/*"] }));
    repository.delegate("targets", "b", &json!({ "paths": ["b/*"] }));
    repository.add_target("deep", "a/1", b"one");
    repository.add_target("b", "b/2", b"two");
    repository.add_target("b", "a/3", b"not its own");
    let mut device = publish(&mut repository);
    let roles = device.sweep(&mut repository).unwrap();
    assert_eq!(roles.paths(), [path("a/1"), path("a/3"), path("b/2")].into());
    assert_eq!(roles.find(&path("a/1")).unwrap().unwrap().role.as_str(), "deep");
    // R16: a delegate that names files outside its own paths is not heard.
    assert!(roles.find(&path("a/3")).unwrap().is_none());
    assert!(roles.find(&path("nobody")).unwrap().is_none());

    repository.asked.clear();
    let mut device = device.restart();
    let again = device.sweep(&mut repository).unwrap();
    assert_eq!(again.paths(), roles.paths());
    assert!(repository.asked.is_empty(), "{:?}", repository.asked);
}

// T22
#[test]
fn a_broken_role_is_told_and_the_others_are_read() {
    let mut repository = Repository::new();
    for role in ["broken", "expired", "late", "good"] {
        repository.delegate("targets", role, &json!({ "paths": [format!("{role}/*")] }));
        repository.add_target(role, &format!("{role}/1"), b"x");
    }
    repository["expired"]["expires"] = in_days(-1);
    let mut device = publish(&mut repository);
    let forged = sign(&repository["broken"].clone(), &[]);
    let place = repository.places.keys().find(|place| place.ends_with(".broken.json")).unwrap();
    repository.places.insert(place.clone(), forged);
    repository.places.retain(|place, _| !place.ends_with(".late.json"));

    let roles = device.sweep(&mut repository).unwrap();
    let refused: Vec<(&str, &Fault)> =
        roles.refused().map(|(role, fault)| (role.as_str(), fault)).collect();
    assert!(
        matches!(
            refused[..],
            [
                ("broken", Fault::Verify(_)),
                ("expired", Fault::Expired { .. }),
                ("late", Fault::Absent)
            ]
        ),
        "{refused:?}"
    );
    assert!(roles.find(&path("good/1")).unwrap().is_some());
    let error = roles.find(&path("broken/1")).unwrap_err();
    assert!(said(&error).contains("refuse the manifest's broken: verify it"), "{}", said(&error));
}

// T22: a repository that is in somebody's hands, and a delegate who delegates what is not theirs.
#[test]
fn nobody_further_down_takes_the_name_of_a_role_that_the_targets_delegate() {
    let mut repository = Repository::new();
    repository.delegate("targets", "greedy", &json!({ "paths": ["greedy/*"] }));
    repository.delegate("targets", "content", &json!({ "paths": ["content/*"] }));
    repository.add_target("content", "content/1", b"theirs");
    // A key of the delegate's own for the other's role; its document is what the repository shows.
    repository.delegate("greedy", "content", &json!({ "paths": ["content/*"] }));
    let forged = repository.signers.get_mut("content").unwrap().pop().unwrap();
    let own = std::mem::replace(repository.signers.get_mut("content").unwrap(), vec![forged]);
    let mut device = publish(&mut repository);
    let roles = device.sweep(&mut repository).unwrap();
    let content = RoleName::delegated("content").unwrap();
    assert!(roles.role(&content).is_none());
    assert!(roles.find(&path("content/1")).is_err());

    repository.signers.insert("content".to_owned(), own);
    let mut device = publish(&mut repository);
    let roles = device.sweep(&mut repository).unwrap();
    assert!(roles.role(&content).is_some());
    let targets = roles.targets().delegations.as_ref().unwrap();
    assert!(roles.role_of(&content, &targets.keys_of(&content).unwrap()).is_some());
    let greedy = roles.role(&RoleName::delegated("greedy").unwrap()).unwrap();
    let keys = greedy.delegations.as_ref().unwrap().keys_of(&content).unwrap();
    assert!(roles.role_of(&content, &keys).is_none());
}

#[test]
fn a_role_that_was_delegated_to_and_has_signed_nothing_harms_nobody() {
    let mut repository = Repository::new();
    repository.delegate("targets", "next-month", &json!({ "paths": ["next/*"] }));
    repository.delegate("targets", "good", &json!({ "paths": ["*/*"] }));
    repository.add_target("good", "good/1", b"x");
    repository.signed.remove("next-month");
    let mut device = publish(&mut repository);
    let roles = device.sweep(&mut repository).unwrap();
    assert_eq!(roles.refused().count(), 0);
    assert!(roles.find(&path("good/1")).unwrap().is_some());
    // Who answers for it is not decided by who is absent.
    assert!(roles.find(&path("next/1")).is_err());
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PATHS: [&str; 4] = ["x/1", "x/2", "y/1", "z"];
const PATTERNS: [&str; 5] = ["x/*", "*/1", "y/1", "*", "*/*"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_a_sweep_finds_is_what_a_search_finds(
        delegations in prop::collection::vec(
            (0..5usize, 0..4usize, 0..5usize, any::<bool>()), 0..7),
        targets in prop::collection::vec((0..5usize, 0..4usize), 0..8),
    ) {
        let mut repository = Repository::new();
        let from = |index: usize| NAMES.get(index).copied().unwrap_or("targets");
        let mut delegated = std::collections::BTreeSet::new();
        for (delegator, role, pattern, terminating) in delegations {
            // A role delegates to another once, and none to itself; its first key is everybody's.
            let is_new = from(delegator) != NAMES[role] && delegated.insert(role);
            if !is_new || (from(delegator) != "targets" && !repository.signed.contains_key(from(delegator))) {
                continue;
            }
            let how = json!({ "paths": [PATTERNS[pattern]], "terminating": terminating });
            repository.delegate(from(delegator), NAMES[role], &how);
        }
        for (role, target) in targets {
            if repository.signed.contains_key(from(role)) {
                repository.add_target(from(role), PATHS[target], from(role).as_bytes());
            }
        }
        let mut device = publish(&mut repository);
        let roles = device.sweep(&mut repository).unwrap();
        for text in PATHS {
            let found = device.find(text, &mut repository).unwrap();
            prop_assert_eq!(roles.find(&path(text)).unwrap(), found, "{}", text);
        }
    }
}

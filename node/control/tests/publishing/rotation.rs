//! New keys: of the root, of control, of an approver; what is left when two of three are lost; and what is signed anew.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;
use sutler_control::change::Change;
use sutler_control::draft::{Draft, DraftError, Lack};
use sutler_control::online::{OnlineKeys, publication};
use sutler_control::rotation::{self, RotateError, renew};
use sutler_control::submission::{self, Refused};
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::{Delegation, Kind, RoleName, Version};

use crate::house::{House, in_days, install, key, later, note, now, online_keys, said, signed};

pub(crate) fn publics(seeds: &[u8]) -> Vec<Key> {
    seeds.iter().map(|seed| key(*seed).key().clone()).collect()
}

/// The root's successor with other keys, signed by these.
pub(crate) fn new_root(
    house: &House,
    kind: Kind,
    keys: &[u8],
    threshold: u64,
    signers: &[u8],
) -> Draft {
    let mut root = house.state().root.document().clone();
    root.set_keys(kind, &publics(keys), threshold);
    root.renew(Version::new(root.version().number() + 1).unwrap(), in_days(390));
    let mut draft = Draft::new();
    draft.set_root(signed(&root, signers));
    draft
}

// T11
#[test]
fn root_keys_are_replaced_by_old_and_new_together() {
    let house = House::new(1);
    let mut client = house.client();
    client.refresh(now()).unwrap();
    for (signers, says) in [
        // By the new ones alone, by the old ones alone.
        (&[7, 8][..], "0 of its role's keys have signed it, and 2"),
        (&[1, 2], "0 of its role's keys have signed it, and 2"),
        (&[1, 7, 8], "1 of its role's keys have signed it, and 2"),
    ] {
        let draft = new_root(&house, Kind::Root, &[7, 8, 9], 2, signers);
        let error = house.submit(&draft.submission(), now()).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
    }
    let draft = new_root(&house, Kind::Root, &[7, 8, 9], 2, &[1, 3, 8, 9]);
    house.submit(&draft.submission(), now()).unwrap();
    client.refresh(now()).unwrap();
    assert_eq!(client.trusted.root().version().number(), 2);
    // The old ones are worth nothing now.
    let draft = new_root(&house, Kind::Root, &[1, 2, 3], 2, &[1, 2, 3]);
    assert!(house.submit(&draft.submission(), now()).is_err());
}

// T11
#[test]
fn two_of_three_root_keys_lost_and_the_third_alone_leads_nowhere() {
    let house = House::new(1);
    // Anna's and Ben's keys are gone; Cleo's alone moves neither root nor targets, and neither does a thief's.
    for signers in [&[3][..], &[3, 7, 8]] {
        let draft = new_root(&house, Kind::Root, &[3, 7, 8], 2, signers);
        let error = house.submit(&draft.submission(), now()).unwrap_err();
        assert!(said(&error).contains("1 of its role's keys have signed it, and 2 are needed"));
    }
    // What is delegated goes on: approvals, contents and control's own signatures, until the targets expire.
    let draft = house.approve(install(b"x"), &[4]);
    house.submit(&draft.submission(), now()).unwrap();
    // The way out is a new first root, handed to every device: no device takes it from the repository, since the old
    // one does not vouch for it.
    let mut root = house.state().root.document().clone();
    root.set_keys(Kind::Root, &publics(&[21, 22, 23]), 2);
    let root = signed(&root, &[21, 22]);
    assert!(root.verify_by_itself().is_ok());
    assert!(root.verify(&house.state().root.keys_of(Kind::Root)).is_err());
    // A device that was handed the new one follows the new repository, and one that was not does not.
    let (mut old, handed) = (house.client(), House::founded_by([21, 22, 23]));
    old.refresh(now()).unwrap();
    assert!(old.at(&handed.disk).refresh(later(1)).is_err());
    let about = handed.publish("tool.deb", b"a tool");
    handed.submit(&handed.approve(install(b"a tool"), &[4]).submission(), now()).unwrap();
    let mut new = handed.client();
    new.refresh(now()).unwrap();
    let path = about.path("2026-11");
    assert_eq!(new.download(path.as_str(), now()).unwrap(), b"a tool");
}

// T11
#[test]
fn control_gets_new_keys_and_no_client_is_ever_left_behind() {
    let house = House::new(1);
    let mut before = house.client();
    before.refresh(now()).unwrap();
    let mut draft = new_root(&house, Kind::Timestamp, &[112], 1, &[1, 2]);
    let state = house.state();
    let accepted =
        submission::accept(&state, &house.organisation, &draft.submission(), now()).unwrap();
    // With one of the two keys alone nothing is signed: some client would be left behind.
    for keys in [vec![key(102)], vec![key(112)]] {
        let keys = OnlineKeys { timestamp: keys, ..online_keys() };
        assert!(publication(&state, &accepted, &keys, &Map::new(), now()).is_err());
    }
    let both = OnlineKeys { timestamp: vec![key(102), key(112)], ..online_keys() };
    let new = publication(&state, &accepted, &both, &Map::new(), now()).unwrap();
    // Each prefix of what is written is a repository that both clients accept.
    for (count, prefix) in new.prefixes().into_iter().enumerate() {
        house.repository.write(&prefix).unwrap();
        let mut client = house.client();
        client.refresh(now()).unwrap_or_else(|error| panic!("{count}: {error}"));
        before.refresh(now()).unwrap_or_else(|error| panic!("{count}: {error}"));
    }
    assert_eq!(before.trusted.root().version().number(), 2);
    // And the old key alone signs nothing from then on.
    let nothing = submission::Accepted::default();
    let state = house.state();
    assert!(publication(&state, &nothing, &online_keys(), &Map::new(), now()).is_err());
    let new = OnlineKeys { timestamp: vec![key(112)], ..online_keys() };
    assert!(publication(&state, &nothing, &new, &Map::new(), now()).is_ok());
    assert!(matches!(draft.sign(&key(50), Some(&state)), Err(DraftError::NotASigner { .. })));
}

// T11
#[test]
fn new_targets_keys_need_targets_signed_by_both() {
    let house = House::new(1);
    let alone = new_root(&house, Kind::Targets, &[7, 8], 2, &[1, 2]);
    let error = house.submit(&alone.submission(), now()).unwrap_err();
    assert!(matches!(error, Refused::Orphans), "{error}");
    let mut targets = house.state().targets.document().clone();
    targets.renew(Version::new(2).unwrap(), in_days(180));
    for (signers, is_fine) in [(&[7, 8][..], false), (&[1, 2], false), (&[1, 2, 7, 8], true)] {
        let mut draft = new_root(&house, Kind::Targets, &[7, 8], 2, &[1, 2]);
        draft.set_role(RoleName::targets(), signed(&targets, signers));
        assert_eq!(house.submit(&draft.submission(), now()).is_ok(), is_fine, "{signers:?}");
    }
    house.client().refresh(now()).unwrap();
}

// T10
#[test]
fn an_approver_who_left_signs_nothing_and_the_rest_sign_anew() {
    let house = House::new(1);
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let role = RoleName::delegated("approvals-lab").unwrap();
    let keys = publics(&[5]);
    let paths = vec!["approvals/lab/*".to_owned()];
    let delegation = Delegation::new(role.clone(), &keys, 1, paths);
    let mut draft = house.draft(&[1, 2], |change| {
        change.targets()?.delegate(delegation, &keys);
        Ok(())
    });
    // Alone, it would leave the scope without orders until somebody signs them: every device keeps what it has.
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert!(!state.roles.contains_key(&role));
    assert_eq!(state.unvouched[&role], Version::FIRST);
    let error = house.submit(&house.approve(install(b"y"), &[]).submission(), now()).unwrap_err();
    assert!(said(&error).contains("0 of its role's keys have signed it"));
    draft = house.approve(install(b"y"), &[5]);
    assert!(draft.lacks(Some(&house.state())).iter().all(Lack::is_nothing));
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert_eq!(state.roles[&role].version().number(), 2);
}

// T10
#[test]
fn an_admin_who_was_removed_is_an_admin_no_more() {
    let house = House::new(1);
    let state = house.state();
    let public = |seed| key(seed).key().as_ed25519().unwrap();
    let admins: BTreeSet<_> = state.admin_keys().into_iter().collect();
    assert_eq!(admins, (1..=6).map(public).collect());
    let new = rotation::without(&state, "dora").unwrap();
    let change = Change::new(&state, &house.organisation, note("anna", "remove dora"), now());
    let names = BTreeMap::from([("dora".to_owned(), None)]);
    let mut draft = rotation::rotate(&state, change, &new, &names, now()).unwrap();
    for signer in [1, 2] {
        draft.sign(&key(signer), Some(&state)).unwrap();
    }
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert!(!state.admin_keys().contains(&public(4)) && state.admin_keys().len() == 5);
    assert!(!state.admins().contains_key("dora"));
}

#[test]
fn copies_of_a_draft_that_were_signed_apart_are_merged() {
    let house = House::new(2);
    let state = house.state();
    let proposed = house.approve(install(b"x"), &[]);
    let carried = |signer| {
        let mut copy = Draft::of(&proposed.submission()).unwrap();
        copy.sign(&key(signer), Some(&state)).unwrap();
        copy
    };
    let (mut first, second) = (carried(4), carried(5));
    assert_eq!((first.id(), second.id()), (proposed.id(), proposed.id()));
    assert_eq!(first.lacks(Some(&state))[0].signatures, Some(1));
    first.merge(&second).unwrap();
    assert_eq!(first.lacks(Some(&state))[0].signatures, Some(0));
    assert!(first.merge(&house.approve(install(b"y"), &[4])).is_err());
    house.submit(&first.submission(), now()).unwrap();
}

// R164
#[test]
fn what_expires_is_signed_anew_and_says_the_same() {
    let house = House::new(1);
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let before = house.state();
    let role = RoleName::delegated("approvals-lab").unwrap();
    // Three weeks before the delegated roles and the targets expire.
    let at = later(24 * 160);
    let draft = |roles: &[&str]| {
        let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        let change = Change::new(&before, &house.organisation, note("anna", "renew"), at);
        renew(&before, change, &roles, at)
    };
    let mut all = draft(&["root", "targets", "approvals-lab"]).unwrap();
    for signer in [1, 2, 4] {
        all.sign(&key(signer), Some(&before)).unwrap();
    }
    let after = house.submit(&all.submission(), at).unwrap();
    let mut client = house.client();
    client.refresh(at).unwrap();
    assert_eq!(client.trusted.root().version().number(), 2);
    for (old, new) in [
        (before.root.expires(), after.root.expires()),
        (before.targets.expires(), after.targets.expires()),
        (before.roles[&role].expires(), after.roles[&role].expires()),
    ] {
        assert!(new.instant() > old.instant() + jiff::SignedDuration::from_hours(24 * 100));
    }
    assert_eq!(after.orders, before.orders);
    assert_eq!(after.root.roles, before.root.roles);
    let delegations = |state: &sutler_control::State| state.targets.delegations.clone();
    assert_eq!(delegations(&after), delegations(&before));
    for (role, says) in [("timestamp", "control does"), ("approvals-moon", "no such role")] {
        let error = draft(&[role]).unwrap_err();
        assert!(matches!(error, RotateError::Online { .. } | RotateError::NoRole { .. }));
        assert!(said(&error).contains(says), "{error}");
    }
}

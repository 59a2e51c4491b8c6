//! Whose keys decide for a scope, and what a directorate's document must not say.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sutler_orders::audience::{Audience, Membership};
use sutler_orders::mandate::{Mandates, StaffError, check_staff, directorate, signers, staff};
use sutler_orders::text::DeviceName;
use sutler_orders::{Facts, Rings};
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::{
    Delegation, Expires, RoleName, SigningKey, TargetFile, TargetPath, Targets, Version,
};
use sutler_protocol::name::Label;

fn key(seed: u8) -> Key {
    SigningKey::from_seed(&[seed; 32]).key().clone()
}

fn role(name: &str) -> RoleName {
    RoleName::delegated(name).unwrap()
}

fn scope() -> Label {
    "lab".parse().unwrap()
}

fn document() -> Targets {
    Targets::new(Version::FIRST, Expires::at("2027-01-01T00:00:00Z".parse().unwrap()))
}

fn delegate(document: &mut Targets, name: &str, seed: u8, paths: &[&str], reaches: &Value) {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let mut delegation = Delegation::new(role(name), &[key(seed)], 1, paths);
    if !reaches.is_null() {
        delegation.extra.insert("sutler".to_owned(), reaches.clone());
    }
    document.delegate(delegation, &[key(seed)]);
}

/// Targets that leave the scope `lab`, two sites, to a directorate whose head has key 1.
fn targets() -> Targets {
    let mut targets = document();
    let covers = json!({ "sites": ["cologne", "paris"] });
    delegate(&mut targets, "staff-lab", 1, &["approvals/lab/*", "schedules/lab/*"], &covers);
    targets
}

/// What the directorate says: key 2 approves, key 3 schedules.
fn named() -> Targets {
    let mut named = document();
    delegate(&mut named, "approvals-lab", 2, &["approvals/lab/*"], &json!({}));
    delegate(&mut named, "schedules-lab", 3, &["schedules/lab/*"], &json!({}));
    named
}

fn mandates<'a>(targets: &'a Targets, named: &'a Targets) -> Mandates<'a> {
    Mandates::new(targets, |role, keys| {
        assert!(role.as_str() == "staff-lab" && keys.has(&key(1).id()));
        Some(named)
    })
}

fn facts(site: &str) -> Facts {
    Facts {
        organisation: "acme".parse().unwrap(),
        device: DeviceName { site: site.parse().unwrap(), id: "a".parse().unwrap() },
        os: String::new(),
        version: String::new(),
        architecture: String::new(),
        language: String::new(),
        host_name: String::new(),
        tags: BTreeSet::new(),
        first_ring: None,
    }
}

#[test]
fn a_scope_that_was_left_to_a_directorate_is_signed_for_by_those_whom_it_names() {
    let (targets, named) = (targets(), named());
    let mandates = mandates(&targets, &named);
    for (name, seed) in [("approvals-lab", 2), ("schedules-lab", 3), ("staff-lab", 1)] {
        assert!(mandates.of(&role(name)).unwrap().keys().has(&key(seed).id()), "{name}");
    }
    let delegator = |name| mandates.delegator(&role(name)).unwrap().to_string();
    assert_eq!(delegator("approvals-lab"), "staff-lab");
    assert_eq!(delegator("staff-lab"), "targets");
    let scopes = mandates.scopes();
    assert_eq!(scopes.len(), 1);
    assert_eq!((&scopes[0].0, scopes[0].1.unwrap().role().as_str()), (&scope(), "approvals-lab"));
    assert_eq!(mandates.all().len(), 3);
    assert_eq!(directorate(&staff(&scope())), Some(scope()));
    assert!(directorate(&role("approvals-lab")).is_none());
}

// R16: what a directorate says widens nothing.
#[test]
fn a_directorate_reaches_no_device_that_the_targets_did_not_leave_to_it() {
    let (targets, mut named) = (targets(), named());
    let reached = |named: &Targets, site: &str| {
        let reached = mandates(&targets, named).of(&role("approvals-lab")).unwrap().reaches();
        reached.unwrap().member(&facts(site), None::<&Rings>)
    };
    assert_eq!(reached(&named, "paris"), Membership::In);
    assert_eq!(reached(&named, "rome"), Membership::Out { field: "sites" });
    let wider = json!({ "sites": ["paris", "rome"] });
    delegate(&mut named, "approvals-lab", 2, &["approvals/lab/*"], &wider);
    assert_eq!(reached(&named, "paris"), Membership::In);
    assert_eq!(reached(&named, "rome"), Membership::Out { field: "sites" });
    // It was left that site, and takes it out itself.
    assert_eq!(reached(&named, "cologne"), Membership::Out { field: "sites" });
    // What cannot be told of one is outweighed by a plain no of the other.
    delegate(&mut named, "approvals-lab", 2, &["approvals/lab/*"], &json!({ "ring": "qa" }));
    assert_eq!(reached(&named, "paris"), Membership::Unknown { field: "ring" });
    assert_eq!(reached(&named, "rome"), Membership::Out { field: "sites" });
}

#[test]
fn a_directorate_names_no_path_that_the_targets_did_not_leave_to_it() {
    let (targets, mut named) = (targets(), named());
    delegate(&mut named, "approvals-lab", 2, &["approvals/*/*"], &json!({}));
    let mandates = mandates(&targets, &named);
    let approvals = mandates.of(&role("approvals-lab")).unwrap();
    assert!(approvals.is_for(&TargetPath::from("approvals/lab/approvals.json")));
    assert!(!approvals.is_for(&TargetPath::from("approvals/all/approvals.json")));
}

// T22
#[test]
fn what_a_directorate_delegates_beside_its_scope_counts_for_nothing() {
    let (mut targets, mut named) = (targets(), named());
    delegate(&mut targets, "halts", 9, &["halts/*"], &json!({}));
    for name in ["approvals-all", "sites", "halts", "content-2026-11", "staff-all"] {
        delegate(&mut named, name, 2, &["*/*"], &json!({}));
    }
    let mandates = mandates(&targets, &named);
    for name in ["approvals-all", "sites", "content-2026-11", "staff-all"] {
        assert!(mandates.of(&role(name)).is_none(), "{name}");
    }
    assert!(mandates.of(&role("halts")).unwrap().keys().has(&key(9).id()));
    assert_eq!(mandates.scopes().len(), 1);
}

#[test]
fn a_scope_whose_directorate_is_not_believed_is_known_and_nobody_signs_for_it() {
    let targets = targets();
    let mandates = Mandates::new(&targets, |_, _| None);
    assert!(mandates.of(&role("approvals-lab")).is_none());
    assert!(matches!(&mandates.scopes()[..], [(lab, None)] if *lab == scope()));
}

#[test]
fn what_the_targets_delegate_themselves_goes_first() {
    let (mut targets, named) = (targets(), named());
    delegate(&mut targets, "approvals-lab", 7, &["approvals/lab/*"], &json!({}));
    let mandates = mandates(&targets, &named);
    assert!(mandates.of(&role("approvals-lab")).unwrap().keys().has(&key(7).id()));
    assert_eq!(mandates.scopes().len(), 1);
    let audience = Audience::default();
    assert!(mandates.of(&role("approvals-lab")).unwrap().reaches().unwrap() == audience.into());
}

#[test]
fn a_directorates_document_says_who_signs_for_its_scope_and_nothing_else() {
    check_staff(&scope(), &named()).unwrap();
    let refused = |edit: &dyn Fn(&mut Targets), says: &str| {
        let mut named = named();
        edit(&mut named);
        let error: StaffError = check_staff(&scope(), &named).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    let file = TargetPath::from("approvals/lab/approvals.json");
    refused(&|named| named.set_file(&file, TargetFile::of(b"{}")), "names approvals/lab");
    refused(
        &|named| delegate(named, "content-2026-11", 2, &["content/*"], &json!({})),
        "names content-2026-11: a directorate delegates approvals-lab and schedules-lab alone",
    );
    refused(
        &|named| delegate(named, "approvals-lab", 2, &["approvals/*/*"], &json!({})),
        "are not \"approvals/lab/*\" alone",
    );
    refused(
        &|named| named.delegations.as_mut().unwrap().roles.as_mut().unwrap().truncate(1),
        "lacks schedules-lab",
    );
    refused(&|named| named.delegations = None, "lacks approvals-lab");
    refused(
        &|named| delegate(named, "approvals-lab", 2, &["approvals/lab/*"], &json!({ "site": "x" })),
        "says whom it reaches",
    );
    refused(
        &|named| {
            let [(name, path), _] = signers(&scope());
            // One key under two names is one key.
            let delegation = Delegation::new(name, &[key(2), key(2)], 2, vec![path]);
            named.delegate(delegation, &[key(2)]);
        },
        "threshold 2, and 1 different keys",
    );
    refused(
        &|named| {
            let bins = json!({
                "keyids": [key(2).id()], "threshold": 1, "bit_length": 1, "name_prefix": "bin",
            });
            let delegations = named.delegations.as_mut().unwrap();
            delegations.succinct_roles = Some(serde_json::from_value(bins).unwrap());
        },
        "names succinct_roles",
    );
}

//! A scope that was left to a directorate: it changes its own staff, and nothing else.

use std::collections::BTreeMap;

use sutler_control::appointment::Appointment;
use sutler_control::change::{Change, ChangeError};
use sutler_control::draft::{Draft, Lack};
use sutler_control::fleet::Fleet;
use sutler_control::preset::{self, Preset};
use sutler_control::rotation::{self, NewKeys};
use sutler_control::submission::Refused;
use sutler_control::{State, status};
use sutler_orders::Approvals;
use sutler_protocol::manifest::{
    Delegation, RoleName, Signed, TargetFile, TargetPath, Targets, Version,
};

use crate::catch_up::{Folder, Shown, same};
use crate::fleet::report;
use crate::house::{
    House, directorate, in_days, install, key, named, note, now, said, signed, staff,
};
use crate::rotation::publics;

const APPROVALS: &str = "approvals/lab/approvals.json";

fn role(name: &str) -> RoleName {
    RoleName::delegated(name).unwrap()
}

/// New keys for the scope's approvals, and who holds them, as a head proposes it.
fn approved_by(house: &House, state: &State, name: &str, seed: u8) -> Draft {
    let change = Change::new(state, &house.organisation, note("hana", "new staff"), now());
    let new = NewKeys { role: "approvals-lab".to_owned(), keys: publics(&[seed]), threshold: None };
    let names = BTreeMap::from([(name.to_owned(), Some(key(seed).id().clone()))]);
    rotation::rotate(state, change, &[new], &names, now()).unwrap()
}

fn sign(mut draft: Draft, state: &State, signers: &[u8]) -> Draft {
    for signer in signers {
        draft.sign(&key(*signer), Some(state)).unwrap();
    }
    draft
}

/// What the directorate says, edited and signed by these, as the version that comes next.
fn says(house: &House, signers: &[u8], edit: impl FnOnce(&mut Targets)) -> Draft {
    let mut document = house.state().roles[&role("staff-lab")].document().clone();
    let next = document.version().next().unwrap();
    document.renew(next, in_days(30));
    edit(&mut document);
    let mut draft = Draft::new();
    draft.set_role(role("staff-lab"), signed(&document, signers));
    draft
}

#[test]
fn heads_change_who_approves_and_nobody_asks_the_root() {
    let house = House::with_directorate();
    let before = house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    assert!(before.roles.contains_key(&role("approvals-lab")));
    let mut client = house.client();
    client.refresh(now()).unwrap();
    assert_eq!(client.find(APPROVALS, now()).unwrap().unwrap().role.as_str(), "approvals-lab");

    // Dora and Emil go, Finn comes: one head signs it, and Finn what Dora had signed.
    let draft = approved_by(&house, &before, "finn", 7);
    let (roles, _) = draft.parts();
    let roles: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
    assert_eq!(roles, ["approvals-lab", "staff-lab"]);
    let appointed: Vec<String> =
        Appointment::of(&draft, Some(&before)).iter().map(ToString::to_string).collect();
    assert_eq!(appointed, ["approvals-lab is signed by 1 of finn; before, by 1 of dora, emil"]);
    let draft = sign(draft, &before, &[12, 7]);
    assert!(draft.lacks(Some(&before)).iter().all(Lack::is_nothing));
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert_eq!(state.targets.version(), Version::FIRST);
    assert_eq!(state.roles[&role("approvals-lab")].version().number(), 2);
    assert_eq!(state.admins()["finn"], *key(7).id());
    client.refresh(now()).unwrap();
    assert_eq!(client.find(APPROVALS, now()).unwrap().unwrap().role.as_str(), "approvals-lab");

    let by_dora = {
        let mut draft = house.approve(install(b"y"), &[]);
        assert!(draft.sign(&key(4), Some(&state)).is_err());
        let document = draft.role(&role("approvals-lab")).unwrap();
        draft.set_role(role("approvals-lab"), signed(&document, &[4]));
        draft
    };
    let error = house.submit(&by_dora.submission(), now()).unwrap_err();
    assert!(said(&error).contains("0 of its role's keys have signed it"), "{}", said(&error));
    house.submit(&house.approve(install(b"y"), &[7]).submission(), now()).unwrap();
}

#[test]
fn new_staff_without_what_the_old_had_signed_leaves_it_apart_until_they_sign() {
    let house = House::with_directorate();
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let draft = says(&house, &[11], |document| {
        let paths = vec!["approvals/lab/*".to_owned()];
        let keys = publics(&[7]);
        document.delegate(Delegation::new(role("approvals-lab"), &keys, 1, paths), &keys);
    });
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert_eq!(state.unvouched[&role("approvals-lab")], Version::FIRST);
    assert!(state.orders.is_empty());
    // It begins with nothing, by the number that follows.
    let state = house.submit(&house.approve(install(b"y"), &[7]).submission(), now()).unwrap();
    assert_eq!(state.roles[&role("approvals-lab")].version().number(), 2);
}

// R16, T22
#[test]
fn a_directorate_that_says_more_than_who_signs_for_its_scope() {
    let house = House::with_directorate();
    let refused = |draft: &Draft, says: &str| {
        let before = house.disk.paths();
        let error = house.submit(&draft.submission(), now()).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
        assert_eq!(house.disk.paths(), before);
    };
    let delegate = |document: &mut Targets, name: &str, path: &str| {
        let keys = publics(&[4]);
        document.delegate(Delegation::new(role(name), &keys, 1, vec![path.to_owned()]), &keys);
    };
    let month = says(&house, &[11], |document| {
        delegate(document, "content-2026-11", "content/2026-11/*/*");
    });
    refused(&month, "publish staff-lab: its field delegations names content-2026-11");
    let other = says(&house, &[11], |document| delegate(document, "sites", "sites/*"));
    refused(&other, "a directorate delegates approvals-lab and schedules-lab alone");
    let wide = says(&house, &[11], |document| {
        delegate(document, "approvals-lab", "approvals/*/*");
    });
    refused(&wide, "are not \"approvals/lab/*\" alone");
    let file = says(&house, &[11], |document| {
        document.set_file(&TargetPath::from(APPROVALS), TargetFile::of(b"{}"));
    });
    refused(&file, "names no file itself");
    // Its approvers do not name their successors, and the root's holders do not sign in its place.
    refused(&says(&house, &[4, 5], |_| {}), "0 of its role's keys have signed it");
    refused(&says(&house, &[1, 2, 3], |_| {}), "0 of its role's keys have signed it");
}

#[test]
fn targets_by_which_two_would_decide_for_one_scope() {
    let house = House::with_directorate();
    let keys = publics(&[9]);
    let paths = vec!["approvals/lab/*".to_owned()];
    let beside = Delegation::new(role("approvals-lab"), &keys, 1, paths);
    let draft = house.draft(&[1, 2], |change| {
        change.targets()?.delegate(beside, &keys);
        Ok(())
    });
    let error = house.submit(&draft.submission(), now()).unwrap_err();
    assert!(matches!(error, Refused::Both { .. }), "{error}");
    assert!(said(&error).contains("delegate both approvals-lab and staff-lab"), "{error}");
}

#[test]
fn new_heads_are_named_by_the_root() {
    let house = House::with_directorate();
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let state = house.state();
    let change = Change::new(&state, &house.organisation, note("anna", "new heads"), now());
    let new = NewKeys { role: "staff-lab".to_owned(), keys: publics(&[13]), threshold: Some(1) };
    let names = BTreeMap::from([("hedy".to_owned(), Some(key(13).id().clone()))]);
    let draft = rotation::rotate(&state, change, &[new], &names, now()).unwrap();
    let draft = sign(draft, &state, &[1, 2, 13]);
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert_eq!(state.admins()["hedy"], *key(13).id());
    // Who approves is as it was.
    assert!(state.roles.contains_key(&role("approvals-lab")) && state.unvouched.is_empty());
    // The old heads name nobody any more.
    let error = house.submit(&says(&house, &[11], |_| {}).submission(), now()).unwrap_err();
    assert!(said(&error).contains("0 of its role's keys have signed it"), "{}", said(&error));
}

#[test]
fn new_heads_who_have_signed_nothing_yet_leave_the_scope_without_anybody() {
    let house = House::with_directorate();
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let keys = publics(&[13]);
    let paths = vec!["approvals/lab/*".to_owned(), "schedules/lab/*".to_owned()];
    let heads = Delegation::new(role("staff-lab"), &keys, 1, paths);
    let draft = house.draft(&[1, 2], |change| {
        change.targets()?.delegate(heads, &keys);
        Ok(())
    });
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert!(state.unvouched.contains_key(&role("staff-lab")));
    assert!(state.unvouched.contains_key(&role("approvals-lab")));
    let mut change = Change::new(&state, &house.organisation, note("dora", "approve"), now());
    let edited = change.order::<Approvals, ChangeError>(Some(&"lab".parse().unwrap()), |_| Ok(()));
    assert!(matches!(edited, Err(ChangeError::NoRole { .. })));
    // By the new one's word they approve again, with what they had approved.
    let document = preset::directorates(&directorate(), now()).unwrap().remove(0).1;
    let mut document = document;
    document.renew(Version::new(2).unwrap(), in_days(30));
    let mut draft = Draft::new();
    draft.set_role(role("staff-lab"), signed(&document, &[13]));
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert!(state.roles.contains_key(&role("approvals-lab")) && state.unvouched.is_empty());
}

#[test]
fn an_admin_who_leaves_is_taken_out_by_whoever_named_them() {
    let house = House::with_directorate();
    let state = house.state();
    let remove = |name: &str| {
        let new = rotation::without(&state, name).unwrap();
        let change = Change::new(&state, &house.organisation, note("hana", "remove"), now());
        let names = BTreeMap::from([(name.to_owned(), None)]);
        let draft = rotation::rotate(&state, change, &new, &names, now()).unwrap();
        let (roles, _) = draft.parts();
        (draft, roles.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    // Emil approves in the directorate alone; Hugo is one of its heads.
    let (emil, roles) = remove("emil");
    assert_eq!(roles, ["staff-lab"]);
    assert_eq!(remove("hugo").1, ["staff-lab", "targets"]);
    let state = house.submit(&sign(emil, &state, &[11]).submission(), now()).unwrap();
    assert!(!state.admins().contains_key("emil") && state.admins().contains_key("dora"));
    // Those whom a directorate names make no tokens.
    let dora = key(4).key().as_ed25519().unwrap();
    assert!(!state.admin_keys().contains(&dora));
}

#[test]
fn a_directorate_gives_nobody_the_name_of_another() {
    let house = House::with_directorate();
    let draft = says(&house, &[11], |document| {
        let ours = document.extra.get_mut("sutler").unwrap();
        ours["admins"]["anna"] = key(4).id().as_str().into();
        ours["admins"]["impostor"] = key(1).id().as_str().into();
    });
    let state = house.submit(&draft.submission(), now()).unwrap();
    assert_eq!(state.admins()["anna"], *key(1).id());
    assert_eq!(status::name(&state, key(1).id()), "anna");
}

// R16
#[test]
fn a_scope_reaches_those_whom_the_targets_left_to_its_directorate() {
    let mut staff = directorate();
    staff.approvers[0].covers = serde_json::from_str("{\"sites\":[\"hall\"]}").unwrap();
    let house = House::of(&staff, [1, 2, 3]);
    let mut document = preset::directorates(&staff, now()).unwrap().remove(0).1;
    for delegation in document.delegations.as_mut().unwrap().roles.as_mut().unwrap() {
        let wider = serde_json::json!({ "sites": ["hall", "depot"] });
        delegation.extra.insert("sutler".to_owned(), wider);
    }
    let mut draft = Draft::new();
    draft.set_role(role("staff-lab"), signed(&document, &[11]));
    let state = house.submit(&draft.submission(), now()).unwrap();
    let fleet = Fleet::of(&state, &["hall/a", "depot/b"].map(report));
    let draft = house.approve(install(b"x"), &[4]);
    let effect = sutler_control::fleet::Effect::of(&draft, &state);
    assert_eq!(fleet.reach(&effect).unwrap().devices, 1);
}

#[test]
fn an_admins_folder_takes_over_what_directorates_say() {
    let house = House::with_directorate();
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let folder = Folder::of(&house);
    same(&folder.repository().read().unwrap(), &house.state());
    // Approved once more by Dora, who then goes; the folder sees both at once.
    house.submit(&house.approve(install(b"y"), &[4]).submission(), now()).unwrap();
    let draft = says(&house, &[11], |document| {
        let paths = vec!["approvals/lab/*".to_owned()];
        let keys = publics(&[7]);
        document.delegate(Delegation::new(role("approvals-lab"), &keys, 1, paths), &keys);
    });
    house.submit(&draft.submission(), now()).unwrap();
    let state = folder.catch_up(&mut Shown::new(&house.disk), now()).unwrap();
    assert_eq!(state.unvouched[&role("approvals-lab")].number(), 2);
    same(&state, &house.state());
}

#[test]
fn an_organisation_with_directorates_is_set_up_by_names_that_are_nobody_elses() {
    let (root, targets) = preset::documents(Preset::Team, &directorate(), now()).unwrap();
    assert!(Signed::propose(&root).is_ok());
    let delegations = targets.delegations.as_ref().unwrap();
    assert!(delegations.to(&role("approvals-lab")).is_none());
    assert_eq!(delegations.to(&role("staff-lab")).unwrap().keyids.len(), 2);
    let mut first = Draft::new();
    first.set_role(RoleName::targets(), signed(&targets, &[]));
    first.set_root(Signed::propose(&root).unwrap());
    let said: Vec<String> = Appointment::of(&first, None).iter().map(ToString::to_string).collect();
    let lab = "staff-lab is signed by 1 of hana, hugo, for {\"ring\":\"lab\"}";
    assert!(said.iter().any(|said| said == lab), "{said:?}");
    assert!(said.iter().any(|said| said == "root is signed by 2 of anna, ben, cleo"), "{said:?}");
    let admins = &targets.extra["sutler"]["admins"];
    assert!(admins["hana"].is_string() && admins["dora"].is_null());
    // Nobody is set up by the key or name of somebody else, whoever names them.
    let mut twice = directorate();
    twice.approvers[0].signers.keys.push(named("anna", 99));
    assert!(preset::documents(Preset::Team, &twice, now()).is_err());
    let mut twice = directorate();
    twice.approvers[0].heads.as_mut().unwrap().threshold = 3;
    let error = preset::documents(Preset::Team, &twice, now()).unwrap_err();
    assert!(error.to_string().contains("3 of 2 different keys cannot sign"), "{error}");
    assert!(preset::directorates(&staff(1), now()).unwrap().is_empty());
}

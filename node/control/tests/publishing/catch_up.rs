//! An admin's folder on another machine follows what control publishes, and takes nothing over from one that lies.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Map;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::backend::{Backend, read_file};
use sutler_control::online::{OnlineKeys, publication};
use sutler_control::repository::{CatchUpError, Source};
use sutler_control::submission::{self, Submission};
use sutler_control::{Repository, State};
use sutler_protocol::manifest::drive;
use sutler_protocol::manifest::{
    Answer, Delegation, Expires, Fetch, Kind, Pin, RoleName, Snapshot, TargetPath, Targets,
    Timestamp as Statement, Version,
};

use crate::house::{House, in_days, install, key, later, now, online_keys, said, signed};
use crate::rotation::{new_root, publics};

const APPROVALS: &str = "approvals/lab/approvals.json";

/// What control shows: a disk, and what somebody shows instead of some of its files.
pub(crate) struct Shown {
    disk: Faulty,
    instead: BTreeMap<PathBuf, Vec<u8>>,
    asked: Vec<PathBuf>,
}

impl Shown {
    pub(crate) fn new(disk: &Faulty) -> Self {
        Self { disk: disk.clone(), instead: BTreeMap::new(), asked: Vec::new() }
    }

    fn answer(&mut self, place: PathBuf, bytes_max: u64) -> io::Result<Answer> {
        let instead = self.instead.get(&place).cloned();
        let read = instead.map_or_else(|| read_file(&self.disk, &place, 1 << 24), Ok);
        self.asked.push(place);
        match read {
            Ok(mut bytes) => {
                bytes.truncate(bytes_max as usize + 1);
                Ok(Answer::Document(bytes.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error) => Err(error),
        }
    }
}

impl drive::Repository for Shown {
    type Error = io::Error;

    fn fetch(&mut self, fetch: &Fetch) -> io::Result<Answer> {
        self.answer(Path::new("metadata").join(&fetch.place), fetch.bytes_max)
    }
}

impl Source for Shown {
    fn fetch_file(&mut self, place: &str, bytes_max: u64) -> io::Result<Answer> {
        self.answer(Path::new("targets").join(place), bytes_max)
    }
}

/// An admin's folder elsewhere.
pub(crate) struct Folder {
    disk: Faulty,
}

impl Folder {
    /// One that has been handed the first root, and was brought up to date.
    pub(crate) fn of(house: &House) -> Self {
        let folder = Self { disk: Faulty::new() };
        let first = read_file(&house.disk, Path::new("metadata/1.root.json"), 1 << 20).unwrap();
        let caught_up = folder.repository().catch_up(
            &mut Shown::new(&house.disk),
            Some(&Bytes::from(first)),
            now(),
        );
        caught_up.unwrap();
        folder
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::open_on(Arc::new(self.disk.clone())).unwrap()
    }

    pub(crate) fn catch_up(
        &self,
        shown: &mut Shown,
        at: Timestamp,
    ) -> Result<State, CatchUpError<io::Error>> {
        self.repository().catch_up(shown, None, at)
    }

    /// Asserts that it takes nothing over, says why, and is as it was.
    fn refuses(&self, shown: &mut Shown, at: Timestamp, says: &str) {
        let before = self.files();
        let error = self.catch_up(shown, at).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
        assert_eq!(self.files(), before);
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| {
            let bytes = read_file(&self.disk, &path, 1 << 24).unwrap_or_default();
            (path, bytes)
        };
        self.disk.paths().into_iter().map(read).collect()
    }
}

/// Asserts that two states say the same.
pub(crate) fn same(one: &State, other: &State) {
    let bytes = |state: &State| {
        let documents = state.roles.values().map(|role| role.bytes().clone());
        let top = [state.root.bytes(), state.targets.bytes(), state.snapshot.bytes()];
        let top = top.into_iter().chain([state.timestamp.bytes()]).cloned();
        documents.chain(top).chain(state.orders.values().cloned()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(one), bytes(other));
    assert_eq!(one.unvouched, other.unvouched);
}

fn role() -> RoleName {
    RoleName::delegated("approvals-lab").unwrap()
}

#[test]
fn a_folder_begins_with_the_first_root_and_takes_over_all_that_a_change_starts_from() {
    let house = House::new(1);
    house.publish("tool.deb", b"a tool");
    house.submit(&house.approve(install(b"a tool"), &[4]).submission(), now()).unwrap();
    let folder = Folder::of(&house);
    same(&folder.repository().read().unwrap(), &house.state());
    // The bytes of contents are not needed for that.
    assert!(folder.disk.paths().iter().all(|path| !path.starts_with("targets/content")));
    // What is up to date asks for what may have changed, and writes nothing.
    let before = folder.files();
    let mut shown = Shown::new(&house.disk);
    same(&folder.catch_up(&mut shown, now()).unwrap(), &house.state());
    assert_eq!(shown.asked, ["metadata/2.root.json", "metadata/timestamp.json"].map(PathBuf::from));
    assert_eq!(folder.files(), before);
    // A later change brings what is new of it, and no more.
    house.submit(&house.approve(install(b"b"), &[4]).submission(), now()).unwrap();
    let mut shown = Shown::new(&house.disk);
    folder.catch_up(&mut shown, now()).unwrap();
    assert_eq!(shown.asked.len(), 5, "{:?}", shown.asked);
    same(&folder.repository().read().unwrap(), &house.state());
}

#[test]
fn a_folder_begins_with_no_other_root_than_the_first_one_of_the_organisation() {
    let house = House::new(1);
    let mut other = house.state().root.document().clone();
    other.set_keys(Kind::Timestamp, &publics(&[50]), 1);
    let first = signed(&other, &[1, 2]).bytes().clone();
    let second = new_root(&house, Kind::Timestamp, &[102], 1, &[1, 2]);
    let second = second.submission().documents["root"].clone();
    for (root, says) in [
        (Bytes::from_static(b"{}"), "first root"),
        (first, "0 of its role's keys have signed it"),
        (second, "version 2 of the root: the first has to be handed over"),
    ] {
        let folder = Folder { disk: Faulty::new() };
        let error = folder.repository().catch_up(&mut Shown::new(&house.disk), Some(&root), now());
        let error = error.unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
        assert!(folder.repository().read().is_err());
    }
}

/// Control's timestamp key is replaced three times over, each signed with the one before.
fn three_roots_on(house: &House) -> OnlineKeys {
    for (old, new) in [(102, 112), (112, 122), (122, 132)] {
        let draft = new_root(house, Kind::Timestamp, &[new], 1, &[1, 2]);
        let state = house.state();
        let accepted =
            submission::accept(&state, &house.organisation, &draft.submission(), now()).unwrap();
        let keys = OnlineKeys { timestamp: vec![key(old), key(new)], ..online_keys() };
        let new = publication(&state, &accepted, &keys, &Map::new(), now()).unwrap();
        house.repository.write(&new).unwrap();
    }
    let keys = OnlineKeys { timestamp: vec![key(132)], ..online_keys() };
    let nothing = submission::Accepted::default();
    let next = publication(&house.state(), &nothing, &keys, &Map::new(), now()).unwrap();
    house.repository.write(&next).unwrap();
    keys
}

// T11
#[test]
fn a_folder_that_is_several_roots_behind_goes_through_each() {
    let house = House::new(1);
    let folder = Folder::of(&house);
    three_roots_on(&house);
    let state = folder.catch_up(&mut Shown::new(&house.disk), now()).unwrap();
    assert_eq!(state.root.version().number(), 4);
    same(&folder.repository().read().unwrap(), &house.state());
}

// T2
#[test]
fn a_catching_up_cut_short_at_any_step_is_gone_on_with() {
    let house = House::new(1);
    let start = Folder::of(&house);
    house.publish("tool.deb", b"a tool");
    house.submit(&house.approve(install(b"a tool"), &[4]).submission(), now()).unwrap();
    three_roots_on(&house);
    let steps = {
        let folder = Folder { disk: start.disk.restart(1) };
        let before = folder.disk.operations();
        folder.catch_up(&mut Shown::new(&house.disk), now()).unwrap();
        folder.disk.operations() - before
    };
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        for seed in 0..4 {
            let disk = start.disk.restart(1);
            disk.plan(&[Fault::PowerCut(step)]);
            let cut = Repository::open_on(Arc::new(disk.clone())).map_err(drop).and_then(|cut| {
                cut.catch_up(&mut Shown::new(&house.disk), None, now()).map_err(drop)
            });
            assert!(cut.is_err(), "{step}");
            let folder = Folder { disk: disk.restart(seed) };
            let state = folder.catch_up(&mut Shown::new(&house.disk), now());
            let state = state.unwrap_or_else(|error| panic!("{step} {seed}: {}", said(&error)));
            same(&state, &house.state());
            same(&folder.repository().read().unwrap(), &house.state());
        }
    }
}

// T1
#[test]
fn a_control_that_was_set_back_is_refused() {
    let house = House::new(1);
    let old = house.disk.restart(1);
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let folder = Folder::of(&house);
    folder.refuses(&mut Shown::new(&old), now(), "version is 1, and 2 was believed before");
    // Nor is it believed where it signs on from there, until it has passed what was seen.
    let older = Repository::open_on(Arc::new(old.clone())).unwrap();
    let nothing = submission::Accepted::default();
    for hours in 1..3 {
        let state = older.read().unwrap();
        let next = publication(&state, &nothing, &online_keys(), &Map::new(), later(hours));
        older.write(&next.unwrap()).unwrap();
    }
    folder.refuses(&mut Shown::new(&old), later(3), "pins version 1 of snapshot.json");
}

// T3
#[test]
fn a_control_that_does_not_sign_any_more_is_refused() {
    let house = House::new(1);
    let folder = Folder::of(&house);
    let week = 24 * 7;
    folder.catch_up(&mut Shown::new(&house.disk), later(week - 1)).unwrap();
    folder.refuses(&mut Shown::new(&house.disk), later(week), "its timestamp expired at");
}

#[test]
fn what_expired_at_admins_is_taken_over_to_be_signed_anew() {
    let house = House::new(1);
    let mut targets = house.state().targets.document().clone();
    targets.renew(Version::new(2).unwrap(), Expires::at(later(1)));
    let documents = [("targets".to_owned(), signed(&targets, &[1, 2]).bytes().clone())].into();
    house.submit(&Submission { documents, files: BTreeMap::new() }, now()).unwrap();
    let folder = Folder::of(&house);
    assert!(house.client().refresh(later(2)).is_err());
    folder.catch_up(&mut Shown::new(&house.disk), later(2)).unwrap();
}

// T4, T5, T10
#[test]
fn a_control_that_lies_about_a_role_or_an_order_file_is_refused_and_nothing_is_written() {
    let house = House::new(1);
    let folder = Folder::of(&house);
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let document = PathBuf::from("metadata/1.approvals-lab.json");
    let mine = Targets::new(Version::FIRST, in_days(30));
    let state = house.state();
    let (_, file) = state.roles[&role()].document().files().next().unwrap();
    let place = TargetPath::from(APPROVALS).place(file.hashes.prefix().as_deref());
    let order = Path::new("targets").join(place);
    let shorter = state.orders[&TargetPath::from(APPROVALS)].slice(1..);
    for (place, bytes, says) in [
        (
            &document,
            signed(&mine, &[50]).bytes().to_vec(),
            "not the document that the snapshot pins",
        ),
        (&document, vec![b' '; 1 << 23], "not the document that the snapshot pins"),
        (&order, vec![b' '; 1 << 23], "bytes"),
        (&order, vec![b' '; file.length as usize], "sha256"),
        (&order, shorter.to_vec(), "bytes"),
    ] {
        let mut shown = Shown::new(&house.disk);
        shown.instead.insert(place.clone(), bytes);
        folder.refuses(&mut shown, now(), says);
    }
    // What is pinned and does not come is no lesser lie.
    let mut without = Shown::new(&house.disk);
    without.disk = house.disk.restart(1);
    without.disk.remove(&document).unwrap();
    folder.refuses(&mut without, now(), "the repository does not have it");
}

// T10
#[test]
fn what_a_stolen_control_pins_and_no_approver_has_signed_is_refused() {
    let house = House::new(1);
    let folder = Folder::of(&house);
    let state = house.state();
    let forged = signed(&Targets::new(Version::FIRST, in_days(30)), &[101, 102]);
    let mut snapshot: Snapshot = state.snapshot.document().clone();
    let version = Version::new(2).unwrap();
    snapshot.renew(version, in_days(10));
    snapshot.set_pin(&role(), Pin::of(Version::FIRST, forged.bytes()));
    let snapshot = signed(&snapshot, &[101]);
    let pin = Pin::of(version, snapshot.bytes());
    let timestamp = Statement::new(version, Expires::at(now()), in_days(5), pin);
    let mut shown = Shown::new(&house.disk);
    for (place, bytes) in [
        ("metadata/1.approvals-lab.json", forged.bytes()),
        ("metadata/2.snapshot.json", snapshot.bytes()),
        ("metadata/timestamp.json", signed(&timestamp, &[102]).bytes()),
    ] {
        shown.instead.insert(place.into(), bytes.to_vec());
    }
    folder.refuses(&mut shown, now(), "0 of its role's keys have signed it");
}

// T10
#[test]
fn a_role_whose_signers_were_replaced_is_taken_over_and_stands_apart() {
    let house = House::new(1);
    house.submit(&house.approve(install(b"x"), &[4]).submission(), now()).unwrap();
    let (knows, behind) = (Folder::of(&house), Folder::of(&house));
    house.submit(&house.approve(install(b"y"), &[4]).submission(), now()).unwrap();
    knows.catch_up(&mut Shown::new(&house.disk), now()).unwrap();
    let keys = publics(&[5]);
    let delegation = Delegation::new(role(), &keys, 1, vec!["approvals/lab/*".to_owned()]);
    let draft = house.draft(&[1, 2], |change| {
        change.targets()?.delegate(delegation, &keys);
        Ok(())
    });
    house.submit(&draft.submission(), now()).unwrap();
    // One has it already, the other knows who could sign it when it was signed.
    for folder in [&knows, &behind] {
        let state = folder.catch_up(&mut Shown::new(&house.disk), now()).unwrap();
        assert_eq!(state.unvouched[&role()].number(), 2);
        assert!(state.orders.is_empty());
    }
}

//! The trust store: what was believed is there after every accident, or nothing is believed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::trust::{
    CreateError, Damage, OpenError, Outcome, RecoverError, TrustStore, Why, recover, recover_on,
};
use sutler_protocol::manifest::drive::{self, Keeper as _};
use sutler_protocol::manifest::{Keep, RoleName, TargetPath, Trusted, Version};

#[path = "../../protocol/tests/manifest/repository.rs"]
#[expect(dead_code, reason = "what the manifest's own tests use, and more than is used here")]
mod repository;

use repository::{Repository, now, said};

const TOP: [&str; 3] = ["targets", "snapshot", "timestamp"];
const FILES: [&str; 4] = ["root.json", "timestamp.json", "snapshot.json", "targets.json"];

fn why() -> Why<'static> {
    Why { actor: "ada", reason: "the disk was \"bad\"\n", at: now() }
}

/// A repository that a device has seen three epochs of, with its trust store.
fn three_epochs() -> (Repository, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut repository = Repository::new();
    drop(TrustStore::create(folder.path(), &repository.newest("root")).unwrap());
    for _ in 0..3 {
        refresh(folder.path(), &mut repository).unwrap();
        repository.publish(&["root"]);
        repository.publish(&TOP);
    }
    (repository, folder)
}

type Outcome4 = Result<[u64; 4], Box<dyn std::error::Error>>;

/// Opens the store, brings it up to date, and returns the versions that are believed.
fn refresh(folder: &Path, repository: &mut Repository) -> Outcome4 {
    refresh_opened(TrustStore::open(folder)?, repository)
}

fn refresh_opened(
    (mut store, kept): (TrustStore, sutler_protocol::manifest::Kept),
    repository: &mut Repository,
) -> Outcome4 {
    let mut trusted = Trusted::load(&kept)?;
    drive::refresh(&mut trusted, repository, &mut store, now())?;
    Ok(versions(&trusted))
}

fn versions(trusted: &Trusted) -> [u64; 4] {
    [
        trusted.root().version().number(),
        trusted.timestamp().map_or(0, |believed| believed.version().number()),
        trusted.snapshot().map_or(0, |believed| believed.version().number()),
        trusted.targets().map_or(0, |believed| believed.version().number()),
    ]
}

/// Puts a repository back to what it was at first.
fn replay_version_one(repository: &mut Repository) {
    for role in TOP {
        let old = repository.published[role][0].clone();
        repository.places.insert(format!("{role}.json"), old.clone());
        for version in 1..9 {
            repository.places.insert(format!("{version}.{role}.json"), old.clone());
        }
    }
    repository.places.retain(|place, _| !place.ends_with("root.json"));
}

#[test]
fn the_folder_holds_the_documents_as_they_came_and_no_other_json() {
    let (mut repository, folder) = three_epochs();
    repository.delegate("targets", "../odd?", &json!({ "paths": ["*"] }));
    repository.delegate("targets", &"long".repeat(100), &json!({ "paths": ["*"] }));
    repository.publish(&["../odd?", &"long".repeat(100), "targets", "snapshot", "timestamp"]);
    let (mut store, kept) = TrustStore::open(folder.path()).unwrap();
    let mut trusted = Trusted::load(&kept).unwrap();
    drive::refresh(&mut trusted, &mut repository, &mut store, now()).unwrap();
    let path = TargetPath::from("f");
    drive::find(&mut trusted, path, &mut repository, &mut store, now()).unwrap();

    let names = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let long = names.iter().position(|name| name.starts_with("%-")).unwrap();
    assert_eq!(names.remove(long).len(), "%-".len() + 64 + ".json".len());
    let expected = ["%2E.%2Fodd%3F.json", "lock", "marks", FILES[0], FILES[2], FILES[3], FILES[1]];
    assert_eq!(names, expected);
    for (file, role) in FILES.into_iter().zip(["root", "timestamp", "snapshot", "targets"]) {
        assert_eq!(fs::read(folder.path().join(file)).unwrap(), repository.newest(role), "{file}");
    }
    let odd = RoleName::delegated("../odd?").unwrap();
    assert_eq!(store.load(&odd), Some(repository.newest("../odd?")));
}

#[test]
fn a_store_is_made_once_and_owned_by_one() {
    let (repository, folder) = three_epochs();
    let root = repository.newest("root");
    assert!(matches!(TrustStore::create(folder.path(), &root), Err(CreateError::Exists)));
    let owner = TrustStore::open(folder.path()).unwrap();
    assert!(matches!(TrustStore::open(folder.path()), Err(OpenError::InUse)));
    assert!(matches!(TrustStore::create(folder.path(), &root), Err(CreateError::InUse)));
    assert!(matches!(recover(folder.path(), None, why()), Err(RecoverError::InUse)));
    drop(owner);

    let other = tempfile::tempdir().unwrap();
    assert!(matches!(TrustStore::open(other.path()), Err(OpenError::NotMade)));
    assert!(matches!(TrustStore::open(&other.path().join("none")), Err(OpenError::NotMade)));
    let unsigned = repository::edit(&root, |document| document["signatures"] = json!([]));
    assert!(matches!(TrustStore::create(other.path(), &unsigned), Err(CreateError::Root(_))));
    fs::write(other.path().join("a.json"), "{}").unwrap();
    let error = TrustStore::create(other.path(), &root).unwrap_err();
    assert!(said(&error).contains("beside a.json"), "{error}");
}

// T2
#[test]
fn a_document_that_is_cut_changed_gone_or_older_closes_the_store() {
    let (repository, folder) = three_epochs();
    let path = |file: &str| folder.path().join(file);
    let refused = |file: &str, damage: Damage| {
        let error = TrustStore::open(folder.path()).unwrap_err();
        let OpenError::Damaged { file: named, damage: found } = error else { panic!("{error:?}") };
        assert_eq!((named.as_str(), found), (file, damage));
    };
    for file in FILES.into_iter().chain(["marks"]) {
        let whole = fs::read(path(file)).unwrap();
        for len in (0..whole.len()).step_by(whole.len().div_ceil(40)) {
            fs::write(path(file), &whole[..len]).unwrap();
            refused(file, Damage::Changed);
        }
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(path(file), &changed).unwrap();
        refused(file, Damage::Changed);
        let mut longer = whole.clone();
        longer.resize(5 * 1024 * 1024, b' ');
        fs::write(path(file), &longer).unwrap();
        refused(file, Damage::Changed);
        fs::remove_file(path(file)).unwrap();
        refused(file, Damage::Missing);
        fs::write(path(file), &whole).unwrap();
        drop(TrustStore::open(folder.path()).unwrap());
    }
    for (file, role) in FILES.into_iter().zip(["root", "timestamp", "snapshot", "targets"]) {
        let whole = fs::read(path(file)).unwrap();
        for old in &repository.published[role][..2] {
            fs::write(path(file), old).unwrap();
            refused(file, Damage::Changed);
        }
        fs::write(path(file), &whole).unwrap();
    }
}

// T2
#[test]
fn a_recovery_leaves_a_trace_and_no_way_back_to_version_one() {
    for file in FILES.into_iter().skip(1) {
        let (mut repository, folder) = three_epochs();
        fs::write(folder.path().join(file), "torn").unwrap();
        TrustStore::open(folder.path()).unwrap_err();
        let recovery = recover(folder.path(), None, why()).unwrap();
        for (role, outcome) in recovery.outcomes {
            let version = Version::new(3);
            let is_lost = role.file() == file;
            let expected =
                if is_lost { Outcome::Lost(version) } else { Outcome::Kept(version.unwrap()) };
            assert_eq!(outcome, expected, "{role}");
        }
        let audit = fs::read_to_string(folder.path().join("audit")).unwrap();
        let begins = "2026-11-23T09:00:00Z recover by \"ada\" because \"the disk was \\\"bad\\\"\\n\": root kept 3, ";
        assert!(audit.starts_with(begins), "{audit}");
        assert!(audit.contains(" lost 3") && audit.lines().count() == 1, "{audit}");
        let aside = file.replace("json", "damaged-1");
        assert_eq!(fs::read_to_string(folder.path().join(aside)).unwrap(), "torn");

        let honest = repository.places.clone();
        replay_version_one(&mut repository);
        let error = refresh(folder.path(), &mut repository).unwrap_err();
        assert!(said(&*error).contains("refuse the manifest's"), "{file}: {error}");
        repository.places = honest;
        assert_eq!(refresh(folder.path(), &mut repository).unwrap(), [4, 4, 4, 4]);
        // What was lost binds until it is there again, and then no longer twice.
        drop(TrustStore::open(folder.path()).unwrap());
        let marks = fs::read_to_string(folder.path().join("marks")).unwrap();
        assert!(!marks.contains("lost"), "{marks}");
    }
}

// T2
#[test]
fn without_marks_a_recovery_keeps_what_the_root_vouches_for() {
    let (mut repository, folder) = three_epochs();
    fs::remove_file(folder.path().join("marks")).unwrap();
    fs::write(folder.path().join("snapshot.json"), "torn").unwrap();
    let recovery = recover(folder.path(), None, why()).unwrap();
    let outcomes: Vec<Outcome> =
        recovery.outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let kept = Outcome::Kept(Version::new(3).unwrap());
    assert_eq!(outcomes, [kept, kept, Outcome::Lost(None), kept]);
    let honest = repository.places.clone();
    replay_version_one(&mut repository);
    refresh(folder.path(), &mut repository).unwrap_err();
    repository.places = honest;
    assert_eq!(refresh(folder.path(), &mut repository).unwrap(), [4, 4, 4, 4]);
}

#[test]
fn a_lost_root_is_replaced_by_one_that_is_not_older() {
    let (mut repository, folder) = three_epochs();
    fs::write(folder.path().join("root.json"), "").unwrap();
    let recover = |root: Option<&Bytes>| recover(folder.path(), root.cloned(), why());
    assert!(matches!(recover(None), Err(RecoverError::NoRoot)));
    let roots = repository.published["root"].clone();
    let error = recover(Some(&roots[0])).unwrap_err();
    assert!(said(&error).contains("a root of version 1 where 3 was believed"), "{error}");
    let stranger = repository::edit(&roots[3], |document| document["signatures"] = json!([]));
    assert!(matches!(recover(Some(&stranger)), Err(RecoverError::Root(_))));
    assert!(!folder.path().join("audit").exists());
    recover(Some(&roots[2])).unwrap();
    assert_eq!(refresh(folder.path(), &mut repository).unwrap(), [4, 4, 4, 4]);

    let unsaid = Why { actor: " ", ..why() };
    let error = sutler_cache::trust::recover(folder.path(), None, unsaid).unwrap_err();
    assert!(matches!(error, RecoverError::Unsaid));
}

// T14
#[test]
fn a_role_of_any_name_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = Repository::new().newest("root");
    let mut store = TrustStore::create(folder.path(), &root).unwrap();
    let names =
        [".", "..", "...", "/", "../x", "a/b", "marks", "lock", "root.json", "%2E", "x.", " "];
    for name in names {
        let role = RoleName::delegated(name).unwrap();
        let (version, bytes) = (Version::FIRST, Bytes::copy_from_slice(name.as_bytes()));
        store.keep(Keep::Document { role, version, bytes }).unwrap();
    }
    for name in names {
        let role = RoleName::delegated(name).unwrap();
        assert_eq!(store.load(&role).as_deref(), Some(name.as_bytes()), "{name:?}");
    }
    drop(store);
    assert_eq!(TrustStore::open(folder.path()).unwrap().1.root, root);
}

// T22
#[test]
fn a_damaged_delegated_role_is_fetched_again_and_closes_nothing() {
    let (mut repository, folder) = three_epochs();
    repository.delegate("targets", "a", &json!({ "paths": ["*"] }));
    repository.add_target("a", "f", b"f");
    repository.publish(&["a", "targets", "snapshot", "timestamp"]);
    let file = folder.path().join("a.json");
    for content in [None, Some(""), Some("torn"), Some("{}")] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let (mut store, kept) = TrustStore::open(folder.path()).unwrap();
        let mut trusted = Trusted::load(&kept).unwrap();
        drive::refresh(&mut trusted, &mut repository, &mut store, now()).unwrap();
        let path = TargetPath::from("f");
        let found = drive::find(&mut trusted, path, &mut repository, &mut store, now()).unwrap();
        assert_eq!(found.unwrap().role.as_str(), "a");
        assert_eq!(fs::read(&file).unwrap(), repository.newest("a"));
    }
}

/// What a device did before its disk failed: the versions that were acknowledged last, and the
/// repository as it was then.
struct Life {
    believed: [u64; 4],
    is_made: bool,
    repository: Repository,
}

/// A device is set up, sees new epochs, and a rotation after which timestamps count from 1 again. Ends at
/// the first failure.
fn live(disk: &Faulty) -> Life {
    let repository = Repository::new();
    let mut life = Life { believed: [0; 4], is_made: false, repository };
    drop(live_on(disk, &mut life));
    life
}

fn live_on(disk: &Faulty, life: &mut Life) -> Result<(), Box<dyn std::error::Error>> {
    drop(TrustStore::create_on(Arc::new(disk.clone()), &life.repository.newest("root"))?);
    life.is_made = true;
    life.believed[0] = 1;
    for epoch in 0..3 {
        let opened = TrustStore::open_on(Arc::new(disk.clone()))?;
        life.believed = refresh_opened(opened, &mut life.repository)?;
        if epoch == 1 {
            life.repository.rotate("timestamp");
            life.repository["timestamp"]["version"] = json!(0);
            // From here on a timestamp of version 1 is newer than those before.
            life.believed[1] = 0;
        }
        life.repository.publish(&["root"]);
        life.repository.publish(&TOP);
    }
    Ok(())
}

/// Opens what is left: it is refused, or nothing that was acknowledged is gone, and a replay of the
/// first epoch brings nothing down.
fn examine(disk: &Faulty, life: &mut Life, context: &str) -> Result<(), OpenError> {
    let opened = TrustStore::open_on(Arc::new(disk.clone()))?;
    let trusted = Trusted::load(&opened.1).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let found = versions(&trusted);
    for (believed, found) in life.believed.into_iter().zip(found) {
        assert!(found >= believed, "{context}: {believed} became {found}");
    }
    let honest = life.repository.places.clone();
    replay_version_one(&mut life.repository);
    drop(refresh_opened(opened, &mut life.repository));
    let opened = TrustStore::open_on(Arc::new(disk.clone())).expect("nothing fails any more");
    let trusted = Trusted::load(&opened.1).expect("as before");
    for (found, after) in found.into_iter().zip(versions(&trusted)) {
        assert!(after >= found, "{context}: a replay made {found} into {after}");
    }
    life.repository.places = honest;
    let outcome = refresh_opened(opened, &mut life.repository);
    assert!(outcome.is_ok(), "{context}: {}", said(&*outcome.unwrap_err()));
    Ok(())
}

fn operations() -> u64 {
    let disk = Faulty::new();
    let life = live(&disk);
    assert_eq!(life.believed, [3, 1, 3, 3]);
    disk.operations()
}

// T2
#[test]
fn a_power_cut_at_any_write_takes_nothing_that_was_believed() {
    for operation in 0..=operations() {
        for seed in 0..2 {
            let disk = Faulty::new();
            disk.plan(&[Fault::PowerCut(operation)]);
            let mut life = live(&disk);
            let context = format!("power cut at operation {operation}, seed {seed}");
            match examine(&disk.restart(seed), &mut life, &context) {
                Err(OpenError::NotMade) if !life.is_made => {}
                outcome => outcome.unwrap_or_else(|error| panic!("{context}: {}", said(&error))),
            }
        }
    }
}

// T2
#[test]
fn an_error_or_a_full_disk_at_any_write_takes_nothing_that_was_believed() {
    for operation in 0..operations() {
        for fault in [Fault::Error(operation), Fault::Full(operation)] {
            let disk = Faulty::new();
            disk.plan(&[fault]);
            let mut life = live(&disk);
            disk.plan(&[]);
            for (what, disk) in [("power cut", disk.restart(operation)), ("next start", disk)] {
                let context = format!("{fault:?}, {what}");
                match examine(&disk, &mut life, &context) {
                    Err(OpenError::NotMade) if !life.is_made => {}
                    outcome => {
                        outcome.unwrap_or_else(|error| panic!("{context}: {}", said(&error)));
                    }
                }
            }
        }
    }
}

// T2
#[test]
fn a_disk_that_loses_or_tears_a_write_closes_the_store_and_never_takes_it_back() {
    let mut refused = 0;
    for operation in 0..operations() {
        for fault in [Fault::Lost(operation), Fault::Torn(operation)] {
            let disk = Faulty::new();
            disk.plan(&[fault]);
            let mut life = live(&disk);
            disk.plan(&[]);
            let context = format!("{fault:?}");
            let disk = disk.restart(operation);
            match examine(&disk, &mut life, &context) {
                Ok(()) => {}
                Err(OpenError::Damaged { .. }) => {
                    refused += 1;
                    // And an admin gets it back, with the root from elsewhere if need be.
                    let root = Some(life.repository.newest("root"));
                    recover_on(&disk, root, why())
                        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
                    examine_recovered(&disk, &mut life, &context);
                }
                Err(OpenError::NotMade) => {
                    assert!(!life.is_made || life.believed[1] == 0, "{context}");
                }
                Err(error) => panic!("{context}: {}", said(&error)),
            }
        }
    }
    assert!(refused > 0, "no fault did any harm");
}

fn examine_recovered(disk: &Faulty, life: &mut Life, context: &str) {
    let opened = TrustStore::open_on(Arc::new(disk.clone()))
        .unwrap_or_else(|error| panic!("{context}: {}", said(&error)));
    let outcome = refresh_opened(opened, &mut life.repository);
    assert!(outcome.is_ok(), "{context}: {}", said(&*outcome.unwrap_err()));
}

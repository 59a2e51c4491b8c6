//! Room within limits: what goes, what stays, and what is known of it afterwards.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;

use sutler_cache::eviction::{Pin, Risk, Standing};
use sutler_cache::import::{ImportError, ImportFrom};
use sutler_cache::quarantine::QuarantineKey;
use sutler_cache::store::EvictError;
use sutler_cache::{About, CreateError, Origin, Store, StoreOptions};
use sutler_protocol::{ChunkIndex, ContentId, HashList, HashListBuilder, Sha256Digest};

const LEN: usize = 200_000;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Opens the store with room for this many contents of [`LEN`] bytes.
    fn store(&self, contents: u64) -> Store {
        let options = StoreOptions { bytes_max: quota(contents), free_bytes_min: 0 };
        Store::open(&self.0.path().join("store"), options).expect("the store opens")
    }

    fn data_file(&self, id: ContentId) -> PathBuf {
        let id = id.to_string();
        self.0.path().join("store/contents").join(&id[..2]).join(format!("{id}.data"))
    }
}

fn quota(contents: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(contents * LEN as u64)
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn list(bytes: &[u8]) -> HashList {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    builder.finish().expect("within the bound")
}

fn add(store: &Store, seed: u8) -> Result<ContentId, ImportError> {
    let data = bytes(seed);
    let about = About {
        origins: vec![Origin::at(format!("https://vendor.example/{seed}"))],
        ..About::default()
    };
    store.import(ImportFrom::Stream(&mut &data[..]), &about).map(|imported| imported.content.id())
}

fn is_complete(store: &Store, id: ContentId) -> bool {
    store.content(id).expect("opened").is_some_and(|content| content.is_complete())
}

fn order(risk: u8) -> Standing {
    Standing::Pinned(Pin::Order(Risk(risk)))
}

// R32
#[test]
fn what_is_pinned_stays_and_the_rest_makes_room() {
    let folder = Folder::new();
    let store = folder.store(3);
    let ids: Vec<ContentId> =
        (0..3).map(|seed| add(&store, seed).expect("there is room")).collect();
    let standings = [(ids[0], order(5)), (ids[1], Standing::Superseded)];
    store.set_standings(BTreeMap::from(standings)).expect("written");

    let fourth = add(&store, 3).expect("the superseded one goes");
    assert!(!is_complete(&store, ids[1]));
    assert!(is_complete(&store, ids[0]) && is_complete(&store, ids[2]));
    assert!(!folder.data_file(ids[1]).exists());

    let fifth = add(&store, 4).expect("an unreferenced one goes");
    assert!(is_complete(&store, ids[0]) && is_complete(&store, fifth));
    assert_eq!(u8::from(is_complete(&store, ids[2])) + u8::from(is_complete(&store, fourth)), 1);
    assert!(store.usage().used_bytes <= 3 * LEN as u64);
}

// R32, R31
#[test]
fn when_only_pins_are_left_nothing_is_evicted_and_the_answer_says_so() {
    let folder = Folder::new();
    let store = folder.store(2);
    let ids = [add(&store, 0).expect("room"), add(&store, 1).expect("room")];
    let pinned = ids.map(|id| (id, Standing::Pinned(Pin::Rollback)));
    store.set_standings(BTreeMap::from(pinned)).expect("written");
    let refused = add(&store, 2);
    assert!(matches!(refused, Err(ImportError::Full { .. })), "{refused:?}");
    let refused = store.create(list(&bytes(3)), &About::default());
    assert!(matches!(refused, Err(CreateError::Full { .. })), "{refused:?}");
    assert!(ids.iter().all(|id| is_complete(&store, *id)));
}

// R32
#[test]
fn a_pin_of_an_order_sheds_rollbacks_then_lower_risks() {
    let folder = Folder::new();
    let store = folder.store(3);
    let ids: Vec<ContentId> = (0..3).map(|seed| add(&store, seed).expect("room")).collect();
    let wanted = [list(&bytes(3)), list(&bytes(4)), list(&bytes(5))];
    let mut standings = BTreeMap::from([
        (ids[0], order(9)),
        (ids[1], order(1)),
        (ids[2], Standing::Pinned(Pin::Rollback)),
    ]);
    standings.extend(wanted.iter().map(|hashes| (hashes.id(), order(5))));
    store.set_standings(standings).expect("written");
    let mut held = Vec::new();
    for (hashes, gone) in wanted.iter().zip([ids[2], ids[1]]) {
        held.push(store.create(hashes.clone(), &About::default()).expect("a lower pin goes"));
        assert!(!is_complete(&store, gone));
    }
    let refused = store.create(wanted[2].clone(), &About::default());
    assert!(matches!(refused, Err(CreateError::Full { .. })), "{refused:?}");
    assert!(is_complete(&store, ids[0]));
}

#[test]
fn what_is_in_use_is_not_evicted() {
    let folder = Folder::new();
    let store = folder.store(1);
    let id = add(&store, 0).expect("room");
    let lease = store.content(id).expect("opened").expect("known");
    assert!(matches!(add(&store, 1), Err(ImportError::Full { .. })));
    assert!(matches!(store.evict(id), Err(EvictError::Leased { .. })));
    assert!(matches!(store.remove(id), Err(EvictError::Leased { .. })));
    drop(lease);
    add(&store, 1).expect("it may go now");
    assert!(!is_complete(&store, id));
}

#[test]
fn an_evicted_content_is_known_and_can_be_filled_again() {
    let folder = Folder::new();
    let store = folder.store(4);
    let data = bytes(0);
    let id = add(&store, 0).expect("room");
    assert_eq!(store.evict(id).expect("evicted"), LEN as u64);
    assert_eq!(store.usage().used_bytes, 0);
    drop(store);

    let store = folder.store(4);
    assert_eq!(store.by_url("https://vendor.example/0"), Some(id), "where it came from is known");
    let content = store.content(id).expect("opened").expect("known");
    assert!(content.had().is_empty() && !content.is_complete());
    assert_eq!(content.hashes().id(), id);
    for chunk in content.geometry().all().iter() {
        let place = content.geometry().chunk(chunk);
        let part = &data[place.start as usize..place.end as usize];
        content.commit(chunk, part).expect("committed");
    }
    store.complete(std::slice::from_ref(&content)).expect("complete");
    assert_eq!(store.usage().used_bytes, LEN as u64);
    assert_eq!(store.usage().reserved_bytes, 0);
}

#[test]
fn a_small_content_is_evicted_and_filled_again_too() {
    let folder = Folder::new();
    let store = folder.store(1);
    let data = b"a small content";
    let from = ImportFrom::Stream(&mut &data[..]);
    let id = store.import(from, &About::default()).expect("room").content.id();
    assert_eq!(store.evict(id).expect("evicted"), data.len() as u64);
    let content = store.content(id).expect("opened").expect("known");
    assert!(content.had().is_empty());
    content.commit(ChunkIndex(0), data).expect("committed");
    store.complete(std::slice::from_ref(&content)).expect("complete");
    assert!(is_complete(&store, id));
    assert_eq!(store.usage().used_bytes, data.len() as u64);
}

#[test]
fn a_removed_content_is_forgotten() {
    let folder = Folder::new();
    let store = folder.store(4);
    let id = add(&store, 0).expect("room");
    store.remove(id).expect("removed");
    assert!(matches!(store.remove(id), Err(EvictError::Unknown { .. })));
    assert_eq!(store.usage().used_bytes, 0);
    drop(store);
    let store = folder.store(4);
    assert!(store.list().is_empty());
    assert!(store.content(id).expect("asked").is_none());
    assert_eq!(store.by_url("https://vendor.example/0"), None);
}

// R32
#[test]
fn a_smaller_quota_is_met_by_gc_without_touching_pins_or_leases() {
    let folder = Folder::new();
    let store = folder.store(4);
    let ids: Vec<ContentId> = (0..4).map(|seed| add(&store, seed).expect("room")).collect();
    store.set_standings(BTreeMap::from([(ids[0], order(0))])).expect("written");
    let lease = store.content(ids[1]).expect("opened").expect("known");
    assert_eq!(store.gc().evicted, [], "all is within its limits");
    store.set_limits(StoreOptions { bytes_max: quota(1), free_bytes_min: 0 });
    let collected = store.gc();
    assert_eq!(collected.freed_bytes, 2 * LEN as u64);
    assert_eq!(collected.excess_bytes, LEN as u64);
    assert!(is_complete(&store, ids[0]) && lease.is_complete());
    drop(lease);
    assert_eq!(store.gc().evicted, [ids[1]]);
    assert_eq!(store.usage().used_bytes, LEN as u64);
}

#[test]
fn standings_outlive_a_restart() {
    let folder = Folder::new();
    let id = {
        let store = folder.store(2);
        let id = add(&store, 0).expect("room");
        store.set_standings(BTreeMap::from([(id, order(3))])).expect("written");
        id
    };
    assert_eq!(folder.store(2).standing(id), order(3));
}

#[test]
fn bytes_in_quarantine_that_nobody_fetches_go_before_any_content() {
    let folder = Folder::new();
    let store = folder.store(2);
    let id = add(&store, 0).expect("room");
    let key = QuarantineKey::Digest(Sha256Digest::from_bytes([1; 32]));
    let quarantine = store.quarantine(key, Some(LEN as u64)).expect("room");
    quarantine.write_at(0, &bytes(9)).expect("kept");
    drop(quarantine);
    add(&store, 1).expect("the quarantine goes");
    assert!(is_complete(&store, id));
    assert!(store.quarantine(key, None).expect("opened").is_empty());
}

// Issue 2, section 3: look-ups and eviction order before and after.
#[test]
fn a_rebuilt_index_gives_the_same_answers_and_the_same_eviction_order() {
    let folder = Folder::new();
    let answers = |store: &Store| {
        let urls = (0..6).map(|seed| store.by_url(&format!("https://vendor.example/{seed}")));
        (store.list(), urls.collect::<Vec<_>>(), store.eviction_order(), store.usage())
    };
    let store = folder.store(9);
    for seed in 0..6 {
        add(&store, seed).expect("room");
    }
    let ids: Vec<ContentId> = store.list().into_iter().map(|entry| entry.id).collect();
    store.evict(ids[2]).expect("evicted");
    store.set_standings(BTreeMap::from([(ids[0], order(1))])).expect("written");
    let before = answers(&store);
    store.rebuild_index();
    assert_eq!(answers(&store), before);
    store.close().expect("closed");
    drop(store);
    let index = folder.0.path().join("store/index");
    let spoil: [&dyn Fn(); 3] = [
        &|| std::fs::remove_dir_all(&index).expect("removed"),
        &|| std::fs::write(index.join("db"), vec![0x5a; 100_000]).expect("written"),
        &|| std::fs::write(index.join("conf"), b"of another version").expect("written"),
    ];
    for (round, spoil) in spoil.iter().enumerate() {
        spoil();
        let store = folder.store(9);
        assert_eq!(answers(&store), before, "round {round}");
        store.close().expect("closed");
    }
    assert_eq!(answers(&folder.store(9)), before, "believed as it was closed");
}

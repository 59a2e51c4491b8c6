//! Bytes that nothing vouches for: kept, resumed, and believed only as a whole.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use sutler_cache::quarantine::{Place, PromoteError, QuarantineError, QuarantineKey};
use sutler_cache::{About, Novelty, Origin, Store, StoreOptions};
use sutler_protocol::{ContentId, Sha256Digest};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store"), StoreOptions::default()).expect("the store opens")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn in_quarantine(&self) -> usize {
        fs::read_dir(self.path("store/quarantine")).expect("listed").count()
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().expect("32 bytes"))
}

fn whole(store: &Store, id: ContentId) -> Vec<u8> {
    let content = store.content(id).expect("opened").expect("known");
    let mut bytes = vec![0; content.geometry().len() as usize];
    content.read(0..bytes.len() as u64, &mut bytes).expect("read");
    bytes
}

// R39, N6
#[test]
fn a_whole_that_agrees_with_its_digest_becomes_a_content() {
    for len in [0, 1000, 65_537, 2_000_000] {
        let folder = Folder::new();
        let store = folder.store();
        let data = bytes(len);
        let key = QuarantineKey::Digest(sha256(&data));
        let quarantine = store.quarantine(key, Some(len as u64)).expect("opened");
        let middle = len / 2;
        quarantine.write_at(middle as u64, &data[middle..]).expect("in any order");
        quarantine.write_at(0, &data[..middle]).expect("kept");
        assert!(quarantine.missing().is_empty());
        assert!(store.list().is_empty(), "nothing is listed before");
        assert_eq!(store.by_digest(sha256(&data)), None);

        let about = About { name: Some("a.deb".into()), ..About::default() };
        let content = quarantine.promote(&about).expect("it agrees").content;
        assert!(content.is_complete());
        assert_eq!(store.by_digest(sha256(&data)), Some(ContentId::of(&data)));
        assert_eq!(store.usage().used_bytes, len as u64);
        assert_eq!(store.usage().reserved_bytes, 0);
        drop((content, store));
        let store = folder.store();
        assert_eq!(whole(&store, ContentId::of(&data)), data);
        assert_eq!(folder.in_quarantine(), 0);
        assert_eq!(store.usage().used_bytes, len as u64);
    }
}

#[test]
fn a_whole_of_unknown_length_that_agrees_with_its_id_becomes_a_content() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(300_000);
    let key = QuarantineKey::Content(ContentId::of(&data));
    let quarantine = store.quarantine(key, None).expect("opened");
    for (position, part) in data.chunks(100_000).enumerate() {
        quarantine.write_at(position as u64 * 100_000, part).expect("kept");
    }
    let content = quarantine.promote(&About::default()).expect("it agrees").content;
    assert_eq!(content.id(), ContentId::of(&data));
    assert_eq!(store.usage().used_bytes, 300_000);
}

#[test]
fn whatever_a_place_has_becomes_a_content_and_is_told_from_what_was_known() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(300_000);
    let key = QuarantineKey::Place(Place::of("https://vendor.example/a"));
    for novelty in [Novelty::New, Novelty::Known] {
        let quarantine = store.quarantine(key, None).expect("opened");
        quarantine.write_at(0, &data).expect("kept");
        let elsewhere = QuarantineKey::Place(Place::of("https://vendor.example/b"));
        assert!(store.quarantine(elsewhere, None).expect("opened").is_empty());
        let imported = quarantine.promote(&About::default()).expect("it is what it is");
        assert_eq!((imported.content.id(), imported.novelty), (ContentId::of(&data), novelty));
    }
}

// R34
#[test]
fn what_came_from_a_place_is_found_at_the_next_start() {
    let folder = Folder::new();
    let key = QuarantineKey::Place(Place::of("https://vendor.example/a"));
    let store = folder.store();
    store.quarantine(key, None).expect("opened").write_at(0, &[7; 1000]).expect("kept");
    drop(store);
    let store = folder.store();
    assert_eq!(store.usage().used_bytes, 1000);
    assert_eq!(store.quarantine(key, None).expect("opened").len(), 1000);
}

// R39, T7
#[test]
fn a_whole_that_disagrees_is_removed_and_was_never_seen() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(200_000);
    let mut wrong = data.clone();
    wrong[150_000] ^= 1;
    let id = ContentId::of(&data);
    for key in [QuarantineKey::Digest(sha256(&data)), QuarantineKey::Content(id)] {
        let quarantine = store.quarantine(key, Some(200_000)).expect("opened");
        quarantine.write_at(0, &wrong).expect("kept");
        let refused = quarantine.promote(&About::default());
        assert!(matches!(refused, Err(PromoteError::Mismatch { .. })), "{refused:?}");
        assert!(store.quarantine(key, Some(200_000)).expect("again").is_empty());
    }
    assert!(store.list().is_empty());
    assert!(store.content(ContentId::of(&wrong)).expect("asked").is_none());
    assert_eq!(store.usage().used_bytes + store.usage().reserved_bytes, 0);

    // The id agrees, the vendor's digest does not.
    let quarantine = store.quarantine(QuarantineKey::Content(id), None).expect("opened");
    quarantine.write_at(0, &data).expect("kept");
    let about = About { sha256: Some(sha256(b"other")), ..About::default() };
    let refused = quarantine.promote(&about);
    assert!(matches!(refused, Err(PromoteError::Mismatch { .. })), "{refused:?}");
}

// R34
#[test]
fn what_was_written_before_a_kill_is_not_asked_for_again() {
    let folder = Folder::new();
    let data = bytes(1_000_000);
    let key = QuarantineKey::Digest(sha256(&data));
    let origin = Origin { etag: Some("\"1\"".into()), ..Origin::at("https://vendor.example/a") };
    {
        let store = folder.store();
        let quarantine = store.quarantine(key, Some(1_000_000)).expect("opened");
        quarantine.set_origin(&origin).expect("noted");
        quarantine.write_at(0, &data[..400_000]).expect("kept");
        quarantine.write_at(600_000, &data[600_000..700_000]).expect("kept");
        // No checkpoint: as a kill leaves it.
        std::mem::forget(quarantine);
    }
    let store = folder.store_after_kill();
    assert_eq!(store.usage().used_bytes, 700_000, "as long as the file is");
    let quarantine = store.quarantine(key, None).expect("opened");
    assert_eq!(quarantine.len(), 400_000);
    assert_eq!(quarantine.missing(), [400_000..600_000, 700_000..1_000_000]);
    assert_eq!(quarantine.origin(), Some(origin));
    assert_eq!(store.usage().used_bytes, 500_000);
    for gap in quarantine.missing() {
        quarantine.write_at(gap.start, &data[gap.start as usize..gap.end as usize]).expect("kept");
    }
    quarantine.promote(&About::default()).expect("it agrees");
}

impl Folder {
    /// Opens the store in a copy of its folder, whose lock nobody holds.
    fn store_after_kill(&self) -> Store {
        fn copy(from: &std::path::Path, to: &std::path::Path) {
            fs::create_dir(to).expect("made");
            for entry in fs::read_dir(from).expect("listed") {
                let entry = entry.expect("an entry");
                let to = to.join(entry.file_name());
                if entry.file_type().expect("a type").is_dir() {
                    copy(&entry.path(), &to);
                } else {
                    fs::copy(entry.path(), to).expect("copied");
                }
            }
        }
        copy(&self.path("store"), &self.path("copied"));
        Store::open(&self.path("copied"), StoreOptions::default()).expect("the store opens")
    }
}

// R34
#[test]
fn without_its_hint_what_was_checkpointed_is_there() {
    let folder = Folder::new();
    let data = bytes(500_000);
    let key = QuarantineKey::Digest(sha256(&data));
    let store = folder.store();
    let quarantine = store.quarantine(key, Some(500_000)).expect("opened");
    quarantine.write_at(0, &data[..200_000]).expect("kept");
    quarantine.checkpoint().expect("durable");
    quarantine.write_at(200_000, &data[200_000..300_000]).expect("kept");
    drop((quarantine, store));
    let hint = folder
        .path("store/quarantine")
        .join(format!("sha256-{}.hint", &sha256(&data).to_string()[7..]));
    fs::write(hint, b"of another start of the machine").expect("written");
    let store = folder.store();
    assert_eq!(store.quarantine(key, None).expect("opened").len(), 200_000);
}

#[test]
fn another_version_forgets_the_first() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(300_000);
    let key = QuarantineKey::Digest(sha256(&data));
    let quarantine = store.quarantine(key, Some(200_000)).expect("opened");
    quarantine.write_at(0, &vec![7; 100_000]).expect("kept");
    drop(quarantine);
    let quarantine = store.quarantine(key, Some(300_000)).expect("another length");
    assert!(quarantine.is_empty());
    quarantine.write_at(0, &[8; 1000]).expect("kept");
    let newer = Origin { etag: Some("\"2\"".into()), ..Origin::at("https://vendor.example/a") };
    quarantine.restart(Some(300_000), Some(&newer)).expect("begun anew");
    assert_eq!(quarantine.missing(), std::slice::from_ref(&(0..300_000)));
    assert_eq!(store.usage().used_bytes, 0);
    assert_eq!(store.usage().reserved_bytes, 300_000);
    quarantine.write_at(0, &data).expect("kept");
    quarantine.promote(&About::default()).expect("it agrees");
}

#[test]
fn a_second_fetcher_and_bytes_past_the_end_are_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let key = QuarantineKey::Digest(sha256(b"x"));
    let quarantine = store.quarantine(key, Some(10)).expect("opened");
    let second = store.quarantine(key, Some(10));
    assert!(matches!(second, Err(QuarantineError::Busy { .. })));
    let past = quarantine.write_at(5, &[0; 6]);
    assert!(matches!(past, Err(QuarantineError::PastEnd { end: 11, len: 10, .. })), "{past:?}");
    let lacking = quarantine.promote(&About::default());
    assert!(matches!(lacking, Err(PromoteError::Lacking { bytes: 10, .. })), "{lacking:?}");
    assert!(store.quarantine(key, Some(10)).is_ok(), "it was let go");
}

#[test]
fn a_checkpoint_is_due_by_bytes_or_by_time() {
    let folder = Folder::new();
    let store = folder.store();
    let key = QuarantineKey::Digest(sha256(b"x"));
    let quarantine = store.quarantine(key, None).expect("opened");
    let now = Instant::now();
    assert!(!quarantine.checkpoint_due(now));
    quarantine.write_at(0, &[0; 100]).expect("kept");
    assert!(!quarantine.checkpoint_due(now));
    let later = now + sutler_cache::content::CHECKPOINT_INTERVAL;
    assert!(quarantine.checkpoint_due(later));
    quarantine.checkpoint().expect("durable");
    assert!(!quarantine.checkpoint_due(later));
}

#[test]
fn what_is_known_already_is_not_stored_twice() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(400_000);
    for _ in 0..2 {
        let key = QuarantineKey::Digest(sha256(&data));
        let quarantine = store.quarantine(key, Some(400_000)).expect("opened");
        quarantine.write_at(0, &data).expect("kept");
        quarantine.promote(&About::default()).expect("it agrees");
        assert_eq!(store.usage().used_bytes, 400_000);
        assert_eq!(folder.in_quarantine(), 0);
    }
}

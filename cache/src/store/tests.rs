//! The store on a real folder: what is kept, what is believed, what is refused.

use std::fs;
use std::path::PathBuf;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use sutler_protocol::{ChunkIndex, ContentId, HashList, HashListBuilder, Sha256Digest};

use super::*;
use crate::about::{About, Origin};
use crate::content::{CHECKPOINT_INTERVAL, CommitError};

const CHUNK: usize = 64 * 1024;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn open(&self) -> Store {
        Store::open(self.0.path(), StoreOptions::default()).expect("the store opens")
    }

    fn file(&self, id: ContentId, suffix: &str) -> PathBuf {
        let id = id.to_string();
        self.0.path().join("contents").join(&id[..2]).join(format!("{id}.{suffix}"))
    }

    fn flip_bit(&self, id: ContentId, suffix: &str, position: usize) {
        let path = self.file(id, suffix);
        let mut bytes = fs::read(&path).expect("the file is there");
        bytes[position] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
}

/// Bytes that differ from chunk to chunk and from seed to seed.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

fn list(bytes: &[u8]) -> HashList {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    builder.finish().expect("within the bound")
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().expect("32 bytes"))
}

fn create(store: &Store, bytes: &[u8]) -> Content {
    store.create(list(bytes), &About::default()).expect("made")
}

fn add(store: &Store, bytes: &[u8]) -> Content {
    let content = create(store, bytes);
    content.commit(ChunkIndex(0), bytes).expect("the right bytes");
    store.complete(from_ref(&content)).expect("all of it is there");
    content
}

fn read_all(content: &Content) -> Result<Vec<u8>, ReadError> {
    let len = content.geometry().len();
    let mut into = vec![0; len as usize];
    content.read(0..len, &mut into)?;
    Ok(into)
}

#[test]
fn contents_of_every_shape_are_there_again_after_a_restart() {
    let folder = Folder::new();
    let shapes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7];
    let store = folder.open();
    for len in shapes {
        let content = add(&store, &bytes(len, 1));
        assert!(content.is_complete());
        assert_eq!(read_all(&content).expect("just written"), bytes(len, 1));
    }
    drop(store);
    let store = folder.open();
    assert_eq!(store.list().len(), shapes.len());
    for len in shapes {
        let id = ContentId::of(&bytes(len, 1));
        let content = store.content(id).expect("readable").expect("known");
        assert!(content.is_complete(), "{len}");
        assert_eq!(read_all(&content).expect("intact"), bytes(len, 1));
        assert_eq!(folder.file(id, "list").exists(), len > CHUNK, "{len}");
    }
    let total: usize = shapes.iter().sum();
    assert_eq!(store.usage().used_bytes, total as u64);
    assert_eq!(store.usage().reserved_bytes, 0);
}

#[test]
fn a_wrong_chunk_is_refused_and_those_before_it_are_kept() {
    // T7
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(4 * CHUNK, 2);
    let content = create(&store, &right);
    let mut wrong = right.clone();
    wrong[2 * CHUNK + 9] ^= 1;
    let refused = content.commit(ChunkIndex(0), &wrong);
    assert!(
        matches!(refused, Err(CommitError::Corrupt { chunk: ChunkIndex(2), .. })),
        "{refused:?}"
    );
    assert_eq!(content.had().count(), 2);
    assert!(matches!(
        store.complete(from_ref(&content)),
        Err(CompleteError::Lacking { chunks: 2, .. })
    ));
    assert!(!content.is_complete());
    let mut into = vec![0; 3 * CHUNK];
    let refused = content.read(0..3 * CHUNK as u64, &mut into);
    assert!(matches!(refused, Err(ReadError::Absent { chunk: ChunkIndex(2), .. })));
}

#[test]
fn what_is_no_run_of_whole_chunks_is_refused() {
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(2 * CHUNK + 5, 3);
    let content = create(&store, &right);
    for (first, len) in [(0, 0), (0, 1), (0, CHUNK + 1), (0, 2 * CHUNK + 4), (2, 6), (3, 0), (9, 5)]
    {
        let refused = content.commit(ChunkIndex(first), &vec![0; len]);
        assert!(matches!(refused, Err(CommitError::Ragged { .. })), "{first} {len}");
    }
    content.commit(ChunkIndex(2), &right[2 * CHUNK..]).expect("the last chunk is shorter");
}

#[test]
fn after_a_kill_what_lies_beyond_the_slot_is_adopted() {
    // R34
    let folder = Folder::new();
    let right = bytes(8 * CHUNK, 4);
    let store = folder.open();
    let content = create(&store, &right);
    content.commit(ChunkIndex(0), &right[..2 * CHUNK]).expect("right");
    content.checkpoint().expect("the disk works");
    content.commit(ChunkIndex(4), &right[4 * CHUNK..6 * CHUNK]).expect("right");
    // What a kill leaves: nothing is checkpointed, nothing closed.
    drop((content, store));

    let store = folder.open();
    let content = store.content(ContentId::of(&right)).expect("readable").expect("known");
    assert_eq!(content.had().count(), 2);
    assert_eq!(content.adopt().expect("readable"), 2);
    assert_eq!(content.adopt().expect("readable"), 0);
    assert_eq!(
        content.had().runs().map(|run| run.to_string()).collect::<Vec<_>>(),
        ["0..2", "4..6"]
    );
    assert_eq!(store.usage().used_bytes, 4 * CHUNK as u64);
    content.checkpoint().expect("the disk works");
    drop((content, store));

    let store = folder.open();
    let content = store.content(ContentId::of(&right)).expect("readable").expect("known");
    assert_eq!(content.had().count(), 4);
}

#[test]
fn a_half_written_chunk_is_not_adopted() {
    // R34
    let folder = Folder::new();
    let right = bytes(3 * CHUNK, 5);
    let store = folder.open();
    drop(create(&store, &right));
    drop(store);
    let id = ContentId::of(&right);
    let mut file = fs::read(folder.file(id, "data")).expect("there");
    file[..CHUNK].copy_from_slice(&right[..CHUNK]);
    file[CHUNK..CHUNK + 100].copy_from_slice(&right[CHUNK..CHUNK + 100]);
    fs::write(folder.file(id, "data"), file).expect("written");
    let store = folder.open();
    let content = store.content(id).expect("readable").expect("known");
    assert_eq!(content.adopt().expect("readable"), 1);
    assert!(content.had().contains(ChunkIndex(0)));
}

#[test]
fn a_bit_flipped_while_stopped_is_never_served_and_is_fetched_again() {
    // R38, T8
    let folder = Folder::new();
    for len in [100, 4 * CHUNK] {
        let right = bytes(len, 6);
        let id = ContentId::of(&right);
        let store = folder.open();
        add(&store, &right);
        drop(store);
        folder.flip_bit(id, "data", len - 50);

        let store = folder.open();
        let content = store.content(id).expect("readable").expect("known");
        let mut into = vec![0; 10];
        let tail = len as u64 - 10..len as u64;
        assert!(content.read(tail.clone(), &mut into).is_err());
        assert!(!content.is_complete());
        let lacking = content.had().complement();
        assert_eq!(lacking.count(), 1);
        let chunk = content.geometry().last();
        assert!(lacking.contains(chunk));
        drop((content, store));

        // Another start does not believe in it either.
        let store = folder.open();
        let content = store.create(list(&right), &About::default()).expect("known");
        assert!(!content.had().contains(chunk));
        let place = content.geometry().chunk(chunk);
        content.commit(chunk, &right[place.start as usize..]).expect("right");
        store.complete(from_ref(&content)).expect("whole again");
        content.read(tail, &mut into).expect("whole again");
        assert_eq!(into, right[len - 10..]);
        assert_eq!(store.usage().reserved_bytes, 0);
    }
}

#[test]
fn a_bit_flipped_while_running_is_found_by_a_recheck() {
    // T8
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(4 * CHUNK, 7);
    let content = add(&store, &right);
    assert!(content.recheck(ChunkIndex(1)).expect("readable"));
    folder.flip_bit(content.id(), "data", CHUNK + 3);
    assert!(!content.recheck(ChunkIndex(1)).expect("readable"));
    assert!(matches!(read_all(&content), Err(ReadError::Absent { chunk: ChunkIndex(1), .. })));
    assert!(!store.list()[0].complete);
}

#[test]
fn a_chunk_is_hashed_once_even_when_it_is_read_in_parts() {
    let folder = Folder::new();
    let right = bytes(3 * CHUNK, 8);
    drop(add(&folder.open(), &right));
    let store = folder.open();
    let content = store.content(ContentId::of(&right)).expect("readable").expect("known");
    let mut into = vec![0; CHUNK];
    let middle = CHUNK / 2..CHUNK / 2 + CHUNK;
    content.read(middle.start as u64..middle.end as u64, &mut into).expect("intact");
    assert_eq!(into, right[middle]);
    assert_eq!(content.0.state().trusted.count(), 2);
    // Trust outlives the handle, so that a server that opens and closes hashes once.
    drop(content);
    let content = store.content(ContentId::of(&right)).expect("readable").expect("known");
    assert_eq!(content.0.state().trusted.count(), 2);
}

#[test]
fn the_vendors_digest_is_checked_before_a_content_is_complete() {
    // R39
    let folder = Folder::new();
    let store = folder.open();
    for len in [300, 3 * CHUNK] {
        let right = bytes(len, 9);
        let about = About { sha256: Some(sha256(b"else")), ..About::default() };
        let content = store.create(list(&right), &about).expect("made");
        content.commit(ChunkIndex(0), &right).expect("right");
        let refused = store.complete(from_ref(&content));
        assert!(
            matches!(refused, Err(CompleteError::Digest { found, .. }) if found == sha256(&right))
        );
        assert!(!content.is_complete());
        assert_eq!(store.by_digest(sha256(&right)), None);

        let about = About { sha256: Some(sha256(&right)), ..About::default() };
        let content = store.create(list(&right), &about).expect("the newer claim stands");
        store.complete(from_ref(&content)).expect("it agrees");
        assert_eq!(store.by_digest(sha256(&right)), Some(content.id()));
        let about = About { sha256: Some(sha256(b"else")), ..About::default() };
        let refused = store.create(list(&right), &about);
        assert!(matches!(refused, Err(CreateError::Digest { .. })));
    }
}

#[test]
fn name_and_origins_are_found_again_after_a_restart() {
    let folder = Folder::new();
    let right = bytes(2 * CHUNK, 10);
    let store = folder.open();
    let url = "https://vendor.example/a.deb";
    let about = About {
        name: Some("a.deb".into()),
        origins: vec![Origin { url: url.into(), etag: Some("\"1\"".into()), last_modified: None }],
        sha256: Some(sha256(&right)),
        ..About::default()
    };
    let content = store.create(list(&right), &about).expect("made");
    content.commit(ChunkIndex(0), &right).expect("right");
    store.complete(from_ref(&content)).expect("whole");
    let before = store.list();
    drop((content, store));
    let store = folder.open();
    assert_eq!(store.list(), before);
    assert_eq!(store.by_url(url), Some(ContentId::of(&right)));
    assert_eq!(store.by_digest(sha256(&right)), Some(ContentId::of(&right)));
    let content = store.content(ContentId::of(&right)).expect("readable").expect("known");
    assert_eq!(content.about(), about);
}

#[test]
fn many_small_contents_are_complete_behind_one_barrier() {
    let folder = Folder::new();
    let store = folder.open();
    let all: Vec<Vec<u8>> = (0..64).map(|seed| bytes(100 + seed, seed as u8)).collect();
    let contents: Vec<Content> = all
        .iter()
        .map(|bytes| {
            let content = create(&store, bytes);
            content.commit(ChunkIndex(0), bytes).expect("right");
            content
        })
        .collect();
    assert_eq!(store.list().len(), 0);
    store.complete(&contents).expect("all of them are there");
    assert!(contents.iter().all(Content::is_complete));
    assert_eq!(store.list().len(), 64);
    drop((contents, store));
    let store = folder.open();
    assert!(store.list().iter().all(|entry| entry.complete));
}

#[test]
fn one_bad_content_does_not_hold_back_its_group() {
    let folder = Folder::new();
    let store = folder.open();
    let lacking = create(&store, &bytes(10, 1));
    let whole = create(&store, &bytes(10, 2));
    whole.commit(ChunkIndex(0), &bytes(10, 2)).expect("right");
    let refused = store.complete(&[lacking.clone(), whole.clone()]);
    assert!(matches!(refused, Err(CompleteError::Lacking { .. })));
    assert!(whole.is_complete() && !lacking.is_complete());
}

#[test]
fn a_checkpoint_is_due_by_bytes_or_by_time() {
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(2 * CHUNK, 12);
    let content = create(&store, &right);
    let start = Instant::now();
    assert!(!content.checkpoint_due(start + Duration::from_secs(9)));
    content.commit(ChunkIndex(0), &right[..CHUNK]).expect("right");
    assert!(!content.checkpoint_due(start));
    assert!(!content.checkpoint_due(start + Duration::from_millis(999)));
    assert!(content.checkpoint_due(start + CHECKPOINT_INTERVAL));
    content.checkpoint().expect("the disk works");
    assert!(!content.checkpoint_due(start + Duration::from_secs(9)));
}

#[test]
fn a_second_owner_is_refused() {
    let folder = Folder::new();
    let store = folder.open();
    let content = create(&store, &bytes(2 * CHUNK, 1));
    drop(store);
    // A lease keeps the store open.
    let refused = Store::open(folder.0.path(), StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::Owned)));
    drop(content);
    folder.open();
}

#[test]
fn handles_of_one_content_share_what_is_had() {
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(2 * CHUNK, 13);
    let one = create(&store, &right);
    let other = store.content(one.id()).expect("readable").expect("known");
    one.commit(ChunkIndex(1), &right[CHUNK..]).expect("right");
    assert!(other.had().contains(ChunkIndex(1)));
    // Also when every handle goes and none had a checkpoint.
    drop((one, other));
    let again = store.content(ContentId::of(&right)).expect("readable").expect("known");
    assert!(again.had().contains(ChunkIndex(1)));
    assert_eq!(store.usage().used_bytes, CHUNK as u64);
}

#[test]
fn a_false_length_gives_way_until_something_is_had() {
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(2 * CHUNK, 14);
    let lie =
        HashList::verify(list(&right).as_bytes(), ContentId::of(&right), 2 * CHUNK as u64 - 1);
    let lied = store.create(lie.expect("the same tree"), &About::default()).expect("a claim");
    // Not while somebody works on it.
    let refused = store.create(list(&right), &About::default());
    assert!(matches!(refused, Err(CreateError::Length { .. })));
    assert!(lied.commit(ChunkIndex(1), &right[CHUNK..2 * CHUNK - 1]).is_err());
    drop(lied);
    let content = store.create(list(&right), &About::default()).expect("another claim");
    content.commit(ChunkIndex(0), &right).expect("the right length");
    store.complete(&[content]).expect("whole");
}

#[test]
fn commits_and_reads_of_one_content_run_side_by_side() {
    let folder = Folder::new();
    let store = folder.open();
    let right = bytes(64 * CHUNK, 15);
    let content = create(&store, &right);
    std::thread::scope(|scope| {
        for lane in 0..4u32 {
            let (content, right) = (content.clone(), &right);
            scope.spawn(move || {
                for chunk in (0..64).filter(|chunk| chunk % 4 == lane) {
                    let at = chunk as usize * CHUNK;
                    let bytes = &right[at..at + CHUNK];
                    content.commit(ChunkIndex(chunk), bytes).expect("right");
                    let mut into = vec![0; CHUNK];
                    content.read(at as u64..(at + CHUNK) as u64, &mut into).expect("had");
                    assert_eq!(into, bytes);
                }
            });
        }
        let content = content.clone();
        scope.spawn(move || {
            while !content.had().is_full() {
                content.checkpoint().expect("the disk works");
            }
        });
    });
    store.complete(from_ref(&content)).expect("whole");
    assert_eq!(read_all(&content).expect("intact"), right);
}

#[test]
fn what_does_not_fit_the_quota_is_refused() {
    let folder = Folder::new();
    let options = StoreOptions { bytes_max: NonZeroU64::new(CHUNK as u64 * 3), free_bytes_min: 0 };
    let store = Store::open(folder.0.path(), options).expect("opens");
    let first = create(&store, &bytes(2 * CHUNK, 1));
    let refused = store.create(list(&bytes(2 * CHUNK, 2)), &About::default());
    assert!(
        matches!(refused, Err(CreateError::Full { needed_bytes }) if needed_bytes == CHUNK as u64)
    );
    drop(first);
    create(&store, &bytes(2 * CHUNK, 2));
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let folder = Folder::new();
    drop(add(&folder.open(), &bytes(10, 1)));
    fs::write(folder.0.path().join("format"), "sutler store 2\n").expect("written");
    let refused = Store::open(folder.0.path(), StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::Newer { found: 2 })));
    for rubbish in ["", "sutler store", "sutler store 0\n", "sutler store 1", "\u{fffd}"] {
        fs::write(folder.0.path().join("format"), rubbish).expect("written");
        let refused = Store::open(folder.0.path(), StoreOptions::default());
        assert!(matches!(refused, Err(OpenError::Format)), "{rubbish:?}");
    }
    fs::write(folder.0.path().join("format"), "sutler store 1\n").expect("written");
    assert_eq!(folder.open().list().len(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_in_is_named_as_such() {
    let refused = Store::open(std::path::Path::new("/proc/self"), StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::Lock(_))), "{refused:?}");
    let folder = Folder::new();
    let file = folder.0.path().join("file");
    fs::write(&file, "").expect("written");
    let refused = Store::open(&file, StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::Folder(_))), "{refused:?}");
}

#[test]
fn a_damaged_record_is_set_aside_and_rebuilt_from_data_and_list() {
    let folder = Folder::new();
    for len in [10, 3 * CHUNK] {
        let right = bytes(len, 20);
        let id = ContentId::of(&right);
        drop(add(&folder.open(), &right));
        for restart in [true, false] {
            let store = folder.open();
            fs::write(folder.file(id, "rec"), "rubbish").expect("written");
            let store = if restart {
                drop(store);
                folder.open()
            } else {
                store
            };
            let content = store.content(id).expect("readable").expect("rebuilt");
            content.adopt().expect("readable");
            store.complete(from_ref(&content)).expect("all of it is there");
            assert_eq!(read_all(&content).expect("intact"), right);
            assert_eq!(
                store.usage().used_bytes,
                store.list().iter().map(|e| e.had_bytes).sum::<u64>()
            );
            assert!(folder.0.path().join(format!("damaged/{id}.rec")).exists());
        }
    }
}

#[test]
fn a_torn_slot_gives_way_to_the_one_before_it() {
    // R34
    let folder = Folder::new();
    let right = bytes(4 * CHUNK, 21);
    let id = ContentId::of(&right);
    let store = folder.open();
    let content = create(&store, &right);
    for chunk in 0..2 {
        let at = chunk * CHUNK;
        content.commit(ChunkIndex(chunk as u32), &right[at..at + CHUNK]).expect("right");
        content.checkpoint().expect("the disk works");
    }
    drop((content, store));
    // Generation 2, in the first slot, is the newest.
    folder.flip_bit(id, "rec", 40);
    let store = folder.open();
    let content = store.content(id).expect("readable").expect("known");
    assert_eq!(content.had().count(), 1);
    assert_eq!(content.adopt().expect("readable"), 1);
}

#[test]
fn a_record_of_a_newer_format_is_refused_and_left_alone() {
    let folder = Folder::new();
    let right = bytes(10, 22);
    let id = ContentId::of(&right);
    drop(add(&folder.open(), &right));
    let mut record = fs::read(folder.file(id, "rec")).expect("there");
    record[8] = 9;
    let body = record.len() - 32;
    let checksum = *blake3::hash(&record[..body]).as_bytes();
    record[body..].copy_from_slice(&checksum);
    fs::write(folder.file(id, "rec"), &record).expect("written");
    let store = folder.open();
    assert!(matches!(store.content(id), Err(ReadError::Record { .. })));
    assert_eq!(fs::read(folder.file(id, "rec")).expect("there"), record);
}

#[test]
fn a_damaged_list_is_made_again_from_whole_data_or_by_whoever_brings_it() {
    let folder = Folder::new();
    let right = bytes(4 * CHUNK, 23);
    let id = ContentId::of(&right);
    drop(add(&folder.open(), &right));
    folder.flip_bit(id, "list", 5);
    let store = folder.open();
    let content = store.content(id).expect("readable").expect("made from the data");
    assert_eq!(content.hashes(), &list(&right));
    content.recheck(ChunkIndex(0)).expect("readable");
    drop((content, store));

    folder.flip_bit(id, "list", 5);
    folder.flip_bit(id, "data", 5);
    let store = folder.open();
    assert!(store.content(id).expect("readable").is_none());
    let content = create(&store, &right);
    assert!(matches!(read_all(&content), Err(ReadError::Corrupt { chunk: ChunkIndex(0), .. })));
    content.commit(ChunkIndex(0), &right[..CHUNK]).expect("right");
    store.complete(from_ref(&content)).expect("whole");
    drop((content, store));
    let content = folder.open().content(id).expect("readable").expect("known");
    assert_eq!(read_all(&content).expect("intact"), right);
}

#[test]
fn a_data_file_of_another_length_is_believed_only_as_far_as_it_goes() {
    let folder = Folder::new();
    let right = bytes(4 * CHUNK, 24);
    let id = ContentId::of(&right);
    drop(add(&folder.open(), &right));
    let resize = |len: usize| {
        let file = fs::OpenOptions::new().write(true).open(folder.file(id, "data"));
        file.and_then(|file| file.set_len(len as u64)).expect("resized");
    };
    resize(4 * CHUNK + 9);
    let content = folder.open().content(id).expect("readable").expect("known");
    assert!(content.is_complete());
    drop(content);
    assert_eq!(fs::metadata(folder.file(id, "data")).expect("there").len(), 4 * CHUNK as u64);

    resize(2 * CHUNK + 9);
    let store = folder.open();
    let content = create(&store, &right);
    assert!(!content.is_complete());
    assert_eq!(content.had().count(), 2);
    content.commit(ChunkIndex(2), &right[2 * CHUNK..]).expect("right");
    store.complete(from_ref(&content)).expect("whole");
    drop((content, store));

    fs::remove_file(folder.file(id, "data")).expect("removed");
    let store = folder.open();
    assert_eq!(store.usage().used_bytes, 0);
    let content = create(&store, &right);
    assert!(content.had().is_empty());
    drop(content);
    let content = create(&store, &right);
    content.commit(ChunkIndex(0), &right).expect("right");
    store.complete(from_ref(&content)).expect("whole");
    assert_eq!(store.usage().used_bytes, 4 * CHUNK as u64);
}

#[test]
fn a_store_that_was_closed_is_the_same_as_one_that_was_killed() {
    let folder = Folder::new();
    let store = folder.open();
    add(&store, &bytes(10, 25));
    add(&store, &bytes(3 * CHUNK, 25));
    let part = create(&store, &bytes(3 * CHUNK, 26));
    part.commit(ChunkIndex(0), &bytes(3 * CHUNK, 26)[..CHUNK]).expect("right");
    drop(part);
    store.close().expect("the disk works");
    let before = store.list();
    assert!(before.iter().any(|entry| entry.had_bytes == CHUNK as u64));
    drop(store);
    let store = folder.open();
    assert_eq!(store.list(), before);
    // Killed: not closed.
    drop(store);
    assert_eq!(folder.open().list(), before);
}

#[test]
fn the_day_of_access_is_in_the_records_after_a_close() {
    let folder = Folder::new();
    let right = bytes(3 * CHUNK, 27);
    let id = ContentId::of(&right);
    drop(add(&folder.open(), &right));
    let path = folder.file(id, "rec");
    let (generation, mut record) =
        crate::record::Record::read(&fs::read(&path).expect("there")).expect("whole");
    record.last_access = Day(1);
    fs::write(&path, record.encode(generation)).expect("written");
    let store = folder.open();
    assert_eq!(store.list()[0].last_access, Day(1));
    drop(store.content(id).expect("readable").expect("known"));
    assert_eq!(store.list()[0].last_access, today());
    store.close().expect("the disk works");
    drop(store);
    fs::remove_dir_all(folder.0.path().join("index")).expect("removed");
    assert_eq!(folder.open().list()[0].last_access, today());
}

#[test]
fn a_small_content_whose_record_came_before_its_data_is_not_had() {
    // R34
    let folder = Folder::new();
    let right = bytes(CHUNK, 28);
    let id = ContentId::of(&right);
    drop(add(&folder.open(), &right));
    for lost in [vec![], vec![0; CHUNK]] {
        fs::write(folder.file(id, "data"), lost).expect("written");
        let store = folder.open();
        let content = store.content(id).expect("readable").expect("known");
        assert!(content.had().is_empty() && !content.is_complete());
        content.commit(ChunkIndex(0), &right).expect("right");
        store.complete(from_ref(&content)).expect("whole");
    }
}

#[test]
fn small_contents_that_were_killed_before_their_group_was_synced_are_found() {
    // R34
    let folder = Folder::new();
    let right = bytes(100, 29);
    let store = folder.open();
    let content = create(&store, &right);
    content.commit(ChunkIndex(0), &right).expect("right");
    drop((content, store));
    let torn = folder.file(ContentId::of(b"torn"), "data");
    fs::create_dir_all(torn.parent().expect("has one")).expect("made");
    fs::write(&torn, "to").expect("written");
    let store = folder.open();
    let content = store.content(ContentId::of(&right)).expect("readable").expect("found");
    assert!(content.is_complete());
    assert!(!torn.exists());
}

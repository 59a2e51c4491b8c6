//! What lies on the disk goes bad, and is found out before anybody is given it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sutler_cache::backend::faulty::Faulty;
use sutler_cache::import::ImportFrom;
use sutler_cache::scrub::{ScrubStep, Verified};
use sutler_cache::{About, ReadError, Store, StoreOptions};
use sutler_protocol::{ChunkIndex, ContentId};

const CHUNK: usize = 64 * 1024;

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn open(disk: &Faulty) -> Store {
    Store::open_on(Arc::new(disk.clone()), StoreOptions::default()).expect("the store opens")
}

fn add(store: &Store, data: &[u8]) -> ContentId {
    let from = ImportFrom::Stream(&mut &data[..]);
    store.import(from, &About::default()).expect("imported").content.id()
}

fn data_file(id: ContentId) -> PathBuf {
    let id = id.to_string();
    Path::new("contents").join(&id[..2]).join(format!("{id}.data"))
}

/// Runs a scrub to its end and returns the bad chunks.
fn scrubbed(store: &Store) -> Vec<(ContentId, ChunkIndex)> {
    let mut bad = Vec::new();
    let mut scrub = store.scrub();
    loop {
        match scrub.step() {
            ScrubStep::Good { .. } => {}
            ScrubStep::Bad { content, chunk, .. } => bad.push((content, chunk)),
            ScrubStep::Unreadable { content, error } => panic!("{content}: {error}"),
            ScrubStep::Done => return bad,
        }
    }
}

// R38, T8
#[test]
fn a_bit_flipped_while_running_is_found_put_down_and_healed() {
    let disk = Faulty::new();
    let store = open(&disk);
    let data = bytes(5 * CHUNK + 9, 1);
    let (large, small) = (add(&store, &data), add(&store, b"small"));
    assert_eq!(scrubbed(&store), []);

    disk.flip(&data_file(large), 3 * CHUNK + 1);
    disk.flip(&data_file(small), 2);
    let mut bad = vec![(large, ChunkIndex(3)), (small, ChunkIndex(0))];
    bad.sort();
    assert_eq!(scrubbed(&store), bad);
    assert_eq!(scrubbed(&store), [], "what lacks is not looked at");

    let content = store.content(large).expect("opened").expect("known");
    let mut buffer = vec![0; CHUNK];
    let range = 3 * CHUNK as u64..4 * CHUNK as u64;
    let refused = content.read(range.clone(), &mut buffer);
    assert!(matches!(refused, Err(ReadError::Absent { .. })), "{refused:?}");
    content.commit(ChunkIndex(3), &data[3 * CHUNK..4 * CHUNK]).expect("fetched again");
    store.complete(std::slice::from_ref(&content)).expect("healed");
    content.read(range, &mut buffer).expect("read");
    assert_eq!(buffer, data[3 * CHUNK..4 * CHUNK]);
}

// R38
#[test]
fn what_a_scrub_put_down_is_still_lacking_after_a_kill() {
    let disk = Faulty::new();
    let store = open(&disk);
    let id = add(&store, &bytes(3 * CHUNK, 2));
    disk.flip(&data_file(id), 0);
    assert_eq!(scrubbed(&store), [(id, ChunkIndex(0))]);
    let store = open(&disk.restart(0));
    let content = store.content(id).expect("opened").expect("known");
    assert!(!content.had().contains(ChunkIndex(0)) && !content.is_complete());
}

#[test]
fn a_verification_names_what_is_bad() {
    let disk = Faulty::new();
    let store = open(&disk);
    let id = add(&store, &bytes(4 * CHUNK, 3));
    let good = Verified { chunks: 4, bad: Vec::new(), complete: true };
    assert_eq!(store.verify(id).expect("opened"), Some(good));
    disk.flip(&data_file(id), 2 * CHUNK);
    let found = Verified { chunks: 4, bad: vec![ChunkIndex(2)], complete: false };
    assert_eq!(store.verify(id).expect("opened"), Some(found));
    assert_eq!(store.verify(ContentId::of(b"unknown")).expect("asked"), None);
}

#[test]
fn a_content_that_goes_during_a_scrub_is_passed_over() {
    let disk = Faulty::new();
    let store = open(&disk);
    let mut ids = [add(&store, &bytes(CHUNK, 4)), add(&store, &bytes(2 * CHUNK, 5))];
    ids.sort();
    let mut scrub = store.scrub();
    assert!(matches!(scrub.step(), ScrubStep::Good { .. }));
    store.remove(ids[1]).expect("nobody has it");
    while !matches!(scrub.step(), ScrubStep::Done) {}
    assert_eq!(scrub.contents_ahead(), 0);
}

//! The store on a disk that fails at every operation in turn.
//!
//! A short life of a store is run again and again, each time with the next operation failing.
//! Whatever was acknowledged before must be there afterwards, and whatever is given out is right.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;

use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::{About, Content, Store, StoreOptions};
use sutler_protocol::{ChunkIndex, ChunkRanges, ContentId, HashList, HashListBuilder};

const CHUNK: usize = 64 * 1024;

/// Ways in which the unsynced part of a disk comes out of a power cut, for each operation.
const SEEDS: u64 = 3;

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn list(bytes: &[u8]) -> HashList {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    builder.finish().expect("within the bound")
}

fn contents() -> BTreeMap<ContentId, Vec<u8>> {
    let smalls = (1..=10).map(|seed| bytes(40 * usize::from(seed), seed));
    let larges = [bytes(4 * CHUNK + 5, 20), bytes(3 * CHUNK, 21)];
    smalls.chain(larges).map(|bytes| (ContentId::of(&bytes), bytes)).collect()
}

/// What the store said would stay.
#[derive(Default)]
struct Promised {
    complete: Vec<ContentId>,
    had: BTreeMap<ContentId, ChunkRanges>,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn open(disk: &Faulty) -> Result<Store, sutler_cache::OpenError> {
    Store::open_on(Arc::new(disk.clone()), StoreOptions::default())
}

/// Two groups of small contents, a large one that becomes complete, one that stays in part, and a
/// chunk that goes bad and is fetched again. Ends at the first error.
fn live(disk: &Faulty, promised: &mut Promised) -> Outcome {
    let store = open(disk)?;
    let contents = contents();
    let small: Vec<&Vec<u8>> = contents.values().filter(|bytes| bytes.len() < CHUNK).collect();
    for group in [&small[..8], &small[8..]] {
        let mut handles: Vec<Content> = Vec::new();
        for bytes in group {
            let content = store.create(list(bytes), &About::default())?;
            content.commit(ChunkIndex(0), bytes)?;
            handles.push(content);
        }
        store.complete(&handles)?;
        promised.complete.extend(handles.iter().map(Content::id));
    }
    let larges: Vec<&Vec<u8>> = contents.values().filter(|bytes| bytes.len() > CHUNK).collect();
    for (bytes, stop) in larges.iter().zip([u32::MAX, 2]) {
        let content = store.create(list(bytes), &About::default())?;
        for (chunk, bytes) in (0..stop).zip(bytes.chunks(CHUNK)) {
            content.commit(ChunkIndex(chunk), bytes)?;
            if chunk % 2 == 0 {
                let had = content.had();
                content.checkpoint()?;
                promised.had.insert(content.id(), had);
            }
        }
        if stop == u32::MAX {
            store.complete(from_ref(&content))?;
            promised.complete.push(content.id());
        }
    }
    store.close()?;
    Ok(())
}

/// Two groups of small contents, both written before either is made complete. The second goes on
/// whatever became of the first.
fn live_side_by_side(disk: &Faulty, promised: &mut Promised) -> Outcome {
    let store = open(disk)?;
    let contents = contents();
    let small: Vec<&Vec<u8>> = contents.values().filter(|bytes| bytes.len() < CHUNK).collect();
    let mut handles: Vec<Content> = Vec::new();
    for bytes in small {
        let content = store.create(list(bytes), &About::default())?;
        content.commit(ChunkIndex(0), bytes)?;
        handles.push(content);
    }
    for group in [&handles[..8], &handles[8..]] {
        // A refusal is one of those that the disk was told to give.
        drop(store.complete(group));
        let complete = group.iter().filter(|content| content.is_complete());
        promised.complete.extend(complete.map(Content::id));
    }
    Ok(())
}

/// Opens the store and checks every promise, and every byte that is given out beyond them.
fn examine(disk: &Faulty, promised: &Promised, context: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    for (id, bytes) in contents() {
        let content = store.content(id).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        if let Some(content) = content {
            examine_one(&content, &bytes, promised, context);
        } else {
            assert!(!promised.complete.contains(&id), "{context}: {id} is gone");
            assert!(!promised.had.contains_key(&id), "{context}: {id} is gone");
        }
        // Whatever is lacking can be fetched now.
        let content = store.create(list(&bytes), &About::default()).expect("there is room");
        for chunk in content.had().complement().iter() {
            let place = content.geometry().chunk(chunk);
            let bytes = &bytes[place.start as usize..place.end as usize];
            content.commit(chunk, bytes).expect("the right bytes");
        }
        store.complete(from_ref(&content)).expect("all of it is there");
    }
    let total: usize = contents().values().map(Vec::len).sum();
    assert_eq!(store.usage().used_bytes, total as u64, "{context}");
}

fn examine_one(content: &Content, bytes: &[u8], promised: &Promised, context: &str) {
    let id = content.id();
    if promised.complete.contains(&id) {
        assert!(content.is_complete(), "{context}: {id} is not complete");
    }
    if let Some(had) = promised.had.get(&id) {
        assert!(had.iter().all(|chunk| content.had().contains(chunk)), "{context}: {id}");
    }
    content.adopt().unwrap_or_else(|error| panic!("{context}: {error:?}"));
    for chunk in content.had().iter() {
        let place = content.geometry().chunk(chunk);
        let mut into = vec![0; (place.end - place.start) as usize];
        let read = content.read(place.clone(), &mut into);
        assert!(read.is_ok(), "{context}: chunk {chunk} of {id}: {read:?}");
        assert_eq!(into, bytes[place.start as usize..place.end as usize], "{context}");
    }
}

fn operations() -> u64 {
    let disk = Faulty::new();
    live(&disk, &mut Promised::default()).expect("nothing fails");
    disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_takes_nothing_that_was_acknowledged() {
    // R34
    for operation in 0..=operations() {
        for seed in 0..SEEDS {
            let disk = Faulty::new();
            disk.plan(&[Fault::PowerCut(operation)]);
            let mut promised = Promised::default();
            // It fails wherever the power went.
            drop(live(&disk, &mut promised));
            let context = format!("power cut at operation {operation}, seed {seed}");
            examine(&disk.restart(seed), &promised, &context);
        }
    }
}

#[test]
fn an_error_at_any_operation_takes_nothing_that_was_acknowledged() {
    // R34
    for operation in 0..operations() {
        let disk = Faulty::new();
        disk.plan(&[Fault::Error(operation)]);
        let mut promised = Promised::default();
        drop(live(&disk, &mut promised));
        disk.plan(&[]);
        examine(&disk.restart(operation), &promised, &format!("error at {operation}, power cut"));
        examine(&disk, &promised, &format!("error at operation {operation}"));
    }
}

#[test]
fn a_barrier_that_fails_puts_in_doubt_what_another_group_wrote_before_it() {
    let disk = Faulty::new();
    live_side_by_side(&disk, &mut Promised::default()).expect("nothing fails");
    let mut refused = 0;
    for operation in 0..disk.operations() {
        for seed in 0..SEEDS {
            let disk = Faulty::new();
            disk.plan(&[Fault::Error(operation)]);
            let mut promised = Promised::default();
            drop(live_side_by_side(&disk, &mut promised));
            refused += u32::from(promised.complete.is_empty());
            disk.plan(&[]);
            let context = format!("error at {operation}, power cut, seed {seed}");
            examine(&disk.restart(seed), &promised, &context);
        }
    }
    assert!(refused > 0, "the barrier was among the operations");
}

#[test]
fn a_full_disk_at_any_operation_is_said_and_survived() {
    for operation in 0..operations() {
        let disk = Faulty::new();
        disk.plan(&[Fault::Full(operation)]);
        let mut promised = Promised::default();
        drop(live(&disk, &mut promised));
        disk.plan(&[]);
        examine(&disk, &promised, &format!("full at operation {operation}"));
    }
}

#[test]
fn a_disk_that_loses_or_tears_a_write_never_makes_a_wrong_byte_go_out() {
    // R38
    for operation in 0..operations() {
        for fault in [Fault::Lost(operation), Fault::Torn(operation)] {
            let disk = Faulty::new();
            disk.plan(&[fault]);
            drop(live(&disk, &mut Promised::default()));
            // The format file itself may be the one: closed then, and never taken for empty.
            let Ok(store) = open(&disk.restart(operation)) else { continue };
            for (id, bytes) in contents() {
                let Ok(Some(content)) = store.content(id) else { continue };
                for chunk in content.had().iter() {
                    let place = content.geometry().chunk(chunk);
                    let mut into = vec![0; (place.end - place.start) as usize];
                    if content.read(place.clone(), &mut into).is_ok() {
                        let right = &bytes[place.start as usize..place.end as usize];
                        assert_eq!(into, right, "{fault:?}");
                    }
                }
            }
        }
    }
}

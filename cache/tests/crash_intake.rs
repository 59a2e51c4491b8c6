//! Imports, evictions, quarantine and standings on a disk that fails at every operation in turn.
//!
//! One life takes contents in by each way, pins one, and evicts for room; it is run again and again
//! with the next operation failing. What was acknowledged is there afterwards, what was pinned is
//! pinned, nothing is known that was not vouched for, and no wrong byte goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::eviction::{Pin, Risk, Standing};
use sutler_cache::import::ImportFrom;
use sutler_cache::quarantine::QuarantineKey;
use sutler_cache::{About, Origin, Store, StoreOptions};
use sutler_protocol::{ContentId, Sha256Digest};

const PINNED: Standing = Standing::Pinned(Pin::Order(Risk(3)));

/// Ways in which the unsynced part of a disk comes out of a power cut, for each operation.
const SEEDS: u64 = 4;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What the store said.
#[derive(Default)]
struct Said {
    complete: BTreeSet<ContentId>,
    pinned: Option<ContentId>,
    /// Given to the store before anything was said of it: it may be there or not.
    begun: BTreeSet<ContentId>,
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn pinned() -> Vec<u8> {
    bytes(150_000, 1)
}

fn evicted() -> Vec<u8> {
    bytes(140_000, 2)
}

fn newcomer() -> Vec<u8> {
    bytes(160_000, 3)
}

fn small() -> Vec<u8> {
    bytes(700, 4)
}

fn filled() -> Vec<u8> {
    bytes(70_000, 5)
}

fn removed() -> Vec<u8> {
    bytes(800, 6)
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().expect("32 bytes"))
}

fn open(disk: &Faulty) -> Result<Store, sutler_cache::OpenError> {
    // Room for two of the large ones and the rest.
    let options = StoreOptions { bytes_max: NonZeroU64::new(400_000), free_bytes_min: 0 };
    Store::open_on(Arc::new(disk.clone()), options)
}

/// Runs until the first error.
fn live(disk: &Faulty, said: &mut Said) -> Outcome {
    let store = open(disk)?;
    for data in [pinned(), evicted(), small(), removed()] {
        add(&store, &data, said)?;
    }
    let pin = ContentId::of(&pinned());
    store.set_standings(BTreeMap::from([(pin, PINNED)]))?;
    said.pinned = Some(pin);

    let gone = ContentId::of(&removed());
    said.complete.remove(&gone);
    store.remove(gone)?;

    // Evicts the one large content that is not pinned, and perhaps a small one.
    said.complete.remove(&ContentId::of(&evicted()));
    said.complete.remove(&ContentId::of(&small()));
    add(&store, &newcomer(), said)?;

    let data = filled();
    said.begun.insert(ContentId::of(&data));
    let quarantine =
        store.quarantine(QuarantineKey::Digest(sha256(&data)), Some(data.len() as u64))?;
    quarantine.set_origin(&Origin::at("https://vendor.example/filled"))?;
    quarantine.write_at(0, &data[..30_000])?;
    quarantine.checkpoint()?;
    quarantine.write_at(30_000, &data[30_000..])?;
    let content = quarantine.promote(&About::default())?.content;
    said.complete.insert(content.id());
    store.close()?;
    Ok(())
}

fn add(store: &Store, data: &[u8], said: &mut Said) -> Outcome {
    said.begun.insert(ContentId::of(data));
    let about = About { sha256: Some(sha256(data)), ..About::default() };
    let imported = store.import(ImportFrom::Stream(&mut &*data), &about)?;
    said.complete.insert(imported.content.id());
    Ok(())
}

/// Opens the store and checks what was said, and every byte that is given out.
fn examine(disk: &Faulty, said: &Said, context: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    for entry in store.list() {
        assert!(said.begun.contains(&entry.id), "{context}: {} is listed", entry.id);
    }
    if let Some(id) = said.pinned {
        assert_eq!(store.standing(id), PINNED, "{context}");
    }
    for data in [pinned(), evicted(), newcomer(), small(), filled(), removed()] {
        examine_one(&store, &data, said, context);
    }
    // Whatever came of it, the store takes in what it lacks.
    let outcome = add(&store, &filled(), &mut Said::default());
    assert!(outcome.is_ok(), "{context}: {outcome:?}");
    let listed: u64 = store.list().iter().map(|entry| entry.had_bytes).sum();
    let usage = store.usage();
    assert!(usage.used_bytes >= listed, "{context}: {usage:?}, {listed} listed");
}

fn examine_one(store: &Store, data: &[u8], said: &Said, context: &str) {
    let id = ContentId::of(data);
    let content = store.content(id).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let promised = said.complete.contains(&id);
    let Some(content) = content else {
        assert!(!promised, "{context}: {id} is gone");
        return;
    };
    assert!(content.is_complete() || !promised, "{context}: {id} is not complete");
    for chunk in content.had().iter() {
        let place = content.geometry().chunk(chunk);
        let mut into = vec![0; (place.end - place.start) as usize];
        let read = content.read(place.clone(), &mut into);
        if promised {
            assert!(read.is_ok(), "{context}: chunk {chunk} of {id}: {read:?}");
        }
        if read.is_ok() {
            assert_eq!(into, data[place.start as usize..place.end as usize], "{context}");
        }
    }
}

fn operations() -> u64 {
    let disk = Faulty::new();
    live(&disk, &mut Said::default()).expect("nothing fails");
    disk.operations()
}

// R32, R34
#[test]
fn a_power_cut_at_any_operation_takes_nothing_that_was_acknowledged_or_pinned() {
    for operation in 0..=operations() {
        for seed in 0..SEEDS {
            let disk = Faulty::new();
            disk.plan(&[Fault::PowerCut(operation)]);
            let mut said = Said::default();
            // It ends wherever the power went.
            drop(live(&disk, &mut said));
            let context = format!("power cut at operation {operation}, seed {seed}");
            examine(&disk.restart(seed), &said, &context);
        }
    }
}

// R34
#[test]
fn an_error_at_any_operation_takes_nothing_that_was_acknowledged_or_pinned() {
    for operation in 0..operations() {
        let disk = Faulty::new();
        disk.plan(&[Fault::Error(operation)]);
        let mut said = Said::default();
        drop(live(&disk, &mut said));
        disk.plan(&[]);
        examine(&disk.restart(operation), &said, &format!("error at {operation}, power cut"));
        examine(&disk, &said, &format!("error at operation {operation}"));
    }
}

// R32
#[test]
fn a_full_disk_at_any_operation_is_said_and_survived() {
    for operation in 0..operations() {
        let disk = Faulty::new();
        disk.plan(&[Fault::Full(operation)]);
        let mut said = Said::default();
        drop(live(&disk, &mut said));
        disk.plan(&[]);
        examine(&disk, &said, &format!("full at operation {operation}"));
    }
}

// R38, T7
#[test]
fn a_disk_that_loses_or_tears_a_write_never_makes_a_wrong_byte_go_out() {
    for operation in 0..operations() {
        for fault in [Fault::Lost(operation), Fault::Torn(operation)] {
            let disk = Faulty::new();
            disk.plan(&[fault]);
            let mut said = Said::default();
            drop(live(&disk, &mut said));
            // The format file itself may be the one: closed then, and never taken for empty.
            let Ok(store) = open(&disk.restart(operation)) else { continue };
            // Acknowledged, and lied about by the disk: it may lack, and is never wrong.
            said.complete.clear();
            for data in [pinned(), evicted(), newcomer(), small(), filled(), removed()] {
                examine_one(&store, &data, &said, &format!("{fault:?}"));
            }
        }
    }
}

//! Disks that are full or fail while something arrives: the error says so, and what was had stays.

use std::num::NonZeroU64;
use std::sync::Arc;

use sutler_cache::StoreOptions;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_protocol::geometry::CHUNK_BYTES_MIN;
use sutler_swarm::FetchError;
use sutler_swarm::gateway::causes;
use sutler_swarm::identity::Role;

use super::machines::{Organisation, Setup, add, begin, bytes, commit, read, soon, unseen, wanted};

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

/// A fault at an operation, and the chunks that were had before it.
type Planned = dyn Fn(u64) -> (Fault, u32) + Sync;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_without_room_says_so_and_loses_nothing() {
    let organisation = Organisation::new();
    let node = organisation.node();
    let (large, small) = (bytes(80 * CHUNK, 1), bytes(10 * CHUNK, 2));
    let large_id = add(&node.store, &large).id();
    let bytes_max = NonZeroU64::new(20 * CHUNK_BYTES_MIN);
    let options = StoreOptions { bytes_max, free_bytes_min: 0 };
    let agent = organisation.set_up(Setup { options, ..Setup::of(Role::Agent) });
    let kept = add(&agent.store, &small);
    let fetch = wanted(large_id, &[&node]);
    let progress = unseen();
    let fetching = agent.fetcher.fetch(&fetch, &progress);
    let error = soon("it gives up", fetching).await.err().unwrap();
    assert!(matches!(error, FetchError::Create(_)), "{error:?}");
    assert!(causes(&error).contains("room"), "{}", causes(&error));
    assert_eq!(read(&kept), small);
    // What fits is fetched as ever.
    let fits = add(&node.store, &bytes(5 * CHUNK, 3)).id();
    soon("it fits", agent.fetcher.fetch(&wanted(fits, &[&node]), &unseen())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_fails_in_mid_transfer_is_named_and_what_was_had_stays() {
    let organisation = Organisation::new();
    let node = organisation.node();
    let sent = bytes(64 * CHUNK, 4);
    let id = add(&node.store, &sent).id();
    let full = |at| (Fault::Full(at), 0);
    let error = |at| (Fault::Error(at), 8);
    // From the first operation of the fetch to one in the middle of it.
    let faults: [(u64, &Planned); 6] =
        [(0, &full), (4, &full), (0, &error), (3, &error), (20, &error), (60, &error)];
    for (after, fault) in faults {
        let disk = Faulty::new();
        let backend = Some(Arc::new(disk.clone()) as _);
        let agent = organisation.set_up(Setup { backend, ..Setup::of(Role::Agent) });
        let kept = fault(0).1;
        // A part of it lies there from before, unless that would have taken all the room it needs.
        if kept > 0 {
            let content = begin(&agent.store, &sent);
            commit(&content, &sent, 0..kept);
            content.checkpoint().unwrap();
        }
        disk.plan(&[fault(disk.operations() + after).0]);
        let fetch = wanted(id, &[&node]);
        let progress = unseen();
        let fetching = agent.fetcher.fetch(&fetch, &progress);
        let result = soon("it ends", fetching).await;
        // One failure may hit what need not succeed, or is tried again.
        if let Err(error) = &result {
            let named = matches!(
                error,
                FetchError::Create(_)
                    | FetchError::Commit(_)
                    | FetchError::Checkpoint(_)
                    | FetchError::Complete { .. }
            );
            assert!(named, "{error:?}");
        } else {
            assert!(kept > 0 || after > 0, "there was no room");
        }
        drop(result);
        let had = agent.store.content(id).unwrap().map_or(0, |content| content.had().count());
        assert!(had >= kept, "what was durable is gone");
        disk.plan(&[]);
        let fetched = soon("it goes on", agent.fetcher.fetch(&fetch, &unseen())).await.unwrap();
        assert_eq!(read(&fetched.content), sent);
        assert!(fetched.report.disk_bytes >= u64::from(kept) * CHUNK_BYTES_MIN);
    }
}

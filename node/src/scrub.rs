//! Looks at every byte of the store in the background, so that a disk that forgets is noticed
//! before somebody needs what it forgot.
//!
//! One chunk at a time, at a rate that the disk does not feel. What is found damaged is not served
//! any more and is fetched again where it came from.

use std::time::Duration;

use sutler_cache::Store;
use sutler_cache::scrub::ScrubStep;
use sutler_swarm::Gateway;
use sutler_swarm::gateway::causes;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fill::Filler;

/// The wait between two walks over the store. A disk that loses a bit a year is met in time, and
/// one that sleeps may sleep.
const BETWEEN_WALKS: Duration = Duration::from_hours(7 * 24);

/// What one walk found.
#[derive(Debug, Default)]
struct Walk {
    bytes: u64,
    bad_chunks: u64,
    unreadable: u64,
}

/// Walks over the store again and again until `shutdown`, at most `bytes_per_second` fast.
///
/// Cancel-safe: a walk that is dropped begins anew with the next start.
pub(crate) async fn run(
    store: Store,
    filler: Filler,
    bytes_per_second: u64,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Cancel-safe: a step that was begun ends on its own thread.
            walk = walk(&store, &filler, bytes_per_second) => {
                let Walk { bytes, bad_chunks, unreadable } = walk;
                info!(bytes, bad_chunks, unreadable, "every byte of the store was looked at");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(BETWEEN_WALKS) => {}
        }
    }
}

async fn walk(store: &Store, filler: &Filler, bytes_per_second: u64) -> Walk {
    let mut scrub = store.scrub();
    let mut found = Walk::default();
    loop {
        let stepped = tokio::task::spawn_blocking(move || {
            let step = scrub.step();
            (scrub, step)
        });
        let Ok((rest, step)) = stepped.await else { return found };
        scrub = rest;
        let bytes = match step {
            ScrubStep::Good { bytes } => bytes,
            ScrubStep::Bad { content, chunk, bytes } => {
                found.bad_chunks += 1;
                filler.damaged(content, chunk);
                bytes
            }
            ScrubStep::Unreadable { content, error } => {
                found.unreadable += 1;
                warn!(content.id = %content, error = causes(&error), "it cannot be opened");
                0
            }
            ScrubStep::Done => return found,
        };
        found.bytes += bytes;
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_second.max(1);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

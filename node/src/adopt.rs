//! Takes over what a killed process left in the store, so that it need not be fetched again.
//!
//! Once, after a start, beside everything else: a fetch that comes first looks at its own content
//! by itself, and a chunk that is taken over twice is taken over once.

use sutler_cache::{Entry, ReadError, Store};
use sutler_swarm::gateway::causes;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Verifies what lies in data files beyond what their records say, and takes over what is right.
/// Blocks, until `stop` at the latest after one content.
pub(crate) fn run(store: &Store, stop: &CancellationToken) {
    for entry in store.list().into_iter().filter(|entry| !entry.complete) {
        if stop.is_cancelled() {
            return;
        }
        match adopt(store, &entry) {
            Ok(0) => {}
            Ok(chunks) => info!(content.id = %entry.id, chunks, "taken over from before the start"),
            Err(error) => {
                warn!(content.id = %entry.id, error = causes(&error), "not taken over");
            }
        }
    }
}

fn adopt(store: &Store, entry: &Entry) -> Result<u32, ReadError> {
    match store.content(entry.id)? {
        Some(content) => content.adopt(),
        // It has gone since the list was made.
        None => Ok(0),
    }
}

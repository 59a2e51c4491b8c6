//! Who is still interested in a content that is not kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sutler_cache::{EvictError, Store};
use sutler_protocol::ContentId;
use sutler_swarm::gateway::causes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::LINGER;

/// The contents that somebody is interested in.
pub(super) struct Interests {
    store: Store,
    table: Arc<Mutex<BTreeMap<ContentId, Weak<Interest>>>>,
}

/// Keeps a content for as long as it lives, and [`LINGER`] beyond.
struct Interest {
    id: ContentId,
    store: Store,
    table: Arc<Mutex<BTreeMap<ContentId, Weak<Interest>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Interests {
    pub(super) fn new(store: Store) -> Self {
        Self { store, table: Arc::default() }
    }

    /// Takes note that somebody is interested.
    pub(super) fn begin(
        &self,
        id: ContentId,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<dyn Send + Sync> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interest) = table.get(&id).and_then(Weak::upgrade) {
            return interest;
        }
        let interest = Arc::new(Interest {
            id,
            store: self.store.clone(),
            table: self.table.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        table.insert(id, Arc::downgrade(&interest));
        interest
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let (id, store, table) = (self.id, self.store.clone(), self.table.clone());
        let stop = self.stop.clone();
        // One that is stopping forgets what it does not keep at its next start.
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LINGER) => {}
            }
            let gone = || {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                let gone = table.get(&id).is_none_or(|interest| interest.strong_count() == 0);
                if gone {
                    table.remove(&id);
                }
                gone
            };
            if !gone() {
                return;
            }
            // Who becomes interested meanwhile holds a lease, or finds it gone and fills it again.
            let evicted = tokio::task::spawn_blocking(move || store.evict(id)).await;
            match evicted {
                Ok(Ok(bytes)) => debug!(content.id = %id, bytes, "nobody wants it any more"),
                Ok(Err(EvictError::Leased { .. } | EvictError::Unknown { .. })) | Err(_) => {}
                Ok(Err(error)) => warn!(content.id = %id, error = causes(&error), "not removed"),
            }
        });
    }
}

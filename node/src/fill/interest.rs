//! Who is still interested in a content that is not kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sutler_cache::{EvictError, Store};
use sutler_protocol::ContentId;
use sutler_swarm::gateway::causes;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The least wait before a content that is still being read is tried to be given up again.
const AGAIN_MIN: Duration = Duration::from_millis(100);

/// The contents that somebody is interested in.
pub(super) struct Interests(Arc<Shared>);

struct Shared {
    store: Store,
    /// How long a content outlives the last interest in it.
    linger: Duration,
    table: Mutex<BTreeMap<ContentId, Weak<Interest>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Keeps a content for as long as it lives, and for as long as it lingers beyond.
struct Interest {
    id: ContentId,
    shared: Arc<Shared>,
}

impl Interests {
    /// Gives up what nobody is interested in on `tasks`, until `stop`.
    pub(super) fn new(
        store: Store,
        linger: Duration,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared { store, linger, table: Mutex::default(), tasks, stop }))
    }

    /// Takes note that somebody is interested.
    pub(super) fn begin(&self, id: ContentId) -> Arc<dyn Send + Sync> {
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interest) = table.get(&id).and_then(Weak::upgrade) {
            return interest;
        }
        let interest = Arc::new(Interest { id, shared: self.0.clone() });
        table.insert(id, Arc::downgrade(&interest));
        interest
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let (id, shared) = (self.id, self.shared.clone());
        // Without a runtime the process ends; what it leaves goes with the next start.
        let Ok(runtime) = Handle::try_current() else { return };
        let stop = shared.stop.clone();
        let tasks = shared.tasks.clone();
        let giving_up = async move {
            tokio::select! {
                // Cancel-safe: a token stays cancelled, and what is given up late is no harm.
                () = stop.cancelled() => {}
                () = shared.give_up(id) => {}
            }
        };
        tasks.spawn_on(giving_up, &runtime);
    }
}

impl Shared {
    /// Gives a content up once nobody was interested for as long as it lingers.
    async fn give_up(&self, id: ContentId) {
        tokio::time::sleep(self.linger).await;
        while self.is_forgotten(id) {
            let store = self.store.clone();
            // Who becomes interested meanwhile holds a lease, or finds it gone and fills it again.
            let evicted = tokio::task::spawn_blocking(move || store.evict(id)).await;
            match evicted {
                Ok(Ok(bytes)) => {
                    debug!(content.id = %id, bytes, "nobody wants it any more");
                    return;
                }
                // Somebody reads it who is no peer: a command, or a request that is just ending.
                Ok(Err(EvictError::Leased { .. })) => {
                    tokio::time::sleep(self.linger.max(AGAIN_MIN)).await;
                }
                Ok(Err(EvictError::Unknown { .. })) | Err(_) => return,
                Ok(Err(error)) => {
                    warn!(content.id = %id, error = causes(&error), "not removed");
                    return;
                }
            }
        }
    }

    /// Returns whether nobody is interested any more; who was is then forgotten.
    fn is_forgotten(&self, id: ContentId) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let is_forgotten = table.get(&id).is_none_or(|interest| interest.strong_count() == 0);
        if is_forgotten {
            table.remove(&id);
        }
        is_forgotten
    }
}

//! Who is still interested in a content that is not kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sutler_cache::{EvictError, Store};
use sutler_protocol::ContentId;
use sutler_swarm::gateway::causes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The least wait before a content that is still being read is tried to be given up again.
const AGAIN_MIN: Duration = Duration::from_millis(100);

/// The contents that somebody is interested in, or was until a moment ago.
pub(super) struct Interests(Arc<Shared>);

struct Shared {
    store: Store,
    /// How long a content outlives the last interest in it.
    linger: Duration,
    table: Mutex<BTreeMap<ContentId, Lingering>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A content that goes at some time.
struct Lingering {
    interest: Weak<Interest>,
    /// When it goes, if nobody is interested until then.
    until: Instant,
    /// Whether a task waits for that. One does, however many come and go.
    is_watched: bool,
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
        let mut table = self.0.table();
        let lingering = table.entry(id).or_insert_with(Lingering::new);
        if let Some(interest) = lingering.interest.upgrade() {
            return interest;
        }
        let interest = Arc::new(Interest { id, shared: self.0.clone() });
        lingering.interest = Arc::downgrade(&interest);
        interest
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        // Without a runtime the process ends; what it leaves goes with the next start.
        let Ok(runtime) = Handle::try_current() else { return };
        let (id, shared) = (self.id, self.shared.clone());
        {
            let mut table = shared.table();
            let lingering = table.entry(id).or_insert_with(Lingering::new);
            lingering.until = Instant::now() + shared.linger;
            if std::mem::replace(&mut lingering.is_watched, true) {
                return;
            }
        }
        let (tasks, stop) = (shared.tasks.clone(), shared.stop.clone());
        let watching = async move {
            tokio::select! {
                // Cancel-safe: a token stays cancelled, and what is given up late is no harm.
                () = stop.cancelled() => {}
                () = shared.watch(id) => {}
            }
        };
        tasks.spawn_on(watching, &runtime);
    }
}

impl Shared {
    /// Waits until nobody was interested in a content for as long as it lingers, and gives it up.
    async fn watch(&self, id: ContentId) {
        while let Some(until) = self.outstays(id) {
            tokio::time::sleep_until(until).await;
        }
        while !self.table().contains_key(&id) {
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

    /// Returns until when a content stays at least. Once that is over it is taken off the table, or
    /// left to the next who loses interest if there is one.
    fn outstays(&self, id: ContentId) -> Option<Instant> {
        let mut table = self.table();
        let lingering = table.get_mut(&id)?;
        if lingering.interest.strong_count() > 0 {
            lingering.is_watched = false;
            return None;
        }
        if Instant::now() < lingering.until {
            return Some(lingering.until);
        }
        table.remove(&id);
        None
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ContentId, Lingering>> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lingering {
    fn new() -> Self {
        Self { interest: Weak::new(), until: Instant::now(), is_watched: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sutler_cache::{About, ImportFrom, StoreOptions};

    fn interests(dir: &std::path::Path, linger: Duration) -> Interests {
        let store = Store::open(dir, StoreOptions::default()).unwrap();
        Interests::new(store, linger, TaskTracker::new(), CancellationToken::new())
    }

    fn import(interests: &Interests, bytes: &[u8]) -> ContentId {
        let from = ImportFrom::Stream(&mut &bytes[..]);
        interests.0.store.import(from, &About::default()).unwrap().content.id()
    }

    async fn settled(interests: &Interests) {
        interests.0.tasks.close();
        interests.0.tasks.wait().await;
    }

    #[tokio::test] // R31
    async fn one_task_watches_however_many_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let interests = interests(dir.path(), Duration::from_mins(10));
        let id = import(&interests, b"x");
        for _ in 0..100 {
            drop(interests.begin(id));
        }
        assert_eq!(interests.0.tasks.len(), 1);
        let kept = interests.begin(id);
        assert!(Arc::ptr_eq(&kept, &interests.begin(id)));
        interests.0.stop.cancel();
        drop(kept);
        settled(&interests).await;
        assert_eq!(interests.0.store.usage().used_bytes, 1);
    }

    #[tokio::test] // R31
    async fn it_goes_with_the_last_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let interests = interests(dir.path(), Duration::ZERO);
        let id = import(&interests, b"x");
        let (one, other) = (interests.begin(id), interests.begin(id));
        drop(one);
        assert_eq!(interests.0.tasks.len(), 0);
        // Another who comes while it is about to go keeps it.
        drop(other);
        let third = interests.begin(id);
        settled(&interests).await;
        assert_eq!(interests.0.store.usage().used_bytes, 1);
        drop(third);
        settled(&interests).await;
        assert_eq!(interests.0.store.usage().used_bytes, 0);
        assert!(interests.0.table().is_empty());
    }
}

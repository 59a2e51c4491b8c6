//! Which contents are arriving in this process, so that what was verified of them can be served
//! while the rest is still on its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sutler_protocol::ContentId;
use tokio::sync::watch;

/// The contents that are arriving. Cheap to clone; all clones share one table.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<Mutex<BTreeMap<ContentId, Entry>>>);

#[derive(Debug)]
struct Entry {
    stored: watch::Sender<u64>,
    /// Transfers of this content that are under way.
    holders: usize,
}

/// Says that a content is arriving for as long as it lives.
#[derive(Debug)]
pub struct Arrival {
    arrivals: Arrivals,
    id: ContentId,
}

/// Wakes when more of a content was stored. [`watch::Receiver::changed`] fails once nobody is
/// fetching the content any more.
pub type Stored = watch::Receiver<u64>;

impl Arrivals {
    /// Announces that a content is arriving.
    pub fn begin(&self, id: ContentId) -> Arrival {
        let mut table = self.table();
        let entry =
            table.entry(id).or_insert_with(|| Entry { stored: watch::Sender::new(0), holders: 0 });
        entry.holders += 1;
        Arrival { arrivals: self.clone(), id }
    }

    /// Returns what wakes when more of the content was stored, if it is arriving.
    pub fn watch(&self, id: ContentId) -> Option<Stored> {
        self.table().get(&id).map(|entry| entry.stored.subscribe())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ContentId, Entry>> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrival {
    /// Wakes those who wait for more of the content.
    pub fn stored(&self) {
        if let Some(entry) = self.arrivals.table().get(&self.id) {
            entry.stored.send_modify(|times| *times += 1);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut table = self.arrivals.table();
        if let Some(entry) = table.get_mut(&self.id) {
            entry.holders -= 1;
            if entry.holders == 0 {
                table.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_watched_until_the_last_transfer_ends() {
        let arrivals = Arrivals::default();
        let id = ContentId::of(b"x");
        assert!(arrivals.watch(id).is_none());
        let first = arrivals.begin(id);
        let second = arrivals.begin(id);
        let stored = arrivals.watch(id).unwrap();
        second.stored();
        assert!(stored.has_changed().unwrap());
        drop(first);
        assert!(arrivals.watch(id).is_some());
        drop(second);
        assert!(arrivals.watch(id).is_none());
        assert!(stored.has_changed().is_err());
    }
}

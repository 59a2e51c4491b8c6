//! The thread that verifies and writes what the requests of one fetch have gathered.
//!
//! Each request hands over one chunk and takes nothing more from its line before that is written, so
//! a kill costs it one chunk at most. Meanwhile the network's thread gathers the others' chunks: a
//! fast line keeps both busy.
//!
//! Invariants:
//! - chunks are written one after the other: two threads would wait for each other at the file;
//! - the thread is there only while chunks wait, and takes all of them before it goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sutler_cache::{CommitError, Content};
use sutler_protocol::geometry::ChunkIndex;
use tokio::sync::oneshot;

use crate::disk::Disk;

/// A chunk that is whole and was not verified.
pub(super) struct Chunk {
    pub(super) index: ChunkIndex,
    pub(super) bytes: Vec<u8>,
}

/// What became of a chunk, with its buffer.
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) result: Result<(), CommitError>,
}

/// Where a fetch puts chunks. Cheap to clone: its driver has one, and each open request.
#[derive(Clone)]
pub(super) struct Shelf(Arc<Shared>);

struct Shared {
    content: Content,
    disk: Arc<Disk>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// At most one of each open request.
    waiting: VecDeque<Waiting>,
    is_worked: bool,
}

struct Waiting {
    chunk: Chunk,
    tell: oneshot::Sender<Stored>,
}

/// Ends the thread's work, whether it is done or has panicked: whoever waits then is told that it
/// was cut off, and the next chunk finds a new thread.
struct Worked<'a>(&'a Shared);

impl Shelf {
    pub(super) fn new(content: Content, disk: Arc<Disk>) -> Self {
        Self(Arc::new(Shared { content, disk, queue: Mutex::default() }))
    }

    pub(super) fn content(&self) -> &Content {
        &self.0.content
    }

    /// Verifies and writes a chunk, unless it is had; `None` if a thread ended before its work.
    ///
    /// Cancel-safe: a chunk that was handed over is stored.
    pub(super) async fn store(&self, chunk: Chunk) -> Option<Stored> {
        let shared = self.0.clone();
        if self.is_for_one() {
            return self.0.disk.run(move || shared.put(chunk)).await.ok();
        }
        let (tell, told) = oneshot::channel();
        let is_worked = {
            let mut queue = self.0.queue();
            queue.waiting.push_back(Waiting { chunk, tell });
            std::mem::replace(&mut queue.is_worked, true)
        };
        if !is_worked {
            drop(tokio::task::spawn_blocking(move || shared.work()));
        }
        told.await.ok()
    }

    /// Returns whether only one request is open, beside the driver: there is nothing to gather
    /// meanwhile, and waking a thread costs as much as the write.
    fn is_for_one(&self) -> bool {
        Arc::strong_count(&self.0) <= 2
    }
}

impl Shared {
    fn work(&self) {
        let _worked = Worked(self);
        while let Some(Waiting { chunk, tell }) = self.next() {
            // Its request may have been cancelled; the chunk is had all the same.
            drop(tell.send(self.put(chunk)));
        }
    }

    /// Returns the next chunk, or gives the work up where there is none: in one step, so that none is
    /// put down in between and left lying.
    fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.is_worked = next.is_some();
        next
    }

    fn put(&self, chunk: Chunk) -> Stored {
        let Chunk { index, bytes } = chunk;
        let is_had = self.content.has(index);
        let result = if is_had { Ok(()) } else { self.content.commit(index, &bytes) };
        Stored { bytes, result }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that may panic runs under it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.queue() = Queue::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use sutler_cache::{About, Store, StoreOptions};
    use sutler_protocol::HashListBuilder;
    use sutler_protocol::geometry::CHUNK_BYTES_MIN;
    use tempfile::TempDir;
    use tokio::task::JoinSet;

    use super::*;

    const CHUNK: usize = CHUNK_BYTES_MIN as usize;
    const CHUNKS: u32 = 12;

    fn shelf(dir: &TempDir) -> Shelf {
        let options = StoreOptions { bytes_max: None, free_bytes_min: 0 };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let mut hashes = HashListBuilder::new();
        for index in 0..CHUNKS {
            hashes.update(&vec![index as u8; CHUNK]);
        }
        let content = store.create(hashes.finish().unwrap(), &About::default()).unwrap();
        Shelf::new(content, Arc::default())
    }

    fn chunk(index: u32) -> Chunk {
        Chunk { index: ChunkIndex(index), bytes: vec![index as u8; CHUNK] }
    }

    #[tokio::test]
    async fn what_several_requests_hand_over_at_once_is_all_stored_and_what_is_wrong_is_told() {
        let dir = TempDir::new().unwrap();
        let shelf = shelf(&dir);
        let mut requests = JoinSet::new();
        for index in 0..CHUNKS {
            let shelf = shelf.clone();
            let mut chunk = chunk(index);
            chunk.bytes[0] ^= u8::from(index == 5);
            requests.spawn(async move { (index, shelf.store(chunk).await.unwrap().result) });
        }
        while let Some(stored) = requests.join_next().await {
            let (index, result) = stored.unwrap();
            assert_eq!(matches!(result, Err(CommitError::Corrupt { .. })), index == 5);
            assert_eq!(shelf.content().has(ChunkIndex(index)), index != 5);
        }
        // The last one alone: no other request is open.
        assert!(shelf.store(chunk(5)).await.unwrap().result.is_ok());
        assert!(shelf.content().had().is_full());
    }

    #[tokio::test]
    async fn a_thread_that_ends_before_its_work_leaves_nobody_waiting() {
        let dir = TempDir::new().unwrap();
        let shelf = shelf(&dir);
        let (tell, told) = oneshot::channel();
        *shelf.0.queue() =
            Queue { waiting: [Waiting { chunk: chunk(0), tell }].into(), is_worked: true };
        let shared = shelf.0.clone();
        let panicked = std::thread::spawn(move || {
            let _worked = Worked(&shared);
            panic!("a thread that ends before its work");
        });
        assert!(panicked.join().is_err());
        assert!(told.await.is_err());
        let (one, other) = (shelf.clone(), shelf.clone());
        let stored = tokio::join!(one.store(chunk(0)), other.store(chunk(1)));
        assert!(stored.0.unwrap().result.is_ok() && stored.1.unwrap().result.is_ok());
    }
}

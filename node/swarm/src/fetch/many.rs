//! Many contents over one connection: small ones whole with the answer to their opening, larger
//! ones by the scheduler.
//!
//! Three stages work at once. Openings are in flight [`OPENINGS_MAX`] at a time; what came is
//! stored in batches, one barrier for each; what has more than a chunk goes to [`Fetcher::fetch`],
//! [`LARGE_MAX`] at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sutler_cache::{Content, Store};
use sutler_protocol::frame::Body;
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, ChunkIndex};
use sutler_protocol::{ContentId, HashList};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::report::{FetchReport, Progress, SourceKind, SourceShare};
use super::{FetchError, Fetched, Fetcher, SourceAddress, Wanted, blocking};
use crate::gateway::causes;
use crate::identity::Role;

/// Openings in flight: what half a connection's streams can carry, since larger contents need the
/// other half.
const OPENINGS_MAX: usize = 32;

/// Larger contents fetched at a time.
const LARGE_MAX: usize = 4;

/// Contents stored with one barrier.
const BATCH_MAX: usize = 256;

/// What became of one of many.
pub struct Each {
    /// Its place in the list that was given.
    pub index: usize,
    /// What became of it.
    pub result: Result<Fetched, FetchError>,
}

/// A content that came whole with the answer to its opening.
struct Small {
    index: usize,
    wanted: Wanted,
    hashes: HashList,
    bytes: Vec<u8>,
    from: SourceShare,
    started: Instant,
}

/// What became of an opening.
enum Opening {
    /// It came whole and verified.
    Small(Box<Small>),
    /// It is known here, or has more than a chunk, or this source could not give it.
    Otherwise(usize, Wanted),
}

impl Fetcher {
    /// Fetches many contents and tells `each` as they are complete, in no order.
    ///
    /// Cancel-safe: what is complete stays complete, what was begun is gone on with.
    pub async fn fetch_many(&self, wanted: Vec<Wanted>, each: mpsc::Sender<Each>) {
        let (to_store, stored) = mpsc::channel(BATCH_MAX);
        let mut stages = JoinSet::new();
        let store = self.store.clone();
        stages.spawn(store_small(stored, each.clone(), move |batch| store_batch(&store, batch)));
        let openings = Arc::new(Semaphore::new(OPENINGS_MAX));
        let large = Arc::new(Semaphore::new(LARGE_MAX));
        let mut tasks = JoinSet::new();
        for (index, wanted) in wanted.into_iter().enumerate() {
            // Never closed; waiting here keeps the tasks few.
            let Ok(permit) = openings.clone().acquire_owned().await else { break };
            while tasks.try_join_next().is_some() {}
            let fetcher = self.clone();
            let (to_store, each, large) = (to_store.clone(), each.clone(), large.clone());
            tasks.spawn(async move {
                match fetcher.open_small(index, wanted).await {
                    Opening::Small(small) => drop(to_store.send(*small).await),
                    Opening::Otherwise(index, wanted) => {
                        drop(permit);
                        let _large = large.acquire().await;
                        let unseen = watch::Sender::new(Progress::default());
                        let result = fetcher.fetch(&wanted, &unseen).await;
                        drop(each.send(Each { index, result }).await);
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        drop(to_store);
        while stages.join_next().await.is_some() {}
    }

    /// Asks the first source for the whole of a content, which small ones answer with.
    async fn open_small(&self, index: usize, wanted: Wanted) -> Opening {
        let started = Instant::now();
        let first = wanted.sources.iter().find_map(|source| match source {
            SourceAddress::Peer(address) => Some(*address),
            SourceAddress::Origin(_) => None,
        });
        let Some(address) = first.filter(|_| !self.is_known(wanted.content)) else {
            return Opening::Otherwise(index, wanted);
        };
        match self.whole_of(address, &wanted).await {
            Some((hashes, bytes, from)) => {
                Opening::Small(Box::new(Small { index, wanted, hashes, bytes, from, started }))
            }
            None => Opening::Otherwise(index, wanted),
        }
    }

    fn is_known(&self, id: ContentId) -> bool {
        // A store that cannot tell says so when the content is fetched.
        !matches!(self.store.content(id), Ok(None))
    }

    async fn whole_of(
        &self,
        address: SocketAddr,
        wanted: &Wanted,
    ) -> Option<(HashList, Vec<u8>, SourceShare)> {
        let peer = match self.links.peer(address, wanted.class).await {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%address, error = causes(&error), "no connection");
                return None;
            }
        };
        let (opened, bytes) = peer.open(wanted.content, Body::List, wanted.class).await.ok()?;
        if opened.len > CHUNK_BYTES_MIN {
            return None;
        }
        let hashes = HashList::of_one_chunk(wanted.content, opened.len)?;
        let from = SourceShare {
            kind: if peer.name().role() == Role::Node {
                SourceKind::Node
            } else {
                SourceKind::Peer
            },
            address: address.to_string(),
            bytes: bytes.len() as u64,
            wasted_bytes: 0,
            bytes_per_second: None,
            left: None,
        };
        hashes.vouches_for(ChunkIndex(0), &bytes).then_some((hashes, bytes, from))
    }
}

/// Stores small contents as they come, with one barrier for all that have come meanwhile. Each is
/// told of, even if the thread that was to store it ended before its work.
async fn store_small(
    mut small: mpsc::Receiver<Small>,
    each: mpsc::Sender<Each>,
    store: impl Fn(Vec<Small>) -> Vec<Each> + Clone + Send + 'static,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    // Cancel-safe or not does not matter: the stage is dropped as a whole.
    while small.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let indexes: Vec<usize> = batch.iter().map(|small| small.index).collect();
        let (taken, store) = (std::mem::take(&mut batch), store.clone());
        let results = blocking(move || store(taken)).await.unwrap_or_else(|_| {
            warn!(contents = indexes.len(), "the storing of a batch was cut off");
            let cut_off = |index| Each { index, result: Err(FetchError::CutOff) };
            indexes.into_iter().map(cut_off).collect()
        });
        for done in results {
            // The asker is gone only if it wants no more.
            let _ = each.send(done).await;
        }
    }
}

fn store_batch(store: &Store, batch: Vec<Small>) -> Vec<Each> {
    let mut results = Vec::with_capacity(batch.len());
    let mut begun = Vec::with_capacity(batch.len());
    for small in batch {
        match begin(store, &small) {
            Ok(content) => begun.push((small, content)),
            Err(error) => results.push(Each { index: small.index, result: Err(error) }),
        }
    }
    let contents: Vec<Content> = begun.iter().map(|(_, content)| content.clone()).collect();
    // All of them, or if one spoils the batch, each for itself.
    let all = store.complete(&contents);
    for (small, content) in begun {
        let id = content.id();
        let completed = match &all {
            Ok(()) => Ok(()),
            Err(_) => store.complete(std::slice::from_ref(&content)),
        };
        let result = completed
            .map(|()| {
                let mut report = FetchReport::new(id);
                report.sources.push(small.from);
                report.finish(content.geometry().len(), small.started.elapsed());
                Fetched { content, report }
            })
            .map_err(|source| FetchError::Complete { content: id, source: Box::new(source) });
        results.push(Each { index: small.index, result });
    }
    results
}

fn begin(store: &Store, small: &Small) -> Result<Content, FetchError> {
    let content =
        store.create(small.hashes.clone(), &small.wanted.about).map_err(FetchError::Create)?;
    if !content.had().is_full() {
        content.commit(ChunkIndex(0), &small.bytes).map_err(FetchError::Commit)?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use sutler_cache::About;
    use sutler_protocol::frame::Class;

    use super::*;

    fn small(index: usize) -> Small {
        let bytes = vec![index as u8; 100];
        let content = ContentId::of(&bytes);
        let (about, sources) = (About::default(), Vec::new());
        let from = SourceShare {
            kind: SourceKind::Peer,
            address: String::new(),
            bytes: 100,
            wasted_bytes: 0,
            bytes_per_second: None,
            left: None,
        };
        Small {
            index,
            wanted: Wanted { content, about, class: Class::Normal, sources },
            hashes: HashList::of_one_chunk(content, 100).unwrap(),
            bytes,
            from,
            started: Instant::now(),
        }
    }

    #[tokio::test]
    async fn each_of_a_batch_that_was_cut_off_is_told_of_and_the_next_is_stored() {
        let (to_store, stored) = mpsc::channel(BATCH_MAX);
        let (each, mut told) = mpsc::channel(BATCH_MAX);
        let stage = tokio::spawn(store_small(stored, each, |batch| {
            assert_ne!(batch[0].index, 0, "a thread that ends before its work");
            let stored =
                |small: Small| Each { index: small.index, result: Err(FetchError::NoOrigins) };
            batch.into_iter().map(stored).collect()
        }));
        for indexes in [0..3, 3..5] {
            // All before the stage runs: it is on this thread.
            for index in indexes.clone() {
                to_store.try_send(small(index)).ok().unwrap();
            }
            for index in indexes {
                let each = told.recv().await.unwrap();
                assert_eq!(each.index, index);
                let is_cut_off = matches!(each.result, Err(FetchError::CutOff));
                assert_eq!(is_cut_off, index < 3);
            }
        }
        drop(to_store);
        stage.await.unwrap();
    }
}

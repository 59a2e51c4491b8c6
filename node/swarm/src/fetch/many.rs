//! Many contents over one connection: small ones whole with the answer to their opening, larger
//! ones by the scheduler.
//!
//! Stages work at once. Openings are in flight [`OPENINGS_MAX`] at a time; what came whole is written
//! as it comes, and made durable in groups, one barrier for all that was written while the barrier
//! before it was waited for; what has more than a chunk goes to [`Fetcher::fetch`], [`LARGE_MAX`]
//! at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sutler_cache::{Content, Single, Store};
use sutler_protocol::frame::Body;
use sutler_protocol::geometry::CHUNK_BYTES_MIN;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
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

/// Contents written at a time, and as many wait in memory: 16 MiB.
const WRITING: Group = Group { min: 1, max: 256, wait: Duration::ZERO };

/// Contents made durable with one barrier. It is worth a little waiting to have enough of them: a
/// barrier writes folders and tables of inodes anew that its contents share.
const COMPLETING: Group = Group { min: 256, max: 1_024, wait: Duration::from_millis(100) };

/// How many are worked on at a time.
#[derive(Clone, Copy)]
struct Group {
    /// Worth beginning with.
    min: usize,
    /// At most.
    max: usize,
    /// How long to wait for `min`.
    wait: Duration,
}

/// One of many, as far as it has come.
pub struct Step<T> {
    /// Its place in the list that was given.
    pub index: usize,
    /// What it has become.
    pub result: Result<T, FetchError>,
}

/// What became of one of many.
pub type Each = Step<Fetched>;

/// A content that came whole with the answer to its opening.
struct Small {
    wanted: Wanted,
    single: Single,
    from: SourceShare,
    started: Instant,
}

/// A content that is written and not durable.
struct Written {
    content: Content,
    from: SourceShare,
    started: Instant,
}

/// What became of an opening.
enum Opening {
    /// It came whole and verified.
    Small(Box<Small>),
    /// It is known here, or has more than a chunk, or this source could not give it.
    Otherwise(Wanted),
}

impl Fetcher {
    /// Fetches many contents and tells `each` as they are complete, in no order.
    ///
    /// Cancel-safe: what is complete stays complete, what was begun is gone on with.
    pub async fn fetch_many(&self, wanted: Vec<Wanted>, each: mpsc::Sender<Each>) {
        let (to_write, came) = mpsc::channel(WRITING.max);
        let (to_complete, written) = mpsc::channel(COMPLETING.max);
        let mut stages = JoinSet::new();
        let store = self.store.clone();
        stages.spawn(stage(WRITING, came, to_complete, move |group| write(&store, group)));
        let store = self.store.clone();
        let complete = move |group| complete(&store, group);
        stages.spawn(stage(COMPLETING, written, each.clone(), complete));
        let openings = Arc::new(Semaphore::new(OPENINGS_MAX));
        let large = Arc::new(Semaphore::new(LARGE_MAX));
        let mut tasks = JoinSet::new();
        for (index, wanted) in wanted.into_iter().enumerate() {
            // Never closed; waiting here keeps the tasks few.
            let Ok(permit) = openings.clone().acquire_owned().await else { break };
            while tasks.try_join_next().is_some() {}
            let fetcher = self.clone();
            let (to_write, each, large) = (to_write.clone(), each.clone(), large.clone());
            tasks.spawn(async move {
                match fetcher.open_small(wanted).await {
                    Opening::Small(small) => {
                        drop(to_write.send(Step { index, result: Ok(*small) }).await);
                    }
                    Opening::Otherwise(wanted) => {
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
        drop(to_write);
        while stages.join_next().await.is_some() {}
    }

    /// Asks the first source for the whole of a content, which small ones answer with.
    async fn open_small(&self, wanted: Wanted) -> Opening {
        let started = Instant::now();
        let first = wanted.sources.iter().find_map(|source| match source {
            SourceAddress::Peer(address) => Some(*address),
            SourceAddress::Origin(_) => None,
        });
        let Some(address) = first.filter(|_| !self.store.knows(wanted.content)) else {
            return Opening::Otherwise(wanted);
        };
        match self.whole_of(address, &wanted).await {
            Some((single, from)) => {
                Opening::Small(Box::new(Small { wanted, single, from, started }))
            }
            None => Opening::Otherwise(wanted),
        }
    }

    async fn whole_of(
        &self,
        address: SocketAddr,
        wanted: &Wanted,
    ) -> Option<(Single, SourceShare)> {
        let peer = match self.links.peer(address, wanted.class).await {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%address, error = causes(&error), "no connection");
                return None;
            }
        };
        let (opened, bytes) = peer.open(wanted.content, Body::List, wanted.class).await.ok()?;
        if opened.len > CHUNK_BYTES_MIN || opened.len != bytes.len() as u64 {
            return None;
        }
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
        Single::verify(wanted.content, bytes).map(|single| (single, from))
    }
}

/// Does the disk's work on what comes, a group at a time, and hands it on. Each is handed on, even if
/// the thread that was to do the work ended before it.
async fn stage<T: Send + 'static, U: Send + 'static>(
    group: Group,
    mut coming: mpsc::Receiver<Step<T>>,
    going: mpsc::Sender<Step<U>>,
    work: impl Fn(Vec<Step<T>>) -> Vec<Step<U>> + Clone + Send + 'static,
) {
    // Cancel-safe or not does not matter: the stage is dropped as a whole.
    while let Some(steps) = group.gather(&mut coming).await {
        let indexes: Vec<usize> = steps.iter().map(|step| step.index).collect();
        let work = work.clone();
        let done = blocking(move || work(steps)).await.unwrap_or_else(|_| {
            warn!(contents = indexes.len(), "work on a group of contents was cut off");
            let cut_off = |index| Step { index, result: Err(FetchError::CutOff) };
            indexes.into_iter().map(cut_off).collect()
        });
        for step in done {
            // The asker is gone only if it wants no more.
            let _ = going.send(step).await;
        }
    }
}

impl Group {
    /// Returns what has come, or `None` when nothing more will.
    async fn gather<T>(self, coming: &mut mpsc::Receiver<T>) -> Option<Vec<T>> {
        let mut gathered = Vec::new();
        if coming.recv_many(&mut gathered, self.max).await == 0 {
            return None;
        }
        let enough = async {
            while gathered.len() < self.min {
                let room = self.max - gathered.len();
                if coming.recv_many(&mut gathered, room).await == 0 {
                    break;
                }
            }
        };
        // Cancel-safe: what was received is in `gathered`. Late or not, it is enough.
        let _ = timeout(self.wait, enough).await;
        Some(gathered)
    }
}

impl<T> Step<T> {
    fn then<U>(self, work: impl FnOnce(T) -> Result<U, FetchError>) -> Step<U> {
        Step { index: self.index, result: self.result.and_then(work) }
    }
}

/// Writes contents to the store.
fn write(store: &Store, group: Vec<Step<Small>>) -> Vec<Step<Written>> {
    let write = |small: Small| {
        let hashes = small.single.hashes().clone();
        let content = store.create(hashes, &small.wanted.about).map_err(FetchError::Create)?;
        if !content.had().is_full() {
            content.commit_single(&small.single).map_err(FetchError::Commit)?;
        }
        Ok(Written { content, from: small.from, started: small.started })
    };
    group.into_iter().map(|step| step.then(write)).collect()
}

/// Makes contents durable that were written.
fn complete(store: &Store, group: Vec<Step<Written>>) -> Vec<Each> {
    let written = |step: &Step<Written>| step.result.as_ref().ok().map(|it| it.content.clone());
    let contents: Vec<Content> = group.iter().filter_map(written).collect();
    // All of them, or if one spoils the group, each for itself.
    let all = store.complete(&contents);
    let complete = |Written { content, from, started }: Written| {
        let id = content.id();
        let completed = match &all {
            Ok(()) => Ok(()),
            Err(_) => store.complete(std::slice::from_ref(&content)),
        };
        completed.map_err(|source| FetchError::Complete { content: id, source: source.into() })?;
        let mut report = FetchReport::new(id);
        report.sources.push(from);
        report.finish(content.geometry().len(), started.elapsed());
        Ok(Fetched { content, report })
    };
    group.into_iter().map(|step| step.then(complete)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: Group = Group { min: 2, max: 2, wait: Duration::from_hours(1) };

    fn step(index: usize) -> Step<usize> {
        Step { index, result: Ok(index) }
    }

    #[tokio::test]
    async fn each_of_a_group_that_was_cut_off_is_handed_on_and_so_is_the_next() {
        let (to_stage, coming) = mpsc::channel(8);
        let (going, mut gone) = mpsc::channel(8);
        let stage = tokio::spawn(stage(PAIRS, coming, going, |group: Vec<Step<usize>>| {
            assert_ne!(group[0].index, 0, "a thread that ends before its work");
            group
        }));
        for index in 0..4 {
            to_stage.send(step(index)).await.ok().unwrap();
        }
        for index in 0..4 {
            let step = gone.recv().await.unwrap();
            assert_eq!(step.index, index);
            let is_cut_off = matches!(step.result, Err(FetchError::CutOff));
            assert_eq!(is_cut_off, index < 2);
        }
        drop(to_stage);
        stage.await.unwrap();
    }

    #[tokio::test]
    async fn what_failed_before_a_stage_goes_by_its_work() {
        let failed: Step<usize> = Step { index: 7, result: Err(FetchError::NoOrigins) };
        let passed = failed.then(|_| -> Result<(), FetchError> { panic!("nothing to work on") });
        assert!(passed.index == 7 && matches!(passed.result, Err(FetchError::NoOrigins)));
    }

    #[tokio::test]
    async fn a_group_is_as_many_as_are_worth_it_or_what_came_in_time_or_the_last() {
        let group = Group { min: 3, max: 4, wait: Duration::ZERO };
        let (sender, mut coming) = mpsc::channel(8);
        for number in 0..5 {
            sender.try_send(number).unwrap();
        }
        assert_eq!(group.gather(&mut coming).await, Some(vec![0, 1, 2, 3]));
        assert_eq!(group.gather(&mut coming).await, Some(vec![4]), "its time is over");
        sender.try_send(5).unwrap();
        drop(sender);
        assert_eq!(PAIRS.gather(&mut coming).await, Some(vec![5]), "no other will come");
        assert_eq!(PAIRS.gather(&mut coming).await, None);
    }
}

//! Reports on their way: kept in a folder, in order, until somebody further up has them.
//!
//! An agent puts its own in, a node those of its site's agents; both hand them to the first of their
//! sources that takes them. A line that is down only makes the queue longer (R96), up to a bound.
//!
//! Always true: a report that was put in is durable; it goes only when the other side has it durably, or
//! will never take it; one that was put in earlier goes first.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sutler_protocol::frame::Refusal;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::NotTaken;
use super::board::Reports;
use crate::endpoint::Endpoint;
use crate::gateway::causes;
use crate::identity::PeerName;
use crate::peer::{Peer, RequestError};

/// Reports that wait at a time: a site of 100 devices that report once an hour is cut off for 4 days.
const WAITING_MAX: usize = 10_000;

/// Bytes of reports that wait at a time.
const WAITING_BYTES_MAX: u64 = 256 << 20;

/// How soon, and after how long at the latest, a report is tried again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// A folder of reports on their way. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    waiting: Mutex<Waiting>,
    put_in: Notify,
}

/// The reports that wait, the oldest first.
#[derive(Default)]
struct Waiting {
    reports: VecDeque<(u64, u64)>,
    bytes: u64,
    next: u64,
}

/// What became of handing a report over.
enum Handed {
    /// The other side has it, or never will.
    Done,
    /// It is to be tried again.
    Later,
}

impl Outbox {
    /// Opens the reports that wait in `folder`, which is made if need be.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // What was being written when the process was killed has another name, and is nobody's.
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            match number {
                Some(number) => numbers.push((number, entry.metadata()?.len())),
                None => fs::remove_file(entry.path())?,
            }
        }
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |(number, _)| number + 1);
        let bytes = numbers.iter().map(|(_, bytes)| bytes).sum();
        let waiting = Mutex::new(Waiting { reports: numbers.into(), bytes, next });
        let shared = Shared { folder: folder.to_owned(), waiting, put_in: Notify::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns how many reports wait.
    pub fn waiting(&self) -> usize {
        self.lock().reports.len()
    }

    /// Puts a report in; when this returns, it is durable. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`NotTaken::Full`] if as many wait as may, [`NotTaken::Disk`].
    pub fn put(&self, report: &[u8]) -> Result<(), NotTaken> {
        let len = report.len() as u64;
        {
            let mut waiting = self.lock();
            if waiting.reports.len() >= WAITING_MAX || waiting.bytes + len > WAITING_BYTES_MAX {
                return Err(NotTaken::Full);
            }
            let number = waiting.next;
            // Written while it is locked: a later one must not be there before it.
            self.write(number, report).map_err(NotTaken::Disk)?;
            waiting.next += 1;
            waiting.bytes += len;
            waiting.reports.push_back((number, len));
        }
        self.shared.put_in.notify_one();
        Ok(())
    }

    fn write(&self, number: u64, report: &[u8]) -> io::Result<()> {
        let folder = &self.shared.folder;
        let mut beside = tempfile::NamedTempFile::new_in(folder)?;
        beside.write_all(report)?;
        beside.as_file().sync_all()?;
        beside.persist(self.path(number)).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    /// Hands reports over until `shutdown`, to the first of `sources` that takes them.
    ///
    /// # Cancel safety
    ///
    /// A report whose handing over was cut off is handed over again.
    pub async fn run(
        self,
        endpoint: Endpoint,
        sources: Vec<SocketAddr>,
        shutdown: CancellationToken,
    ) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.hand_over(&endpoint, &sources) => {}
        }
    }

    async fn hand_over(&self, endpoint: &Endpoint, sources: &[SocketAddr]) {
        let mut again = AGAIN_MIN;
        let mut peer = None;
        loop {
            let Some(number) = self.first() else {
                self.shared.put_in.notified().await;
                continue;
            };
            let handed = match peer.take() {
                Some(known) => self.hand(number, known).await,
                None => match connect(endpoint, sources).await {
                    Some(found) => self.hand(number, found).await,
                    None => (Handed::Later, None),
                },
            };
            peer = handed.1;
            match handed.0 {
                Handed::Done => again = AGAIN_MIN,
                Handed::Later => {
                    sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
            }
        }
    }

    /// Hands one report to a peer, which is returned if it is still good.
    async fn hand(&self, number: u64, peer: Peer) -> (Handed, Option<Peer>) {
        let path = self.path(number);
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        let report = match read {
            Ok(Ok(report)) => Bytes::from(report),
            Ok(Err(error)) => {
                warn!(%error, number, "a report cannot be read, and is lost");
                self.remove(number).await;
                return (Handed::Done, Some(peer));
            }
            Err(_) => return (Handed::Later, Some(peer)),
        };
        match peer.report(&report).await {
            Ok(()) => {}
            Err(RequestError::Refused(Refusal::NotTaken { detail })) => {
                info!(peer.id = %peer.name(), detail, "a report is not wanted");
            }
            Err(RequestError::TooLong { .. }) => warn!(number, "a report is too long to be taken"),
            Err(error) => {
                debug!(peer.id = %peer.name(), error = causes(&error), "a report waits");
                return (Handed::Later, None);
            }
        }
        self.remove(number).await;
        (Handed::Done, Some(peer))
    }

    async fn remove(&self, number: u64) {
        let path = self.path(number);
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(path)).await;
        if let Ok(Err(error)) = removed {
            // It is handed over once more after the next start, which does no harm.
            warn!(%error, number, "a report that was handed over cannot be removed");
        }
        let mut waiting = self.lock();
        if let Some(at) = waiting.reports.iter().position(|(found, _)| *found == number) {
            let bytes = waiting.reports.remove(at).map_or(0, |(_, bytes)| bytes);
            waiting.bytes -= bytes;
        }
    }

    fn first(&self) -> Option<u64> {
        self.lock().reports.front().map(|(number, _)| *number)
    }

    fn path(&self, number: u64) -> PathBuf {
        // As wide as the largest, so that a listing is in order.
        self.shared.folder.join(format!("{number:020}"))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole between statements, so a panic elsewhere does not spoil it.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports for Outbox {
    fn take(&self, _from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        self.put(&report)
    }
}

async fn connect(endpoint: &Endpoint, sources: &[SocketAddr]) -> Option<Peer> {
    for source in sources {
        match endpoint.connect(*source).await {
            Ok(peer) => return Some(peer),
            Err(error) => debug!(address = %source, error = causes(&error), "nobody takes reports"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outbox: &Outbox) -> Vec<Vec<u8>> {
        let numbers: Vec<u64> = outbox.lock().reports.iter().map(|(number, _)| *number).collect();
        numbers.into_iter().map(|number| fs::read(outbox.path(number)).unwrap()).collect()
    }

    // R96
    #[test]
    fn reports_wait_in_order_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        for report in [b"first", b"other", b"third"] {
            outbox.put(report).unwrap();
        }
        fs::write(dir.path().join(".tmpcut"), b"cut").unwrap();
        drop(outbox);
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put(b"again").unwrap();
        assert_eq!(waiting(&outbox), [b"first", b"other", b"third", b"again"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_queue_that_is_full_says_so_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put(b"one").unwrap();
        outbox.lock().bytes = WAITING_BYTES_MAX;
        assert!(matches!(outbox.put(b"two"), Err(NotTaken::Full)));
        assert_eq!(waiting(&outbox), [b"one"]);
    }
}

//! The owner's half of the local socket: one connection, one request.
//!
//! Driven by the node beside its other services. Accepting is async; each connection then has a
//! blocking thread of its own, because everything it does is disk work. The threads are bounded
//! by `CONNECTIONS_MAX` and joined before [`LocalServer::run`] returns.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sutler_cache::import::ImportFrom;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::frame::{self, REQUEST_BYTES_MAX, ReadFrameError};
use super::message::{AddFile, Envelope, Reply, Request, VERSION};
use super::socket::{self, BindError, BoundSocket};
use super::{Body, StoreOwner};
use crate::data::DataFolder;
use crate::failure::{Failure, Kind};
use crate::report::Progress;

/// Commands served at a time: people type few, and each holds a thread.
const CONNECTIONS_MAX: usize = 32;

/// Silence on a connection after which it is given up. Long enough for a file on a slow disk.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Pause after an attempt to accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time that requests have to finish once the owner is asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The listening half, bound but not yet serving.
pub struct LocalServer {
    socket: BoundSocket,
    owner: Arc<dyn StoreOwner>,
}

impl LocalServer {
    /// Makes the socket of `data`. The caller holds the store's lock: that is `owner`'s store.
    ///
    /// # Errors
    ///
    /// [`BindError`] if there is no place for a socket.
    pub fn bind(data: &DataFolder, owner: Arc<dyn StoreOwner>) -> Result<Self, BindError> {
        Ok(Self { socket: socket::bind(data)?, owner })
    }

    /// Answers commands until `shutdown`, then lets the open requests finish for a while.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket. Trouble with one connection is logged.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops accepting; requests that run end by themselves.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let listener = self.socket.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        // Owns every connection: none outlives this function.
        let mut open = JoinSet::new();
        let mut streams: BTreeMap<u64, Open> = BTreeMap::new();
        let mut next = 0;
        loop {
            tokio::select! {
                // Cancel-safe: a token stays cancelled.
                () = shutdown.cancelled() => break,
                // Cancel-safe: a task is removed only when it is returned.
                Some(ended) = open.join_next() => drop(ended.map(|key| streams.remove(&key))),
                // Cancel-safe: a connection is taken only when it is returned.
                accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => {
                    let stream = match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            warn!(%error, "accept on the local socket");
                            // What is short now, such as descriptors, may be back soon.
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let Some(stream) = admit(stream) else { continue };
                    let Ok(handle) = stream.try_clone() else { continue };
                    next += 1;
                    let (key, owner) = (next, Arc::clone(&self.owner));
                    let has_asked = Arc::new(AtomicBool::new(false));
                    streams.insert(key, Open { handle, has_asked: Arc::clone(&has_asked) });
                    open.spawn_blocking(move || {
                        serve_one(stream, owner.as_ref(), &has_asked);
                        key
                    });
                }
            }
        }
        // Who has asked for nothing yet is not worth waiting for.
        for idle in streams.values().filter(|open| !open.has_asked.load(Ordering::Relaxed)) {
            drop(idle.handle.shutdown(Shutdown::Both));
        }
        let drained = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            for open in streams.values() {
                drop(open.handle.shutdown(Shutdown::Both));
            }
            while open.join_next().await.is_some() {}
        }
        Ok(())
    }
}

/// A connection that a thread serves.
struct Open {
    /// Ends the thread's waits, where it does not end by itself.
    handle: UnixStream,
    has_asked: Arc<AtomicBool>,
}

/// Returns the connection if its user may use it, ready for blocking reads and writes.
fn admit(stream: tokio::net::UnixStream) -> Option<UnixStream> {
    let uid = stream.peer_cred().ok()?.uid();
    if !socket::may_use(uid) {
        warn!(uid, "a command of another user was turned away");
        return None;
    }
    let stream = stream.into_std().ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
    stream.set_write_timeout(Some(SILENCE_MAX)).ok()?;
    Some(stream)
}

fn serve_one(mut stream: UnixStream, owner: &dyn StoreOwner, has_asked: &AtomicBool) {
    let request = read_request(&mut stream);
    has_asked.store(true, Ordering::Relaxed);
    let served = match request {
        Ok(Some(request)) => answer(&mut stream, owner, request),
        Ok(None) => Ok(()),
        Err(failure) => frame::write(&mut stream, &Reply::Failed(failure)),
    };
    if let Err(error) = served {
        debug!(%error, "a command went away before its answer");
    }
}

fn read_request(stream: &mut UnixStream) -> Result<Option<Request>, Failure> {
    let unreadable = |error: &ReadFrameError| Failure::from_error(Kind::Internal, error);
    let envelope: Option<Envelope> =
        frame::read(stream, REQUEST_BYTES_MAX).map_err(|error| unreadable(&error))?;
    let Some(envelope) = envelope else { return Ok(None) };
    if envelope.version != VERSION {
        let what = "the process that owns the store is of another version than this command";
        return Err(Failure::new(Kind::Store, what).with_help("restart it after an upgrade"));
    }
    serde_json::from_value(envelope.request)
        .map(Some)
        .map_err(|error| unreadable(&ReadFrameError::Decode(error)))
}

/// Does what was asked and answers. An error means that nobody listens to the answer.
fn answer(stream: &mut UnixStream, owner: &dyn StoreOwner, request: Request) -> io::Result<()> {
    let mut tell = stream.try_clone()?;
    let mut progress =
        move |progress: Progress| match frame::write(&mut tell, &Reply::Progress(progress)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
    let reply = match request {
        Request::Add(add) => take_body(stream, owner, &add),
        Request::AddUrl(add) => owner.add_url(&add, &mut progress).map(Reply::Added),
        Request::Fetch(fetch) => match owner.fetch(&fetch, &mut progress) {
            Ok(ready) => {
                frame::write(stream, &Reply::Fetched(ready.report))?;
                return if fetch.stream { send_body(stream, ready.body) } else { Ok(()) };
            }
            Err(failure) => Err(failure),
        },
        Request::List => {
            let mut gone = None;
            let listed = owner.list(&mut |row| {
                if gone.is_none() {
                    gone = frame::write(stream, &Reply::Row(row)).err();
                }
            });
            gone.map_or(Ok(()), Err)?;
            listed.map(|()| Reply::Listed)
        }
        Request::Verify => owner.verify(&mut progress).map(Reply::Verified),
        Request::Gc { bytes_max } => owner.gc(bytes_max).map(Reply::Collected),
        Request::RebuildIndex => owner.rebuild_index().map(Reply::Rebuilt),
        Request::Inspect { content } => owner.inspect(&content).map(Reply::Inspected),
        Request::Status => owner.status().map(|status| Reply::Status(Box::new(status))),
    };
    frame::write(stream, &reply.unwrap_or_else(Reply::Failed))
}

fn take_body(
    stream: &mut UnixStream,
    owner: &dyn StoreOwner,
    add: &AddFile,
) -> Result<Reply, Failure> {
    owner.add(add, ImportFrom::Stream(&mut stream.take(add.bytes))).map(Reply::Added)
}

fn send_body(stream: &mut UnixStream, body: Body) -> io::Result<()> {
    match body {
        Body::Content(content) => content.write_to(stream).map_err(io::Error::other),
        Body::Stream(mut body) => io::copy(&mut body, stream).map(drop),
    }
}

//! A small HTTP origin over raw TCP that counts what it sends, and stops where a test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

/// Bytes written at a time.
const BLOCK_BYTES: usize = 16 * 1024;

/// An origin on loopback. Dropping it closes everything.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    manner: Mutex<Manner>,
    /// Bytes of bodies that were written.
    sent: watch::Sender<u64>,
    /// Bytes from here on wait.
    gate: watch::Sender<u64>,
    /// The `Range` of each request so far.
    ranges: Mutex<Vec<Option<String>>>,
}

/// How the origin answers.
#[derive(Clone)]
pub(crate) struct Manner {
    /// The files by path, each with its tag.
    files: BTreeMap<String, (Arc<[u8]>, Option<String>)>,
    /// Whether it gives parts of a file.
    does_ranges: bool,
    /// Closes the connection before this byte of a file, once.
    cut_at: Option<u64>,
}

impl Origin {
    /// Starts an origin that has these files.
    pub(crate) async fn with(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Manner { files: BTreeMap::new(), does_ranges: true, cut_at: None };
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            sent: watch::Sender::new(0),
            gate: watch::Sender::new(u64::MAX),
            ranges: Mutex::default(),
        });
        let serving = shared.clone();
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new(); // Owns every connection: none outlives the origin.
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, serving.clone()));
            }
        });
        let origin = Self { address, shared, accepting: accepting.abort_handle() };
        for (path, bytes) in files {
            origin.put(path, bytes, Some("v1"));
        }
        origin
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Puts a file in place of what was at this path.
    pub(crate) fn put(&self, path: &str, bytes: &[u8], tag: Option<&str>) {
        let tag = tag.map(|tag| format!("\"{tag}\""));
        self.manner(|manner| manner.files.insert(path.to_owned(), (bytes.into(), tag)));
    }

    /// Has no file any more.
    pub(crate) fn forget(&self) {
        self.manner(|manner| manner.files.clear());
    }

    /// Answers every request with the whole file.
    pub(crate) fn without_ranges(&self) {
        self.manner(|manner| manner.does_ranges = false);
    }

    /// Closes the next connection that comes to this byte of a file.
    pub(crate) fn cut_at(&self, byte: u64) {
        self.manner(|manner| manner.cut_at = Some(byte));
    }

    /// Holds back every byte of a file from this one on.
    pub(crate) fn hold_from(&self, byte: u64) {
        self.shared.gate.send_replace(byte);
    }

    /// Holds nothing back any more.
    pub(crate) fn let_go(&self) {
        self.shared.gate.send_replace(u64::MAX);
    }

    /// Bytes of bodies that it has sent.
    pub(crate) fn sent(&self) -> u64 {
        *self.shared.sent.borrow()
    }

    /// The `Range` of each request so far.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.shared.ranges.lock().unwrap().clone()
    }

    fn manner<T>(&self, change: impl FnOnce(&mut Manner) -> T) {
        change(&mut self.shared.manner.lock().unwrap());
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(head) = request(&mut stream).await {
        let range = header(&head, "range");
        shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).push(range.clone());
        let manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let Some((bytes, tag)) = manner.files.get(&path) else {
            let reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            if stream.write_all(reply).await.is_err() {
                return;
            }
            continue;
        };
        let fits = header(&head, "if-range").is_none_or(|asked| Some(asked) == *tag);
        let part = range.filter(|_| manner.does_ranges && fits).and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let end = last.parse::<usize>().map_or(bytes.len(), |last| last + 1);
            Some((first.parse::<usize>().ok()?, end.min(bytes.len())))
        });
        let (first, end) = part.unwrap_or((0, bytes.len()));
        let status = if part.is_some() {
            let (last, len) = (end - 1, bytes.len());
            format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len}")
        } else {
            "200 OK".to_owned()
        };
        let tag = tag.as_ref().map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
        let head = format!("HTTP/1.1 {status}\r\n{tag}Content-Length: {}\r\n\r\n", end - first);
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        if !body(&mut stream, &shared, bytes, first, end).await {
            return;
        }
    }
}

/// Writes a body as far as gate and cut allow; returns whether the connection goes on.
async fn body(
    stream: &mut TcpStream,
    shared: &Shared,
    bytes: &[u8],
    first: usize,
    end: usize,
) -> bool {
    let mut gate = shared.gate.subscribe();
    let mut at = first;
    while at < end {
        let Ok(until) = gate.wait_for(|until| *until > at as u64).await.map(|until| *until) else {
            return false;
        };
        let stop = end.min(usize::try_from(until).unwrap_or(end)).min(at + BLOCK_BYTES);
        let cut = {
            let mut manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner);
            let cut = manner.cut_at.filter(|cut| (at as u64..stop as u64).contains(cut));
            if cut.is_some() {
                manner.cut_at = None;
            }
            cut
        };
        let stop = cut.map_or(stop, |cut| cut as usize);
        if stream.write_all(&bytes[at..stop]).await.is_err() {
            return false;
        }
        shared.sent.send_modify(|sent| *sent += (stop - at) as u64);
        if cut.is_some() {
            // Fails only if the client is gone already.
            let _ = stream.shutdown().await;
            return false;
        }
        at = stop;
    }
    true
}

/// Reads one request's head; `None` when the client has left.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

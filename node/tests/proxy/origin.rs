//! An origin over raw TCP that does what a test tells it to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Bytes written at a time.
const BLOCK_BYTES: usize = 16 * 1024;

/// An origin on loopback. Dropping it closes everything.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Asked>>,
    /// Bytes of bodies that were written.
    sent: watch::Sender<u64>,
    /// Bytes of a body from here on wait.
    gate: watch::Sender<u64>,
}

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    head: String,
}

/// How the origin answers.
#[derive(Clone, Default)]
struct Manner {
    files: BTreeMap<String, File>,
    without_ranges: bool,
    without_length: bool,
    /// Closes the connection before this byte of a file, once.
    cut_at: Option<u64>,
    /// Answers nothing but this status.
    status: Option<u16>,
}

#[derive(Clone)]
struct File {
    bytes: Arc<[u8]>,
    tag: Option<String>,
    /// Further header lines, each ended.
    headers: String,
    /// The whole reply instead.
    raw: Option<String>,
}

impl Asked {
    /// Returns a header of the request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

impl Origin {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::default(),
            asked: Mutex::default(),
            sent: watch::Sender::new(0),
            gate: watch::Sender::new(u64::MAX),
        });
        let serving = shared.clone();
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new(); // Owns every connection: none outlives the origin.
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, serving.clone()));
            }
        });
        Self { address, shared, accepting: accepting.abort_handle() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts a file in place of what was at this path.
    pub(crate) fn put(&self, path: &str, bytes: &[u8], tag: Option<&str>) {
        self.put_with(path, bytes, tag, "");
    }

    /// As [`Self::put`], with further header lines.
    pub(crate) fn put_with(&self, path: &str, bytes: &[u8], tag: Option<&str>, headers: &str) {
        let tag = tag.map(|tag| format!("\"{tag}\""));
        let file = File { bytes: bytes.into(), tag, headers: headers.to_owned(), raw: None };
        self.manner().files.insert(path.to_owned(), file);
    }

    /// Answers requests for this path with these very bytes, and closes.
    pub(crate) fn put_raw(&self, path: &str, reply: &str) {
        let file = File {
            bytes: Arc::default(),
            tag: None,
            headers: String::new(),
            raw: Some(reply.to_owned()),
        };
        self.manner().files.insert(path.to_owned(), file);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.manner().files.remove(path);
    }

    pub(crate) fn without_ranges(&self) {
        self.manner().without_ranges = true;
    }

    /// Sends bodies in chunks, whose length nobody knows before.
    pub(crate) fn without_length(&self) {
        self.manner().without_length = true;
    }

    pub(crate) fn cut_at(&self, byte: u64) {
        self.manner().cut_at = Some(byte);
    }

    /// Answers everything with this status, or as usual again.
    pub(crate) fn answer_only(&self, status: Option<u16>) {
        self.manner().status = status;
    }

    /// Holds back every byte of a body from this one on.
    pub(crate) fn hold_from(&self, byte: u64) {
        self.shared.gate.send_replace(byte);
    }

    pub(crate) fn let_go(&self) {
        self.shared.gate.send_replace(u64::MAX);
    }

    /// Bytes of bodies that it has sent.
    pub(crate) fn sent(&self) -> u64 {
        *self.shared.sent.borrow()
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.shared.manner.lock().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(head) = request(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        shared.asked.lock().unwrap().push(Asked { head: head.clone() });
        let manner = shared.manner.lock().unwrap().clone();
        let Some(file) = manner.files.get(&path).filter(|_| manner.status.is_none()) else {
            let status = manner.status.unwrap_or(404);
            let reply = format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
            continue;
        };
        if let Some(raw) = &file.raw {
            // Fails only if the client is gone already.
            let _ = stream.write_all(raw.as_bytes()).await;
            let _ = stream.shutdown().await;
            return;
        }
        if file.tag.is_some() && header(&head, "if-none-match") == file.tag {
            if stream.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").await.is_err() {
                return;
            }
            continue;
        }
        if !whole_or_part(&mut stream, &shared, &manner, file, &head).await {
            return;
        }
    }
}

async fn whole_or_part(
    stream: &mut TcpStream,
    shared: &Shared,
    manner: &Manner,
    file: &File,
    head: &str,
) -> bool {
    let fits = header(head, "if-range").is_none_or(|asked| Some(asked) == file.tag);
    let range = header(head, "range").filter(|_| !manner.without_ranges && fits);
    let part = range.and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end = last.parse::<usize>().map_or(file.bytes.len(), |last| last + 1);
        Some((first.parse::<usize>().ok()?, end.min(file.bytes.len())))
    });
    let (first, end) = part.unwrap_or((0, file.bytes.len()));
    let status = if part.is_some() {
        format!(
            "206 Partial Content\r\nContent-Range: bytes {first}-{}/{}",
            end - 1,
            file.bytes.len()
        )
    } else {
        "200 OK".to_owned()
    };
    let tag = file.tag.as_ref().map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let length = if manner.without_length {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", end - first)
    };
    let reply = format!("HTTP/1.1 {status}\r\n{tag}{}{length}\r\n\r\n", file.headers);
    if stream.write_all(reply.as_bytes()).await.is_err() {
        return false;
    }
    let sent = body(stream, shared, &file.bytes, first..end, manner.without_length).await;
    sent && (!manner.without_length || stream.write_all(b"0\r\n\r\n").await.is_ok())
}

/// Writes a body as far as gate and cut allow; returns whether the connection goes on.
async fn body(
    stream: &mut TcpStream,
    shared: &Shared,
    bytes: &[u8],
    range: std::ops::Range<usize>,
    is_chunked: bool,
) -> bool {
    let mut gate = shared.gate.subscribe();
    let mut at = range.start;
    while at < range.end {
        let Ok(until) = gate.wait_for(|until| *until > at as u64).await.map(|until| *until) else {
            return false;
        };
        let stop = range.end.min(usize::try_from(until).unwrap_or(range.end)).min(at + BLOCK_BYTES);
        let cut = {
            let mut manner = shared.manner.lock().unwrap();
            manner.cut_at.take_if(|cut| (at as u64..stop as u64).contains(cut))
        };
        let stop = cut.map_or(stop, |cut| cut as usize);
        let mut block = Vec::new();
        if is_chunked && stop > at {
            block.extend(format!("{:x}\r\n", stop - at).into_bytes());
        }
        block.extend(&bytes[at..stop]);
        if is_chunked && stop > at {
            block.extend(b"\r\n");
        }
        if stream.write_all(&block).await.is_err() {
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

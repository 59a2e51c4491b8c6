//! A small HTTP server over raw TCP that answers exactly as a test tells it to, faults included.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What the server does with each request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Serves a file as a good origin does.
    File { bytes: Arc<[u8]>, etag: Option<String> },
    /// Serves a file, but no part of it.
    WholeOnly(Arc<[u8]>),
    /// Writes this and closes.
    Text(Vec<u8>),
    /// Writes this, then nothing until the client leaves.
    TextAndWait(Vec<u8>),
    /// Writes this, then as much as the client takes.
    Endless(Vec<u8>),
    /// Writes this, then a byte every few milliseconds.
    Trickle(Vec<u8>),
}

/// A server on loopback. Dropping it closes everything.
pub(crate) struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// What stands before the requests of a connection.
#[derive(Clone)]
enum Front {
    Plain,
    Tls(TlsAcceptor),
    Tunnel(TlsAcceptor),
}

struct Shared {
    answer: Mutex<Answer>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// A client left in the middle of an answer.
    gone: Notify,
}

impl Answer {
    pub(crate) fn file(bytes: &[u8]) -> Self {
        Self::file_tagged(bytes, "\"v1\"")
    }

    pub(crate) fn file_tagged(bytes: &[u8], etag: &str) -> Self {
        Self::File { bytes: bytes.into(), etag: Some(etag.to_owned()) }
    }

    pub(crate) fn whole_only(bytes: &[u8]) -> Self {
        Self::WholeOnly(bytes.into())
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn and_wait(self) -> Self {
        match self {
            Self::Text(text) => Self::TextAndWait(text),
            other => other,
        }
    }

    pub(crate) fn redirect(target: &str) -> Self {
        Self::text(&format!(
            "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        ))
    }

    pub(crate) fn endless(head: &str) -> Self {
        Self::Endless(head.into())
    }

    pub(crate) fn trickle(head: &str) -> Self {
        Self::Trickle(head.into())
    }
}

impl Server {
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::start_with(answer, Front::Plain).await
    }

    /// Speaks TLS.
    pub(crate) async fn start_tls(answer: Answer, acceptor: TlsAcceptor) -> Self {
        Self::start_with(answer, Front::Tls(acceptor)).await
    }

    /// Grants one `CONNECT`, then is what the tunnel leads to.
    pub(crate) async fn start_tunnel(answer: Answer, acceptor: TlsAcceptor) -> Self {
        Self::start_with(answer, Front::Tunnel(acceptor)).await
    }

    async fn start_with(answer: Answer, front: Front) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            gone: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new(); // Owns every connection: none outlives the server.
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                open.spawn(enter(stream, front.clone(), Arc::clone(&serving)));
            }
        })
        .abort_handle();
        Self { addr, shared, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.addr).parse().expect("a URL")
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().expect("not poisoned") = answer;
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until a client left in the middle of an answer.
    pub(crate) async fn gone(&self) {
        self.shared.gone.notified().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn enter(mut stream: TcpStream, front: Front, shared: Arc<Shared>) {
    let acceptor = match front {
        Front::Plain => return serve(stream, shared).await,
        Front::Tls(acceptor) => acceptor,
        Front::Tunnel(acceptor) => {
            let Some(head) = request(&mut stream).await else { return };
            shared.requests.lock().expect("not poisoned").push(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            acceptor
        }
    };
    if let Ok(stream) = acceptor.accept(stream).await {
        serve(stream, shared).await;
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    while let Some(head) = request(&mut stream).await {
        shared.requests.lock().expect("not poisoned").push(head.clone());
        let answer = shared.answer.lock().expect("not poisoned").clone();
        match answer {
            Answer::File { bytes, etag } => {
                let etag = etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
                let reply = file_reply(&head, &bytes, &etag);
                if stream.write_all(&reply).await.is_err() {
                    return;
                }
            }
            Answer::WholeOnly(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
                if stream.write_all(&[head.as_bytes(), &bytes].concat()).await.is_err() {
                    return;
                }
            }
            Answer::Text(text) => {
                let _ = stream.write_all(&text).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::TextAndWait(text) => {
                let _ = stream.write_all(&text).await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
                shared.gone.notify_one();
                return;
            }
            Answer::Endless(head) => {
                let _ = stream.write_all(&head).await;
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                shared.gone.notify_one();
                return;
            }
            Answer::Trickle(head) => {
                let _ = stream.write_all(&head).await;
                let mut tick = tokio::time::interval(Duration::from_millis(10));
                while stream.write_all(b"x").await.is_ok() {
                    tick.tick().await;
                }
                shared.gone.notify_one();
                return;
            }
        }
    }
}

/// Reads one request's head, in lower case; `None` when the client has left.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

/// What a good origin replies: a part where one is asked for and `If-Range` fits.
fn file_reply(head: &str, bytes: &[u8], etag: &str) -> Vec<u8> {
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    let len = bytes.len();
    let fits = header("if-range").is_none_or(|tag| etag.to_ascii_lowercase().contains(&tag));
    let range = header("range").filter(|_| fits).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let last = last.parse().unwrap_or(usize::MAX).min(len.wrapping_sub(1));
        Some((first.parse::<usize>().ok()?, last))
    });
    let (status, range, body) = match range {
        None => ("200 OK", String::new(), bytes),
        Some((first, _)) if first >= len => {
            ("416 Range Not Satisfiable", format!("Content-Range: bytes */{len}\r\n"), &[][..])
        }
        Some((first, last)) => (
            "206 Partial Content",
            format!("Content-Range: bytes {first}-{last}/{len}\r\n"),
            &bytes[first..=last],
        ),
    };
    let head = format!("HTTP/1.1 {status}\r\n{etag}{range}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

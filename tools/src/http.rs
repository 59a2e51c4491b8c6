//! HTTP for whoever may block: a repository's documents and files, and what is handed in and brought to control.
//!
//! Always true: no more is read of an answer than its asker allows; redirects are not followed, and no proxy is
//! asked, because a repository is where its admins say that it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response, StatusCode};
use sutler_protocol::manifest::drive::Repository;
use sutler_protocol::manifest::{Answer, Fetch};
use tokio::runtime::{Builder, Runtime};

/// How long a connection may take, and each read of it. A repository that goes on sending is bounded by
/// the bytes that it may send.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to hand orders in and hear of them: 64 MiB on a slow line, and control's 30 s.
const POST_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a file that is sent may make no way, and how long its answer takes once all of it is there: it is synced first.
const STUCK_MAX: Duration = Duration::from_mins(1);
const SETTLE_MAX: Duration = Duration::from_mins(10);

/// How often it is looked how far a file is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Bytes that are read of the answer to what was handed in: a few words.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Asks over HTTP, one request at a time. Waits for each.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    reader: reqwest::Client,
    /// Its answers come long after a request began, when all of it has arrived.
    sender: reqwest::Client,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// There is no TLS to be had.
    #[error("set up HTTP")]
    Client(#[source] reqwest::Error),
    /// The system refused.
    #[error("set up HTTP")]
    Runtime(#[source] io::Error),
}

/// Why something was not had over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed, or nothing came for too long.
    #[error("ask over HTTP")]
    Transfer(#[from] reqwest::Error),
    /// It was answered, and not with what was asked for.
    #[error("the repository answered {0}")]
    Status(StatusCode),
    /// Whoever takes a file stopped taking it.
    #[error("nothing more was taken for {} seconds", STUCK_MAX.as_secs())]
    Stuck,
}

/// What was answered to what was handed in.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How it went.
    pub status: StatusCode,
    /// What was said of it, cut off after 64 KiB.
    pub body: Bytes,
}

/// A repository's metadata below a URL.
#[derive(Clone, Debug)]
pub struct Metadata<'a> {
    client: &'a Client,
    url: String,
}

impl Client {
    /// Sets HTTP up.
    ///
    /// # Errors
    ///
    /// [`SetUpError`].
    pub fn new() -> Result<Self, SetUpError> {
        // One cryptography, before anything can ask for another; there may be one already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
        };
        let reader = builder().read_timeout(READ_TIMEOUT).build().map_err(SetUpError::Client)?;
        let sender = builder().build().map_err(SetUpError::Client)?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(SetUpError::Runtime)?;
        Ok(Self { runtime, reader, sender })
    }

    /// Returns the metadata of a repository below `url`.
    pub fn metadata(&self, url: &str) -> Metadata<'_> {
        Metadata { client: self, url: url.to_owned() }
    }

    /// Fetches what lies at `url`, and at most one byte more of it than `bytes_max`. HTTP's 403 and 404 mean that
    /// nothing does.
    ///
    /// # Errors
    ///
    /// [`HttpError`].
    pub fn get(&self, url: &str, bytes_max: u64) -> Result<Answer, HttpError> {
        self.runtime.block_on(async {
            let response = self.reader.get(url).send().await?;
            if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) {
                return Ok(Answer::Absent);
            }
            let bytes = start(ok(response)?, bytes_max as usize + 1).await?;
            Ok(Answer::Document(bytes))
        })
    }

    /// Gives `take` what lies at `url`, piece by piece, until it wants no more.
    ///
    /// # Errors
    ///
    /// [`HttpError`], or what `take` says.
    pub fn read<E: From<HttpError>>(
        &self,
        url: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.runtime.block_on(async {
            let mut response = ok(self.reader.get(url).send().await.map_err(HttpError::from)?)?;
            while let Some(piece) = response.chunk().await.map_err(HttpError::from)? {
                take(&piece)?;
            }
            Ok(())
        })
    }

    /// Hands `body` in at `url`.
    ///
    /// # Errors
    ///
    /// [`HttpError::Transfer`]: it may have been taken all the same.
    pub fn post(&self, url: &str, body: Vec<u8>) -> Result<Reply, HttpError> {
        self.runtime.block_on(async {
            let request = self.sender.post(url).timeout(POST_TIMEOUT).body(body);
            let response = request.send().await?;
            let status = response.status();
            Ok(Reply { status, body: start(response, REPLY_BYTES_MAX).await? })
        })
    }

    /// Returns whether something lies at `url`.
    ///
    /// # Errors
    ///
    /// [`HttpError`].
    pub fn has(&self, url: &str) -> Result<bool, HttpError> {
        self.runtime.block_on(async {
            match self.reader.head(url).send().await?.status() {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(false),
                status => Err(HttpError::Status(status)),
            }
        })
    }

    /// Brings the first `length` bytes of a file to `url`, and tells `sent` how many are on their way from time to time.
    ///
    /// # Errors
    ///
    /// [`HttpError`]: it may have been taken all the same.
    pub fn put(
        &self,
        url: &str,
        file: File,
        length: u64,
        mut sent: impl FnMut(u64),
    ) -> Result<Reply, HttpError> {
        let sent_bytes = Arc::new(AtomicU64::new(0));
        let pieces = Pieces { file, left_bytes: length, sent_bytes: Arc::clone(&sent_bytes) };
        self.runtime.block_on(async {
            let mut answer = Box::pin(self.sender.put(url).body(Body::wrap(pieces)).send());
            let (mut known, mut still) = (0, Duration::ZERO);
            let response = loop {
                match tokio::time::timeout(LOOK_EVERY, &mut answer).await {
                    Ok(answered) => break answered?,
                    Err(_) => still += LOOK_EVERY,
                }
                let now = sent_bytes.load(Ordering::Relaxed);
                if now != known {
                    (known, still) = (now, Duration::ZERO);
                    sent(now);
                }
                let still_max = if now == length { SETTLE_MAX } else { STUCK_MAX };
                if still > still_max {
                    return Err(HttpError::Stuck);
                }
            };
            let status = response.status();
            Ok(Reply { status, body: start(response, REPLY_BYTES_MAX).await? })
        })
    }
}

/// A file that is sent, piece by piece, and how much of it was taken.
struct Pieces {
    file: File,
    left_bytes: u64,
    sent_bytes: Arc<AtomicU64>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads where others would wait: nobody else runs here.
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left_bytes == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; this.left_bytes.min(PIECE_BYTES as u64) as usize];
        let read = this.file.read_exact(&mut piece);
        this.left_bytes -= piece.len() as u64;
        this.sent_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(read.map(|()| Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

impl Repository for Metadata<'_> {
    type Error = HttpError;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, HttpError> {
        self.client.get(&join(&self.url, &fetch.place), fetch.bytes_max)
    }
}

/// Returns the URL of a place below `base`.
pub fn join(base: &str, place: &str) -> String {
    format!("{}/{place}", base.trim_end_matches('/'))
}

fn ok(response: Response) -> Result<Response, HttpError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(HttpError::Status(status)),
    }
}

/// Reads the first `bytes_max` bytes of an answer, or all of it.
async fn start(mut response: Response, bytes_max: usize) -> Result<Bytes, HttpError> {
    let mut bytes = Vec::new();
    while bytes.len() < bytes_max
        && let Some(piece) = response.chunk().await?
    {
        bytes.extend_from_slice(&piece[..piece.len().min(bytes_max - bytes.len())]);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_ends_with_a_slash_or_not() {
        for base in ["http://127.0.0.1:1/metadata", "http://127.0.0.1:1/metadata/"] {
            assert_eq!(join(base, "1.root.json"), "http://127.0.0.1:1/metadata/1.root.json");
        }
    }
}

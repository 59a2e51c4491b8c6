//! HTTP for whoever may block: a repository's documents and files, and what is handed in at control.
//!
//! Always true: no more is read of an answer than its asker allows; redirects are not followed, and no proxy is
//! asked, because a repository is where its admins say that it is.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Response, StatusCode};
use sutler_protocol::manifest::drive::Repository;
use sutler_protocol::manifest::{Answer, Fetch};
use tokio::runtime::{Builder, Runtime};

/// How long a connection may take, and each read of it. A repository that goes on sending is bounded by
/// the bytes that it may send.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to hand orders in and hear of them: 64 MiB on a slow line, and control's 30 s.
const POST_TIMEOUT: Duration = Duration::from_mins(10);

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

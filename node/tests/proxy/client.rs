//! A client of the proxy over raw TCP, which says exactly what a test wants it to.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to the proxy.
pub(crate) struct Client(pub(crate) TcpStream);

/// A reply, as far as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the connection ended before the body did.
    pub(crate) is_broken: bool,
}

impl Client {
    pub(crate) async fn of(proxy: SocketAddr) -> Self {
        Self(TcpStream::connect(proxy).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        // Whoever was refused may be cut off while it still speaks.
        drop(self.0.write_all(bytes.as_bytes()).await);
    }

    /// Asks for a URL as a proxy's client.
    pub(crate) async fn get(&mut self, url: &str, headers: &str) {
        self.ask("GET", url, headers).await;
    }

    pub(crate) async fn ask(&mut self, method: &str, url: &str, headers: &str) {
        let host = url.split('/').nth(2).unwrap_or("proxy");
        self.send(&format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await;
    }

    /// Reads a reply's head; `None` if the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.ok()?);
            }
            Some(String::from_utf8(head).unwrap())
        };
        timeout(PATIENCE, reading).await.expect("a reply comes or the connection ends")
    }

    /// Reads a whole reply to a GET.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        let head = self.head().await?;
        Some(timeout(PATIENCE, self.body(head)).await.expect("a body ends"))
    }

    async fn body(&mut self, head: String) -> Reply {
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new(), is_broken: false };
        if matches!(status, 204 | 304) {
            return reply;
        }
        if reply.header("transfer-encoding").as_deref() == Some("chunked") {
            reply.is_broken = self.chunks(&mut reply.body).await.is_none();
            return reply;
        }
        let len: usize = reply.header("content-length").expect("a length").parse().unwrap();
        let mut rest = vec![0; 64 * 1024];
        while reply.body.len() < len {
            let wanted = rest.len().min(len - reply.body.len());
            match self.0.read(&mut rest[..wanted]).await {
                Ok(0) | Err(_) => {
                    reply.is_broken = true;
                    break;
                }
                Ok(read) => reply.body.extend(&rest[..read]),
            }
        }
        reply
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(self.0.read_u8().await.ok()?);
            }
            let len =
                usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; len + 2];
            self.0.read_exact(&mut chunk).await.ok()?;
            if len == 0 {
                return Some(());
            }
            body.extend(&chunk[..len]);
        }
    }

    /// Reads exactly so many bytes of a body.
    pub(crate) async fn some(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("they come").unwrap();
        bytes
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// How the file was come by: `HIT`, `MISS`, `REVALIDATED` or `STALE`.
    pub(crate) fn mark(&self) -> String {
        let mark = self.header("x-cache").unwrap_or_default();
        mark.split(' ').next().unwrap_or_default().to_owned()
    }

    /// The text that says what is wrong.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Asks once, on a connection of its own.
pub(crate) async fn get(proxy: SocketAddr, url: &str, headers: &str) -> Reply {
    let mut client = Client::of(proxy).await;
    client.get(url, headers).await;
    client.reply().await.expect("a reply")
}

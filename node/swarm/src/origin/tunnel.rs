//! A connection to a host that somebody else speaks through: what CONNECT asks of a proxy.
//!
//! The host passes the allow-list and the guard of addresses like any origin; the bytes are
//! between the client and the host, and are neither read nor kept.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::dns::{Name, Resolve};
use reqwest::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

use crate::origin::address::AddressRefused;
use crate::origin::allow::{Reach, Refused};
use crate::origin::client::Origins;
use crate::origin::proxy::Way;

/// Bytes of a proxy's answer, at most.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No origin of that name may be asked.
    #[error("the host is not to be asked for")]
    Refused(#[source] Refused),
    /// The host's name leads only to addresses that we may not go to.
    #[error("reach the host")]
    Address(#[source] AddressRefused),
    /// Its name does not resolve.
    #[error("resolve the host's name")]
    Resolve(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It, or the proxy before it, does not answer.
    #[error("connect to the host")]
    Connect(#[source] io::Error),
    /// That took too long.
    #[error("the host was silent for {after:?}")]
    Silent {
        /// How long was waited.
        after: Duration,
    },
    /// The proxy before it would not let us through.
    #[error("the proxy before the host answered with status {status}")]
    Proxy {
        /// Its status; 0 if it made no sense.
        status: u16,
    },
    /// The proxy before it is reached by TLS, through which no tunnel is made.
    #[error("no tunnel leads through a proxy that is reached by TLS")]
    ProxyOverTls,
}

impl Origins {
    /// Connects to the host and port of an `https` URL, directly or through the proxy that stands
    /// before it.
    ///
    /// Cancel-safe: a dropped call drops its connection.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]. Nothing was sent to a host that is not allowed.
    pub async fn tunnel(&self, url: &Url) -> Result<TcpStream, TunnelError> {
        let reach = self.permits_host(url).map_err(TunnelError::Refused)?;
        let after = self.dial().connect_timeout();
        let made = timeout(after, self.connect(url, reach)).await;
        made.map_err(|_| TunnelError::Silent { after })?
    }

    async fn connect(&self, url: &Url, reach: Reach) -> Result<TcpStream, TunnelError> {
        let proxies = self.dial().proxies();
        let way = proxies.way(url);
        let proxy = match way {
            Way::Direct => None,
            Way::HttpProxy | Way::HttpsProxy => proxies.url(way),
        };
        let stream = match proxy {
            None => self.reach(url, reach).await?,
            Some(proxy) if proxy.scheme() == "https" => return Err(TunnelError::ProxyOverTls),
            // The proxy's own name is the operator's: it may lead anywhere.
            Some(proxy) => {
                let mut stream = self.reach(proxy, Reach::Anywhere).await?;
                ask_proxy(&mut stream, url, proxy).await?;
                stream
            }
        };
        stream.set_nodelay(true).map_err(TunnelError::Connect)?;
        Ok(stream)
    }

    /// Connects to the host of a URL, at the first of its addresses that answers.
    async fn reach(&self, url: &Url, reach: Reach) -> Result<TcpStream, TunnelError> {
        let port = url.port_or_known_default().unwrap_or(443);
        let addresses: Vec<IpAddr> = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let name: Name =
                    name.parse().map_err(|error| TunnelError::Resolve(Box::new(error)))?;
                let found = self.dial().guard(reach).resolve(name).await;
                let found = found.map_err(|error| match error.downcast::<AddressRefused>() {
                    Ok(refused) => TunnelError::Address(*refused),
                    Err(error) => TunnelError::Resolve(error),
                })?;
                found.map(|address| address.ip()).collect()
            }
            None => Vec::new(),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect((address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(TunnelError::Connect(last))
    }
}

/// Asks a proxy for a tunnel of its own, and reads its answer and not a byte more.
async fn ask_proxy(stream: &mut TcpStream, url: &Url, proxy: &Url) -> Result<(), TunnelError> {
    let host = url.host_str().unwrap_or_default();
    let place = format!("{host}:{}", url.port_or_known_default().unwrap_or(443));
    let mut question = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(value) = credentials(proxy).as_ref().and_then(|value| value.to_str().ok()) {
        question.push_str("Proxy-Authorization: ");
        question.push_str(value);
        question.push_str("\r\n");
    }
    question.push_str("\r\n");
    stream.write_all(question.as_bytes()).await.map_err(TunnelError::Connect)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(TunnelError::Proxy { status: 0 });
        }
        answer.push(stream.read_u8().await.map_err(TunnelError::Connect)?);
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    if (200..300).contains(&status) { Ok(()) } else { Err(TunnelError::Proxy { status }) }
}

/// Returns what the proxy's URL says to log in with.
fn credentials(proxy: &Url) -> Option<HeaderValue> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decode(proxy.username()), proxy.password().map(decode));
    if user.is_empty() && password.is_none() {
        return None;
    }
    let text = format!("{user}:{}", password.unwrap_or_default());
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_credentials_are_encoded_as_the_standard_says() {
        let proxy = Url::parse("http://Aladdin:open%20sesame@gate.lan:1").expect("a URL");
        let value = credentials(&proxy).expect("it has some");
        assert_eq!(value.to_str().ok(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(value.is_sensitive());
    }
}

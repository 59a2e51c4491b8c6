//! The asking side of enrolment: one connection, one request, one answer, which is checked before it
//! is believed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use sutler_protocol::close::CloseCode;
use sutler_protocol::join::{
    CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, Join, JoinAnswer, JoinRefusal, JoinRequest,
    ROOT_BYTES_MAX,
};
use tokio::time::timeout;

use super::serve::Granted;
use super::tls::{joiner_config, renewer_config};
use super::token::Token;
use crate::ended::Ended;
use crate::identity::{
    Expect, Identity, KeyHash, PeerName, PeerVerifier, SERVER_NAME, TlsError, TrustedClock,
    VerifyError, hash, key_hash,
};
use crate::peer::ConnectError;
use crate::wire;

/// How long a handshake may take: a retry, and a machine that is busy with others.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer may take: control waits for its disk.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// What came of asking to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The machine is a member.
    Granted(Granted),
    /// Somebody has to accept it first; asking again with the same key is harmless.
    Held {
        /// What it will be called.
        id: String,
        /// When to ask again.
        retry: Duration,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No socket could be opened.
    #[error("open a UDP socket")]
    Socket(#[source] std::io::Error),
    /// The connection could not be prepared.
    #[error("prepare TLS")]
    Tls(#[source] TlsError),
    /// Nobody answered, or not the control that the token means.
    #[error(transparent)]
    Connect(ConnectError),
    /// The connection ended before the answer was whole.
    #[error("the connection to control ended")]
    Ended(#[source] Ended),
    /// The answer took too long.
    #[error("control did not answer within {} s", ANSWERED_WITHIN.as_secs())]
    Timeout,
    /// Control refused.
    #[error(transparent)]
    Refused(JoinRefusal),
    /// Control answered what no control of ours does.
    #[error("control's answer makes no sense")]
    Answer,
    /// What control granted is not what the token promises.
    #[error("what control granted is not what the token promises")]
    Mismatch(#[source] Mismatch),
}

/// What differs between a token and what was granted by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The certificate is for another key.
    #[error("the certificate is for another key")]
    Key,
    /// It would not be let in anywhere.
    #[error("the certificate is not valid")]
    Certificate(#[source] VerifyError),
    /// It names somebody whom the token does not name.
    #[error("the certificate names {found}")]
    Name {
        /// Whom it names.
        found: PeerName,
    },
    /// The roots are others.
    #[error("the organisation's root is another")]
    Authority,
    /// `root.json` is another.
    #[error("root.json is another")]
    RootJson,
}

/// Asks control at `address` for a first certificate. The answer was checked against the token.
///
/// Cancel-safe: asking again with the same signing request gives the same.
///
/// # Errors
///
/// [`JoinError`].
pub async fn join(
    address: SocketAddr,
    token: &Token,
    csr: &[u8],
    key: KeyHash,
    replace: bool,
) -> Result<Joined, JoinError> {
    let grant = token.grant();
    let tls = joiner_config(grant.organisation.clone(), grant.authority_sha256);
    let presented = token.presented();
    let request = JoinRequest::Join(Join {
        statement: presented.statement.clone(),
        signature: presented.signature.clone(),
        secret: presented.secret,
        csr: csr.to_vec(),
        replace,
    });
    let (answer, root_json) = ask(address, tls.map_err(JoinError::Tls)?, &request).await?;
    match answer {
        JoinAnswer::Joined { chain, roots, .. } => {
            let granted =
                Granted { chain: certificates(chain)?, roots: certificates(roots)?, root_json };
            check(&granted, token, key, UnixTime::now()).map_err(JoinError::Mismatch)?;
            Ok(Joined::Granted(granted))
        }
        JoinAnswer::Held { id, retry_ms } => {
            let retry = Duration::from_millis(retry_ms.into()).clamp(RETRY_MIN, RETRY_MAX);
            Ok(Joined::Held { id, retry })
        }
        JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
        JoinAnswer::Renewed { .. } => Err(JoinError::Answer),
    }
}

/// How soon, and after how long at the latest, a held joiner asks again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Asks control at `address` for a new certificate in the place of `identity`'s, which may have
/// ended a while ago. The answer is for the same key and name.
///
/// Cancel-safe: asking again is harmless.
///
/// # Errors
///
/// [`JoinError`].
pub async fn renew(
    address: SocketAddr,
    identity: &Identity,
    csr: &[u8],
    clock: &TrustedClock,
) -> Result<Vec<CertificateDer<'static>>, JoinError> {
    let tls = renewer_config(identity, Arc::new(clock.clone())).map_err(JoinError::Tls)?;
    let (answer, _) = ask(address, tls, &JoinRequest::Renew { csr: csr.to_vec() }).await?;
    match answer {
        JoinAnswer::Renewed { chain } => {
            let chain = certificates(chain)?;
            let own = identity.chain().first().and_then(|own| key_hash(own).ok());
            let name = verified(&chain, identity.roots(), identity.name(), own, clock.now());
            let name = name.map_err(JoinError::Mismatch)?;
            if name != *identity.name() {
                return Err(JoinError::Mismatch(Mismatch::Name { found: name }));
            }
            Ok(chain)
        }
        JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
        JoinAnswer::Joined { .. } | JoinAnswer::Held { .. } => Err(JoinError::Answer),
    }
}

/// Checks what was granted against what the token promises.
///
/// # Errors
///
/// [`Mismatch`].
pub fn check(
    granted: &Granted,
    token: &Token,
    key: KeyHash,
    now: UnixTime,
) -> Result<PeerName, Mismatch> {
    let grant = token.grant();
    if granted.roots.first().is_none_or(|root| hash(root) != grant.authority_sha256) {
        return Err(Mismatch::Authority);
    }
    let is_text = std::str::from_utf8(&granted.root_json).is_ok();
    if !is_text || hash(&granted.root_json) != grant.root_sha256 {
        return Err(Mismatch::RootJson);
    }
    let anybody = PeerName::new(grant.organisation.clone(), grant.member(&token.id(), &key));
    // The first root alone: the others are believed because it was.
    let name = verified(&granted.chain, &granted.roots[..1], &anybody, Some(key), now)?;
    if !grant.gives(&name) {
        return Err(Mismatch::Name { found: name });
    }
    Ok(name)
}

/// Checks a chain as every peer will, and that it is about `key`.
fn verified(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    like: &PeerName,
    key: Option<KeyHash>,
    now: UnixTime,
) -> Result<PeerName, Mismatch> {
    let (leaf, above) = chain.split_first().ok_or(Mismatch::Key)?;
    if key_hash(leaf).ok() != key {
        return Err(Mismatch::Key);
    }
    let expect = Expect::new(like.organisation().clone(), [like.role()]);
    PeerVerifier::new(roots, expect)
        .and_then(|verifier| verifier.verify(leaf, above, now))
        .map_err(Mismatch::Certificate)
}

async fn ask(
    address: SocketAddr,
    tls: QuicClientConfig,
    request: &JoinRequest,
) -> Result<(JoinAnswer, Vec<u8>), JoinError> {
    let any = if address.is_ipv4() {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
    };
    let endpoint = quinn::Endpoint::client(any).map_err(JoinError::Socket)?;
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|source| JoinError::Connect(ConnectError::Start { address, source }))?;
    let connection = timeout(CONNECTED_WITHIN, connecting)
        .await
        .map_err(|_| JoinError::Connect(ConnectError::Silent { address }))?
        .map_err(|error| JoinError::Connect(ConnectError::of(address, error)))?;
    let answered = timeout(ANSWERED_WITHIN, converse(&connection, request)).await;
    let answered = match answered {
        Err(_) => Err(JoinError::Timeout),
        Ok(None) => match connection.close_reason() {
            Some(reason) => Err(match Ended::from(reason) {
                Ended::Identity(source) => {
                    JoinError::Connect(ConnectError::Identity { address, source })
                }
                ended => JoinError::Ended(ended),
            }),
            None => Err(JoinError::Answer),
        },
        Ok(Some(answer)) => Ok(answer),
    };
    connection.close(wire::code(CloseCode::Done), b"");
    drop(timeout(Duration::from_millis(500), endpoint.wait_idle()).await);
    answered
}

/// Sends the request and receives the answer; `None` if either broke off or made no sense.
async fn converse(
    connection: &quinn::Connection,
    request: &JoinRequest,
) -> Option<(JoinAnswer, Vec<u8>)> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    wire::send(&mut send, request).await.ok()?;
    send.finish().ok()?;
    let answer: JoinAnswer = wire::receive(&mut receive).await.ok()?;
    let root_bytes = match &answer {
        JoinAnswer::Joined { root_bytes, .. } => *root_bytes as usize,
        _ => 0,
    };
    if root_bytes > ROOT_BYTES_MAX {
        return None;
    }
    let mut root_json = vec![0; root_bytes];
    receive.read_exact(&mut root_json).await.ok()?;
    Some((answer, root_json))
}

fn certificates(chain: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, JoinError> {
    let is_bounded = |der: &Vec<u8>| der.len() <= CERTIFICATE_BYTES_MAX;
    if chain.is_empty() || chain.len() > CERTIFICATES_MAX || !chain.iter().all(is_bounded) {
        return Err(JoinError::Answer);
    }
    Ok(chain.into_iter().map(CertificateDer::from).collect())
}

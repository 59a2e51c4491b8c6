//! TLS for `sutler/1`: version 1.3 alone, both ends with a certificate, every handshake in full.
//!
//! A resumed session would skip [`PeerVerifier`], so that a peer that is no longer trusted would
//! still get in: the server hands out no tickets, the client keeps none, and no data travels before
//! the handshake is over. A server must not use quinn's `into_0rtt`, which would answer before it
//! has seen the client's certificate.
//!
//! A client's side of the handshake ends before the server has judged the client's certificate: an
//! `Ok` from `connect` means that the server is trusted, not that the server trusts us.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;

use super::load::Identity;
use super::revoked::Revocations;
use super::verifier::{Expect, PeerVerifier, VerifyError};

/// The application protocol that peers agree on before anything else.
pub const ALPN: &[u8] = b"sutler/1";

/// What to pass where quinn asks for a server's name. It is neither sent nor compared: a peer is who
/// its certificate says.
pub const SERVER_NAME: &str = "peer.invalid";

/// Whom a socket lets in, and by which time and which revocations it judges them.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whom to let in.
    pub expect: Expect,
    /// The time by which certificates are judged.
    pub clock: Arc<dyn TimeProvider>,
    /// Who is not let in any more.
    pub revocations: Revocations,
}

impl Terms {
    /// Returns the terms of the machine's clock, with nobody revoked.
    pub fn new(expect: Expect) -> Self {
        Self { expect, clock: Arc::new(DefaultTimeProvider), revocations: Revocations::default() }
    }

    fn verifier(self, identity: &Identity) -> Result<Arc<PeerVerifier>, TlsError> {
        let verifier = PeerVerifier::new(identity.roots(), self.expect).map_err(TlsError::Roots)?;
        Ok(Arc::new(verifier.refusing(self.revocations)))
    }
}

/// Why an identity could not be made into a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root of the identity is no certificate.
    #[error("read the roots to believe")]
    Roots(#[source] VerifyError),
    /// The TLS library refused the settings.
    #[error("settle on TLS 1.3")]
    Settings(#[source] rustls::Error),
    /// The cipher that QUIC begins with is missing from the settings.
    #[error("find the cipher that QUIC begins with")]
    Quic(#[source] NoInitialCipherSuite),
}

/// Returns the TLS half of a QUIC client that shows `identity` and talks only to whom it expects.
///
/// # Errors
///
/// [`TlsError`].
pub fn client_config(identity: &Identity, expect: Expect) -> Result<QuicClientConfig, TlsError> {
    client_config_on(identity, Terms::new(expect))
}

/// As [`client_config`], judging certificates by `clock`.
///
/// # Errors
///
/// [`TlsError`].
pub fn client_config_with_clock(
    identity: &Identity,
    expect: Expect,
    clock: Arc<dyn TimeProvider>,
) -> Result<QuicClientConfig, TlsError> {
    client_config_on(identity, Terms { clock, ..Terms::new(expect) })
}

/// As [`client_config`], on terms of its own.
///
/// # Errors
///
/// [`TlsError`].
pub fn client_config_on(identity: &Identity, terms: Terms) -> Result<QuicClientConfig, TlsError> {
    let clock = Arc::clone(&terms.clock);
    let mut config = rustls::ClientConfig::builder_with_details(Arc::new(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(terms.verifier(identity)?)
        .with_client_cert_resolver(identity.shown());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(TlsError::Quic)
}

/// Returns the TLS half of a QUIC server that shows `identity` and lets in only whom it expects.
///
/// # Errors
///
/// [`TlsError`].
pub fn server_config(identity: &Identity, expect: Expect) -> Result<QuicServerConfig, TlsError> {
    server_config_on(identity, Terms::new(expect))
}

/// As [`server_config`], judging certificates by `clock`.
///
/// # Errors
///
/// [`TlsError`].
pub fn server_config_with_clock(
    identity: &Identity,
    expect: Expect,
    clock: Arc<dyn TimeProvider>,
) -> Result<QuicServerConfig, TlsError> {
    server_config_on(identity, Terms { clock, ..Terms::new(expect) })
}

/// As [`server_config`], on terms of its own.
///
/// # Errors
///
/// [`TlsError`].
pub fn server_config_on(identity: &Identity, terms: Terms) -> Result<QuicServerConfig, TlsError> {
    let clock = Arc::clone(&terms.clock);
    let mut config = rustls::ServerConfig::builder_with_details(Arc::new(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Settings)?
        .with_client_cert_verifier(terms.verifier(identity)?)
        .with_cert_resolver(identity.shown());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    QuicServerConfig::try_from(config).map_err(TlsError::Quic)
}

/// Our own choice of what the library offers, named here so that no process-wide default matters.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        // AES-128 first: the fastest where the processor helps, and its margin is ample. ChaCha20 is
        // for processors without AES instructions.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

//! TLS for `sutler-join/1`, which is not that of `sutler/1`: the joiner has no certificate yet.
//!
//! The joiner believes the server because its chain leads to the root whose hash the token carries,
//! and because it is control. The server asks for a certificate and takes none for an answer; one
//! that is shown must be a member's, and may have ended a while ago: that is what renewal is for.
//! What may be asked without one is the server's business, and is one request alone.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use sutler_protocol::join;

use crate::identity::{
    Expect, Identity, Organisation, PeerName, PeerVerifier, Revocations, Role, TlsError,
    VerifyError, hash, provider,
};

/// How long after its end a member's certificate still renews: as long as a machine may be switched
/// off beyond its certificate's own life. Revocation has no such grace.
pub const GRACE: Duration = Duration::from_hours(30 * 24);

/// Judges whoever shows a certificate at the enrolment port, with [`GRACE`].
#[derive(Debug)]
pub struct MemberVerifier(PeerVerifier);

impl MemberVerifier {
    /// Returns a verifier for the nodes and agents of the organisation of `identity`.
    ///
    /// # Errors
    ///
    /// [`TlsError::Roots`].
    pub fn new(identity: &Identity, revocations: Revocations) -> Result<Self, TlsError> {
        let expect = Expect::peers_of(identity.name().organisation().clone());
        let verifier = PeerVerifier::new(identity.roots(), expect).map_err(TlsError::Roots)?;
        Ok(Self(verifier.refusing(revocations)))
    }

    /// Checks a member's certificate as of `now`, or as of its last moment if that was at most
    /// [`GRACE`] ago.
    ///
    /// # Errors
    ///
    /// [`VerifyError`], of `now`.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerName, VerifyError> {
        match self.0.verify(end_entity, intermediates, now) {
            Err(VerifyError::Expired { ago }) if ago <= GRACE => {
                let then = Duration::from_secs(now.as_secs()).saturating_sub(ago);
                let then = UnixTime::since_unix_epoch(then);
                self.0.verify(end_entity, intermediates, then)
            }
            judged => judged,
        }
    }
}

/// Returns the TLS half of the enrolment port: it shows `identity`, with the roots that a token's
/// hash names.
///
/// # Errors
///
/// [`TlsError`].
pub(super) fn server_config(
    identity: &Identity,
    verifier: Arc<MemberVerifier>,
    clock: Arc<dyn TimeProvider>,
) -> Result<QuicServerConfig, TlsError> {
    let own = identity.certified();
    let chain = [&own.cert[..], identity.roots()].concat();
    let shown = CertifiedKey::new(chain, Arc::clone(&own.key));
    let mut config = rustls::ServerConfig::builder_with_details(Arc::new(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Settings)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![join::ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(TlsError::Quic)
}

/// Returns the TLS half of a joiner, which shows nothing.
///
/// # Errors
///
/// [`TlsError`].
pub(super) fn joiner_config(
    organisation: Organisation,
    authority_sha256: [u8; 32],
) -> Result<QuicClientConfig, TlsError> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot { organisation, authority_sha256 }))
        .with_no_client_auth();
    finish(config)
}

/// Returns the TLS half of a member that renews its certificate.
///
/// # Errors
///
/// [`TlsError`].
pub(super) fn renewer_config(
    identity: &Identity,
    clock: Arc<dyn TimeProvider>,
) -> Result<QuicClientConfig, TlsError> {
    let control = Expect::new(identity.name().organisation().clone(), [Role::Control]);
    let verifier = PeerVerifier::new(identity.roots(), control).map_err(TlsError::Roots)?;
    let config = rustls::ClientConfig::builder_with_details(Arc::new(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    finish(config)
}

fn finish(mut config: rustls::ClientConfig) -> Result<QuicClientConfig, TlsError> {
    config.alpn_protocols = vec![join::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(TlsError::Quic)
}

/// Believes control of one organisation, by the hash of the root that its chain leads to.
#[derive(Debug)]
struct PinnedRoot {
    organisation: Organisation,
    authority_sha256: [u8; 32],
}

impl PinnedRoot {
    /// Returns the verifier of the root that was shown and has the hash.
    fn verifier(&self, shown: &[CertificateDer<'_>]) -> Result<PeerVerifier, VerifyError> {
        let root = shown.iter().find(|shown| hash(shown) == self.authority_sha256);
        let root = root.ok_or(VerifyError::ForeignAuthority)?;
        let control = Expect::new(self.organisation.clone(), [Role::Control]);
        PeerVerifier::new(std::slice::from_ref(root), control)
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier(intermediates)?.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(crate::identity::refused_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crate::identity::check_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crate::identity::schemes()
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    /// A joiner has none to show.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(crate::identity::refused_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crate::identity::check_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crate::identity::schemes()
    }
}

//! What a certificate must be for its holder to be let in.
//!
//! One [`PeerVerifier`] serves both directions: rustls asks it about the server that a client
//! reached and about the client that reached a server. It never looks at the name or address that
//! was dialled, because a peer is who its certificate says and not where it answers. The time is
//! an argument; rustls passes what its configured clock says.
//!
//! An intermediate names no control: whoever steals the one that lies at control could otherwise be
//! control for as long as that lives.
//!
//! Invariants: a name leaves [`PeerVerifier::verify`] only after the whole chain was checked; the
//! certificate says nothing but that one name; whatever is not understood is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerMisbehaved,
    SignatureScheme,
};
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ED25519};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::name::{NameError, Organisation, PeerName, Role};
use super::revoked::{Credentials, Revocations, key_hash};

/// What signs certificates and handshakes: Ed25519, which [`super::Authority`] issues, and P-256, for
/// keys that live in hardware. Nothing weaker is negotiable because nothing else is listed.
pub(super) static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[ED25519, ECDSA_P256_SHA256],
    mapping: &[
        (SignatureScheme::ED25519, &[ED25519]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256]),
    ],
};

/// Whom to let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The one organisation whose members may connect.
    pub organisation: Organisation,
    /// What they may be. Empty: nobody is let in.
    pub roles: BTreeSet<Role>,
}

/// Checks that a peer is a member of one organisation, by its certificate alone.
#[derive(Debug)]
pub struct PeerVerifier {
    roots: Vec<TrustAnchor<'static>>,
    expect: Expect,
    revocations: Revocations,
}

/// Why a certificate was refused. Each is the peer's fault, or its clock's, or ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is no X.509 certificate, or says something that nobody understands.
    #[error("the certificate cannot be parsed")]
    Unparsable,
    /// No root of ours, and nothing that one signed, issued it.
    #[error("the certificate comes from no authority that this organisation trusts")]
    ForeignAuthority,
    /// An issuer of that name is known, but its key did not make this signature.
    #[error("a signature in the certificate's chain is wrong")]
    BadSignature,
    /// Signed with an algorithm that is not accepted, such as RSA or anything on SHA-1.
    #[error("the certificate is signed with an algorithm that is not accepted")]
    Algorithm,
    /// A certificate that may issue others was shown as a peer's own.
    #[error("the certificate belongs to an authority, not to a peer")]
    AuthorityAsPeer,
    /// A peer's own certificate was used to issue another.
    #[error("the certificate was issued by a peer, not by an authority")]
    PeerAsAuthority,
    /// It, or one above it, is past its end.
    #[error("the certificate expired {} s ago", .ago.as_secs())]
    Expired {
        /// Time since its end.
        ago: Duration,
    },
    /// It, or one above it, has not begun. Often a clock is wrong.
    #[error("the certificate becomes valid in {} s", .starts_in.as_secs())]
    NotYetValid {
        /// Time until its start.
        starts_in: Duration,
    },
    /// Members are client and server at once, so both extended key usages must be listed.
    #[error("the certificate is not meant for both ends of a connection")]
    KeyUsage,
    /// It says no URI, so nobody knows whose it is.
    #[error("the certificate names no URI")]
    NoUri,
    /// It says more than one URI, so nobody knows which one it means.
    #[error("the certificate names {count} URIs, not one")]
    ManyUris {
        /// URIs found.
        count: usize,
    },
    /// Beside its URI it names hosts, addresses or mailboxes, which no certificate of ours does.
    #[error("the certificate names something beside its URI")]
    OtherNames,
    /// Its URI is not a peer's name.
    #[error("the certificate's URI names no peer")]
    Name(#[source] NameError),
    /// It belongs to another organisation.
    #[error("the peer belongs to organisation {found}, not to {expected}")]
    WrongOrganisation {
        /// Whose it is.
        found: Organisation,
        /// Whose it had to be.
        expected: Organisation,
    },
    /// The peer is who it says, but not here.
    #[error("the peer has role {found}, which is not let in here")]
    WrongRole {
        /// What the peer is.
        found: Role,
    },
    /// It names control, and an intermediate issued it.
    #[error("the certificate names control, which an intermediate may not")]
    ControlByIntermediate,
    /// Its name or key, or an authority above it, was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// Something else is wrong with the chain: too long, a constraint broken.
    #[error("check the certificate's chain")]
    Chain(#[source] webpki::Error),
}

/// Why a connection has no peer's name. Neither happens on a connection that [`super::client_config`] or
/// [`super::server_config`] made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerNameError {
    /// The peer showed no certificate, or the handshake is not over.
    #[error("the connection has no certificate of its peer")]
    NoCertificate,
    /// The peer's certificate would not have been let in.
    #[error("read the peer's certificate")]
    Certificate(#[source] VerifyError),
}

/// Returns who is at the other end of an established connection.
///
/// # Errors
///
/// [`PeerNameError`] if this connection was made without [`PeerVerifier`].
pub fn peer_name(connection: &quinn::Connection) -> Result<PeerName, PeerNameError> {
    peer_credentials(connection).map(|shown| shown.name)
}

/// Returns what the other end of an established connection showed of itself.
///
/// # Errors
///
/// As [`peer_name`].
pub fn peer_credentials(connection: &quinn::Connection) -> Result<Credentials, PeerNameError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(PeerNameError::NoCertificate)?;
    if chain.is_empty() {
        return Err(PeerNameError::NoCertificate);
    }
    read_credentials(&chain).map_err(PeerNameError::Certificate)
}

/// Reads what a chain says, the leaf first; nothing is checked.
pub(super) fn read_credentials(chain: &[CertificateDer<'_>]) -> Result<Credentials, VerifyError> {
    let leaf = parse(chain.first().ok_or(VerifyError::Unparsable)?)?;
    let keys = chain.iter().filter_map(|shown| key_hash(shown).ok()).collect();
    Ok(Credentials { name: name_in(&leaf)?, begins: begins_of(&leaf), ends: ends_of(&leaf), keys })
}

impl Expect {
    /// Lets in the members of `organisation` that have one of `roles`.
    pub fn new(organisation: Organisation, roles: impl IntoIterator<Item = Role>) -> Self {
        Self { organisation, roles: roles.into_iter().collect() }
    }

    /// Lets in the nodes and agents of `organisation`: those who speak `sutler/1` to each other.
    pub fn peers_of(organisation: Organisation) -> Self {
        Self::new(organisation, [Role::Node, Role::Agent])
    }

    /// Lets in every member of `organisation`: whoever is asked may be a node, an agent or control, and a node
    /// is asked by control as well.
    pub fn members_of(organisation: Organisation) -> Self {
        Self::new(organisation, [Role::Node, Role::Agent, Role::Control])
    }
}

impl PeerVerifier {
    /// Returns a verifier that believes these root certificates and nothing else.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Unparsable`] if a root is no certificate.
    pub fn new(roots: &[CertificateDer<'_>], expect: Expect) -> Result<Self, VerifyError> {
        let roots = roots
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| VerifyError::Unparsable)?;
        Ok(Self { roots, expect, revocations: Revocations::default() })
    }

    /// Refuses whatever is revoked at the time of a handshake.
    #[must_use]
    pub fn refusing(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// Checks a peer's certificate at `now` and returns whom it names.
    ///
    /// `intermediates` are what the peer sent beside it, in any order. It does not check that the
    /// peer holds the key: that is the handshake's signature.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]; of several reasons the chain's come first.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerName, VerifyError> {
        let checked = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let path = checked
            .verify_for_usage(ALGORITHMS.all, &self.roots, intermediates, now, BothEnds, None, None)
            .map_err(refusal)?;
        let above: Vec<_> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let leaf = parse(end_entity)?;
        check_usage(&leaf)?;
        let name = name_in(&leaf)?;
        if *name.organisation() != self.expect.organisation {
            return Err(VerifyError::WrongOrganisation {
                found: name.organisation().clone(),
                expected: self.expect.organisation.clone(),
            });
        }
        if !self.expect.roles.contains(&name.role()) {
            return Err(VerifyError::WrongRole { found: name.role() });
        }
        if name.role() == Role::Control && !above.is_empty() {
            return Err(VerifyError::ControlByIntermediate);
        }
        let mut keys = vec![key_hash(end_entity)?];
        for issuer in &above {
            keys.push(key_hash(issuer)?);
        }
        let (begins, ends) = (begins_of(&leaf), ends_of(&leaf));
        let shown = Credentials { name, begins, ends, keys };
        if self.revocations.now().covers(&shown) {
            return Err(VerifyError::Revoked);
        }
        Ok(shown.name)
    }
}

/// Accepts a certificate of the path if it restricts its use not at all, as issuers may, or to a set
/// that holds both ends of a connection. [`check_usage`] then holds the leaf to listing both.
struct BothEnds;

impl ExtendedKeyUsageValidator for BothEnds {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let listed = purposes
            .map(|purpose| purpose.map(|purpose| purpose.to_decoded_oid()))
            .collect::<Result<Vec<_>, _>>()?;
        let lists = |oid: &[usize]| listed.iter().any(|purpose| purpose == oid);
        if listed.is_empty()
            || lists(KeyUsage::SERVER_AUTH_REPR) && lists(KeyUsage::CLIENT_AUTH_REPR)
        {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
            required: KeyUsage::server_auth(),
            present: listed,
        }))
    }
}

pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, VerifyError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(VerifyError::Unparsable),
    }
}

/// Returns when a certificate begins.
pub(super) fn begins_of(leaf: &X509Certificate<'_>) -> UnixTime {
    at(leaf.validity().not_before.timestamp())
}

/// Returns when a certificate ends.
pub(super) fn ends_of(leaf: &X509Certificate<'_>) -> UnixTime {
    at(leaf.validity().not_after.timestamp())
}

/// Before 1970 is as good as 1970.
fn at(timestamp: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(timestamp).unwrap_or(0)))
}

fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let usage = leaf.extended_key_usage().map_err(|_| VerifyError::Unparsable)?;
    let both = usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth);
    if both { Ok(()) } else { Err(VerifyError::KeyUsage) }
}

/// Returns the one name that a certificate holds, believed or not.
pub(super) fn name_of(leaf: &CertificateDer<'_>) -> Result<PeerName, VerifyError> {
    name_in(&parse(leaf)?)
}

/// Returns the one name that a certificate holds; the caller has checked, or will, that it is true.
fn name_in(leaf: &X509Certificate<'_>) -> Result<PeerName, VerifyError> {
    let names = leaf.subject_alternative_name().map_err(|_| VerifyError::Unparsable)?;
    let names = names.as_ref().map_or(&[][..], |names| &names.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(VerifyError::NoUri)?;
    match uris.count() {
        0 => {}
        more => return Err(VerifyError::ManyUris { count: 1 + more }),
    }
    if names.len() > 1 {
        return Err(VerifyError::OtherNames);
    }
    uri.parse().map_err(VerifyError::Name)
}

fn refusal(error: webpki::Error) -> VerifyError {
    use webpki::Error as E;
    match error {
        E::BadDer
        | E::BadDerTime
        | E::TrailingData(_)
        | E::MalformedExtensions
        | E::ExtensionValueInvalid
        | E::InvalidCertValidity
        | E::InvalidSerialNumber
        | E::UnsupportedCertVersion
        | E::UnsupportedCriticalExtension => VerifyError::Unparsable,
        E::UnknownIssuer => VerifyError::ForeignAuthority,
        E::InvalidSignatureForPublicKey
        | E::SignatureAlgorithmMismatch
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => VerifyError::BadSignature,
        E::UnsupportedSignatureAlgorithmContext(_) => VerifyError::Algorithm,
        E::CaUsedAsEndEntity => VerifyError::AuthorityAsPeer,
        E::EndEntityUsedAsCa => VerifyError::PeerAsAuthority,
        E::CertExpired { time, not_after } => VerifyError::Expired { ago: since(not_after, time) },
        E::CertNotValidYet { time, not_before } => {
            VerifyError::NotYetValid { starts_in: since(time, not_before) }
        }
        E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => VerifyError::KeyUsage,
        other => VerifyError::Chain(other),
    }
}

fn since(earlier: UnixTime, later: UnixTime) -> Duration {
    Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()))
}

impl From<VerifyError> for rustls::Error {
    /// Chooses the alert that tells the peer what it can mend: an expired certificate, a foreign
    /// authority. The rest is between us and our log.
    fn from(error: VerifyError) -> Self {
        Self::InvalidCertificate(match error {
            VerifyError::Unparsable => CertificateError::BadEncoding,
            VerifyError::ForeignAuthority => CertificateError::UnknownIssuer,
            VerifyError::BadSignature => CertificateError::BadSignature,
            VerifyError::Expired { .. } => CertificateError::Expired,
            VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
            VerifyError::Revoked => CertificateError::Revoked,
            other => CertificateError::Other(OtherError(Arc::new(InWords(other)))),
        })
    }
}

/// A refusal on its way through rustls, which prints what it does not know by `Debug`: without this,
/// a log would show the names of fields where it should say why.
#[derive(thiserror::Error)]
#[error(transparent)]
struct InWords(VerifyError);

impl fmt::Debug for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// Hints at nothing: a member has one certificate, and a stranger learns no names.
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
        Err(refused_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Checks the signature of a handshake, by the algorithms that are accepted here.
pub(crate) fn check_tls13_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    verify_tls13_signature(message, cert, dss, &ALGORITHMS)
}

/// Never reached, as QUIC has no TLS 1.2; refusing is what it must do if it ever were.
pub(crate) fn refused_tls12() -> rustls::Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}

pub(crate) fn schemes() -> Vec<SignatureScheme> {
    ALGORITHMS.supported_schemes()
}

//! A stranger: a QUIC client that believes everybody, shows what it likes and says what it is told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use sutler_protocol::frame::{self, LENGTH_BYTES};
use sutler_protocol::join::{Join, JoinAnswer, JoinRequest};
use sutler_swarm::enrol::Token;

pub(super) fn join_frame(token: &Token, csr: &[u8]) -> Join {
    let presented = token.presented();
    Join {
        statement: presented.statement.clone(),
        signature: presented.signature.clone(),
        secret: presented.secret,
        csr: csr.to_vec(),
        replace: false,
    }
}

/// A signing request for a new key, which the caller keeps.
pub(super) fn new_key() -> (rcgen::KeyPair, Vec<u8>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = sutler_swarm::enrol::csr::request(&key).unwrap();
    (key, csr)
}

/// Connects from `from` with the protocol `alpn` and no certificate.
pub(super) async fn connect(
    from: IpAddr,
    to: SocketAddr,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client(SocketAddr::new(from, 0)).unwrap();
    let connection = connect_on(&endpoint, to, alpn).await?;
    Ok((endpoint, connection))
}

pub(super) async fn connect_on(
    endpoint: &quinn::Endpoint,
    to: SocketAddr,
    alpn: &[u8],
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    endpoint.connect_with(config, to, "peer.invalid").unwrap().await
}

/// Sends bytes on a new stream and returns the answer, if there was one.
pub(super) async fn say(connection: &quinn::Connection, bytes: &[u8]) -> Option<JoinAnswer> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(bytes).await.ok()?;
    send.finish().ok()?;
    let mut field = [0; LENGTH_BYTES];
    receive.read_exact(&mut field).await.ok()?;
    let mut body = vec![0; frame::length(field).ok()?];
    receive.read_exact(&mut body).await.ok()?;
    frame::decode(&body).ok()
}

pub(super) async fn request(
    connection: &quinn::Connection,
    request: &JoinRequest,
) -> Option<JoinAnswer> {
    say(connection, &frame::encode(request)).await
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

//! HTTPS: whom we trust, and that a proxy's tunnel changes nothing about it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sutler_swarm::origin::{AllowEntry, Blame, OriginConfig, OriginError};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, crypto::aws_lc_rs};
use url::Url;

use crate::server::{Answer, Server};
use crate::{config, file, origins, read};

/// An authority of our own, as a site has one for its mirror.
struct Site {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Site {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), issuer.pem()).expect("its certificate");
        Self { issuer, file }
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    key.serialize_der().try_into().expect("a key"),
                )
                .expect("a certificate and its key");
        // Offered first, and not taken: one reply a connection.
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(tls))
    }

    /// A config that allows a mirror and trusts this authority.
    fn trusting(&self, url: &Url) -> OriginConfig {
        let ca_files = vec![self.file.path().to_owned()];
        OriginConfig {
            ca_files,
            ..config(vec![AllowEntry::private(url.join("/").expect("a URL"))])
        }
    }
}

fn mirror(server: &Server) -> Url {
    format!("https://mirror.example:{}/a", server.port()).parse().expect("a URL")
}

#[tokio::test]
async fn a_mirror_with_the_site_s_authority_is_read() {
    let (site, file) = (Site::new(), file());
    let server = Server::start_tls(Answer::file(&file), site.acceptor("mirror.example")).await;
    let url = mirror(&server);
    let bytes = read(&origins(&site.trusting(&url)), &url, 5..9).await.expect("bytes");
    assert_eq!(bytes, &file[5..9]);
}

// T16
#[tokio::test]
async fn a_mirror_that_cannot_prove_its_name_is_not_asked() {
    let (site, other) = (Site::new(), Site::new());
    for (acceptor, config_of) in
        [(site.acceptor("evil.example"), &site), (other.acceptor("mirror.example"), &site)]
    {
        let server = Server::start_tls(Answer::file(&file()), acceptor).await;
        let url = mirror(&server);
        let error =
            read(&origins(&config_of.trusting(&url)), &url, 5..9).await.expect_err("no proof");
        assert!(matches!(error, OriginError::Connect { .. }), "{error:?}");
        assert_eq!(error.blame(), Blame::Path);
        assert_eq!(server.requests(), Vec::<String>::new(), "nothing was asked");
    }
}

#[tokio::test]
async fn a_tunnel_through_a_proxy_ends_at_the_mirror() {
    let (site, file) = (Site::new(), file());
    let acceptor = site.acceptor("mirror.example");
    let proxy = Server::start_tunnel(Answer::file(&file), acceptor).await;
    let url: Url = "https://mirror.example/a".parse().expect("a URL");
    let config =
        OriginConfig { proxy: Some(format!("proxy.lan:{}", proxy.port())), ..site.trusting(&url) };
    let bytes = read(&origins(&config), &url, 5..9).await.expect("bytes");
    assert_eq!(bytes, &file[5..9]);
    let asked = proxy.requests();
    assert!(asked[0].starts_with("connect mirror.example:443 http/1.1"), "{asked:?}");
    assert!(asked[1].starts_with("get /a http/1.1"), "{asked:?}");

    let refusing = Server::start(Answer::text("HTTP/1.1 403 Forbidden\r\n\r\n")).await;
    let config = OriginConfig {
        proxy: Some(format!("proxy.lan:{}", refusing.port())),
        ..site.trusting(&url)
    };
    let error = read(&origins(&config), &url, 5..9).await.expect_err("refused");
    assert!(matches!(error, OriginError::Connect { .. }), "{error:?}");
}

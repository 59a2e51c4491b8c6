//! How connections to origins are made: resolved, filtered, proxied, encrypted.
//!
//! [`Dial`] keeps one client for each way and reach, because a client pools its connections: one
//! made for an origin that may be inside is never used for an origin that may not.
//!
//! Invariants:
//! - a direct connection goes to an address that [`Guard`] let pass for that very connection, so
//!   a name that changes between two look-ups (rebinding, T16) gains nothing;
//! - no client follows a redirect, decodes a body, keeps a cookie or reads the environment;
//! - HTTP/1.1 only: one reply a connection, so that TCP holds back each body on its own, and
//!   several ranges in flight are several congestion windows.

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Proxy, redirect};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::origin::address;
use crate::origin::allow::{Permitted, Reach};
use crate::origin::config::OriginConfig;
use crate::origin::error::{AuthoritiesProblem, OriginProblem};
use crate::origin::proxy::{Proxies, Way};

/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 16;

/// Idle connections kept to one origin: the ranges that are usually in flight.
const IDLE_PER_HOST_MAX: usize = 8;

/// How long an idle connection is kept. Servers close after 5 to 75 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers in one reply, at most. The client's buffer for them ends at 400 KiB.
const HEADERS_MAX: usize = 96;

/// Says what we are, so that an origin's operator can tell us from a browser.
const USER_AGENT: &str = concat!("sutler/", env!("CARGO_PKG_VERSION"));

/// The clients, one for each way and reach.
pub(crate) struct Dial {
    resolver: Arc<dyn Resolve>,
    connect_timeout: Duration,
    proxies: Proxies,
    public: Client,
    anywhere: Client,
    http_proxy: Option<Client>,
    https_proxy: Option<Client>,
}

/// Resolves names, and lets only those addresses pass that the reach permits.
pub(crate) struct Guard {
    inner: Arc<dyn Resolve>,
    reach: Reach,
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Dial {
    /// Builds the clients, adding what is wrong to `problems`.
    pub(crate) fn new(
        config: &OriginConfig,
        proxies: Proxies,
        resolver: &Arc<dyn Resolve>,
        tls: &rustls::ClientConfig,
    ) -> Result<Self, OriginProblem> {
        let direct = |reach| {
            let guard = Guard { inner: Arc::clone(resolver), reach };
            client(config, tls).no_proxy().dns_resolver(Arc::new(guard)).build()
        };
        // The proxy's own name is the operator's: it may lead anywhere. The origin's name is
        // resolved by the proxy, whose rules are what keeps it from leading inside.
        let through = |way| {
            let Some(url) = proxies.url(way) else { return Ok(None) };
            let builder = client(config, tls).no_proxy().proxy(Proxy::all(url.clone())?);
            builder.dns_resolver(Arc::clone(resolver)).build().map(Some)
        };
        Ok(Self {
            resolver: Arc::clone(resolver),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms.get()),
            public: direct(Reach::Public).map_err(OriginProblem::Client)?,
            anywhere: direct(Reach::Anywhere).map_err(OriginProblem::Client)?,
            http_proxy: through(Way::HttpProxy).map_err(OriginProblem::Client)?,
            https_proxy: through(Way::HttpsProxy).map_err(OriginProblem::Client)?,
            proxies,
        })
    }

    /// Returns the proxies that stand before origins.
    pub(crate) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Returns how long name and connection may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Returns what resolves names for connections of a reach.
    pub(crate) fn guard(&self, reach: Reach) -> Guard {
        Guard { inner: Arc::clone(&self.resolver), reach }
    }

    /// Returns the client for a URL.
    pub(crate) fn client(&self, permitted: &Permitted) -> &Client {
        let direct = match permitted.reach() {
            Reach::Public => &self.public,
            Reach::Anywhere => &self.anywhere,
        };
        match self.proxies.way(permitted.url()) {
            Way::Direct => direct,
            // `way` names only proxies that there are, and each has its client; were one
            // missing, the guarded way would still be safe.
            Way::HttpProxy => self.http_proxy.as_ref().unwrap_or(direct),
            Way::HttpsProxy => self.https_proxy.as_ref().unwrap_or(direct),
        }
    }
}

fn client(config: &OriginConfig, tls: &rustls::ClientConfig) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .http1_max_headers(HEADERS_MAX)
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms.get()))
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .tls_backend_preconfigured(tls.clone())
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (found, reach) = (self.inner.resolve(name), self.reach);
        Box::pin(async move {
            let mut passed = Vec::new();
            let mut refused = None;
            for addr in found.await?.take(ADDRESSES_MAX) {
                match address::check(&host, addr.ip(), reach) {
                    Ok(()) => passed.push(addr),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if passed.is_empty() => Err(refusal.into()),
                _ => Ok(Box::new(passed.into_iter()) as Addrs),
            }
        })
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client replaces port 0 by the URL's.
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Makes the TLS settings: the system's authorities and the config's, with the one provider of
/// the whole build.
pub(crate) fn tls(
    config: &OriginConfig,
    needs_tls: bool,
    problems: &mut Vec<OriginProblem>,
) -> Option<rustls::ClientConfig> {
    let mut own = Vec::new();
    for path in &config.ca_files {
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let problem = match read {
            Ok(found) if !found.is_empty() => {
                own.extend(found);
                continue;
            }
            Ok(_) => AuthoritiesProblem::Empty,
            Err(error) => AuthoritiesProblem::Read(error),
        };
        problems.push(OriginProblem::Authorities { path: path.clone(), problem });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of TLS 1.2 and 1.3");
    let mut tls = if needs_tls {
        match rustls_platform_verifier::Verifier::new_with_extra_roots(own, provider) {
            Ok(verifier) => builder
                .dangerous() // Its word for any verifier but its own; this one is the platform's.
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth(),
            Err(error) => {
                problems.push(OriginProblem::Trust(error));
                return None;
            }
        }
    } else {
        // Nothing is reached by TLS, so nobody is trusted, and a machine without authorities will do.
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(tls)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Mutex;

    use super::*;
    use crate::origin::address::AddressRefused;

    /// Answers each look-up with the next of its answers.
    struct Rebinding(Mutex<Vec<Vec<IpAddr>>>);

    impl Resolve for Rebinding {
        fn resolve(&self, _: Name) -> Resolving {
            let answer = self.0.lock().expect("not poisoned").remove(0);
            let answer = answer.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Box::pin(async move { Ok(Box::new(answer) as Addrs) })
        }
    }

    async fn look_up(guard: &Guard) -> Result<Vec<String>, AddressRefused> {
        match guard.resolve("mirror.example".parse().expect("a name")).await {
            Ok(addrs) => Ok(addrs.map(|addr| addr.ip().to_string()).collect()),
            Err(error) => Err(*error.downcast().expect("a refusal")),
        }
    }

    // T16
    #[tokio::test]
    async fn a_name_that_changes_between_look_ups_gains_nothing() {
        let public: IpAddr = "93.184.216.34".parse().expect("an address");
        let loopback: IpAddr = "127.0.0.1".parse().expect("an address");
        let mapped: IpAddr = "::ffff:169.254.169.254".parse().expect("an address");
        let answers =
            vec![vec![public], vec![loopback], vec![mapped, public, loopback], vec![mapped]];
        let guard = Guard { inner: Arc::new(Rebinding(Mutex::new(answers))), reach: Reach::Public };

        assert_eq!(look_up(&guard).await, Ok(vec!["93.184.216.34".to_owned()]));
        assert_eq!(look_up(&guard).await.expect_err("loopback").addr, loopback);
        assert_eq!(look_up(&guard).await, Ok(vec!["93.184.216.34".to_owned()]));
        assert_eq!(look_up(&guard).await.expect_err("metadata").addr, mapped);
    }
}

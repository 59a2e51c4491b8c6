//! Which proxy, if any, stands before an origin.
//!
//! The config's proxy wins over the environment's, as with curl: `https_proxy`, `http_proxy`,
//! `all_proxy` and `no_proxy`, in either case.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::origin::config::OriginConfig;
use crate::origin::error::OriginProblem;

/// The proxy variables of an environment.
#[derive(Clone, Default)]
pub struct ProxyEnvironment {
    /// For HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// For both, where there is no other.
    pub all: Option<String>,
    /// What is reached without a proxy.
    pub no: Option<String>,
}

impl fmt::Debug for ProxyEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold its password (T28).
        f.debug_struct("ProxyEnvironment").finish_non_exhaustive()
    }
}

/// The proxies in force.
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    bypass: Matcher,
}

/// Which way a URL is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight.
    Direct,
    /// Through the proxy for HTTP.
    HttpProxy,
    /// Through the proxy for HTTPS.
    HttpsProxy,
}

impl ProxyEnvironment {
    /// Reads the variables of this process.
    pub fn of_process() -> Self {
        let read = |lower: &str, upper: &str| {
            [lower, upper]
                .into_iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|value| !value.is_empty())
        };
        // `HTTP_PROXY` is a request header's name to a CGI program (httpoxy), which this is not.
        Self {
            http: read("http_proxy", "HTTP_PROXY"),
            https: read("https_proxy", "HTTPS_PROXY"),
            all: read("all_proxy", "ALL_PROXY"),
            no: read("no_proxy", "NO_PROXY"),
        }
    }
}

impl Proxies {
    /// Reads config and environment, adding what is wrong to `problems`.
    pub(crate) fn new(
        config: &OriginConfig,
        environment: &ProxyEnvironment,
        problems: &mut Vec<OriginProblem>,
    ) -> Self {
        let mut read = |from, value: Option<&String>| {
            let proxy = value.map(|value| proxy_url(value).ok_or(OriginProblem::Proxy { from }));
            proxy.transpose().unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let (http, https) = match config.proxy.as_deref() {
            Some("none") => (None, None),
            Some(_) => {
                let proxy = read("proxy", config.proxy.as_ref());
                (proxy.clone(), proxy)
            }
            None => {
                let all = read("all_proxy", environment.all.as_ref());
                let http = read("http_proxy", environment.http.as_ref());
                let https = read("https_proxy", environment.https.as_ref());
                (http.or_else(|| all.clone()), https.or(all))
            }
        };
        let mut no = config.no_proxy.clone();
        no.extend(environment.no.clone());
        // The matcher only answers whether a proxy is bypassed; which one is answered above.
        let bypass = Matcher::builder().all("http://proxy.invalid").no(no.join(",")).build();
        Self { http, https, bypass }
    }

    /// Returns which way a URL is reached.
    pub(crate) fn way(&self, url: &Url) -> Way {
        let (proxy, way) = match url.scheme() {
            "https" => (&self.https, Way::HttpsProxy),
            _ => (&self.http, Way::HttpProxy),
        };
        // A URL that the matcher cannot read is not bypassed: the proxy is the narrower way.
        let bypassed =
            url.as_str().parse().is_ok_and(|uri: http::Uri| self.bypass.intercept(&uri).is_none());
        if proxy.is_none() || bypassed { Way::Direct } else { way }
    }

    /// Returns whether a proxy itself is reached by TLS.
    pub(crate) fn need_tls(&self) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|proxy| proxy.scheme() == "https")
    }

    /// Returns the proxy of a way.
    pub(crate) fn url(&self, way: Way) -> Option<&Url> {
        match way {
            Way::Direct => None,
            Way::HttpProxy => self.http.as_ref(),
            Way::HttpsProxy => self.https.as_ref(),
        }
    }
}

/// Reads a proxy as curl does: without a scheme it is HTTP.
fn proxy_url(value: &str) -> Option<Url> {
    let url = if value.contains("://") {
        Url::parse(value).ok()?
    } else {
        Url::parse(&format!("http://{value}")).ok()?
    };
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(config: &OriginConfig, environment: &ProxyEnvironment) -> Proxies {
        let mut problems = Vec::new();
        let proxies = Proxies::new(config, environment, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        proxies
    }

    fn way(proxies: &Proxies, url: &str) -> (Way, Option<String>) {
        let way = proxies.way(&Url::parse(url).expect(url));
        (way, proxies.url(way).map(Url::to_string))
    }

    #[expect(clippy::unnecessary_wraps, reason = "every use is an optional setting")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_environment_decides_when_the_config_is_silent() {
        let environment = ProxyEnvironment {
            http: some("proxy.lan:3128"),
            all: some("http://all.lan:1"),
            no: some("localhost, .site.lan,10.0.0.0/8"),
            ..ProxyEnvironment::default()
        };
        let proxies = proxies(&OriginConfig::default(), &environment);
        let http = (Way::HttpProxy, some("http://proxy.lan:3128/"));
        let https = (Way::HttpsProxy, some("http://all.lan:1/"));
        assert_eq!(way(&proxies, "http://deb.debian.org/x"), http);
        assert_eq!(way(&proxies, "https://deb.debian.org/x"), https);
        for near in ["http://localhost/", "http://mirror.site.lan/x", "https://10.1.2.3/"] {
            assert_eq!(way(&proxies, near), (Way::Direct, None), "{near}");
        }
    }

    #[test]
    fn the_config_outranks_the_environment() {
        let environment = ProxyEnvironment { all: some("socks5://x"), ..Default::default() };
        let config = OriginConfig {
            proxy: some("http://user:secret@gate.lan:8080"),
            no_proxy: vec!["mirror.lan".to_owned()],
            ..OriginConfig::default()
        };
        let own = proxies(&config, &environment);
        assert_eq!(way(&own, "https://a.example/").0, Way::HttpsProxy);
        assert_eq!(way(&own, "http://a.example/").0, Way::HttpProxy);
        assert_eq!(way(&own, "http://mirror.lan/").0, Way::Direct);

        let config = OriginConfig { proxy: some("none"), ..OriginConfig::default() };
        assert_eq!(way(&proxies(&config, &environment), "http://a.example/").0, Way::Direct);
    }

    #[test]
    fn a_proxy_of_another_kind_is_an_error_and_not_a_way_around() {
        for wrong in ["socks5://a:1", "http://", "ftp://a", " "] {
            let mut problems = Vec::new();
            let config = OriginConfig { proxy: some(wrong), ..OriginConfig::default() };
            Proxies::new(&config, &ProxyEnvironment::default(), &mut problems);
            assert_eq!(problems.len(), 1, "{wrong}");
        }
    }
}

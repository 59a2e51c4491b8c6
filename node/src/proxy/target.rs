//! What a client asks for: a file of an origin, a tunnel to a host, or the proxy itself. Pure.
//!
//! A target comes in three forms. `GET http://HOST/PATH` is what a proxy is asked; `GET /HOST/PATH`
//! and `GET /https/HOST/PATH` are what a mirror is asked; `CONNECT HOST:443` is what a proxy is asked
//! for TLS. All become a [`Url`], which the WHATWG parser has normalised: no `..` leaves its host.
//! Whether that host may be asked at all is the allow-list's business, not decided here.

use hyper::{Method, Uri, Version};
use url::Url;

/// The port to which tunnels are made. apt's `https` sources need no other.
const TUNNEL_PORT: u16 = 443;

/// Bytes of a target, at most: what common servers take.
pub(super) const TARGET_BYTES_MAX: usize = 8 * 1024;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file, and in which form it was asked for.
    File(Url, Form),
    /// A tunnel to the host of this `https` URL.
    Tunnel(Url),
    /// The proxy itself.
    Front,
}

/// How a client thinks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As its proxy.
    Proxy,
    /// As a mirror.
    Mirror,
}

/// Why a request has no target that anything could be done about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misdirected {
    /// The method neither reads a file nor makes a tunnel.
    Method,
    /// The target is too long.
    TooLong,
    /// It names no host, or nothing that is one.
    Nowhere,
    /// Its scheme is not `http`; a proxy is asked for `https` by CONNECT.
    Scheme,
    /// A tunnel to another port than that of HTTPS.
    Port,
    /// Not exactly one `Host`, or HTTP before 1.0.
    Host,
}

impl Misdirected {
    /// Returns the status, and what to tell: what is wrong and what to do.
    pub(super) const fn answer(self) -> (u16, &'static str) {
        match self {
            Self::Method => {
                (405, "Only GET, HEAD and CONNECT are served: this proxy fetches files.")
            }
            Self::TooLong => (414, "The request's target is longer than 8 KiB."),
            Self::Nowhere => (
                400,
                "No host in the target. Ask for http://HOST/PATH as a proxy, or for /HOST/PATH or /https/HOST/PATH as a mirror.",
            ),
            Self::Scheme => (
                400,
                "A proxy is asked for http:// URLs. For https:// use CONNECT, or ask for /https/HOST/PATH to have the file cached.",
            ),
            Self::Port => (403, "Tunnels are made to port 443 only."),
            Self::Host => (400, "An HTTP/1.1 request has exactly one Host."),
        }
    }
}

/// Reads what a request is about.
///
/// # Errors
///
/// [`Misdirected`] says why nothing can be done about it.
pub(super) fn read(
    method: &Method,
    uri: &Uri,
    version: Version,
    hosts: usize,
) -> Result<Target, Misdirected> {
    let fits = match version {
        Version::HTTP_11 => hosts == 1,
        Version::HTTP_10 => hosts <= 1,
        _ => false,
    };
    if !fits {
        return Err(Misdirected::Host);
    }
    if *method == Method::CONNECT {
        return tunnel(uri);
    }
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Misdirected::Method);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if path.len() > TARGET_BYTES_MAX {
        return Err(Misdirected::TooLong);
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) if scheme.eq_ignore_ascii_case("http") => {
            url("http", authority.as_str(), path).map(|url| Target::File(url, Form::Proxy))
        }
        (Some(_), _) => Err(Misdirected::Scheme),
        (None, Some(_)) => Err(Misdirected::Nowhere),
        (None, None) => mirror(path),
    }
}

/// Reads `HOST:443`.
fn tunnel(uri: &Uri) -> Result<Target, Misdirected> {
    let authority = uri.authority().ok_or(Misdirected::Nowhere)?;
    let url = url("https", authority.as_str(), "/")?;
    match authority.port_u16() {
        Some(TUNNEL_PORT) => Ok(Target::Tunnel(url)),
        Some(_) => Err(Misdirected::Port),
        None => Err(Misdirected::Nowhere),
    }
}

/// Reads `/HOST/PATH` and `/https/HOST/PATH`.
fn mirror(path: &str) -> Result<Target, Misdirected> {
    let inside = path.strip_prefix('/').ok_or(Misdirected::Nowhere)?;
    if inside.is_empty() {
        return Ok(Target::Front);
    }
    let (scheme, inside) = match inside.strip_prefix("https/") {
        Some(inside) => ("https", inside),
        None => ("http", inside),
    };
    let (host, rest) = inside.split_once('/').ok_or(Misdirected::Nowhere)?;
    url(scheme, host, &format!("/{rest}")).map(|url| Target::File(url, Form::Mirror))
}

fn url(scheme: &str, authority: &str, path: &str) -> Result<Url, Misdirected> {
    // The parser would take all of these for parts of its own, or for a slash.
    let is_name = !authority.is_empty() && !authority.starts_with('.');
    let is_host = is_name && !authority.contains(['@', '\\', '/', '?', '#', '%']);
    if !is_host || !path.starts_with('/') || path.contains(['\\', '#']) {
        return Err(Misdirected::Nowhere);
    }
    let url = Url::parse(&format!("{scheme}://{authority}{path}"));
    let url = url.map_err(|_| Misdirected::Nowhere)?;
    if url.as_str().len() > TARGET_BYTES_MAX {
        return Err(Misdirected::TooLong);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: &str, uri: &str) -> Result<Target, Misdirected> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        read(&method, &uri.parse().expect(uri), Version::HTTP_11, 1)
    }

    fn file(uri: &str) -> String {
        match target("GET", uri) {
            Ok(Target::File(url, _)) => url.into(),
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn each_form_names_the_same_file() {
        for (asked, named) in [
            ("http://deb.debian.org/debian/x", "http://deb.debian.org/debian/x"),
            ("HTTP://DEB.debian.org:80/debian/x", "http://deb.debian.org/debian/x"),
            ("/deb.debian.org/debian/x", "http://deb.debian.org/debian/x"),
            ("/mirror.lan:8080/debian/x", "http://mirror.lan:8080/debian/x"),
            ("/https/esm.ubuntu.com/apps/x", "https://esm.ubuntu.com/apps/x"),
            ("/https/esm.ubuntu.com:8443/x", "https://esm.ubuntu.com:8443/x"),
            ("http://a/pool/a_1%3a2+b~c.deb?x=%2f", "http://a/pool/a_1%3a2+b~c.deb?x=%2f"),
            ("/a/", "http://a/"),
            ("http://[::1]:80/x", "http://[::1]/x"),
        ] {
            assert_eq!(file(asked), named);
        }
        assert_eq!(target("GET", "/"), Ok(Target::Front));
        assert!(matches!(target("HEAD", "/a/b"), Ok(Target::File(_, Form::Mirror))));
        assert!(matches!(target("GET", "http://a/b"), Ok(Target::File(_, Form::Proxy))));
    }

    // T14
    #[test]
    fn no_path_leaves_its_host() {
        for (asked, named) in [
            ("/a/../b/etc/passwd", "http://a/b/etc/passwd"),
            ("/a/x/../../../../b", "http://a/b"),
            ("http://a/x/%2e%2e/%2E%2e/b", "http://a/b"),
            ("/https/a/../../c/d", "https://a/c/d"),
        ] {
            assert_eq!(file(asked), named);
        }
        for asked in ["/../etc/passwd", "/./x", "//a/b", "/a", "/https/", "/https/a"] {
            let found = target("GET", asked);
            let refused = matches!(found, Err(Misdirected::Nowhere));
            assert!(refused, "{asked}: {found:?}");
        }
    }

    // T16, T25
    #[test]
    fn what_can_be_read_in_two_ways_names_nothing() {
        for asked in ["/user@a/x", "/a%2fb/x", "/a%00/x", "/a?b/x", "http://user:pw@a/x"] {
            let found = target("GET", asked);
            assert!(matches!(found, Err(Misdirected::Nowhere)), "{asked}: {found:?}");
        }
        for asked in ["https://a/x", "ftp://a/x", "file://a/etc/passwd"] {
            assert_eq!(target("GET", asked), Err(Misdirected::Scheme), "{asked}");
        }
        assert_eq!(target("GET", &format!("/a/{}", "x".repeat(9000))), Err(Misdirected::TooLong));
    }

    // T25
    #[test]
    fn a_request_has_one_host_and_reads() {
        let uri: Uri = "/a/b".parse().expect("a path");
        for (version, hosts, fits) in [
            (Version::HTTP_11, 1, true),
            (Version::HTTP_11, 0, false),
            (Version::HTTP_11, 2, false),
            (Version::HTTP_10, 0, true),
            (Version::HTTP_10, 2, false),
            (Version::HTTP_09, 1, false),
        ] {
            let read = read(&Method::GET, &uri, version, hosts);
            assert_eq!(read.is_ok(), fits, "{version:?} {hosts}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
            assert_eq!(target(method, "http://a/b"), Err(Misdirected::Method));
        }
    }

    // T16
    #[test]
    fn a_tunnel_leads_to_the_port_of_https_and_no_other() {
        let url = Url::parse("https://esm.ubuntu.com/").expect("a URL");
        assert_eq!(target("CONNECT", "esm.ubuntu.com:443"), Ok(Target::Tunnel(url)));
        for port in [22, 25, 80, 4430] {
            let found = target("CONNECT", &format!("esm.ubuntu.com:{port}"));
            assert_eq!(found, Err(Misdirected::Port), "{port}");
        }
        assert_eq!(target("CONNECT", "esm.ubuntu.com"), Err(Misdirected::Nowhere));
    }
}

//! Which URLs may be asked for: the allow-list, as pure text.
//!
//! A URL comes from a peer, a record or a redirect, so it is hostile (T16). It is compared by its
//! parts after the WHATWG parser has normalised it, never as a string, and what two servers might
//! read differently is refused instead of interpreted. Addresses behind names are judged later, at
//! the connection (`dial`); an address written into the URL is judged here.
//!
//! Invariants:
//! - nothing is sent to a URL without a [`Permitted`], and only [`AllowList::check`] makes one;
//! - a URL with credentials, an encoded separator or an encoded dot segment is never permitted.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::origin::address::{self, AddressRefused};
use crate::origin::config::AllowEntry;

/// Bytes in a URL, at most: what common servers take, signed redirect targets included.
pub const URL_BYTES_MAX: usize = 8 * 1024;

/// How far the name of an origin may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses only.
    Public,
    /// To private, loopback and link-local addresses too: the config says so for this origin.
    Anywhere,
}

/// The origins that may be asked.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    entries: Vec<Allowed>,
}

/// A URL that the allow-list covers.
#[derive(Clone, Debug)]
pub struct Permitted {
    url: Url,
    reach: Reach,
}

/// Why a URL may not be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is no absolute URL.
    #[error("not a URL")]
    Unreadable(#[source] url::ParseError),
    /// The URL has more than [`URL_BYTES_MAX`] bytes.
    #[error("a URL has at most {URL_BYTES_MAX} bytes")]
    TooLong,
    /// The scheme is neither `http` nor `https`.
    #[error("the scheme `{scheme}` is not for origins")]
    Scheme {
        /// The scheme that was refused.
        scheme: String,
    },
    /// The URL carries a user name or a password.
    #[error("a URL with credentials is refused")]
    Credentials,
    /// Two servers may read the path differently: an encoded `/`, `\`, `.` segment, NUL or control.
    #[error("the path can be read in two ways")]
    Ambiguous,
    /// No entry of the allow-list covers the URL.
    #[error("{scheme}://{host}:{port} with this path is not on the allow-list")]
    NotAllowed {
        /// The scheme that was asked for.
        scheme: &'static str,
        /// The host that was asked for.
        host: String,
        /// The port that was asked for.
        port: u16,
    },
    /// The URL's host is itself an address that the origin may not have.
    #[error(transparent)]
    Address(#[from] AddressRefused),
}

/// What is wrong with one entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// It is no URL of an origin.
    #[error(transparent)]
    Url(#[from] Refused),
    /// It has a query or a fragment, which an entry cannot compare.
    #[error("an entry ends with its path: no query, no fragment")]
    Tail,
    /// Its host ends with a dot, which no URL of a mirror does.
    #[error("the host ends with a dot")]
    TrailingDot,
}

/// One entry, taken apart.
#[derive(Clone, Debug)]
struct Allowed {
    place: Place,
    /// The decoded segments that a path must begin with.
    path: Vec<Vec<u8>>,
    reach: Reach,
}

/// Where a URL leads, without its path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: &'static str,
    host: Host<String>,
    port: u16,
}

impl AllowList {
    /// Reads the entries of a config.
    ///
    /// # Errors
    ///
    /// Every entry that is wrong, with its position and what is wrong with it.
    pub fn new(entries: &[AllowEntry]) -> Result<Self, Vec<(usize, EntryProblem)>> {
        let mut list = Self::default();
        let mut problems = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            match Allowed::read(entry) {
                Ok(allowed) => list.entries.push(allowed),
                Err(problem) => problems.push((position, problem)),
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }

    /// Checks that a URL may be asked for.
    ///
    /// # Errors
    ///
    /// [`Refused`]: no connection may be made for it.
    pub fn check(&self, url: &Url) -> Result<Permitted, Refused> {
        let (place, path) = take_apart(url)?;
        let covering = self.entries.iter().filter(|entry| entry.covers(&place, &path));
        // The widest reach of several entries counts: each of them was written by the operator.
        let reach = covering
            .map(|entry| entry.reach)
            .reduce(|a, b| if a == Reach::Anywhere { a } else { b })
            .ok_or_else(|| Refused::NotAllowed {
                scheme: place.scheme,
                host: place.host.to_string(),
                port: place.port,
            })?;
        place.check_address(reach)?;
        let mut url = url.clone();
        url.set_fragment(None);
        Ok(Permitted { url, reach })
    }

    /// Checks that some entry names the URL's host, whatever its scheme, port and path: what may be
    /// asked of a host whose bytes are not looked at.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn check_host(&self, url: &Url) -> Result<Reach, Refused> {
        let (place, _) = take_apart(url)?;
        let naming = self.entries.iter().filter(|entry| entry.place.host == place.host);
        let reach = naming
            .map(|entry| entry.reach)
            .reduce(|a, b| if a == Reach::Anywhere { a } else { b })
            .ok_or_else(|| Refused::NotAllowed {
                scheme: place.scheme,
                host: place.host.to_string(),
                port: place.port,
            })?;
        place.check_address(reach)?;
        Ok(reach)
    }

    /// Returns whether any entry is for HTTPS, and so needs authorities to trust.
    pub fn needs_tls(&self) -> bool {
        self.entries.iter().any(|entry| entry.place.scheme == "https")
    }
}

impl Permitted {
    /// Returns the URL, without a fragment.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns how far the URL's name may lead.
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

impl Allowed {
    fn read(entry: &AllowEntry) -> Result<Self, EntryProblem> {
        let url = Url::parse(&entry.url).map_err(Refused::Unreadable)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EntryProblem::Tail);
        }
        if url.host_str().is_some_and(|host| host.ends_with('.')) {
            return Err(EntryProblem::TrailingDot);
        }
        let (place, mut path) = take_apart(&url)?;
        // `/debian` and `/debian/` mean the same prefix.
        while path.last().is_some_and(Vec::is_empty) {
            path.pop();
        }
        let reach = if entry.private { Reach::Anywhere } else { Reach::Public };
        place.check_address(reach).map_err(Refused::from)?;
        Ok(Self { place, path, reach })
    }

    fn covers(&self, place: &Place, path: &[Vec<u8>]) -> bool {
        self.place == *place && path.starts_with(&self.path)
    }
}

impl Place {
    fn check_address(&self, reach: Reach) -> Result<(), AddressRefused> {
        match &self.host {
            Host::Ipv4(addr) => address::check(&addr.to_string(), IpAddr::V4(*addr), reach),
            Host::Ipv6(addr) => address::check(&addr.to_string(), IpAddr::V6(*addr), reach),
            // RFC 6761: this machine whatever a resolver says, a proxy's resolver among them.
            Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => {
                address::check(name, IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), reach)
            }
            Host::Domain(_) => Ok(()),
        }
    }
}

/// Returns where a URL leads and the decoded segments of its path.
fn take_apart(url: &Url) -> Result<(Place, Vec<Vec<u8>>), Refused> {
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(Refused::TooLong);
    }
    let scheme = match url.scheme() {
        "http" => "http",
        "https" => "https",
        other => return Err(Refused::Scheme { scheme: other.to_owned() }),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Credentials);
    }
    // The parser gives both of these schemes a host and a port.
    let host = url.host().ok_or(Refused::Ambiguous)?.to_owned();
    let port = url.port_or_known_default().ok_or(Refused::Ambiguous)?;
    let segments = url.path_segments().ok_or(Refused::Ambiguous)?;
    let path = segments.map(segment).collect::<Result<_, _>>()?;
    Ok((Place { scheme, host, port }, path))
}

/// Decodes one segment, or refuses it where decoding changes what the path means.
fn segment(encoded: &str) -> Result<Vec<u8>, Refused> {
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(encoded).collect();
    // Servers behind servers decode again, so every further reading must be harmless too. Each is
    // shorter than the one before.
    let mut reading = decoded.clone();
    loop {
        let unsafe_byte = |byte: &u8| matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f);
        // Some servers cut `;parameters` off before they look for dots.
        let name = reading.split(|byte| *byte == b';').next().unwrap_or_default();
        if reading.iter().any(unsafe_byte) || name == b"." || name == b".." {
            return Err(Refused::Ambiguous);
        }
        let next: Vec<u8> = percent_encoding::percent_decode(&reading).collect();
        if next.len() == reading.len() {
            return Ok(decoded);
        }
        reading = next;
    }
}

/// A URL as errors and logs show it: without its query, which may hold a signature (T28).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Stands for a target that is no URL.
    pub(crate) fn unreadable() -> Self {
        Self("what is no URL".to_owned())
    }
}

impl From<&Url> for Shown {
    fn from(url: &Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Both fail only for URLs that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self(url.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[AllowEntry]) -> AllowList {
        AllowList::new(entries).expect("entries in order")
    }

    fn check(list: &AllowList, url: &str) -> Result<Reach, Refused> {
        list.check(&Url::parse(url).expect(url)).map(|permitted| permitted.reach())
    }

    fn mirrors() -> AllowList {
        list(&[
            AllowEntry::public("https://deb.debian.org"),
            AllowEntry::public("http://mirror.example:8080/debian"),
            AllowEntry::private("http://mirror.site.lan/pub/"),
            AllowEntry::public("https://bücher.example/"),
        ])
    }

    // T16
    #[test]
    fn what_an_entry_covers_is_permitted_however_it_is_spelt() {
        for (url, reach) in [
            ("https://deb.debian.org/debian/pool/a_1%3a2+b~c_amd64.deb", Reach::Public),
            ("HTTPS://DEB.debian.ORG:443/x", Reach::Public),
            ("https:\\\\deb.debian.org\\x", Reach::Public),
            ("https://deb.debian.org?query#fragment", Reach::Public),
            ("https://deb.debian%2eorg/x", Reach::Public),
            ("http://mirror.example:8080/debian", Reach::Public),
            ("http://mirror.example:8080/debian/", Reach::Public),
            ("http://mirror.example:8080/other/../debian/x", Reach::Public),
            ("http://mirror.example:8080/d%65bian/x", Reach::Public),
            ("http://mirror.site.lan/pub/x", Reach::Anywhere),
            ("https://xn--bcher-kva.example/x", Reach::Public),
            ("https://BÜCHER.example/x", Reach::Public),
        ] {
            assert_eq!(check(&mirrors(), url), Ok(reach), "{url}");
        }
    }

    // T16
    #[test]
    fn what_no_entry_covers_is_refused() {
        for url in [
            "http://deb.debian.org/x",
            "https://deb.debian.org:8443/x",
            "https://deb.debian.org./x",
            "https://deb.debian.org.evil.example/x",
            "https://evil.example/deb.debian.org",
            "https://xdeb.debian.org/",
            "https://debian.org/",
            "http://mirror.example/debian/x",
            "http://mirror.example:8080/",
            "http://mirror.example:8080/debian-security/x",
            "http://mirror.example:8080/debian/../etc/passwd",
            "http://mirror.example:8080/debian/%2e%2e/etc/passwd",
            "http://mirror.example:8080/debian\\..\\etc",
            "http://mirror.example:8080//debian/x",
            "http://mirror.example:8080/DEBIAN/x",
            "http://mirror.site.lan/public/x",
            "https://bucher.example/",
            "https://evil.example#@deb.debian.org/",
            "https://evil.example?@deb.debian.org/",
            "https://evil.example\\@deb.debian.org/",
        ] {
            let refused = check(&mirrors(), url);
            assert!(matches!(refused, Err(Refused::NotAllowed { .. })), "{url}: {refused:?}");
        }
    }

    // T16
    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for url in [
            "http://mirror.example:8080/debian/..%2f..%2fetc",
            "http://mirror.example:8080/debian/%2fetc",
            "http://mirror.example:8080/debian/..%5c..%5cetc",
            "http://mirror.example:8080/debian/%252e%252e/etc",
            "http://mirror.example:8080/debian/..%252fetc",
            "http://mirror.example:8080/debian/%25252525252e./etc",
            "http://mirror.example:8080/debian/..;/etc",
            "http://mirror.example:8080/debian/.%2e;x=y/etc",
            "http://mirror.example:8080/debian/a%00b",
            "http://mirror.example:8080/debian/a%0d%0aHost:%20b",
        ] {
            assert_eq!(check(&mirrors(), url), Err(Refused::Ambiguous), "{url}");
        }
    }

    // T16
    #[test]
    fn credentials_and_other_schemes_are_refused() {
        for url in [
            "https://user@deb.debian.org/",
            "https://user:secret@deb.debian.org/",
            "https://:secret@deb.debian.org/",
            "https://evil.example@deb.debian.org/",
        ] {
            assert_eq!(check(&mirrors(), url), Err(Refused::Credentials), "{url}");
        }
        for url in ["ftp://deb.debian.org/", "file:///etc/passwd", "data:,x", "gopher://a/"] {
            let refused = check(&mirrors(), url);
            assert!(matches!(refused, Err(Refused::Scheme { .. })), "{url}: {refused:?}");
        }
        let long = format!("https://deb.debian.org/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(check(&mirrors(), &long), Err(Refused::TooLong));
    }

    // T16
    #[test]
    fn addresses_in_urls_are_judged_in_every_spelling() {
        let open = list(&[AllowEntry::public("http://93.184.216.34")]);
        assert_eq!(check(&open, "http://0x5db8d822/x"), Ok(Reach::Public));
        for url in ["http://[::ffff:93.184.216.34]/", "http://127.0.0.1/", "http://2130706433/"] {
            assert!(check(&open, url).is_err(), "{url}");
        }
        for url in ["http://127.0.0.1", "http://[::1]", "http://localhost", "http://a.localhost"] {
            let refused = AllowList::new(&[AllowEntry::public(url)]).expect_err(url);
            let inside = matches!(refused[..], [(0, EntryProblem::Url(Refused::Address(_)))]);
            assert!(inside, "{url}: {refused:?}");
            let private = list(&[AllowEntry::private(url)]);
            assert_eq!(check(&private, url), Ok(Reach::Anywhere), "{url}");
        }
        let metadata = [AllowEntry::private("http://169.254.169.254")];
        AllowList::new(&metadata).expect_err("a metadata service is no origin");
    }

    #[test]
    fn all_wrong_entries_are_reported_at_once() {
        let problems = AllowList::new(&[
            AllowEntry::public("deb.debian.org"),
            AllowEntry::public("https://deb.debian.org"),
            AllowEntry::public("https://a.example/?x"),
            AllowEntry::public("https://a.example./"),
            AllowEntry::public("https://u@a.example/"),
            AllowEntry::public("https://a.example/%2e%2fb"),
        ])
        .expect_err("five are wrong");
        let positions: Vec<usize> = problems.iter().map(|(position, _)| *position).collect();
        assert_eq!(positions, [0, 2, 3, 4, 5]);
    }

    proptest::proptest! {
        // T16
        #[test]
        fn no_reading_of_a_permitted_path_leaves_its_prefix(
            parts in proptest::collection::vec(
                proptest::sample::select(&[
                    "debian", "etc", "a", ".", "..", "/", "\\", ";", "%2e", "%2E", "%2f", "%5c",
                    "%25", "%252e", "%252f", "//", "%00", "?", "#", "@", ":", "\t", "\u{ff0e}",
                ][..]),
                0..12,
            ),
            inside: bool,
        ) {
            let prefix = if inside { "debian/" } else { "" };
            let text = format!("http://mirror.example:8080/{prefix}{}", parts.concat());
            let Ok(url) = Url::parse(&text) else { return Ok(()) };
            if mirrors().check(&url).is_ok() {
                for reading in readings(url.path()) {
                    proptest::prop_assert_eq!(reading.first().map(Vec::as_slice), Some(&b"debian"[..]));
                }
            }
        }
    }

    /// What servers make of a path that decode up to four times, at once or segment by segment, take
    /// backslashes for slashes, cut parameters off, and merge empty segments or not.
    fn readings(path: &str) -> Vec<Vec<Vec<u8>>> {
        let mut readings = Vec::new();
        let mut decoded = path.as_bytes().to_vec();
        for _ in 0..5 {
            for merge in [false, true] {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                for segment in decoded[1..].split(|byte| matches!(byte, b'/' | b'\\')) {
                    match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
                        b"" if merge => {}
                        b"." => {}
                        b".." => drop(kept.pop()),
                        name => kept.push(name.to_vec()),
                    }
                }
                // Encoded names are compared decoded.
                readings.push(
                    kept.iter()
                        .map(|name| percent_encoding::percent_decode(name).collect())
                        .collect(),
                );
            }
            decoded = percent_encoding::percent_decode(&decoded).collect();
        }
        readings
    }

    // T28
    #[test]
    fn a_shown_url_has_no_secret() {
        let url = Url::parse("https://u:p@a.example/x?X-Signature=secret#f").expect("a URL");
        assert_eq!(Shown::from(&url).to_string(), "https://a.example/x");
    }
}

//! The `[http_proxy]` part of the config: where the caching proxy listens, whom it serves and what it
//! may ask for. Text and numbers as a person wrote them; nothing is resolved or opened here.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer};
use sutler_swarm::origin::AllowEntry;

/// How long a file is given out, marked as stale, while its origin does not answer: a long weekend
/// and the days after it.
const STALE_HOURS_MAX: u64 = 7 * 24;

/// Connections of clients at a time: a site of some hundred machines that update at once.
const CONNECTIONS_MAX: usize = 1_024;

/// Connections of one client address at a time. apt opens one for each of its sources; many clients
/// behind one address share this.
const CONNECTIONS_PER_CLIENT_MAX: usize = 64;

/// The `[http_proxy]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpProxyConfig {
    /// Address of the caching proxy. Absent: it is off.
    pub listen: Option<SocketAddr>,
    /// Networks whose machines are served.
    pub clients: Vec<Network>,
    /// File with `USER:PASSWORD` on each line; readable by its owner alone. Absent: nobody logs in.
    pub password_file: Option<PathBuf>,
    /// Origins that clients may ask for, besides those in `origin.allow`.
    pub allow: Vec<AllowEntry>,
    /// Whether the hosts of this machine's own apt sources may be asked for, too.
    pub apt_sources: bool,
    /// The configuration of the apt whose sources these are. Absent: this machine's own.
    pub apt_config: Option<PathBuf>,
    /// Suites that this machine's apt does not follow, each with the keyring that signs it.
    pub feeds: Vec<FeedConfig>,
    /// Nodes, `ADDR:PORT`, that are asked for a file before its origin is.
    pub upstream: Vec<SocketAddr>,
    /// Hours for which a file is given out, marked as stale, while its origin does not answer.
    pub stale_hours_max: u64,
    /// Connections of clients at a time. More are closed.
    pub connections_max: NonZeroUsize,
    /// Connections of one client address at a time. More are closed.
    pub connections_per_client_max: NonZeroUsize,
    /// How long a client may take for the head of a request, and be silent between two, in
    /// milliseconds.
    pub head_timeout_ms: NonZeroU64,
    /// How long a client may take nothing of what is sent to it, in milliseconds.
    pub write_timeout_ms: NonZeroU64,
}

/// A suite or an RPM repository, and who signs it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedConfig {
    /// The folder of its Release, such as `http://deb.debian.org/debian/dists/trixie`; of an RPM
    /// repository its `baseurl`.
    pub url: String,
    /// The file of the keyring whose signatures count, binary or armored.
    pub keyring: PathBuf,
}

/// A network of clients: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/8, or one address")]
pub struct NetworkError;

impl Default for HttpProxyConfig {
    fn default() -> Self {
        let at_least_one = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            listen: None,
            clients: private_networks(),
            password_file: None,
            allow: Vec::new(),
            apt_sources: true,
            apt_config: None,
            feeds: Vec::new(),
            upstream: Vec::new(),
            stale_hours_max: STALE_HOURS_MAX,
            connections_max: at_least_one(CONNECTIONS_MAX),
            connections_per_client_max: at_least_one(CONNECTIONS_PER_CLIENT_MAX),
            head_timeout_ms: milliseconds(30_000),
            write_timeout_ms: milliseconds(60_000),
        }
    }
}

const fn milliseconds(ms: u64) -> NonZeroU64 {
    NonZeroU64::new(ms).expect("not zero")
}

/// Returns this machine and the networks that no router of the internet knows.
fn private_networks() -> Vec<Network> {
    let networks = [
        "127.0.0.0/8",
        "::1",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ];
    networks.into_iter().filter_map(|network| network.parse().ok()).collect()
}

impl FeedConfig {
    /// Returns whether it is about the suite in this folder, which ends with a slash.
    pub(super) fn is_for(&self, suite: &str) -> bool {
        let (own, folder) = (self.url.trim_end_matches('/'), suite.trim_end_matches('/'));
        folder == own || folder.strip_suffix("/repodata") == Some(own)
    }
}

impl Network {
    /// Returns whether an address lies in the network. An IPv4 address in IPv6 clothes is one of
    /// IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        text.parse::<IpNet>().map(|network| Self(network.trunc())).map_err(|_| NetworkError)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(address: &str) -> bool {
        let address = address.parse().expect("an address");
        HttpProxyConfig::default().clients.iter().any(|network| network.contains(address))
    }

    // T23
    #[test]
    fn by_default_only_this_machine_and_private_networks_are_served() {
        for address in ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd00::1"] {
            assert!(served(address), "{address}");
        }
        assert!(served("::ffff:10.1.2.3"));
        for address in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "100.64.0.1"] {
            assert!(!served(address), "{address}");
        }
    }

    #[test]
    fn a_feed_is_named_by_the_folder_that_clients_know_it_by() {
        let of = |url: &str| FeedConfig { url: url.to_owned(), keyring: PathBuf::new() };
        assert!(of("http://a/dists/x").is_for("http://a/dists/x/"));
        assert!(of("http://a/el9/").is_for("http://a/el9/repodata/"));
        assert!(of("http://a/el9/repodata").is_for("http://a/el9/repodata/"));
        assert!(!of("http://a/el").is_for("http://a/el9/repodata/"));
        assert!(!of("http://a/el9").is_for("http://a/el9/other/"));
    }

    #[test]
    fn a_network_is_read_from_text() {
        let network: Network = "10.1.2.3/8".parse().expect("a network");
        assert!(network.contains("10.200.0.1".parse().expect("an address")));
        for wrong in ["", "10.0.0.0/33", "lan", "10.0.0"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
    }
}

//! The `[origin]` part of the config: which origins may be asked, how, and how patiently.
//!
//! Everything here is text and numbers as a person wrote them. [`Origins::new`] reads them and
//! reports all that is wrong at once.
//!
//! [`Origins::new`]: crate::origin::Origins::new

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The `[origin]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OriginConfig {
    /// The origins that may be asked, each with the path below which it may be. Empty: none.
    pub allow: Vec<AllowEntry>,
    /// `http://HOST:PORT` of the proxy for all origins, or `"none"` to ignore the environment.
    /// Absent: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` decide, as with curl.
    pub proxy: Option<String>,
    /// Hosts, domains and networks asked without the proxy, besides those of `no_proxy`.
    pub no_proxy: Vec<String>,
    /// PEM files of authorities trusted for HTTPS besides those of the system.
    pub ca_files: Vec<PathBuf>,
    /// How long name, connection and TLS may take together, in milliseconds.
    pub connect_timeout_ms: NonZeroU64,
    /// How long an origin may be silent in the middle of a reply, in milliseconds.
    pub stall_timeout_ms: NonZeroU64,
    /// The least rate of a body, in bytes a second, over `rate_window_ms`. Zero: none (T6).
    pub rate_bytes_min: u64,
    /// Over how long the rate is measured, in milliseconds of waiting for the origin.
    pub rate_window_ms: NonZeroU64,
}

/// One origin that may be asked: `"https://deb.debian.org"`, or a table with more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowEntry {
    /// Scheme, host, port and the path that every URL must lie below.
    pub url: String,
    /// Whether its name may lead to a private, loopback or link-local address.
    pub private: bool,
}

const fn milliseconds(ms: u64) -> NonZeroU64 {
    NonZeroU64::new(ms).expect("not zero")
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            ca_files: Vec::new(),
            connect_timeout_ms: milliseconds(10_000),
            // Longer than a vendor's cache takes to fetch a large file from its own origin.
            stall_timeout_ms: milliseconds(30_000),
            // Below a satellite link's worst, far above what ties up a connection for nothing.
            rate_bytes_min: 1024,
            rate_window_ms: milliseconds(60_000),
        }
    }
}

impl AllowEntry {
    /// An origin on the open internet.
    pub fn public(url: impl Into<String>) -> Self {
        Self { url: url.into(), private: false }
    }

    /// An origin that may be on a private network, or on this machine.
    pub fn private(url: impl Into<String>) -> Self {
        Self { url: url.into(), private: true }
    }
}

impl<'de> Deserialize<'de> for AllowEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable)
    }
}

/// Reads both forms of an entry. Not `untagged`: that hides which key is unknown.
struct TextOrTable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowTable {
    url: String,
    #[serde(default)]
    private: bool,
}

impl<'de> Visitor<'de> for TextOrTable {
    type Value = AllowEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or a table with `url` and `private`")
    }

    fn visit_str<E>(self, url: &str) -> Result<AllowEntry, E> {
        Ok(AllowEntry::public(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AllowEntry, A::Error> {
        let table = AllowTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(AllowEntry { url: table.url, private: table.private })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_url_or_a_table() {
        let config: OriginConfig = toml::from_str(
            "allow = ['https://deb.debian.org', { url = 'http://mirror.lan/debian', private = true }]",
        )
        .expect("a config");
        assert_eq!(
            config.allow,
            [
                AllowEntry::public("https://deb.debian.org"),
                AllowEntry::private("http://mirror.lan/debian")
            ]
        );
        assert_eq!(config.proxy, None);
        assert_eq!(config.connect_timeout_ms.get(), 10_000);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        for (text, named) in [
            ("alow = []", "alow"),
            ("allow = [{ url = 'http://a', privat = true }]", "privat"),
            ("allow = [{ private = true }]", "url"),
            ("allow = [7]", "a URL, or a table"),
            ("stall_timeout_ms = 0", "nonzero"),
        ] {
            let error = toml::from_str::<OriginConfig>(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}

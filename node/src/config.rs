//! What an operator may set: one TOML file, one typed struct for each part.
//!
//! Unknown keys are refused, and everything that is wrong is reported at once, each with its
//! path, so that a file is mended in one go. A part that is absent has the defaults that its
//! struct names, an absent `Option` means that the feature is off.
//!
//! This module reads text and decides nothing else: no address is resolved and no folder opened.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sutler_swarm::TransportConfig;
use sutler_swarm::origin::OriginConfig;
use sutler_swarm::origin::allow::AllowList;
use sutler_swarm::serve::CONNECTIONS_MAX;
use toml::Value;
use toml::map::Map;

use crate::failure::{Failure, Kind};
use crate::orders::OrdersConfig;
use crate::proxy::settings::HttpProxyConfig;
use crate::size::ByteCount;

/// Bytes of a config file, at most: a long list of origins fits many times.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The tables of roles that stand beside a node in one config file.
const OF_OTHERS: [&str; 2] = ["agent", "control"];

/// Mistakes that are looked for in one part before the rest of it is left alone.
const MISTAKES_MAX: usize = 64;

/// Bytes of free disk that a store leaves by default: a full disk breaks more than Sutler.
const FREE_BYTES_MIN: ByteCount = ByteCount(1 << 30);

/// Read by the background check by default: 700 GB a day, and less than a tenth of a slow disk.
const SCRUB_BYTES_PER_SECOND: ByteCount = ByteCount(8 << 20);

/// Everything that an operator may set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The `[store]` table.
    pub store: StoreConfig,
    /// The `[origin]` table: which vendors' servers may be asked.
    pub origin: OriginConfig,
    /// The `[transport]` table: how QUIC is set up.
    pub transport: TransportConfig,
    /// The `[limits]` table.
    pub limits: LimitsConfig,
    /// The `[http]` table.
    pub http: HttpConfig,
    /// The `[http_proxy]` table: the caching proxy for package managers.
    pub http_proxy: HttpProxyConfig,
    /// The `[orders]` table: whose orders are passed on.
    pub orders: OrdersConfig,
    /// The `[join_relay]` table: a way to control's enrolment port for devices that reach only this node.
    pub join_relay: JoinRelayConfig,
}

/// The `[store]` table: how much may be kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Bytes that the store may hold. Eviction starts at this size. Absent: as the disk allows.
    pub bytes_max: Option<ByteCount>,
    /// Bytes of the disk that stay free, whatever `bytes_max` says.
    pub free_bytes_min: ByteCount,
    /// Whether contents stay. If not, each is removed with the last who waits for it.
    pub keep: bool,
    /// Bytes a second that the background check of the whole store reads. 0: no check.
    pub scrub_bytes_per_second: ByteCount,
}

/// The `[http]` table: what is open to others than peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of `/metrics` and `/healthz`. Absent: they are off.
    pub listen: Option<SocketAddr>,
}

/// The `[join_relay]` table: a way to control's enrolment port for devices that reach only this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JoinRelayConfig {
    /// UDP address that devices ask at. Absent: nothing is passed on.
    pub listen: Option<SocketAddr>,
    /// Control's enrolment port, `host:port`; looked up for each device.
    pub control: Option<String>,
}

/// The `[limits]` table: how much others may ask of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections of peers at a time. More are refused.
    pub connections_max: NonZeroUsize,
}

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the config {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML at all.
    #[error("the config is no TOML: {message}")]
    Syntax {
        /// Line, column and what was expected there.
        message: String,
    },
    /// It says what cannot be. Every such place is in the list.
    #[error("{}", list(mistakes))]
    Mistakes {
        /// All of them, in the order of the parts.
        mistakes: Vec<Mistake>,
    },
}

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, such as `store.bytes_max` or `origin.allow[3].url`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            bytes_max: None,
            free_bytes_min: FREE_BYTES_MIN,
            keep: true,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let connections_max = NonZeroUsize::new(CONNECTIONS_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { connections_max }
    }
}

impl Config {
    /// Reads the config file at `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with all mistakes at once.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&text_of(path)?)
    }

    /// Reads the config file at `path` of a machine that is more than a node: the table `name` is another
    /// role's.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with all mistakes at once, those of the other table as well.
    pub fn read_with<T: DeserializeOwned + Default>(
        path: &Path,
        name: &str,
    ) -> Result<(Self, T), ConfigError> {
        Self::parse_with(&text_of(path)?, name)
    }

    /// Reads the text of a config file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`] or [`ConfigError::Mistakes`], with all of them.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (table, mistakes) = (table(text)?, Vec::new());
        Self::of_table(table, mistakes)
    }

    /// As [`Config::parse`], with the table `name` of another role.
    ///
    /// # Errors
    ///
    /// As [`Config::parse`].
    pub fn parse_with<T: DeserializeOwned + Default>(
        text: &str,
        name: &str,
    ) -> Result<(Self, T), ConfigError> {
        let (mut table, mut mistakes) = (table(text)?, Vec::new());
        let other = part(&mut table, name, &mut mistakes);
        Self::of_table(table, mistakes).map(|config| (config, other))
    }

    fn of_table(mut table: toml::Table, mut mistakes: Vec<Mistake>) -> Result<Self, ConfigError> {
        let config = Self {
            store: part(&mut table, "store", &mut mistakes),
            origin: part(&mut table, "origin", &mut mistakes),
            transport: part(&mut table, "transport", &mut mistakes),
            limits: part(&mut table, "limits", &mut mistakes),
            http: part(&mut table, "http", &mut mistakes),
            http_proxy: part(&mut table, "http_proxy", &mut mistakes),
            orders: part(&mut table, "orders", &mut mistakes),
            join_relay: part(&mut table, "join_relay", &mut mistakes),
        };
        // One file may serve all that runs on a machine; each role looks at its own.
        for name in OF_OTHERS {
            table.remove(name);
        }
        mistakes.extend(
            table
                .keys()
                .map(|key| Mistake::new(key, "unknown: no part of the config has that name")),
        );
        config.check(&mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError::Mistakes { mistakes }) }
    }

    /// Adds what no type can say to `mistakes`.
    fn check(&self, mistakes: &mut Vec<Mistake>) {
        if self.store.bytes_max == Some(ByteCount(0)) {
            let message = "a store of no bytes holds nothing: leave it out, or set keep = false";
            mistakes.push(Mistake::new("store.bytes_max", message));
        }
        for (part, allow) in
            [("origin", &self.origin.allow), ("http_proxy", &self.http_proxy.allow)]
        {
            if let Err(problems) = AllowList::new(allow) {
                mistakes.extend(problems.iter().map(|(position, problem)| {
                    let causes = Failure::from_error(Kind::Usage, problem).to_string();
                    Mistake::new(format!("{part}.allow[{position}]"), causes)
                }));
            }
        }
        let problems = self.orders.problems().into_iter();
        mistakes
            .extend(problems.map(|(key, message)| Mistake::new(format!("orders.{key}"), message)));
        let JoinRelayConfig { listen, control } = &self.join_relay;
        if listen.is_some() != control.is_some() {
            let message = "listen and control belong together: where to hear, and whom to tell";
            mistakes.push(Mistake::new("join_relay", message));
        }
        let problems = self.transport.problems();
        mistakes.extend(problems.into_iter().map(|message| Mistake::new("transport", message)));
    }
}

impl StoreConfig {
    /// Returns the quota as the store takes it.
    pub fn quota(&self) -> Option<NonZeroU64> {
        self.bytes_max.and_then(|bytes| NonZeroU64::new(bytes.0))
    }
}

impl Mistake {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

fn list(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    match lines.as_slice() {
        [one] => format!("the config has a mistake: {one}"),
        _ => format!("the config has {} mistakes:\n  {}", lines.len(), lines.join("\n  ")),
    }
}

/// Reads a file that is no longer than a config.
fn text_of(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > CONFIG_BYTES_MAX {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB");
        return Err(failed(source));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn table(text: &str) -> Result<toml::Table, ConfigError> {
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax { message: error.to_string() })
}

/// Takes the part `name` out of `table` and decodes it.
///
/// A decoder stops at its first mistake. So the value it stumbled over is removed and the rest is
/// tried again, until nothing is wrong or nothing can be removed.
fn part<T: DeserializeOwned + Default>(
    table: &mut toml::Table,
    name: &str,
    mistakes: &mut Vec<Mistake>,
) -> T {
    let Some(mut value) = table.remove(name) else { return T::default() };
    for _ in 0..MISTAKES_MAX {
        let error = match serde_path_to_error::deserialize(value.clone()) {
            Ok(part) => return part,
            Err(error) => error,
        };
        let path = error.path().to_string();
        let message = error.into_inner().message().trim().to_owned();
        let wrong = unknown_key(&message).map_or(path.clone(), |key| join(&path, key));
        let removed = remove(&mut value, &wrong);
        mistakes.push(Mistake::new(join(name, &wrong), message));
        if !removed {
            break;
        }
    }
    T::default()
}

fn join(parent: &str, key: &str) -> String {
    let is_inside = parent.rsplit(['.', ']']).next() == Some(key);
    match (parent, key) {
        ("." | "", _) => key.to_owned(),
        (_, "." | "") => parent.to_owned(),
        // Some decoders name the key in the path already.
        _ if is_inside => parent.to_owned(),
        _ => format!("{parent}.{key}"),
    }
}

/// Returns the key that a derived decoder does not know.
fn unknown_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

/// Removes the value at `path`, such as `allow[3].url`; says whether there was one.
fn remove(value: &mut Value, path: &str) -> bool {
    let (parent, last) = match path.rfind(['.', '[']) {
        Some(at) => (&path[..at], path[at..].trim_start_matches('.')),
        None => ("", path),
    };
    let Some(parent) = find(value, parent) else { return false };
    match (parent, index(last)) {
        (Value::Array(items), Some(index)) if index < items.len() => {
            items.remove(index);
            true
        }
        (Value::Table(table), None) => Map::remove(table, last).is_some(),
        _ => false,
    }
}

fn find<'v>(value: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    let spaced = path.replace('[', ".[");
    let mut value = value;
    for step in spaced.split('.').filter(|step| !step.is_empty()) {
        value = match index(step) {
            Some(index) => value.as_array_mut()?.get_mut(index)?,
            None => value.as_table_mut()?.get_mut(step)?,
        };
    }
    Some(value)
}

fn index(step: &str) -> Option<usize> {
    step.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        match Config::parse(text) {
            Err(ConfigError::Mistakes { mistakes }) => {
                mistakes.iter().map(Mistake::to_string).collect()
            }
            other => panic!("expected mistakes, found {other:?}"),
        }
    }

    #[test]
    fn an_empty_config_has_the_defaults() {
        let config = Config::parse("").expect("nothing to be wrong");
        assert_eq!(config.store, StoreConfig::default());
        assert!(config.store.keep);
        assert_eq!(config.http.listen, None);
    }

    #[test]
    fn each_part_is_read() {
        let config = Config::parse(
            "[store]\nbytes_max = '2GiB'\nfree_bytes_min = 5\nkeep = false\n\
             [origin]\nallow = ['https://deb.debian.org/debian']\n\
             [transport]\nmtu_max = 1452\n[limits]\nconnections_max = 7\n\
             [http]\nlisten = '127.0.0.1:9100'\n",
        )
        .expect("a good config");
        assert_eq!(config.store.bytes_max, Some(ByteCount(2 << 30)));
        assert_eq!(config.store.free_bytes_min, ByteCount(5));
        assert!(!config.store.keep);
        assert_eq!(config.origin.allow.len(), 1);
        assert_eq!(config.transport.mtu_max, 1452);
        assert_eq!(config.limits.connections_max.get(), 7);
        assert_eq!(config.http.listen, "127.0.0.1:9100".parse().ok());
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once_with_its_path() {
        let found = mistakes(
            "[store]\nbytes_max = 'lots'\nkep = true\nkeep = 3\n[http]\nlisten = 'here'\nlissen = 1\n\
             [stroe]\nkeep = true\n",
        );
        let paths: Vec<&str> = found.iter().filter_map(|line| line.split(':').next()).collect();
        for path in
            ["store.bytes_max", "store.kep", "store.keep", "http.listen", "http.lissen", "stroe"]
        {
            assert!(paths.contains(&path), "{path} is missing in {found:#?}");
        }
        assert_eq!(paths.len(), 6, "{found:#?}");
    }

    #[test]
    fn what_no_type_can_say_is_checked_in_every_part() {
        let found = mistakes(
            "store.bytes_max = 0\ntransport.mtu_max = 9000\n\
             origin.allow = ['ftp://a', 'https://good', { url = 'nonsense' }, 7]\n",
        );
        for path in ["store.bytes_max", "transport", "origin.allow[0]", "origin.allow[3]"] {
            assert!(found.iter().any(|line| line.starts_with(path)), "{path}: {found:#?}");
        }
    }

    #[test]
    fn another_roles_table_is_read_beside_and_its_mistakes_are_told_with_the_rest() {
        let (config, http) = Config::parse_with::<HttpConfig>(
            "store.keep = false\n[role]\nlisten = '[::1]:1'\n",
            "role",
        )
        .expect("a good config");
        assert!(!config.store.keep);
        assert_eq!(http.listen, "[::1]:1".parse().ok());
        let wrong = Config::parse_with::<HttpConfig>("stroe = 1\n[role]\nlissen = 1\n", "role");
        let wrong = wrong.expect_err("two mistakes").to_string();
        assert!(wrong.contains("role.lissen") && wrong.contains("stroe"), "{wrong}");
    }

    #[test]
    fn a_store_of_no_bytes_is_a_mistake() {
        assert_eq!(mistakes("store.bytes_max = 0").len(), 1);
    }

    #[test]
    fn what_is_no_toml_is_named_by_line() {
        let error = Config::parse("[store\n").expect_err("a bracket is missing");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}

//! What an operator may set of an agent: the `[agent]` table of its config file.
//!
//! An agent that nobody has set up observes: it fetches nothing, installs nothing, and reports what it
//! would do.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use sutler_orders::bounds::{TAGS_MAX, WINDOW_MINUTES_MAX};
use sutler_protocol::name::Label;

use crate::command::{Template, Vector};

/// Minutes that an installation may take where neither the config nor the orders say otherwise.
const RUN_MINUTES: NonZeroU32 = NonZeroU32::new(30).expect("30 is not 0");

/// Minutes between two reports where nothing changes.
const REPORT_MINUTES: NonZeroU32 = NonZeroU32::new(60).expect("60 is not 0");

/// Minutes between two reports, at most: a device that is silent for long is unknown.
const REPORT_MINUTES_MAX: u32 = 24 * 60;

/// The `[agent]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Whether it only looks and reports: it stages and installs nothing, whatever the orders say (R159).
    pub observe_only: bool,
    /// What rules may know of this device beside its facts.
    pub tags: BTreeSet<String>,
    /// The first ring that this device may be in. Absent: every ring may take it.
    #[serde(deserialize_with = "label")]
    pub first_ring: Option<Label>,
    /// Minutes between two reports where nothing changes.
    pub report_minutes: NonZeroU32,
    /// What installs, by the kind of the content.
    pub install: Vec<InstallConfig>,
    /// What lists the installed versions of a kind: lines of `PRODUCT VERSION`, or `PRODUCT VERSION STATUS`, which count
    /// where the status is `installed`. Standing policies act on such kinds alone. `deb` is known.
    #[serde(deserialize_with = "vectors")]
    pub versions: BTreeMap<Label, Vector>,
    /// Whether the line costs money. Absent: as `nmcli` says, if it is there, else not.
    pub metered: Option<bool>,
}

/// An `[[agent.install]]` table: the commands for one kind of content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallConfig {
    /// The kind, as the content says it, such as `deb`.
    #[serde(deserialize_with = "some_label")]
    pub kind: Label,
    /// What installs it. Its exit code is logged, and decides nothing but whether it is tried again.
    pub command: Template,
    /// What says whether it is installed: 0 yes, 1 no, 3 not applicable here, 4 yes, after a restart. Any other end is no answer.
    pub detect: Template,
    /// Minutes that the command may take, if the orders allow no less.
    #[serde(default = "run_minutes")]
    pub max_run_minutes: NonZeroU32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            observe_only: true,
            tags: BTreeSet::new(),
            first_ring: None,
            report_minutes: REPORT_MINUTES,
            install: Vec::new(),
            versions: with_debian(BTreeMap::new()),
            metered: None,
        }
    }
}

impl AgentConfig {
    /// The table's name.
    pub const NAME: &str = "agent";

    /// Returns what no type can say is wrong: where in the table, and what.
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let mut refuse = |path: String, message: String| mistakes.push((path, message));
        if self.tags.len() > TAGS_MAX {
            refuse("tags".to_owned(), format!("a device has at most {TAGS_MAX}"));
        }
        if self.report_minutes.get() > REPORT_MINUTES_MAX {
            let message = format!("a device reports at least every {REPORT_MINUTES_MAX} minutes");
            refuse("report_minutes".to_owned(), message);
        }
        let mut kinds = BTreeSet::new();
        for (position, install) in self.install.iter().enumerate() {
            if !kinds.insert(&install.kind) {
                let message = format!("another entry has the kind {}", install.kind);
                refuse(format!("install[{position}].kind"), message);
            }
            if install.max_run_minutes.get() > WINDOW_MINUTES_MAX {
                let message = format!("no window is longer than {WINDOW_MINUTES_MAX} minutes");
                refuse(format!("install[{position}].max_run_minutes"), message);
            }
        }
        mistakes
    }

    /// Returns the commands for a kind of content.
    pub fn install(&self, kind: &Label) -> Option<&InstallConfig> {
        self.install.iter().find(|install| install.kind == *kind)
    }

    /// Returns how often it reports where nothing changes.
    pub fn report_every(&self) -> Duration {
        Duration::from_mins(self.report_minutes.get().into())
    }
}

impl InstallConfig {
    /// Returns how long the command may take, as far as the config says.
    pub fn run_max(&self) -> Duration {
        Duration::from_mins(self.max_run_minutes.get().into())
    }
}

const fn run_minutes() -> NonZeroU32 {
    RUN_MINUTES
}

/// Adds what lists Debian's packages, unless the config says it.
fn with_debian(mut versions: BTreeMap<Label, Vector>) -> BTreeMap<Label, Vector> {
    versions.entry("deb".parse().expect("letters are a label")).or_insert_with(|| {
        let format = "${Package} ${Version} ${db:Status-Status}\n";
        let arguments = ["--show", "--showformat", format].map(str::to_owned).to_vec();
        Vector { program: "/usr/bin/dpkg-query".to_owned(), arguments }
    });
    versions
}

fn vectors<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Label, Vector>, D::Error> {
    let commands = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
    let versions = commands.into_iter().map(|(kind, command)| {
        let kind = kind.parse().map_err(de::Error::custom)?;
        Ok((kind, Vector::parse(&command).map_err(de::Error::custom)?))
    });
    Ok(with_debian(versions.collect::<Result<_, D::Error>>()?))
}

fn some_label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Label>, D::Error> {
    some_label(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    // R159
    #[test]
    fn a_fresh_agent_observes() {
        let config: AgentConfig = toml::from_str("").unwrap();
        assert_eq!(config, AgentConfig::default());
        assert!(config.observe_only);
    }

    #[test]
    fn a_config_is_read() {
        let config: AgentConfig = toml::from_str(
            "observe_only = false\ntags = ['kiosk']\n\
             first_ring = 'pilot'\nreport_minutes = 5\n[[install]]\nkind = 'deb'\n\
             command = ['/usr/bin/dpkg', '--install', '{file}']\ndetect = ['/usr/lib/detect', '{file}']\n",
        )
        .unwrap();
        assert!(config.mistakes().is_empty());
        let deb = config.install(&"deb".parse().unwrap()).unwrap();
        assert_eq!(deb.run_max(), Duration::from_mins(30));
        assert_eq!(config.install(&"rpm".parse().unwrap()), None);
        assert_eq!(config.metered, None);
    }

    #[test]
    fn versions_of_debian_are_known_and_of_other_kinds_where_a_program_lists_them() {
        let config: AgentConfig =
            toml::from_str("metered = true\n[versions]\ntool = ['/usr/lib/list', '{x}']\n")
                .unwrap();
        let kinds: Vec<&str> = config.versions.keys().map(Label::as_str).collect();
        assert_eq!((kinds, config.metered), (vec!["deb", "tool"], Some(true)));
        let deb = &AgentConfig::default().versions[&"deb".parse().unwrap()];
        assert_eq!(deb.program, "/usr/bin/dpkg-query");
        for text in ["[versions]\ndeb = []\n", "[versions]\n'a b' = ['/x']\n", "versions = 1"] {
            toml::from_str::<AgentConfig>(text).unwrap_err();
        }
    }

    #[test]
    fn what_no_type_can_say_is_found() {
        let install = "[[install]]\nkind = 'deb'\ncommand = ['/x']\ndetect = ['/y']\n";
        let text = format!("report_minutes = 1441\n{install}{install}max_run_minutes = 10081\n");
        let config: AgentConfig = toml::from_str(&text).unwrap();
        let mistakes = config.mistakes();
        let paths: Vec<&str> = mistakes.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["report_minutes", "install[1].kind", "install[1].max_run_minutes"]);
        for text in ["[[install]]\nkind = 'deb'\ncommand = ['x']\ndetect = ['/y']\n", "tag = []"] {
            toml::from_str::<AgentConfig>(text).unwrap_err();
        }
    }
}

//! Sites: where devices are, which time they have, and what their networks cost. `sites/sites.json`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;

use crate::bounds::{ITEMS_MAX, NAMED_MAX};
use crate::order::{Body, Breach, Kind, RuleError, at_most, each, each_once};
use crate::text::{Line, list, one};

/// The sites of the organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// The sites.
    pub sites: Vec<Site>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name.
    #[serde(with = "one")]
    pub name: Label,
    /// Its time zone by its IANA name, such as `Europe/Berlin`. Never an offset: rules for the seasons come
    /// with the name.
    pub zone: Line,
    /// Its networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// The most that the site takes from its line, in kilobits a second. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan_kbit_per_second: Option<u64>,
    /// Where its nodes listen: `HOST:PORT`, or `[ADDRESS]:PORT` for IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub nodes: Vec<Line>,
}

/// A network of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its addresses, such as `10.3.0.0/16`; the bits beyond the prefix are 0.
    #[serde(with = "one")]
    pub cidr: IpNet,
    /// Who of it serves whom.
    #[serde(default)]
    pub peering: Peering,
    /// What a byte to or from it costs, relative to others: 0 is free.
    #[serde(default)]
    pub cost: u32,
}

/// Who of a network serves whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peering {
    /// Its devices serve all devices of the site.
    #[default]
    Site,
    /// Its devices serve each other.
    Network,
    /// Its devices serve nobody, as on a metered line or a guests' network.
    None,
}

impl Sites {
    /// Returns the site `name`.
    pub fn site(&self, name: &Label) -> Option<&Site> {
        self.sites.iter().find(|site| site.name == *name)
    }
}

impl Body for Sites {
    const KIND: Kind = Kind::Sites;

    fn rules(&self) -> Result<(), Breach> {
        at_most("sites", self.sites.len(), ITEMS_MAX)?;
        each_once("sites", self.sites.iter().map(|site| &site.name))?;
        each("sites", &self.sites, Site::rules)?;
        let networks = self.sites.iter().flat_map(|site| &site.networks);
        each_once("sites", networks.map(|network| network.cidr))
    }
}

impl Site {
    fn rules(&self) -> Result<(), Breach> {
        let demand = |field, demand| Breach::new(field, RuleError::Demand { demand });
        at_most("networks", self.networks.len(), NAMED_MAX)?;
        at_most("nodes", self.nodes.len(), NAMED_MAX)?;
        if !is_zone(self.zone.as_str()) {
            return Err(demand("zone", "a zone is an IANA name, such as Europe/Berlin"));
        }
        if self.wan_kbit_per_second == Some(0) {
            return Err(demand(
                "wan_kbit_per_second",
                "a line takes at least 1; leave it out for no limit",
            ));
        }
        each("networks", &self.networks, |network| {
            if network.cidr == network.cidr.trunc() {
                return Ok(());
            }
            Err(demand("cidr", "the bits beyond the prefix are 0"))
        })?;
        each("nodes", &self.nodes, |node| {
            let parts = node.as_str().rsplit_once(':');
            let is_address = parts.is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            if is_address && !node.as_str().contains(char::is_whitespace) {
                return Ok(());
            }
            Err(demand("address", "a node is written HOST:PORT"))
        })
    }
}

/// Returns whether a text has the form of a zone's IANA name. Whether there is such a zone is for a
/// database to say.
pub(crate) fn is_zone(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_uppercase())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'))
    };
    // `Etc/GMT+5` and `EST` have IANA names, and are offsets all the same.
    let is_offset = text.starts_with("Etc/") && text != "Etc/UTC";
    (text == "UTC" || text.contains('/')) && text.split('/').all(is_part) && !is_offset
}

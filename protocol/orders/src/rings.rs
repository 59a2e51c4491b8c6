//! Rings: in which order devices receive something. `rings/rings.json`.

use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;

use crate::bounds::{ITEMS_MAX, NAMED_MAX};
use crate::facts::Facts;
use crate::order::{Body, Breach, Kind, at_most, each, each_once};
use crate::rule::Rule;
use crate::text::{DeviceName, list, one};

/// The rings, the one that receives something first before the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rings {
    /// The rings. A device may be in several.
    pub rings: Vec<Ring>,
}

/// A ring: a device is in it that is pinned, or for which the rule holds, and that is not excluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Its name.
    #[serde(with = "one")]
    pub name: Label,
    /// Devices that are in it whatever the rule says.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub pins: Vec<DeviceName>,
    /// Devices that are not in it whatever the pins and the rule say.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub exclusions: Vec<DeviceName>,
    /// The devices for which this holds. Absent: those that are pinned alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

impl Rings {
    /// Returns whether a device is in the ring `name`, or `None` if it cannot be told: there is no such ring,
    /// or its rule has no answer.
    pub fn member(&self, name: &Label, facts: &Facts) -> Option<bool> {
        let position = self.position(name)?;
        if let Some(first) = &facts.first_ring {
            // A certificate that names a ring which is no more lets its device into none.
            let first = self.position(first);
            if first.is_none_or(|first| position < first) {
                return Some(false);
            }
        }
        let ring = &self.rings[position];
        if ring.exclusions.contains(&facts.device) {
            return Some(false);
        }
        if ring.pins.contains(&facts.device) {
            return Some(true);
        }
        ring.rule.as_ref().map_or(Some(false), |rule| rule.holds(facts).ok())
    }

    /// Returns the rings that a device is in, in their order.
    pub fn of(&self, facts: &Facts) -> Vec<&Label> {
        let names = self.rings.iter().map(|ring| &ring.name);
        names.filter(|name| self.member(name, facts) == Some(true)).collect()
    }

    fn position(&self, name: &Label) -> Option<usize> {
        self.rings.iter().position(|ring| ring.name == *name)
    }
}

impl Body for Rings {
    const KIND: Kind = Kind::Rings;

    fn rules(&self) -> Result<(), Breach> {
        at_most("rings", self.rings.len(), ITEMS_MAX)?;
        each_once("rings", self.rings.iter().map(|ring| &ring.name))?;
        each("rings", &self.rings, |ring| {
            at_most("pins", ring.pins.len(), NAMED_MAX)?;
            at_most("exclusions", ring.exclusions.len(), NAMED_MAX)
        })
    }
}

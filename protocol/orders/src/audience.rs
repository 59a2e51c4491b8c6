//! Whom an order is for: a ring, sites, devices, a rule. What is said has to hold together; what is
//! left out excludes nobody.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sutler_protocol::manifest::Delegation;
use sutler_protocol::name::Label;

use crate::bounds::NAMED_MAX;
use crate::facts::Facts;
use crate::order::{Breach, Kind, OrderError, at_most, from_value};
use crate::rings::Rings;
use crate::rule::Rule;
use crate::text::{DeviceName, list, maybe};

/// Whom an order is for. One that says nothing is for everybody that its document reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// The members of this ring.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub ring: Option<Label>,
    /// The devices of these sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub sites: Vec<Label>,
    /// These devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub devices: Vec<DeviceName>,
    /// The devices for which this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

/// The devices that a role reaches: those that every delegation on its way reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(Vec<Audience>);

/// Whether an order is for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is.
    In,
    /// It is not, because of this field of the audience.
    Out {
        /// `ring`, `sites`, `devices` or `rule`.
        field: &'static str,
    },
    /// It cannot be told, because of this field: a ring that nobody describes, a rule without an answer.
    /// What starts something takes it for a no, and what stops something for a yes.
    Unknown {
        /// `ring` or `rule`.
        field: &'static str,
    },
}

impl Audience {
    /// Returns whether a device belongs to it. `rings` are absent where none are known.
    pub fn member(&self, facts: &Facts, rings: Option<&Rings>) -> Membership {
        if !self.sites.is_empty() && !self.sites.contains(&facts.device.site) {
            return Membership::Out { field: "sites" };
        }
        if !self.devices.is_empty() && !self.devices.contains(&facts.device) {
            return Membership::Out { field: "devices" };
        }
        let ring = self.ring.as_ref().map(|ring| match rings {
            Some(rings) => rings.member(ring, facts),
            None => None,
        });
        let rule = self.rule.as_ref().map(|rule| rule.holds(facts).ok());
        // A plain no outweighs what cannot be told.
        for (field, answer) in [("ring", ring), ("rule", rule)] {
            if answer == Some(Some(false)) {
                return Membership::Out { field };
            }
        }
        for (field, answer) in [("ring", ring), ("rule", rule)] {
            if answer == Some(None) {
                return Membership::Unknown { field };
            }
        }
        Membership::In
    }

    /// Reads what a delegation says of the devices that its role reaches. One that says nothing reaches all
    /// devices of the organisation.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if it says something that cannot be read. Such a role reaches nobody.
    pub fn of_delegation(delegation: &Delegation) -> Result<Self, OrderError> {
        let value = delegation.extra.get("sutler");
        let value = value.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let audience: Self = from_value(Kind::Scope, value)?;
        audience.rules().map_err(|breach| breach.of(Kind::Scope))?;
        Ok(audience)
    }

    pub(crate) fn rules(&self) -> Result<(), Breach> {
        at_most("sites", self.sites.len(), NAMED_MAX)?;
        at_most("devices", self.devices.len(), NAMED_MAX)
    }

    /// Returns whether it excludes nobody.
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }
}

impl Reached {
    /// Returns whether the role reaches a device. `rings` are absent where none are known.
    pub fn member(&self, facts: &Facts, rings: Option<&Rings>) -> Membership {
        let mut answer = Membership::In;
        for audience in &self.0 {
            match audience.member(facts, rings) {
                // A plain no outweighs what cannot be told.
                Membership::Out { field } => return Membership::Out { field },
                unknown @ Membership::Unknown { .. } => answer = unknown,
                Membership::In => {}
            }
        }
        answer
    }

    /// Returns what has to hold of a device, where anything has to.
    pub fn audiences(&self) -> impl Iterator<Item = &Audience> {
        self.0.iter().filter(|audience| !audience.is_everybody())
    }
}

impl FromIterator<Audience> for Reached {
    fn from_iter<I: IntoIterator<Item = Audience>>(audiences: I) -> Self {
        Self(audiences.into_iter().collect())
    }
}

impl From<Audience> for Reached {
    fn from(audience: Audience) -> Self {
        Self(vec![audience])
    }
}

impl Membership {
    /// Returns whether an order that starts something is for the device.
    pub fn starts(&self) -> bool {
        *self == Self::In
    }

    /// Returns whether an order that stops something is for the device.
    pub fn stops(&self) -> bool {
        !matches!(self, Self::Out { .. })
    }
}

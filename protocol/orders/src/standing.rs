//! What silence approves in a scope: `approvals/SCOPE/standing.json`. There is none unless approvers sign it.
//!
//! A policy acts on a content when the veto period is over, a statement issued after it holds no denial, and
//! the content brings a higher version than the device has.

use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;

use crate::audience::Audience;
use crate::bounds::{HOURS_MAX, ITEMS_MAX};
use crate::content::{About, Severity};
use crate::order::{Body, Breach, Kind, at_most, each, each_once, in_order, within};
use crate::text::{Line, Utc, list, maybe, one};

/// What silence approves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The policies. Each for itself may approve.
    pub policies: Vec<StandingPolicy>,
}

/// One kind of content that silence approves for some devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingPolicy {
    /// Its name.
    #[serde(with = "one")]
    pub name: Label,
    /// The contents that it is about.
    #[serde(default, skip_serializing_if = "Subject::is_everything")]
    pub contents: Subject,
    /// Whom of the scope it is for. Absent: all.
    #[serde(default, rename = "for", skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// Hours in which an approver may deny, at least 1. They count from when the content was published, when this
    /// policy was signed, or when the device first saw the content in a statement, whichever is last.
    pub veto_hours: u32,
    /// Hours after those, in which the rings before this one have it.
    #[serde(default)]
    pub soak_hours: u32,
    /// The instant before which nothing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Utc>,
    /// The instant from which nothing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Utc>,
    /// The schedule, by its name in the scope's schedules. Absent: the one that the device's policy names.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub schedule: Option<Label>,
    /// Those who were asked and may deny, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub approvers: Vec<Line>,
    /// Who wrote it.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// Which contents. What is said has to hold together; what is left out excludes none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Of these vendors.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub vendors: Vec<Line>,
    /// Of these products.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub products: Vec<Line>,
    /// Of these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub kinds: Vec<Label>,
    /// Of these severities.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub severities: Vec<Severity>,
}

impl Subject {
    /// Returns whether a content is one of them.
    pub fn has(&self, about: &About) -> bool {
        let among = |list: &[Line], one: Option<&Line>| {
            list.is_empty() || one.is_some_and(|one| list.contains(one))
        };
        among(&self.vendors, about.vendor.as_ref())
            && among(&self.products, about.product.as_ref())
            && (self.kinds.is_empty() || self.kinds.contains(&about.kind))
            && (self.severities.is_empty() || self.severities.contains(&about.severity))
    }

    /// Returns whether it excludes none.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Body for Standing {
    const KIND: Kind = Kind::Standing;

    fn rules(&self) -> Result<(), Breach> {
        at_most("policies", self.policies.len(), ITEMS_MAX)?;
        each_once("policies", self.policies.iter().map(|policy| &policy.name))?;
        each("policies", &self.policies, |policy| {
            policy.audience.rules().map_err(|breach| breach.below("for"))?;
            for (field, list) in [
                ("contents.vendors", policy.contents.vendors.len()),
                ("contents.products", policy.contents.products.len()),
                ("contents.kinds", policy.contents.kinds.len()),
                ("contents.severities", policy.contents.severities.len()),
                ("approvers", policy.approvers.len()),
            ] {
                at_most(field, list, ITEMS_MAX)?;
            }
            within("veto_hours", policy.veto_hours, 1..=u64::from(HOURS_MAX))?;
            within("soak_hours", policy.soak_hours, 0..=u64::from(HOURS_MAX))?;
            in_order(policy.not_before, policy.not_after)
        })
    }
}

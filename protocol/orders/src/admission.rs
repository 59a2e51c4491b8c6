//! Who is let in no longer: `admission/revocations.json`.

use serde::{Deserialize, Serialize};
use sutler_protocol::name::PeerName;

use crate::bounds::ITEMS_MAX;
use crate::order::{Body, Breach, Kind, at_most, each_once};
use crate::text::{Line, Utc, one};

/// The members whose certificates count no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// The revocations.
    pub revocations: Vec<Revocation>,
}

/// A member whose certificates count no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The member, by the URI of its certificates: `spiffe://ORG/site/S/agent/ID`.
    #[serde(with = "one")]
    pub member: PeerName,
    /// Certificates count that begin to be valid at this instant or later: a machine that was replaced goes on
    /// under its name. Absent: none counts, ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Utc>,
    /// Who revoked it.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

impl Revocations {
    /// Returns the revocation of a certificate of `member` that begins to be valid at `not_before`, if there
    /// is one.
    pub fn of(&self, member: &PeerName, not_before: jiff::Timestamp) -> Option<&Revocation> {
        self.revocations.iter().find(|revocation| {
            revocation.member == *member
                && revocation.until.is_none_or(|until| not_before < until.instant())
        })
    }
}

impl Body for Revocations {
    const KIND: Kind = Kind::Revocations;

    fn rules(&self) -> Result<(), Breach> {
        at_most("revocations", self.revocations.len(), ITEMS_MAX)?;
        let members = self.revocations.iter().map(|revocation| revocation.member.to_string());
        each_once("revocations", members)
    }
}

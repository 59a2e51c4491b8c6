//! What control stops for now: `halts/halts.json`, signed with an online key.
//!
//! A halt lapses after 72 hours unless an approver countersigns it, and an approver's `resumed` outranks it: whoever
//! steals the online key can stop things for three days, or until an approver says otherwise (T30).

use serde::{Deserialize, Serialize};
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use crate::audience::Audience;
use crate::bounds::{CONTENTS_MAX, HALT_HOURS, ITEMS_MAX};
use crate::order::{Body, Breach, Kind, at_most, each, each_once};
use crate::text::{Line, Utc, list, one};

/// The halts of control.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halts {
    /// The halts.
    pub halts: Vec<Halt>,
}

/// One halt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// Its id, which approvers countersign it by.
    #[serde(with = "one")]
    pub id: Label,
    /// The contents that are not to be installed. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub contents: Vec<ContentId>,
    /// Whom of the organisation it is for. Absent: all.
    #[serde(default, rename = "for", skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// Since when it holds.
    pub at: Utc,
    /// Who halted.
    pub by: Line,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

impl Halt {
    /// Returns when it lapses, unless an approver countersigns it.
    pub fn lapses(&self) -> Utc {
        self.at.plus_hours(HALT_HOURS)
    }

    /// Returns whether it is about a content.
    pub fn is_about(&self, content: ContentId) -> bool {
        self.contents.is_empty() || self.contents.contains(&content)
    }
}

impl Body for Halts {
    const KIND: Kind = Kind::Halts;

    fn rules(&self) -> Result<(), Breach> {
        at_most("halts", self.halts.len(), ITEMS_MAX)?;
        each_once("halts", self.halts.iter().map(|halt| &halt.id))?;
        each("halts", &self.halts, |halt| {
            at_most("contents", halt.contents.len(), CONTENTS_MAX)?;
            halt.audience.rules().map_err(|breach| breach.below("for"))
        })
    }
}

//! Decisions of a scope's approvers: `approvals/SCOPE/approvals.json`.
//!
//! An item is about exactly the bytes that it names in three ways, because the import key, which says what
//! a content is, must not be able to put others in their place. For the same reason it repeats what
//! decides how the bytes are handled: `kind`, `hooks`, and the two flags that let it bypass a window.

use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;
use sutler_protocol::{ContentId, Sha256Digest};

use crate::audience::Audience;
use crate::bounds::{CONTENTS_MAX, ITEMS_MAX};
use crate::content::{Bytes, Hooks};
use crate::order::{Body, Breach, Kind, RuleError, at_most, each, each_once, in_order};
use crate::text::{Line, Utc, is_false, list, maybe, one, sha256};

/// What the approvers of a scope have decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// The decisions. A pause or denial among them outranks every approval, wherever it stands.
    pub items: Vec<Item>,
    /// Halts of control that hold beyond their 72 hours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countersigned: Vec<Countersigned>,
    /// What goes on although control halts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Resumed>,
    /// Ids of free-standing denials that hold no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub withdrawn: Vec<Label>,
}

/// One decision about one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What was decided.
    pub action: Action,
    /// BLAKE3 of the bytes, in 64 hex digits.
    #[serde(with = "one")]
    pub blake3: ContentId,
    /// SHA-256 of the bytes, in 64 hex digits.
    #[serde(with = "sha256")]
    pub sha256: Sha256Digest,
    /// How many bytes there are.
    pub length: u64,
    /// The content's name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Line>,
    /// The content's kind. An approval says it, and has to agree.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub kind: Option<Label>,
    /// The content's hooks. An approval's have to agree.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Whether the approver, too, says that it never wants a restart.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_restart: bool,
    /// Whether the approver, too, says that nothing stops meanwhile.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_interruption: bool,
    /// Whom of the scope it is for. Absent: all.
    #[serde(default, rename = "for", skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// The instant before which nothing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Utc>,
    /// The instant from which nothing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Utc>,
    /// The schedule, by its name in the scope's schedules. Absent: the one that the device's policy names.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub schedule: Option<Label>,
    /// Whether it starts at once, outside of every window.
    #[serde(default, skip_serializing_if = "is_false")]
    pub patch_now: bool,
    /// Who decided.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// What was decided about a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Install it.
    Install,
    /// Do not, for now: what is staged stays.
    Pause,
    /// Do not.
    Deny,
}

/// A halt of control that an approver holds up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Countersigned {
    /// The halt's id.
    #[serde(with = "one")]
    pub halt: Label,
    /// Who holds it up.
    pub by: Line,
    /// Since when.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// What goes on although control halts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// The contents. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub contents: Vec<ContentId>,
    /// Until when: a later halt of control's counts again from then on.
    pub until: Utc,
    /// Who says so.
    pub by: Line,
    /// Since when. A halt that an approver countersigned after it still counts.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

impl Item {
    /// Returns the bytes that the decision is about.
    pub fn bytes(&self) -> Bytes {
        Bytes { blake3: self.blake3, sha256: self.sha256, length: self.length }
    }

    fn rules(&self) -> Result<(), Breach> {
        let refuse = |field, demand| Err(Breach::new(field, RuleError::Demand { demand }));
        self.audience.rules().map_err(|breach| breach.below("for"))?;
        self.hooks.rules().map_err(|breach| breach.below("hooks"))?;
        in_order(self.not_before, self.not_after)?;
        if self.action == Action::Install && self.kind.is_none() {
            return refuse("kind", "an approval repeats the content's kind");
        }
        if self.action == Action::Install {
            return Ok(());
        }
        // A stop that begins later or ends by itself is one that a device with a wrong clock passes over.
        let is_timed = self.not_before.is_some() || self.not_after.is_some();
        if is_timed || self.schedule.is_some() || self.patch_now {
            return refuse(
                "action",
                "not_before, not_after, schedule and patch_now are for install",
            );
        }
        Ok(())
    }
}

impl Action {
    /// Returns the action's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Pause => "pause",
            Self::Deny => "deny",
        }
    }
}

impl Body for Approvals {
    const KIND: Kind = Kind::Approvals;

    fn rules(&self) -> Result<(), Breach> {
        at_most("items", self.items.len(), ITEMS_MAX)?;
        at_most("countersigned", self.countersigned.len(), ITEMS_MAX)?;
        at_most("resumed", self.resumed.len(), ITEMS_MAX)?;
        at_most("withdrawn", self.withdrawn.len(), ITEMS_MAX)?;
        each("items", &self.items, Item::rules)?;
        each_once("countersigned", self.countersigned.iter().map(|one| &one.halt))?;
        each("resumed", &self.resumed, |resumed| {
            at_most("contents", resumed.contents.len(), CONTENTS_MAX)?;
            if resumed.until > resumed.at {
                return Ok(());
            }
            Err(Breach::new("until", RuleError::NotLater { before: "at" }))
        })
    }
}

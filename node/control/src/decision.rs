//! What approvers decide about contents, and how their decisions become items of an approvals file. Pure.

use sutler_orders::Content;
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::audience::Audience;
use sutler_orders::text::{Line, Utc};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::RoleName;
use sutler_protocol::name::Label;

use crate::change::{Change, ChangeError};
use crate::state::State;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be installed, in its window.
    Install,
    /// At once, outside of every window.
    PatchNow,
    /// Not for now.
    Pause,
    /// Not at all.
    Deny,
    /// What paused or denied it no longer does.
    Resume,
}

/// A decision of a scope's approvers.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What is decided.
    pub verdict: Verdict,
    /// Whose approvers decide.
    pub scope: Label,
    /// For whom of the scope.
    pub audience: Audience,
    /// Nothing starts before it.
    pub not_before: Option<Utc>,
    /// Nothing starts from it on.
    pub not_after: Option<Utc>,
    /// When it starts.
    pub schedule: Option<Label>,
}

/// Why a decision cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// Nothing of that name is published.
    #[error("find {what:?} among what is published")]
    Unknown {
        /// What was named.
        what: String,
    },
    /// A name that several contents have.
    #[error("{what:?} is the name of {count} contents; name one by its BLAKE3")]
    Ambiguous {
        /// What was named.
        what: String,
        /// How many there are.
        count: usize,
    },
    /// Nothing paused or denied it.
    #[error("resume {name}: the scope {scope} has neither paused nor denied it")]
    NothingToResume {
        /// The content.
        name: Line,
        /// The scope.
        scope: Label,
    },
    /// The change cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Verdict {
    /// Returns the verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "approve",
            Self::PatchNow => "patch-now",
            Self::Pause => "pause",
            Self::Deny => "deny",
            Self::Resume => "resume",
        }
    }
}

/// Returns the published contents that are meant: each by its BLAKE3, its name, or a weakness that it mends. A
/// weakness means all that mend it.
///
/// # Errors
///
/// [`DecideError::Unknown`] or [`DecideError::Ambiguous`].
pub fn contents(state: &State, named: &[String]) -> Result<Vec<Content>, DecideError> {
    let mut found: Vec<Content> = Vec::new();
    let all: Vec<Content> =
        state.contents().filter_map(|(path, file)| Content::of(&path, file).ok()).collect();
    for what in named {
        let id = what.parse::<ContentId>().ok();
        let is_cve = what.starts_with("CVE-");
        let is_meant = |content: &&Content| {
            id == Some(content.bytes.blake3)
                || content.about.name.as_str() == what
                || content.about.cve.iter().any(|cve| cve.as_str() == what)
        };
        let mut meant: Vec<&Content> = all.iter().filter(is_meant).collect();
        // One content that was published in two months is one.
        meant.dedup_by_key(|content| content.bytes);
        match meant.len() {
            0 => return Err(DecideError::Unknown { what: what.clone() }),
            1 => {}
            _ if is_cve => {}
            count => return Err(DecideError::Ambiguous { what: what.clone(), count }),
        }
        for content in meant {
            if found.iter().all(|other| other.bytes != content.bytes) {
                found.push(content.clone());
            }
        }
    }
    Ok(found)
}

impl Decision {
    /// Puts the decision into the scope's approvals.
    ///
    /// # Errors
    ///
    /// [`DecideError`].
    pub fn apply(&self, change: &mut Change<'_>, contents: &[Content]) -> Result<(), DecideError> {
        let note = change.note().clone();
        change.order::<Approvals, DecideError>(Some(&self.scope), |approvals| {
            for content in contents {
                let is_about =
                    |item: &Item| item.bytes() == content.bytes && item.audience == self.audience;
                let stops = |item: &Item| item.action != Action::Install && is_about(item);
                if self.verdict == Verdict::Resume {
                    let before = approvals.items.len();
                    approvals.items.retain(|item| !stops(item));
                    if approvals.items.len() == before {
                        let (name, scope) = (content.about.name.clone(), self.scope.clone());
                        return Err(DecideError::NothingToResume { name, scope });
                    }
                    continue;
                }
                let action = match self.verdict {
                    Verdict::Pause => Action::Pause,
                    Verdict::Deny => Action::Deny,
                    _ => Action::Install,
                };
                // The same said again replaces what was said; a stop stays beside an approval, and outranks it.
                approvals.items.retain(|item| !(item.action == action && is_about(item)));
                let installs = action == Action::Install;
                approvals.items.push(Item {
                    action,
                    blake3: content.bytes.blake3,
                    sha256: content.bytes.sha256,
                    length: content.bytes.length,
                    name: Some(content.about.name.clone()),
                    kind: installs.then(|| content.about.kind.clone()),
                    hooks: content.about.hooks.clone(),
                    no_restart: installs && content.about.no_restart,
                    no_interruption: installs && content.about.no_interruption,
                    audience: self.audience.clone(),
                    not_before: self.not_before,
                    not_after: self.not_after,
                    schedule: self.schedule.clone(),
                    patch_now: self.verdict == Verdict::PatchNow,
                    by: note.by.clone(),
                    at: note.at,
                    reason: note.reason.clone(),
                });
            }
            Ok(())
        })
    }

    /// Returns what an approver has to see before signing: each content with its bytes, and whom it is for.
    pub fn said(&self, state: &State, contents: &[Content]) -> Vec<String> {
        let mut said: Vec<String> = contents
            .iter()
            .map(|content| {
                let (verb, about) = (self.verdict.as_str(), &content.about);
                format!(
                    "{verb} {}, {} bytes, severity {}",
                    about.name, content.bytes.length, about.severity
                )
            })
            .collect();
        let role = RoleName::delegated(&format!("approvals-{}", self.scope));
        let mandate = role.and_then(|role| state.mandates().of(&role));
        let covers = mandate.and_then(|mandate| mandate.reaches().ok()).unwrap_or_default();
        let covers: Vec<String> = covers.audiences().map(text).collect();
        let covers =
            if covers.is_empty() { "every device".to_owned() } else { covers.join(" and ") };
        said.push(format!("scope {}: {covers}", self.scope));
        if !self.audience.is_everybody() {
            said.push(format!("of these only {}", text(&self.audience)));
        }
        said
    }
}

fn text(audience: &Audience) -> String {
    serde_json::to_string(audience).expect("names and rules are JSON")
}

//! Control's halts, and what a scope's approvers say about them: that one holds beyond its 72 hours, or that contents
//! go on whatever control halts. Pure.
//!
//! A halt is signed with an online key, so it ends by itself (T30). What approvers say is part of their scope's
//! approvals, and signed by them. A countersigned halt is still control's, and holds for as long as control names it;
//! what has to hold whatever control does is paused or denied.

use std::collections::BTreeSet;

use sutler_orders::Content;
use sutler_orders::approvals::{Approvals, Countersigned, Resumed};
use sutler_orders::halts::{Halt, Halts};
use sutler_orders::order::{Body as _, Order};
use sutler_orders::text::Utc;
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::change::{Change, ChangeError};
use crate::state::State;

/// Why approvers cannot say it.
#[derive(Debug, thiserror::Error)]
pub enum HaltingError {
    /// Control has not halted anything by that id.
    #[error("countersign {halt}: control has published no halt of that id{}", list(known))]
    Unknown {
        /// What was named.
        halt: Label,
        /// The ids that there are.
        known: Vec<Label>,
    },
    /// It would end before it begins.
    #[error("let contents go on until {until}: that has passed")]
    Over {
        /// Until when.
        until: Utc,
    },
    /// The change cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Returns the halts that control has published.
///
/// # Errors
///
/// [`ChangeError::Published`] if they cannot be read.
pub fn halts(state: &State) -> Result<Vec<Halt>, ChangeError> {
    let kind = Halts::KIND;
    let Some((_, path)) = kind.target(None) else { return Ok(Vec::new()) };
    let Some(bytes) = state.orders.get(&TargetPath::from(path.as_str())) else {
        return Ok(Vec::new());
    };
    let order = Order::<Halts>::read(bytes);
    order.map(|order| order.body.halts).map_err(|source| ChangeError::Published { kind, source })
}

/// Adds a halt to those of control. What has lapsed goes, unless an approver has countersigned it.
///
/// # Errors
///
/// [`ChangeError`].
pub fn add(state: &State, change: &mut Change<'_>, halt: Halt) -> Result<(), ChangeError> {
    let countersigned = countersigned(state)?;
    change.order::<Halts, ChangeError>(None, |halts| {
        halts.halts.retain(|old| old.lapses() > halt.at || countersigned.contains(&old.id));
        halts.halts.push(halt);
        Ok(())
    })
}

/// Returns the halts that approvers of any scope hold up.
fn countersigned(state: &State) -> Result<BTreeSet<Label>, ChangeError> {
    let mut found = BTreeSet::new();
    for (path, bytes) in &state.orders {
        if !path.as_str().starts_with("approvals/") || !path.as_str().ends_with("/approvals.json") {
            continue;
        }
        let order = Order::<Approvals>::read(bytes);
        let order =
            order.map_err(|source| ChangeError::Published { kind: Approvals::KIND, source })?;
        found.extend(order.body.countersigned.into_iter().map(|one| one.halt));
    }
    Ok(found)
}

/// Puts into a scope's approvals that a halt holds beyond its 72 hours, and returns the halt.
///
/// # Errors
///
/// [`HaltingError`].
pub fn countersign(
    state: &State,
    change: &mut Change<'_>,
    scope: &Label,
    id: &Label,
) -> Result<Halt, HaltingError> {
    let halts = halts(state)?;
    let Some(halt) = halts.iter().find(|halt| halt.id == *id) else {
        let known = halts.into_iter().map(|halt| halt.id).collect();
        return Err(HaltingError::Unknown { halt: id.clone(), known });
    };
    let note = change.note().clone();
    change.order::<Approvals, HaltingError>(Some(scope), |approvals| {
        approvals.countersigned.retain(|other| other.halt != *id);
        approvals.countersigned.push(Countersigned {
            halt: id.clone(),
            by: note.by.clone(),
            at: note.at,
            reason: note.reason.clone(),
        });
        Ok(())
    })?;
    Ok(halt.clone())
}

/// Puts into a scope's approvals that contents go on until an instant, whatever control halts; all of them if none is
/// named. What of it was over before goes.
///
/// # Errors
///
/// [`HaltingError`].
pub fn resume(
    change: &mut Change<'_>,
    scope: &Label,
    contents: &[Content],
    until: Utc,
) -> Result<(), HaltingError> {
    let note = change.note().clone();
    if until <= note.at {
        return Err(HaltingError::Over { until });
    }
    change.order::<Approvals, HaltingError>(Some(scope), |approvals| {
        approvals.resumed.retain(|other| other.until > note.at);
        approvals.resumed.push(Resumed {
            contents: contents.iter().map(|content| content.bytes.blake3).collect(),
            until,
            by: note.by.clone(),
            at: note.at,
            reason: note.reason.clone(),
        });
        Ok(())
    })
}

fn list(known: &[Label]) -> String {
    if known.is_empty() {
        return String::new();
    }
    let known: Vec<&str> = known.iter().map(Label::as_str).collect();
    format!("; there are {}", known.join(", "))
}

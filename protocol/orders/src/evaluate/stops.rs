//! What stops a content whoever approved it: halts and pauses, then denials.

use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use super::{Asked, Gates, Stopped};
use crate::answer::{GateName, Reason};
use crate::approvals::{Action, Approvals, Item, Resumed};
use crate::denial::BelievedDenial;
use crate::halts::Halt;
use crate::order::Order;
use crate::vouched::{Scope, Vouched};

impl Asked<'_> {
    /// Asks whether a content is halted, paused or denied.
    pub(super) fn stops(&self, id: ContentId, gates: &mut Gates) -> Result<(), Stopped> {
        let halt = match self.halted(id) {
            Some(input) => Err((Reason::Halted, input)),
            None => Ok("nothing halts it".to_owned()),
        };
        gates.ask(GateName::Halt, halt)?;
        let denial = match self.denied(id) {
            Some(input) => Err((Reason::Denied, input)),
            None => Ok("nobody denies it".to_owned()),
        };
        gates.ask(GateName::Denial, denial)
    }

    fn halted(&self, id: ContentId) -> Option<String> {
        let halts = self.orders.halts.as_ref();
        let halts = halts.map(|halts| halts.document().body.halts.as_slice()).unwrap_or_default();
        let halt = halts.iter().find_map(|halt| self.holds(halt, id));
        halt.or_else(|| {
            let (scope, item) = self.item(id, Action::Pause)?;
            Some(format!("{} paused it in scope {} on {}", item.by, scope.name, item.at))
        })
    }

    /// Returns how a halt holds a content up, if it does.
    fn holds(&self, halt: &Halt, id: ContentId) -> Option<String> {
        let has_begun = halt.at.instant() <= self.latest;
        let is_mine = halt.audience.member(self.facts, self.rings).stops();
        if !halt.is_about(id) || !has_begun || !is_mine {
            return None;
        }
        // Whoever may countersign is told by the device's own scopes alone.
        let countersigned = self
            .reaching()
            .flat_map(|(_, approvals)| &approvals.body.countersigned)
            .filter(|countersigned| countersigned.halt == halt.id)
            .map(|countersigned| countersigned.at)
            .max();
        if countersigned.is_none() && self.has_passed(halt.lapses().instant()) {
            return None;
        }
        let is_resumed = self.resuming().any(|resumed| {
            let is_about = resumed.contents.is_empty() || resumed.contents.contains(&id);
            let is_newer = countersigned.is_none_or(|at| at <= resumed.at);
            is_about && is_newer && self.latest < resumed.until.instant()
        });
        if is_resumed {
            return None;
        }
        let until = match countersigned {
            Some(_) => "an approver has countersigned it".to_owned(),
            None => format!("until {} unless an approver countersigns it", halt.lapses()),
        };
        Some(format!("{} halted it on {} as {}, {until}", halt.by, halt.at, halt.id))
    }

    fn denied(&self, id: ContentId) -> Option<String> {
        if let Some((scope, item)) = self.item(id, Action::Deny) {
            return Some(format!("{} denied it in scope {} on {}", item.by, scope.name, item.at));
        }
        let denials = self.orders.denials.iter().map(BelievedDenial::denial);
        denials
            .filter(|denial| denial.organisation == self.facts.organisation)
            .filter(|denial| denial.contents.contains(&id))
            .find(|denial| {
                let scope = self.orders.scopes.iter().find(|scope| scope.name == denial.scope);
                scope.is_some_and(|scope| {
                    scope.reach.member(self.facts, self.rings).stops()
                        && denial.audience.member(self.facts, self.rings).stops()
                        && !self.is_withdrawn(scope, &denial.id)
                })
            })
            .map(|denial| {
                let (by, scope, issued) = (&denial.by, &denial.scope, denial.issued);
                format!("{by} denied it in scope {scope} on {issued}, as {}", denial.id)
            })
    }

    fn is_withdrawn(&self, scope: &Scope, id: &Label) -> bool {
        let approvals = scope.approvals.as_ref().map(Vouched::document);
        approvals.is_some_and(|approvals| {
            self.has_passed(approvals.head.issued.instant())
                && approvals.body.withdrawn.contains(id)
        })
    }

    /// Returns the first item of a stopping kind that is about a content and may be for this device.
    fn item(&self, id: ContentId, action: Action) -> Option<(&Scope, &Item)> {
        let actions = [action];
        self.items(id, &actions)
            .find(|(_, item)| item.audience.member(self.facts, self.rings).stops())
    }

    /// Returns the approvals of the scopes that may reach this device.
    fn reaching(&self) -> impl Iterator<Item = (&Scope, &Order<Approvals>)> {
        let scopes = self.orders.scopes.iter();
        scopes
            .filter(|scope| scope.reach.member(self.facts, self.rings).stops())
            .filter_map(|scope| Some((scope, scope.approvals.as_ref()?.document())))
    }

    /// Returns what approvers who reach this device let go on.
    fn resuming(&self) -> impl Iterator<Item = &Resumed> {
        self.reaching()
            .filter(|(scope, approvals)| {
                scope.reach.member(self.facts, self.rings).starts()
                    && self.has_passed(approvals.head.issued.instant())
            })
            .flat_map(|(_, approvals)| &approvals.body.resumed)
    }
}

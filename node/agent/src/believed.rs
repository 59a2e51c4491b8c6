//! The orders that this device believes, put together from a verified manifest.
//!
//! Pure. A file that cannot be read, or that is older than one that was obeyed (T12), is told and left out; what
//! was believed before stays in its place, because what it stops must not start when somebody breaks a file.

use std::collections::BTreeMap;

use sutler_orders::audience::Reached;
use sutler_orders::denial::BelievedDenial;
use sutler_orders::mandate::{self, Mandate};
use sutler_orders::order::Place;
use sutler_orders::vouched::{Orders, Scope, Statement, VouchError, Vouched};
use sutler_orders::{Body, Order};
use sutler_protocol::manifest::{Delegations, Expires, RoleName, TargetPath};
use sutler_protocol::name::{Label, Organisation};
use sutler_swarm::orders::Manifest;

use crate::said;
use crate::state::State;

/// What is believed, and what is not.
#[derive(Clone, Debug, Default)]
pub struct Believed {
    /// The orders.
    pub orders: Orders,
    /// The `seq` of each order file that is obeyed, by its path.
    pub seqs: BTreeMap<String, u64>,
    /// What was left out, each with the reason.
    pub refused: Vec<String>,
}

/// Puts together what `manifest` says. `before` is what was believed until now.
pub fn believe(
    manifest: &Manifest,
    denials: Vec<BelievedDenial>,
    organisation: &Organisation,
    state: &State,
    before: &Orders,
) -> Believed {
    let mut reader =
        Reader { manifest, organisation, state, seqs: BTreeMap::new(), refused: Vec::new() };
    let mut orders = Orders {
        contents: Vec::new(),
        scopes: Vec::new(),
        sites: reader.file(None, before.sites.as_ref()),
        rings: reader.file(None, before.rings.as_ref()),
        halts: reader.file(None, before.halts.as_ref()),
        denials,
    };
    let delegations = manifest.roles.targets().delegations.as_ref();
    for delegated in delegations.into_iter().flat_map(Delegations::all) {
        if delegated.role.as_str().starts_with("content-")
            && let Some(role) = manifest.roles.role_of(&delegated.role, &delegated.keys)
        {
            let (contents, errors) = Vouched::contents(role);
            orders.contents.extend(contents);
            reader.refused.extend(errors.iter().map(|error| said(error)));
        }
    }
    let mandates = manifest.mandates();
    for (scope, approvals) in mandates.scopes() {
        let known = before.scopes.iter().find(|known| known.name == scope);
        let Some(approvals) = approvals else {
            // Told with the roles that are refused: its directorate is one of them.
            orders.scopes.extend(known.cloned());
            continue;
        };
        let [_, (schedules, _)] = mandate::signers(&scope);
        let schedules = mandates.of(&schedules);
        orders.scopes.extend(reader.scope(scope, approvals, schedules, known));
    }
    let refused = manifest.roles.refused();
    reader.refused.extend(refused.map(|(role, fault)| format!("role {}: {fault}", role.as_str())));
    let Reader { seqs, refused, .. } = reader;
    Believed { orders, seqs, refused }
}

/// Returns what the newest timestamp states, if it says when it was made.
pub fn statement(manifest: &Manifest) -> Option<Statement> {
    let statement = &manifest.statement;
    Some(Statement { issued: statement.issued?, expires: statement.expires.instant() })
}

struct Reader<'a> {
    manifest: &'a Manifest,
    organisation: &'a Organisation,
    state: &'a State,
    seqs: BTreeMap<String, u64>,
    refused: Vec<String>,
}

impl Reader<'_> {
    /// Reads the orders of one scope, or returns those of before where it cannot be told whom it reaches.
    fn scope(
        &mut self,
        name: Label,
        approvals: Mandate<'_>,
        schedules: Option<Mandate<'_>>,
        before: Option<&Scope>,
    ) -> Option<Scope> {
        let schedules_reach =
            schedules.map_or_else(|| Some(Reached::default()), |one| self.reach(&one));
        let (Some(reach), Some(schedules_reach)) = (self.reach(&approvals), schedules_reach) else {
            return before.cloned();
        };
        let of = Some(&name);
        let until =
            [Some(&approvals), schedules.as_ref()].map(|one| one.and_then(Mandate::expires));
        let [approvals, schedules] = until;
        Some(Scope {
            approvals: self.scoped(
                of,
                approvals,
                before.and_then(|known| known.approvals.as_ref()),
            ),
            standing: self.scoped(of, approvals, before.and_then(|known| known.standing.as_ref())),
            policies: self.scoped(of, schedules, before.and_then(|known| known.policies.as_ref())),
            schedules: self.scoped(
                of,
                schedules,
                before.and_then(|known| known.schedules.as_ref()),
            ),
            reach,
            schedules_reach,
            name,
        })
    }

    /// Reads an order file of a scope, which holds no longer than its role's mandate.
    fn scoped<B: Body + Clone>(
        &mut self,
        scope: Option<&Label>,
        until: Option<Expires>,
        before: Option<&Vouched<Order<B>>>,
    ) -> Option<Vouched<Order<B>>> {
        self.file(scope, before).map(|file| file.at_most_until(until))
    }

    fn reach(&mut self, mandate: &Mandate<'_>) -> Option<Reached> {
        match mandate.reaches() {
            Ok(reached) => Some(reached),
            Err(error) => {
                self.refused.push(format!("role {}: {}", mandate.role(), said(&error)));
                None
            }
        }
    }

    /// Reads an order file, or returns the one of before where this one is not believed.
    fn file<B: Body + Clone>(
        &mut self,
        scope: Option<&Label>,
        before: Option<&Vouched<Order<B>>>,
    ) -> Option<Vouched<Order<B>>> {
        let (role, text) = B::KIND.target(scope)?;
        let (role, path) = (RoleName::delegated(&role)?, TargetPath::from(text.as_str()));
        let Some(believed) = self.manifest.roles.role(&role) else {
            // Told with the roles that are refused, unless nobody has signed for it yet.
            return before.cloned();
        };
        believed.file(&path)?;
        let read = self.read(&role, &path, scope);
        match read {
            Ok(order) => {
                self.seqs.insert(text, order.document().head.seq);
                Some(order)
            }
            Err(error) => {
                self.refused.push(error);
                before.cloned()
            }
        }
    }

    fn read<B: Body>(
        &self,
        role: &RoleName,
        path: &TargetPath,
        scope: Option<&Label>,
    ) -> Result<Vouched<Order<B>>, String> {
        let lacks = |what: &str| format!("{}: {what}", path.as_str());
        let found = self.manifest.roles.find(path).map_err(|error| lacks(&said(&error)))?;
        // Another role that names the file first is the one that decides, and not the one that may.
        if found.is_none_or(|found| found.role != *role) {
            return Err(lacks("another role answers for it"));
        }
        let believed = self.manifest.roles.role(role).ok_or_else(|| lacks("its role is gone"))?;
        let bytes = self.manifest.files.get(path).ok_or_else(|| lacks("it is not here"))?;
        let floor = self.state.seqs.get(path.as_str()).copied().unwrap_or_default();
        let place = Place { organisation: self.organisation, scope };
        let order = Vouched::order(believed, path, bytes, place, floor);
        order.map_err(|error: VouchError| said(&error))
    }
}

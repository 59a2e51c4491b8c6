//! The orders that this device believes, put together from a verified manifest.
//!
//! Pure. A file that cannot be read, or that is older than one that was obeyed (T12), is told and left out; what
//! was believed before stays in its place, because what it stops must not start when somebody breaks a file.

use std::collections::BTreeMap;

use sutler_orders::audience::Audience;
use sutler_orders::denial::BelievedDenial;
use sutler_orders::order::Place;
use sutler_orders::vouched::{Orders, Scope, Statement, VouchError, Vouched};
use sutler_orders::{Body, Order};
use sutler_protocol::manifest::{Delegation, RoleName, Roles, TargetPath};
use sutler_protocol::name::{Label, Organisation};
use sutler_swarm::orders::Manifest;

use crate::said;
use crate::state::State;

const APPROVALS: &str = "approvals-";
const SCHEDULES: &str = "schedules-";

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
    for delegation in delegations(&manifest.roles) {
        let name = delegation.name.as_str();
        if name.starts_with("content-")
            && let Some(role) = manifest.roles.role(&delegation.name)
        {
            let (contents, errors) = Vouched::contents(role);
            orders.contents.extend(contents);
            reader.refused.extend(errors.iter().map(|error| said(error)));
        }
        if let Some(Ok(scope)) = name.strip_prefix(APPROVALS).map(str::parse::<Label>) {
            let known = before.scopes.iter().find(|known| known.name == scope);
            orders.scopes.extend(reader.scope(scope, delegation, known));
        }
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

fn delegations(roles: &Roles) -> &[Delegation] {
    let delegations = roles.targets().delegations.as_ref();
    delegations.and_then(|delegations| delegations.roles.as_deref()).unwrap_or_default()
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
        delegation: &Delegation,
        before: Option<&Scope>,
    ) -> Option<Scope> {
        let schedules = RoleName::delegated(&format!("{SCHEDULES}{name}"));
        let schedules = delegations(&self.manifest.roles)
            .iter()
            .find(|delegation| Some(&delegation.name) == schedules.as_ref());
        let schedules_reach =
            schedules.map_or_else(|| Some(Audience::default()), |one| self.reach(one));
        let (Some(reach), Some(schedules_reach)) = (self.reach(delegation), schedules_reach) else {
            return before.cloned();
        };
        let of = Some(&name);
        Some(Scope {
            approvals: self.file(of, before.and_then(|before| before.approvals.as_ref())),
            standing: self.file(of, before.and_then(|before| before.standing.as_ref())),
            policies: self.file(of, before.and_then(|before| before.policies.as_ref())),
            schedules: self.file(of, before.and_then(|before| before.schedules.as_ref())),
            reach,
            schedules_reach,
            name,
        })
    }

    fn reach(&mut self, delegation: &Delegation) -> Option<Audience> {
        match Audience::of_delegation(delegation) {
            Ok(audience) => Some(audience),
            Err(error) => {
                self.refused.push(format!("role {}: {}", delegation.name.as_str(), said(&error)));
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

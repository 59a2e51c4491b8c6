//! What a device should answer, as far as control can tell: the devices' own evaluation, of what is published and of what
//! the device said last of itself.
//!
//! It is for people and decides nothing. The device judges for itself and knows more: its clock, the windows that it was
//! not there for, the versions that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use sutler_orders::answer::{Reason, State as Progressed};
use sutler_orders::audience::Reached;
use sutler_orders::denial::{BelievedDenial, SignedDenial};
use sutler_orders::evaluate::{Direction, Local, Presence, Progress};
use sutler_orders::mandate::{self, Mandate};
use sutler_orders::order::{Body, Kind, Place};
use sutler_orders::report::{Report, ToldAnswer};
use sutler_orders::text::Line;
use sutler_orders::vouched::{Orders, Scope, Statement, Vouched};
use sutler_orders::windows::Zones;
use sutler_orders::{Answer, Device, Facts, Now, Order, evaluate_only};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::{RoleName, TargetPath};
use sutler_protocol::name::{Label, Organisation};

use crate::state::State;

/// What is published, as a device that has all of it believes it.
#[derive(Clone, Debug)]
pub struct Published {
    orders: Orders,
    statement: Option<Statement>,
    version: u64,
}

/// Reads the free-standing denials that control holds in `folder`, its orders' folder; none if it is not there.
///
/// # Errors
///
/// What the disk answered.
pub fn denials(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let entries = match fs::read_dir(folder.join("denials")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut denials = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            denials.push(fs::read(path)?);
        }
    }
    Ok(denials)
}

impl Published {
    /// Puts together what `state` says. Of `denials` those count that an approver of their scope has signed.
    pub fn of(state: &State, organisation: &Organisation, denials: &[Vec<u8>]) -> Self {
        let reader = Reader { state, organisation };
        let contents = state.roles.iter().filter(|(role, _)| role.as_str().starts_with("content-"));
        let contents = contents.flat_map(|(_, role)| Vouched::contents(role).0).collect();
        let orders = Orders {
            contents,
            scopes: reader.scopes(),
            sites: reader.file(None),
            rings: reader.file(None),
            halts: reader.file(None),
            denials: denials.iter().filter_map(|bytes| reader.denial(bytes)).collect(),
        };
        let statement = Statement::of(&state.timestamp);
        Self { orders, statement, version: state.timestamp.version().number() }
    }

    /// Returns the orders.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Returns the newest statement, if it says when it was made.
    pub fn statement(&self) -> Option<Statement> {
        self.statement
    }

    /// Returns the timestamp's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns what a device should answer about `contents` at `now`, once it has all that is published. Zones that
    /// windows name are looked up in `database`.
    pub fn answers(
        &self,
        report: &Report,
        contents: &BTreeSet<ContentId>,
        database: &TimeZoneDatabase,
        now: Timestamp,
    ) -> BTreeMap<ContentId, Answer> {
        let facts = facts(report);
        let is_told = |reason| report.answers.iter().any(|answer| answer.reason == Some(reason));
        let device = Device {
            contents: report.answers.iter().map(|answer| (answer.content, local(answer))).collect(),
            observe_only: report.observes,
            is_metered: is_told(Reason::Metered),
            on_battery: is_told(Reason::OnBattery),
            ..Device::default()
        };
        let zones = self.zones(&facts, database);
        let now = Now { clock: now, is_confirmed: !is_told(Reason::Clock), zones };
        evaluate_only(contents, &self.orders, &facts, &device, self.statement, &now)
    }

    /// Returns the zones of a device. It does not say how it is set: most are set as their site is.
    pub(crate) fn zones<'d>(&self, facts: &Facts, database: &'d TimeZoneDatabase) -> Zones<'d> {
        let zones = Zones::of(self.orders.sites(), &facts.device.site, None, database);
        Zones { device: zones.site.clone(), ..zones }
    }
}

/// Returns what a device said that it is.
pub(crate) fn facts(report: &Report) -> Facts {
    let text = |line: &Option<Line>| line.as_ref().map(ToString::to_string).unwrap_or_default();
    let told = &report.facts;
    Facts {
        organisation: report.organisation.clone(),
        device: report.device.clone(),
        os: text(&told.os),
        version: text(&told.version),
        architecture: text(&told.architecture),
        language: text(&told.language),
        host_name: text(&told.host_name),
        tags: told.tags.iter().map(ToString::to_string).collect(),
        first_ring: told.first_ring.clone(),
    }
}

/// Returns what a device knew of a content when it answered so.
fn local(told: &ToldAnswer) -> Local {
    let progress = match told.state {
        Progressed::Staged => Progress::Staged,
        Progressed::Installing => Progress::Installing,
        Progressed::PendingReboot => Progress::PendingReboot,
        Progressed::Failed => Progress::Failed,
        Progressed::RolledBack => Progress::RolledBack,
        Progressed::NotApplicable
        | Progressed::Needed
        | Progressed::Installed
        | Progressed::Superseded => Progress::Absent,
    };
    let presence = match told.state {
        Progressed::Installed | Progressed::PendingReboot => Presence::Installed,
        Progressed::NotApplicable => Presence::NotApplicable,
        Progressed::Needed | Progressed::Staged | Progressed::Failed => Presence::Missing,
        _ => Presence::Unknown,
    };
    // Nobody but the device knows its versions. Had it not found this one higher, silence would not approve it.
    let direction = match told.reason {
        Some(Reason::NotApproved) => Direction::Unknown,
        _ => Direction::Upwards,
    };
    Local {
        progress,
        presence,
        direction,
        // The veto counts from the content's publication at the earliest.
        first_seen: Some(Timestamp::UNIX_EPOCH),
        against: told.reason.filter(|reason| is_its_own(*reason)),
        expected_minutes: 0,
    }
}

/// Returns whether only the device can know such a reason.
fn is_its_own(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UserPostponed
            | Reason::Held
            | Reason::Conffile
            | Reason::PackageDbBroken
            | Reason::Disk
            | Reason::NoSource
            | Reason::Timeout
    )
}

/// Reads the order files of a state.
struct Reader<'a> {
    state: &'a State,
    organisation: &'a Organisation,
}

impl Reader<'_> {
    fn scopes(&self) -> Vec<Scope> {
        let mandates = self.state.mandates();
        let scope = |(name, mandate): (Label, Option<Mandate<'_>>)| {
            let [_, (schedules, _)] = mandate::signers(&name);
            let schedules_reach = match mandates.of(&schedules) {
                Some(schedules) => schedules.reaches().ok()?,
                None => Reached::default(),
            };
            let of = Some(&name);
            Some(Scope {
                reach: mandate?.reaches().ok()?,
                schedules_reach,
                approvals: self.file(of),
                standing: self.file(of),
                policies: self.file(of),
                schedules: self.file(of),
                name,
            })
        };
        mandates.scopes().into_iter().filter_map(scope).collect()
    }

    fn file<B: Body>(&self, scope: Option<&Label>) -> Option<Vouched<Order<B>>> {
        let (role, path) = B::KIND.target(scope)?;
        let role = self.state.roles.get(&RoleName::delegated(&role)?)?;
        let path = TargetPath::from(path.as_str());
        let bytes = self.state.orders.get(&path)?;
        let place = Place { organisation: self.organisation, scope };
        Vouched::order(role, &path, bytes, place, 0).ok()
    }

    fn denial(&self, bytes: &[u8]) -> Option<BelievedDenial> {
        let signed = SignedDenial::parse(bytes).ok()?;
        let (role, _) = Kind::Approvals.target(Some(signed.claimed_scope()))?;
        let approvers = self.state.mandates().of(&RoleName::delegated(&role)?)?;
        signed.verify(approvers.listed(), &approvers.delegation().keyids).ok()
    }
}

//! Who signs what in a new organisation: three ways that fit most, each of them a plain set of keys and thresholds.
//!
//! Pure: it makes the first root and the first targets, for the admins to sign.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use sutler_orders::audience::Audience;
use sutler_orders::content::About;
use sutler_orders::mandate;
use sutler_orders::text::Utc;
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::{Delegation, Expires, Kind, RoleName, Root, Targets, Version};
use sutler_protocol::name::Label;

use crate::key::NamedKey;

/// How long a root is good for.
pub const ROOT_LIFETIME: SignedDuration = SignedDuration::from_hours(395 * 24);

/// How long targets and delegated roles are good for.
pub const TARGETS_LIFETIME: SignedDuration = SignedDuration::from_hours(183 * 24);

/// Months for which contents are delegated ahead: through the targets' own expiry, and one for the next renewal.
const MONTHS_AHEAD: i32 = 8;

/// The scope of an organisation that was given none: everybody.
pub const EVERYBODY: &str = "all";

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// One admin with two keys, either of which signs everything.
    Solo,
    /// Root and targets by two of three, approvals by one.
    Team,
    /// Root and targets by three of five, approvals by those whom each directorate names.
    Enterprise,
}

/// Who approves for a scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Approvers {
    /// The scope.
    pub scope: Label,
    /// Whom it covers.
    pub covers: Audience,
    /// Who approves.
    pub signers: Signers,
    /// Who says from then on who approves, where that is left to a directorate; else it takes the targets' keys.
    pub heads: Option<Signers>,
}

/// Who signs for a role.
#[derive(Clone, Debug, PartialEq)]
pub struct Signers {
    /// Whose keys.
    pub keys: Vec<NamedKey>,
    /// How many of them have to sign.
    pub threshold: u64,
}

/// Everybody who signs something in a new organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Staff {
    /// For root and targets.
    pub root: Vec<NamedKey>,
    /// For contents; the root's if empty.
    pub import: Vec<NamedKey>,
    /// For approvals and schedules; the first of the root's for everybody if empty.
    pub approvers: Vec<Approvers>,
    /// Control's own.
    pub snapshot: Vec<Key>,
    /// Control's own.
    pub timestamp: Vec<Key>,
    /// Control's own.
    pub halts: Vec<Key>,
}

/// Why an organisation cannot be set up so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// A preset has as many root keys as it has.
    #[error("set up {preset}: it has {expected} different root keys, not {found}")]
    Roots {
        /// The preset.
        preset: &'static str,
        /// How many it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A threshold that can never be reached, or is none.
    #[error("set up the scope {scope}: {threshold} of {keys} different keys cannot sign")]
    Threshold {
        /// The scope.
        scope: Label,
        /// What was asked for.
        threshold: u64,
        /// How many there are.
        keys: usize,
    },
    /// A scope twice.
    #[error("set up the scope {scope}: it is there twice")]
    Twice {
        /// The scope.
        scope: Label,
    },
    /// Two people of one name, or one of two.
    #[error("set up the admin {name}: another key or name has it already")]
    Name {
        /// The name.
        name: String,
    },
    /// A time too far from ours.
    #[error("set up an organisation: the clock says {now}")]
    Time {
        /// What the clock says.
        now: Timestamp,
    },
}

impl Preset {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Solo => "solo",
            Self::Team => "team",
            Self::Enterprise => "enterprise",
        }
    }

    /// Returns how many root keys it has, and how many of them have to sign.
    pub const fn roots(self) -> (usize, u64) {
        match self {
            Self::Solo => (2, 1),
            Self::Team => (3, 2),
            Self::Enterprise => (5, 3),
        }
    }

    /// Returns what has to be known before it is chosen.
    pub const fn warning(self) -> &'static str {
        match self {
            Self::Solo => {
                "solo has no second person: whoever has one of its two keys and its passphrase decides \
                 what every device installs. Keep the sealed key apart from the laptop."
            }
            Self::Team => {
                "root and targets need two of the three: lose two, and no device can be led to new keys."
            }
            Self::Enterprise => {
                "root and targets need three of the five: lose three, and no device can be led to new keys."
            }
        }
    }
}

/// Makes the first root and targets of an organisation.
///
/// # Errors
///
/// [`PresetError`].
pub fn documents(
    preset: Preset,
    staff: &Staff,
    now: Timestamp,
) -> Result<(Root, Targets), PresetError> {
    let (expected, threshold) = preset.roots();
    let found = different(&staff.root);
    if found != expected || staff.root.len() != expected {
        return Err(PresetError::Roots { preset: preset.as_str(), expected, found });
    }
    let later = |lifetime| now.checked_add(lifetime).map(Expires::at);
    let time = |_| PresetError::Time { now };
    let mut root = Root::new(Version::FIRST, later(ROOT_LIFETIME).map_err(time)?);
    let roots = keys(&staff.root);
    root.set_keys(Kind::Root, &roots, threshold);
    root.set_keys(Kind::Targets, &roots, threshold);
    root.set_keys(Kind::Snapshot, &staff.snapshot, 1);
    root.set_keys(Kind::Timestamp, &staff.timestamp, 1);

    let mut targets = Targets::new(Version::FIRST, later(TARGETS_LIFETIME).map_err(time)?);
    targets.extra.insert("sutler".to_owned(), json!({ "admins": admins(staff)? }));
    for approvers in scopes(preset, staff)? {
        match &approvers.heads {
            Some(heads) => delegate_directorate(&mut targets, &approvers, heads),
            None => delegate_scope(&mut targets, &approvers, &approvers.covers),
        }
    }
    delegate(&mut targets, "sites", &roots, threshold);
    delegate(&mut targets, "rings", &roots, threshold);
    // A revocation can only stop: one admin is enough, whoever is awake.
    delegate(&mut targets, "admission", &roots, 1);
    delegate(&mut targets, "halts", &staff.halts, 1);
    let import = if staff.import.is_empty() { roots } else { keys(&staff.import) };
    delegate_months(&mut targets, &import, 1, now).map_err(time)?;
    Ok((root, targets))
}

/// Makes the first document of each directorate, for its heads to sign: who approves in its scope.
///
/// # Errors
///
/// [`PresetError`].
pub fn directorates(
    staff: &Staff,
    now: Timestamp,
) -> Result<Vec<(RoleName, Targets)>, PresetError> {
    let expires = now.checked_add(TARGETS_LIFETIME).map(Expires::at);
    let expires = expires.map_err(|_| PresetError::Time { now })?;
    let known = admins(staff)?;
    let left = staff.approvers.iter().filter(|approvers| approvers.heads.is_some());
    let document = |approvers: &Approvers| {
        let mut document = Targets::new(Version::FIRST, expires);
        let own = approvers.signers.keys.iter().filter(|named| !known.contains_key(&named.name));
        let own: Map<String, Value> =
            own.map(|named| (named.name.clone(), named.id().as_str().into())).collect();
        document.extra.insert("sutler".to_owned(), json!({ "admins": own }));
        delegate_scope(&mut document, approvers, &Audience::default());
        (mandate::staff(&approvers.scope), document)
    };
    Ok(left.map(document).collect())
}

/// Delegates the months' contents from `now` on, as far ahead as the targets are good for.
///
/// # Errors
///
/// If `now` is at the end of time.
pub fn delegate_months(
    targets: &mut Targets,
    import: &[Key],
    threshold: u64,
    now: Timestamp,
) -> Result<(), jiff::Error> {
    let first = now.to_zoned(jiff::tz::TimeZone::UTC).date().first_of_month();
    for months in 0..MONTHS_AHEAD {
        let date = first.checked_add(jiff::Span::new().months(months))?;
        let instant = date.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
        let month = About::month(Utc::of(instant));
        let role = role(&format!("content-{month}"));
        if targets.delegations.as_ref().is_none_or(|all| all.to(&role).is_none()) {
            let paths = vec![format!("content/{month}/*/*")];
            targets.delegate(Delegation::new(role, import, threshold, paths), import);
        }
    }
    Ok(())
}

/// Delegates a scope's approvals and schedules, and says whom they reach.
fn delegate_scope(document: &mut Targets, approvers: &Approvers, covers: &Audience) {
    let Signers { keys: named, threshold } = &approvers.signers;
    let keys = keys(named);
    for (name, path) in mandate::signers(&approvers.scope) {
        let delegation = Delegation::new(name, &keys, *threshold, vec![path]);
        document.delegate(reaching(delegation, covers), &keys);
    }
}

/// Leaves a scope to a directorate.
fn delegate_directorate(targets: &mut Targets, approvers: &Approvers, heads: &Signers) {
    let keys = keys(&heads.keys);
    let paths = mandate::signers(&approvers.scope).map(|(_, path)| path).to_vec();
    let name = mandate::staff(&approvers.scope);
    let delegation = Delegation::new(name, &keys, heads.threshold, paths);
    targets.delegate(reaching(delegation, &approvers.covers), &keys);
}

fn reaching(mut delegation: Delegation, covers: &Audience) -> Delegation {
    if !covers.is_everybody() {
        let covers = serde_json::to_value(covers).expect("names and rules are JSON");
        delegation.extra.insert("sutler".to_owned(), covers);
    }
    delegation
}

fn delegate(targets: &mut Targets, name: &str, keys: &[Key], threshold: u64) {
    let delegation = Delegation::new(role(name), keys, threshold, vec![format!("{name}/*")]);
    targets.delegate(delegation, keys);
}

fn scopes(preset: Preset, staff: &Staff) -> Result<Vec<Approvers>, PresetError> {
    if staff.approvers.is_empty() {
        let keys = match preset {
            Preset::Solo => staff.root.clone(),
            Preset::Team | Preset::Enterprise => staff.root.iter().take(1).cloned().collect(),
        };
        let scope = EVERYBODY.parse().expect("a label");
        let signers = Signers { keys, threshold: 1 };
        return Ok(vec![Approvers { scope, covers: Audience::default(), signers, heads: None }]);
    }
    let mut seen = std::collections::BTreeSet::new();
    for Approvers { scope, signers, heads, .. } in &staff.approvers {
        let scope = scope.clone();
        for Signers { keys, threshold } in std::iter::once(signers).chain(heads) {
            let (keys, threshold) = (different(keys), *threshold);
            if threshold == 0 || threshold > keys as u64 {
                return Err(PresetError::Threshold { scope, threshold, keys });
            }
        }
        if !seen.insert(scope.clone()) {
            return Err(PresetError::Twice { scope });
        }
    }
    Ok(staff.approvers.clone())
}

/// Returns the ids of the keys by their names of everybody whom the targets name: not those whom a directorate does.
fn admins(staff: &Staff) -> Result<Map<String, Value>, PresetError> {
    let signers = |approvers: &'_ Approvers| approvers.signers.keys.clone();
    let (left, own): (Vec<_>, Vec<_>) =
        staff.approvers.iter().partition(|approvers| approvers.heads.is_some());
    let heads = left.iter().filter_map(|approvers| approvers.heads.as_ref());
    let heads = heads.flat_map(|heads| heads.keys.clone());
    let top: Vec<NamedKey> = [&staff.root[..], &staff.import].concat();
    let top: Vec<NamedKey> =
        top.into_iter().chain(heads).chain(own.into_iter().flat_map(signers)).collect();
    let admins = named_once(&top, Map::new())?;
    // Nobody is called like another, wherever that is written down.
    let theirs: Vec<NamedKey> = left.into_iter().flat_map(signers).collect();
    named_once(&theirs, admins.clone())?;
    Ok(admins)
}

/// Adds keys by their names, each under one name and each name once.
fn named_once(
    keys: &[NamedKey],
    mut admins: Map<String, Value>,
) -> Result<Map<String, Value>, PresetError> {
    for named in keys {
        let id = Value::from(named.id().as_str());
        let name = named.name.clone();
        let holds_other = admins.get(&name).is_some_and(|other| *other != id);
        let is_other = admins.iter().any(|(other, held)| *other != name && *held == id);
        if holds_other || is_other {
            return Err(PresetError::Name { name });
        }
        admins.insert(name, id);
    }
    Ok(admins)
}

fn different(keys: &[NamedKey]) -> usize {
    keys.iter().map(NamedKey::id).collect::<std::collections::BTreeSet<_>>().len()
}

fn keys(named: &[NamedKey]) -> Vec<Key> {
    named.iter().map(|named| named.key.clone()).collect()
}

fn role(name: &str) -> RoleName {
    RoleName::delegated(name).expect("no top-level role has such a name")
}

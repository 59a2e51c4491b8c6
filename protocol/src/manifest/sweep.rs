//! Reading every delegated role there is: what a device needs that acts on all of its orders, where a
//! [`Search`](super::Search) reads what one path needs. Without IO.
//!
//! A [`Sweep`] goes through the delegations from the top-level targets down, and reads each role where it
//! lies, else fetches it. What it leaves behind are [`Roles`]: all that was believed at one time, and for
//! each other role why it was not. Who names a path is then asked of them, as a search would find it.
//!
//! Always true:
//! - a role that cannot be believed ends look-ups that lead through it, and no other (T22);
//! - a role that the top-level targets delegate is believed with their keys or not at all: nobody further down takes its
//!   name;
//! - a look-up finds what a search of the same manifest finds, or refuses where the search does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::bounds::{DELEGATIONS_MAX, SWEEP_ROLES_MAX, TARGETS_BYTES_MAX};
use super::delegation::{Delegated, Delegations};
use super::document::{Pin, Targets};
use super::key::RoleKeys;
use super::name::{RoleName, TargetPath};
use super::refresh::{Answer, Fetch, Keep, document, pinned};
use super::search::{Found, Looked, believe_role, look};
use super::signed::Believed;
use super::trusted::{Fault, Refusal, Trusted, in_time};

/// Reads every role that a manifest delegates to, once it was refreshed.
///
/// Do what [`Sweep::poll_keep`] says, then what [`Sweep::poll`] says, and tell it what came, until it has
/// nothing more to do; then take [`Sweep::finish`].
#[derive(Debug)]
pub struct Sweep<'a> {
    trusted: &'a mut Trusted,
    now: jiff::Timestamp,
    targets: Arc<Believed<Targets>>,
    read: BTreeMap<RoleName, Read>,
    ahead: VecDeque<Delegated>,
    wants: Option<Wants>,
    keeps: VecDeque<Keep>,
}

/// What a sweep needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// What was kept of this delegated role, if anything; told by [`Sweep::handle_kept`].
    Load(RoleName),
    /// A document of the repository; told by [`Sweep::handle_answer`].
    Fetch(Fetch),
}

/// Every role of one manifest, as it was at one time.
#[derive(Clone, Debug)]
pub struct Roles {
    targets: Arc<Believed<Targets>>,
    read: BTreeMap<RoleName, Read>,
}

/// What came of a role.
#[derive(Clone, Debug)]
enum Read {
    /// Believed with the keys of this delegation, and no other's.
    Believed {
        document: Arc<Believed<Targets>>,
        with: Delegated,
    },
    Refused(Arc<Fault>),
}

#[derive(Debug)]
struct Wants {
    delegated: Delegated,
    pin: Pin,
    is_kept_asked: bool,
}

/// Why nothing can be said of a path: a role that decides on it is not believed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refuse the manifest's {role}")]
pub struct Unreadable {
    /// Whose document it is.
    pub role: RoleName,
    /// Why it is not believed.
    #[source]
    pub fault: Arc<Fault>,
}

impl<'a> Sweep<'a> {
    /// Starts at `now`, the time of the refresh before it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] of timestamp, snapshot or targets, as by [`Search::new`](super::Search::new).
    pub fn new(trusted: &'a mut Trusted, now: jiff::Timestamp) -> Result<Self, Refusal> {
        trusted.check_targets(now)?;
        let targets = trusted.targets().expect("they were just checked").clone();
        let ahead = all(&targets).into();
        let targets = Arc::new(targets);
        let (read, wants, keeps) = (BTreeMap::new(), None, VecDeque::new());
        let mut sweep = Self { trusted, now, targets, read, ahead, wants, keeps };
        sweep.go_on();
        Ok(sweep)
    }

    /// Returns the next thing to make durable.
    pub fn poll_keep(&mut self) -> Option<Keep> {
        self.keeps.pop_front()
    }

    /// Returns what to do next; `None` once every role was read or refused.
    pub fn poll(&self) -> Option<SweepStep> {
        let Wants { delegated, pin, is_kept_asked } = self.wants.as_ref()?;
        let role = delegated.role.clone();
        Some(if *is_kept_asked {
            SweepStep::Fetch(self.fetch(role, pin))
        } else {
            SweepStep::Load(role)
        })
    }

    fn fetch(&self, role: RoleName, pin: &Pin) -> Fetch {
        pinned(self.trusted.root(), role, pin, TARGETS_BYTES_MAX)
    }

    /// Takes what was kept of the role. If it is not what the snapshot pins, or not believed, it is
    /// fetched.
    pub fn handle_kept(&mut self, kept: Option<&Bytes>) {
        let Some(wants) = self.wants.as_mut() else { return };
        wants.is_kept_asked = true;
        let Some(kept) = kept else { return };
        let keys = &wants.delegated.keys;
        if let Ok(believed) = believe_role(kept, keys, &wants.pin, self.now) {
            self.take(Ok(believed));
        }
    }

    /// Takes what the repository answered to the last fetch. What is not believed is noted.
    pub fn handle_answer(&mut self, answer: Answer) {
        let Some(Wants { delegated, pin, .. }) = &self.wants else { return };
        let outcome =
            document(answer).and_then(|bytes| believe_role(&bytes, &delegated.keys, pin, self.now));
        if let Ok(believed) = &outcome {
            let (role, version) = (delegated.role.clone(), believed.version());
            self.keeps.push_back(Keep::Document { role, version, bytes: believed.bytes().clone() });
        }
        self.take(outcome);
    }

    fn take(&mut self, outcome: Result<Believed<Targets>, Fault>) {
        let Some(Wants { delegated, .. }) = self.wants.take() else { return };
        let outcome = outcome.map(|believed| {
            let (role, keys) = (delegated.role.clone(), delegated.keys.clone());
            self.trusted.hold(role, believed, keys)
        });
        self.note(delegated, outcome);
        self.go_on();
    }

    fn note(&mut self, delegated: Delegated, outcome: Result<Arc<Believed<Targets>>, Fault>) {
        let role = delegated.role.clone();
        let read = match outcome {
            Ok(document) => {
                let top = self.targets.delegations.as_ref();
                let is_taken = |role: &RoleName| top.is_some_and(|top| top.to(role).is_some());
                let further = all(&document).into_iter().filter(|next| !is_taken(&next.role));
                self.ahead.extend(further);
                Read::Believed { document, with: delegated }
            }
            Err(fault) => Read::Refused(Arc::new(fault)),
        };
        self.read.insert(role, read);
    }

    /// Goes on to the next role that has to be read.
    fn go_on(&mut self) {
        while let Some(next) = self.ahead.pop_front() {
            // One delegation of each role counts, the first that was believed.
            if matches!(self.read.get(&next.role), Some(Read::Believed { .. })) {
                continue;
            }
            if self.read.len() >= SWEEP_ROLES_MAX {
                let fault = Fault::TooDeep { delegations_max: SWEEP_ROLES_MAX };
                self.read.entry(next.role).or_insert(Read::Refused(Arc::new(fault)));
                continue;
            }
            let pin = self.trusted.snapshot().and_then(|snapshot| snapshot.pin(&next.role));
            let Some(pin) = pin.cloned() else {
                self.read.entry(next.role).or_insert(Read::Refused(Arc::new(Fault::NotPinned)));
                continue;
            };
            let held = self.trusted.held(&next.role, &pin, &next.keys);
            let Some(held) = held.filter(|held| in_time(held.expires(), self.now).is_ok()) else {
                self.wants = Some(Wants { delegated: next, pin, is_kept_asked: false });
                return;
            };
            self.note(next, Ok(held));
        }
    }

    /// Returns what was read. Roles that are still to be read are as if they were absent.
    pub fn finish(self) -> Roles {
        Roles { targets: self.targets, read: self.read }
    }
}

impl Roles {
    /// Returns every path that any role names, whoever may name it.
    pub fn paths(&self) -> BTreeSet<TargetPath> {
        let documents = self.read.values().filter_map(|read| match read {
            Read::Believed { document, .. } => Some(document),
            Read::Refused(_) => None,
        });
        let documents = std::iter::once(&self.targets).chain(documents);
        documents.flat_map(|targets| targets.files().map(|(path, _)| path)).collect()
    }

    /// Returns the roles that are not believed, each with the reason. One that the snapshot does not pin
    /// yet, because nothing was signed for it so far, is not among them.
    pub fn refused(&self) -> impl Iterator<Item = (&RoleName, &Fault)> {
        self.read.iter().filter_map(|(role, read)| match read {
            Read::Refused(fault) if !matches!(**fault, Fault::NotPinned) => Some((role, &**fault)),
            Read::Refused(_) | Read::Believed { .. } => None,
        })
    }

    /// Returns the top-level targets, and with them the first delegations.
    pub fn targets(&self) -> &Believed<Targets> {
        &self.targets
    }

    /// Returns the delegated roles that are believed, with their documents.
    pub fn believed(&self) -> impl Iterator<Item = (&RoleName, &Believed<Targets>)> {
        self.read.iter().filter_map(|(role, read)| match read {
            Read::Believed { document, .. } => Some((role, &**document)),
            Read::Refused(_) => None,
        })
    }

    /// Returns a delegated role's document, if it is believed.
    pub fn role(&self, role: &RoleName) -> Option<&Believed<Targets>> {
        match self.read.get(role)? {
            Read::Believed { document, .. } => Some(document),
            Read::Refused(_) => None,
        }
    }

    /// Returns a delegated role's document, if it is believed with the keys of one delegation, and no other.
    pub fn role_of(&self, role: &RoleName, keys: &RoleKeys) -> Option<&Believed<Targets>> {
        match self.read.get(role)? {
            Read::Believed { document, with } if with.keys == *keys => Some(document),
            Read::Believed { .. } | Read::Refused(_) => None,
        }
    }

    /// Finds the target file that `path` means, and who says so; `None` if nobody names it.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if a role that is asked before the one that names it is not believed: to go on
    /// would let whoever can block a role choose who answers for it.
    pub fn find(&self, path: &TargetPath) -> Result<Option<Found>, Unreadable> {
        let top = RoleName::targets();
        let mut ahead: Vec<Delegated> = Vec::new();
        let mut visited = BTreeSet::from([top.clone()]);
        let mut looked = look(&self.targets, &top, path);
        loop {
            match looked {
                Looked::Found(found) => return Ok(Some(*found)),
                Looked::Delegates(delegated) => {
                    if delegated.last().is_some_and(|last| last.is_terminating) {
                        ahead.clear();
                    }
                    ahead.extend(delegated.into_iter().rev());
                }
            }
            let next = loop {
                match ahead.pop() {
                    Some(next) if visited.contains(&next.role) => {}
                    Some(next) => break next,
                    None => return Ok(None),
                }
            };
            let unreadable = |fault| Unreadable { role: next.role.clone(), fault };
            if visited.len() > DELEGATIONS_MAX {
                let fault = Fault::TooDeep { delegations_max: DELEGATIONS_MAX };
                return Err(unreadable(Arc::new(fault)));
            }
            looked = match self.read.get(&next.role) {
                Some(Read::Believed { document, with }) if with.keys == next.keys => {
                    look(document, &next.role, path)
                }
                Some(Read::Refused(fault)) => return Err(unreadable(Arc::clone(fault))),
                // Believed with another delegation's keys says nothing of this one.
                Some(Read::Believed { .. }) | None => {
                    return Err(unreadable(Arc::new(Fault::Absent)));
                }
            };
            visited.insert(next.role);
        }
    }
}

/// Returns everybody that a role delegates to by name. Bins are read where a path leads to them: there may
/// be 4 billion.
fn all(targets: &Targets) -> Vec<Delegated> {
    targets.delegations.as_ref().map_or_else(Vec::new, Delegations::all)
}

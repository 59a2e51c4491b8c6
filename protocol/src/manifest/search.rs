//! Finding the target file that a path means: 5.6.7 of the specification, without IO.
//!
//! The search goes through the delegations depth first, each role before those that it delegates to,
//! in their order. A role is read where it lies, else fetched, and kept once it is believed. One that
//! cannot be believed ends this search and no other: to go on to a role of lower priority would let
//! whoever can block a role choose who answers for it.
//!
//! Always true: a role is believed with the keys of the delegation that led to it, and no role is looked
//! into twice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::bounds::{DELEGATIONS_MAX, TARGETS_BYTES_MAX};
use super::delegation::Delegated;
use super::document::{Pin, TargetFile, Targets};
use super::key::RoleKeys;
use super::name::{RoleName, TargetPath};
use super::refresh::{Answer, Fetch, Keep, document, pinned};
use super::signed::Believed;
use super::trusted::{Fault, Refusal, Trusted, believe, in_time};

/// Finds the target file that a path means, in a manifest that was refreshed.
///
/// Do what [`Search::poll_keep`] says, then what [`Search::poll`] says, and tell it what came, until it
/// is done.
#[derive(Debug)]
pub struct Search<'a> {
    trusted: &'a mut Trusted,
    now: jiff::Timestamp,
    path: TargetPath,
    state: State,
    /// Whom to ask next, the last first.
    ahead: Vec<Delegated>,
    visited: BTreeSet<RoleName>,
    keeps: VecDeque<Keep>,
}

/// What a search needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchStep {
    /// What was kept of this delegated role, if anything; told by [`Search::handle_kept`].
    Load(RoleName),
    /// A document of the repository; told by [`Search::handle_answer`].
    Fetch(Fetch),
    /// Nothing: the file, or nothing if nobody names it.
    Done(Option<Found>),
}

/// A target file, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its path.
    pub path: TargetPath,
    /// The role that names it.
    pub role: RoleName,
    /// Which bytes it is.
    pub file: TargetFile,
}

#[derive(Debug)]
enum State {
    /// A role has to be read before the search goes on.
    Wants {
        role: RoleName,
        keys: RoleKeys,
        pin: Pin,
        from: From,
    },
    Done(Option<Found>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Kept,
    Repository,
}

impl<'a> Search<'a> {
    /// Starts at `now`, the time of the refresh before it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] of timestamp, snapshot or targets, if one is not here, has expired at `now`, or is not
    /// what the one before it pins; of a delegated role that the snapshot does not pin.
    pub fn new(
        trusted: &'a mut Trusted,
        path: TargetPath,
        now: jiff::Timestamp,
    ) -> Result<Self, Refusal> {
        let mut search = Self {
            trusted,
            now,
            path,
            state: State::Done(None),
            ahead: Vec::new(),
            visited: BTreeSet::new(),
            keeps: VecDeque::new(),
        };
        let role = RoleName::targets();
        let looked = look(search.trusted.check_targets(now)?, &role, &search.path);
        search.visit(role, looked)?;
        Ok(search)
    }

    /// Returns the next thing to make durable.
    pub fn poll_keep(&mut self) -> Option<Keep> {
        self.keeps.pop_front()
    }

    /// Returns what to do next.
    pub fn poll(&self) -> SearchStep {
        match &self.state {
            State::Wants { role, from: From::Kept, .. } => SearchStep::Load(role.clone()),
            State::Wants { role, pin, from: From::Repository, .. } => {
                let root = &self.trusted.root;
                SearchStep::Fetch(pinned(root, role.clone(), pin, TARGETS_BYTES_MAX))
            }
            State::Done(found) => SearchStep::Done(found.clone()),
        }
    }

    /// Takes what was kept of the role. If it is not what the snapshot pins, or not believed, it is
    /// fetched.
    ///
    /// # Errors
    ///
    /// [`Refusal`] of a role further on, as by [`Search::handle_answer`].
    pub fn handle_kept(&mut self, kept: Option<&Bytes>) -> Result<(), Refusal> {
        let State::Wants { role, keys, pin, from: from @ From::Kept } = &mut self.state else {
            return Ok(());
        };
        *from = From::Repository;
        let Some(kept) = kept else { return Ok(()) };
        let Ok(believed) = believe_role(kept, keys, pin, self.now) else { return Ok(()) };
        let (role, keys) = (role.clone(), keys.clone());
        self.go_on(role, believed, keys)
    }

    /// Takes what the repository answered to the last fetch.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the role is not believed. The search has then ended, without a file.
    pub fn handle_answer(&mut self, answer: Answer) -> Result<(), Refusal> {
        let State::Wants { role, keys, pin, .. } =
            std::mem::replace(&mut self.state, State::Done(None))
        else {
            return Ok(());
        };
        let outcome =
            document(answer).and_then(|bytes| believe_role(&bytes, &keys, &pin, self.now));
        match outcome {
            Ok(believed) => {
                let (version, bytes) = (believed.version(), believed.bytes().clone());
                self.keeps.push_back(Keep::Document { role: role.clone(), version, bytes });
                self.go_on(role, believed, keys)
            }
            Err(fault) => Err(Refusal { role, fault }),
        }
    }

    fn go_on(
        &mut self,
        role: RoleName,
        believed: Believed<Targets>,
        keys: RoleKeys,
    ) -> Result<(), Refusal> {
        let targets = self.trusted.hold(role.clone(), believed, keys);
        let looked = look(&targets, &role, &self.path);
        self.visit(role, looked)
    }

    /// Looks into roles until one names the file, one has to be read, or there are no more.
    fn visit(&mut self, role: RoleName, mut looked: Looked) -> Result<(), Refusal> {
        self.visited.insert(role);
        loop {
            match looked {
                Looked::Found(found) => {
                    self.state = State::Done(Some(*found));
                    return Ok(());
                }
                Looked::Delegates(delegated) => {
                    if delegated.last().is_some_and(|last| last.is_terminating) {
                        self.ahead.clear();
                    }
                    self.ahead.extend(delegated.into_iter().rev());
                }
            }
            let Some(next) = self.next() else {
                self.state = State::Done(None);
                return Ok(());
            };
            let role = next.role.clone();
            match self.read(next) {
                Ok(Some(targets)) => {
                    looked = look(&targets, &role, &self.path);
                    self.visited.insert(role);
                }
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.state = State::Done(None);
                    return Err(Refusal { role, fault });
                }
            }
        }
    }

    fn next(&mut self) -> Option<Delegated> {
        loop {
            let next = self.ahead.pop()?;
            if !self.visited.contains(&next.role) {
                return Some(next);
            }
        }
    }

    /// Returns a role that was read before, or notes that it has to be.
    fn read(&mut self, next: Delegated) -> Result<Option<Arc<Believed<Targets>>>, Fault> {
        // The top-level targets are among the visited.
        if self.visited.len() > DELEGATIONS_MAX {
            return Err(Fault::TooDeep { delegations_max: DELEGATIONS_MAX });
        }
        let Delegated { role, keys, .. } = next;
        let snapshot = self.trusted.snapshot.as_ref();
        let pin = snapshot.and_then(|snapshot| snapshot.pin(&role)).ok_or(Fault::NotPinned)?;
        let pin = pin.clone();
        if let Some(held) = self.trusted.held(&role, &pin, &keys)
            && in_time(held.expires(), self.now).is_ok()
        {
            return Ok(Some(held));
        }
        self.state = State::Wants { role, keys, pin, from: From::Kept };
        Ok(None)
    }
}

impl Trusted {
    /// Returns where a target file lies below a repository's targets, quoted for a URL.
    pub fn place_of(&self, found: &Found) -> String {
        let prefix = if self.root.consistent_snapshot { found.file.hashes.prefix() } else { None };
        found.path.place(prefix.as_deref())
    }
}

/// What a role says of a path.
pub(super) enum Looked {
    Found(Box<Found>),
    Delegates(Vec<Delegated>),
}

pub(super) fn look(targets: &Targets, role: &RoleName, path: &TargetPath) -> Looked {
    match targets.file(path) {
        Some(file) => Looked::Found(Box::new(Found {
            path: path.clone(),
            role: role.clone(),
            file: file.clone(),
        })),
        None => Looked::Delegates(
            targets.delegations.as_ref().map_or_else(Vec::new, |delegations| delegations.of(path)),
        ),
    }
}

pub(super) fn believe_role(
    bytes: &Bytes,
    keys: &RoleKeys,
    pin: &Pin,
    now: jiff::Timestamp,
) -> Result<Believed<Targets>, Fault> {
    let believed = believe::<Targets>(bytes, keys, Some(pin), TARGETS_BYTES_MAX)?;
    in_time(believed.expires(), now)?;
    Ok(believed)
}

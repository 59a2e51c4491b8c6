//! Bringing a device's manifest up to date: 5.2 to 5.6 of the specification, without IO.
//!
//! A [`Refresh`] says what to fetch and is told what came; whatever it believes is kept before it
//! asks for more. The root goes up one version at a time, then come the timestamp, the snapshot that it
//! pins, and the targets that the snapshot pins. Delegated roles come when they are searched for.
//!
//! Always true:
//! - what it refuses leaves everything that was believed before as it was;
//! - a document that has expired at `now` is never kept, but for a root, whose successor may be needed;
//! - it ends: at most [`ROOTS_MAX`] roots and three documents more.

use std::collections::VecDeque;

use bytes::Bytes;

use super::bounds::{
    ROOT_BYTES_MAX, ROOTS_MAX, SNAPSHOT_BYTES_MAX, TARGETS_BYTES_MAX, TIMESTAMP_BYTES_MAX,
};
use super::document::{Kind, Pin, Root, Snapshot, Targets, Timestamp, Version};
use super::name::RoleName;
use super::signed::{Believed, Signed};
use super::trusted::{Fault, Refusal, Trusted, Versioned, believe, in_time};

/// Brings what a device believes up to date.
///
/// First and after each answer do what [`Refresh::poll_keep`] says until it says nothing more, also
/// after a refusal; then fetch what [`Refresh::poll_fetch`] says, and tell it by
/// [`Refresh::handle_answer`]. When there is nothing to fetch, the device is up to date.
#[derive(Debug)]
pub struct Refresh<'a> {
    trusted: &'a mut Trusted,
    now: jiff::Timestamp,
    step: Step,
    keeps: VecDeque<Keep>,
}

/// A document of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whose it is.
    pub role: RoleName,
    /// Where it lies below the repository's metadata, quoted for a URL.
    pub place: String,
    /// The most bytes that are read of it: what goes on for ever is cut off there.
    pub bytes_max: u64,
}

/// What a repository answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The document; cut off one byte behind the bound if it is longer.
    Document(Bytes),
    /// It has no such document: HTTP's 403 and 404. Any other failure ends the refresh instead.
    Absent,
}

/// What is to be made durable before anything more is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A document that is believed now, in place of the one before.
    Document {
        /// Whose it is.
        role: RoleName,
        /// Its version.
        version: Version,
        /// As it came.
        bytes: Bytes,
    },
    /// A document that the root's keys no longer vouch for; its version binds nobody.
    Forget {
        /// Whose it was.
        role: RoleName,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Root { believed: u32 },
    Timestamp,
    Snapshot,
    Targets,
    Ended,
}

impl<'a> Refresh<'a> {
    /// Starts at `now`, which stays the time of all of it.
    pub fn new(trusted: &'a mut Trusted, now: jiff::Timestamp) -> Self {
        let mut refresh =
            Self { trusted, now, step: Step::Root { believed: 0 }, keeps: VecDeque::new() };
        refresh.forget();
        refresh
    }

    /// Returns the next thing to make durable.
    pub fn poll_keep(&mut self) -> Option<Keep> {
        self.keeps.pop_front()
    }

    /// Returns what to fetch next, or `None` at the end.
    pub fn poll_fetch(&self) -> Option<Fetch> {
        let root = &self.trusted.root;
        match self.step {
            Step::Root { .. } => Some(Fetch {
                role: RoleName::root(),
                // Behind the last version there is none: the same again is refused.
                place: RoleName::root().place(root.version().next().or(Some(root.version()))),
                bytes_max: ROOT_BYTES_MAX,
            }),
            Step::Timestamp => Some(Fetch {
                role: RoleName::timestamp(),
                place: RoleName::timestamp().place(None),
                bytes_max: TIMESTAMP_BYTES_MAX,
            }),
            Step::Snapshot => {
                let pin = self.trusted.timestamp.as_ref()?.document().snapshot();
                Some(pinned(root, RoleName::snapshot(), pin, SNAPSHOT_BYTES_MAX))
            }
            Step::Targets => {
                let targets = RoleName::targets();
                let pin = self.trusted.snapshot.as_ref()?.document().pin(&targets)?;
                Some(pinned(root, targets, pin, TARGETS_BYTES_MAX))
            }
            Step::Ended => None,
        }
    }

    /// Takes what the repository answered to the last fetch.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the answer is not believed. The refresh has then ended.
    pub fn handle_answer(&mut self, answer: Answer) -> Result<(), Refusal> {
        let (role, outcome) = match self.step {
            Step::Root { believed } => (RoleName::root(), self.handle_root(answer, believed)),
            Step::Timestamp => (RoleName::timestamp(), self.handle_timestamp(answer)),
            Step::Snapshot => (RoleName::snapshot(), self.handle_snapshot(answer)),
            Step::Targets => (RoleName::targets(), self.handle_targets(answer)),
            Step::Ended => return Ok(()),
        };
        match outcome {
            Ok(step) => self.step = step,
            Err(fault) => {
                self.step = Step::Ended;
                return Err(Refusal { role, fault });
            }
        }
        // What is here already may be what the answer pins.
        if self.step == Step::Snapshot && self.trusted.check_snapshot(self.now).is_ok() {
            self.step = Step::Targets;
        }
        if self.step == Step::Targets && self.trusted.check_targets(self.now).is_ok() {
            self.step = Step::Ended;
        }
        Ok(())
    }

    /// 5.3.2 to 5.3.11. A root is believed if the one before it and it itself vouch for it.
    fn handle_root(&mut self, answer: Answer, believed: u32) -> Result<Step, Fault> {
        if let Answer::Document(bytes) = answer {
            let expected = self.trusted.root.version().next().ok_or(Fault::Absent)?;
            let keys = self.trusted.root.keys_of(Kind::Root);
            let root = believe::<Root>(&bytes, &keys, None, ROOT_BYTES_MAX)?;
            Signed::<Root>::parse(bytes)
                .map_err(Fault::Parse)?
                .verify_by_itself()
                .map_err(Fault::Verify)?;
            if root.version() != expected {
                return Err(Fault::WrongVersion { expected, found: root.version() });
            }
            self.keep(RoleName::root(), &root);
            self.trusted.set_root(root);
            self.forget();
            if believed + 1 < ROOTS_MAX {
                return Ok(Step::Root { believed: believed + 1 });
            }
        }
        in_time(self.trusted.root.expires(), self.now)?;
        Ok(Step::Timestamp)
    }

    /// 5.4. One of the same version is passed over: the one that is here stays.
    fn handle_timestamp(&mut self, answer: Answer) -> Result<Step, Fault> {
        let bytes = document(answer)?;
        let keys = self.trusted.root.keys_of(Kind::Timestamp);
        let new = believe::<Timestamp>(&bytes, &keys, None, TIMESTAMP_BYTES_MAX)?;
        let (found, pin) = (new.version(), new.snapshot().version);
        let old = self.trusted.timestamp.as_ref();
        let trusted = old.map(Versioned::version).or_else(|| self.trusted.floor(Kind::Timestamp));
        if let Some(trusted) = trusted.filter(|trusted| found < *trusted) {
            return Err(Fault::Rollback { trusted, found });
        }
        if let Some(old) = old.filter(|old| old.version() == found) {
            in_time(old.expires(), self.now)?;
            return Ok(Step::Snapshot);
        }
        let pinned = old.map(|old| old.snapshot().version);
        let pinned = pinned.or_else(|| self.trusted.floor(Kind::Snapshot));
        if let Some(trusted) = pinned.filter(|trusted| pin < *trusted) {
            return Err(Fault::PinRollback {
                file: RoleName::snapshot().file(),
                trusted,
                found: pin,
            });
        }
        in_time(new.expires(), self.now)?;
        self.keep(RoleName::timestamp(), &new);
        self.trusted.timestamp = Some(new);
        Ok(Step::Snapshot)
    }

    /// 5.5. Every role that was pinned before stays pinned, and at no lower version.
    fn handle_snapshot(&mut self, answer: Answer) -> Result<Step, Fault> {
        let bytes = document(answer)?;
        let timestamp = self.trusted.timestamp.as_ref().ok_or(Fault::NotPinned)?;
        let keys = self.trusted.root.keys_of(Kind::Snapshot);
        let pin = Some(timestamp.snapshot());
        let new = believe::<Snapshot>(&bytes, &keys, pin, SNAPSHOT_BYTES_MAX)?;
        if let Some(old) = &self.trusted.snapshot {
            for (file, old) in &old.meta {
                let Some(new) = new.meta.get(file) else {
                    return Err(Fault::PinDropped { file: file.clone() });
                };
                let (trusted, found) = (old.version, new.version);
                if found < trusted {
                    return Err(Fault::PinRollback { file: file.clone(), trusted, found });
                }
            }
        }
        in_time(new.expires(), self.now)?;
        self.keep(RoleName::snapshot(), &new);
        self.trusted.snapshot = Some(new);
        Ok(Step::Targets)
    }

    /// 5.6.1 to 5.6.6.
    fn handle_targets(&mut self, answer: Answer) -> Result<Step, Fault> {
        let bytes = document(answer)?;
        let snapshot = self.trusted.snapshot.as_ref().ok_or(Fault::NotPinned)?;
        let pin = snapshot.pin(&RoleName::targets());
        let keys = self.trusted.root.keys_of(Kind::Targets);
        let pin = Some(pin.ok_or(Fault::NotPinned)?);
        let new = believe::<Targets>(&bytes, &keys, pin, TARGETS_BYTES_MAX)?;
        in_time(new.expires(), self.now)?;
        self.keep(RoleName::targets(), &new);
        self.trusted.targets = Some(new);
        Ok(Step::Ended)
    }

    fn keep<T>(&mut self, role: RoleName, new: &Believed<T>)
    where
        Believed<T>: Versioned,
    {
        let (version, bytes) = (Versioned::version(new), new.bytes().clone());
        self.keeps.push_back(Keep::Document { role, version, bytes });
    }

    fn forget(&mut self) {
        self.keeps.extend(self.trusted.unvouched.drain(..).map(|role| Keep::Forget { role }));
    }
}

/// Returns where a pinned document is fetched, and how much of it at most.
pub(super) fn pinned(root: &Root, role: RoleName, pin: &Pin, bytes_max: u64) -> Fetch {
    let version = root.consistent_snapshot.then_some(pin.version);
    let place = role.place(version);
    Fetch { role, place, bytes_max: pin.length.map_or(bytes_max, |len| len.min(bytes_max)) }
}

pub(super) fn document(answer: Answer) -> Result<Bytes, Fault> {
    match answer {
        Answer::Document(bytes) => Ok(bytes),
        Answer::Absent => Err(Fault::Absent),
    }
}

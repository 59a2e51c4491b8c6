//! Bringing a repository up to date from the one that control publishes: what an admin's folder does before a
//! change is made in it, and after.
//!
//! It is a client's refresh from what is believed here, and then all that a change starts from. Control is
//! believed in nothing: what is older than what lies here, what nobody vouches for and what has expired at
//! control is refused.
//!
//! Always true: nothing is written before all of it was verified; and then in an order by which whatever ends it half way
//! leaves the state before, or one from which the next catching up goes on.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use jiff::Timestamp;
use sutler_cache::backend::read_file;
use sutler_protocol::manifest::drive::{DriveError, Keeper};
use sutler_protocol::manifest::signed::VerifyError;
use sutler_protocol::manifest::{
    Expires, Fault, Keep, Kept, Pin, Refusal, RoleName, Trusted, Version,
};

use super::reading::{Here, Near, NoKeeper, Read, ReadError, Source, go_through, read};
use super::{Publication, Repository, WriteError, metadata};
use crate::state::State;

/// Why a repository was not brought up to date. What was published in it before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError<E: Error + 'static> {
    /// What lies here cannot be told.
    #[error("read what is here")]
    Here(#[source] ReadError),
    /// What control shows could not be had, or is not believed.
    #[error("take over what control shows")]
    There(#[source] ReadError<E>),
    /// The root to begin with is not the first.
    #[error("begin with version {found} of the root: the first has to be handed over")]
    NotFirst {
        /// What was handed over.
        found: Version,
    },
    /// Control has not signed for long, or hides what is newer (T3).
    #[error("take over what control shows: its {role} expired at {at}")]
    Expired {
        /// Which document.
        role: RoleName,
        /// When.
        at: Expires,
    },
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Repository {
    /// Takes over what `source` shows that is newer, as of `now`, and returns what is published then. Where nothing is here
    /// yet, it begins with the root `first`.
    ///
    /// # Errors
    ///
    /// [`CatchUpError`].
    pub fn catch_up<S: Source>(
        &self,
        source: &mut S,
        first: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<State, CatchUpError<S::Error>> {
        let mut trusted = self.believed(first)?;
        let before = self.read().ok();
        let mut roots = Roots::default();
        go_through(&mut trusted, source, &mut roots).map_err(CatchUpError::There)?;
        let timestamp = trusted.timestamp().map(|one| (RoleName::timestamp(), one.expires()));
        let snapshot = trusted.snapshot().map(|one| (RoleName::snapshot(), one.expires()));
        let late = timestamp.into_iter().chain(snapshot).find(|(_, at)| at.has_passed(now));
        if let Some((role, at)) = late {
            return Err(CatchUpError::Expired { role, at });
        }
        let near = Near { repository: self, state: before.as_ref() };
        let read = read(&trusted, source, Some(near)).map_err(CatchUpError::There)?;
        self.write(&self.news(&read, roots.0, first))?;
        Ok(read.state)
    }

    /// Returns what is believed here, or `first` where nothing is here yet.
    fn believed<E: Error + 'static>(
        &self,
        first: Option<&Bytes>,
    ) -> Result<Trusted, CatchUpError<E>> {
        let mut trusted = match (self.first(), first) {
            (Err(ReadError::Empty), Some(root)) => {
                let kept = Kept { root: root.clone(), ..Kept::default() };
                let trusted = Trusted::load(&kept)
                    .map_err(|error| CatchUpError::Here(ReadError::Root(error)))?;
                let found = trusted.root().version();
                if found != Version::FIRST {
                    return Err(CatchUpError::NotFirst { found });
                }
                return Ok(trusted);
            }
            (here, _) => here.map_err(CatchUpError::Here)?,
        };
        match go_through(&mut trusted, &mut Here(&*self.backend), &mut NoKeeper) {
            // A catching up was cut short behind the new roots: their keys do not vouch for what lies here, and so
            // it binds nobody.
            Err(ReadError::Documents(DriveError::Refused(Refusal {
                fault: Fault::Verify(VerifyError::Threshold { .. }),
                ..
            })))
            | Ok(()) => Ok(trusted),
            Err(error) => Err(CatchUpError::Here(error)),
        }
    }

    /// Returns what has to be written, in its order: the timestamp comes last, and the roots before it, because it is what
    /// they vouch for. But without the first root nothing was published.
    fn news(&self, read: &Read, roots: Vec<(String, Bytes)>, first: Option<&Bytes>) -> Publication {
        let Read { state, roles, files } = read;
        let mut documents = roles.clone();
        let (targets, snapshot) = (&state.targets, &state.snapshot);
        documents.extend([
            (RoleName::targets().place(Some(targets.version())), targets.bytes().clone()),
            (RoleName::snapshot().place(Some(snapshot.version())), snapshot.bytes().clone()),
        ]);
        documents.extend(roots);
        documents.push((RoleName::timestamp().place(None), state.timestamp.bytes().clone()));
        if let Some(first) = first.filter(|_| matches!(self.first(), Err(ReadError::Empty))) {
            documents.push((RoleName::root().place(Some(Version::FIRST)), first.clone()));
        }
        documents.retain(|(place, bytes)| !self.holds(place, bytes));
        let is_new = |path, file| self.file(path, file).is_err();
        let files = files.iter().filter(|(path, file, _)| is_new(path, file)).cloned().collect();
        Publication { files, documents }
    }

    /// Returns the document at `place` if it is the one that `pin` means.
    pub(super) fn pinned(&self, place: &str, pin: &Pin) -> Option<Bytes> {
        let (length, hashes) = (pin.length?, pin.hashes.as_ref()?);
        let bytes = read_file(&*self.backend, &metadata(place), length).ok()?;
        (bytes.len() as u64 == length && hashes.check(&bytes).is_ok()).then(|| bytes.into())
    }

    fn holds(&self, place: &str, bytes: &[u8]) -> bool {
        read_file(&*self.backend, &metadata(place), bytes.len() as u64)
            .is_ok_and(|here| here == bytes)
    }
}

/// Takes note of the roots on the way.
#[derive(Default)]
struct Roots(Vec<(String, Bytes)>);

impl Keeper for Roots {
    type Error = Infallible;

    fn keep(&mut self, keep: Keep) -> Result<(), Infallible> {
        if let Keep::Document { role, version, bytes } = keep
            && role == RoleName::root()
        {
            self.0.push((role.place(Some(version)), bytes));
        }
        Ok(())
    }

    fn load(&mut self, _: &RoleName) -> Option<Bytes> {
        None
    }
}

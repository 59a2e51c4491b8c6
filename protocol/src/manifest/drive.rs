//! Driving a refresh or a search to its end, for whoever may block.
//!
//! An async shell drives [`Refresh`] and [`Search`] itself; it has the same three things to do: fetch,
//! keep, and look up what was kept.

use std::error::Error;

use bytes::Bytes;

use super::name::{RoleName, TargetPath};
use super::refresh::{Answer, Fetch, Keep, Refresh};
use super::search::{Found, Search, SearchStep};
use super::sweep::{Roles, Sweep, SweepStep};
use super::trusted::{Refusal, Trusted};

/// Where documents come from.
pub trait Repository {
    /// Why a document could not be fetched: neither had, nor known to be absent.
    type Error: Error + 'static;

    /// Fetches a document, reading at most one byte more than its bound.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being fetched; the update ends with it.
    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, Self::Error>;
}

/// Where what is believed survives.
pub trait Keeper {
    /// Why something could not be made durable.
    type Error: Error + 'static;

    /// Makes it durable.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being durable; the update ends with it.
    fn keep(&mut self, keep: Keep) -> Result<(), Self::Error>;

    /// Returns what was kept of a delegated role, if anything that can be read.
    fn load(&mut self, role: &RoleName) -> Option<Bytes>;
}

/// Why an update came to no good end. What was believed on the way is kept.
#[derive(Debug, thiserror::Error)]
pub enum DriveError<R: Error + 'static, K: Error + 'static> {
    /// The repository could not be asked.
    #[error("fetch {place}")]
    Fetch {
        /// Where in the repository.
        place: String,
        /// What went wrong.
        source: R,
    },
    /// What is believed could not be made durable. It is to be given up, and loaded again from what was
    /// kept: a start would not find it.
    #[error("keep what is believed of the manifest")]
    Keep(#[source] K),
    /// The repository's answer is not believed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The outcome of driving something over a repository and a keeper.
type Driven<T, R, K> = Result<T, DriveError<<R as Repository>::Error, <K as Keeper>::Error>>;

/// Brings what is believed up to date, as of `now`.
///
/// # Errors
///
/// [`DriveError`]; what was believed before it stays believed.
pub fn refresh<R: Repository, K: Keeper>(
    trusted: &mut Trusted,
    repository: &mut R,
    keeper: &mut K,
    now: jiff::Timestamp,
) -> Driven<(), R, K> {
    let mut refresh = Refresh::new(trusted, now);
    let mut outcome = Ok(());
    loop {
        while let Some(keep) = refresh.poll_keep() {
            keeper.keep(keep).map_err(DriveError::Keep)?;
        }
        outcome?;
        let Some(fetch) = refresh.poll_fetch() else { return Ok(()) };
        let answer = ask(repository, &fetch)?;
        outcome = refresh.handle_answer(answer);
    }
}

/// Finds the target file that `path` means, in a manifest that was refreshed at `now`.
///
/// # Errors
///
/// [`DriveError`]; other searches are not concerned.
pub fn find<R: Repository, K: Keeper>(
    trusted: &mut Trusted,
    path: TargetPath,
    repository: &mut R,
    keeper: &mut K,
    now: jiff::Timestamp,
) -> Driven<Option<Found>, R, K> {
    let mut search = Search::new(trusted, path, now)?;
    let mut outcome = Ok(());
    loop {
        while let Some(keep) = search.poll_keep() {
            keeper.keep(keep).map_err(DriveError::Keep)?;
        }
        outcome?;
        outcome = match search.poll() {
            SearchStep::Load(role) => search.handle_kept(keeper.load(&role).as_ref()),
            SearchStep::Fetch(fetch) => {
                let answer = ask(repository, &fetch)?;
                search.handle_answer(answer)
            }
            SearchStep::Done(found) => return Ok(found),
        };
    }
}

/// Reads every delegated role of a manifest that was refreshed at `now`.
///
/// # Errors
///
/// [`DriveError`]; a role that is not believed is none, and is told by [`Roles`].
pub fn sweep<R: Repository, K: Keeper>(
    trusted: &mut Trusted,
    repository: &mut R,
    keeper: &mut K,
    now: jiff::Timestamp,
) -> Driven<Roles, R, K> {
    let mut sweep = Sweep::new(trusted, now)?;
    loop {
        while let Some(keep) = sweep.poll_keep() {
            keeper.keep(keep).map_err(DriveError::Keep)?;
        }
        match sweep.poll() {
            Some(SweepStep::Load(role)) => sweep.handle_kept(keeper.load(&role).as_ref()),
            Some(SweepStep::Fetch(fetch)) => {
                let answer = ask(repository, &fetch)?;
                sweep.handle_answer(answer);
            }
            None => return Ok(sweep.finish()),
        }
    }
}

fn ask<R: Repository, K: Error>(
    repository: &mut R,
    fetch: &Fetch,
) -> Result<Answer, DriveError<R::Error, K>> {
    repository
        .fetch(fetch)
        .map_err(|source| DriveError::Fetch { place: fetch.place.clone(), source })
}

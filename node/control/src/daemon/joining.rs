//! The port at which machines join and renew: apart from the one for members, because who joins has no
//! certificate yet.
//!
//! It stands on an authority that can name nodes and agents and nobody else, and on tokens that were made
//! where the organisation's own keys or an admin's are. Whoever the orders revoke renews nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sutler_swarm::Endpoint;
use sutler_swarm::endpoint::BindError;
use sutler_swarm::enrol::{EnrolLimits, Enrolment};
use sutler_swarm::identity::{Authority, AuthorityOpenError};

use crate::members::{MEMBER_LIFETIME, Members, OpenError, Powers, RootFolder, TokenMakers};

/// Why no machine can join.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// There is no authority to name members by.
    #[error("open the authority that names members")]
    Authority(#[source] AuthorityOpenError),
    /// Who has joined cannot be told.
    #[error("read who has joined")]
    Members(#[source] OpenError),
    /// The address cannot be listened at.
    #[error("listen for machines that join")]
    Bind(#[source] BindError),
}

/// Opens the port at `address` for the control in `data`, where the tokens of `token_makers` count. Must be
/// called within a tokio runtime; waits for the disk.
///
/// # Errors
///
/// [`JoiningError`].
pub(super) fn open(
    address: SocketAddr,
    data: &Path,
    endpoint: &Endpoint,
    token_makers: TokenMakers,
) -> Result<Enrolment<Members>, JoiningError> {
    let (identity, revocations) = (endpoint.identity(), endpoint.revocations().clone());
    let powers = Powers {
        authority: Authority::open(&data.join("authority")).map_err(JoiningError::Authority)?,
        token_makers,
        root_files: RootFolder::new(data.join("repository/metadata")),
        revocations: revocations.clone(),
        lifetime: MEMBER_LIFETIME,
    };
    let members = Members::open(&data.join("members"), powers).map_err(JoiningError::Members)?;
    let (clock, limits) = (endpoint.clock().clone(), EnrolLimits::default());
    Enrolment::bind(address, identity, revocations, clock, limits, Arc::new(members))
        .map_err(JoiningError::Bind)
}

//! Order files: which is which, and whether one may follow another.

use bytes::Bytes;
use sutler_orders::admission::Revocations;
use sutler_orders::order::{Body, Head, Place};
use sutler_orders::{
    Approvals, Halts, Kind, Order, OrderError, Policies, Rings, Schedules, Sites, Standing,
};
use sutler_protocol::manifest::{RoleName, TargetPath};
use sutler_protocol::name::{Label, Organisation};

/// Kinds of order files that are targets.
const KINDS: [Kind; 8] = [
    Kind::Approvals,
    Kind::Standing,
    Kind::Policies,
    Kind::Schedules,
    Kind::Sites,
    Kind::Rings,
    Kind::Halts,
    Kind::Revocations,
];

/// Why an order file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No order file lies there.
    #[error("no order file of {role} lies at this path")]
    Place {
        /// The role that names it.
        role: RoleName,
    },
    /// It is no order file, or not one of this organisation and scope.
    #[error("read the order file")]
    Order(#[from] OrderError),
    /// A device would take it for a replay.
    #[error("its field seq is {found}, and has to be more than {before}")]
    Seq {
        /// Of the one before.
        before: u64,
        /// What it says.
        found: u64,
    },
}

/// Checks the order file at `path` of `role`, which follows `before`.
///
/// # Errors
///
/// [`FileError`].
pub fn check(
    role: &RoleName,
    path: &TargetPath,
    bytes: &[u8],
    before: Option<&Bytes>,
    organisation: &Organisation,
) -> Result<(), FileError> {
    let (kind, scope) = place(role, path).ok_or_else(|| FileError::Place { role: role.clone() })?;
    let place = Place { organisation, scope: scope.as_ref() };
    let head = head(kind, bytes, Some(place))?;
    let Some(before) = before else { return Ok(()) };
    let before = self::head(kind, before, None)?.seq;
    if head.seq <= before {
        return Err(FileError::Seq { before, found: head.seq });
    }
    Ok(())
}

/// Returns the head of an order file, which is read to its end.
///
/// # Errors
///
/// [`OrderError`].
pub fn head(kind: Kind, bytes: &[u8], place: Option<Place<'_>>) -> Result<Head, OrderError> {
    fn of<B: Body>(bytes: &[u8], place: Option<Place<'_>>) -> Result<Head, OrderError> {
        let order = Order::<B>::read(bytes)?;
        if let Some(place) = place {
            order.belongs(place)?;
        }
        Ok(order.head)
    }
    match kind {
        Kind::Approvals => of::<Approvals>(bytes, place),
        Kind::Standing => of::<Standing>(bytes, place),
        Kind::Policies => of::<Policies>(bytes, place),
        Kind::Schedules => of::<Schedules>(bytes, place),
        Kind::Sites => of::<Sites>(bytes, place),
        Kind::Rings => of::<Rings>(bytes, place),
        Kind::Halts => of::<Halts>(bytes, place),
        Kind::Revocations => of::<Revocations>(bytes, place),
        Kind::Content | Kind::Denial | Kind::Scope | Kind::Report => {
            Err(OrderError::NoObject { document: kind })
        }
    }
}

/// Returns which order file lies at `path` of `role`, and its scope.
pub fn place(role: &RoleName, path: &TargetPath) -> Option<(Kind, Option<Label>)> {
    let scope = path.as_str().split('/').nth(1).and_then(|part| part.parse::<Label>().ok());
    KINDS.into_iter().find_map(|kind| {
        let scope = scope.clone().filter(|_| kind.has_scope());
        let (signer, file) = kind.target(scope.as_ref())?;
        (signer == role.as_str() && file == path.as_str()).then_some((kind, scope))
    })
}

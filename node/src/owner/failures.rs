//! What becomes of the errors of `cache` and `swarm` where a user is told of them.
//!
//! Each error keeps its text; added are the stable kind and, where there is something that a user
//! can do, what that is.

use std::error::Error;
use std::io;

use sutler_cache::import::ImportError;
use sutler_cache::relocate::RelocateError;
use sutler_cache::{
    CompleteError, CreateError, OpenError, PromoteError, QuarantineError, ReadError,
};
use sutler_protocol::frame::Refusal;
use sutler_swarm::FetchError;
use sutler_swarm::origin::{OriginError, ReplyFault};
use sutler_swarm::peer::RequestError;

use crate::failure::{Failure, Kind};

const MAKE_ROOM: &str = "`sutler store gc` frees what is not pinned; or raise bytes_max in [store]";

const LIST_THE_ORIGIN: &str = "list the origin in [origin] allow of the config";

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let help = match &error {
            OpenError::Owned => Some("wait until the other process has ended"),
            OpenError::Newer { .. } => Some("use the program that made it, or a later one"),
            _ => None,
        };
        let kind = if no_space(&error) { Kind::NoSpace } else { Kind::Store };
        let failure = Self::because(kind, "open the store", &error);
        match help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::from_error(Kind::Store, &error)
    }
}

impl From<RelocateError> for Failure {
    fn from(error: RelocateError) -> Self {
        let kind = match &error {
            _ if no_space(&error) => Kind::NoSpace,
            RelocateError::Open(_) | RelocateError::Copy { .. } | RelocateError::Switch { .. } => {
                Kind::Store
            }
            _ => Kind::File,
        };
        let failure = Self::because(kind, "move the store", &error);
        match error {
            RelocateError::Open(OpenError::Owned) => {
                failure.with_help("stop the node or agent that owns it, and start it afterwards")
            }
            _ => failure,
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let kind = match &error {
            _ if no_space(&error) => Kind::NoSpace,
            ImportError::Digest { .. } => Kind::Corrupt,
            ImportError::NotAFile { .. }
            | ImportError::Read { .. }
            | ImportError::Changed { .. }
            | ImportError::TooLong { .. } => Kind::File,
            ImportError::Full { .. } => Kind::NoSpace,
            ImportError::Create { source, .. } => kind_of_create(source),
            ImportError::Complete { source, .. } => kind_of_complete(source),
            ImportError::Write { .. } => Kind::Store,
        };
        let failure = Self::from_error(kind, &error);
        match kind {
            Kind::NoSpace => failure.with_help(MAKE_ROOM),
            Kind::Corrupt => failure.with_help("nothing was stored: get the file again"),
            _ => failure,
        }
    }
}

impl From<CompleteError> for Failure {
    fn from(error: CompleteError) -> Self {
        Self::from_error(kind_of_complete(&error), &error)
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        Self::from_error(kind_of_create(&error), &error)
    }
}

impl From<OriginError> for Failure {
    fn from(error: OriginError) -> Self {
        let kind = kind_of_origin(&error);
        let failure = Self::from_error(kind, &error);
        match kind {
            Kind::Refused => failure.with_help(LIST_THE_ORIGIN),
            _ => failure,
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let kind = match &error {
            _ if no_space(&error) => Kind::NoSpace,
            FetchError::Unknown { .. } => Kind::UnknownContent,
            FetchError::Digest { .. } => Kind::Corrupt,
            FetchError::Identity { .. } | FetchError::NoOrigins => Kind::Refused,
            FetchError::Resolve { source: RequestError::Refused(refusal), .. } => {
                kind_of_refusal(refusal)
            }
            FetchError::NoSource { .. } | FetchError::Resolve { .. } => Kind::Unreachable,
            FetchError::Origin(source) => kind_of_origin(source),
            FetchError::Promote(source) => kind_of_promote(source),
            FetchError::Quarantine(QuarantineError::Full { .. }) => Kind::NoSpace,
            FetchError::Create(source) => kind_of_create(source),
            FetchError::Complete { source, .. } => kind_of_complete(source),
            _ => Kind::Store,
        };
        let failure = Self::from_error(kind, &error);
        match kind {
            Kind::NoSpace => failure.with_help(MAKE_ROOM),
            Kind::Unreachable => failure.with_help(
                "what was verified is kept: run the same command again, or name more sources",
            ),
            Kind::Refused if matches!(error, FetchError::Origin(_)) => {
                failure.with_help(LIST_THE_ORIGIN)
            }
            _ if matches!(error, FetchError::Quarantine(QuarantineError::Busy { .. })) => {
                failure.with_help("wait until that has ended, and run the same command again")
            }
            _ => failure,
        }
    }
}

/// Returns what a command says that was stopped.
pub(super) fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "interrupted")
        .with_help("what was verified is kept: run the same command again")
}

fn kind_of_origin(error: &OriginError) -> Kind {
    match error {
        OriginError::Refused { .. }
        | OriginError::RedirectRefused { .. }
        | OriginError::Address { .. } => Kind::Refused,
        OriginError::Fault { source: ReplyFault::Status { status: 404 | 410 }, .. } => {
            Kind::UnknownContent
        }
        _ => Kind::Unreachable,
    }
}

/// Returns what it means to a user that a node does not give a vendor's file.
const fn kind_of_refusal(refusal: &Refusal) -> Kind {
    match refusal {
        Refusal::Unknown | Refusal::NotHeld => Kind::UnknownContent,
        Refusal::OriginNotAllowed => Kind::Refused,
        Refusal::DigestDiffers | Refusal::LengthDiffers { .. } | Refusal::Damaged => Kind::Corrupt,
        _ => Kind::Unreachable,
    }
}

fn kind_of_create(error: &CreateError) -> Kind {
    match error {
        _ if no_space(error) => Kind::NoSpace,
        CreateError::Full { .. } => Kind::NoSpace,
        CreateError::Length { .. } | CreateError::Digest { .. } => Kind::Corrupt,
        _ => Kind::Store,
    }
}

fn kind_of_promote(error: &PromoteError) -> Kind {
    match error {
        PromoteError::Mismatch { .. } => Kind::Corrupt,
        PromoteError::Create { source, .. } => kind_of_create(source),
        PromoteError::Complete { source, .. } => kind_of_complete(source),
        _ => Kind::Store,
    }
}

fn kind_of_complete(error: &CompleteError) -> Kind {
    match error {
        _ if no_space(error) => Kind::NoSpace,
        CompleteError::Digest { .. } | CompleteError::Lacking { .. } => Kind::Corrupt,
        _ => Kind::Store,
    }
}

/// Returns whether a full disk is at the bottom of it.
fn no_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| Kind::of_io(io, Kind::Store) == Kind::NoSpace) {
            return true;
        }
        next = error.source();
    }
    false
}

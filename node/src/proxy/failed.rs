//! Why a file is not given to a client, and what the client is told.

use hyper::StatusCode;
use sutler_cache::{PromoteError, QuarantineError};
use sutler_protocol::frame::Refusal;
use sutler_swarm::fetch::FetchError;
use sutler_swarm::gateway::causes;
use sutler_swarm::origin::{Blame, OriginError, ReplyFault};

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The origin says so, finally: it has none, or does not give it to us.
    Status(u16),
    /// The URL may not be asked for, or leads to where we may not go.
    Forbidden(String),
    /// The origin answered with a page for people.
    Page,
    /// The origin is in trouble, or the way there is.
    Trouble(String),
    /// The origin wants to be left alone for so many seconds.
    Busy(u64),
    /// The bytes are not the ones that a verified index names.
    Mismatch,
    /// There is no room for it. Who asks is given it without its being kept.
    NoRoom,
    /// The store is in trouble.
    Store(String),
    /// There is too much to do at once.
    TooMany,
    /// We are being stopped.
    Stopping,
}

impl Failed {
    /// Returns the status to answer with.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Status(status) => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Page | Self::Trouble(_) | Self::Mismatch => StatusCode::BAD_GATEWAY,
            Self::Busy(_) | Self::TooMany | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns when to come again, in seconds, where that is known.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Busy(seconds) => Some(*seconds),
            Self::TooMany | Self::Stopping => Some(5),
            _ => None,
        }
    }

    /// Returns what is wrong, and what to do about it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Status(status) => format!("The origin answered with status {status}."),
            Self::Forbidden(why) => format!(
                "The origin may not be asked: {why}.\nIts host is to be in `http_proxy.allow` of the \
                 node's config; one on a private network with `private = true`."
            ),
            Self::Page => "The origin answered with a web page in place of the file: perhaps the \
                           login page of a network. Nothing of it was kept."
                .to_owned(),
            Self::Trouble(why) => format!("The origin could not be read: {why}."),
            Self::Busy(seconds) => format!("The origin is busy. Try again in {seconds} s."),
            Self::Mismatch => "The bytes are not the ones that the signed index names. Nothing of \
                               them was kept."
                .to_owned(),
            Self::NoRoom => "The store has no room for the file.".to_owned(),
            Self::Store(why) => format!("The node's store is in trouble: {why}."),
            Self::TooMany => "Too many files are being fetched at once. Try again soon.".to_owned(),
            Self::Stopping => "The node is being stopped.".to_owned(),
        }
    }

    /// Returns whether the origin itself said that it will not give this file.
    pub(super) const fn is_final(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Returns whether what is held may be given out in its place, marked as stale.
    pub(super) const fn is_trouble(&self) -> bool {
        matches!(self, Self::Page | Self::Trouble(_) | Self::Busy(_) | Self::TooMany)
    }

    /// Returns whether only our disk is to blame, so that the bytes can still be passed on.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self, Self::NoRoom | Self::Store(_))
    }
}

impl From<&OriginError> for Failed {
    fn from(error: &OriginError) -> Self {
        let why = || causes(error);
        match error.fault() {
            Some(ReplyFault::Busy { retry_after, .. }) => {
                Self::Busy(retry_after.map_or(5, |pause| pause.as_secs()).max(1))
            }
            // What the origin says about the question, not about itself.
            Some(ReplyFault::Status { status })
                if (400..500).contains(status) && !matches!(status, 407 | 408 | 425) =>
            {
                Self::Status(*status)
            }
            Some(_) => Self::Trouble(why()),
            None if error.blame() == Blame::Asker => Self::Forbidden(why()),
            None => match error {
                OriginError::RedirectRefused { .. } | OriginError::Address { .. } => {
                    Self::Forbidden(why())
                }
                _ => Self::Trouble(why()),
            },
        }
    }
}

impl From<&FetchError> for Failed {
    fn from(error: &FetchError) -> Self {
        match error {
            FetchError::Origin(error) => Self::from(error),
            FetchError::Unwanted => Self::Page,
            FetchError::Digest { .. } => Self::Mismatch,
            FetchError::Promote(error) => match &**error {
                PromoteError::Mismatch { .. } => Self::Mismatch,
                PromoteError::Create { source, .. } => match **source {
                    sutler_cache::CreateError::Full { .. } => Self::NoRoom,
                    _ => Self::Store(causes(&**error)),
                },
                _ => Self::Store(causes(&**error)),
            },
            FetchError::Quarantine(QuarantineError::Full { .. }) => Self::NoRoom,
            FetchError::Quarantine(QuarantineError::PastEnd { .. }) => Self::Trouble(causes(error)),
            _ => Self::Store(causes(error)),
        }
    }
}

impl From<&Refusal> for Failed {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::DigestDiffers => Self::Mismatch,
            Refusal::Busy { .. } => Self::TooMany,
            Refusal::Draining => Self::Stopping,
            Refusal::OriginNotAllowed => Self::Forbidden(refusal.to_string()),
            Refusal::StoreFailed { .. } => Self::Store(refusal.to_string()),
            _ => Self::Trouble(refusal.to_string()),
        }
    }
}

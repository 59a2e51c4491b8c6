//! Why bytes did not come from an origin, who is to blame, and whether to ask again.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use crate::origin::address::AddressRefused;
use crate::origin::allow::{EntryProblem, Refused, Shown};
use crate::origin::reply::ReplyFault;

/// Why an origin was not read, or not to the end.
///
/// URLs in it are without their query, which may hold a signature.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The URL may not be asked for. Nothing was sent.
    #[error("{url} is not to be asked for")]
    Refused {
        /// The URL that was refused.
        url: Shown,
        /// Why.
        source: Refused,
    },
    /// The origin redirects to where we may not go. Nothing was sent there.
    #[error("{from} redirects to {to}")]
    RedirectRefused {
        /// Where the redirect came from.
        from: Shown,
        /// Where it leads.
        to: Shown,
        /// Why we may not go there.
        source: Refused,
    },
    /// The origin redirects on and on.
    #[error("{url} redirects more than {max} times")]
    RedirectLoop {
        /// Where the redirects began.
        url: Shown,
        /// How many are followed.
        max: u32,
    },
    /// The host's name leads only to addresses that we may not go to. No connection was made.
    #[error("reach {url}")]
    Address {
        /// The URL that was asked for.
        url: Shown,
        /// One of the addresses, and why not.
        source: AddressRefused,
    },
    /// The name did not resolve, or the connection, the proxy or TLS failed.
    #[error("connect to {url}")]
    Connect {
        /// The URL that was asked for.
        url: Shown,
        /// What failed.
        source: reqwest::Error,
    },
    /// The connection stood, but no reply came that HTTP knows.
    #[error("read the reply of {url}")]
    Reply {
        /// The URL that was asked for.
        url: Shown,
        /// What failed.
        source: reqwest::Error,
    },
    /// The reply is not one to take bytes from.
    #[error("take the reply of {url}")]
    Fault {
        /// The URL that was asked for.
        url: Shown,
        /// What is wrong with it.
        source: ReplyFault,
    },
    /// Nothing came for too long.
    #[error("{url} was silent for {after:?}")]
    Silent {
        /// The URL that was asked for.
        url: Shown,
        /// How long it was silent.
        after: Duration,
    },
    /// Bytes came, but too slowly (T6).
    #[error("{url} sent {bytes} bytes in {over:?}")]
    Slow {
        /// The URL that was asked for.
        url: Shown,
        /// Bytes that came.
        bytes: u64,
        /// In how much time of waiting for them.
        over: Duration,
    },
    /// The connection failed in the middle of the body.
    #[error("receive the body of {url}")]
    Receive {
        /// The URL that was asked for.
        url: Shown,
        /// What failed.
        source: reqwest::Error,
    },
    /// The body ended early.
    #[error("{url} ended {missing} bytes early")]
    Short {
        /// The URL that was asked for.
        url: Shown,
        /// Bytes that did not come.
        missing: u64,
    },
    /// The body went on past its announced end, or past what a content may have (T5).
    #[error("{url} sent more than {expected} bytes")]
    Long {
        /// The URL that was asked for.
        url: Shown,
        /// Bytes that were expected.
        expected: u64,
    },
    /// The body was read on after it had failed.
    #[error("the body of {url} has failed before")]
    Spent {
        /// The URL that was asked for.
        url: Shown,
    },
}

/// Who is to blame when an origin was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Who named the URL: a peer or a record asks for what the operator did not allow.
    Asker,
    /// What the origin answers, or that it does not.
    Origin,
    /// The way there: name, connection, proxy or certificate.
    Path,
}

impl OriginError {
    /// Returns who is to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused { .. } => Blame::Asker,
            Self::Address { .. } | Self::Connect { .. } | Self::Receive { .. } => Blame::Path,
            Self::RedirectRefused { .. }
            | Self::RedirectLoop { .. }
            | Self::Reply { .. }
            | Self::Fault { .. }
            | Self::Silent { .. }
            | Self::Slow { .. }
            | Self::Short { .. }
            | Self::Long { .. }
            | Self::Spent { .. } => Blame::Origin,
        }
    }

    /// Returns the pause that the origin asked for, bounded by
    /// [`RETRY_AFTER_MAX`](crate::origin::reply::RETRY_AFTER_MAX).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fault { source: ReplyFault::Busy { retry_after, .. }, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns whether the same question to the same origin would get the same answer, so that
    /// only another source or another question helps.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::RedirectRefused { .. }
            | Self::RedirectLoop { .. }
            | Self::Address { .. }
            | Self::Long { .. } => true,
            Self::Fault { source, .. } => source.is_final(),
            Self::Connect { .. }
            | Self::Reply { .. }
            | Self::Silent { .. }
            | Self::Slow { .. }
            | Self::Receive { .. }
            | Self::Short { .. }
            | Self::Spent { .. } => false,
        }
    }

    /// Returns what is wrong with the reply, where that is what failed: the asker may ask for the
    /// whole file after [`ReplyFault::WholeOnly`], or without validators after
    /// [`ReplyFault::Changed`].
    pub fn fault(&self) -> Option<&ReplyFault> {
        match self {
            Self::Fault { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Sorts what the client says about a request that got no reply.
    pub(crate) fn of_request(url: Shown, error: reqwest::Error) -> Self {
        let source = error.without_url();
        let mut cause: Option<&(dyn Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<AddressRefused>() {
                return Self::Address { url, source: refused.clone() };
            }
            cause = error.source();
        }
        if source.is_connect() {
            Self::Connect { url, source }
        } else {
            Self::Reply { url, source }
        }
    }
}

impl ReplyFault {
    /// Returns whether asking again would get the same answer.
    pub fn is_final(&self) -> bool {
        match self {
            // Request time-out, too early, and the server's or its gateway's own trouble.
            Self::Status { status } => !matches!(status, 408 | 425 | 500 | 502 | 504 | 520..=530),
            Self::Busy { .. } => false,
            _ => true,
        }
    }
}

/// Everything that is wrong with the `[origin]` part of a config.
#[derive(Debug)]
pub struct OriginConfigError {
    /// What is wrong, in the order of the config.
    pub problems: Vec<OriginProblem>,
}

/// One thing that is wrong with the `[origin]` part of a config.
#[derive(Debug, thiserror::Error)]
pub enum OriginProblem {
    /// An entry of the allow-list.
    #[error("allow[{position}] `{url}`: {}", causes(problem))]
    Entry {
        /// Its position, from 0.
        position: usize,
        /// The entry as written.
        url: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The proxy, which is `http://` or `https://` with a host, or `"none"`.
    #[error("{from}: a proxy is `http://HOST:PORT`, `https://HOST:PORT` or \"none\"")]
    Proxy {
        /// The setting or variable that it came from. Its value may hold a password.
        from: &'static str,
    },
    /// A file of authorities.
    #[error("ca_files `{}`: {problem}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: AuthoritiesProblem,
    },
    /// No authority at all, while an origin uses HTTPS.
    #[error("trust the system's authorities for HTTPS: {0}")]
    Trust(rustls::Error),
    /// The client could not be built.
    #[error("build the HTTP client: {}", causes(.0))]
    Client(reqwest::Error),
}

/// What is wrong with a file of authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesProblem {
    /// It cannot be read as PEM.
    #[error("{0}")]
    Read(rustls_pki_types::pem::Error),
    /// It holds no certificate.
    #[error("no certificate in it")]
    Empty,
}

impl std::fmt::Display for OriginConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the [origin] part of the config is wrong")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Error for OriginConfigError {}

/// An error and its causes in one line, for a report of several.
fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

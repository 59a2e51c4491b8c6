//! Who is there, and what do they have: connects to a source and asks it to open the content.

use std::time::Duration;

use sutler_protocol::close::CloseCode;
use sutler_protocol::fetch::Kind;
use sutler_protocol::frame::{Body, Class, Holding, Opened, Refusal};
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, ChunkIndex};
use sutler_protocol::{ContentId, Geometry, HashList};
use url::Url;

use super::links::Links;
use super::report::SourceKind;
use super::{FetchError, SourceAddress};
use crate::ended::Ended;
use crate::gateway::causes;
use crate::identity::Role;
use crate::peer::{ConnectError, Peer, RequestError};

/// The round trip to an origin until it is measured.
const ORIGIN_RTT: Duration = Duration::from_millis(50);

/// A source that is ready to be asked.
#[derive(Clone)]
pub(super) enum Link {
    Peer(Peer),
    Origin(Url),
}

/// What a source said of itself and of the content.
pub(super) struct Introduced {
    pub(super) link: Link,
    pub(super) kind: SourceKind,
    pub(super) rtt: Duration,
    /// The content's length in bytes as the source claims it; `None` from an origin, which is not
    /// asked before it is needed.
    pub(super) len: Option<u64>,
    pub(super) holding: Holding,
    /// The hash list it sent, which merges to the id.
    pub(super) hashes: Option<HashList>,
    /// The content itself, verified, if it has one chunk.
    pub(super) whole: Option<Vec<u8>>,
}

/// Why a source cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Useless {
    pub(super) reason: String,
    /// Whether it only does not know the content.
    pub(super) is_unknown: bool,
    /// Whether one side did not accept the other's certificate.
    pub(super) is_identity: bool,
    /// Whether to try again, if it was once connected.
    pub(super) again: Again,
    /// How long to wait where it was only busy.
    pub(super) busy_for: Option<Duration>,
}

/// Whether trying a source again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It would say the same.
    No,
    /// It is silent or was cut off, which may pass.
    Perhaps,
    /// Its machine says that nobody listens there: only if it is started anew.
    IfStarted,
}

/// Connects to a source and asks what it has, and for the hash list if that is `wanted`.
///
/// Cancel-safe: what was begun is given up.
pub(super) async fn introduce(
    links: Links,
    address: SourceAddress,
    content: ContentId,
    class: Class,
    list: Body,
) -> Result<Introduced, Useless> {
    let address = match address {
        SourceAddress::Peer(address) => address,
        SourceAddress::Origin(url) => return Ok(Introduced::origin(url)),
    };
    let unconnected = |error| Useless::unconnected(&error);
    let mut peer = links.peer(address, class).await.map_err(unconnected)?;
    let mut answer = peer.open(content, list, class).await;
    if let Err(RequestError::Connection(ended)) = &answer
        && !matches!(ended, Ended::Identity(_))
    {
        // One that was kept from earlier may lead to a process that is no more.
        peer = links.peer(address, class).await.map_err(unconnected)?;
        answer = peer.open(content, list, class).await;
    }
    let (opened, body) = answer.map_err(|error| Useless::of(&error))?;
    let introduced = Introduced::peer(peer.clone(), content, opened, &body);
    if introduced.is_err() {
        peer.close(CloseCode::BadFrame);
    }
    introduced
}

impl Introduced {
    fn origin(url: Url) -> Self {
        Self {
            link: Link::Origin(url),
            kind: SourceKind::Vendor,
            rtt: ORIGIN_RTT,
            len: None,
            holding: Holding::Whole,
            hashes: None,
            whole: None,
        }
    }

    fn peer(peer: Peer, id: ContentId, opened: Opened, body: &[u8]) -> Result<Self, Useless> {
        let Opened { len, holding, .. } = opened;
        let geometry = Geometry::of(len).map_err(|error| Useless::violation(&error))?;
        holding.now(geometry).map_err(|error| Useless::violation(&error))?;
        let kind = match peer.name().role() {
            Role::Node => SourceKind::Node,
            Role::Agent | Role::Control => SourceKind::Peer,
        };
        let rtt = peer.rtt();
        let link = Link::Peer(peer);
        let mut introduced =
            Self { link, kind, rtt, len: Some(len), holding, hashes: None, whole: None };
        if len <= CHUNK_BYTES_MIN {
            let hashes = HashList::of_one_chunk(id, len);
            let verified =
                hashes.as_ref().is_some_and(|list| list.vouches_for(ChunkIndex(0), body));
            // An empty answer from who has none of it is honest.
            if !verified && !body.is_empty() {
                return Err(Useless::bad("sent bytes that did not verify"));
            }
            introduced.whole = verified.then(|| body.to_vec());
            introduced.hashes = hashes;
        } else if !body.is_empty() {
            let list =
                HashList::verify(body, id, len).map_err(|error| Useless::violation(&error))?;
            introduced.hashes = Some(list);
        }
        Ok(introduced)
    }

    /// Returns the source's kind as the scheduler sees it.
    pub(super) const fn scheduled_as(&self) -> Kind {
        match self.kind {
            SourceKind::Vendor => Kind::Vendor,
            SourceKind::Peer | SourceKind::Node => Kind::Peer,
        }
    }
}

impl Useless {
    pub(super) fn of(error: &RequestError) -> Self {
        Self {
            reason: causes(error),
            is_unknown: matches!(error, RequestError::Refused(Refusal::Unknown)),
            is_identity: error.is_identity(),
            again: Again::after(error),
            busy_for: error.busy_for(),
        }
    }

    pub(super) fn unconnected(error: &ConnectError) -> Self {
        Self {
            reason: causes(error),
            is_unknown: false,
            is_identity: matches!(error, ConnectError::Identity { .. }),
            again: match error {
                ConnectError::Nobody { .. } => Again::IfStarted,
                ConnectError::Silent { .. } | ConnectError::Failed { .. } => Again::Perhaps,
                _ => Again::No,
            },
            busy_for: None,
        }
    }

    pub(super) fn bad(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            is_unknown: false,
            is_identity: false,
            again: Again::No,
            busy_for: None,
        }
    }

    fn violation(error: &dyn std::error::Error) -> Self {
        Self::bad(&causes(error))
    }
}

impl Again {
    fn after(error: &RequestError) -> Self {
        match error {
            _ if error.is_identity() => Self::No,
            RequestError::Connection(Ended::Nobody) => Self::IfStarted,
            RequestError::Connection(_)
            | RequestError::Broken(_)
            | RequestError::Refused(Refusal::Draining) => Self::Perhaps,
            _ => Self::No,
        }
    }
}

/// Returns the error for a fetch that no source could serve.
pub(super) fn no_source(content: String, useless: Vec<(String, Useless)>) -> FetchError {
    if !useless.is_empty() && useless.iter().all(|(_, useless)| useless.is_unknown) {
        return FetchError::Unknown { content };
    }
    let is_identity = !useless.is_empty() && useless.iter().all(|(_, useless)| useless.is_identity);
    let sources = useless.into_iter().map(|(source, useless)| (source, useless.reason)).collect();
    if is_identity {
        return FetchError::Identity { content, sources };
    }
    FetchError::NoSource { content, sources }
}

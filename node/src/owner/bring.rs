//! Bringing contents into the store: from peers and origins, by the rules of `swarm`.
//!
//! Driven by commands and by connections of the local socket, each on a thread that may block; the
//! transfers themselves run on the runtime that the [`Bringer`] was given. Whoever waits is told a
//! few times a second how far it has come, and if nobody waits any more the transfer ends.

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use sutler_cache::{About, Imported, Origin, Place, QuarantineKey, Store};
use sutler_protocol::frame::Class;
use sutler_protocol::{ContentId, ContentName, Sha256Digest};
use sutler_swarm::fetch::{Each, FileFetcher, Progress as FetchProgress};
use sutler_swarm::gateway::Filled;
use sutler_swarm::origin::Origins;
use sutler_swarm::{FetchError, Fetcher, SourceAddress, Wanted};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::failures::interrupted;
use crate::failure::{Failure, Kind};
use crate::local::{Body, FetchRequest, OnEach, OnProgress, Ready};
use crate::report::{Fetched, Progress, SourceBytes, SourceDropped, SourceKind};

/// How often whoever waits is told how far it has come, and found to be gone.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Contents of a list that wait to be handed over, at most.
const EACH_MAX: usize = 64;

/// Brings contents from peers and origins. Cheap to clone.
#[derive(Clone)]
pub struct Bringer {
    /// Where transfers run.
    pub runtime: Handle,
    /// Fetches from peers. Absent if this machine has no identity.
    pub fetcher: Option<Fetcher>,
    /// Downloads from origins. Absent if none is allowed.
    pub origins: Option<Origins>,
    /// Ends every transfer that runs.
    pub stop: CancellationToken,
}

impl Bringer {
    /// Brings one content, and returns it with where its bytes came from.
    pub(super) fn fetch(
        &self,
        request: &FetchRequest,
        progress: OnProgress<'_>,
    ) -> Result<Ready, Failure> {
        let fetcher = self.fetcher()?;
        let (name, mut wanted) = wanted(request)?;
        let (sender, told) = watch::channel(FetchProgress::default());
        // A vendor's file that the store knows already is a content like any other.
        let unknown = match name {
            ContentName::Id(_) => None,
            ContentName::Vendor(sha256) => match fetcher.store().by_digest(sha256) {
                Some(id) => {
                    (wanted.content, wanted.about.sha256) = (id, Some(sha256));
                    None
                }
                None => Some(sha256),
            },
        };
        let fetcher = fetcher.clone();
        let fetched = match unknown {
            None => {
                let fetching = async move { fetcher.fetch(&wanted, &sender).await };
                self.watched(fetching, &told, &request.name, progress)?
            }
            Some(sha256) => {
                let url = vendor_url(request)?;
                let is_peer = |source: &SourceAddress| matches!(source, SourceAddress::Peer(_));
                if !wanted.sources.iter().any(is_peer) {
                    return self.fetch_from_vendor(sha256, &url, wanted, progress);
                }
                let fetching =
                    async move { fetcher.fetch_vendor(sha256, &url, wanted, &sender).await };
                self.watched(fetching, &told, &request.name, progress)?
            }
        };
        Ok(ready(fetched, name))
    }

    /// Brings a vendor's file from the vendor itself: no peer was named who would do so.
    fn fetch_from_vendor(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        wanted: Wanted,
        progress: OnProgress<'_>,
    ) -> Result<Ready, Failure> {
        let started = Instant::now();
        let about = About { sha256: Some(sha256), ..wanted.about };
        let (sender, told) = watch::channel(FetchProgress::default());
        let filled = move |filled: Filled| {
            sender.send_modify(|told| (told.have_bytes, told.len) = (filled.have, filled.len));
        };
        let key = QuarantineKey::Digest(sha256);
        let (fetcher, url) = (self.fetcher()?.clone(), url.clone());
        let place = url.to_string();
        let fetching = async move { fetcher.fetch_whole(key, &url, about, filled).await };
        let subject = sha256.to_string();
        let (content, received) = self.watched(fetching, &told, &subject, progress)?;
        let bytes = content.geometry().len();
        let vendor = received.min(bytes);
        let sources: Vec<SourceBytes> =
            [(SourceKind::Disk, None, bytes - vendor), (SourceKind::Vendor, Some(place), vendor)]
                .map(|(kind, address, bytes)| SourceBytes { kind, address, bytes })
                .into_iter()
                .filter(|source| source.bytes > 0)
                .collect();
        let report = Fetched {
            content: content.id().to_string(),
            sha256: Some(subject),
            name: content.about().name,
            bytes,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes_by_source: Fetched::sum_by_kind(&sources),
            sources,
            dropped: Vec::new(),
            bytes_again: received - vendor,
            verified: content.is_complete(),
        };
        Ok(Ready { report, body: Body::Content(content) })
    }

    /// Brings many contents named by their ids over the same connections, and hands each over as
    /// it is complete, in no order.
    pub(super) fn fetch_many(
        &self,
        requests: &[FetchRequest],
        each: OnEach<'_>,
    ) -> Result<(), Failure> {
        let fetcher = self.fetcher()?;
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let (name, wanted) = wanted(request)?;
            if let ContentName::Vendor(digest) = name {
                let what = format!("{digest} is in a list, which takes content ids only");
                return Err(Failure::new(Kind::Usage, what));
            }
            all.push(wanted);
        }
        let names: Vec<ContentId> = all.iter().map(|wanted| wanted.content).collect();
        let (sender, mut receiver) = mpsc::channel(EACH_MAX);
        let (fetcher, stop) = (fetcher.clone(), self.stop.clone());
        // On the runtime, so that `each` runs on this thread and may fetch again by itself. Ends
        // with the list, at a stop, or below.
        let fetching = self.runtime.spawn(async move {
            tokio::select! {
                // Dropped at a stop: what is complete stays so.
                () = fetcher.fetch_many(all, sender) => {}
                // Cancel-safe: a token stays cancelled.
                () = stop.cancelled() => {}
            }
        });
        while let Some(Each { index, result }) = receiver.blocking_recv() {
            let name = ContentName::Id(names[index]);
            let result = result.map(|fetched| ready(fetched, name)).map_err(Failure::from);
            if each(index, result).is_break() {
                fetching.abort();
                return Err(interrupted());
            }
        }
        if self.stop.is_cancelled() { Err(interrupted()) } else { Ok(()) }
    }

    /// Brings a file from its origin into `store`: one that must have the digest that `about` says,
    /// or whatever is there. What came before an interruption is gone on with where it can be.
    pub(super) fn bring_file(
        &self,
        store: &Store,
        url: &Url,
        about: About,
        progress: OnProgress<'_>,
    ) -> Result<Imported, Failure> {
        let origins = self.origins.clone().ok_or_else(|| {
            Failure::new(
                Kind::Refused,
                format!("{url} is not to be asked for: no origin is allowed"),
            )
            .with_help("list it in [origin] allow of the config")
        })?;
        let counters = self.fetcher.as_ref().map(|fetcher| fetcher.counters().clone());
        let files = FileFetcher::new(store.clone(), origins, counters.unwrap_or_default());
        let key = match about.sha256 {
            Some(sha256) => QuarantineKey::Digest(sha256),
            None => QuarantineKey::Place(Place::of(url.as_str())),
        };
        let (sender, told) = watch::channel(FetchProgress::default());
        let filled = move |filled: Filled| {
            sender.send_modify(|told| (told.have_bytes, told.len) = (filled.have, filled.len));
        };
        let (subject, url) = (url.to_string(), url.clone());
        let fetching = async move {
            let (imported, _received) = files.fetch(key, &url, about, filled).await?;
            Ok(imported)
        };
        self.watched(fetching, &told, &subject, progress)
    }

    fn fetcher(&self) -> Result<&Fetcher, Failure> {
        self.fetcher.as_ref().ok_or_else(|| {
            Failure::new(Kind::Refused, "this machine has no identity to show to peers").with_help(
                "make one: sutler org issue ORG_DIR --site SITE --role agent --out DATA/identity",
            )
        })
    }

    /// Waits for a fetch, and tells how far it has come.
    ///
    /// It runs where its sockets are: polled from here, each of its steps would cross from thread
    /// to thread and back.
    fn watched<T: Send + 'static>(
        &self,
        fetching: impl Future<Output = Result<T, FetchError>> + Send + 'static,
        told: &watch::Receiver<FetchProgress>,
        subject: &str,
        progress: OnProgress<'_>,
    ) -> Result<T, Failure> {
        let mut fetching = self.runtime.spawn(fetching);
        let fetched = self.runtime.block_on(async {
            let mut tick = tokio::time::interval(TELL_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    // Cancel-safe: a handle keeps its result until it is taken.
                    done = &mut fetching => return Some(done),
                    // Cancel-safe: a token stays cancelled.
                    () = self.stop.cancelled() => return None,
                    // Cancel-safe: a tick that is missed comes again.
                    _ = tick.tick() => {
                        let (bytes_had, bytes) = {
                            let told = told.borrow();
                            (told.have_bytes, told.len)
                        };
                        let subject = subject.to_owned();
                        if progress(Progress { subject, bytes_had, bytes }).is_break() {
                            return None;
                        }
                    }
                }
            }
        });
        let Some(done) = fetched else {
            // Nothing of it may run on when its asker was told that it has ended.
            fetching.abort();
            drop(self.runtime.block_on(fetching));
            return Err(interrupted());
        };
        let done = done
            .map_err(|error| Failure::because(Kind::Internal, format!("fetch {subject}"), &error));
        done?.map_err(Failure::from)
    }
}

/// Reads a URL that a user typed.
pub(super) fn parse_url(text: &str) -> Result<Url, Failure> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Failure::new(Kind::Usage, format!("{text} is no http:// or https:// URL")))
}

/// Reads a request: what is wanted, and whom to ask.
fn wanted(request: &FetchRequest) -> Result<(ContentName, Wanted), Failure> {
    let name: ContentName = request.name.parse().map_err(|error| {
        Failure::because(Kind::Usage, format!("read the content name {}", request.name), &error)
    })?;
    let mut origins = Vec::new();
    for url in &request.urls {
        origins.push(Origin::at(parse_url(url)?));
    }
    let mut sources = Vec::new();
    for source in &request.sources {
        sources.extend(resolve(source)?);
    }
    let content = match name {
        ContentName::Id(id) => id,
        // Replaced once the digest has led to it.
        ContentName::Vendor(_) => ContentId::from_bytes([0; 32]),
    };
    let about = About { name: request.file_name.clone(), origins, ..About::default() };
    Ok((name, Wanted { content, about, class: Class::Normal, sources }))
}

fn vendor_url(request: &FetchRequest) -> Result<Url, Failure> {
    let url = request.urls.first().ok_or_else(|| {
        Failure::new(Kind::Usage, format!("{} is not known here", request.name))
            .with_help("say where the vendor has it: --url URL")
    })?;
    parse_url(url)
}

/// Reads a source, and finds the address of a host that is named.
fn resolve(source: &str) -> Result<Vec<SourceAddress>, Failure> {
    if let Ok(address) = source.parse() {
        return Ok(vec![address]);
    }
    let usage = |what: String| {
        Failure::new(Kind::Usage, what)
            .with_help("a source is HOST:PORT of a node or agent, or an http:// or https:// URL")
    };
    if source.contains('/') || !source.contains(':') {
        return Err(usage(format!("{source} is no source")));
    }
    let found: Vec<SocketAddr> = source
        .to_socket_addrs()
        .map_err(|error| Failure::because(Kind::Unreachable, format!("find {source}"), &error))?
        .collect();
    // One host is one source: its first address.
    found
        .first()
        .map(|address| vec![SourceAddress::Peer(*address)])
        .ok_or_else(|| usage(format!("{source} has no address")))
}

fn ready(fetched: sutler_swarm::Fetched, name: ContentName) -> Ready {
    let report = report(&fetched, name);
    Ready { report, body: Body::Content(fetched.content) }
}

/// Puts the report of a fetch into the words of the commands.
pub fn report(fetched: &sutler_swarm::Fetched, name: ContentName) -> Fetched {
    use sutler_swarm::fetch::SourceKind as Kind;
    let (told, about) = (&fetched.report, fetched.content.about());
    let disk = SourceBytes { kind: SourceKind::Disk, address: None, bytes: told.disk_bytes };
    let mut sources: Vec<SourceBytes> =
        Some(disk).into_iter().filter(|disk| disk.bytes > 0).collect();
    let mut dropped = Vec::new();
    for share in &told.sources {
        let kind = match share.kind {
            Kind::Peer => SourceKind::Peer,
            Kind::Node => SourceKind::Node,
            Kind::Vendor => SourceKind::Vendor,
        };
        let address = share.address.clone();
        if let Some(reason) = &share.left {
            dropped.push(SourceDropped { address: address.clone(), reason: reason.clone() });
        }
        sources.push(SourceBytes { kind, address: Some(address), bytes: share.bytes });
    }
    Fetched {
        content: told.content.to_string(),
        sha256: match name {
            ContentName::Vendor(digest) => Some(digest.to_string()),
            ContentName::Id(_) => about.sha256.map(|digest| digest.to_string()),
        },
        name: about.name,
        bytes: told.len,
        elapsed_ms: u64::try_from(told.elapsed.as_millis()).unwrap_or(u64::MAX),
        bytes_by_source: Fetched::sum_by_kind(&sources),
        sources,
        dropped,
        bytes_again: told.wasted_bytes(),
        verified: fetched.content.is_complete(),
    }
}

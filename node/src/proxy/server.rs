//! What the proxy answers: finds a file in the store, on its way, or at its origin.
//!
//! The decisions are `target`'s, `kind`'s, `freshness`'s and `range`'s; here they meet the store, the
//! origins and the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sutler_cache::{About, Content, Offer, Origin};
use sutler_protocol::{ContentId, Sha256Digest};
use sutler_swarm::fetch::Fetcher;
use sutler_swarm::gateway::causes;
use sutler_swarm::origin::{Origins, Refreshed, Validators};
use tracing::{debug, info};
use url::Url;

use super::body::{Reader, ReplyBody};
use super::clients::Passwords;
use super::failed::Failed;
use super::feeds::Feeds;
use super::flight::{Brought, Flight, Flights, Label, Landed, Wish as Fetch};
use super::freshness::{self, Decision, Wish};
use super::kind::{self, Kind};
use super::known::{Entry, Known};
use super::reply::{self, Found, From, Mark, Want};
use super::shelf::{Shelf, Shelved};
use super::tally::Tally;
use super::target::{self, Form, Target};
use super::tunnel;
use super::turns::Turns;
use crate::fill::Filler;

/// What answers requests.
pub(super) struct Server {
    pub(super) origins: Origins,
    pub(super) fetcher: Fetcher,
    pub(super) filler: Filler,
    pub(super) flights: Flights,
    pub(super) feeds: Feeds,
    pub(super) known: Arc<Known>,
    pub(super) shelf: Shelf,
    pub(super) turns: Turns,
    pub(super) reader: Reader,
    pub(super) tally: Arc<Tally>,
    pub(super) passwords: Option<Passwords>,
    pub(super) stale_seconds_max: u64,
}

impl Server {
    /// Answers one request of a client. Cancel-safe: a flight that was begun goes on without it.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: IpAddr,
    ) -> Response<ReplyBody> {
        self.tally.requests.add(1);
        let is_tunnel = *request.method() == Method::CONNECT;
        let mut reply = self.answered(request, client).await;
        if is_tunnel && !reply.status().is_success() {
            // What follows on this connection was taken for the tunnel's, and not checked.
            reply = closing(reply);
        }
        let status = reply.status().as_u16();
        if matches!(status, 400 | 401 | 403 | 405 | 407 | 413 | 414) {
            self.tally.refused.add(1);
        }
        debug!(%client, status, "answered");
        reply
    }

    async fn answered(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: IpAddr,
    ) -> Response<ReplyBody> {
        let headers = request.headers();
        if let Some(refused) = with_body(headers) {
            return refused;
        }
        let hosts = headers.get_all(header::HOST).iter().count();
        let read = target::read(request.method(), request.uri(), request.version(), hosts);
        let target = match read {
            Ok(target) => target,
            Err(misdirected) => {
                let (status, text) = misdirected.answer();
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                return closing(reply::text(status, text));
            }
        };
        let form = match &target {
            Target::File(_, form) => *form,
            Target::Tunnel(_) => Form::Proxy,
            Target::Front => Form::Mirror,
        };
        if let Some(passwords) = &self.passwords
            && !passwords.let_in(headers, form)
        {
            return log_in(form);
        }
        match target {
            Target::Front => reply::text(StatusCode::OK, FRONT),
            Target::Tunnel(url) => tunnel::open(self, request, url).await,
            Target::File(url, _) => self.file(&url, client, &request).await,
        }
    }

    async fn file(
        self: &Arc<Self>,
        url: &Url,
        client: IpAddr,
        request: &Request<Incoming>,
    ) -> Response<ReplyBody> {
        let want = if *request.method() == Method::HEAD { Want::Head } else { Want::Bytes };
        let insists = [header::CACHE_CONTROL, header::PRAGMA];
        let values = insists.iter().flat_map(|name| request.headers().get_all(name));
        let wish = freshness::wish(values.filter_map(|value| value.to_str().ok()));
        let found = match self.origins.permits(url) {
            Ok(()) => {
                self.tally.of(url, |origin| origin.requests += 1);
                self.find(url, client, wish, want).await
            }
            Err(refused) => Err(Failed::Forbidden(causes(&refused))),
        };
        let found = match found {
            Ok(found) => found,
            Err(failed) => {
                debug!(host = url.host_str(), path = url.path(), why = failed.text(), "not given");
                return reply::refuse(&failed);
            }
        };
        match found.mark {
            Mark::Hit | Mark::Checked => {
                self.tally.hits.add(1);
                self.tally.of(url, |origin| origin.hits += 1);
            }
            Mark::Stale(age) => {
                self.tally.stale.add(1);
                info!(host = url.host_str(), path = url.path(), age, "given out though stale");
            }
            Mark::Miss => {}
        }
        reply::give(found, url.path(), request.headers(), want, &self.reader).await
    }

    async fn find(
        self: &Arc<Self>,
        url: &Url,
        client: IpAddr,
        wish: Wish,
        want: Want,
    ) -> Result<Found, Failed> {
        if let Some(named) = self.feeds.named(url, client, now()) {
            return self.index(url, named).await;
        }
        if let Some(suite) = self.feeds.suite_of(url) {
            return self.release(url, suite, client, wish).await;
        }
        let kind = Kind::of(url.path());
        if !kind.is_immutable() {
            return self.changing(url, kind, wish).await;
        }
        if kind == Kind::Pool
            && let Some((file, offer)) = self.named_file(url).await
        {
            return self.lasting(url, kind, Some(file.sha256), offer, want).await;
        }
        let named = kind::by_hash(url.path()).and_then(|hex| Sha256Digest::from_hex(hex).ok());
        self.lasting(url, kind, named, Offer::Nobody, want).await
    }

    /// Finds a file that never changes under its name.
    pub(super) async fn lasting(
        self: &Arc<Self>,
        url: &Url,
        kind: Kind,
        sha256: Option<Sha256Digest>,
        offer: Offer,
        want: Want,
    ) -> Result<Found, Failed> {
        if let Some(shelved) = self.held(url, sha256, offer).await? {
            return Ok(self.found_here(shelved, Mark::Hit));
        }
        if let Some(flight) = self.flights.running(url, sha256) {
            return self.found_flying(flight).await;
        }
        let failed = self.known.failed(url.as_str());
        let decided = freshness::decide(kind, None, failed, Wish::Any, 0, now());
        if let Decision::Repeat(failed) = decided {
            return Err(repeated(failed));
        }
        if want == Want::Head {
            let probed = self.origins.probe(url).await;
            let file = probed.map_err(|error| self.noted(url, Failed::from(&error)))?;
            let label = Label {
                len: file.len(),
                etag: file.validators.etag,
                last_modified: file.validators.last_modified,
            };
            return Ok(Found { from: From::Nowhere, label, mark: Mark::Miss });
        }
        let fetch = Fetch { url: url.clone(), sha256, offer, first: None };
        let flight = self.flights.begin(fetch, self.landed(url, kind))?;
        self.found_flying(flight).await
    }

    /// Finds a file that may change: asks its origin, unless it was asked just now.
    pub(super) async fn changing(
        self: &Arc<Self>,
        url: &Url,
        kind: Kind,
        wish: Wish,
    ) -> Result<Found, Failed> {
        if let Some(flight) = self.flights.running(url, None) {
            return self.found_flying(flight).await;
        }
        let (entry, decided) = self.decide(url, kind, wish).await?;
        if let Some(answer) = self.without_asking(entry, decided) {
            return answer;
        }
        let turn = self.turns.take(url.as_str()).await;
        // Somebody may have asked for it meanwhile.
        if let Some(flight) = self.flights.running(url, None) {
            return self.found_flying(flight).await;
        }
        let wish = if turn.was_answered() { Wish::Any } else { wish };
        let (entry, decided) = self.decide(url, kind, wish).await?;
        let entry = match entry {
            Some(entry) if matches!(decided, Decision::Revalidate) => Some(entry),
            None if matches!(decided, Decision::Fetch) => None,
            entry => match self.without_asking(entry, decided) {
                Some(answer) => return answer,
                None => None,
            },
        };
        let held = entry.as_ref().map(|(entry, _)| entry.validators.clone()).unwrap_or_default();
        let held = Validators { len: None, ..held };
        match (self.origins.refresh(url, &held).await, entry) {
            (Ok(Refreshed::Same), Some((_, shelved))) => {
                self.known.checked(url.as_str(), now());
                turn.answered();
                Ok(self.found_here(shelved, Mark::Checked))
            }
            (Ok(Refreshed::Same), None) => {
                Err(Failed::Trouble("it says that nothing changed".to_owned()))
            }
            (Ok(Refreshed::New(body)), _) => {
                turn.answered();
                self.answered_with(url, kind, *body).await
            }
            (Err(error), entry) => {
                let failed = self.noted(url, Failed::from(&error));
                turn.answered();
                self.in_trouble(url, failed, entry)
            }
        }
    }

    /// Gives out, and keeps if that is allowed, what an origin has just answered with.
    async fn answered_with(
        self: &Arc<Self>,
        url: &Url,
        kind: Kind,
        body: sutler_swarm::origin::OriginBody,
    ) -> Result<Found, Failed> {
        let file = body.file();
        if kind::is_page(url.path(), file.content_type.as_deref()) {
            return Err(self.noted(url, Failed::Page));
        }
        let has_version = file.validators.etag.is_some() || file.validators.last_modified.is_some();
        let may_keep = freshness::may_keep(file.cache_control.as_deref());
        if may_keep && (has_version || kind == Kind::Index) {
            let fetch =
                Fetch { url: url.clone(), sha256: None, offer: Offer::Nobody, first: Some(body) };
            let flight = self.flights.begin(fetch, self.landed(url, kind))?;
            return self.found_flying(flight).await;
        }
        let label = Label {
            etag: file.validators.etag.clone(),
            last_modified: file.validators.last_modified.clone(),
            len: file.len(),
        };
        Ok(Found { from: From::Origin(Box::new(body)), label, mark: Mark::Miss })
    }

    /// Gives out what is held while its origin is in trouble, if it is not too old.
    fn in_trouble(
        &self,
        url: &Url,
        failed: Failed,
        entry: Option<(Entry, Shelved)>,
    ) -> Result<Found, Failed> {
        if failed.is_final().is_some() {
            // What it had is gone from there, and from here.
            self.known.forget(url.as_str());
            self.shelf.remove(url.as_str());
            return Err(failed);
        }
        let Some((entry, shelved)) = entry.filter(|_| failed.is_trouble()) else {
            return Err(failed);
        };
        let age = freshness::stale(entry.held(), self.stale_seconds_max, now());
        age.map(|age| self.found_here(shelved, Mark::Stale(age))).ok_or(failed)
    }

    /// Returns what is held of a changing file, and what to do about it.
    async fn decide(
        &self,
        url: &Url,
        kind: Kind,
        wish: Wish,
    ) -> Result<(Option<(Entry, Shelved)>, Decision), Failed> {
        let now = now();
        let entry = match self.known.entry(url.as_str(), now) {
            Some(entry) => {
                let shelved = self.shelved(url, entry.content).await?;
                shelved.map(|shelved| (entry, shelved))
            }
            None => None,
        };
        let failed = self.known.failed(url.as_str());
        let held = entry.as_ref().map(|(entry, _)| entry.held());
        let decided = freshness::decide(kind, held, failed, wish, self.stale_seconds_max, now);
        Ok((entry, decided))
    }

    fn without_asking(
        &self,
        entry: Option<(Entry, Shelved)>,
        decided: Decision,
    ) -> Option<Result<Found, Failed>> {
        match (decided, entry) {
            (Decision::Serve, Some((_, shelved))) => Some(Ok(self.found_here(shelved, Mark::Hit))),
            (Decision::ServeStale(age), Some((_, shelved))) => {
                Some(Ok(self.found_here(shelved, Mark::Stale(age))))
            }
            (Decision::Repeat(failed), _) => Some(Err(repeated(failed))),
            _ => None,
        }
    }

    /// Returns the content of a changing file, if all of it is there.
    async fn shelved(&self, url: &Url, id: ContentId) -> Result<Option<Shelved>, Failed> {
        let at = Instant::now();
        if let Some(shelved) = self.shelf.take(url.as_str(), at)
            && shelved.content.id() == id
        {
            return Ok(Some(shelved));
        }
        let store = self.fetcher.store().clone();
        let content = blocking(move || store.content(id)).await?;
        let shelved = content.and_then(|content| Shelved::of(content, url.as_str()));
        if let Some(shelved) = &shelved {
            self.shelf.put(url.as_str(), shelved.clone(), at);
        }
        Ok(shelved)
    }

    /// Returns what is held of a file that does not change: under its digest, where that is known.
    async fn held(
        &self,
        url: &Url,
        sha256: Option<Sha256Digest>,
        offer: Offer,
    ) -> Result<Option<Shelved>, Failed> {
        let at = Instant::now();
        let fits = |shelved: &Shelved| {
            sha256.is_none_or(|sha256| shelved.sha256 == Some(sha256))
                && (offer == Offer::Nobody || shelved.content.is_offered())
        };
        if let Some(shelved) = self.shelf.take(url.as_str(), at).filter(fits) {
            return Ok(Some(shelved));
        }
        let (store, place) = (self.fetcher.store().clone(), url.clone());
        let found = blocking(move || {
            let id = match sha256 {
                Some(sha256) => store.by_digest(sha256),
                None => store.by_url(place.as_str()),
            };
            let Some(content) = id.map(|id| store.content(id)).transpose()?.flatten() else {
                return Ok(None);
            };
            if content.is_complete() && offer == Offer::Peers && !content.is_offered() {
                vouch(&store, &content, &place, sha256);
            }
            Ok(Shelved::of(content, place.as_str()))
        })
        .await?;
        if let Some(shelved) = &found {
            self.shelf.put(url.as_str(), shelved.clone(), at);
        }
        Ok(found)
    }

    fn found_here(&self, shelved: Shelved, mark: Mark) -> Found {
        let keep = self.filler.interested(&shelved.content);
        let mut label = shelved.label;
        // Where its origin gave no tag, its digest is one, so that a client can go on with a part.
        label.etag = label.etag.or_else(|| shelved.sha256.map(|sha256| format!("\"{sha256}\"")));
        Found { from: From::Store(shelved.content, keep), label, mark }
    }

    /// Waits until it is known what a flight brings.
    async fn found_flying(&self, mut flight: Flight) -> Result<Found, Failed> {
        let state = {
            let state = flight.state.wait_for(|state| state.end.is_some() || state.label.is_some());
            state.await.map_err(|_| Failed::Stopping)?.clone()
        };
        let label = state.label.unwrap_or_default();
        let from = match state.end {
            Some(Ok(content)) => {
                let keep = self.filler.interested(&content);
                From::Store(content, keep)
            }
            // Not kept, but passed on.
            Some(Err(failed)) if failed.is_ours() => {
                let whole = self.origins.whole(&flight.url, 0, &Validators::default()).await;
                let body = whole.map_err(|error| Failed::from(&error))?;
                let label = Label { len: body.file().len(), ..label };
                let from = From::Origin(Box::new(body));
                return Ok(Found { from, label, mark: Mark::Miss });
            }
            Some(Err(failed)) => return Err(failed),
            None => From::Flight(flight, state.epoch),
        };
        Ok(Found { from, label, mark: Mark::Miss })
    }

    /// Returns what takes note of a flight's end.
    fn landed(self: &Arc<Self>, url: &Url, kind: Kind) -> Landed {
        let (server, url) = (self.clone(), url.clone());
        Box::new(move |landed| match landed {
            Ok((content, brought)) => {
                server.tally.of(&url, |origin| match brought {
                    Brought::Vendor(bytes) => origin.vendor_bytes += bytes,
                    Brought::Nodes(bytes) => origin.node_bytes += bytes,
                });
                server.known.succeeded(url.as_str());
                // Where nothing is kept, it stays as long as for a request.
                drop(server.filler.interested(content));
                if kind.is_immutable() {
                    return;
                }
                let Some(shelved) = Shelved::of(content.clone(), url.as_str()) else { return };
                let validators = Validators {
                    etag: shelved.label.etag.clone(),
                    last_modified: shelved.label.last_modified.clone(),
                    len: shelved.label.len,
                };
                let (content, checked_at) = (content.id(), now());
                let entry = Entry { content, validators, checked_at };
                server.known.put(url.as_str(), entry, checked_at);
                server.shelf.put(url.as_str(), shelved, Instant::now());
            }
            Err(failed) => {
                server.noted(&url, failed.clone());
            }
        })
    }

    /// Takes note of why an origin did not give a file, so that it is not asked again at once.
    fn noted(&self, url: &Url, failed: Failed) -> Failed {
        if failed.is_final().is_some() || failed.is_trouble() {
            let status = failed.is_final();
            self.known.fail(url.as_str(), freshness::Failed { at: now(), status });
        }
        failed
    }
}

/// Makes a content one for peers: a verified index vouches for it now.
fn vouch(store: &sutler_cache::Store, content: &Content, url: &Url, sha256: Option<Sha256Digest>) {
    let origins = vec![Origin::at(url.as_str())];
    let about = About { name: None, origins, sha256, offer: Offer::Peers };
    // It is complete: that is all that could be lost here.
    if let Err(error) = store.create(content.hashes().clone(), &about) {
        debug!(content.id = %content.id(), error = causes(&error), "not offered");
        return;
    }
    if let Err(error) = store.complete(std::slice::from_ref(content)) {
        debug!(content.id = %content.id(), error = causes(&error), "not offered durably");
    }
}

/// Runs work of the store's where it may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, sutler_cache::ReadError> + Send + 'static,
) -> Result<T, Failed> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Failed::Store(causes(&error))),
        Err(error) => Err(Failed::Store(error.to_string())),
    }
}

/// What a browser is shown that finds the proxy.
const FRONT: &str = "This is a caching proxy for packages.\n\
    Use it as the HTTP proxy of apt or dnf, or ask for /HOST/PATH or /https/HOST/PATH.";

/// Refuses a request that has a body, or claims to. Nobody who reads files sends one, and a body is
/// what requests are smuggled in.
fn with_body(headers: &header::HeaderMap) -> Option<Response<ReplyBody>> {
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    let is_empty = lengths.iter().all(|len| len.as_bytes() == b"0");
    if headers.contains_key(header::TRANSFER_ENCODING) || lengths.iter().count() > 1 {
        let what = "A request with Transfer-Encoding, or with several lengths, is refused.";
        return Some(closing(reply::text(StatusCode::BAD_REQUEST, what)));
    }
    if !is_empty {
        let what = "A request with a body is refused.";
        return Some(closing(reply::text(StatusCode::PAYLOAD_TOO_LARGE, what)));
    }
    None
}

/// Ends the connection with this reply: what else came on it is not to be read.
fn closing(mut reply: Response<ReplyBody>) -> Response<ReplyBody> {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn log_in(form: Form) -> Response<ReplyBody> {
    let (status, name) = match form {
        Form::Proxy => (StatusCode::PROXY_AUTHENTICATION_REQUIRED, header::PROXY_AUTHENTICATE),
        Form::Mirror => (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE),
    };
    let what = "This proxy asks for a name and a password.\n\
        For apt: Acquire::http::Proxy \"http://USER:PASSWORD@HOST:PORT\";";
    let mut reply = reply::text(status, what);
    reply.headers_mut().insert(name, HeaderValue::from_static("Basic realm=\"sutler\""));
    reply
}

fn repeated(failed: freshness::Failed) -> Failed {
    match failed.status {
        Some(status) => Failed::Status(status),
        None => {
            Failed::Trouble("it was in trouble a moment ago, and is asked again soon".to_owned())
        }
    }
}

/// Returns the time in seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

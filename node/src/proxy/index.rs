//! Signed files and the indexes that they name: fetched, verified, read, and given out so that no
//! client mixes two generations.
//!
//! A new signed file is given out once the indexes of it that clients asked for lately are here.
//! Until then, and for at most [`SWITCH_WAIT`] of one client's time, clients are given the one before.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sutler_cache::{Content, Offer};
use sutler_feed::release::{self, RELEASE_BYTES_MAX};
use sutler_feed::{IndexFile, Packages, Table};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use url::Url;

use super::failed::Failed;
use super::feeds::{Facts, SavedSuite, Turned, lock};
use super::flight::Label;
use super::freshness::Wish;
use super::generation::{Files, Named};
use super::kind::{self, Kind, Root};
use super::reply::{Found, From, Mark, Want};
use super::server::{Server, now};
use super::shelf::Shelved;
use super::tables::tables;

/// How long a client waits for a new generation before it is given the one before.
const SWITCH_WAIT: Duration = Duration::from_secs(15);

/// How long a client waits for an index that is being read, before its file counts as not vouched for.
const READING_WAIT: Duration = Duration::from_secs(5);

impl Server {
    /// Gives out the signed file of a suite, or its detached signature.
    pub(super) async fn release(
        self: &Arc<Self>,
        url: &Url,
        (suite, name): (String, String),
        client: IpAddr,
        wish: Wish,
    ) -> Result<Found, Failed> {
        if kind::is_signature(&name)
            && let Some(given) = self.feeds.of(&suite, client)
            && let Some((content, label)) = &given.with.signature
        {
            // The one that belongs to the signed file that it was given.
            let from = From::Store(content.clone(), None);
            return Ok(Found { from, label: label.clone(), mark: Mark::Hit });
        }
        let current = self.feeds.current(&suite);
        // A suite is known by one signed file; the other form of it is cached like any index.
        let is_other = current.as_ref().is_some_and(|current| current.with.name != name);
        if kind::is_signature(&name) || is_other {
            return self.changing(url, Kind::Index, wish).await;
        }
        let found = self.changing(url, Kind::Index, wish).await?;
        let mark = found.mark;
        if matches!(found.from, From::Origin(_)) {
            // It is not to be kept, so nothing can be said about it.
            return Ok(found);
        }
        let Some((content, label)) = self.settled(found).await? else {
            // There is no room for it.
            return self.changing(url, Kind::Index, wish).await;
        };
        if matches!(mark, Mark::Checked | Mark::Miss) {
            self.feeds.checked(&suite, now());
        }
        if current.is_none_or(|current| current.with.root.id() != content.id())
            && self.turn_over(&suite, &name, content.clone(), label.clone()).await
                == Some(Turned::Unreadable)
        {
            // Given out as it is: clients judge for themselves.
            return Ok(Found { from: From::Store(content, None), label, mark });
        }
        let given = self.feeds.current(&suite);
        self.feeds.given(&suite, client, now());
        let (content, label) = match given {
            Some(given) => (given.with.root.clone(), given.with.label.clone()),
            None => (content, label),
        };
        Ok(Found { from: From::Store(content, None), label, mark })
    }

    /// Waits until a file is here as a whole; `None` if it is not kept.
    async fn settled(&self, found: Found) -> Result<Option<(Content, Label)>, Failed> {
        let label = found.label;
        match found.from {
            From::Store(content, _) => Ok(Some((content, label))),
            From::Flight(mut flight, _) => {
                let ended = flight.state.wait_for(|state| state.end.is_some()).await;
                let end = ended.map_err(|_| Failed::Stopping)?.end.clone();
                match end {
                    Some(Ok(content)) => Ok(Some((content, label))),
                    Some(Err(failed)) if failed.is_ours() => Ok(None),
                    Some(Err(failed)) => Err(failed),
                    None => Err(Failed::Stopping),
                }
            }
            From::Origin(_) | From::Nowhere => Ok(None),
        }
    }

    /// Makes a new generation, or joins who does, and waits for it a while.
    async fn turn_over(
        self: &Arc<Self>,
        suite: &str,
        name: &str,
        root: Content,
        label: Label,
    ) -> Option<Turned> {
        let mut done = {
            let mut building = lock(&self.feeds.building);
            match building.get(suite) {
                Some((id, done)) if *id == root.id() => done.clone(),
                _ => {
                    let (sender, done) = watch::channel(None);
                    building.insert(suite.to_owned(), (root.id(), done.clone()));
                    let (server, suite, name) = (self.clone(), suite.to_owned(), name.to_owned());
                    self.reader.tasks.spawn(async move {
                        let turned = server.build(&suite, &name, root, label).await;
                        let mut building = lock(&server.feeds.building);
                        building.retain(|other, (_, done)| {
                            *other != suite || !done.same_channel(&sender.subscribe())
                        });
                        sender.send_replace(Some(turned));
                    });
                    done
                }
            }
        };
        // The first is waited for in any case: there is nothing to be given in its place.
        let is_first = self.feeds.current(suite).is_none();
        let built = done.wait_for(Option::is_some);
        if is_first {
            return built.await.ok().and_then(|done| *done);
        }
        let Ok(built) = timeout(SWITCH_WAIT, built).await else {
            info!(suite, "the generation before is given out until the new one is here");
            return None;
        };
        built.ok().and_then(|done| *done)
    }

    async fn build(
        self: &Arc<Self>,
        suite: &str,
        name: &str,
        root: Content,
        label: Label,
    ) -> Turned {
        let signature = match Root::of(name).and_then(Root::signature) {
            Some(signature) => self.signature(suite, signature).await,
            None => None,
        };
        let root = (root, label);
        let Some((files, facts)) = self.believed(suite, name, root, signature).await else {
            return Turned::Unreadable;
        };
        let awaited = self.feeds.awaited(suite, &files, now());
        let mut awaited: Vec<_> = awaited.into_iter().collect();
        // What vouches for packages is here even where clients ask for its differences only.
        for name in tables(&files, &self.feeds.asked(suite, now())) {
            if let Some(file) = files.get(&name)
                && !awaited.iter().any(|(other, _)| *other == name)
            {
                awaited.push((name, *file));
            }
        }
        for (name, file) in &awaited {
            if let Err(failed) = self.prefetch(suite, name, *file, &facts).await {
                warn!(suite, index = name, why = failed.text(), "an index is not to be had");
            }
        }
        self.feeds.switch(suite, files, facts, now());
        info!(suite, prefetched = awaited.len(), "a new generation is given out");
        Turned::Over
    }

    /// Verifies a signed file, and reads what it names. `None` if it is not even that.
    async fn believed(
        self: &Arc<Self>,
        suite: &str,
        name: &str,
        root: (Content, Label),
        signature: Option<(Content, Label)>,
    ) -> Option<(Files, Arc<Facts>)> {
        let (server, suite, name) = (self.clone(), suite.to_owned(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let signed = whole(&root.0)?;
            let detached = signature.as_ref().and_then(|(content, _)| whole(content));
            let (kind, now) = (Root::of(&name)?, SystemTime::now());
            let verified = server.feeds.verify(&suite, kind, &signed, detached.as_deref(), now);
            let owned = |(name, file): (&str, &IndexFile)| (name.to_owned(), *file);
            let (files, names): (Files, _) = match &verified {
                Ok(release) => (release.files().map(owned).collect(), None),
                Err(unverified) => {
                    warn!(
                        suite,
                        reason = unverified.reason,
                        why = unverified.text,
                        "a feed vouches for nothing"
                    );
                    let names = match kind {
                        Root::Repomd => release::read_unverified_repomd(&signed).ok()?,
                        Root::InRelease | Root::Release => {
                            release::read_unverified(&signed).ok()?
                        }
                    };
                    (names.files().map(owned).collect(), Some(names))
                }
            };
            Some((files, Arc::new(Facts::new(root, &name, signature, verified, names))))
        });
        read.await.ok().flatten()
    }

    /// Fetches the detached signature of a suite.
    async fn signature(self: &Arc<Self>, suite: &str, name: &str) -> Option<(Content, Label)> {
        let url = Url::parse(suite).ok()?.join(name).ok()?;
        let found = self.changing(&url, Kind::Index, Wish::Checked).await.ok()?;
        self.settled(found).await.ok().flatten()
    }

    /// Gives out an index of the generation that the client holds.
    pub(super) async fn index(
        self: &Arc<Self>,
        url: &Url,
        (suite, named): (String, Named<Arc<Facts>>),
    ) -> Result<Found, Failed> {
        let facts = named.generation.with.clone();
        let found = self.index_at(url, &suite, &named.name, named.file, &facts).await?;
        self.keep(&suite, &named, &found, facts);
        Ok(found)
    }

    async fn index_at(
        self: &Arc<Self>,
        url: &Url,
        suite: &str,
        name: &str,
        file: IndexFile,
        facts: &Facts,
    ) -> Result<Found, Failed> {
        let offer = if facts.vouches(SystemTime::now()) { Offer::Peers } else { Offer::Nobody };
        let (kind, sha256) = (Kind::Hashed, Some(file.sha256));
        // A client that asks by a hash does not need another.
        let named = Some(name).filter(|_| Kind::of(url.path()) != Kind::Hashed);
        let hashed = named.and_then(|name| facts.hashed_name(name));
        // Under its name there may be another by now; under its digest there is only this one.
        if let Some(hashed) = hashed.and_then(|path| Url::parse(&format!("{suite}{path}")).ok()) {
            match self.lasting(&hashed, kind, sha256, offer, Want::Bytes).await {
                Err(failed) if failed.is_final().is_some() => {}
                found => return found,
            }
        }
        self.lasting(url, kind, sha256, offer, Want::Bytes).await
    }

    /// Fetches an index before anybody asks for it, and reads it if it is one of packages.
    async fn prefetch(
        self: &Arc<Self>,
        suite: &str,
        name: &str,
        file: IndexFile,
        facts: &Arc<Facts>,
    ) -> Result<(), Failed> {
        let folder = Url::parse(suite).map_err(|error| Failed::Trouble(error.to_string()))?;
        let url = folder.join(name).map_err(|error| Failed::Trouble(error.to_string()))?;
        let found = self.index_at(&url, suite, name, file, facts).await?;
        if let Some((content, _)) = self.settled(found).await? {
            facts.hold(file.sha256, content.clone());
            self.read(suite, name, content, facts.clone()).await;
        }
        Ok(())
    }

    /// Keeps an index that is given out for as long as its generation, and reads it if it is one of
    /// packages, once it is here.
    fn keep(
        self: &Arc<Self>,
        suite: &str,
        named: &Named<Arc<Facts>>,
        found: &Found,
        facts: Arc<Facts>,
    ) {
        let (server, suite) = (self.clone(), suite.to_owned());
        let (name, sha256) = (named.name.clone(), named.file.sha256);
        // One of its folder vouches for packages, whichever form of it clients ask for.
        let table = tables(&named.generation.files, std::slice::from_ref(&name)).into_iter().next();
        let is_read = table.as_ref().is_none_or(|table| facts.has_read(table));
        let generation = named.generation.clone();
        match &found.from {
            From::Store(content, _) => {
                facts.hold(sha256, content.clone());
                if is_read {
                    return;
                }
                let content = content.clone();
                self.reader.tasks.spawn(async move {
                    server.read_one(&suite, &name, content, table, &generation.files, facts).await;
                });
            }
            From::Flight(flight, _) => {
                let mut state = flight.state.clone();
                self.reader.tasks.spawn(async move {
                    let content = match state.wait_for(|state| state.end.is_some()).await {
                        Ok(state) => match &state.end {
                            Some(Ok(content)) => content.clone(),
                            _ => return,
                        },
                        Err(_) => return,
                    };
                    facts.hold(sha256, content.clone());
                    if !is_read {
                        server
                            .read_one(&suite, &name, content, table, &generation.files, facts)
                            .await;
                    }
                });
            }
            From::Origin(_) | From::Nowhere => {}
        }
    }

    /// Reads the index of packages of a folder of which `name` was asked for and is here.
    async fn read_one(
        self: &Arc<Self>,
        suite: &str,
        name: &str,
        content: Content,
        table: Option<String>,
        files: &Files,
        facts: Arc<Facts>,
    ) {
        let Some(table) = table else { return };
        if Table::of(name).is_some() {
            return self.read(suite, name, content, facts).await;
        }
        if let Some(file) = files.get(&table)
            && let Err(failed) = self.prefetch(suite, &table, *file, &facts).await
        {
            warn!(suite, index = table, why = failed.text(), "an index is not to be had");
        }
    }

    /// Reads an index of packages.
    async fn read(self: &Arc<Self>, suite: &str, name: &str, content: Content, facts: Arc<Facts>) {
        let Some(index) = facts.index(name) else { return };
        if facts.has_read(name) {
            return;
        }
        self.feeds.reading.send_modify(|reading| *reading += 1);
        let read = tokio::task::spawn_blocking(move || {
            Packages::read(ContentReader { content, at: 0 }, &index)
        });
        match read.await {
            Ok(Ok(packages)) => {
                info!(suite, index = name, packages = packages.len(), "an index was read");
                facts.read(name, packages);
            }
            Ok(Err(error)) => {
                let why = sutler_swarm::gateway::causes(&error);
                warn!(suite, index = name, reason = %error.reason(), why, "an index vouches for nothing");
                facts.leave(name, error.reason());
            }
            Err(error) => warn!(%error, "an index was not read"),
        }
        self.feeds.reading.send_modify(|reading| *reading -= 1);
    }

    /// Returns what an index says of a file and to whom it may be offered, after those that are being
    /// read.
    pub(super) async fn named_file(&self, url: &Url) -> Option<(IndexFile, Offer)> {
        if let Some(file) = self.feeds.named_file(url, SystemTime::now()) {
            return Some(file);
        }
        let mut reading = self.feeds.reading.subscribe();
        if *reading.borrow() == 0 {
            return None;
        }
        // Not waited for to the end: a file that nothing vouches for is given out, too.
        drop(timeout(READING_WAIT, reading.wait_for(|reading| *reading == 0)).await);
        self.feeds.named_file(url, SystemTime::now())
    }

    /// Takes back what was known before a restart, as far as the store still has it.
    pub(super) async fn recall(self: Arc<Self>) {
        for (suite, saved) in self.feeds.saved() {
            if let Some((files, facts)) = self.recalled(&suite, &saved).await {
                let asked: Vec<String> = saved.asked.keys().cloned().collect();
                self.feeds.recall(&suite, files.clone(), facts.clone(), saved);
                for table in tables(&files, &asked) {
                    let Some(file) = files.get(&table) else { continue };
                    let store = self.fetcher.store().clone();
                    let sha256 = file.sha256;
                    let found = tokio::task::spawn_blocking(move || {
                        let id = store.by_digest(sha256)?;
                        store.content(id).ok().flatten().filter(Content::is_complete)
                    });
                    if let Ok(Some(content)) = found.await {
                        facts.hold(sha256, content.clone());
                        self.read(&suite, &table, content, facts.clone()).await;
                    }
                }
            }
        }
    }

    async fn recalled(
        self: &Arc<Self>,
        suite: &str,
        saved: &SavedSuite,
    ) -> Option<(Files, Arc<Facts>)> {
        let store = self.fetcher.store().clone();
        let (root, signature) = (saved.root.parse().ok()?, saved.signature.clone());
        let (folder, name) = (suite.to_owned(), saved.name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let file = |id, name: &str| {
                let content = store.content(id).ok()??;
                let shelved = Shelved::of(content, &format!("{folder}{name}"))?;
                Some((shelved.content, shelved.label))
            };
            let beside = Root::of(&name).and_then(Root::signature);
            let signature = signature.zip(beside);
            let signature = signature.and_then(|(id, beside)| file(id.parse().ok()?, beside));
            Some((file(root, &name)?, signature))
        });
        let (root, signature) = found.await.ok()??;
        self.believed(suite, &saved.name, root, signature).await
    }
}

/// Returns the bytes of a small content.
fn whole(content: &Content) -> Option<Vec<u8>> {
    let len = content.geometry().len();
    if len > RELEASE_BYTES_MAX as u64 {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    content.read(0..len, &mut bytes).ok()?;
    Some(bytes)
}

/// Reads a content from its first byte to its last.
struct ContentReader {
    content: Content,
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = (self.content.geometry().len() - self.at).min(into.len() as u64);
        let read = self.content.read(self.at..self.at + count, &mut into[..count as usize]);
        read.map_err(std::io::Error::other)?;
        self.at += count;
        Ok(count as usize)
    }
}

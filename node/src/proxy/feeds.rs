//! The suites that clients follow: what their signed files name, who signed them, and which file of
//! the archive has which digest because of that.
//!
//! A suite becomes known when a client asks for its signed file. Whoever signed it, its generations
//! are kept apart; whether it *vouches* for anything depends on the keyring of the source that this
//! machine's own apt, or the config, has for it, and on that one only. What does not verify is given
//! to clients as it is, because they judge for themselves, and vouches for nothing.
//!
//! This module keeps the table. `index` fills it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sutler_cache::{Content, Offer};
use sutler_feed::apt::{Apt, Feed};
use sutler_feed::release::{self, Names, ReleaseError};
use sutler_feed::{Index, IndexFile, Keyring, Packages, Reason, Release};
use sutler_protocol::{ContentId, Sha256Digest};
use tokio::sync::watch;
use url::Url;

use super::durable;
use super::flight::Label;
use super::generation::{Files, Generation, Named, Suite};
use super::kind::{self, Kind, Root};
use super::settings::FeedConfig;
use crate::status::FeedStatus;

/// Suites that are known, at most; beyond, their files are cached like any others.
const SUITES_MAX: usize = 256;

/// Tables of packages of one generation, at most: components times architectures.
const TABLES_MAX: usize = 64;

/// The folder of the indexes of an RPM repository, below its root.
const REPODATA: &str = "repodata/";

/// The format of the file.
const FORMAT: u32 = 1;

/// What is known of one generation beside what it names.
#[derive(Debug)]
pub(super) struct Facts {
    /// The signed file.
    pub(super) root: Content,
    /// What its origin said of it.
    pub(super) label: Label,
    /// Its name: `InRelease`, `Release` or `repomd.xml`.
    pub(super) name: String,
    /// The detached signature, where the signed file has one.
    pub(super) signature: Option<(Content, Label)>,
    /// Who vouches for it, or why nobody does.
    pub(super) verified: Result<Release, Unverified>,
    /// What it names, where nobody vouches for it.
    names: Option<Names>,
    /// Its indexes that were given out; they stay as long as it does.
    held: Mutex<BTreeMap<Sha256Digest, Content>>,
    /// What its indexes of packages say, by name.
    packages: Mutex<BTreeMap<String, Arc<Packages>>>,
    /// Those that vouch for nothing, and why.
    unread: Mutex<BTreeMap<String, Reason>>,
}

/// Why a signed file vouches for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unverified {
    /// In one word.
    pub(super) reason: &'static str,
    /// In a sentence.
    pub(super) text: String,
}

/// A suite's place in the table.
#[derive(Debug, Default)]
struct Place {
    suite: Suite<Arc<Facts>>,
    /// When its signed file was last found to be the newest, in seconds since 1970.
    checked_at: u64,
}

/// Those who wait for a new generation, and for which.
pub(super) type Building = BTreeMap<String, (ContentId, watch::Receiver<Option<Turned>>)>;

/// What became of a new signed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// It is given out from now on.
    Over,
    /// It names nothing that could be understood.
    Unreadable,
}

/// The table. All methods are quick but those that say otherwise.
#[derive(Debug)]
pub(super) struct Feeds {
    path: PathBuf,
    apt: Option<Apt>,
    config: Vec<FeedConfig>,
    /// What this machine's apt follows.
    followed: Mutex<Vec<Feed>>,
    places: Mutex<BTreeMap<String, Place>>,
    pub(super) building: Mutex<Building>,
    /// Suites of whose expiry somebody was warned.
    expired: Mutex<BTreeSet<String>>,
    /// Indexes of packages that are being read.
    pub(super) reading: watch::Sender<usize>,
}

/// A suite as it is written down.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedSuite {
    pub(super) name: String,
    pub(super) root: String,
    pub(super) signature: Option<String>,
    pub(super) checked_at: u64,
    pub(super) asked: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    suites: BTreeMap<String, SavedSuite>,
}

impl Facts {
    pub(super) fn new(
        root: (Content, Label),
        name: &str,
        signature: Option<(Content, Label)>,
        verified: Result<Release, Unverified>,
        names: Option<Names>,
    ) -> Self {
        Self {
            root: root.0,
            label: root.1,
            name: name.to_owned(),
            signature,
            verified,
            names,
            held: Mutex::default(),
            packages: Mutex::default(),
            unread: Mutex::default(),
        }
    }

    /// Returns whether it vouches for what it names, now.
    pub(super) fn vouches(&self, now: SystemTime) -> bool {
        self.verified.as_ref().is_ok_and(|release| release.is_valid(now).is_ok())
    }

    /// Returns the digest of the index that is asked for by a hash, whichever it is.
    fn by_hash(&self, path: &str) -> Option<Sha256Digest> {
        let found = match (&self.verified, &self.names) {
            (Ok(release), _) => release.resolve(path),
            (Err(_), Some(names)) => names.resolve(path),
            (Err(_), None) => None,
        };
        found.map(|(_, file)| file.sha256)
    }

    /// Returns the path under which an index is to be had by its digest, if there is one.
    pub(super) fn hashed_name(&self, name: &str) -> Option<String> {
        match (&self.verified, &self.names) {
            (Ok(release), _) => release.hashed_name(name),
            (Err(_), Some(names)) => names.hashed_name(name),
            (Err(_), None) => None,
        }
    }

    /// Returns an index as this names it.
    pub(super) fn index(&self, name: &str) -> Option<Index> {
        match (&self.verified, &self.names) {
            (Ok(release), _) => release.index(name),
            (Err(_), Some(names)) => names.index(name),
            (Err(_), None) => None,
        }
    }

    /// Keeps an index for as long as the generation.
    pub(super) fn hold(&self, sha256: Sha256Digest, content: Content) {
        lock(&self.held).insert(sha256, content);
    }

    /// Takes what an index of packages says.
    pub(super) fn read(&self, name: &str, packages: Packages) {
        let mut tables = lock(&self.packages);
        if tables.len() < TABLES_MAX || tables.contains_key(name) {
            tables.insert(name.to_owned(), Arc::new(packages));
        }
    }

    /// Takes note that an index of packages cannot be read.
    pub(super) fn leave(&self, name: &str, reason: Reason) {
        lock(&self.unread).insert(name.to_owned(), reason);
    }

    /// Returns whether an index of packages was read.
    pub(super) fn has_read(&self, name: &str) -> bool {
        lock(&self.packages).contains_key(name)
    }

    fn packages(&self) -> Vec<Arc<Packages>> {
        lock(&self.packages).values().cloned().collect()
    }
}

impl Feeds {
    pub(super) fn new(path: PathBuf, apt: Option<Apt>, config: Vec<FeedConfig>) -> Self {
        Self {
            path,
            apt,
            config,
            followed: Mutex::default(),
            places: Mutex::default(),
            building: Mutex::default(),
            expired: Mutex::default(),
            reading: watch::Sender::new(0),
        }
    }

    /// Asks this machine's apt what it follows. Blocks while apt reads its sources.
    pub(super) fn follow(&self) -> Vec<Feed> {
        let Some(apt) = &self.apt else { return Vec::new() };
        match apt.feeds() {
            Ok(feeds) => {
                lock(&self.followed).clone_from(&feeds);
                feeds
            }
            Err(error) => {
                tracing::warn!(%error, "this machine's apt sources are not known");
                Vec::new()
            }
        }
    }

    /// Verifies a signed file against the keyring of its source. Blocks while `gpgv` runs.
    pub(super) fn verify(
        &self,
        suite: &str,
        root: Root,
        signed: &[u8],
        signature: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Release, Unverified> {
        let keyring = self.keyring(suite)?;
        let verified = match (root, signature) {
            (Root::InRelease, _) => release::verify_inrelease(signed, &keyring, now),
            (Root::Release, Some(signature)) => {
                release::verify_detached(signed, signature, &keyring, now)
            }
            (Root::Repomd, Some(signature)) => {
                release::verify_repomd(signed, signature, &keyring, now)
            }
            (_, None) => {
                let reason = Reason::Unsigned.as_str();
                return Err(Unverified { reason, text: "it has no signature".to_owned() });
            }
        };
        verified.map_err(|error: ReleaseError| Unverified {
            reason: error.reason().as_str(),
            text: sutler_swarm::gateway::causes(&error),
        })
    }

    fn keyring(&self, suite: &str) -> Result<Keyring, Unverified> {
        let trouble = |error: &dyn std::error::Error| Unverified {
            reason: "no-keyring",
            text: sutler_swarm::gateway::causes(error),
        };
        if let Some(config) = self.config.iter().find(|config| config.is_for(suite)) {
            return Keyring::read(&config.keyring).map_err(|error| trouble(&error));
        }
        let followed = lock(&self.followed).iter().find(|feed| feed.release == suite).cloned();
        let (Some(apt), Some(feed)) = (&self.apt, followed) else {
            let text = "no source of this machine and no `http_proxy.feeds` names a keyring for it";
            return Err(Unverified { reason: "no-keyring", text: text.to_owned() });
        };
        apt.keyring(&feed).map_err(|error| trouble(&error))
    }

    /// Returns the folder of a signed file, and its name, if there may be one more suite.
    pub(super) fn suite_of(&self, url: &Url) -> Option<(String, String)> {
        if !kind::is_root(url.path()) || url.query().is_some() {
            return None;
        }
        let (folder, name) = url.as_str().rsplit_once('/')?;
        let (folder, name) = (format!("{folder}/"), name.to_owned());
        let places = lock(&self.places);
        let fits = places.len() < SUITES_MAX || places.contains_key(&folder);
        fits.then_some((folder, name))
    }

    /// Returns the newest generation of a suite.
    pub(super) fn current(&self, suite: &str) -> Option<Arc<Generation<Arc<Facts>>>> {
        lock(&self.places).get(suite)?.suite.current().cloned()
    }

    /// Returns the generation of a suite that a client is to be answered from.
    pub(super) fn of(&self, suite: &str, client: IpAddr) -> Option<Arc<Generation<Arc<Facts>>>> {
        lock(&self.places).get(suite)?.suite.of(client).cloned()
    }

    /// Takes note that a client was given the newest generation's signed file.
    pub(super) fn given(&self, suite: &str, client: IpAddr, now: u64) {
        if let Some(place) = lock(&self.places).get_mut(suite) {
            place.suite.given(client, now);
        }
    }

    /// Takes note that the newest generation is still the newest.
    pub(super) fn checked(&self, suite: &str, now: u64) {
        if let Some(place) = lock(&self.places).get_mut(suite) {
            place.checked_at = now;
        }
    }

    /// Finds the index that a client asks for: the suite, and what it says.
    pub(super) fn named(
        &self,
        url: &Url,
        client: IpAddr,
        now: u64,
    ) -> Option<(String, Named<Arc<Facts>>)> {
        let mut places = lock(&self.places);
        let text = url.as_str();
        // Of suites within suites the innermost; a query asks for something else.
        let (suite, place) = places.iter_mut().rev().find(|(suite, _)| text.starts_with(*suite))?;
        let path = &text[suite.len()..];
        let named = if Kind::of(url.path()) == Kind::Hashed {
            let sha256 = place.suite.kept().find_map(|kept| kept.with.by_hash(path))?;
            place.suite.hashed(sha256, now)
        } else {
            place.suite.named(client, path, now)
        };
        Some((suite.clone(), named?))
    }

    /// Returns what must be here before a new generation is given out.
    pub(super) fn awaited(&self, suite: &str, files: &Files, now: u64) -> Vec<(String, IndexFile)> {
        let places = lock(&self.places);
        places.get(suite).map(|place| place.suite.awaited(files, now)).unwrap_or_default()
    }

    /// Returns the names of indexes that were asked for lately.
    pub(super) fn asked(&self, suite: &str, now: u64) -> Vec<String> {
        let places = lock(&self.places);
        let Some(place) = places.get(suite) else { return Vec::new() };
        place.suite.asked(now).map(|(name, _)| name.to_owned()).collect()
    }

    /// Gives a new generation out from now on.
    pub(super) fn switch(&self, suite: &str, files: Files, facts: Arc<Facts>, now: u64) {
        let mut places = lock(&self.places);
        let place = places.entry(suite.to_owned()).or_default();
        place.checked_at = now;
        place.suite.switch(files, facts, now);
    }

    /// Gives up what has been kept for long enough.
    pub(super) fn expire(&self, now: u64) {
        for place in lock(&self.places).values_mut() {
            place.suite.expire(now);
        }
    }

    /// Returns what an index says of a file of an archive, and to whom it may be offered because of
    /// that: to peers if the index is verified. What an index says that is not is only good for
    /// finding bytes that its readers would refuse.
    pub(super) fn named_file(&self, url: &Url, now: SystemTime) -> Option<(IndexFile, Offer)> {
        if url.query().is_some() {
            return None;
        }
        let kept: Vec<(String, Arc<Facts>)> = {
            let places = lock(&self.places);
            let in_archive = |(suite, place): (&String, &Place)| {
                let archive = self.archive(suite);
                let path = url.as_str().strip_prefix(archive.as_str())?.to_owned();
                Some(
                    place
                        .suite
                        .kept()
                        .map(move |kept| (path.clone(), kept.with.clone()))
                        .collect::<Vec<_>>(),
                )
            };
            places.iter().filter_map(in_archive).flatten().collect()
        };
        let find = |offer: Offer| {
            let fits = |facts: &Facts| facts.vouches(now) == (offer == Offer::Peers);
            kept.iter().filter(|(_, facts)| fits(facts)).find_map(|(path, facts)| {
                let decoded = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
                let tables = facts.packages();
                let named = |path: &str| tables.iter().find_map(|table| table.vouches(path));
                named(&decoded).or_else(|| named(path)).map(|file| (file, offer))
            })
        };
        find(Offer::Peers).or_else(|| find(Offer::Nobody))
    }

    /// Returns the root of the archive that a suite is of.
    fn archive(&self, suite: &str) -> String {
        let followed = lock(&self.followed);
        if let Some(feed) = followed.iter().find(|feed| feed.release == suite) {
            return feed.archive.clone();
        }
        match suite.find("/dists/") {
            Some(at) => suite[..=at].to_owned(),
            None => suite.strip_suffix(REPODATA).unwrap_or(suite).to_owned(),
        }
    }

    /// Warns, once each, of suites that were verified and have expired since: nothing newer came, which
    /// is no sign that there is nothing new (R41).
    pub(super) fn warn_of_expired(&self, now: SystemTime) {
        let mut expired = lock(&self.expired);
        for (suite, place) in lock(&self.places).iter() {
            let Some(current) = place.suite.current() else { continue };
            let Ok(release) = &current.with.verified else { continue };
            match release.is_valid(now) {
                Ok(()) => drop(expired.remove(suite)),
                Err(error) => {
                    if expired.insert(suite.clone()) {
                        tracing::error!(suite, reason = %error.reason(), %error, "a feed has gone silent");
                    }
                }
            }
        }
    }

    /// Returns what `status` shows of each suite.
    pub(super) fn status(&self, now: SystemTime) -> Vec<FeedStatus> {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
        };
        let places = lock(&self.places);
        let status = |(suite, place): (&String, &Place)| {
            let facts = &place.suite.current()?.with;
            let (state, detail) = match &facts.verified {
                Err(unverified) => (unverified.reason, Some(unverified.text.clone())),
                Ok(release) => match release.is_valid(now) {
                    Ok(()) => ("verified", None),
                    Err(error) => (error.reason().as_str(), Some(error.to_string())),
                },
            };
            let release = facts.verified.as_ref().ok();
            let owner = release.and_then(|release| release.label().or(release.origin()));
            Some(FeedStatus {
                url: suite.clone(),
                state: state.to_owned(),
                detail,
                owner: owner.map(str::to_owned),
                suite: release.and_then(|release| release.suite()).map(str::to_owned),
                checked_at: place.checked_at,
                age_seconds: seconds(now).saturating_sub(place.checked_at),
                valid_until: release.and_then(Release::valid_until).map(seconds),
                packages: match release {
                    Some(_) => facts.packages().iter().map(|table| table.len() as u64).sum(),
                    None => 0,
                },
                unread: lock(&facts.unread)
                    .iter()
                    .map(|(name, reason)| (name.clone(), reason.to_string()))
                    .collect(),
            })
        };
        places.iter().filter_map(status).collect()
    }

    /// Writes the table down. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What the disk answered; the file is then as before.
    pub(super) fn save(&self, now: u64) -> std::io::Result<()> {
        let saved = {
            let places = lock(&self.places);
            let saved = |(suite, place): (&String, &Place)| {
                let facts = &place.suite.current()?.with;
                let asked = place.suite.asked(now);
                let saved = SavedSuite {
                    name: facts.name.clone(),
                    root: facts.root.id().to_string(),
                    signature: facts
                        .signature
                        .as_ref()
                        .map(|(content, _)| content.id().to_string()),
                    checked_at: place.checked_at,
                    asked: asked.map(|(name, at)| (name.to_owned(), at)).collect(),
                };
                Some((suite.clone(), saved))
            };
            Saved { format: FORMAT, suites: places.iter().filter_map(saved).collect() }
        };
        let bytes = serde_json::to_vec(&saved).map_err(std::io::Error::other)?;
        // Mostly nothing changed, and a sync is not free.
        if durable::read(&self.path).is_some_and(|before| before == bytes) {
            return Ok(());
        }
        durable::replace(&self.path, &bytes)
    }

    /// Reads what was written down. Rubbish is nothing: clients ask again.
    pub(super) fn saved(&self) -> BTreeMap<String, SavedSuite> {
        let saved = durable::read(&self.path)
            .and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok())
            .filter(|saved| saved.format == FORMAT);
        saved.map(|saved| saved.suites).unwrap_or_default()
    }

    /// Takes a suite back that was known before a restart.
    pub(super) fn recall(&self, suite: &str, files: Files, facts: Arc<Facts>, saved: SavedSuite) {
        let mut places = lock(&self.places);
        let place = places.entry(suite.to_owned()).or_default();
        // A client may have been faster.
        if place.suite.current().is_none() {
            place.suite.recall(saved.asked);
            place.checked_at = saved.checked_at;
            place.suite.switch(files, facts, saved.checked_at);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves its table whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

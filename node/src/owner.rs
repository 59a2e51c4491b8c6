//! A store that is open in this process, as a command or a node uses it.
//!
//! A command opens the store, does one thing and closes it. A node opens it for as long as it runs
//! and lets commands in through [`crate::local`]. Both do the same things the same way: here.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use sutler_cache::import::{ImportFrom, Novelty};
use sutler_cache::scrub::ScrubStep;
use sutler_cache::{About, Content, Entry, Offer, OpenError, Origin, Store, StoreOptions};
use sutler_protocol::hash_list::HASH_BYTES;
use sutler_protocol::{ContentId, Sha256Digest};

use crate::config::StoreConfig;
use crate::data::DataFolder;
use crate::failure::{Failure, Kind};
use crate::local::{AddFile, AddUrl, FetchRequest, OnEach, OnProgress, Ready, StoreOwner};
use crate::report::{
    Added, Collected, ContentRow, Damage, Inspected, Moved, Progress, Rebuilt, Verified,
};
use crate::status::{ServiceStatus, Status, StoreStatus};

mod bring;
mod failures;
mod reader;

pub use bring::{Bringer, report};
use reader::ExactReader;

/// Says what the process that owns a store is doing.
pub trait Service: Send + Sync {
    /// Returns its state now.
    fn status(&self) -> ServiceStatus;
}

/// A store that this process owns.
pub struct OpenStore {
    data: DataFolder,
    store: Store,
    options: StoreOptions,
    bringer: Option<Bringer>,
    service: Option<Arc<dyn Service>>,
}

impl OpenStore {
    /// Opens the store of `data`, making both if they are not there.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; among them [`OpenError::Owned`] if another process has it.
    pub fn open(data: DataFolder, config: &StoreConfig) -> Result<Self, OpenError> {
        let options =
            StoreOptions { bytes_max: config.quota(), free_bytes_min: config.free_bytes_min.0 };
        std::fs::create_dir_all(data.root()).map_err(OpenError::Folder)?;
        let store = Store::open(&data.store(), options)?;
        Ok(Self { data, store, options, bringer: None, service: None })
    }

    /// Lets it fetch and download, too.
    #[must_use]
    pub fn with_bringer(mut self, bringer: Bringer) -> Self {
        self.bringer = Some(bringer);
        self
    }

    /// Lets it say what its process is doing.
    #[must_use]
    pub fn with_service(mut self, service: Arc<dyn Service>) -> Self {
        self.service = Some(service);
        self
    }

    /// Returns the store itself.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the data folder.
    pub const fn data(&self) -> &DataFolder {
        &self.data
    }

    /// Makes everything durable, so that the next start is quick. Call it last.
    ///
    /// # Errors
    ///
    /// Kind `store` or `no-space` if the disk refuses. What was acknowledged is durable already.
    pub fn close(&self) -> Result<(), Failure> {
        self.store.close().map_err(|error| {
            Failure::because(Kind::of_io(&error, Kind::Store), "close the store", &error)
        })
    }

    /// Puts a file into the store without making it durable, so that many small ones can share a
    /// barrier: pass them to [`OpenStore::settle`], and acknowledge none before.
    ///
    /// # Errors
    ///
    /// As [`StoreOwner::add`].
    pub fn stage(
        &self,
        request: &AddFile,
        from: ImportFrom<'_>,
    ) -> Result<(Content, Added), Failure> {
        let about = about(request.name.clone(), request.sha256.as_deref(), None)?;
        let imported = self.store.stage(from, &about)?;
        let added = added(&imported.content, imported.novelty);
        Ok((imported.content, added))
    }

    /// Makes staged contents durable.
    ///
    /// # Errors
    ///
    /// Kind `corrupt`, `no-space` or `store`; none of them is acknowledged then.
    pub fn settle(&self, staged: &[Content]) -> Result<(), Failure> {
        Ok(self.store.complete(staged)?)
    }

    fn bringer(&self) -> Result<&Bringer, Failure> {
        self.bringer.as_ref().ok_or_else(|| {
            let what = "the process that owns the store does not fetch";
            Failure::new(Kind::Store, what).with_help("try again when it has ended")
        })
    }

    fn content(&self, id: ContentId) -> Result<Content, Failure> {
        self.store.content(id)?.ok_or_else(|| {
            Failure::new(Kind::UnknownContent, format!("the store does not know {id}"))
        })
    }

    fn row(&self, entry: Entry) -> ContentRow {
        // The record says more than the index; one that cannot be read is shown as the index has it.
        let about = match self.store.content(entry.id) {
            Ok(Some(content)) => content.about(),
            _ => About { name: entry.name, ..About::default() },
        };
        ContentRow {
            content: entry.id.to_string(),
            bytes: entry.len,
            bytes_had: entry.had_bytes,
            complete: entry.complete,
            name: about.name,
            sha256: about.sha256.map(|digest| digest.to_string()),
            origins: about.origins.into_iter().map(|origin| origin.url).collect(),
            offered: about.offer == Offer::Peers,
        }
    }
}

impl StoreOwner for OpenStore {
    fn add(&self, request: &AddFile, from: ImportFrom<'_>) -> Result<Added, Failure> {
        let about = about(request.name.clone(), request.sha256.as_deref(), None)?;
        let imported = match from {
            ImportFrom::Stream(stream) => {
                let mut exact = ExactReader::new(stream, request.bytes);
                self.store.import(ImportFrom::Stream(&mut exact), &about)?
            }
            file @ ImportFrom::File { .. } => self.store.import(file, &about)?,
        };
        Ok(added(&imported.content, imported.novelty))
    }

    fn add_url(&self, request: &AddUrl, progress: OnProgress<'_>) -> Result<Added, Failure> {
        let bringer = self.bringer()?;
        let url = bring::parse_url(&request.url)?;
        let name = url.path_segments().and_then(|mut parts| parts.next_back().map(str::to_owned));
        let name = name.filter(|name| !name.is_empty());
        let about = about(name, request.sha256.as_deref(), Some(Origin::at(url.as_str())))?;
        let imported = bringer.bring_file(&self.store, &url, about, progress)?;
        Ok(added(&imported.content, imported.novelty))
    }

    fn fetch(&self, request: &FetchRequest, progress: OnProgress<'_>) -> Result<Ready, Failure> {
        self.bringer()?.fetch(request, progress)
    }

    fn fetch_many(&self, requests: &[FetchRequest], each: OnEach<'_>) -> Result<(), Failure> {
        self.bringer()?.fetch_many(requests, each)
    }

    fn list(&self, row: &mut dyn FnMut(ContentRow)) -> Result<(), Failure> {
        for entry in self.store.list() {
            row(self.row(entry));
        }
        Ok(())
    }

    fn verify(&self, progress: OnProgress<'_>) -> Result<Verified, Failure> {
        let entries = self.store.list();
        let bytes = entries.iter().map(|entry| entry.had_bytes).sum();
        let complete: Vec<ContentId> =
            entries.iter().filter(|entry| entry.complete).map(|entry| entry.id).collect();
        let mut verified = Verified { contents: entries.len() as u64, ..Verified::default() };
        let mut damaged: BTreeMap<ContentId, Damage> = BTreeMap::new();
        let damage = |content: ContentId| {
            move || Damage { content: content.to_string(), chunks: Vec::new(), reason: None }
        };
        let mut scrub = self.store.scrub();
        loop {
            match scrub.step() {
                ScrubStep::Good { bytes } => verified.bytes += bytes,
                ScrubStep::Bad { content, chunk, bytes } => {
                    verified.bytes += bytes;
                    damaged.entry(content).or_insert_with(damage(content)).chunks.push(chunk.0);
                }
                ScrubStep::Unreadable { content, error } => {
                    let reason = Failure::from_error(Kind::Store, &error).to_string();
                    damaged.entry(content).or_insert_with(damage(content)).reason = Some(reason);
                }
                ScrubStep::Done => break,
            }
            let subject = "verify".to_owned();
            let told = Progress { subject, bytes_had: verified.bytes, bytes: Some(bytes) };
            if progress(told).is_break() {
                return Err(failures::interrupted());
            }
        }
        // A file that is gone or was cut has no bytes that could be wrong.
        let whole: BTreeSet<ContentId> =
            self.store.list().iter().filter(|now| now.complete).map(|now| now.id).collect();
        for id in complete.into_iter().filter(|id| !whole.contains(id)) {
            let found = damaged.entry(id).or_insert_with(damage(id));
            if found.chunks.is_empty() && found.reason.is_none() {
                found.reason = Some("its files were lost or cut".to_owned());
            }
        }
        verified.damaged = damaged.into_values().collect();
        Ok(verified)
    }

    fn gc(&self, bytes_max: Option<u64>) -> Result<Collected, Failure> {
        let Some(bytes_max) = bytes_max else {
            return Ok(collected(&self.store, &self.store.gc()));
        };
        // The least quota that there is stands for none at all.
        let bytes_max = NonZeroU64::new(bytes_max).unwrap_or(NonZeroU64::MIN);
        let quota = self.options.bytes_max.map_or(bytes_max, |quota| quota.min(bytes_max));
        self.store.set_limits(StoreOptions { bytes_max: Some(quota), ..self.options });
        let gone = self.store.gc();
        self.store.set_limits(self.options);
        Ok(collected(&self.store, &gone))
    }

    fn rebuild_index(&self) -> Result<Rebuilt, Failure> {
        self.store.rebuild_index();
        Ok(Rebuilt { contents: self.store.list().len() as u64 })
    }

    fn inspect(&self, content: &str) -> Result<Inspected, Failure> {
        let id = content.parse().map_err(|error: sutler_protocol::content::NameError| {
            Failure::from_error(Kind::Usage, &error)
        })?;
        let content = self.content(id)?;
        let (geometry, about) = (content.geometry(), content.about());
        let (hashes, _) = content.hashes().as_bytes().as_chunks::<HASH_BYTES>();
        let runs = content.had();
        Ok(Inspected {
            content: id.to_string(),
            bytes: geometry.len(),
            chunk_bytes: geometry.chunk_bytes(),
            chunks: geometry.chunks(),
            had: runs.runs().map(|run| (run.start().0, run.last().0)).collect(),
            complete: content.is_complete(),
            name: about.name,
            sha256: about.sha256.map(|digest| digest.to_string()),
            origins: about.origins.into_iter().map(|origin| origin.url).collect(),
            hashes: hashes.iter().map(|hash| ContentId::from_bytes(*hash).to_string()).collect(),
        })
    }

    fn status(&self) -> Result<Status, Failure> {
        let entries = self.store.list();
        let data = self.data.root();
        Ok(Status {
            data: data.canonicalize().unwrap_or_else(|_| data.to_owned()).display().to_string(),
            store: StoreStatus {
                contents: entries.len() as u64,
                contents_complete: entries.iter().filter(|entry| entry.complete).count() as u64,
                bytes: self.store.usage().used_bytes,
                bytes_max: self.options.bytes_max.map(u64::from),
                // A disk that does not tell is shown as full, not as endless.
                free_bytes: self.store.free_bytes().unwrap_or(0),
                free_bytes_min: self.options.free_bytes_min,
            },
            service: self.service.as_ref().map(|service| service.status()),
        })
    }
}

/// Moves the store of `data` to the folder `to`, which is absent or empty. It is found there by the
/// same data folder from then on. Nobody may own the store meanwhile.
///
/// # Errors
///
/// Kind `store` if somebody owns it, `file` if `to` cannot be used, `no-space`. The store is then
/// where it was.
pub fn relocate(data: &DataFolder, to: &Path) -> Result<Moved, Failure> {
    // The pointer is read by programs that were started elsewhere.
    let to = std::path::absolute(to)
        .map_err(|error| Failure::because(Kind::File, format!("find {}", to.display()), &error))?;
    let moved = sutler_cache::relocate::relocate(&data.store(), &to)?;
    Ok(Moved { to: to.display().to_string(), files: moved.files, bytes: moved.bytes })
}

/// Returns what to keep of a content that is taken in.
fn about(
    name: Option<String>,
    sha256: Option<&str>,
    origin: Option<Origin>,
) -> Result<About, Failure> {
    let sha256: Option<Sha256Digest> = match sha256 {
        Some(text) => {
            Some(text.parse().map_err(|error: sutler_protocol::content::NameError| {
                Failure::because(Kind::Usage, format!("read the SHA-256 {text}"), &error)
            })?)
        }
        None => None,
    };
    Ok(About { name, origins: origin.into_iter().collect(), sha256, ..About::default() })
}

fn added(content: &Content, novelty: Novelty) -> Added {
    Added {
        content: content.id().to_string(),
        bytes: content.geometry().len(),
        name: content.about().name,
        existed: novelty == Novelty::Known,
    }
}

fn collected(store: &Store, gone: &sutler_cache::store::Collected) -> Collected {
    Collected {
        contents: gone.evicted.len() as u64,
        bytes: gone.freed_bytes,
        bytes_left: store.usage().used_bytes,
        bytes_excess: gone.excess_bytes,
    }
}

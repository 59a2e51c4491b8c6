//! Look-ups that a scan of the records could answer too, only slower: digest to content, URL to
//! content, and what is had of each.
//!
//! The index is never believed over the records. It is kept in sled, which is fast and not always
//! sound, so everything here assumes that it may fail at any call, by error or by panic.
//!
//! Invariants:
//! - an index that is absent, damaged, of another version, or was not closed is rebuilt from the
//!   records; the damaged folder is kept beside it, one at most;
//! - look-ups after a rebuild equal those before it, because nothing here depends on the order in
//!   which rows came;
//! - where sled cannot be had at all, the same rows are kept in memory until the store is closed;
//! - no call fails: an index without an answer says that the content is unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sutler_protocol::{ContentId, Sha256Digest};

use crate::eviction::Day;

/// Rises whenever a key or value changes its meaning. Another one is rebuilt, not converted.
const VERSION: u8 = 1;

/// Bytes of pages that sled may hold: a hundred thousand contents' worth of look-ups.
const CACHE_BYTES: u64 = 4 << 20;

/// Bytes of a name that the index keeps, so that a value stays below 1 KiB: above it sled writes
/// blobs, which it leaks. The record has the whole name.
const NAME_BYTES_MAX: usize = 768;

/// Rows in one write to sled while rebuilding.
const ROWS_A_BATCH: usize = 256;

/// Attempts at opening while the last owner in this process is still letting go of its lock.
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

const DAMAGED_PREFIX: &str = "index.damaged-";

/// All that the index knows of one content, as its record says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which content.
    pub id: ContentId,
    /// What is had of it.
    pub summary: Summary,
    /// Vendor digests that lead to it.
    pub digests: Vec<Sha256Digest>,
    /// Origins that lead to it.
    pub urls: Vec<String>,
}

/// What is had of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the whole content.
    pub len: u64,
    /// Bytes of it on this disk.
    pub had_bytes: u64,
    /// Whether it was said to be complete.
    pub complete: bool,
    /// The day of its last read or write.
    pub last_access: Day,
    /// What people call it.
    pub name: Option<String>,
}

/// Reads the records of a store, every one of them.
pub type Scan = Box<dyn Fn() -> Vec<Row> + Send + Sync>;

/// The index of one store.
pub struct Index {
    /// Absent where the store is not on a disk: the rows are then in memory.
    dir: Option<PathBuf>,
    scan: Scan,
    map: Mutex<Map>,
}

/// One ordered map of bytes to bytes; the first byte of a key is its [`Kind`].
enum Map {
    Sled {
        db: sled::Db,
        /// As it is on the disk.
        mark: Mark,
    },
    Memory(BTreeMap<Vec<u8>, Vec<u8>>),
}

/// What a key leads to.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    /// Version, and whether the index was closed.
    Meta = b'm',
    /// Content to its summary.
    Content = b'c',
    /// Digest and content to nothing: several contents may claim one digest.
    Digest = b'd',
    /// BLAKE3 of the URL and content to nothing.
    Url = b'u',
    /// Content and one of the two above to nothing, so that both can be found when it changes.
    Reverse = b'r',
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// Keys to set, or to remove where the value is absent.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// sled failed. What it said is logged where it happened.
#[derive(Debug)]
struct Broken;

impl Index {
    /// Opens the index in the folder `dir`, or keeps it in memory if there is none.
    ///
    /// Whatever is wrong with the folder, the answer is a rebuild by `scan`.
    pub fn open(dir: Option<PathBuf>, scan: Scan) -> Self {
        let Some(path) = dir.as_deref() else {
            let map = Map::Memory(in_memory(&scan()));
            return Self { dir, scan, map: Mutex::new(map) };
        };
        let map = match open_closed(path) {
            Ok(map) => map,
            Err(why) => {
                tracing::debug!(reason = %why, "index is rebuilt");
                rebuilt(path, why, &scan())
            }
        };
        Self { dir, scan, map: Mutex::new(map) }
    }

    /// Says that a record is about to change. From here to [`Index::close`] a kill makes the next
    /// start scan: without it a record could be durable of which a closed index knows nothing.
    pub fn unsettle(&self) {
        self.run(Map::unsettle);
    }

    /// Puts a content's row in place of what was known of it.
    pub fn put(&self, row: &Row) {
        self.run(|map| {
            let mut changes = forgotten(map, row.id)?;
            changes.extend(row_changes(row));
            map.apply(changes)
        });
    }

    /// Puts many rows at once, of contents that are all new to the index or known by the same ways.
    pub fn put_all(&self, rows: &[Row]) {
        self.run(|map| map.apply(rows.iter().flat_map(row_changes).collect()));
    }

    /// Changes a content's summary alone; nothing happens if it is unknown.
    pub fn summarise(&self, id: ContentId, summary: &Summary) {
        self.run(|map| {
            let key = key(Kind::Content, &[id.as_bytes()]);
            if map.read(&key)?.is_none() {
                return Ok(());
            }
            map.apply(vec![(key, Some(summary_to_bytes(summary)))])
        });
    }

    /// Forgets a content.
    pub fn remove(&self, id: ContentId) {
        self.run(|map| {
            let changes = forgotten(map, id)?;
            map.apply(changes)
        });
    }

    /// Returns what is had of a content.
    pub fn summary(&self, id: ContentId) -> Option<Summary> {
        self.run(|map| {
            let bytes = map.read(&key(Kind::Content, &[id.as_bytes()]))?;
            Ok(bytes.as_deref().and_then(summary_from_bytes))
        })
    }

    /// Returns all contents and what is had of each, in the order of their ids.
    pub fn summaries(&self) -> Vec<(ContentId, Summary)> {
        self.run(|map| {
            let pairs = map.scan(&key(Kind::Content, &[]))?;
            let read = |(key, value): Pair| Some((last_id(&key)?, summary_from_bytes(&value)?));
            Ok(pairs.into_iter().filter_map(read).collect())
        })
    }

    /// Returns the contents that claim a vendor digest, the best first: complete ones, then those
    /// used last. An incomplete one has not yet shown that it has the digest.
    pub fn by_digest(&self, digest: Sha256Digest) -> Vec<ContentId> {
        self.run(|map| best_first(map, &key(Kind::Digest, &[digest.as_bytes()])))
    }

    /// Returns the contents that came from a URL, the best first: complete ones, then those used
    /// last. A URL's content may have changed since.
    pub fn by_url(&self, url: &str) -> Vec<ContentId> {
        self.run(|map| best_first(map, &key(Kind::Url, &[url_key(url).as_slice()])))
    }

    /// Throws the index away and makes it anew from the records.
    pub fn rebuild(&self) {
        let rows = (self.scan)();
        let mut map = self.lock();
        *map = self.anew(&mut map, Rebuild::Asked, &rows);
    }

    /// Marks the index as whole, so that the next start need not scan. A change after this takes
    /// the mark away again.
    pub fn close(&self) {
        let mut map = self.lock();
        if map.close().is_err() {
            // The next start finds no mark and scans.
            *map = Map::Memory(BTreeMap::new());
        }
    }

    /// Runs an operation, and once more on a rebuilt index if it breaks.
    fn run<T: Default>(&self, operation: impl Fn(&mut Map) -> Result<T, Broken>) -> T {
        let mut map = self.lock();
        if let Ok(answer) = operation(&mut map) {
            return answer;
        }
        let rows = (self.scan)();
        *map = self.anew(&mut map, Rebuild::Broke, &rows);
        if let Ok(answer) = operation(&mut map) {
            return answer;
        }
        tracing::warn!("the index broke twice and is kept in memory");
        *map = Map::Memory(in_memory(&rows));
        operation(&mut map).unwrap_or_default()
    }

    fn anew(&self, map: &mut Map, why: Rebuild, rows: &[Row]) -> Map {
        // Closed before its folder is renamed or opened again.
        *map = Map::Memory(BTreeMap::new());
        match self.dir.as_deref() {
            Some(dir) => rebuilt(dir, why, rows),
            None => Map::Memory(in_memory(rows)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        // A panic inside is caught inside; one outside leaves the map as it was.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why an index is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Rebuild {
    #[error("there is none")]
    Absent,
    #[error("it was asked for")]
    Asked,
    #[error("it was not closed")]
    Unclosed,
    #[error("it has another version")]
    Version,
    #[error("it cannot be used")]
    Broke,
}

/// Whether an index holds all that the records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Open = 0,
    Closed = 1,
}

/// Opens an index that was closed well. The first change marks it as open: a start that only looks
/// waits for no sync.
fn open_closed(dir: &Path) -> Result<Map, Rebuild> {
    if !dir.exists() {
        return Err(Rebuild::Absent);
    }
    let db = open_sled(dir).map_err(|Broken| Rebuild::Broke)?;
    let map = Map::Sled { db, mark: Mark::Closed };
    let mark = map.read(&key(Kind::Meta, &[])).map_err(|Broken| Rebuild::Broke)?;
    match mark.as_deref() {
        Some([VERSION, closed]) if *closed == Mark::Closed as u8 => Ok(map),
        // The mark of an open one is not synced.
        Some([VERSION, _]) | None => Err(Rebuild::Unclosed),
        Some(_) => Err(Rebuild::Version),
    }
}

/// Makes the index in `dir` anew from `rows`; in memory if the disk will not have it.
fn rebuilt(dir: &Path, why: Rebuild, rows: &[Row]) -> Map {
    let cleared = match why {
        Rebuild::Absent => Ok(()),
        // Sound, only out of date or not wanted: nothing to learn from keeping it.
        Rebuild::Asked | Rebuild::Unclosed => remove_folder(dir),
        Rebuild::Version | Rebuild::Broke => set_aside(dir),
    };
    if let Err(error) = cleared {
        tracing::warn!(error = %error, "the index cannot be set aside and is kept in memory");
        return Map::Memory(in_memory(rows));
    }
    let filled = open_sled(dir).and_then(|db| {
        guarded(|| db.insert(key(Kind::Meta, &[]), Mark::Open.value()))?;
        let mut map = Map::Sled { db, mark: Mark::Open };
        for batch in rows.chunks(ROWS_A_BATCH) {
            map.apply(batch.iter().flat_map(row_changes).collect())?;
        }
        Ok(map)
    });
    filled.unwrap_or_else(|Broken| {
        tracing::warn!("the index cannot be written and is kept in memory");
        Map::Memory(in_memory(rows))
    })
}

fn open_sled(dir: &Path) -> Result<sled::Db, Broken> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        // Nothing needs to be durable before `close`: an index that was not closed is rebuilt. So
        // no flusher thread wakes a machine that is idle.
        .flush_every_ms(None);
    for _ in 1..OPEN_ATTEMPTS {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock") => {
                std::thread::sleep(OPEN_PAUSE);
            }
            other => return settled(other),
        }
    }
    settled(catch_unwind(AssertUnwindSafe(|| config.open())))
}

/// Runs one operation of sled, and holds its panics.
fn guarded<T>(operation: impl FnOnce() -> sled::Result<T>) -> Result<T, Broken> {
    settled(catch_unwind(AssertUnwindSafe(operation)))
}

fn settled<T>(outcome: std::thread::Result<sled::Result<T>>) -> Result<T, Broken> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the index failed");
            Err(Broken)
        }
        Err(_) => {
            tracing::warn!("the index panicked");
            Err(Broken)
        }
    }
}

/// Renames a damaged index so that somebody may look at it, and removes the one before.
fn set_aside(dir: &Path) -> io::Result<()> {
    let Some(beside) = dir.parent() else {
        return remove_folder(dir);
    };
    let mut earlier = Vec::new();
    for entry in fs::read_dir(beside)? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(DAMAGED_PREFIX)?.parse::<u32>().ok());
        if let Some(number) = number {
            earlier.push((number, entry.path()));
        }
    }
    let next = earlier.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
    fs::rename(dir, beside.join(format!("{DAMAGED_PREFIX}{next}")))?;
    for (_, path) in earlier {
        remove_folder(&path)?;
    }
    Ok(())
}

/// Removes a folder, or the file that lies in its place.
fn remove_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

impl Map {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        match self {
            Self::Sled { db, .. } => guarded(|| Ok(db.get(key)?.map(|value| value.to_vec()))),
            Self::Memory(map) => Ok(map.get(key).cloned()),
        }
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Broken> {
        match self {
            Self::Sled { db, .. } => guarded(|| {
                let pairs = db.scan_prefix(prefix);
                pairs.map(|pair| pair.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect()
            }),
            Self::Memory(map) => {
                let from = map.range(prefix.to_vec()..);
                let within = from.take_while(|(key, _)| key.starts_with(prefix));
                Ok(within.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
        }
    }

    /// Makes the changes in order: a key that comes twice has what it was given last.
    fn apply(&mut self, changes: Changes) -> Result<(), Broken> {
        match self {
            // No reason to take the mark away.
            _ if changes.is_empty() => Ok(()),
            Self::Sled { .. } => {
                self.unsettle()?;
                let Self::Sled { db, .. } = self else { return Ok(()) };
                guarded(|| {
                    let mut batch = sled::Batch::default();
                    for (key, value) in changes {
                        match value {
                            Some(value) => batch.insert(key, value),
                            None => batch.remove(key),
                        }
                    }
                    db.apply_batch(batch)
                })
            }
            Self::Memory(map) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(map.insert(key, value)),
                        None => drop(map.remove(&key)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Takes the mark of a whole index away, durably before any change: a closed index is believed.
    fn unsettle(&mut self) -> Result<(), Broken> {
        match self {
            Self::Sled { db, mark: mark @ Mark::Closed } => {
                guarded(|| {
                    db.insert(key(Kind::Meta, &[]), Mark::Open.value())?;
                    db.flush()
                })?;
                *mark = Mark::Open;
                Ok(())
            }
            Self::Sled { .. } | Self::Memory(_) => Ok(()),
        }
    }

    /// Says durably that the index is whole.
    fn close(&mut self) -> Result<(), Broken> {
        match self {
            Self::Sled { mark: Mark::Closed, .. } | Self::Memory(_) => Ok(()),
            Self::Sled { db, mark } => {
                guarded(|| {
                    // What the mark is about is durable before the mark is.
                    db.flush()?;
                    db.insert(key(Kind::Meta, &[]), Mark::Closed.value())?;
                    db.flush()
                })?;
                *mark = Mark::Closed;
                Ok(())
            }
        }
    }
}

impl Mark {
    fn value(self) -> &'static [u8] {
        match self {
            Self::Open => &[VERSION, Self::Open as u8],
            Self::Closed => &[VERSION, Self::Closed as u8],
        }
    }
}

fn in_memory(rows: &[Row]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let changes = rows.iter().flat_map(row_changes);
    changes.filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Returns the changes that make a new content known.
fn row_changes(row: &Row) -> Changes {
    let id = row.id.as_bytes();
    let content = (key(Kind::Content, &[id]), Some(summary_to_bytes(&row.summary)));
    let digests = row.digests.iter().map(|digest| key(Kind::Digest, &[digest.as_bytes(), id]));
    let urls = row.urls.iter().map(|url| key(Kind::Url, &[&url_key(url), id]));
    let pointers = digests.chain(urls).flat_map(|pointer| {
        let reverse = key(Kind::Reverse, &[id, &pointer]);
        [(pointer, Some(Vec::new())), (reverse, Some(Vec::new()))]
    });
    std::iter::once(content).chain(pointers).collect()
}

/// Returns the changes that make a content unknown.
fn forgotten(map: &Map, id: ContentId) -> Result<Changes, Broken> {
    let prefix = key(Kind::Reverse, &[id.as_bytes()]);
    let mut changes = vec![(key(Kind::Content, &[id.as_bytes()]), None)];
    for (reverse, _) in map.scan(&prefix)? {
        changes.push((reverse[prefix.len()..].to_vec(), None));
        changes.push((reverse, None));
    }
    Ok(changes)
}

fn best_first(map: &Map, prefix: &[u8]) -> Result<Vec<ContentId>, Broken> {
    let mut found = Vec::new();
    for (pointer, _) in map.scan(prefix)? {
        let Some(id) = last_id(&pointer) else { continue };
        let bytes = map.read(&key(Kind::Content, &[id.as_bytes()]))?;
        if let Some(summary) = bytes.as_deref().and_then(summary_from_bytes) {
            found.push((summary.complete, summary.last_access, id));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, _, id)| id).collect())
}

fn key(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind as u8];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Returns the id that a key ends in.
fn last_id(key: &[u8]) -> Option<ContentId> {
    key.last_chunk::<32>().map(|bytes| ContentId::from_bytes(*bytes))
}

/// Hashed, because a URL may be longer than sled likes its keys.
fn url_key(url: &str) -> [u8; 32] {
    *blake3::hash(url.as_bytes()).as_bytes()
}

/// Layout: length (8 bytes), bytes had (8), last access (4), complete (1), whether there is a name
/// (1), the name. Integers little-endian.
fn summary_to_bytes(summary: &Summary) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(22 + summary.name.as_ref().map_or(0, String::len));
    bytes.extend_from_slice(&summary.len.to_le_bytes());
    bytes.extend_from_slice(&summary.had_bytes.to_le_bytes());
    bytes.extend_from_slice(&summary.last_access.0.to_le_bytes());
    bytes.push(u8::from(summary.complete));
    bytes.push(u8::from(summary.name.is_some()));
    if let Some(name) = &summary.name {
        bytes.extend_from_slice(&name.as_bytes()[..name.floor_char_boundary(NAME_BYTES_MAX)]);
    }
    bytes
}

fn summary_from_bytes(bytes: &[u8]) -> Option<Summary> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (had_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (day, rest) = rest.split_first_chunk::<4>()?;
    let ([complete, named], name) = rest.split_first_chunk::<2>()?;
    let name = std::str::from_utf8(name).ok()?;
    Some(Summary {
        len: u64::from_le_bytes(*len),
        had_bytes: u64::from_le_bytes(*had_bytes),
        complete: *complete == 1,
        last_access: Day(u32::from_le_bytes(*day)),
        name: (*named == 1).then(|| name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ContentId {
        ContentId::from_bytes([number; 32])
    }

    fn digest(number: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([number; 32])
    }

    fn row(number: u8, complete: bool, day: u32) -> Row {
        Row {
            id: id(number),
            summary: Summary {
                len: u64::from(number) << 16,
                had_bytes: u64::from(number) << 10,
                complete,
                last_access: Day(day),
                name: (number.is_multiple_of(2)).then(|| format!("package-{number}.deb")),
            },
            digests: vec![digest(number / 4)],
            urls: vec![format!("https://vendor.example/{}", number / 4)],
        }
    }

    fn rows() -> Vec<Row> {
        (0..32).map(|number| row(number, number.is_multiple_of(3), u32::from(number % 5))).collect()
    }

    fn open(dir: &Path) -> Index {
        Index::open(Some(dir.join("index")), Box::new(rows))
    }

    /// Everything that can be asked.
    fn answers(index: &Index) -> (Vec<(ContentId, Summary)>, Vec<Vec<ContentId>>) {
        let by_digest = (0..9).map(|number| index.by_digest(digest(number)));
        let url = |number: u8| format!("https://vendor.example/{number}");
        let by_url = (0..9).map(|number| index.by_url(&url(number)));
        (index.summaries(), by_digest.chain(by_url).collect())
    }

    fn expected() -> (Vec<(ContentId, Summary)>, Vec<Vec<ContentId>>) {
        answers(&Index::open(None, Box::new(rows)))
    }

    fn is_in_sled(index: &Index) -> bool {
        matches!(*index.lock(), Map::Sled { .. })
    }

    #[test]
    fn an_absent_index_is_built_from_the_records() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = open(folder.path());
        assert!(is_in_sled(&index));
        assert_eq!(answers(&index), expected());
        assert_eq!(index.by_digest(digest(0)), [id(3), id(0), id(2), id(1)]);
        assert_eq!(index.by_digest(digest(200)), []);
    }

    #[test]
    fn a_closed_index_is_believed_and_an_unclosed_one_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = open(folder.path());
        index.put(&row(99, true, 7));
        index.close();
        drop(index);
        for _ in 0..2 {
            let index = open(folder.path());
            assert!(index.summary(id(99)).is_some(), "no scan was needed");
        }
        let index = open(folder.path());
        index.put(&row(98, true, 7));
        drop(index);
        let index = open(folder.path());
        assert_eq!(answers(&index), expected(), "it was scanned again");
    }

    #[test]
    fn a_kill_between_a_record_and_its_row_makes_the_next_start_scan() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = open(folder.path());
        index.put(&row(99, true, 7));
        index.close();
        drop(index);
        let index = open(folder.path());
        index.unsettle();
        drop(index);
        let index = open(folder.path());
        assert_eq!(answers(&index), expected(), "it was scanned again");
    }

    #[test]
    fn an_index_of_another_version_is_set_aside_and_rebuilt() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = open(folder.path());
        index.close();
        if let Map::Sled { db, .. } = &*index.lock() {
            db.insert(key(Kind::Meta, &[]), &[VERSION + 1, 1]).expect("written");
            db.flush().expect("flushed");
        }
        drop(index);
        let index = open(folder.path());
        assert_eq!(answers(&index), expected());
        assert!(folder.path().join("index.damaged-1").is_dir());
    }

    #[test]
    fn damage_of_any_kind_is_set_aside_and_only_the_last_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = folder.path().join("index/db");
        let conf = folder.path().join("index/conf");
        open(folder.path()).close();
        for round in 0u8..4 {
            match round {
                0 => fs::write(&conf, b"nonsense"),
                1 => fs::write(&db, vec![0xa5; 700_000]),
                2 => fs::remove_file(&db).and_then(|()| fs::create_dir(&db)),
                _ => fs::remove_dir_all(folder.path().join("index"))
                    .and_then(|()| fs::write(folder.path().join("index"), b"a file")),
            }
            .expect("damaged");
            let index = open(folder.path());
            assert_eq!(answers(&index), expected(), "round {round}");
            assert!(is_in_sled(&index), "round {round}");
            index.close();
        }
        let kept = fs::read_dir(folder.path()).expect("listed").filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with(DAMAGED_PREFIX)
        });
        assert_eq!(kept.count(), 1);
    }

    #[test]
    fn every_flipped_byte_of_a_small_index_leaves_the_same_answers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        open(folder.path()).close();
        let db = folder.path().join("index/db");
        let whole = fs::read(&db).expect("read");
        let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for position in (0..used).step_by(used / 24 + 1) {
            let mut bytes = whole.clone();
            bytes[position] ^= 0x40;
            fs::write(&db, bytes).expect("damaged");
            let index = open(folder.path());
            let (summaries, _) = answers(&index);
            for (id, _) in summaries {
                // Whatever sled made of it, an answer is about a content that was put in.
                assert!(id.as_bytes()[0] < 32, "position {position}");
            }
            index.close();
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_leaves_the_index_in_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nowhere = folder.path().join("file");
        fs::write(&nowhere, b"").expect("written");
        let index = Index::open(Some(nowhere.join("index")), Box::new(rows));
        assert!(!is_in_sled(&index));
        assert_eq!(answers(&index), expected());
    }

    #[test]
    fn a_changed_row_leaves_no_old_pointer_behind() {
        let index = Index::open(None, Box::new(rows));
        let moved = Row { urls: vec!["https://elsewhere.example/".into()], ..row(8, true, 9) };
        index.put(&moved);
        assert_eq!(index.by_url("https://elsewhere.example/"), [id(8)]);
        assert!(!index.by_url("https://vendor.example/2").contains(&id(8)));
        assert!(index.by_digest(digest(2)).contains(&id(8)));
        index.remove(id(8));
        assert_eq!(index.by_url("https://elsewhere.example/"), []);
        assert_eq!(index.summary(id(8)), None);
        index.summarise(id(8), &Summary::default());
        assert_eq!(index.summary(id(8)), None, "a summary alone makes nothing known");
    }

    #[test]
    fn a_value_stays_below_a_kibibyte_whatever_the_name() {
        let name = Some("é".repeat(4000));
        let bytes = summary_to_bytes(&Summary { name, ..Summary::default() });
        assert!(bytes.len() < 1024);
        assert!(summary_from_bytes(&bytes).is_some());
    }
}

//! The documents of a manifest as they came, in a folder: what a machine passes on.
//!
//! ```text
//! FOLDER/metadata/N.root.json, timestamp.json, N.snapshot.json, N.ROLE.json
//! FOLDER/targets/…/HASH.NAME
//! ```
//! Only what was verified is put in, so that whoever asks gets what this machine believes itself; but it
//! verifies it again, and so does this machine at its next start. So nothing is lost with the folder: what is
//! missing is fetched again.
//!
//! Control's repository has the same layout and is read by the same [`Mirror`].

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sutler_protocol::frame::DOCUMENT_BYTES_MAX;

use super::Place;

/// How long a document that is no longer pinned is still passed on: whoever began a refresh before it was
/// replaced has long ended by then.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Files that one pruning looks at: more than any manifest has, so that it ends.
const PRUNED_MAX: usize = 100_000;

/// A folder of documents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mirror {
    folder: PathBuf,
}

impl Mirror {
    /// Returns the mirror in `folder`, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns a document; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The disk's, and [`io::ErrorKind::FileTooLarge`] of what is no document.
    pub fn read(&self, place: &Place) -> io::Result<Option<Bytes>> {
        let file = match File::open(self.path(place)) {
            Ok(file) => file,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                    _ => Err(error),
                };
            }
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(u64::from(DOCUMENT_BYTES_MAX) + 1).read_to_end(&mut bytes)?;
        if bytes.len() > DOCUMENT_BYTES_MAX as usize {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes.into()))
    }

    /// Puts a document in its place, whole or not at all. It is not made durable: it can be had again.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn put(&self, place: &Place, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(place);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut beside = tempfile::NamedTempFile::new_in(folder)?;
        beside.write_all(bytes)?;
        beside.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes documents that `is_wanted` does not want and that are older than a day at `now`; returns how
    /// many were removed.
    ///
    /// # Errors
    ///
    /// The disk's; what was removed before it stays removed.
    pub fn prune(&self, now: SystemTime, is_wanted: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut folders = vec![self.folder.join("metadata"), self.folder.join("targets")];
        let (mut looked_at, mut removed) = (0, 0);
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                looked_at += 1;
                if looked_at > PRUNED_MAX {
                    return Ok(removed);
                }
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if is_old(&entry, now)? && !self.is_at(&entry.path(), &is_wanted) {
                    fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn is_at(&self, path: &Path, is_wanted: &impl Fn(&str) -> bool) -> bool {
        path.strip_prefix(&self.folder).ok().and_then(Path::to_str).is_some_and(is_wanted)
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.folder.join(place.as_str())
    }
}

fn is_old(entry: &fs::DirEntry, now: SystemTime) -> io::Result<bool> {
    let written = entry.metadata()?.modified()?;
    // One from the future was written by a clock that was ahead, and stays until time has caught up.
    Ok(now.duration_since(written).is_ok_and(|age| age > KEPT_FOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    #[test]
    fn what_was_put_is_read_and_the_rest_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(dir.path().join("mirror"));
        let deep = place("targets/content/2026-11/ab/cd.bash.deb");
        assert_eq!(mirror.read(&deep).unwrap(), None);
        mirror.put(&deep, b"one").unwrap();
        mirror.put(&deep, b"two").unwrap();
        assert_eq!(mirror.read(&deep).unwrap(), Some(Bytes::from("two")));
        assert_eq!(mirror.read(&place("targets/content/2026-11")).unwrap(), None);
        assert_eq!(mirror.read(&place("targets/content/2026-11/ab/cd.bash.deb/x")).unwrap(), None);
    }

    #[test]
    fn what_is_pinned_no_longer_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(dir.path());
        for name in ["metadata/1.root.json", "metadata/3.snapshot.json", "targets/a/old.x"] {
            mirror.put(&place(name), b"x").unwrap();
        }
        let is_wanted = |name: &str| name.ends_with("root.json");
        let now = SystemTime::now();
        assert_eq!(mirror.prune(now, is_wanted).unwrap(), 0);
        assert_eq!(mirror.prune(now - KEPT_FOR * 3, is_wanted).unwrap(), 0);
        let later = now + KEPT_FOR + Duration::from_mins(1);
        assert_eq!(mirror.prune(later, is_wanted).unwrap(), 2);
        assert!(mirror.read(&place("metadata/1.root.json")).unwrap().is_some());
        assert_eq!(mirror.read(&place("targets/a/old.x")).unwrap(), None);
    }
}

//! Files by their names within a folder: which there are, which may be, and their hashes while they pass.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{BackupError, LATER, PARTS};

/// Bytes of a name, at most: below what every disk allows for a path.
const NAME_BYTES_MAX: usize = 1_024;

/// Returns the names of the files of a part of `data`, in order; none if it is not there. What processes leave
/// behind that were killed is passed over, and locks are.
pub(super) fn files(data: &Path, part: &str) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    collect(data, part, &mut names)?;
    names.sort_unstable();
    Ok(names)
}

fn collect(data: &Path, name: &str, names: &mut Vec<String>) -> Result<(), BackupError> {
    let path = data.join(name);
    let failed = |source| BackupError::File { path: path.clone(), source };
    let about = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about.map_err(failed)?,
    };
    if about.is_file() && is_ours(name) {
        names.push(name.to_owned());
        return Ok(());
    }
    if !about.is_dir() {
        return Err(BackupError::Foreign { path });
    }
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?.file_name();
        let foreign = || BackupError::Foreign { path: path.join(&entry) };
        let entry = entry.to_str().ok_or_else(foreign)?;
        let is_half_written = Path::new(entry).extension().is_some_and(|ending| ending == "new");
        let is_left_behind = entry.starts_with('.') || is_half_written || entry == "lock";
        if !is_left_behind {
            collect(data, &format!("{name}/{entry}"), names)?;
        }
    }
    Ok(())
}

/// Returns whether a file of that name may be in an archive: one of the parts, or below one, and nothing that a disk
/// would take for another place (T14).
pub(super) fn is_ours(name: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    let is_below = |part: &&str| {
        name.strip_prefix(*part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    name.len() <= NAME_BYTES_MAX
        && name.split('/').all(is_plain)
        && PARTS.iter().chain(&LATER).any(is_below)
}

/// Returns who may read a file, and nothing more.
pub(super) fn mode_of(about: &Metadata) -> u32 {
    about.mode() & 0o644
}

/// Returns the folder that a path lies in.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Counts and hashes what is read.
pub(super) struct Hashed<R> {
    inner: R,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, bytes: 0, hasher: blake3::Hasher::new() }
    }

    pub(super) fn finish(self) -> (u64, blake3::Hash) {
        (self.bytes, self.hasher.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hasher.update(&into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T14
    #[test]
    fn a_name_stays_in_the_parts_that_control_has() {
        for name in [
            "org.json",
            "online/timestamp.key",
            "orders/denials/ab.json",
            "repository/metadata/3.approvals-qa.json",
            "repository/targets/content/2026-11/ab/cd.bash_5.2-1+b1~1_amd64.deb",
        ] {
            assert!(is_ours(name), "{name}");
        }
        let long = format!("reports/{}", "x".repeat(NAME_BYTES_MAX));
        for name in [
            "",
            "org.json/..",
            "../org.json",
            "/org.json",
            "online/../../etc/passwd",
            "online//timestamp.key",
            "online/.hidden",
            "online\\..\\x",
            "online/a b",
            "online/a\0b",
            "onlinex/key",
            "orders/trust/marks",
            "repository/lock\n",
            "store/x",
            "FORMAT",
            "C:/org.json",
            &long,
        ] {
            assert!(!is_ours(name), "{name:?}");
        }
    }
}

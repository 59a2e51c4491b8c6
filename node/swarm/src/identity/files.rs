//! The folders that keys and certificates lie in: written whole or not at all, read with care.
//!
//! Drives nothing and is driven by [`super::authority`] and [`super::load`]. Invariants: a folder
//! appears under its name complete and synced; nothing that exists is replaced; a folder is
//! 0700 and a file of secrets 0600 from the first byte on; no read goes beyond [`FILE_BYTES_MAX`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

/// Bytes in one identity file, at most: a chain of a few certificates is 4 KiB.
pub(crate) const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A file to be written, and who may read it.
pub(crate) struct NewFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    pub(crate) readers: Readers,
}

/// Who may read a new file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner.
    Owner,
    /// Whoever the folder lets in.
    Everyone,
}

/// Creates the folder `dir` with `files` in it, in one step that survives a power cut.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if `dir` is there and is not an empty folder; otherwise what the
/// file system said. Nothing is left behind.
pub(crate) fn create_folder(dir: &Path, files: &[NewFile<'_>]) -> io::Result<()> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    // Beside its destination, so that the rename stays within one file system.
    let mut staging = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        staging.permissions(fs::Permissions::from_mode(0o700));
    }
    let staging = staging.prefix(".sutler-new-").tempdir_in(parent)?;
    for file in files {
        write_new(&staging.path().join(file.name), file)?;
    }
    sync_folder(staging.path())?;
    // Renaming onto a folder succeeds only where that one is empty, so nothing is ever replaced.
    fs::rename(staging.path(), dir).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            io::ErrorKind::AlreadyExists.into()
        }
        _ => error,
    })?;
    // What it would remove is now `dir`, under another name.
    let _moved = staging.keep();
    sync_folder(parent)
}

/// Replaces the file in the folder `dir`, or makes it, in one step that survives a power cut.
///
/// # Errors
///
/// What the file system said; the old file is there still.
pub(crate) fn replace(dir: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let staging = tempfile::Builder::new().prefix(".sutler-new-").tempdir_in(dir)?;
    let new = staging.path().join(file.name);
    write_new(&new, file)?;
    fs::rename(&new, dir.join(file.name))?;
    sync_folder(dir)
}

fn write_new(path: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(if file.readers == Readers::Owner { 0o600 } else { 0o644 });
    }
    let mut out = options.open(path)?;
    out.write_all(file.text.as_bytes())?;
    out.sync_all()
}

/// Makes the names in a folder durable. Only unix can open a folder to say so.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Reads a file that everyone may know.
///
/// # Errors
///
/// What the file system said; [`io::ErrorKind::FileTooLarge`] beyond [`FILE_BYTES_MAX`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_capped(&File::open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// What [`read_secret`] found.
pub(crate) enum Secret {
    /// The file's bytes, wiped when dropped.
    Bytes(Zeroizing<Vec<u8>>),
    /// Others than the owner may read or change the file, which has these permission bits.
    Exposed(u32),
}

/// Reads a file that only its owner may read, and says so if others may too.
///
/// # Errors
///
/// As [`read`].
pub(crate) fn read_secret(path: &Path) -> io::Result<Secret> {
    let file = File::open(path)?;
    // Asked of the open file, not of its name: what is checked is what is read.
    if let Some(mode) = exposed(&file)? {
        return Ok(Secret::Exposed(mode));
    }
    // Reserved in full, so that growing leaves no copy behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    read_capped(&file, &mut bytes)?;
    Ok(Secret::Bytes(bytes))
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn exposed(_file: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

fn read_capped(file: &File, into: &mut Vec<u8>) -> io::Result<()> {
    file.take(FILE_BYTES_MAX + 1).read_to_end(into)?;
    if into.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> [NewFile<'_>; 1] {
        [NewFile { name: "a", text, readers: Readers::Owner }]
    }

    #[test]
    fn a_folder_appears_whole_and_is_never_replaced() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = temp.path().join("deep/new");
        create_folder(&dir, &one("first")).expect("created");
        let again = create_folder(&dir, &one("second")).expect_err("it exists");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&dir.join("a")).expect("read"), b"first");
        // Neither attempt left its staging folder behind.
        assert_eq!(fs::read_dir(temp.path().join("deep")).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_in_the_folders_place_is_kept() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = temp.path().join("taken");
        fs::write(&dir, "mine").expect("written");
        let error = create_folder(&dir, &one("other")).expect_err("it exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&dir).expect("read"), b"mine");
    }

    #[test]
    fn a_file_without_end_is_read_to_the_cap_only() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("big");
        let file = File::create(&path).expect("created");
        file.set_len(1 << 40).expect("sparse");
        assert_eq!(read(&path).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_born_private_and_refused_when_others_may_read_them() {
        use std::os::unix::fs::PermissionsExt;

        let temp = tempfile::tempdir().expect("a folder");
        let dir = temp.path().join("new");
        create_folder(&dir, &one("key")).expect("created");
        let path = dir.join("a");
        assert!(matches!(read_secret(&path), Ok(Secret::Bytes(bytes)) if *bytes == b"key"));
        for mode in [0o640, 0o604, 0o660, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(matches!(read_secret(&path), Ok(Secret::Exposed(found)) if found == mode));
        }
    }
}

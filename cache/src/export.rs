//! Handing a whole content out, to a file of the user's or to a stream.
//!
//! Invariants:
//! - no byte leaves that was not hashed since this process started;
//! - the target has all of the content or what it had before: the bytes go to a file beside it,
//!   which is synced and renamed;
//! - no symbolic link is followed where that file is made.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sutler_protocol::{ChunkIndex, ChunkRange, ContentId};

use crate::content::{Content, ReadError};
use crate::hashing::BLOCK_BYTES;

/// Bytes in a file's name, at most: what common file systems allow.
const FILE_NAME_BYTES_MAX: usize = 255;

/// How a content becomes the user's file. Where the disk cannot do it, it is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportHow {
    /// As a file of its own, whose blocks are shared until one side changes if the disk can.
    #[default]
    Copy,
    /// As a second name of the store's file. Whoever writes to it spoils the store's copy, which is
    /// then fetched again.
    HardLink,
}

/// Why a content was not exported. The target is as before.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Some of it is not here.
    #[error("{content} is not complete")]
    Incomplete {
        /// The content.
        content: ContentId,
    },
    /// The target has no name, or something that is no file lies where its bytes were to go first.
    #[error("{} is in the way", path.display())]
    Obstructed {
        /// What is in the way.
        path: PathBuf,
    },
    /// The store's copy has gone bad, or its disk refused.
    #[error("read what is to be exported")]
    Read(#[source] ReadError),
    /// The target's disk refused.
    #[error("write {}", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
}

/// Why a name from outside names no file in a folder of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// It is empty, or longer than a file's name may be.
    #[error("a file name has 1 to {FILE_NAME_BYTES_MAX} bytes")]
    Length,
    /// It would lead out of the folder, hide in it, or be taken for an option.
    #[error("a file name starts with neither a dot, nor a dash, nor a drive letter")]
    Start,
    /// It holds a separator or a control character.
    #[error("a file name holds neither {found:?} nor any like it")]
    Character {
        /// The first such character.
        found: char,
    },
}

/// Returns `name` if it names a file in whatever folder it is put in, and nothing else.
///
/// What a content is called comes from outside: never join it to a folder without asking here.
///
/// # Errors
///
/// [`FileNameError`].
pub fn file_name(name: &str) -> Result<&str, FileNameError> {
    if name.is_empty() || name.len() > FILE_NAME_BYTES_MAX {
        return Err(FileNameError::Length);
    }
    let is_bad = |c: &char| matches!(c, '/' | '\\') || c.is_control();
    if let Some(found) = name.chars().find(is_bad) {
        return Err(FileNameError::Character { found });
    }
    let drive = name.as_bytes()[0].is_ascii_alphabetic() && name.as_bytes().get(1) == Some(&b':');
    if name.starts_with(['.', '-']) || drive {
        return Err(FileNameError::Start);
    }
    Ok(name)
}

impl Content {
    /// Writes all of the content to the file `to`, replacing what is there, and makes it durable.
    ///
    /// # Errors
    ///
    /// [`ExportError`]. On [`ReadError::Corrupt`] in it, fetch the chunk again and then export.
    pub fn export(&self, to: &Path, how: ExportHow) -> Result<(), ExportError> {
        if !self.is_complete() {
            return Err(ExportError::Incomplete { content: self.id() });
        }
        let beside = beside(to)?;
        let outcome = self.export_beside(&beside, to, how);
        if outcome.is_err() {
            // Ours, and of no use. What the disk says to this changes nothing.
            drop(fs::remove_file(&beside));
        }
        outcome
    }

    /// Writes all of the content to `out`, verified chunk by chunk.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written before is right.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<(), ExportError> {
        let mut buffer = Vec::new();
        for bytes in self.blocks(self.geometry().all()) {
            buffer.resize((bytes.end - bytes.start) as usize, 0);
            self.read(bytes, &mut buffer).map_err(ExportError::Read)?;
            out.write_all(&buffer)
                .map_err(|source| ExportError::Write { path: "the stream".into(), source })?;
        }
        Ok(())
    }

    /// Makes `path`, where nothing is, a second name of the store's file. Not durable yet.
    ///
    /// # Errors
    ///
    /// The store's copy has gone bad, or the disk cannot do this: then [`Content::export`] it.
    pub fn link(&self, path: &Path) -> io::Result<()> {
        if !self.is_complete() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.verify_doubtful().map_err(io::Error::other)?;
        let data = self.0.data()?;
        link(data.disk_file().ok_or(io::ErrorKind::Unsupported)?, path)
    }

    fn export_beside(&self, beside: &Path, to: &Path, how: ExportHow) -> Result<(), ExportError> {
        let refused = |source| ExportError::Write { path: to.to_owned(), source };
        let linked = how == ExportHow::HardLink && self.link_to(beside)?;
        if !linked {
            let file = OpenOptions::new().write(true).create_new(true).open(beside);
            let file = file.map_err(refused)?;
            self.fill(&file, to)?;
            file.sync_all().map_err(refused)?;
        }
        fs::rename(beside, to).map_err(refused)?;
        if linked {
            // Two names of one file stay both: then the target was the store's file already.
            drop(fs::remove_file(beside));
        }
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)
    }

    /// Makes `path` a second name of the store's file, and returns whether that could be done.
    fn link_to(&self, path: &Path) -> Result<bool, ExportError> {
        self.verify_doubtful()?;
        Ok(self.link(path).is_ok())
    }

    /// Fills an empty file with the content, in the cheapest way that the two disks allow.
    fn fill(&self, file: &File, to: &Path) -> Result<(), ExportError> {
        let data = self
            .0
            .data()
            .map_err(|source| ExportError::Read(ReadError::Read { content: self.id(), source }))?;
        let source = data.disk_file();
        if source.is_some_and(|source| reflink(source, file).is_ok()) {
            return self.verify_doubtful();
        }
        let refused = |source| ExportError::Write { path: to.to_owned(), source };
        let doubtful = self.0.doubtful();
        let mut buffer = Vec::new();
        for run in doubtful.runs() {
            self.copy_verified(run, file, &mut buffer, refused)?;
        }
        for run in doubtful.complement().runs() {
            let bytes = self.geometry().bytes(run);
            let copied = source.map_or(bytes.start, |source| copy_range(source, file, &bytes));
            // The rest by hand: another disk, or one that cannot copy by itself.
            if let Ok(rest) = ChunkRange::covering(copied..bytes.end, self.geometry()) {
                self.copy_verified(rest, file, &mut buffer, refused)?;
            }
        }
        Ok(())
    }

    fn copy_verified(
        &self,
        run: ChunkRange,
        file: &File,
        buffer: &mut Vec<u8>,
        refused: impl Fn(io::Error) -> ExportError,
    ) -> Result<(), ExportError> {
        for bytes in self.blocks(run) {
            buffer.resize((bytes.end - bytes.start) as usize, 0);
            self.read(bytes.clone(), buffer).map_err(ExportError::Read)?;
            file.write_all_at(buffer, bytes.start).map_err(&refused)?;
        }
        Ok(())
    }

    /// Hashes every chunk that was not hashed since the start.
    fn verify_doubtful(&self) -> Result<(), ExportError> {
        let mut buffer = Vec::new();
        for run in self.0.doubtful().runs() {
            for bytes in self.blocks(run) {
                buffer.resize((bytes.end - bytes.start) as usize, 0);
                self.read(bytes, &mut buffer).map_err(ExportError::Read)?;
            }
        }
        Ok(())
    }

    /// Returns the byte ranges of a run, in blocks of whole chunks.
    fn blocks(&self, run: ChunkRange) -> impl Iterator<Item = Range<u64>> + use<> {
        let geometry = self.geometry();
        let chunks = (BLOCK_BYTES as u64 / geometry.chunk_bytes()).max(1) as u32;
        (run.start().0..run.end().0).step_by(chunks as usize).map(move |start| {
            let end = (start + chunks).min(run.end().0);
            geometry.chunk(ChunkIndex(start)).start..geometry.chunk(ChunkIndex(end - 1)).end
        })
    }
}

/// Returns where the bytes go first: beside the target, so that a rename suffices. What an
/// interrupted export left there is removed.
fn beside(to: &Path) -> Result<PathBuf, ExportError> {
    let obstructed = |path: &Path| ExportError::Obstructed { path: path.to_owned() };
    let name = to.file_name().ok_or_else(|| obstructed(to))?;
    if to.is_dir() {
        return Err(obstructed(to));
    }
    let mut beside_name = OsString::from(".");
    beside_name.push(name);
    beside_name.push(".sutler-part");
    let beside = to.with_file_name(beside_name);
    match fs::symlink_metadata(&beside) {
        Ok(found) if found.is_file() => fs::remove_file(&beside)
            .map(|()| beside)
            .map_err(|source| ExportError::Write { path: to.to_owned(), source }),
        Ok(_) => Err(obstructed(&beside)),
        // Absent, or to be refused again when it is made.
        Err(_) => Ok(beside),
    }
}

#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, linkat};
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, name, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn reflink(from: &File, to: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

#[cfg(not(target_os = "linux"))]
fn reflink(_: &File, _: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies a range inside the kernel as far as that goes, and returns how far that was.
#[cfg(target_os = "linux")]
fn copy_range(from: &File, to: &File, bytes: &Range<u64>) -> u64 {
    let (mut read, mut written) = (bytes.start, bytes.start);
    while read < bytes.end {
        let count = (bytes.end - read).min(1 << 30) as usize;
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), count);
        if !matches!(copied, Ok(1..)) {
            break;
        }
    }
    written
}

#[cfg(not(target_os = "linux"))]
fn copy_range(_: &File, _: &File, bytes: &Range<u64>) -> u64 {
    bytes.start
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    // T14
    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["a.deb", "libc6_2.36-9%2bdeb12u9_amd64.deb", "KB503 (x64).msu", "ü", "a..b"] {
            assert_eq!(file_name(name), Ok(name));
        }
        let refused = [
            "",
            ".",
            "..",
            "../a",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "..\\a",
            "C:a",
            "C:\\a",
            "a\0b",
            "a\nb",
            "-rf",
            ".bashrc",
            "\u{7f}",
        ];
        for name in refused {
            assert!(file_name(name).is_err(), "{name:?}");
        }
        assert_eq!(file_name(&"x".repeat(256)), Err(FileNameError::Length));
    }

    proptest! {
        // T14
        #[test]
        fn whatever_name_is_accepted_stays_in_its_folder(name in any::<String>()) {
            if let Ok(accepted) = file_name(&name) {
                let joined = Path::new("/folder").join(accepted);
                prop_assert_eq!(joined.parent(), Some(Path::new("/folder")));
                prop_assert_eq!(joined.file_name().and_then(|name| name.to_str()), Some(accepted));
            }
        }
    }
}

//! The real backend: a folder on a disk, reached through one open handle of it.
//!
//! Paths are looked up below that handle, so that they stay short, and a store keeps working when
//! somebody renames a folder above it.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Backend, Lock, Open, StoreFile};

/// Runs of data that one look at a file tells apart. Beyond it the rest counts as data, so that a
/// file with a hole in every chunk costs no more than this.
const DATA_RANGES_MAX: usize = 4096;

/// A folder on a disk.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    root: File,
}

impl Disk {
    /// Opens the folder at `path`, making it if it is not there. Its parent exists.
    ///
    /// # Errors
    ///
    /// What the disk answered: there may be a file at `path`, or no right to make a folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.is_dir() => {
                return Err(error);
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), root: root.into() })
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mode = Mode::from_raw_mode(0o644);
        Ok(rustix::fs::openat(&self.root, path, flags | OFlags::CLOEXEC, mode)?.into())
    }
}

impl Backend for Disk {
    fn open(&self, path: &Path, open: Open) -> io::Result<Box<dyn StoreFile>> {
        let flags = OFlags::NOFOLLOW
            | match open {
                Open::Read => OFlags::RDONLY,
                Open::Write => OFlags::RDWR,
                Open::Create => OFlags::RDWR | OFlags::CREATE,
                Open::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
        Ok(Box::new(DiskFile(self.open_at(path, flags)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let folder = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(folder)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    /// Walks the folder, because only Linux has a barrier for one file system.
    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self) -> io::Result<()> {
        fn sync_below(path: &Path) -> io::Result<()> {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    sync_below(&entry.path())?;
                } else {
                    File::open(entry.path())?.sync_all()?;
                }
            }
            File::open(path)?.sync_all()
        }
        sync_below(&self.path)
    }

    /// Goes by the handle's name under `/proc`: linking a bare handle needs a privilege.
    #[cfg(target_os = "linux")]
    fn link(&self, source: &File, to: &Path) -> io::Result<()> {
        let name = format!("/proc/self/fd/{}", source.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        Ok(rustix::fs::linkat(rustix::fs::CWD, name, &self.root, to, follow)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn link(&self, _: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = self.open_at(path, OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock { _held: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn disk_path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// The lock is the open file's, so the kernel lets go of it when the process dies.
#[derive(Debug)]
struct DiskLock {
    _held: File,
}

impl Lock for DiskLock {}

#[derive(Debug)]
struct DiskFile(File);

impl StoreFile for DiskFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    #[cfg(target_os = "linux")]
    fn data_ranges(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        let mut ranges = Vec::new();
        let mut position = within.start;
        while position < within.end {
            // Moves the handle's own position, which nothing here reads by.
            let start = match seek(&self.0, SeekFrom::Data(position)) {
                Ok(start) if start < within.end => start,
                // No data from here to the end of the file.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
                Err(error) => return Err(error.into()),
            };
            let end = if ranges.len() == DATA_RANGES_MAX {
                within.end
            } else {
                seek(&self.0, SeekFrom::Hole(start)).unwrap_or(within.end).min(within.end)
            };
            ranges.push(start..end);
            position = end;
        }
        Ok(ranges)
    }

    #[cfg(not(target_os = "linux"))]
    fn data_ranges(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        Ok(vec![within])
    }

    #[cfg(target_os = "linux")]
    fn reflink_from(&self, source: &File) -> io::Result<()> {
        match rustix::fs::ioctl_ficlone(&self.0, source) {
            // What file systems without copy-on-write answer, each in its own way.
            Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => Ok(other?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reflink_from(&self, _: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn disk_file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Disk::open(&folder.path().join("store")).expect("a folder is made");
        (folder, disk)
    }

    #[test]
    fn data_is_told_from_holes() {
        let (_folder, disk) = folder();
        let file = disk.open(Path::new("x"), Open::CreateNew).expect("made");
        file.set_len(1 << 20).expect("sparse");
        assert_eq!(file.data_ranges(0..1 << 20).expect("asked"), []);
        file.write_all_at(&[1; 4096], 512 << 10).expect("written");
        let ranges = file.data_ranges(0..1 << 20).expect("asked");
        assert!(ranges.iter().any(|range| range.contains(&(512 << 10))), "{ranges:?}");
        assert!(!ranges.iter().any(|range| range.contains(&0)), "{ranges:?}");
        assert_eq!(file.data_ranges(0..4096).expect("asked"), []);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let (_folder, disk) = folder();
        let first = disk.lock(Path::new("lock")).expect("asked");
        assert!(first.is_some());
        assert!(disk.lock(Path::new("lock")).expect("asked").is_none());
        drop(first);
        assert!(disk.lock(Path::new("lock")).expect("asked").is_some());
    }

    #[test]
    fn an_open_file_is_linked_under_a_second_name() {
        let (folder, disk) = folder();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, b"bytes").expect("written");
        let source = File::open(&outside).expect("opened");
        disk.link(&source, Path::new("inside")).expect("same disk");
        let inside = super::super::read_file(&disk, Path::new("inside"), 5).expect("read");
        assert_eq!(inside, b"bytes");
        let refused = super::super::read_file(&disk, Path::new("inside"), 4);
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn a_symbolic_link_in_the_folder_is_not_followed() {
        let (folder, disk) = folder();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("store/x")).expect("made");
        assert!(disk.open(Path::new("x"), Open::Read).is_err());
    }
}

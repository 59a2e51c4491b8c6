//! Small files of the proxy's own: replaced as a whole, by rename and sync, or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes of such a file, at most.
const BYTES_MAX: u64 = 64 << 20;

/// Returns a file's bytes; `None` where there is none, or none that is of any use.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Puts `bytes` in place of a file, so that it is there as a whole after a power cut, or as before.
///
/// # Errors
///
/// What the disk answered.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

//! The files below the paths that a user shares.
//!
//! Symbolic links are named by the user or not followed: a folder cannot lead out of itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files taken, at most: the table is for people.
const FILES_MAX: usize = 1_000;

/// Why shared paths are of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    /// A path cannot be read.
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A path is neither a file nor a folder.
    #[error("{} is neither a file nor a folder", path.display())]
    Neither { path: PathBuf },
    /// There are too many of them.
    #[error("more than {FILES_MAX} files: share a smaller folder")]
    TooMany,
    /// There are none.
    #[error("no files are in there")]
    Nothing,
}

/// Returns the regular files at and below `paths`, in the order of their names.
///
/// # Errors
///
/// [`ShareError`].
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ShareError> {
    let mut found = Vec::new();
    for path in paths {
        // A link that the user names is meant; one that is found in a folder is not.
        let kind = fs::metadata(path).map_err(unreadable(path))?.file_type();
        if kind.is_file() {
            found.push(path.clone());
        } else if kind.is_dir() {
            below(path, &mut found)?;
        } else {
            return Err(ShareError::Neither { path: path.clone() });
        }
        if found.len() > FILES_MAX {
            return Err(ShareError::TooMany);
        }
    }
    if found.is_empty() { Err(ShareError::Nothing) } else { Ok(found) }
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), ShareError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder).map_err(unreadable(&folder))? {
            let entry = entry.map_err(unreadable(&folder))?;
            let kind = entry.file_type().map_err(unreadable(&folder))?;
            entries.push((entry.path(), kind));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, kind) in entries {
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
        if found.len() > FILES_MAX {
            return Err(ShareError::TooMany);
        }
    }
    Ok(())
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> ShareError {
    move |source| ShareError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_files_and_follows_no_link() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).expect("a folder");
        fs::write(at("b"), "b").expect("a file");
        fs::write(at("sub/a"), "a").expect("a file");
        std::os::unix::fs::symlink("/etc", at("link")).expect("a link");
        assert_eq!(files(&[folder.path().to_owned()]).expect("readable"), [at("b"), at("sub/a")]);
    }

    #[test]
    fn nothing_and_what_is_not_there_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(files(&[folder.path().to_owned()]), Err(ShareError::Nothing)));
        let absent = folder.path().join("absent");
        assert!(matches!(files(&[absent]), Err(ShareError::Read { .. })));
    }
}

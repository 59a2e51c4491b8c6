//! Where the local socket lies, and who may use it.
//!
//! It lies in the data folder. A socket's path holds 107 bytes; where that is too few, the socket
//! goes to the user's runtime folder and `control.path` in the data folder says where. The file
//! is written by the owner of the store, so that a command with another environment finds it too.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sutler_protocol::ContentId;

use crate::data::DataFolder;

/// Bytes that the path of a socket may have: `sun_path` of Linux, less its NUL. The BSDs have 103.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Bytes of `control.path` that are read, at most.
const POINTER_BYTES_MAX: u64 = 4096;

/// Why the owner of a store has no local socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Neither the data folder nor any runtime folder has a path short enough.
    #[error("find a short enough path for the local socket of {}", data.display())]
    NoPlace {
        /// The data folder.
        data: PathBuf,
    },
    /// The runtime folder is another user's, or open to others.
    #[error("{} belongs to somebody else, or is open to others", folder.display())]
    Unsafe {
        /// The folder in question.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("make the local socket {}", path.display())]
    Io {
        /// The socket, or the file that points to it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a command does not reach the owner of a store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket, or nobody listens at it.
    #[error("nobody answers at {}", path.display())]
    NobodyThere {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket was not made by the owner of the data folder, nor by us, nor by root.
    #[error("{} was made by user {uid}, who does not own the data folder", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Who made it.
        uid: u32,
    },
}

/// A listening socket that is removed with its owner.
#[derive(Debug)]
pub struct BoundSocket {
    /// Hands out connections; the caller checks who is at the other end.
    pub listener: UnixListener,
    path: PathBuf,
    pointer: Option<PathBuf>,
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // What cannot be removed is stale, and the next owner replaces it.
        drop(fs::remove_file(&self.path));
        if let Some(pointer) = &self.pointer {
            drop(fs::remove_file(pointer));
        }
    }
}

/// Makes the local socket of `data`, in place of a stale one. The caller holds the store's lock,
/// so nobody alive listens there.
///
/// # Errors
///
/// [`BindError`] says which path could not be used and why.
pub fn bind(data: &DataFolder) -> Result<BoundSocket, BindError> {
    let (path, pointer) = place(data)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io { path, source }
    };
    remove_stale(&path).map_err(failed(&path))?;
    let listener = UnixListener::bind(&path).map_err(failed(&path))?;
    // Between the two calls others may connect, and find that their user is refused.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed(&path))?;
    if let Some(pointer) = &pointer {
        write_pointer(pointer, &path).map_err(failed(pointer))?;
    } else {
        drop(fs::remove_file(pointer_of(data)));
    }
    Ok(BoundSocket { listener, path, pointer })
}

/// Connects to whoever owns the store of `data`.
///
/// # Errors
///
/// [`ConnectError::NobodyThere`] if no owner answers, [`ConnectError::Foreign`] if somebody else
/// put a socket there.
pub fn connect(data: &DataFolder) -> Result<UnixStream, ConnectError> {
    let in_data = data.control_socket();
    let path = if fits(&in_data) { in_data } else { read_pointer(data) };
    let nobody = |source| ConnectError::NobodyThere { path: path.clone(), source };
    let made_by = fs::symlink_metadata(&path).map_err(nobody)?.uid();
    let folder_of = fs::metadata(data.root()).map_err(nobody)?.uid();
    if made_by != folder_of && made_by != own_uid() && made_by != 0 {
        return Err(ConnectError::Foreign { path, uid: made_by });
    }
    UnixStream::connect(&path).map_err(nobody)
}

/// Returns whether a process of user `uid` may use the local socket: our own user, or root.
pub fn may_use(uid: u32) -> bool {
    uid == own_uid() || uid == 0
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

fn pointer_of(data: &DataFolder) -> PathBuf {
    data.root().join("control.path")
}

/// Returns where to put the socket, and the file that says so if it is not the data folder.
fn place(data: &DataFolder) -> Result<(PathBuf, Option<PathBuf>), BindError> {
    let in_data = data.control_socket();
    if fits(&in_data) {
        return Ok((in_data, None));
    }
    let root = fs::canonicalize(data.root())
        .map_err(|source| BindError::Io { path: data.root().to_owned(), source })?;
    let hash = ContentId::of(root.as_os_str().as_bytes()).to_string();
    let name = format!("sutler-{}.sock", &hash[..16]);
    let path = runtime_folder(&name)?
        .ok_or_else(|| BindError::NoPlace { data: data.root().to_owned() })?
        .join(name);
    Ok((path, Some(pointer_of(data))))
}

/// Returns the first runtime folder in which `name` fits: the session's, the user's, or one of our
/// own under the temporary folder.
fn runtime_folder(name: &str) -> Result<Option<PathBuf>, BindError> {
    let uid = own_uid();
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = PathBuf::from(format!("/run/user/{uid}"));
    for folder in session.into_iter().chain([user]) {
        // Under sudo the session's folder may be somebody else's: then it is not for us.
        if folder.is_absolute() && fits(&folder.join(name)) && check_private(&folder).is_ok() {
            return Ok(Some(folder));
        }
    }
    let own = std::env::temp_dir().join(format!("sutler-{uid}"));
    if !fits(&own.join(name)) {
        return Ok(None);
    }
    match fs::DirBuilder::new().mode(0o700).create(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(BindError::Io { path: own, source: error });
        }
        _ => check_private(&own)?,
    }
    Ok(Some(own))
}

/// Checks that `folder` is a real folder of ours that nobody else can write to.
fn check_private(folder: &Path) -> Result<(), BindError> {
    let meta = fs::symlink_metadata(folder)
        .map_err(|source| BindError::Io { path: folder.to_owned(), source })?;
    if meta.is_dir() && meta.uid() == own_uid() && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(BindError::Unsafe { folder: folder.to_owned() })
}

/// Removes a socket that nobody listens at. Whatever else lies at the path is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else lies there")),
        Err(error) => Err(error),
    }
}

fn write_pointer(pointer: &Path, socket: &Path) -> io::Result<()> {
    let fresh = pointer.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(socket.as_os_str().as_bytes())?;
    fs::rename(&fresh, pointer)
}

/// Returns the path in `control.path`, or the pointer itself if there is none, to be named in the
/// error.
fn read_pointer(data: &DataFolder) -> PathBuf {
    use std::io::Read;
    let pointer = pointer_of(data);
    let mut bytes = Vec::new();
    let read = fs::File::open(&pointer)
        .and_then(|file| file.take(POINTER_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(len) if len > 0 => PathBuf::from(std::ffi::OsString::from_vec(bytes)),
        _ => pointer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_the_new_one_goes_with_its_owner() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::new(folder.path());
        drop(UnixListener::bind(data.control_socket()).expect("a short path"));
        assert!(matches!(connect(&data), Err(ConnectError::NobodyThere { .. })));

        let bound = bind(&data).expect("the stale one is replaced");
        connect(&data).expect("somebody listens");
        drop(bound);
        assert!(!data.control_socket().exists());
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::new(folder.path());
        fs::write(data.control_socket(), "precious").expect("a file");
        assert!(matches!(bind(&data), Err(BindError::Io { .. })));
        assert_eq!(fs::read(data.control_socket()).expect("still there"), b"precious");
    }

    #[test]
    fn a_path_too_long_for_a_socket_goes_through_the_runtime_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("d".repeat(90)).join("e".repeat(90));
        fs::create_dir_all(&deep).expect("folders");
        let data = DataFolder::new(&deep);
        let bound = bind(&data).expect("a short path elsewhere");
        assert!(bound.path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        connect(&data).expect("found by its pointer");
    }

    #[test]
    fn others_than_our_user_and_root_may_not_use_it() {
        assert!(may_use(own_uid()));
        assert!(may_use(0));
        assert!(!may_use(own_uid() + 1));
    }
}

//! The bytes of published contents, for machines that fetch them over QUIC: what lies in the repository for
//! HTTP is the store's as well, by a second name of the same file where the disk can do it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use sutler_cache::import::{ImportFrom, ImportHow};
use sutler_cache::{About, Store};
use sutler_orders::Content;
use sutler_protocol::ContentId;
use sutler_protocol::manifest::{TargetFile, TargetPath};
use sutler_swarm::gateway::causes;
use tracing::{info, warn};

use crate::state::State;

/// Puts what is published and lies in `repository` into the store, unless it is there. Trouble with one
/// content is no trouble of the others: devices go on without it, and the next look tries again.
pub(super) fn stock(repository: &Path, state: &State, store: &Store) {
    // As the store's index has it: this is done at every signature, and to open each would be to read its hash list.
    let complete = store.list().into_iter().filter(|entry| entry.complete);
    let complete: BTreeSet<ContentId> = complete.map(|entry| entry.id).collect();
    for (path, file) in state.contents() {
        match put(repository, (&path, file), &complete, store) {
            Ok(true) => info!(%path, "its bytes are in the store"),
            Ok(false) => {}
            Err(error) => warn!(%path, error, "its bytes are not in the store"),
        }
    }
}

/// Puts one content into the store, and says whether that was done now.
fn put(
    repository: &Path,
    (path, file): (&TargetPath, &TargetFile),
    complete: &BTreeSet<ContentId>,
    store: &Store,
) -> Result<bool, String> {
    let content = Content::of(path, file).map_err(|error| causes(&error))?;
    if complete.contains(&content.bytes.blake3) {
        return Ok(false);
    }
    let at = repository.join("targets").join(path.place(file.hashes.prefix().as_deref()));
    let open = match File::open(&at) {
        // It has a vendor's place, or its bytes are still on their way here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        open => open.map_err(|error| error.to_string())?,
    };
    let from = ImportFrom::File { file: &open, path: &at, how: ImportHow::HardLink };
    let about = About {
        name: Some(content.about.name.to_string()),
        sha256: Some(content.bytes.sha256),
        ..About::default()
    };
    let imported = store.import(from, &about).map_err(|error| causes(&error))?;
    if imported.content.id() != content.bytes.blake3 {
        return Err(format!("the file is {}, another content", imported.content.id()));
    }
    store.complete(std::slice::from_ref(&imported.content)).map_err(|error| causes(&error))?;
    Ok(true)
}

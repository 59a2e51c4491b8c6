//! What the store's files and folders are called.
//!
//! ```text
//! lock                    held by the process that owns the store
//! format                  which layout this is
//! contents/ab/HEX.data    a content's bytes; `ab` are the first two digits of its id
//! contents/ab/HEX.list    its hash list, if it has more than one chunk
//! contents/ab/HEX.rec     its record
//! moving                  here while a move to this folder is under way
//! standings               what the orders think of each content
//! damaged/                what could not be read, set aside for a human
//! quarantine/import-N     bytes of an import under way; a start removes it
//! quarantine/parted-HEX   a copy under way of a data file that was shared; a start removes it
//! quarantine/NAME.part    bytes that nothing vouches for yet; NAME is an id, or a digest after `sha256-`
//! quarantine/NAME.state   what is had of them, and their origin
//! quarantine/NAME.hint    what is had since, if the machine has not restarted
//! index/                  what a scan of the records can rebuild
//! ```

use std::path::{Path, PathBuf};

use sutler_protocol::ContentId;

/// Held by the process that owns the store.
pub(crate) const LOCK: &str = "lock";
/// Says which layout this is.
pub(crate) const FORMAT: &str = "format";
/// Holds what a scan of the records can rebuild.
pub(crate) const INDEX: &str = "index";
/// Is there while a store is being moved here, and half of it has come.
pub(crate) const MOVING: &str = "moving";
/// Says what the orders think of each content.
pub(crate) const STANDINGS: &str = "standings";
/// Holds one folder for each first two digits of an id.
pub(crate) const CONTENTS: &str = "contents";
/// Holds what could not be read.
pub(crate) const DAMAGED: &str = "damaged";
/// Holds bytes that nothing vouches for yet.
pub(crate) const QUARANTINE: &str = "quarantine";

const IMPORT_PREFIX: &str = "import-";
const PARTED_PREFIX: &str = "parted-";

/// The files of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Data,
    List,
    Record,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Data, Self::List, Self::Record];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::List => "list",
            Self::Record => "rec",
        }
    }
}

/// Returns the folder that a content's files lie in.
pub(crate) fn folder(id: ContentId) -> PathBuf {
    Path::new(CONTENTS).join(format!("{:02x}", id.as_bytes()[0]))
}

/// Returns the path of one of a content's files.
pub(crate) fn file(id: ContentId, kind: Kind) -> PathBuf {
    folder(id).join(format!("{id}.{}", kind.suffix()))
}

/// Returns where one of a content's files goes when it cannot be read.
pub(crate) fn damaged(id: ContentId, kind: Kind) -> PathBuf {
    Path::new(DAMAGED).join(format!("{id}.{}", kind.suffix()))
}

/// Returns where one import's bytes lie until they are known.
pub(crate) fn import(number: u64) -> PathBuf {
    Path::new(QUARANTINE).join(format!("{IMPORT_PREFIX}{number}"))
}

/// Returns where a data file is copied before it takes the place of a shared one.
pub(crate) fn parted(id: ContentId) -> PathBuf {
    Path::new(QUARANTINE).join(format!("{PARTED_PREFIX}{id}"))
}

/// Returns whether a file in quarantine means nothing after its process has gone.
pub(crate) fn is_passing(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|suffix| suffix == "new")
        || name.starts_with(IMPORT_PREFIX)
        || name.starts_with(PARTED_PREFIX)
}

/// Returns which content's file has this name, or `None` for a name that the store does not give.
pub(crate) fn parse(name: &str) -> Option<(ContentId, Kind)> {
    let (id, suffix) = name.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    let parsed: ContentId = id.parse().ok()?;
    // Another spelling of the same digits would be a second file for one content.
    (parsed.to_string() == id).then_some((parsed, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_back_to_its_content() {
        let id = ContentId::of(b"");
        let path = file(id, Kind::Record);
        assert!(path.starts_with("contents/af"));
        let name = path.file_name().and_then(|name| name.to_str()).expect("hex and a dot");
        assert_eq!(parse(name), Some((id, Kind::Record)));
        assert_eq!(parse(&name.to_uppercase()), None);
        assert_eq!(parse(&format!("{id}.tmp")), None);
        assert_eq!(parse("../../etc/passwd.rec"), None);
    }
}

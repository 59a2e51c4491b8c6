//! Reading every record, for an index that is to be made anew. A scan changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sutler_protocol::{ChunkRanges, ContentId};

use super::lock;
use crate::backend::{Backend, Open};
use crate::index::Row;
use crate::layout::{self, CONTENTS, Kind};
use crate::record::{RecordError, Slots};

/// Contents with a damaged record or none, while the start has not taken them; `None` after.
pub(super) type Leftovers = Arc<Mutex<Option<Vec<ContentId>>>>;

/// Returns what the records say. What cannot be read is passed over with a warning: one bad file
/// does not hide the others.
pub(super) fn rows(backend: &dyn Backend, leftovers: &Leftovers) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut left = Vec::new();
    let folders = backend.read_dir(Path::new(CONTENTS)).unwrap_or_else(|error| {
        tracing::warn!(%error, "contents cannot be listed");
        Vec::new()
    });
    for name in folders {
        let found = contents(backend, &name).unwrap_or_else(|error| {
            tracing::warn!(folder = name, %error, "contents cannot be listed");
            BTreeMap::new()
        });
        for (id, kinds) in found {
            match row(backend, id, &kinds) {
                Ok(row) => rows.push(row),
                Err(RecordError::Damaged) => left.push(id),
                Err(error) => tracing::warn!(content.id = %id, %error, "record passed over"),
            }
        }
    }
    if let Some(leftovers) = &mut *lock(leftovers) {
        *leftovers = left;
    }
    rows
}

/// Returns the contents in one folder below `contents/`, and which of their files are there.
fn contents(backend: &dyn Backend, name: &str) -> io::Result<BTreeMap<ContentId, BTreeSet<Kind>>> {
    let mut found: BTreeMap<ContentId, BTreeSet<Kind>> = BTreeMap::new();
    for file in backend.read_dir(&Path::new(CONTENTS).join(name))? {
        let Some((id, kind)) = layout::parse(&file) else { continue };
        if layout::folder(id).ends_with(name) {
            found.entry(id).or_default().insert(kind);
        }
    }
    Ok(found)
}

fn row(backend: &dyn Backend, id: ContentId, kinds: &BTreeSet<Kind>) -> Result<Row, RecordError> {
    if !kinds.contains(&Kind::Record) {
        return Err(RecordError::Damaged);
    }
    let file = backend.open(&layout::file(id, Kind::Record), Open::Read);
    let (_, mut record) = Slots::read(&*file.map_err(RecordError::Read)?, id)?;
    if !kinds.contains(&Kind::Data) {
        record.had = ChunkRanges::empty(record.had.chunks());
        record.complete = false;
    }
    Ok(record.row())
}

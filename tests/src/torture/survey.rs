//! What a killed client has left of a content in its data file, held against the original, and what
//! it had begun to receive and has not left there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;
use sutler_protocol::Geometry;

/// What lies in a data file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes of the chunks that are there whole.
    pub(super) whole_bytes: u64,
    /// Chunks of which something is there, and not all.
    pub(super) torn_chunks: u64,
    /// Which chunks are there whole.
    whole: BTreeSet<u64>,
}

impl Survey {
    /// Returns for each request the chunks that it had begun to receive, as the client's log at
    /// level `trace` says, and that are not there: those that are fetched again.
    pub(super) fn lost(&self, log: &str) -> BTreeMap<u64, BTreeSet<u64>> {
        let mut lost: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for line in log.lines() {
            // The last one may have been cut by the kill.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if event["message"] != "a chunk begins" {
                continue;
            }
            let number = |name: &str| event[name].as_u64().expect("a number");
            if !self.whole.contains(&number("chunk")) {
                lost.entry(number("request")).or_default().insert(number("chunk"));
            }
        }
        lost
    }
}

/// Compares the data file at `path` with the original; one that is absent has nothing.
pub(super) fn survey(path: &Path, original: &[u8]) -> Survey {
    let geometry = Geometry::of(original.len() as u64).expect("a content is not too long");
    let zeros = vec![0; geometry.chunk_bytes() as usize];
    let data = match fs::read(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Survey::default(),
        Err(error) => panic!("read {}: {error}", path.display()),
    };
    assert!(data.len() <= original.len(), "{} is too long", path.display());
    let mut found = Survey::default();
    for (chunk, right) in original.chunks(zeros.len()).enumerate() {
        let start = (chunk * zeros.len()).min(data.len());
        let there = &data[start..(start + right.len()).min(data.len())];
        if there == right {
            found.whole_bytes += right.len() as u64;
            found.whole.insert(chunk as u64);
        } else if there != &zeros[..there.len()] {
            found.torn_chunks += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_whole_absent_or_torn() {
        const CHUNK: usize = 64 * 1024;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let original: Vec<u8> = (0..CHUNK * 3 + 5).map(|i| i as u8 | 1).collect();
        assert_eq!(survey(&path, &original), Survey::default());

        let mut data = original.clone();
        data[CHUNK..CHUNK * 2].fill(0);
        data[CHUNK * 2 + 10..CHUNK * 3].fill(0);
        fs::write(&path, &data).expect("written");
        let found = survey(&path, &original);
        let whole = BTreeSet::from([0, 3]);
        assert_eq!(found, Survey { whole_bytes: CHUNK as u64 + 5, torn_chunks: 1, whole });
    }

    #[test]
    fn a_chunk_that_was_begun_and_is_not_there_is_lost() {
        let found = Survey { whole: BTreeSet::from([0, 3]), ..Survey::default() };
        let begins = |request: u64, chunk: u64| {
            format!(r#"{{"message":"a chunk begins","request":{request},"chunk":{chunk}}}"#)
        };
        let other = r#"{"message":"a source is left"}"#.to_owned();
        let cut = begins(9, 9)[..30].to_owned();
        let log = [begins(0, 0), begins(0, 1), begins(1, 2), begins(1, 3), other, cut].join("\n");
        let lost = BTreeMap::from([(0, BTreeSet::from([1])), (1, BTreeSet::from([2]))]);
        assert_eq!(found.lost(&log), lost);
    }
}

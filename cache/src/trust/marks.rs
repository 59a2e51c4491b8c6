//! The marks: which document of each top-level role was believed last.
//!
//! ```text
//! sutler trust 1
//! root now 3 2211 B3SUM
//! timestamp now 41 512 B3SUM
//! timestamp next 42 512 B3SUM
//! snapshot lost 17
//! sum B3SUM
//! ```
//! `now` is the document in the role's file, `next` one that may have taken its place: it is there only
//! while that happens. `lost` is the version of a document that is gone, until one comes in its place. The last line has the BLAKE3 of
//! all before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sutler_protocol::ContentId;
use sutler_protocol::manifest::{RoleName, Version};

use super::{MARKS, top_level};
use crate::backend::{Backend, read_file, replace};

const FIRST_LINE: &str = "sutler trust 1";

/// Bytes of the file that are read: a few lines of some 100 bytes each.
const BYTES_MAX: u64 = 64 * 1024;

/// What is known of each top-level role's document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    marks: BTreeMap<RoleName, Mark>,
}

/// What is known of one role's document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) now: Option<Entry>,
    pub(super) next: Option<Entry>,
    pub(super) lost: Option<Version>,
}

/// Which document it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: Version,
    len: u64,
    hash: ContentId,
}

/// Why there are no marks.
#[derive(Debug)]
pub(super) enum ReadError {
    Damaged,
    Read(io::Error),
}

impl Entry {
    pub(super) fn of(version: Version, bytes: &[u8]) -> Self {
        Self { version, len: bytes.len() as u64, hash: ContentId::of(bytes) }
    }

    /// Returns whether `bytes` are this document.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() as u64 && self.hash == ContentId::of(bytes)
    }
}

impl Marks {
    /// Reads the marks, or returns `None` if there are none.
    pub(super) fn read(backend: &dyn Backend) -> Result<Option<Self>, ReadError> {
        match read_file(backend, Path::new(MARKS), BYTES_MAX) {
            Ok(bytes) => parse(&bytes).map(Some).ok_or(ReadError::Damaged),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(None),
                io::ErrorKind::FileTooLarge => Err(ReadError::Damaged),
                _ => Err(ReadError::Read(error)),
            },
        }
    }

    /// Writes them down, durably.
    pub(super) fn write(&self, backend: &dyn Backend) -> io::Result<()> {
        replace(backend, Path::new(MARKS), self.text().as_bytes())
    }

    /// Returns what is known of a role's document: nothing if there is no mark.
    pub(super) fn of(&self, role: &RoleName) -> Mark {
        self.marks.get(role).cloned().unwrap_or_default()
    }

    pub(super) fn set(&mut self, role: &RoleName, mark: Mark) {
        self.marks.insert(role.clone(), mark);
    }

    pub(super) fn remove(&mut self, role: &RoleName) {
        self.marks.remove(role);
    }

    /// Returns the versions of the documents that are lost.
    pub(super) fn floors(&self) -> BTreeMap<RoleName, Version> {
        let lost = self.marks.iter().filter_map(|(role, mark)| Some((role.clone(), mark.lost?)));
        lost.collect()
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let mut line = |line: std::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("writing to a string succeeds");
        };
        for (role, Mark { now, next, lost }) in &self.marks {
            for (word, entry) in [("now", now), ("next", next)] {
                if let Some(Entry { version, len, hash }) = entry {
                    line(format_args!("{role} {word} {version} {len} {hash}"));
                }
            }
            if let Some(version) = lost {
                line(format_args!("{role} lost {version}"));
            }
        }
        let sum = ContentId::of(text.as_bytes());
        writeln!(text, "sum {sum}").expect("writing to a string succeeds");
        text
    }
}

fn parse(bytes: &[u8]) -> Option<Marks> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (text, sum) = text.strip_suffix('\n')?.split_once("sum ")?;
    if ContentId::of(text.as_bytes()).to_string() != sum {
        return None;
    }
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut marks = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let role = top_level().into_iter().find(|role| role.as_str() == words[0])?;
        let version = Version::new(words.get(2)?.parse().ok()?)?;
        let mark: &mut Mark = marks.entry(role).or_default();
        match words[..] {
            [_, "lost", _] => mark.lost = Some(version),
            [_, word, _, len, hash] => {
                let entry = Entry { version, len: len.parse().ok()?, hash: hash.parse().ok()? };
                match word {
                    "now" => mark.now = Some(entry),
                    "next" => mark.next = Some(entry),
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(Marks { marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        let version = |number| Version::new(number).unwrap();
        let mut marks = Marks::default();
        let root = Entry::of(version(3), b"root");
        marks.set(&RoleName::root(), Mark { now: Some(root), ..Mark::default() });
        let (now, next) = (Entry::of(version(41), b"a"), Entry::of(version(42), b"bc"));
        let both = Mark { now: Some(now), next: Some(next.clone()), lost: None };
        marks.set(&RoleName::timestamp(), both);
        let lost = version(u64::MAX);
        marks.set(&RoleName::targets(), Mark { now: None, next: Some(next), lost: Some(lost) });
        marks.set(&RoleName::snapshot(), Mark { lost: Some(lost), ..Mark::default() });
        marks
    }

    #[test]
    fn what_was_written_is_read_back() {
        for marks in [marks(), Marks::default()] {
            assert_eq!(parse(marks.text().as_bytes()), Some(marks));
        }
    }

    // T2
    #[test]
    fn a_cut_or_changed_file_makes_no_sense() {
        let text = marks().text().into_bytes();
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), None, "{len}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), None, "{at}");
        }
    }
}

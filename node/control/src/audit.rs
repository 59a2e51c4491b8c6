//! The audit log: who did what to the orders, when, and why; and proof that nothing in it was changed.
//!
//! One file of lines, only ever added to. A line is the chain's value in 64 hex digits, a space, and an
//! [`Entry`] as JSON; the value is the BLAKE3 of the value before it (32 zero bytes at the beginning)
//! and the entry's bytes. So every value vouches for all that stands above it, and whoever knows a later one
//! finds any line that was changed, cut or put in (T27). The newest is inside each signed timestamp, which
//! nodes and devices keep: [`Head`].
//!
//! Anybody can check a log without us: `b3sum` of the value and the entry is the next value.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;

/// Bytes of a line, at most: an actor, an object and a reason, all bounded where they come from.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The name in a timestamp under which the head stands.
pub const HEAD_FIELD: &str = "audit";

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number, from 1 on, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: Utc,
    /// Who did it: an admin's name, or a member's.
    pub actor: String,
    /// What was done, such as `publish` or `join`.
    pub action: String,
    /// To what: roles and versions, or a member.
    pub object: String,
    /// Why, if anybody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is to be written down. Number and chain are the log's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: &'static str,
    /// To what.
    pub object: String,
    /// Why, if anybody said.
    pub reason: Option<String>,
}

/// How far a log goes, and the value that vouches for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 for an empty log.
    pub seq: u64,
    /// The chain's value behind it.
    pub chain: ContentId,
}

/// A log that is open for more.
#[derive(Debug)]
pub struct Audit {
    file: File,
    path: PathBuf,
    head: Head,
    /// Bytes of all entries.
    bytes: u64,
}

/// Why a log does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk refused.
    #[error("read or write the audit log {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// A line is no line of a log.
    #[error("line {line} of the audit log cannot be read")]
    Line {
        /// Its number, from 1 on.
        line: u64,
    },
    /// A line was changed, or one before it was cut or put in.
    #[error("line {line} of the audit log does not follow from the one before it")]
    Chain {
        /// Its number, from 1 on.
        line: u64,
    },
    /// It ends before an entry that was vouched for.
    #[error("the audit log ends with entry {found}, and entry {known} was vouched for")]
    Cut {
        /// The last that is there.
        found: u64,
        /// The last that is known of.
        known: u64,
    },
    /// It is not the log that was vouched for.
    #[error("entry {seq} of the audit log is not the one that was vouched for")]
    Other {
        /// Which.
        seq: u64,
    },
}

impl Head {
    /// The head of a log with nothing in it.
    pub const EMPTY: Self = Self { seq: 0, chain: ContentId::from_bytes([0; 32]) };

    /// Returns the head behind `entry`, as it is written.
    fn behind(self, seq: u64, entry: &[u8]) -> Self {
        let chain = ContentId::of(&[self.chain.as_bytes(), entry].concat());
        Self { seq, chain }
    }

    /// Returns the fields of a timestamp that say it.
    pub fn to_extra(self) -> Map<String, Value> {
        let head = json!({ "seq": self.seq, "blake3": self.chain.to_string() });
        Map::from_iter([(HEAD_FIELD.to_owned(), head)])
    }

    /// Returns the head that a timestamp's fields say; `None` if they say none.
    pub fn from_extra(extra: &Map<String, Value>) -> Option<Self> {
        let head = extra.get(HEAD_FIELD)?;
        let chain = head.get("blake3")?.as_str()?.parse().ok()?;
        Some(Self { seq: head.get("seq")?.as_u64()?, chain })
    }
}

impl Audit {
    /// Opens the log at `path`, or makes it, and checks all of it. `known` is the newest head that was
    /// signed: a log that does not hold it is refused.
    ///
    /// A last line that a kill cut off was vouched for by nobody, and goes.
    ///
    /// # Errors
    ///
    /// [`AuditError`]; the log is then as it was.
    pub fn open(path: &Path, known: Option<Head>) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Disk { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let Checked { head, bytes, .. } = check(&file, known, path, Tail::MayBeCut)?;
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), head, bytes })
    }

    /// Returns how far it goes.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Writes a deed down; when this returns, it is durable.
    ///
    /// # Errors
    ///
    /// [`AuditError::Disk`]; what was written of it is taken back before anything else is written.
    pub fn add(&mut self, deed: Deed, at: Utc) -> Result<Head, AuditError> {
        self.add_by(deed, at, |mut file, line| file.write_all(line).and_then(|()| file.sync_data()))
    }

    fn add_by(
        &mut self,
        deed: Deed,
        at: Utc,
        write: impl FnOnce(&File, &[u8]) -> io::Result<()>,
    ) -> Result<Head, AuditError> {
        let seq = self.head.seq + 1;
        let Deed { actor, action, object, reason } = deed;
        let entry = Entry { seq, at, actor, action: action.to_owned(), object, reason };
        let entry = serde_json::to_string(&entry).expect("an entry is text");
        let head = self.head.behind(seq, entry.as_bytes());
        let line = format!("{} {entry}\n", head.chain);
        // A full disk took a part of the last one, or an entry that was told to have failed: what followed it would be
        // no log.
        let written =
            self.file.set_len(self.bytes).and_then(|()| write(&self.file, line.as_bytes()));
        if let Err(source) = written {
            // Where that fails as well, the next entry tries it again.
            drop(self.file.set_len(self.bytes));
            return Err(AuditError::Disk { path: self.path.clone(), source });
        }
        (self.head, self.bytes) = (head, self.bytes + line.len() as u64);
        Ok(head)
    }
}

/// Checks the log at `path`, and returns its entries and how far it goes.
///
/// # Errors
///
/// [`AuditError`], naming the first line that does not hold.
pub fn verify(path: &Path, known: Option<Head>) -> Result<(Vec<Entry>, Head), AuditError> {
    let file =
        File::open(path).map_err(|source| AuditError::Disk { path: path.to_owned(), source })?;
    let Checked { entries, head, .. } = check(&file, known, path, Tail::IsWhole)?;
    Ok((entries, head))
}

/// What may be said of a last line without an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A kill cut it off.
    MayBeCut,
    /// Somebody did.
    IsWhole,
}

struct Checked {
    entries: Vec<Entry>,
    head: Head,
    /// Bytes of all whole lines.
    bytes: u64,
}

fn check(file: &File, known: Option<Head>, path: &Path, tail: Tail) -> Result<Checked, AuditError> {
    let failed = |source| AuditError::Disk { path: path.to_owned(), source };
    let mut reader = BufReader::new(file);
    let (mut entries, mut head, mut bytes) = (Vec::new(), Head::EMPTY, 0);
    let mut is_known_seen = known.is_none_or(|known| known == Head::EMPTY);
    let mut line = Vec::new();
    loop {
        line.clear();
        let number = head.seq + 1;
        // One byte more than a line has, so that none is ever held that is longer.
        let mut bounded = io::Read::take(&mut reader, LINE_BYTES_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            match tail {
                Tail::MayBeCut if read <= LINE_BYTES_MAX => break,
                _ => return Err(AuditError::Line { line: number }),
            }
        };
        let (chain, entry) = split(text).ok_or(AuditError::Line { line: number })?;
        let parsed: Entry =
            serde_json::from_slice(entry).map_err(|_| AuditError::Line { line: number })?;
        head = head.behind(number, entry);
        if parsed.seq != number || head.chain != chain {
            return Err(AuditError::Chain { line: number });
        }
        if let Some(known) = known.filter(|known| known.seq == number) {
            if known.chain != chain {
                return Err(AuditError::Other { seq: number });
            }
            is_known_seen = true;
        }
        bytes += read as u64;
        entries.push(parsed);
    }
    match known {
        Some(known) if !is_known_seen => Err(AuditError::Cut { found: head.seq, known: known.seq }),
        _ => Ok(Checked { entries, head, bytes }),
    }
}

fn split(line: &[u8]) -> Option<(ContentId, &[u8])> {
    let (chain, rest) = line.split_at_checked(64)?;
    Some((str::from_utf8(chain).ok()?.parse().ok()?, rest.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(object: &str) -> Deed {
        let (actor, object) = ("anna".to_owned(), object.to_owned());
        Deed { actor, action: "publish", object, reason: Some("a test".to_owned()) }
    }

    fn at() -> Utc {
        "2026-11-27T20:00:00Z".parse().unwrap()
    }

    fn log(path: &Path, objects: &[&str]) -> Head {
        let mut audit = Audit::open(path, None).unwrap();
        for object in objects {
            audit.add(deed(object), at()).unwrap();
        }
        audit.head()
    }

    // T27
    #[test]
    fn any_line_that_is_changed_cut_or_put_in_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let head = log(&path, &["one", "two", "three"]);
        assert_eq!(verify(&path, Some(head)).unwrap().0.len(), 3);
        let good = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let spoilt = |text: String| {
            std::fs::write(&path, text).unwrap();
            verify(&path, Some(head)).map(drop).unwrap_err().to_string()
        };
        for byte in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[byte] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(verify(&path, Some(head)).is_err(), "byte {byte}");
        }
        let without_second = format!("{}\n{}\n", lines[0], lines[2]);
        assert!(spoilt(without_second).contains("line 2"), "a line was cut");
        let twice = format!("{}\n{}\n{}\n{}\n", lines[0], lines[1], lines[1], lines[2]);
        assert!(spoilt(twice).contains("line 3"), "a line was put in");
        let shorter = format!("{}\n{}\n", lines[0], lines[1]);
        assert!(spoilt(shorter).contains("ends with entry 2"), "the end was cut");
        std::fs::write(&path, "").unwrap();
        assert!(verify(&path, Some(head)).is_err());
        // Another log, whole by itself.
        std::fs::remove_file(&path).unwrap();
        log(&path, &["one", "two", "other", "more"]);
        assert!(matches!(verify(&path, Some(head)), Err(AuditError::Other { seq: 3 })));
    }

    #[test]
    fn a_line_that_a_kill_cut_off_goes_and_what_was_vouched_for_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let head = log(&path, &["one", "two"]);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..60 {
            std::fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
            let mut audit = Audit::open(&path, Some(head)).unwrap();
            assert_eq!(audit.head(), head);
            audit.add(deed("three"), at()).unwrap();
            assert_eq!(verify(&path, Some(head)).unwrap().0.len(), 3);
        }
        // But not where it was vouched for.
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(Audit::open(&path, Some(head)), Err(AuditError::Cut { .. })));
    }

    #[test]
    fn a_full_disk_costs_the_entry_that_it_did_not_take_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut audit = Audit::open(&path, None).unwrap();
        audit.add(deed("one"), at()).unwrap();
        for part in [0, 1, 70, usize::MAX] {
            let full = |mut file: &File, line: &[u8]| {
                file.write_all(&line[..part.min(line.len())])?;
                Err(io::ErrorKind::StorageFull.into())
            };
            let before = audit.head();
            audit.add_by(deed("lost"), at(), full).unwrap_err();
            assert_eq!(audit.head(), before);
            assert_eq!(verify(&path, Some(before)).unwrap().1, before, "{part}");
            let head = audit.add(deed("next"), at()).unwrap();
            assert_eq!(verify(&path, Some(head)).unwrap().1, head, "{part}");
        }
        let head = audit.head();
        drop(audit);
        assert_eq!(Audit::open(&path, Some(head)).unwrap().head().seq, 5);
    }

    #[test]
    fn the_head_travels_in_a_timestamp() {
        let dir = tempfile::tempdir().unwrap();
        let head = log(&dir.path().join("log"), &["one"]);
        assert_eq!(Head::from_extra(&head.to_extra()), Some(head));
        assert_eq!(Head::from_extra(&Map::new()), None);
    }
}

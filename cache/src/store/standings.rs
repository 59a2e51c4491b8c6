//! What the orders think of each content, as last told, kept so that a start does not evict what is
//! pinned before anybody has told it again.
//!
//! ```text
//! sutler standings 1
//! HEX superseded
//! HEX referenced
//! HEX rollback
//! HEX order RISK
//! sum B3SUM
//! ```
//! One line for each content that stands otherwise than unreferenced, in the order of their ids; the
//! last has the BLAKE3 of all lines before it.
//! A file that makes no sense means that everything is pinned: unreadable is not empty.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use sutler_protocol::ContentId;

use crate::backend::{Backend, read_file, replace};
use crate::eviction::{Pin, Risk, Standing};
use crate::layout::STANDINGS;

const FIRST_LINE: &str = "sutler standings 1";

/// Bytes of the file that are read: two million contents, of some 75 bytes each.
const BYTES_MAX: u64 = 160 << 20;

/// What the orders think of the contents.
#[derive(Debug)]
pub(super) enum Standings {
    Told(BTreeMap<ContentId, Standing>),
    /// They were told, and what was written down cannot be read.
    Lost,
}

impl Standings {
    /// Reads what was told to an earlier process.
    pub(super) fn read(backend: &dyn Backend) -> Self {
        match read_file(backend, Path::new(STANDINGS), BYTES_MAX) {
            Ok(bytes) => parse(&bytes).map_or_else(
                || {
                    tracing::warn!("standings are damaged: nothing is evicted until told anew");
                    Self::Lost
                },
                Self::Told,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Told(BTreeMap::new()),
            Err(error) => {
                tracing::warn!(%error, "standings are unreadable: nothing is evicted until told anew");
                Self::Lost
            }
        }
    }

    pub(super) fn of(&self, id: ContentId) -> Standing {
        match self {
            Self::Told(standings) => standings.get(&id).copied().unwrap_or_default(),
            Self::Lost => Standing::Pinned(Pin::Order(Risk(u8::MAX))),
        }
    }
}

/// Writes down what is told, durably.
pub(super) fn write(
    backend: &dyn Backend,
    standings: &BTreeMap<ContentId, Standing>,
) -> io::Result<()> {
    let mut text = format!("{FIRST_LINE}\n");
    for (id, standing) in standings {
        let word = match standing {
            Standing::Superseded => "superseded".to_owned(),
            Standing::Unreferenced => continue,
            Standing::Referenced => "referenced".to_owned(),
            Standing::Pinned(Pin::Rollback) => "rollback".to_owned(),
            Standing::Pinned(Pin::Order(Risk(risk))) => format!("order {risk}"),
        };
        writeln!(text, "{id} {word}").expect("writing to a string succeeds");
    }
    let sum = ContentId::of(text.as_bytes());
    writeln!(text, "sum {sum}").expect("writing to a string succeeds");
    replace(backend, Path::new(STANDINGS), text.as_bytes())
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<ContentId, Standing>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (text, sum) = text.strip_suffix('\n')?.split_once("sum ")?;
    if ContentId::of(text.as_bytes()).to_string() != sum {
        return None;
    }
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let standing = |line: &str| {
        let (id, word) = line.split_once(' ')?;
        let standing = match word {
            "superseded" => Standing::Superseded,
            "referenced" => Standing::Referenced,
            "rollback" => Standing::Pinned(Pin::Rollback),
            order => {
                Standing::Pinned(Pin::Order(Risk(order.strip_prefix("order ")?.parse().ok()?)))
            }
        };
        Some((id.parse().ok()?, standing))
    };
    lines.map(standing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::backend::faulty::Faulty;

    fn standings() -> BTreeMap<ContentId, Standing> {
        let all = [
            Standing::Superseded,
            Standing::Referenced,
            Standing::Pinned(Pin::Rollback),
            Standing::Pinned(Pin::Order(Risk(7))),
        ];
        (0u8..).zip(all).map(|(n, standing)| (ContentId::from_bytes([n; 32]), standing)).collect()
    }

    #[test]
    fn what_was_told_is_read_back() {
        let disk = Faulty::new();
        write(&disk, &standings()).expect("written");
        let read = Standings::read(&disk);
        for (id, standing) in standings() {
            assert_eq!(read.of(id), standing);
        }
        assert_eq!(read.of(ContentId::from_bytes([9; 32])), Standing::Unreferenced);
    }

    // R32
    #[test]
    fn a_damaged_file_pins_everything_and_an_absent_one_nothing() {
        let disk = Faulty::new();
        let id = ContentId::from_bytes([0; 32]);
        assert_eq!(Standings::read(&disk).of(id), Standing::Unreferenced);
        write(&disk, &standings()).expect("written");
        disk.flip(Path::new(STANDINGS), 30);
        assert!(matches!(Standings::read(&disk).of(id), Standing::Pinned(_)));
    }
}

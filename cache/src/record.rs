//! A content's record: what it is, and which of its chunks are had.
//!
//! A record file has two slots, 8 KiB apart, each with a generation and a checksum. A write goes to
//! the slot that is *not* the newest, so that a torn one leaves the newest before it. The newest
//! slot with a right checksum is the record. `FORMAT.md` gives the bytes.
//!
//! Invariant: a slot is written only when the other one is durable, or both are of one group that
//! has not been acknowledged.

use std::io;
use std::path::Path;

use sutler_protocol::{ChunkRanges, ContentId, Geometry, Sha256Digest};

use crate::about::VALIDATOR_BYTES_MAX;
use crate::about::{About, NAME_BYTES_MAX, ORIGINS_MAX, Offer, Origin, URL_BYTES_MAX};
use crate::backend::{Backend, Open, StoreFile};
use crate::content::bytes_of;
use crate::eviction::Day;
use crate::index::{Row, Summary};

/// Bytes from the start of one slot to the start of the next; no record is longer.
pub const SLOT_BYTES: usize = 8 * 1024;

/// The format of a slot that this crate writes.
pub const RECORD_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"sutlrec\n";
const CHECKSUM_BYTES: usize = 32;
/// A text that is absent, where its length would be.
const ABSENT: u16 = u16::MAX;

const FLAG_COMPLETE: u16 = 1;
const FLAG_SHA256: u16 = 1 << 1;
const FLAG_SHA256_CHECKED: u16 = 1 << 2;
const FLAG_HAS_ALL: u16 = 1 << 3;
const FLAG_HAS_SOME: u16 = 1 << 4;
const FLAG_NOT_OFFERED: u16 = 1 << 5;
const FLAGS: u16 = (1 << 6) - 1;

/// Whether a content's bytes were compared with its vendor's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestCheck {
    /// Not yet, or there is no digest.
    Pending,
    /// They were, and agree.
    Agrees,
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which content it is about.
    pub id: ContentId,
    /// The content's length in bytes: a claim until the last chunk is had.
    pub len: u64,
    /// Whether all of it is had, durable, and agrees with its vendor's digest.
    pub complete: bool,
    /// What is known of it beside its bytes.
    pub about: About,
    /// Whether the digest in `about` was checked.
    pub sha256: DigestCheck,
    /// The day on which it was last opened.
    pub last_access: Day,
    /// The chunks that are had.
    pub had: ChunkRanges,
}

/// Why a slot or a record file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A later version of the program wrote it.
    #[error("the record has format {version}; this program reads up to {RECORD_VERSION}")]
    Newer {
        /// The format found.
        version: u16,
    },
    /// No slot has a right checksum and sense.
    #[error("the record is damaged")]
    Damaged,
    /// The disk refused.
    #[error("read the record")]
    Read(#[source] io::Error),
}

/// Which slot of a record file is the newest durable one: the generation says.
#[derive(Debug)]
pub(crate) struct Slots {
    generation: u64,
}

impl Slots {
    /// Reads a record file.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; one of format this program does not know wins over a damaged one, so that
    /// a newer record is never taken for rubbish.
    pub(crate) fn read(file: &dyn StoreFile, id: ContentId) -> Result<(Self, Record), RecordError> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RecordError::Read(error)),
            }
        }
        let (generation, record) = Record::newest(&bytes[..filled], Some(id))?;
        Ok((Self { generation }, record))
    }

    /// Makes a record file with one slot, in one write. Not durable yet.
    pub(crate) fn create(backend: &dyn Backend, path: &Path, record: &Record) -> io::Result<Self> {
        let file = match backend.open(path, Open::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // What an interrupted creation left here must not outlive it as a later generation.
                let file = backend.open(path, Open::Write)?;
                file.set_len(0)?;
                file
            }
            other => other?,
        };
        file.write_all_at(&record.encode(0), 0)?;
        Ok(Self { generation: 0 })
    }

    /// Writes `record` to the older slot. Until [`Slots::confirm`] says that it is durable, the
    /// next write goes to the same slot, and the newest durable one is left alone.
    pub(crate) fn write(&self, file: &dyn StoreFile, record: &Record) -> io::Result<()> {
        let generation = self.generation + 1;
        let offset = (generation % 2) * SLOT_BYTES as u64;
        file.write_all_at(&record.encode(generation), offset)
    }

    /// Counts the slot written last as durable.
    pub(crate) fn confirm(&mut self) {
        self.generation += 1;
    }
}

impl Record {
    /// Reads the bytes of a whole record file, and returns the newest slot with its generation.
    ///
    /// # Errors
    ///
    /// [`RecordError::Newer`] if either slot is of a later format, [`RecordError::Damaged`] if
    /// neither can be believed.
    pub fn read(bytes: &[u8]) -> Result<(u64, Self), RecordError> {
        Self::newest(bytes, None)
    }

    /// As [`Record::read`], of the content `id` alone if one is given.
    fn newest(bytes: &[u8], id: Option<ContentId>) -> Result<(u64, Self), RecordError> {
        let mut newest: Option<(u64, Self)> = None;
        for slot in bytes.chunks(SLOT_BYTES).take(2) {
            match Self::decode(slot) {
                Ok((generation, record)) if id.is_none_or(|id| id == record.id) => {
                    if newest.as_ref().is_none_or(|(newest, _)| *newest < generation) {
                        newest = Some((generation, record));
                    }
                }
                Err(newer @ RecordError::Newer { .. }) => return Err(newer),
                Ok(_) | Err(_) => {}
            }
        }
        newest.ok_or(RecordError::Damaged)
    }

    /// Returns a slot's bytes, checksum included: at most [`SLOT_BYTES`].
    pub(crate) fn encode(&self, generation: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend(MAGIC);
        bytes.extend(RECORD_VERSION.to_le_bytes());
        bytes.extend(self.flags().to_le_bytes());
        // The whole length of the slot, set below.
        bytes.extend([0; 4]);
        bytes.extend(generation.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.last_access.0.to_le_bytes());
        if let Some(digest) = &self.about.sha256 {
            bytes.extend(digest.as_bytes());
        }
        put_text(&mut bytes, self.about.name.as_deref());
        bytes.push(self.about.origins.len() as u8);
        for origin in &self.about.origins {
            put_text(&mut bytes, Some(&origin.url));
            put_text(&mut bytes, origin.etag.as_deref());
            put_text(&mut bytes, origin.last_modified.as_deref());
        }
        if self.flags() & FLAG_HAS_SOME != 0 {
            bytes.extend(self.had.to_bitmap());
        }
        let whole = (bytes.len() + CHECKSUM_BYTES) as u32;
        bytes[12..16].copy_from_slice(&whole.to_le_bytes());
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend(checksum);
        debug_assert!(bytes.len() <= SLOT_BYTES, "About::bounded leaves room");
        bytes
    }

    /// Returns what the index knows of the content. A digest leads to it once it was checked.
    pub(crate) fn row(&self) -> Row {
        let digest = self.about.sha256.filter(|_| self.sha256 == DigestCheck::Agrees);
        let had_bytes = Geometry::of(self.len).map_or(0, |geometry| bytes_of(geometry, &self.had));
        Row {
            id: self.id,
            summary: Summary {
                len: self.len,
                had_bytes,
                complete: self.complete,
                last_access: self.last_access,
                name: self.about.name.clone(),
            },
            digests: digest.into_iter().collect(),
            urls: self.about.origins.iter().map(|origin| origin.url.clone()).collect(),
        }
    }

    fn flags(&self) -> u16 {
        let mut flags = 0;
        let mut set = |when, flag| flags |= if when { flag } else { 0 };
        set(self.complete, FLAG_COMPLETE);
        set(self.about.sha256.is_some(), FLAG_SHA256);
        let agrees = self.sha256 == DigestCheck::Agrees && self.about.sha256.is_some();
        set(agrees, FLAG_SHA256_CHECKED);
        set(self.had.is_full(), FLAG_HAS_ALL);
        set(!self.had.is_full() && !self.had.is_empty(), FLAG_HAS_SOME);
        set(self.about.offer == Offer::Nobody, FLAG_NOT_OFFERED);
        flags
    }

    /// Reads a slot, which may be followed by anything.
    ///
    /// # Errors
    ///
    /// [`RecordError::Newer`] for a slot of a later format, [`RecordError::Damaged`] for whatever
    /// this crate would not have written.
    pub(crate) fn decode(slot: &[u8]) -> Result<(u64, Self), RecordError> {
        decode(slot).unwrap_or(Err(RecordError::Damaged))
    }
}

/// `None` where the bytes end too early or make no sense.
fn decode(slot: &[u8]) -> Option<Result<(u64, Record), RecordError>> {
    let mut cursor = Cursor(slot);
    if cursor.array::<8>()? != MAGIC {
        return None;
    }
    let version = u16::from_le_bytes(cursor.array()?);
    let flags = u16::from_le_bytes(cursor.array()?);
    let whole = u32::from_le_bytes(cursor.array()?) as usize;
    if !(CHECKSUM_BYTES + 16..=SLOT_BYTES).contains(&whole) {
        return None;
    }
    // Of every format: magic, version and length are where they are, and the checksum ends it.
    let (body, checksum) = slot.get(..whole)?.split_at(whole - CHECKSUM_BYTES);
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    if version > RECORD_VERSION {
        return Some(Err(RecordError::Newer { version }));
    }
    if version != RECORD_VERSION || flags & !FLAGS != 0 {
        return None;
    }
    let mut cursor = Cursor(body.get(16..)?);
    let generation = u64::from_le_bytes(cursor.array()?);
    let len = u64::from_le_bytes(cursor.array()?);
    let chunks = Geometry::of(len).ok()?.chunks();
    let id = ContentId::from_bytes(cursor.array()?);
    let last_access = Day(u32::from_le_bytes(cursor.array()?));
    let sha256 = match flags & FLAG_SHA256 {
        0 => None,
        _ => Some(Sha256Digest::from_bytes(cursor.array()?)),
    };
    let name = cursor.text(NAME_BYTES_MAX)?;
    let [origin_count] = cursor.array()?;
    if usize::from(origin_count) > ORIGINS_MAX {
        return None;
    }
    let mut origins = Vec::with_capacity(origin_count.into());
    for _ in 0..origin_count {
        origins.push(Origin {
            url: cursor.text(URL_BYTES_MAX)??,
            etag: cursor.text(VALIDATOR_BYTES_MAX)?,
            last_modified: cursor.text(VALIDATOR_BYTES_MAX)?,
        });
    }
    let had = match flags & (FLAG_HAS_ALL | FLAG_HAS_SOME) {
        0 => ChunkRanges::empty(chunks),
        FLAG_HAS_ALL => ChunkRanges::full(chunks),
        FLAG_HAS_SOME => {
            ChunkRanges::from_bitmap(chunks, cursor.take(ChunkRanges::bitmap_bytes(chunks))?)
                .ok()?
        }
        _ => return None,
    };
    let complete = flags & FLAG_COMPLETE != 0;
    if !cursor.0.is_empty() || (complete && !had.is_full()) {
        return None;
    }
    let check = match flags & FLAG_SHA256_CHECKED {
        0 => DigestCheck::Pending,
        _ => DigestCheck::Agrees,
    };
    let offer = match flags & FLAG_NOT_OFFERED {
        0 => Offer::Peers,
        _ => Offer::Nobody,
    };
    let about = About { name, origins, sha256, offer };
    Some(Ok((generation, Record { id, len, complete, about, sha256: check, last_access, had })))
}

fn put_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    let len = text.map_or(ABSENT, |text| text.len() as u16);
    bytes.extend(len.to_le_bytes());
    bytes.extend(text.unwrap_or_default().as_bytes());
}

/// What of a slot is not yet read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Reads a text of at most `bytes_max`, which may be absent.
    #[expect(clippy::option_option, reason = "the outer says unreadable, the inner absent")]
    fn text(&mut self, bytes_max: usize) -> Option<Option<String>> {
        let len = u16::from_le_bytes(self.array()?);
        if len == ABSENT {
            return Some(None);
        }
        if usize::from(len) > bytes_max {
            return None;
        }
        let text = std::str::from_utf8(self.take(len.into())?).ok()?;
        Some(Some(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sutler_protocol::ChunkIndex;

    use super::*;

    fn record(len: u64, had: &[u32]) -> Record {
        let chunks = Geometry::of(len).expect("within the bound").chunks();
        let mut set = ChunkRanges::empty(chunks);
        for chunk in had {
            set.insert(ChunkIndex(*chunk));
        }
        Record {
            id: ContentId::of(b"x"),
            len,
            complete: set.is_full(),
            about: About::default(),
            sha256: DigestCheck::Pending,
            last_access: Day(20_780),
            had: set,
        }
    }

    fn text(bytes_max: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<char>(), 0..bytes_max)
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn any_about() -> impl Strategy<Value = About> {
        let validator = || proptest::option::of(text(80));
        let origin = (text(400), validator(), validator())
            .prop_map(|(url, etag, last_modified)| Origin { url, etag, last_modified });
        let name = proptest::option::of(text(90));
        let digest = proptest::option::of(any::<[u8; 32]>());
        let offer = proptest::bool::ANY
            .prop_map(|offered| if offered { Offer::Peers } else { Offer::Nobody });
        (name, proptest::collection::vec(origin, 0..12), digest, offer).prop_map(
            |(name, origins, digest, offer)| {
                let sha256 = digest.map(Sha256Digest::from_bytes);
                About { name, origins, sha256, offer }.bounded()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_bounded_fits_a_slot_and_comes_back(
            about in any_about(),
            len in 0u64..1 << 31,
            had in proptest::collection::vec(0u32..16_384, 0..64),
            generation: u64,
        ) {
            let written = Record { about, ..record(len, &had) };
            let slot = written.encode(generation);
            prop_assert!(slot.len() <= SLOT_BYTES);
            let read = Record::decode(&slot).expect("just written");
            prop_assert_eq!(read, (generation, written));
        }

        #[test]
        fn no_bytes_make_it_panic_and_a_changed_slot_is_not_believed(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            position in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            prop_assert!(Record::read(&noise).is_err());
            let mut slot = record(1 << 20, &[3]).encode(1);
            slot.extend(&noise);
            prop_assert!(Record::decode(&slot).is_ok());
            let slot_bytes = slot.len() - noise.len();
            slot[position.index(slot_bytes)] ^= 1 << bit;
            prop_assert!(Record::decode(&slot).is_err());
        }
    }

    #[test]
    fn the_largest_record_fits_its_slot() {
        let origin = |number| Origin {
            url: format!("{number}{}", "u".repeat(URL_BYTES_MAX - 1)),
            etag: Some("e".repeat(VALIDATOR_BYTES_MAX)),
            last_modified: Some("l".repeat(VALIDATOR_BYTES_MAX)),
        };
        let about = About {
            name: Some("n".repeat(NAME_BYTES_MAX)),
            origins: (0..ORIGINS_MAX).map(origin).collect(),
            sha256: Some(Sha256Digest::from_bytes([1; 32])),
            offer: Offer::Nobody,
        };
        let largest = Record { about: about.bounded(), ..record(1 << 30, &[0]) };
        assert!(largest.about.origins.len() > 2);
        assert!(largest.encode(u64::MAX).len() <= SLOT_BYTES);
    }

    #[test]
    fn the_newest_whole_slot_wins_and_a_torn_one_is_passed_over() {
        let mut file = record(1 << 20, &[1]).encode(4);
        file.resize(SLOT_BYTES, 0);
        let newer = record(1 << 20, &[1, 2]);
        file.extend(newer.encode(5));
        let (generation, read) = Record::read(&file).expect("both are whole");
        assert_eq!((generation, read), (5, newer));
        for torn_at in SLOT_BYTES..file.len() {
            let (generation, _) = Record::read(&file[..torn_at]).expect("one is whole");
            assert_eq!(generation, 4);
        }
        file[0] ^= 1;
        assert_eq!(Record::read(&file).expect("one is whole").0, 5);
        file[SLOT_BYTES] ^= 1;
        assert!(matches!(Record::read(&file), Err(RecordError::Damaged)));
    }

    #[test]
    fn a_slot_of_a_later_format_is_told_from_rubbish() {
        let mut slot = record(1 << 20, &[1]).encode(1);
        slot[8] = 2;
        let body = slot.len() - CHECKSUM_BYTES;
        let checksum = *blake3::hash(&slot[..body]).as_bytes();
        slot[body..].copy_from_slice(&checksum);
        assert!(matches!(Record::decode(&slot), Err(RecordError::Newer { version: 2 })));
    }

    #[test]
    fn the_bytes_of_a_record_are_those_of_the_format_page() {
        let about = About {
            name: Some("a".into()),
            origins: vec![Origin::at("u")],
            sha256: Some(Sha256Digest::from_bytes([0xee; 32])),
            offer: Offer::Nobody,
        };
        let written = Record { about, ..record(3 << 16, &[0, 2]) };
        let mut expected = b"sutlrec\n".to_vec();
        expected.extend([1, 0, 0b11_0010, 0]);
        expected.extend([144, 0, 0, 0]);
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 3, 0, 0, 0, 0, 0]);
        expected.extend(ContentId::of(b"x").as_bytes());
        expected.extend(20_780u32.to_le_bytes());
        expected.extend([0xee; 32]);
        expected.extend([1, 0, b'a', 1, 1, 0, b'u', 0xff, 0xff, 0xff, 0xff]);
        expected.push(0b101);
        let checksum = *blake3::hash(&expected).as_bytes();
        expected.extend(checksum);
        assert_eq!(written.encode(7), expected);
    }
}

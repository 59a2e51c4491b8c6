//! What is had of a content that nothing vouches for yet, and how that is written down.
//!
//! Two small files lie beside the bytes. The *state* is replaced, synced, at each checkpoint: after
//! a power cut it says what is there. The *hint* is written over after each write and never synced:
//! after a kill it says what has been written since, and is believed only while the machine has not
//! restarted. Neither is trusted for more than not to fetch a byte twice; in the end the whole is
//! hashed.

use std::ops::Range;
use std::sync::OnceLock;

use crate::about::Origin;

/// Bytes of a state or hint, at most.
pub(super) const PART_BYTES_MAX: u64 = 16 * 1024;

/// Spans that are written down; of more, the first. Those left out are fetched again.
const SPANS_MAX: usize = 64;

const STATE_MAGIC: [u8; 8] = *b"sutlqst1";
const HINT_MAGIC: [u8; 8] = *b"sutlqhn1";
const CHECKSUM_BYTES: usize = 32;
const ABSENT_LEN: u64 = u64::MAX;
const ABSENT_TEXT: u16 = u16::MAX;

/// Disjoint byte ranges in order, none empty, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Range<u64>>);

/// What is known of the bytes in quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Rises when what is had is thrown away, so that no hint outlives its bytes.
    pub(super) epoch: u64,
    /// How long the whole is said to be.
    pub(super) len: Option<u64>,
    /// Where the bytes come from, with the validators they came under.
    pub(super) origin: Option<Origin>,
    pub(super) had: Spans,
}

impl Spans {
    pub(super) fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        // All that the new one touches melts into it.
        let first = self.0.partition_point(|span| span.end < new.start);
        let after = self.0.partition_point(|span| span.start <= new.end);
        let melted = self.0[first..after]
            .iter()
            .fold(new, |whole, span| whole.start.min(span.start)..whole.end.max(span.end));
        self.0.splice(first..after, [melted]);
    }

    /// Returns how many bytes are there without a gap from the first on.
    pub(super) fn prefix(&self) -> u64 {
        self.0.first().filter(|span| span.start == 0).map_or(0, |span| span.end)
    }

    /// Returns the end of the last span.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |span| span.end)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
    }

    /// Returns what is lacking before `len`.
    pub(super) fn gaps(&self, len: u64) -> Vec<Range<u64>> {
        let ends = std::iter::once(0).chain(self.0.iter().map(|span| span.end));
        let starts = self.0.iter().map(|span| span.start).chain([len]);
        ends.zip(starts).filter(|(end, start)| end < start).map(|(end, start)| end..start).collect()
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let kept = &self.0[..self.0.len().min(SPANS_MAX)];
        bytes.extend((kept.len() as u32).to_le_bytes());
        for span in kept {
            bytes.extend(span.start.to_le_bytes());
            bytes.extend(span.end.to_le_bytes());
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let count = cursor.u32()?;
        let mut spans = Self::default();
        for _ in 0..count {
            let (start, end) = (cursor.u64()?, cursor.u64()?);
            if start >= end || (start > 0 && start <= spans.end()) {
                return None;
            }
            spans.0.push(start..end);
        }
        Some(spans)
    }
}

impl Part {
    /// Returns the state's bytes: magic, epoch, length, origin, spans, checksum.
    pub(super) fn state(&self) -> Vec<u8> {
        let mut bytes = STATE_MAGIC.to_vec();
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.len.unwrap_or(ABSENT_LEN).to_le_bytes());
        let origin = self.origin.as_ref();
        put_text(&mut bytes, origin.map(|origin| origin.url.as_str()));
        put_text(&mut bytes, origin.and_then(|origin| origin.etag.as_deref()));
        put_text(&mut bytes, origin.and_then(|origin| origin.last_modified.as_deref()));
        self.had.encode(&mut bytes);
        sealed(bytes)
    }

    /// Reads a state, or `None` if it is damaged.
    pub(super) fn from_state(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::opened(bytes, STATE_MAGIC)?;
        let epoch = cursor.u64()?;
        let len = Some(cursor.u64()?).filter(|len| *len != ABSENT_LEN);
        let (url, etag, last_modified) = (cursor.text()?, cursor.text()?, cursor.text()?);
        let origin = url.map(|url| Origin { url, etag, last_modified });
        let had = Spans::decode(&mut cursor)?;
        cursor.0.is_empty().then_some(Self { epoch, len, origin, had })
    }

    /// Returns the hint's bytes: magic, machine start, epoch, length, spans, checksum. `None` where a
    /// restart of the machine could not be told.
    pub(super) fn hint(&self) -> Option<Vec<u8>> {
        let mut bytes = HINT_MAGIC.to_vec();
        bytes.extend(machine_start()?);
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.len.unwrap_or(ABSENT_LEN).to_le_bytes());
        self.had.encode(&mut bytes);
        Some(sealed(bytes))
    }

    /// Adds what a hint of this epoch and this start of the machine says.
    pub(super) fn heed(&mut self, hint: &[u8]) {
        if let Some((len, spans)) = self.hinted(hint) {
            self.len = self.len.or(len);
            for span in spans.0 {
                self.had.insert(span);
            }
        }
    }

    fn hinted(&self, hint: &[u8]) -> Option<(Option<u64>, Spans)> {
        let mut cursor = Cursor::opened(hint, HINT_MAGIC)?;
        let start: [u8; 32] = cursor.array()?;
        if start != machine_start()? || cursor.u64()? != self.epoch {
            return None;
        }
        let len = Some(cursor.u64()?).filter(|len| *len != ABSENT_LEN);
        Some((len, Spans::decode(&mut cursor)?))
    }
}

/// Returns what tells this start of the machine from every other, where the system has it.
fn machine_start() -> Option<[u8; 32]> {
    static START: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    *START.get_or_init(|| {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        Some(*blake3::hash(&text).as_bytes())
    })
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend(checksum);
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    // Longer than a record would keep: not worth resuming by.
    let text = text.filter(|text| text.len() < usize::from(ABSENT_TEXT) / 8);
    bytes.extend(text.map_or(ABSENT_TEXT, |text| text.len() as u16).to_le_bytes());
    bytes.extend(text.unwrap_or_default().as_bytes());
}

/// What is not yet read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Checks magic and checksum.
    fn opened(bytes: &'a [u8], magic: [u8; 8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        body.strip_prefix(&magic).map(Self)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[expect(clippy::option_option, reason = "the outer says unreadable, the inner absent")]
    fn text(&mut self) -> Option<Option<String>> {
        let len = u16::from_le_bytes(self.array()?);
        if len == ABSENT_TEXT {
            return Some(None);
        }
        let text = std::str::from_utf8(self.take(len.into())?).ok()?;
        Some(Some(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn part() -> Part {
        let mut had = Spans::default();
        had.insert(0..10);
        had.insert(20..30);
        let origin = Origin {
            url: "https://vendor.example/a".into(),
            etag: Some("\"1\"".into()),
            last_modified: None,
        };
        Part { epoch: 3, len: Some(40), origin: Some(origin), had }
    }

    #[test]
    fn a_state_comes_back_and_any_flipped_bit_is_noticed() {
        let bytes = part().state();
        assert_eq!(Part::from_state(&bytes), Some(part()));
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert_eq!(Part::from_state(&flipped), None, "{position}");
            assert_eq!(Part::from_state(&bytes[..position]), None);
        }
    }

    #[test]
    fn a_hint_of_another_epoch_is_not_heeded() {
        let mut later = part();
        later.had.insert(30..35);
        let hint = later.hint().expect("Linux tells its starts apart");
        let mut heeded = part();
        heeded.heed(&hint);
        assert_eq!(heeded, later);
        let mut other = Part { epoch: 4, ..part() };
        other.heed(&hint);
        assert_eq!(other.had, part().had);
    }

    proptest! {
        #[test]
        fn spans_hold_what_was_inserted_and_gaps_the_rest(
            inserted in proptest::collection::vec((0u64..60, 0u64..12), 0..12),
        ) {
            let mut spans = Spans::default();
            let mut there = [false; 80];
            for (start, count) in inserted {
                spans.insert(start..start + count);
                there[start as usize..(start + count) as usize].fill(true);
            }
            let bytes = there.iter().filter(|there| **there).count() as u64;
            prop_assert_eq!(spans.bytes(), bytes);
            for gap in spans.gaps(80) {
                prop_assert!(there[gap.start as usize..gap.end as usize].iter().all(|there| !there));
            }
            let lacking: u64 = spans.gaps(80).iter().map(|gap| gap.end - gap.start).sum();
            prop_assert_eq!(lacking, 80 - bytes);
            let prefix = there.iter().take_while(|there| **there).count() as u64;
            prop_assert_eq!(spans.prefix(), prefix);
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].end < pair[1].start));
            let part = Part { had: spans, ..Part::default() };
            prop_assert_eq!(Part::from_state(&part.state()), Some(part));
        }
    }
}

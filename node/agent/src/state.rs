//! What an agent has to remember over a restart: which orders it has seen, what it tried, and what it found.
//!
//! One file, `state.json`, replaced as a whole; its first line has the BLAKE3 of the rest. Written before a command
//! starts and after it ended, so that whoever is killed in between finds that something was begun.
//!
//! Always true: a file that cannot be read is never taken for an empty one. The agent then observes,
//! because it cannot tell what it has tried already.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;

use crate::durable;

/// Attempts of one content that are remembered: the last ones.
const ATTEMPTS_KEPT: usize = 16;

/// Contents that are remembered. Beyond it those go that were neither tried nor looked for.
const RECORDS_MAX: usize = 20_000;

const FIRST_LINE: &str = "sutler agent state 1 ";

/// What an agent remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The number of the last report.
    pub report: u64,
    /// When the agent ran last, as far as it was written down.
    pub alive: Option<Utc>,
    /// When the device's clock was last trusted.
    pub trusted: Option<Utc>,
    /// The highest `seq` of each order file, by its path (T12).
    pub seqs: BTreeMap<String, u64>,
    /// What is known of contents, by their ids.
    contents: BTreeMap<String, Record>,
}

/// What is remembered of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When a statement named it first: silence approves nothing that was seen only now.
    pub first_seen: Option<Utc>,
    /// What the last look found.
    pub finding: Option<Finding>,
    /// Attempts to install it, the oldest first.
    pub attempts: Vec<Attempt>,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// When.
    pub at: Utc,
    /// What.
    pub found: Found,
    /// What the command said, if it had no answer.
    pub detail: Option<String>,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// It is installed.
    Installed,
    /// It is not.
    Needed,
    /// It is of no use here.
    NotApplicable,
    /// It is installed, and acts after a restart.
    PendingReboot,
    /// The command had no answer.
    Unclear,
}

/// An attempt to install something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Counts a content's attempts, from 1.
    pub number: u64,
    /// When the window is closed that it was made in. `None`: it was made outside of every window.
    pub until: Option<Utc>,
    /// When its command was started.
    pub started: Utc,
    /// The command's process group, once there was one, and the boot of the machine that it belongs to.
    pub group: Option<(i32, String)>,
    /// How it ended. `None`: it runs, or nobody knows.
    pub ended: Option<End>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// When.
    pub at: Utc,
    /// In which way.
    pub how: HowEnded,
    /// What a person would want to know.
    pub detail: Option<String>,
}

/// In which way an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HowEnded {
    /// The command said that it went well. A look decides whether it did.
    Well,
    /// It said that it failed, or was killed, or did not start.
    Failed,
    /// Its time was over.
    Timeout,
    /// The agent was stopped, or killed, meanwhile: whether it went well only a look can tell.
    CutOff,
}

/// Why an agent does not know what it did before.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk refused.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is not as it was written; look what is installed, then remove it", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is of another version of the program.
    #[error("read {}, which another version may have written", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: serde_json::Error,
    },
}

impl State {
    /// Reads what is remembered in the file `path`; nothing if there is no file.
    ///
    /// # Errors
    ///
    /// [`StateError`]; the file is as it was.
    pub fn read(path: &Path) -> Result<Self, StateError> {
        let named = || path.to_owned();
        let bytes =
            durable::read(path).map_err(|source| StateError::Read { path: named(), source })?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let damaged = || StateError::Damaged { path: named() };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (first, rest) = (&bytes[..end], &bytes[end + 1..]);
        if first != first_line(rest).as_bytes() {
            return Err(damaged());
        }
        serde_json::from_slice(rest).map_err(|source| StateError::Format { path: named(), source })
    }

    /// Writes it into the file `path`; when this returns, it is durable. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What the disk answered; the file is as it was.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let rest = serde_json::to_vec(self)?;
        let mut bytes = first_line(&rest).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&rest);
        durable::replace(path, &bytes)
    }

    /// Returns what is remembered of a content.
    pub fn record(&self, content: ContentId) -> Option<&Record> {
        self.contents.get(&content.to_string())
    }

    /// Returns what is remembered of a content, to be changed.
    pub fn record_mut(&mut self, content: ContentId) -> &mut Record {
        self.contents.entry(content.to_string()).or_default()
    }

    /// Takes note that a statement names these contents at `now`, and forgets others that nothing was done
    /// with; says whether anything changed.
    pub fn see(&mut self, contents: impl Iterator<Item = ContentId>, now: Utc) -> bool {
        let before = self.contents.len();
        let named: std::collections::BTreeSet<String> =
            contents.take(RECORDS_MAX).map(|content| content.to_string()).collect();
        self.contents.retain(|content, record| {
            named.contains(content) || record.finding.is_some() || !record.attempts.is_empty()
        });
        let mut has_changed = self.contents.len() != before;
        for content in named {
            let record = self.contents.entry(content).or_default();
            if record.first_seen.is_none() {
                record.first_seen = Some(now);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Takes note that an order file has this `seq`.
    ///
    /// # Errors
    ///
    /// The highest `seq` that was seen, if this is lower: the file is one of before (T12).
    pub fn raise_seq(&mut self, path: &str, seq: u64) -> Result<bool, u64> {
        let known = self.seqs.entry(path.to_owned()).or_default();
        if seq < *known {
            return Err(*known);
        }
        let is_new = seq > *known;
        *known = seq;
        Ok(is_new)
    }

    /// Takes the number of the next report. It goes on above those of before even where they were lost.
    pub fn next_report(&mut self, now: Utc) -> u64 {
        let seconds = u64::try_from(now.instant().as_second()).unwrap_or_default();
        self.report = (self.report + 1).max(seconds);
        self.report
    }

    /// Returns how many minutes the attempts took that were made in windows which are open at `now`.
    pub fn minutes_in_windows_after(&self, now: jiff::Timestamp) -> u32 {
        let attempts = self.contents.values().flat_map(|record| &record.attempts);
        let is_open = |attempt: &&Attempt| attempt.until.is_some_and(|until| until.instant() > now);
        let took = attempts.filter(is_open).filter_map(|attempt| {
            let end = attempt.ended.as_ref()?;
            Some(end.at.instant().duration_since(attempt.started.instant()).abs())
        });
        let took = took.fold(SignedDuration::ZERO, SignedDuration::saturating_add);
        u32::try_from(took.as_mins()).unwrap_or(u32::MAX)
    }

    /// Returns the content whose attempt has not ended as far as is known, if there is one.
    pub fn open_attempt(&self) -> Option<(ContentId, &Attempt)> {
        self.contents.iter().find_map(|(content, record)| {
            let attempt = record.attempts.last().filter(|attempt| attempt.ended.is_none())?;
            Some((content.parse().ok()?, attempt))
        })
    }
}

impl Record {
    /// Begins another attempt, in the window that is closed at `until`.
    pub fn begin(&mut self, until: Option<Utc>, now: Utc) {
        let number = self.attempts.last().map_or(1, |last| last.number + 1);
        let attempt = Attempt { number, until, started: now, group: None, ended: None };
        self.attempts.push(attempt);
        let extra = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..extra);
        // What was found before it says nothing any more.
        self.finding = None;
    }

    /// Ends the last attempt.
    pub fn end(&mut self, how: HowEnded, detail: Option<String>, at: Utc) {
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.ended.is_none()) {
            attempt.ended = Some(End { at, how, detail });
        }
        self.finding = None;
    }
}

/// Returns what tells this run of the machine from every other, or nothing where the system does not say.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn first_line(rest: &[u8]) -> String {
    format!("{FIRST_LINE}{}", ContentId::of(rest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(second: i64) -> Utc {
        Utc::of(jiff::Timestamp::from_second(second).unwrap())
    }

    fn full() -> State {
        let mut state = State::default();
        let content = ContentId::of(b"x");
        state.see([content].into_iter(), at(5));
        state.raise_seq("halts/halts.json", 3).unwrap();
        state.record_mut(content).begin(Some(at(99)), at(11));
        state
    }

    #[test]
    fn what_was_done_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent/state.json");
        assert_eq!(State::read(&path).unwrap(), State::default());
        let state = full();
        state.write(&path).unwrap();
        let read = State::read(&path).unwrap();
        assert_eq!(read, state);
        let (content, attempt) = read.open_attempt().unwrap();
        assert_eq!((content, attempt.number), (ContentId::of(b"x"), 1));
    }

    #[test]
    fn a_torn_file_is_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        full().write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            assert!(matches!(State::read(&path), Err(StateError::Damaged { .. })), "{end}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(State::read(&path).is_err(), "{at}");
        }
    }

    // T12
    #[test]
    fn a_lower_seq_is_one_of_before_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        full().write(&path).unwrap();
        let mut state = State::read(&path).unwrap();
        assert_eq!(state.raise_seq("halts/halts.json", 2), Err(3));
        assert_eq!(state.raise_seq("halts/halts.json", 3), Ok(false));
        assert_eq!(state.raise_seq("halts/halts.json", 9), Ok(true));
        assert_eq!(state.raise_seq("rings/rings.json", 1), Ok(true));
    }

    // T26
    #[test]
    fn reports_count_on_even_where_their_number_was_lost() {
        let mut state = State::default();
        assert_eq!(state.next_report(at(1_000)), 1_000);
        assert_eq!(state.next_report(at(1_000)), 1_001);
        assert_eq!(state.next_report(at(0)), 1_002);
        assert_eq!(State::default().next_report(at(2_000)), 2_000);
    }

    #[test]
    fn what_nothing_was_done_with_is_forgotten() {
        let mut state = full();
        let (tried, other) = (ContentId::of(b"x"), ContentId::of(b"y"));
        assert!(state.see([other].into_iter(), at(6)));
        assert!(!state.see([other].into_iter(), at(7)));
        assert_eq!(state.record(other).unwrap().first_seen, Some(at(6)));
        assert!(state.see(std::iter::empty(), at(8)));
        assert!(state.record(tried).is_some() && state.record(other).is_none());
    }
}

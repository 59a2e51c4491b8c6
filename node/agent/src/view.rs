//! What an agent shows of itself: a file that is replaced after each evaluation, so that `explain`, `status` and
//! `policy effective` have it also while no agent runs.
//!
//! Its fields are what those commands print with `--json`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sutler_orders::answer::{Gate, GateVerdict};
use sutler_orders::effective::{Effective, Setting};
use sutler_orders::text::Utc;

use crate::durable;

/// The file's name within the agent's folder.
pub const FILE: &str = "view.json";

/// What an agent shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// When this was written, by the device's clock.
    pub written: Utc,
    /// Who it is, by its certificate.
    pub identity: String,
    /// The program, and its version.
    pub program: String,
    /// Why it only looks and reports, if so.
    pub observes: Option<String>,
    /// What time it is for it.
    pub time: TimeView,
    /// When it last heard from another machine of the organisation.
    pub last_contact: Option<Utc>,
    /// The newest statement of control that it has verified.
    pub statement: Option<StatementView>,
    /// The `seq` of each order file that it obeys.
    pub seqs: BTreeMap<String, u64>,
    /// Orders that it does not believe, each with the reason.
    pub refused: Vec<String>,
    /// Its policy in each scope that reaches it.
    pub policies: Vec<PolicyView>,
    /// The next window of each of them.
    pub windows: Vec<WindowView>,
    /// Reports that wait for the line.
    pub reports_waiting: usize,
    /// Its answers.
    pub answers: Vec<AnswerView>,
}

/// What time it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeView {
    /// What the clock says.
    pub clock: Utc,
    /// The time that is trusted: never before what the newest statement says has passed.
    pub trusted: Utc,
    /// Whether the clock was found to be right.
    pub confirmed: bool,
}

/// The newest statement of control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementView {
    /// The timestamp's version.
    pub version: u64,
    /// When it was made, if it says so.
    pub issued: Option<Utc>,
    /// When it expires.
    pub expires: Utc,
    /// Whether it has.
    pub stale: bool,
}

/// The policy of a device in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// The scope.
    pub scope: String,
    /// Its settings, each with where it comes from.
    pub settings: Vec<SettingView>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// Which.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub source: String,
}

/// The next window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// The scope.
    pub scope: String,
    /// The schedule.
    pub schedule: String,
    /// When it opens, in the window's own zone.
    pub local: String,
    /// When it opens.
    pub begin: Utc,
    /// When it is closed.
    pub end: Utc,
}

/// The answer about one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerView {
    /// BLAKE3 of the bytes.
    pub content: String,
    /// The file's name.
    pub name: String,
    /// What it is.
    pub title: Option<String>,
    /// The weaknesses that it mends.
    pub cve: Vec<String>,
    /// How far it is.
    pub state: String,
    /// Why it is no further.
    pub reason: Option<String>,
    /// What a person would want to know.
    pub detail: Option<String>,
    /// How often its command was tried.
    pub attempts: u64,
    /// The gates in their order.
    pub gates: Vec<GateView>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Which.
    pub gate: String,
    /// What it looked at.
    pub input: String,
    /// `passed`, `blocked`, `pending` or `done`.
    pub verdict: String,
    /// Why it blocks.
    pub reason: Option<String>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// No agent has run here yet.
    #[error("no agent has run in {}", .folder.display())]
    Absent {
        /// The agent's folder.
        folder: PathBuf,
    },
    /// The disk refused.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// Another version of the program wrote it.
    #[error("read {}, which another version may have written", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: serde_json::Error,
    },
}

impl View {
    /// Reads what the agent in `folder` showed last.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn read(folder: &Path) -> Result<Self, ViewError> {
        let path = folder.join(FILE);
        let bytes = durable::read(&path)
            .map_err(|source| ViewError::Read { path: path.clone(), source })?;
        let bytes = bytes.ok_or_else(|| ViewError::Absent { folder: folder.to_owned() })?;
        serde_json::from_slice(&bytes).map_err(|source| ViewError::Format { path, source })
    }

    /// Puts it in the place of what was shown before.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        durable::replace(&folder.join(FILE), &serde_json::to_vec(self)?)
    }

    /// Returns the answers that `what` means: a content's id or the beginning of one, its name, or a CVE id.
    pub fn about(&self, what: &str) -> Vec<&AnswerView> {
        let is_hex = what.len() >= 8 && what.bytes().all(|byte| byte.is_ascii_hexdigit());
        let means = |answer: &&AnswerView| {
            answer.name == what
                || answer.cve.iter().any(|cve| cve == what)
                || is_hex && answer.content.starts_with(&what.to_ascii_lowercase())
        };
        self.answers.iter().filter(means).collect()
    }
}

impl AnswerView {
    /// Returns the first gate that blocks.
    pub fn blocks(&self) -> Option<&GateView> {
        self.gates.iter().find(|gate| gate.verdict == "blocked")
    }
}

impl From<&Gate> for GateView {
    fn from(gate: &Gate) -> Self {
        let (verdict, reason) = match gate.verdict {
            GateVerdict::Passed => ("passed", None),
            GateVerdict::Pending => ("pending", None),
            GateVerdict::Blocked(reason) => ("blocked", Some(reason.to_string())),
            GateVerdict::Done => ("done", None),
        };
        Self {
            gate: gate.name.to_string(),
            input: gate.input.clone(),
            verdict: verdict.to_owned(),
            reason,
        }
    }
}

impl PolicyView {
    pub(crate) fn of(scope: &str, policy: &Effective) -> Self {
        let minutes = |minutes: &Option<u32>| {
            minutes.map_or_else(|| "as the window has".to_owned(), |minutes| minutes.to_string())
        };
        let caution = |caution: &sutler_orders::policies::Caution| {
            use sutler_orders::policies::Caution;
            match caution {
                Caution::Wait => "wait",
                Caution::GoOn => "go-on",
            }
            .to_owned()
        };
        let schedule = |schedule: &Option<sutler_protocol::name::Label>| {
            schedule.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
        };
        let settings = vec![
            setting("mode", &policy.mode, |mode| mode.as_str().to_owned()),
            setting("schedule", &policy.schedule, schedule),
            setting("max_run_minutes", &policy.max_run_minutes, u32::to_string),
            setting("max_install_minutes", &policy.max_install_minutes, minutes),
            setting("on_metered", &policy.on_metered, caution),
            setting("on_battery", &policy.on_battery, caution),
        ];
        Self { scope: scope.to_owned(), settings }
    }
}

fn setting<T>(name: &str, setting: &Setting<T>, text: impl Fn(&T) -> String) -> SettingView {
    SettingView {
        name: name.to_owned(),
        value: text(&setting.value),
        source: setting.source.to_string(),
    }
}

//! A device's answer about a content: its state, the reason for it, and the gates that lead there.

use std::fmt;

use jiff::Timestamp;
use sutler_protocol::name::Label;

use crate::text::Line;

/// How far a content is on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It is of no use to this device.
    NotApplicable,
    /// It is not here yet.
    Needed,
    /// Its bytes are here, verified.
    Staged,
    /// It is being installed.
    Installing,
    /// It is installed once the machine was started again.
    PendingReboot,
    /// The inventory has it.
    Installed,
    /// Its installation failed.
    Failed,
    /// It was taken back.
    RolledBack,
    /// Another content, approved or installed, has taken its place.
    Superseded,
}

/// Why a content is not further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Nobody has approved it for this device.
    NotApproved,
    /// Silence may approve it, and the time to deny it is not over.
    VetoOpen,
    /// An approver has denied it.
    Denied,
    /// Other rings have it first.
    RingWait,
    /// It is halted or paused.
    Halted,
    /// No window is open.
    OutsideWindow,
    /// What is left of the window is not enough.
    WindowTooShort,
    /// What it requires is not installed.
    PrereqMissing,
    /// Whoever sits at the device has put it off.
    UserPostponed,
    /// The line is metered.
    Metered,
    /// The device runs on its battery.
    OnBattery,
    /// The device's settings hold it.
    Held,
    /// A configuration file wants a decision.
    Conffile,
    /// The package database wants repair.
    PackageDbBroken,
    /// The disk has no room.
    Disk,
    /// Nobody who can be reached has it.
    NoSource,
    /// The orders are too old to start something new.
    ManifestStale,
    /// It is not certain what time it is.
    Clock,
    /// It took too long.
    Timeout,
}

/// What has to let a content through, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateName {
    /// Whether the device has use for it.
    Applies,
    /// Whether another content has taken its place.
    Superseded,
    /// Whether it is halted or paused.
    Halt,
    /// Whether it is denied.
    Denial,
    /// Whether the content's role says the same of it everywhere.
    Content,
    /// Whether it is approved for the device.
    Approval,
    /// Whether the approval has not ended.
    NotAfter,
    /// Whether the device does anything at all.
    ObserveOnly,
    /// Whether the orders are fresh.
    Fresh,
    /// Whether the line is good enough to fetch it.
    Metered,
    /// Whether its bytes are here.
    Staged,
    /// Whether the time to deny it is over.
    Veto,
    /// Whether the earlier rings have had their time.
    Ring,
    /// Whether it is certain what time it is.
    Clock,
    /// Whether the approval has begun.
    NotBefore,
    /// Whether the device installs what is approved.
    Mode,
    /// Whether what it requires is installed.
    Requires,
    /// Whether a window is open.
    Window,
    /// Whether enough is left of the window.
    WindowLeft,
    /// Whether there is power.
    Battery,
    /// Whether the device itself has something against it.
    Device,
}

/// What a gate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// It lets the content through.
    Passed,
    /// It does not, for this reason.
    Blocked(Reason),
    /// Nothing is left to be done, as for what is installed.
    Done,
    /// It will let the content through once the device has done its next step.
    Pending,
}

/// One gate as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Which.
    pub name: GateName,
    /// What it looked at, in words.
    pub input: String,
    /// What it said.
    pub verdict: GateVerdict,
}

/// Who lets a content through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approved {
    /// An approver.
    Explicitly {
        /// The scope.
        scope: Label,
        /// Who.
        by: Line,
        /// Whether it starts at once.
        patch_now: bool,
    },
    /// Nobody said anything against it.
    BySilence {
        /// The scope.
        scope: Label,
        /// The standing policy.
        policy: Label,
        /// When the time to deny it was, or will be, over.
        deadline: Timestamp,
        /// Those who were asked and said nothing.
        non_responders: Vec<Line>,
    },
}

/// What the device does next about a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Fetch its bytes.
    Stage {
        /// Whether before everything else.
        is_urgent: bool,
    },
    /// Install it.
    Install {
        /// When the window that it starts in is closed; absent outside of every window.
        until: Option<Timestamp>,
        /// Minutes that it may take.
        max_run_minutes: u32,
    },
}

/// A device's answer about a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How far it is.
    pub state: State,
    /// Why it is not further. Absent where nothing is in the way.
    pub reason: Option<Reason>,
    /// What is next.
    pub step: Step,
    /// Who lets it through.
    pub approved: Option<Approved>,
    /// The gates in their order, up to the first that does not let it through.
    pub gates: Vec<Gate>,
}

impl Answer {
    /// Returns the gate that does not let the content through, if there is one.
    pub fn blocks(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| matches!(gate.verdict, GateVerdict::Blocked(_)))
    }
}

macro_rules! named {
    ($type:ident { $($variant:ident $name:literal)* }) => {
        impl $type {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name, as reports and `explain` have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = AnswerNameError;

            fn from_str(text: &str) -> Result<Self, AnswerNameError> {
                let found = Self::ALL.iter().copied().find(|one| one.as_str() == text);
                found.ok_or_else(|| AnswerNameError { found: text.chars().take(40).collect() })
            }
        }
    };
}

/// A text that is no name of a state, a reason or a gate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no state, reason or gate")]
pub struct AnswerNameError {
    /// The text.
    pub found: String,
}

named!(State {
    NotApplicable "not-applicable"
    Needed "needed"
    Staged "staged"
    Installing "installing"
    PendingReboot "pending-reboot"
    Installed "installed"
    Failed "failed"
    RolledBack "rolled-back"
    Superseded "superseded"
});

named!(Reason {
    NotApproved "not-approved"
    VetoOpen "veto-open"
    Denied "denied"
    RingWait "ring-wait"
    Halted "halted"
    OutsideWindow "outside-window"
    WindowTooShort "window-too-short"
    PrereqMissing "prereq-missing"
    UserPostponed "user-postponed"
    Metered "metered"
    OnBattery "on-battery"
    Held "held"
    Conffile "conffile"
    PackageDbBroken "package-db-broken"
    Disk "disk"
    NoSource "no-source"
    ManifestStale "manifest-stale"
    Clock "clock"
    Timeout "timeout"
});

named!(GateName {
    Applies "applies"
    Superseded "superseded"
    Halt "halt"
    Denial "denial"
    Content "content"
    Approval "approval"
    NotAfter "not-after"
    ObserveOnly "observe-only"
    Fresh "fresh"
    Metered "metered"
    Staged "staged"
    Veto "veto"
    Ring "ring"
    Clock "clock"
    NotBefore "not-before"
    Mode "mode"
    Requires "requires"
    Window "window"
    WindowLeft "window-left"
    Battery "battery"
    Device "device"
});

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            GateVerdict::Passed => write!(f, "{}: passed, {}", self.name, self.input),
            GateVerdict::Blocked(reason) => {
                write!(f, "{}: blocked ({reason}), {}", self.name, self.input)
            }
            GateVerdict::Done => write!(f, "{}: done, {}", self.name, self.input),
            GateVerdict::Pending => write!(f, "{}: pending, {}", self.name, self.input),
        }
    }
}

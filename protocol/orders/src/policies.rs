//! How the devices of a scope behave: `schedules/SCOPE/policies.json`.
//!
//! A policy is for a device, or for a group: a ring, sites, whatever a rule says. Each of its settings may be left
//! out, and is looked for on its own: a device's own policy first, then the groups' in their order.

use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;

use crate::audience::Audience;
use crate::bounds::{ITEMS_MAX, WINDOW_MINUTES_MAX};
use crate::order::{Body, Breach, Kind, at_most, each, each_once, within};
use crate::text::{Line, Utc, maybe, one};

/// The policies of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// The policies, in the order of their weight within devices and within groups.
    pub policies: Vec<Policy>,
}

/// How some devices behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name, which `effective` prints as the source of a value.
    #[serde(with = "one")]
    pub name: Label,
    /// Whom it is for. One that names devices is those devices' own, and outweighs every other.
    #[serde(default, rename = "for", skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// What a device does with what is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The schedule, by its name in the scope's schedules.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub schedule: Option<Label>,
    /// Minutes that one installation may take before it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_run_minutes: Option<u32>,
    /// Minutes that all installations of one window may take; the rest waits for the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_install_minutes: Option<u32>,
    /// Whether a metered line and a battery are good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_metered: Option<Caution>,
    /// Whether it installs while it runs on a battery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_battery: Option<Caution>,
    /// Who wrote it.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// What a device does with what is approved for it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It stages, and installs nothing. So does a device that no policy is for.
    #[default]
    DownloadOnly,
    /// It stages, and installs in its next window.
    DownloadAndInstall,
    /// It installs at once what needs no restart and interrupts nobody, and the rest in its window.
    Immediate,
}

/// Whether something goes on under a condition.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Caution {
    /// It waits for better times.
    #[default]
    Wait,
    /// It goes on.
    GoOn,
}

impl Mode {
    /// Returns the mode's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DownloadOnly => "download-only",
            Self::DownloadAndInstall => "download-and-install",
            Self::Immediate => "immediate",
        }
    }
}

impl Body for Policies {
    const KIND: Kind = Kind::Policies;

    fn rules(&self) -> Result<(), Breach> {
        at_most("policies", self.policies.len(), ITEMS_MAX)?;
        each_once("policies", self.policies.iter().map(|policy| &policy.name))?;
        each("policies", &self.policies, |policy| {
            policy.audience.rules().map_err(|breach| breach.below("for"))?;
            let minutes = [
                ("max_run_minutes", policy.max_run_minutes),
                ("max_install_minutes", policy.max_install_minutes),
            ];
            for (field, minutes) in minutes {
                if let Some(minutes) = minutes {
                    within(field, minutes, 1..=u64::from(WINDOW_MINUTES_MAX))?;
                }
            }
            Ok(())
        })
    }
}

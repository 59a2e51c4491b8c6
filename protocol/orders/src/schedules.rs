//! When the devices of a scope act: `schedules/SCOPE/schedules.json`.
//!
//! A window begins at a local time that floats: each device finds the instant in the zone that the window names. Never an
//! offset, because the same evening is another one in summer.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use sutler_protocol::name::Label;

use crate::bounds::{ITEMS_MAX, PATCH_TUESDAY_DAYS_MAX, WINDOW_MINUTES_MAX, WINDOWS_MAX};
use crate::order::{Body, Breach, Kind, RuleError, at_most, each, each_once, within};
use crate::recurrence::Recurrence;
use crate::sites::is_zone;
use crate::text::{Line, Utc, is_false, maybe, one};

/// The schedules of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    /// The schedules.
    pub schedules: Vec<Schedule>,
}

/// Windows under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The name that approvals and policies use.
    #[serde(with = "one")]
    pub name: Label,
    /// Its windows. A device acts in any of them.
    pub windows: Vec<Window>,
    /// Who wrote it.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// One window, and when it comes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first local time at which it may begin: RFC 5545's DTSTART, such as `2026-03-14T22:00:00`. It gives the time of
    /// the day, and whatever else the rule leaves open. It is itself a window only if the rule says so, too.
    pub start: Civil,
    /// When it comes again: the value of an RFC 5545 RRULE, such as `FREQ=MONTHLY;BYDAY=2SA`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub rule: Option<Recurrence>,
    /// Instead of a rule: so many days after the second Tuesday of each month, 0 to 27.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_tuesday_plus_days: Option<u8>,
    /// How long it is open, in minutes that pass.
    pub duration_minutes: u32,
    /// Whose local time it is: `site`, `device`, or an IANA name.
    #[serde(default, with = "one")]
    pub zone: ZoneName,
    /// Whether it starts within 60 s of the window's begin or not at all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enforce_start: bool,
    /// What a device does that was not there during the window.
    #[serde(default)]
    pub missed: Missed,
    /// Minutes that one installation may take, if fewer than the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_run_minutes: Option<u32>,
    /// Minutes that all installations of the window may take, if fewer than the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_install_minutes: Option<u32>,
}

/// A local time to the second, written `2026-03-14T22:00:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil(DateTime);

/// Whose local time a window is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZoneName {
    /// That of the device's site.
    #[default]
    Site,
    /// That which the device is set to.
    Device,
    /// That of this IANA name.
    Named(Box<str>),
}

/// What a device does that was not there during a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// It waits for the next one.
    #[default]
    Wait,
    /// It acts as soon as it is back, for as long as the window would have been open.
    Run,
}

/// Why a text is no local time or zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleTextError {
    /// No local time in the one form that there is.
    #[error("a local time is written 2026-03-14T22:00:00, not {found:?}")]
    Civil {
        /// What it was.
        found: String,
    },
    /// None of the three ways to say a zone.
    #[error(
        "a zone is site, device, or an IANA name such as Europe/Berlin, and never an offset; not {found:?}"
    )]
    Zone {
        /// What it was.
        found: String,
    },
}

impl Civil {
    /// Returns the local time.
    pub fn date_time(self) -> DateTime {
        self.0
    }
}

impl Schedules {
    /// Returns the schedule `name`.
    pub fn schedule(&self, name: &Label) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| schedule.name == *name)
    }
}

impl Body for Schedules {
    const KIND: Kind = Kind::Schedules;

    fn rules(&self) -> Result<(), Breach> {
        at_most("schedules", self.schedules.len(), ITEMS_MAX)?;
        each_once("schedules", self.schedules.iter().map(|schedule| &schedule.name))?;
        each("schedules", &self.schedules, |schedule| {
            at_most("windows", schedule.windows.len(), WINDOWS_MAX)?;
            each("windows", &schedule.windows, Window::rules)
        })
    }
}

impl Window {
    fn rules(&self) -> Result<(), Breach> {
        let refuse = |field, demand| Err(Breach::new(field, RuleError::Demand { demand }));
        let minutes = 1..=u64::from(WINDOW_MINUTES_MAX);
        within("duration_minutes", self.duration_minutes, minutes.clone())?;
        for (field, value) in [
            ("max_run_minutes", self.max_run_minutes),
            ("max_install_minutes", self.max_install_minutes),
        ] {
            if let Some(value) = value {
                within(field, value, minutes.clone())?;
            }
        }
        match (&self.rule, self.patch_tuesday_plus_days) {
            (Some(_), None) => {}
            (None, Some(days)) => {
                let max = u64::from(PATCH_TUESDAY_DAYS_MAX);
                within("patch_tuesday_plus_days", days, 0..=max)?;
            }
            _ => return refuse("rule", "one of rule and patch_tuesday_plus_days is there"),
        }
        if self.enforce_start && self.missed == Missed::Run {
            return refuse("missed", "with enforce_start a window that was missed is over");
        }
        Ok(())
    }
}

impl FromStr for Civil {
    type Err = ScheduleTextError;

    fn from_str(text: &str) -> Result<Self, ScheduleTextError> {
        let shape = b"0000-00-00T00:00:00";
        let fits = |(byte, shape): (u8, &u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            shape => byte == *shape,
        };
        let is_shaped = text.len() == shape.len() && text.bytes().zip(shape).all(fits);
        let civil = Some(text).filter(|_| is_shaped).and_then(|text| text.parse().ok());
        // Before 1970 there is nothing to do, and the calendar's far ends have no instants.
        let civil = civil.filter(|civil: &DateTime| (1970..=9000).contains(&civil.year()));
        civil
            .map(Self)
            .ok_or_else(|| ScheduleTextError::Civil { found: text.chars().take(40).collect() })
    }
}

impl FromStr for ZoneName {
    type Err = ScheduleTextError;

    fn from_str(text: &str) -> Result<Self, ScheduleTextError> {
        match text {
            "site" => Ok(Self::Site),
            "device" => Ok(Self::Device),
            name if name.len() <= 64 && is_zone(name) => Ok(Self::Named(name.into())),
            other => Err(ScheduleTextError::Zone { found: other.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Site => "site",
            Self::Device => "device",
            Self::Named(name) => name,
        })
    }
}

impl Serialize for Civil {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Civil {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

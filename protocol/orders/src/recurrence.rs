//! When something comes again: the value of an RFC 5545 RRULE (section 3.3.10), as far as windows need it.
//!
//! Known are `FREQ` of `DAILY`, `WEEKLY`, `MONTHLY` and `YEARLY` with `INTERVAL`, `COUNT`, `UNTIL`, `BYDAY`
//! (with ordinals in months and years), `BYMONTHDAY`, `BYMONTH`, `BYSETPOS` and `WKST`. What else the RFC has is
//! refused by its name: a window that a device understands in part is a wrong window.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{DateTime, Weekday};

use crate::bounds::RECURRENCE_BYTES_MAX;

/// The largest `INTERVAL`: a window that comes less often than in three years by days is a mistake.
pub const INTERVAL_MAX: u32 = 1_000;

/// The largest `COUNT`.
pub const COUNT_MAX: u32 = 10_000;

/// The value of an RRULE.
#[derive(Clone, PartialEq, Eq)]
pub struct Recurrence {
    text: Box<str>,
    pub(crate) frequency: Frequency,
    pub(crate) interval: u32,
    pub(crate) end: End,
    pub(crate) months: Vec<i8>,
    pub(crate) month_days: Vec<i8>,
    pub(crate) days: Vec<Day>,
    pub(crate) positions: Vec<i16>,
    pub(crate) week_start: Weekday,
}

/// How long the periods are that a rule goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// When a rule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Never,
    After(u32),
    /// The last local time that still counts.
    At(DateTime),
}

/// A day of the week; in a month or a year perhaps the n-th, or the n-th from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) ordinal: Option<i8>,
    pub(crate) weekday: Weekday,
}

/// Why a text is no rule that windows can come by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecurrenceError {
    /// Too long for a rule.
    #[error("a recurrence has at most {RECURRENCE_BYTES_MAX} bytes, not {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A part that is not `NAME=VALUE`.
    #[error("{found:?} is not NAME=VALUE")]
    Part {
        /// The part.
        found: String,
    },
    /// A part that the RFC has and windows do not, or that nobody has.
    #[error(
        "{name} is not supported; windows have FREQ, INTERVAL, COUNT, UNTIL, BYDAY, BYMONTHDAY, BYMONTH, BYSETPOS and WKST"
    )]
    Unsupported {
        /// Its name.
        name: String,
    },
    /// A part that is there twice.
    #[error("{name} is there twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// A value that the part cannot have.
    #[error("{name} is {wants}, not {found:?}")]
    Value {
        /// The part.
        name: &'static str,
        /// What it can be.
        wants: &'static str,
        /// What it is.
        found: String,
    },
    /// Parts that cannot be together.
    #[error("{0}")]
    Together(&'static str),
}

const DAYS: [(&str, Weekday); 7] = [
    ("MO", Weekday::Monday),
    ("TU", Weekday::Tuesday),
    ("WE", Weekday::Wednesday),
    ("TH", Weekday::Thursday),
    ("FR", Weekday::Friday),
    ("SA", Weekday::Saturday),
    ("SU", Weekday::Sunday),
];

impl Recurrence {
    /// Returns the rule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn together(&self) -> Result<(), RecurrenceError> {
        let refuse = |why| Err(RecurrenceError::Together(why));
        let has_ordinal = self.days.iter().any(|day| day.ordinal.is_some());
        match self.frequency {
            Frequency::Daily | Frequency::Weekly if has_ordinal => {
                return refuse("BYDAY has numbers only with FREQ=MONTHLY and FREQ=YEARLY");
            }
            Frequency::Weekly if !self.month_days.is_empty() => {
                return refuse("BYMONTHDAY is not together with FREQ=WEEKLY");
            }
            Frequency::Monthly => {
                let fits = |day: &Day| day.ordinal.is_none_or(|n| (-5..=5).contains(&n));
                if !self.days.iter().all(fits) {
                    return refuse("BYDAY with FREQ=MONTHLY has numbers from -5 to 5");
                }
            }
            _ => {}
        }
        let has_by =
            !(self.months.is_empty() && self.month_days.is_empty() && self.days.is_empty());
        if !self.positions.is_empty() && !has_by {
            return refuse("BYSETPOS is together with BYDAY, BYMONTHDAY or BYMONTH");
        }
        Ok(())
    }
}

/// The parts as they come, before it is known whether they go together.
#[derive(Default)]
struct Parts {
    frequency: Option<Frequency>,
    interval: Option<u32>,
    count: Option<u32>,
    until: Option<DateTime>,
    months: Option<Vec<i8>>,
    month_days: Option<Vec<i8>>,
    days: Option<Vec<Day>>,
    positions: Option<Vec<i16>>,
    week_start: Option<Weekday>,
}

impl Parts {
    fn take(&mut self, name: &str, value: &str) -> Result<(), RecurrenceError> {
        match name {
            "FREQ" => once("FREQ", &mut self.frequency, frequency(value)?),
            "INTERVAL" => {
                let wants = "1 to 1000";
                let interval = number("INTERVAL", wants, value, 1..=INTERVAL_MAX)?;
                once("INTERVAL", &mut self.interval, interval)
            }
            "COUNT" => {
                let count = number("COUNT", "1 to 10000", value, 1..=COUNT_MAX)?;
                once("COUNT", &mut self.count, count)
            }
            "UNTIL" => once("UNTIL", &mut self.until, until(value)?),
            "BYDAY" => once("BYDAY", &mut self.days, items("BYDAY", DAY, value, day)?),
            "BYMONTHDAY" => {
                let wants = "days from 1 to 31, or from -1 to -31";
                let one = |text: &str| signed(text).filter(|n| *n != 0 && n.abs() <= 31);
                let days = items("BYMONTHDAY", wants, value, |text| one(text)?.try_into().ok())?;
                once("BYMONTHDAY", &mut self.month_days, days)
            }
            "BYMONTH" => {
                let one = |text: &str| signed(text).filter(|n| (1..=12).contains(n));
                let months = items("BYMONTH", "months from 1 to 12", value, |text| {
                    one(text)?.try_into().ok()
                })?;
                once("BYMONTH", &mut self.months, months)
            }
            "BYSETPOS" => {
                let wants = "places from 1 to 366, or from -1 to -366";
                let one = |text: &str| signed(text).filter(|n| *n != 0 && n.abs() <= 366);
                once("BYSETPOS", &mut self.positions, items("BYSETPOS", wants, value, one)?)
            }
            "WKST" => {
                let start =
                    weekday(value).ok_or_else(|| wrong("WKST", "a day such as MO", value))?;
                once("WKST", &mut self.week_start, start)
            }
            other => Err(RecurrenceError::Unsupported { name: other.chars().take(40).collect() }),
        }
    }
}

const DAY: &str = "days such as SA, 2SA or -1SU, with numbers from -53 to 53";

impl FromStr for Recurrence {
    type Err = RecurrenceError;

    fn from_str(text: &str) -> Result<Self, RecurrenceError> {
        if text.len() > RECURRENCE_BYTES_MAX {
            return Err(RecurrenceError::TooLong { found: text.len() });
        }
        let mut parts = Parts::default();
        for part in text.split(';') {
            let found = || RecurrenceError::Part { found: part.chars().take(40).collect() };
            let (name, value) = part.split_once('=').ok_or_else(found)?;
            parts.take(name, value)?;
        }
        let frequency = parts.frequency.ok_or(RecurrenceError::Together("FREQ has to be there"))?;
        let end = match (parts.count, parts.until) {
            (None, None) => End::Never,
            (Some(count), None) => End::After(count),
            (None, Some(until)) => End::At(until),
            (Some(_), Some(_)) => {
                return Err(RecurrenceError::Together("COUNT and UNTIL are not together"));
            }
        };
        let recurrence = Self {
            text: text.into(),
            frequency,
            interval: parts.interval.unwrap_or(1),
            end,
            months: parts.months.unwrap_or_default(),
            month_days: parts.month_days.unwrap_or_default(),
            days: parts.days.unwrap_or_default(),
            positions: parts.positions.unwrap_or_default(),
            week_start: parts.week_start.unwrap_or(Weekday::Monday),
        };
        recurrence.together()?;
        Ok(recurrence)
    }
}

fn once<T>(name: &'static str, slot: &mut Option<T>, value: T) -> Result<(), RecurrenceError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(RecurrenceError::Twice { name }),
    }
}

fn wrong(name: &'static str, wants: &'static str, value: &str) -> RecurrenceError {
    RecurrenceError::Value { name, wants, found: value.chars().take(40).collect() }
}

fn frequency(value: &str) -> Result<Frequency, RecurrenceError> {
    match value {
        "DAILY" => Ok(Frequency::Daily),
        "WEEKLY" => Ok(Frequency::Weekly),
        "MONTHLY" => Ok(Frequency::Monthly),
        "YEARLY" => Ok(Frequency::Yearly),
        other => Err(wrong("FREQ", "DAILY, WEEKLY, MONTHLY or YEARLY", other)),
    }
}

fn number(
    name: &'static str,
    wants: &'static str,
    value: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, RecurrenceError> {
    let is_digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_digits && range.contains(number));
    number.ok_or_else(|| wrong(name, wants, value))
}

/// Reads a local time. The RFC wants it of the kind that the start is of, and the start floats.
fn until(value: &str) -> Result<DateTime, RecurrenceError> {
    let wants = "a local time such as 20261231T235959, without Z";
    let bytes = value.as_bytes();
    let is_shaped = bytes.len() == 15
        && bytes[8] == b'T'
        && bytes.iter().enumerate().all(|(at, byte)| at == 8 || byte.is_ascii_digit());
    let civil = Some(value).filter(|_| is_shaped).and_then(|value| {
        let part = |range: std::ops::Range<usize>| value[range].parse::<i16>().ok();
        let byte = |range| i8::try_from(part(range)?).ok();
        let (month, day) = (byte(4..6)?, byte(6..8)?);
        let (hour, minute, second) = (byte(9..11)?, byte(11..13)?, byte(13..15)?);
        DateTime::new(part(0..4)?, month, day, hour, minute, second, 0).ok()
    });
    civil.ok_or_else(|| wrong("UNTIL", wants, value))
}

fn items<T>(
    name: &'static str,
    wants: &'static str,
    value: &str,
    one: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, RecurrenceError> {
    let items = value.split(',').map(one).collect::<Option<Vec<_>>>();
    items.ok_or_else(|| wrong(name, wants, value))
}

/// Reads a number with or without a sign.
fn signed(text: &str) -> Option<i16> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn weekday(text: &str) -> Option<Weekday> {
    DAYS.iter().find(|(name, _)| *name == text).map(|(_, weekday)| *weekday)
}

fn day(text: &str) -> Option<Day> {
    let (number, name) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let weekday = weekday(name)?;
    if number.is_empty() {
        return Some(Day { ordinal: None, weekday });
    }
    let ordinal = signed(number).filter(|n| *n != 0 && n.abs() <= 53)?;
    Some(Day { ordinal: Some(ordinal.try_into().ok()?), weekday })
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<Recurrence>().expect_err(text).to_string()
    }

    #[test]
    fn a_rule_is_read_part_by_part() {
        let text = "FREQ=YEARLY;INTERVAL=2;UNTIL=20361231T235959;BYMONTH=3,10;BYDAY=-1SU,2SA;BYSETPOS=-1;WKST=SU";
        let rule: Recurrence = text.parse().unwrap();
        assert_eq!(rule.to_string(), text);
        assert_eq!(rule.interval, 2);
        assert_eq!(rule.months, [3, 10]);
        assert_eq!(rule.days[0], Day { ordinal: Some(-1), weekday: Weekday::Sunday });
        assert_eq!(rule.end, End::At(jiff::civil::date(2036, 12, 31).at(23, 59, 59, 0)));
        assert_eq!(rule.week_start, Weekday::Sunday);
    }

    #[test]
    fn what_windows_do_not_have_is_refused_by_name() {
        for name in ["BYHOUR", "BYMINUTE", "BYSECOND", "BYYEARDAY", "BYWEEKNO", "RSCALE", "X"] {
            let said = refused(&format!("FREQ=DAILY;{name}=1"));
            assert!(said.starts_with(&format!("{name} is not supported")), "{said}");
        }
        for frequency in ["HOURLY", "MINUTELY", "SECONDLY", "daily", ""] {
            assert!(refused(&format!("FREQ={frequency}")).starts_with("FREQ is DAILY"));
        }
    }

    #[test]
    fn parts_that_make_no_sense_are_refused() {
        for (text, said) in [
            ("", "is not NAME=VALUE"),
            ("BYDAY=SA", "FREQ has to be there"),
            ("FREQ=DAILY;", "is not NAME=VALUE"),
            ("FREQ=DAILY;FREQ=DAILY", "FREQ is there twice"),
            ("FREQ=DAILY;INTERVAL=0", "INTERVAL is 1 to 1000"),
            ("FREQ=DAILY;INTERVAL=+1", "INTERVAL is 1 to 1000"),
            ("FREQ=DAILY;COUNT=3;UNTIL=20261231T000000", "not together"),
            ("FREQ=DAILY;UNTIL=20261231", "UNTIL is a local time"),
            ("FREQ=DAILY;UNTIL=20261231T000000Z", "UNTIL is a local time"),
            ("FREQ=DAILY;UNTIL=20261331T000000", "UNTIL is a local time"),
            ("FREQ=WEEKLY;BYDAY=2SA", "BYDAY has numbers only"),
            ("FREQ=WEEKLY;BYMONTHDAY=1", "not together with FREQ=WEEKLY"),
            ("FREQ=MONTHLY;BYDAY=6SA", "from -5 to 5"),
            ("FREQ=MONTHLY;BYDAY=0SA", "BYDAY is days"),
            ("FREQ=MONTHLY;BYDAY=", "BYDAY is days"),
            ("FREQ=MONTHLY;BYDAY=é", "BYDAY is days"),
            ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY is days"),
            ("FREQ=MONTHLY;BYMONTH=13", "BYMONTH is months"),
            ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS is together"),
            ("FREQ=MONTHLY;BYDAY=SA;BYSETPOS=0", "BYSETPOS is places"),
        ] {
            assert!(refused(text).contains(said), "{text}: {}", refused(text));
        }
        assert!(refused(&"X".repeat(RECURRENCE_BYTES_MAX + 1)).contains("at most 500 bytes"));
    }
}

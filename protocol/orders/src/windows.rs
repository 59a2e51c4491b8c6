//! When windows are: their rules expanded in local time, and only then turned into instants.
//!
//! Dates come from the rule alone, without any zone (RFC 5545, section 3.3.10); the begin's time of the day is put to
//! each of them; the zone then says which instant that is. A local time that does not exist moves forward by the gap,
//! and one that is there twice is the first. A window is open for as many minutes as it says, whatever clocks do
//! meanwhile.
//!
//! Always true: nothing is looked for beyond [`HORIZON_YEARS`], so an expansion is bounded however seldom a rule holds.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan};
use sutler_protocol::name::Label;

use crate::recurrence::{Day, End, Frequency, Recurrence};
use crate::schedules::{Schedule, Window, ZoneName};
use crate::sites::Sites;

/// Years that are looked ahead for a window: a 29th of February that is a Saturday comes within 28, but for 1900 and
/// its like, which are 40.
pub const HORIZON_YEARS: i16 = 40;

/// Windows that are asked for at once, at most.
pub const NEXT_MAX: usize = 1_000;

/// Which zones there are, as the caller knows them.
#[derive(Clone, Debug)]
pub struct Zones<'a> {
    /// The zone of the site, if the site list has one that the database knows.
    pub site: Option<TimeZone>,
    /// The zone that the device is set to, if it is known.
    pub device: Option<TimeZone>,
    /// Where IANA names are looked up.
    pub database: &'a TimeZoneDatabase,
}

/// One opening of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which of the schedule's windows, from 0.
    pub window: usize,
    /// The local time that the rule says.
    pub local: DateTime,
    /// The zone that it was looked up in.
    pub zone: TimeZone,
    /// The instant at which it opens.
    pub begin: Timestamp,
    /// The instant at which it is closed.
    pub end: Timestamp,
    /// What somebody who reads the local time may not expect.
    pub warnings: Vec<Warning>,
}

/// What somebody who reads a window's local time may not expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Clocks are put forward over the begin, which therefore is later.
    Gap {
        /// The local time at which it begins.
        begins: DateTime,
    },
    /// The begin is there twice because clocks are put back, and the first is meant.
    Fold,
    /// Clocks change while the window is open: its local end is another than its length says.
    ChangesInside {
        /// The local time at which it ends.
        ends: DateTime,
    },
    /// The month's Patch Tuesday is later than the window.
    BeforePatchTuesday {
        /// The month's Patch Tuesday.
        patch_tuesday: Date,
    },
}

/// A zone that a window names and nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the zone {zone} of window {window} is not known here")]
pub struct ZoneError {
    /// The zone as the window says it.
    pub zone: String,
    /// Which of the schedule's windows, from 0.
    pub window: usize,
}

impl<'a> Zones<'a> {
    /// Returns the zones for a device of a site.
    pub fn of(
        sites: Option<&Sites>,
        site: &Label,
        device: Option<TimeZone>,
        database: &'a TimeZoneDatabase,
    ) -> Self {
        let site = sites.and_then(|sites| sites.site(site));
        let site = site.and_then(|site| database.get(site.zone.as_str()).ok());
        Self { site, device, database }
    }

    fn zone(&self, name: &ZoneName) -> Option<TimeZone> {
        match name {
            ZoneName::Site => self.site.clone(),
            ZoneName::Device => self.device.clone(),
            ZoneName::Named(name) => self.database.get(name).ok(),
        }
    }
}

/// Returns the next `count` openings of a schedule that are not over at `from`, in the order of their begins: the
/// first may be open already.
///
/// # Errors
///
/// [`ZoneError`] if a window is in a zone that is not known. None of the schedule can be trusted to be the next, then.
pub fn next_windows(
    schedule: &Schedule,
    zones: &Zones<'_>,
    from: Timestamp,
    count: usize,
) -> Result<Vec<Opening>, ZoneError> {
    let count = count.min(NEXT_MAX);
    let mut openings = Vec::new();
    for (position, window) in schedule.windows.iter().enumerate() {
        let zone = zones
            .zone(&window.zone)
            .ok_or_else(|| ZoneError { zone: window.zone.to_string(), window: position })?;
        let upcoming = openings_of(position, window, &zone, from);
        openings.extend(upcoming.filter(|opening| opening.end > from).take(count));
    }
    openings.sort_by_key(|opening| (opening.begin, opening.window));
    openings.truncate(count);
    Ok(openings)
}

/// Returns the openings of a schedule that are open at `at`, of every window. A window that is longer than
/// its rule's interval is open more than once.
///
/// # Errors
///
/// [`ZoneError`], as by [`next_windows`].
pub(crate) fn open_windows(
    schedule: &Schedule,
    zones: &Zones<'_>,
    at: Timestamp,
) -> Result<Vec<Opening>, ZoneError> {
    let mut open = Vec::new();
    for (position, window) in schedule.windows.iter().enumerate() {
        let zone = zones
            .zone(&window.zone)
            .ok_or_else(|| ZoneError { zone: window.zone.to_string(), window: position })?;
        let begun = openings_of(position, window, &zone, at)
            .take_while(|opening| opening.begin <= at)
            .filter(|opening| opening.end > at);
        open.extend(begun.take(NEXT_MAX));
    }
    Ok(open)
}

/// Returns the last opening of a window that was over at `at`, if there was one.
pub(crate) fn last_over(
    window: &Window,
    zones: &Zones<'_>,
    at: Timestamp,
    since: Timestamp,
) -> Option<Opening> {
    let zone = zones.zone(&window.zone)?;
    let openings = openings_of(0, window, &zone, since);
    openings.take_while(|opening| opening.begin < at).filter(|opening| opening.end <= at).last()
}

/// Returns the openings of a window, from a little before `from` on.
fn openings_of<'w>(
    position: usize,
    window: &'w Window,
    zone: &TimeZone,
    from: Timestamp,
) -> impl Iterator<Item = Opening> + use<'w> {
    let duration = SignedDuration::from_mins(i64::from(window.duration_minutes));
    let start = window.start.date_time();
    let first = from
        .checked_sub(duration)
        .map_or(start, |first| zone.to_datetime(first))
        .date()
        .checked_sub(2.days())
        .map_or(start.date(), |date| date.max(start.date()));
    let zone = zone.clone();
    Dates::of(window, first)
        .filter_map(move |date| opening(position, window, date.to_datetime(start.time()), &zone))
}

fn opening(position: usize, window: &Window, local: DateTime, zone: &TimeZone) -> Option<Opening> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let offset = ambiguous.offset();
    let begin = ambiguous.compatible().ok()?;
    let minutes = i64::from(window.duration_minutes);
    let end = begin.checked_add(SignedDuration::from_mins(minutes)).ok()?;
    let mut warnings = Vec::new();
    let begins = zone.to_datetime(begin);
    match offset {
        AmbiguousOffset::Gap { .. } => warnings.push(Warning::Gap { begins }),
        AmbiguousOffset::Fold { .. } => warnings.push(Warning::Fold),
        AmbiguousOffset::Unambiguous { .. } => {}
    }
    if zone.to_offset(begin) != zone.to_offset(end) {
        warnings.push(Warning::ChangesInside { ends: zone.to_datetime(end) });
    }
    let is_nth = window.rule.as_ref().is_some_and(Recurrence::has_ordinal);
    if let Some(patch_tuesday) = patch_tuesday(local.date())
        && is_nth
        && local.date() < patch_tuesday
    {
        warnings.push(Warning::BeforePatchTuesday { patch_tuesday });
    }
    Some(Opening { window: position, local, zone: zone.clone(), begin, end, warnings })
}

/// Returns the second Tuesday of a day's month.
pub fn patch_tuesday(day: Date) -> Option<Date> {
    day.nth_weekday_of_month(2, Weekday::Tuesday).ok()
}

/// The dates at which a window opens, in order.
struct Dates<'w> {
    rule: Rule<'w>,
    start: Date,
    /// Where to begin, which is not before `start`.
    first: Date,
    /// The period that is next, counted from that of `start`.
    period: i64,
    /// What is left of the period that was expanded last.
    ready: std::collections::VecDeque<Date>,
    /// How many dates there may still be.
    left: u32,
    last: Date,
    /// The last local date that the rule lets through, with whether the time of that day is past it.
    until: Option<DateTime>,
    time: jiff::civil::Time,
}

enum Rule<'w> {
    Recurrence(&'w Recurrence),
    PatchTuesday { plus_days: u8 },
}

impl<'w> Dates<'w> {
    fn of(window: &'w Window, first: Date) -> Self {
        let (start, time) = (window.start.date_time().date(), window.start.date_time().time());
        let rule = match (&window.rule, window.patch_tuesday_plus_days) {
            (Some(rule), _) => Rule::Recurrence(rule),
            (None, days) => Rule::PatchTuesday { plus_days: days.unwrap_or_default() },
        };
        let (left, until) = match &rule {
            Rule::Recurrence(rule) => match rule.end {
                End::Never => (u32::MAX, None),
                End::After(count) => (count, None),
                End::At(until) => (u32::MAX, Some(until)),
            },
            Rule::PatchTuesday { .. } => (u32::MAX, None),
        };
        let last = first.checked_add(i32::from(HORIZON_YEARS).years()).unwrap_or(Date::MAX);
        let mut dates = Self {
            rule,
            start,
            first,
            period: 0,
            ready: std::collections::VecDeque::new(),
            left,
            last,
            until,
            time,
        };
        // A rule that counts has to be counted from its start; every other may be entered anywhere.
        if left == u32::MAX {
            dates.period = dates.period_before(first);
        }
        dates
    }

    /// Returns a period that is not after the one of `date`.
    fn period_before(&self, date: Date) -> i64 {
        let days = i64::from(date.since(self.start).map_or(0, |span| span.get_days()));
        let (frequency, interval) = match &self.rule {
            Rule::Recurrence(rule) => (rule.frequency, i64::from(rule.interval)),
            Rule::PatchTuesday { .. } => (Frequency::Monthly, 1),
        };
        let periods = match frequency {
            Frequency::Daily => days,
            Frequency::Weekly => days / 7,
            Frequency::Monthly => months_between(self.start, date),
            Frequency::Yearly => i64::from(date.year() - self.start.year()),
        };
        // Days after a Patch Tuesday may be in the month behind it, so the first are from before the start.
        let least = if matches!(self.rule, Rule::PatchTuesday { .. }) { -1 } else { 0 };
        (periods / interval - 1).max(least)
    }

    /// Returns the dates of one period in order, or `None` if the calendar or the horizon ends before it.
    fn expand(&self, period: i64) -> Option<Vec<Date>> {
        match &self.rule {
            Rule::PatchTuesday { plus_days } => {
                let month = month_after(self.start, period)?;
                let date = patch_tuesday(month)?.checked_add(i64::from(*plus_days).days()).ok()?;
                (month <= self.last).then(|| vec![date])
            }
            Rule::Recurrence(rule) => {
                let (begin, days) = rule.period(self.start, period)?;
                (begin <= self.last).then(|| rule.dates(self.start, begin, days))
            }
        }
    }
}

impl Iterator for Dates<'_> {
    type Item = Date;

    fn next(&mut self) -> Option<Date> {
        loop {
            while let Some(date) = self.ready.pop_front() {
                let is_over = self.until.is_some_and(|until| date.to_datetime(self.time) > until);
                if self.left == 0 || is_over || date > self.last {
                    return None;
                }
                if date < self.start {
                    continue;
                }
                if self.left != u32::MAX {
                    self.left -= 1;
                }
                if date >= self.first {
                    return Some(date);
                }
            }
            let dates = self.expand(self.period)?;
            self.period += 1;
            self.ready.extend(dates);
        }
    }
}

impl Recurrence {
    /// Returns whether it names the n-th of a weekday.
    fn has_ordinal(&self) -> bool {
        self.days.iter().any(|day| day.ordinal.is_some())
    }

    /// Returns the first day of a period, and how many days it has.
    fn period(&self, start: Date, period: i64) -> Option<(Date, i64)> {
        let by = period.checked_mul(i64::from(self.interval))?;
        match self.frequency {
            Frequency::Daily => Some((start.checked_add(days(by)?).ok()?, 1)),
            Frequency::Weekly => {
                let back = start.weekday().since(self.week_start);
                let monday = start.checked_sub(i64::from(back).days()).ok()?;
                Some((monday.checked_add(days(by.checked_mul(7)?)?).ok()?, 7))
            }
            Frequency::Monthly => {
                let first = month_after(start, by)?;
                Some((first, first.days_in_month().into()))
            }
            Frequency::Yearly => {
                let year = i16::try_from(i64::from(start.year()).checked_add(by)?).ok()?;
                let first = Date::new(year, 1, 1).ok()?;
                Some((first, first.days_in_year().into()))
            }
        }
    }

    /// Returns the dates of a period that the rule's parts let through. What the rule leaves open, `start` gives.
    fn dates(&self, start: Date, begin: Date, days: i64) -> Vec<Date> {
        let has_day = !self.days.is_empty() || !self.month_days.is_empty();
        let all = (0..days).filter_map(|day| begin.checked_add(day.days()).ok());
        let dates: BTreeSet<Date> = all
            .filter(|date| self.months.is_empty() || self.months.contains(&date.month()))
            .filter(|date| match self.frequency {
                _ if has_day => self.has_month_day(*date) && self.has_day(*date),
                Frequency::Daily => true,
                Frequency::Weekly => date.weekday() == start.weekday(),
                Frequency::Monthly => date.day() == start.day(),
                Frequency::Yearly => {
                    date.day() == start.day()
                        && (!self.months.is_empty() || date.month() == start.month())
                }
            })
            .collect();
        self.at_positions(dates.into_iter().collect())
    }

    fn has_month_day(&self, date: Date) -> bool {
        let from_end = date.day() - date.days_in_month() - 1;
        self.month_days.is_empty()
            || self.month_days.contains(&date.day())
            || self.month_days.contains(&from_end)
    }

    fn has_day(&self, date: Date) -> bool {
        self.days.is_empty() || self.days.iter().any(|day| self.is_day(*day, date))
    }

    /// Returns whether a date is such a weekday, counted within the month, or within the year where the rule is by
    /// years and names no months.
    fn is_day(&self, day: Day, date: Date) -> bool {
        if date.weekday() != day.weekday {
            return false;
        }
        let Some(ordinal) = day.ordinal else { return true };
        let by_year = self.frequency == Frequency::Yearly && self.months.is_empty();
        let (day, days) = if by_year {
            (date.day_of_year(), date.days_in_year())
        } else {
            (date.day().into(), date.days_in_month().into())
        };
        let nth = if ordinal > 0 { (day - 1) / 7 + 1 } else { -((days - day) / 7 + 1) };
        nth == i16::from(ordinal)
    }

    fn at_positions(&self, dates: Vec<Date>) -> Vec<Date> {
        if self.positions.is_empty() {
            return dates;
        }
        let len = dates.len();
        let at = |position: &i16| {
            let from_end = usize::from(position.unsigned_abs());
            let index = if *position > 0 { Some(from_end - 1) } else { len.checked_sub(from_end) };
            dates.get(index?).copied()
        };
        let chosen: BTreeSet<Date> = self.positions.iter().filter_map(at).collect();
        chosen.into_iter().collect()
    }
}

fn days(count: i64) -> Option<jiff::Span> {
    jiff::Span::new().try_days(count).ok()
}

fn months_between(from: Date, to: Date) -> i64 {
    let months = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month());
    months(to) - months(from)
}

/// Returns the first day of the month so many months after that of `date`.
fn month_after(date: Date, months: i64) -> Option<Date> {
    let month = (i64::from(date.year()) * 12 + i64::from(date.month()) - 1).checked_add(months)?;
    let year = i16::try_from(month.div_euclid(12)).ok()?;
    let month = i8::try_from(month.rem_euclid(12) + 1).ok()?;
    Date::new(year, month, 1).ok()
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gap { begins } => {
                write!(f, "clocks are put forward over this time: it begins at {begins} instead")
            }
            Self::Fold => {
                f.write_str("clocks are put back and this time is there twice: the first is meant")
            }
            Self::ChangesInside { ends } => {
                write!(f, "clocks change while it is open: it ends at {ends} local time")
            }
            Self::BeforePatchTuesday { patch_tuesday } => {
                write!(f, "this month's Patch Tuesday comes later, on {patch_tuesday}")
            }
        }
    }
}

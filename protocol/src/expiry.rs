//! How soon somebody should do something about what expires: roles of the manifest, keys, certificates.
//!
//! Pure: [`Warning::of`] says how urgent it is, [`Reminder`] what is said once a day and what sooner.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// Days before an expiry at which it is spoken of, the most urgent first: of what a person renews.
pub const BY_HAND_DAYS: &[i64] = &[7, 30, 60];

/// The same of what renews itself with ten of its thirty days left: within 7 that has failed for days.
pub const BY_ITSELF_DAYS: &[i64] = &[7];

/// The same of what is signed anew every hour: it is spoken of when it is gone.
pub const HOURLY_DAYS: &[i64] = &[];

/// Days that are left when a warning becomes a matter of now.
const URGENT_DAYS: i64 = 7;

/// How often the same is said again.
const SAID_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How urgent an expiry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Not yet.
    None,
    /// Within so many days.
    Within(i64),
    /// It has expired.
    Expired,
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// What: a role's name, or `certificate`.
    pub what: String,
    /// When.
    pub expires: Timestamp,
    /// How many days before it is spoken of, the most urgent first.
    pub days: &'static [i64],
}

/// Remembers what was said, so that each expiry is spoken of once a day, and when it becomes more urgent.
#[derive(Clone, Debug, Default)]
pub struct Reminder {
    said: BTreeMap<String, (Warning, Timestamp)>,
}

/// Returns the whole days that are left at `now`; negative of what has expired.
pub fn left_days(expires: Timestamp, now: Timestamp) -> i64 {
    expires.duration_since(now).as_secs().div_euclid(24 * 60 * 60)
}

impl Warning {
    /// Returns how urgent it is at `now` that something expires, of which one speaks `days` before, the most urgent
    /// first.
    pub fn of(expires: Timestamp, now: Timestamp, days: &[i64]) -> Self {
        if expires <= now {
            return Self::Expired;
        }
        let left = left_days(expires, now);
        days.iter().find(|days| left < **days).map_or(Self::None, |days| Self::Within(*days))
    }

    /// Returns whether it is a matter of now: within 7 days, or past.
    pub const fn is_urgent(self) -> bool {
        match self {
            Self::None => false,
            Self::Within(days) => days <= URGENT_DAYS,
            Self::Expired => true,
        }
    }

    /// Returns its name; empty if there is nothing to say.
    pub fn as_str(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Within(days) => format!("within {days} days"),
            Self::Expired => "expired".to_owned(),
        }
    }
}

impl Expiring {
    /// Returns how urgent it is at `now`.
    pub fn warning(&self, now: Timestamp) -> Warning {
        Warning::of(self.expires, now, self.days)
    }
}

impl Reminder {
    /// Returns what is to be said at `now`, and takes it for said.
    pub fn due<'a>(&mut self, all: &'a [Expiring], now: Timestamp) -> Vec<(&'a Expiring, Warning)> {
        // What was renewed, or is there no longer, is news when it comes back.
        let warned: BTreeMap<&str, Warning> = all
            .iter()
            .map(|one| (one.what.as_str(), one.warning(now)))
            .filter(|(_, warning)| *warning != Warning::None)
            .collect();
        self.said.retain(|what, _| warned.contains_key(what.as_str()));
        let mut due = Vec::new();
        for one in all {
            let Some(warning) = warned.get(one.what.as_str()).copied() else { continue };
            let is_said = self.said.get(&one.what).is_some_and(|(before, at)| {
                *before == warning && now.duration_since(*at) < SAID_EVERY
            });
            if !is_said {
                self.said.insert(one.what.clone(), (warning, now));
                due.push((one, warning));
            }
        }
        due
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        let start: Timestamp = "2026-11-28T00:00:00Z".parse().unwrap();
        start + SignedDuration::from_hours(hours)
    }

    // R164
    #[test]
    fn an_expiry_is_spoken_of_at_60_30_and_7_days() {
        for (hours, warning, is_urgent) in [
            (24 * 61, Warning::None, false),
            (24 * 60, Warning::None, false),
            (24 * 60 - 1, Warning::Within(60), false),
            (24 * 30 - 1, Warning::Within(30), false),
            (24 * 7, Warning::Within(30), false),
            (24 * 7 - 1, Warning::Within(7), true),
            (1, Warning::Within(7), true),
            (0, Warning::Expired, true),
            (-24, Warning::Expired, true),
        ] {
            let found = Warning::of(at(hours), at(0), BY_HAND_DAYS);
            assert_eq!((found, found.is_urgent()), (warning, is_urgent), "{hours} hours");
        }
        assert_eq!(Warning::of(at(24 * 20), at(0), BY_ITSELF_DAYS), Warning::None);
        assert_eq!(Warning::of(at(24 * 6), at(0), BY_ITSELF_DAYS), Warning::Within(7));
        assert_eq!(Warning::of(at(1), at(0), HOURLY_DAYS), Warning::None);
        assert_eq!(Warning::of(at(-1), at(0), HOURLY_DAYS), Warning::Expired);
        assert_eq!((left_days(at(-1), at(0)), left_days(at(23), at(0))), (-1, 0));
    }

    #[test]
    fn each_is_said_once_a_day_and_sooner_where_it_gets_worse() {
        let all = |hours| {
            let expiring = |what: &str, expires| Expiring {
                what: what.to_owned(),
                expires,
                days: BY_HAND_DAYS,
            };
            [expiring("targets", at(hours)), expiring("root", at(24 * 300))]
        };
        let mut reminder = Reminder::default();
        let mut said = |hours, now| {
            let all = all(hours);
            let due = reminder.due(&all, at(now));
            due.into_iter().map(|(one, warning)| (one.what.clone(), warning)).collect::<Vec<_>>()
        };
        let targets = |warning| vec![("targets".to_owned(), warning)];
        let end = 24 * 31;
        assert_eq!(said(end, 0), targets(Warning::Within(60)));
        assert_eq!(said(end, 23), []);
        assert_eq!(said(end, 24), targets(Warning::Within(60)));
        assert_eq!(said(end, 25), targets(Warning::Within(30)));
        assert_eq!(said(end, 26), []);
        // Renewed, and due again.
        assert_eq!(said(24 * 200, 27), []);
        assert_eq!(said(end, 28), targets(Warning::Within(30)));
    }
}

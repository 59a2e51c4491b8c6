//! Dates as Release files write them: `Sat, 16 May 2026 09:10:00 UTC` (RFC 5322, always UTC).

use std::time::SystemTime;

/// Returns the instant that a text names, if it names one in UTC.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [weekday, day, month, year, time, zone] = words.try_into().ok()?;
    if !matches!(zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let is_number = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let clock: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = clock.try_into().ok()?;
    if ![day, hour, minute, second].into_iter().all(is_number) {
        return None;
    }
    // HTTP's date is the same with every number in full.
    let full =
        format!("{weekday} {day:0>2} {month} {year} {hour:0>2}:{minute:0>2}:{second:0>2} GMT");
    httpdate::parse_http_date(&full).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn vendors_write_utc_in_several_ways() {
        let wanted = Some(UNIX_EPOCH + Duration::from_mins(29_648_710));
        for text in [
            "Sat, 16 May 2026 09:10:00 UTC",
            "Sat, 16 May 2026 09:10:00 +0000",
            "Sat,  16 May 2026  9:10:00 GMT",
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
        assert!(parse("Sat, 6 Jun 2026 09:10:00 Z").is_some());
    }

    #[test]
    fn what_is_no_date_in_utc_is_none() {
        for text in [
            "",
            "now",
            "Sat, 16 May 2026 09:10:00 CEST",
            "Sat, 16 May 2026 09:10:00 +0200",
            "Sat, 32 May 2026 09:10:00 UTC",
            "Sat, 16 May 2026 25:10:00 UTC",
            "2026-05-16T09:10:00Z",
            "Sat, 16 Mai 2026 09:10:00 UTC",
            "Sat, 16 May 2026 09:10 UTC",
            "Sat, -1 May 2026 1:1:1 UTC",
            "Sat, 16 May 99999999999 09:10:00 UTC",
            "Sat, 16 May 2026 09:10:00 UTC UTC",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

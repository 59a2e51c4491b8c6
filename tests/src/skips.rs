//! A test that cannot run says so, and CI believes it only if the list knows of it.
//!
//! A test that quietly does nothing looks like one that passes. So under CI a skip is a failure,
//! unless `tests/skips.txt` holds the test's name with the reason it may be absent.

/// The committed list: one test a line, `NAME: REASON`; `#` begins a note.
const LISTED: &str = include_str!("../skips.txt");

/// What a skip means where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused,
}

/// Notes that `test` does not run because of `reason`. The test returns right after.
///
/// # Panics
///
/// Under CI (`CI` is set and not empty), if the list does not name the test.
pub fn skip(test: &str, reason: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match verdict(test, LISTED, is_ci) {
        Verdict::Allowed => eprintln!("skipped {test}: {reason}"),
        Verdict::Refused => {
            panic!("{test} skipped itself ({reason}), and tests/skips.txt has no such entry")
        }
    }
}

fn verdict(test: &str, listed: &str, is_ci: bool) -> Verdict {
    let mut entries = listed.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
    let is_listed = entries.any(|(name, reason)| name.trim() == test && !reason.trim().is_empty());
    if is_ci && !is_listed { Verdict::Refused } else { Verdict::Allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_ci_a_skip_needs_an_entry_with_its_reason() {
        let listed = "# a note\nknown: needs two network namespaces\nbare:\n";
        assert_eq!(verdict("known", listed, true), Verdict::Allowed);
        assert_eq!(verdict("bare", listed, true), Verdict::Refused);
        assert_eq!(verdict("other", listed, true), Verdict::Refused);
        assert_eq!(verdict("other", listed, false), Verdict::Allowed);
    }
}

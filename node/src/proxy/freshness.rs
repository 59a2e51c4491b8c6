//! Whether what is held may be given out, must be asked after, or has to be fetched. Pure: the time
//! is an argument, in seconds since 1970.
//!
//! | Held | Origin | Answer |
//! |---|---|---|
//! | nothing | not asked lately | fetch |
//! | nothing | just said that there is none | the same again, for a bounded time |
//! | nothing | in trouble a moment ago | that, for a bounded time |
//! | what never changes | | serve |
//! | the rest | | ask whether it changed |
//! | the rest | in trouble | serve it, marked as stale, within a bound |

use super::kind::Kind;

/// For how long an index or other file is not asked after again, if the client does not insist.
pub(super) const FRESH_SECONDS: u64 = 60;

/// For how long a file that its origin does not have is not asked for again.
pub(super) const NEGATIVE_SECONDS: u64 = 30;

/// For how long an origin in trouble is not asked again.
pub(super) const TROUBLE_SECONDS: u64 = 10;

/// What is held of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// When the origin last said that this is the file.
    pub(super) checked_at: u64,
}

/// What the origin last did instead of giving the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// When.
    pub(super) at: u64,
    /// Its answer, if that was final: it has no such file, or does not give it to us.
    pub(super) status: Option<u16>,
}

/// How new an answer the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Whatever is good.
    #[default]
    Any,
    /// One that was asked after now.
    Checked,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give out what is held.
    Serve,
    /// Ask the origin whether it changed.
    Revalidate,
    /// Fetch it.
    Fetch,
    /// Give out what is held, marked as stale: so many seconds old.
    ServeStale(u64),
    /// Answer as the origin did a moment ago.
    Repeat(Failed),
}

/// Decides what to do about a file.
///
/// A clock that went backwards makes what was checked in the future unchecked, never fresh for ever.
pub(super) fn decide(
    kind: Kind,
    held: Option<Held>,
    failed: Option<Failed>,
    wish: Wish,
    stale_seconds_max: u64,
    now: u64,
) -> Decision {
    let standing = failed.filter(|failed| {
        let stands = failed.status.map_or(TROUBLE_SECONDS, |_| NEGATIVE_SECONDS);
        // `at` in the future: the clock was set back, and nothing is known about now.
        now.checked_sub(failed.at).is_some_and(|age| age < stands)
    });
    let Some(held) = held else {
        return standing.map_or(Decision::Fetch, Decision::Repeat);
    };
    if kind.is_immutable() {
        return Decision::Serve;
    }
    let age = now.checked_sub(held.checked_at);
    if wish == Wish::Any && age.is_some_and(|age| age < FRESH_SECONDS) {
        return Decision::Serve;
    }
    match standing {
        None => Decision::Revalidate,
        // It is gone from there: what is held of it is nobody's business any more.
        Some(failed) if failed.status.is_some() => Decision::Repeat(failed),
        Some(failed) => stale(held, stale_seconds_max, now)
            .map_or(Decision::Repeat(failed), Decision::ServeStale),
    }
}

/// Returns how old what is held is, if that is not too old to be given out while its origin is in
/// trouble.
pub(super) fn stale(held: Held, stale_seconds_max: u64, now: u64) -> Option<u64> {
    let age = now.saturating_sub(held.checked_at);
    (age <= stale_seconds_max).then_some(age)
}

/// Reads how new an answer the client wants from its `Cache-Control` and `Pragma`.
pub(super) fn wish<'a>(values: impl Iterator<Item = &'a str>) -> Wish {
    let insists = |value: &str| {
        value.split(',').map(str::trim).any(|one| {
            one.eq_ignore_ascii_case("no-cache")
                || one.eq_ignore_ascii_case("max-age=0")
                || one.eq_ignore_ascii_case("no-store")
        })
    };
    let mut values = values;
    if values.any(insists) { Wish::Checked } else { Wish::Any }
}

/// Returns whether an origin lets others keep what it answered, by its `Cache-Control`.
pub(super) fn may_keep(cache_control: Option<&str>) -> bool {
    let Some(value) = cache_control else { return true };
    !value.split(',').map(str::trim).any(|one| {
        one.eq_ignore_ascii_case("no-store") || one.to_ascii_lowercase().starts_with("private")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn what_to_do_follows_from_what_is_held_and_what_the_origin_did() {
        use Decision::{Fetch, Repeat, Revalidate, Serve, ServeStale};
        use Wish::{Any, Checked};
        let held = |age: u64| Some(Held { checked_at: NOW - age });
        let gone = |age: u64| Failed { at: NOW - age, status: Some(404) };
        let trouble = |age: u64| Failed { at: NOW - age, status: None };
        for (kind, held, failed, wish, decision) in [
            (Kind::Pool, None, None, Any, Fetch),
            (Kind::Pool, None, Some(gone(29)), Any, Repeat(gone(29))),
            (Kind::Pool, None, Some(gone(30)), Any, Fetch),
            (Kind::Pool, None, Some(trouble(9)), Any, Repeat(trouble(9))),
            (Kind::Pool, None, Some(trouble(10)), Any, Fetch),
            (Kind::Pool, held(400 * DAY), Some(trouble(1)), Checked, Serve),
            (Kind::Hashed, held(400 * DAY), None, Checked, Serve),
            (Kind::Index, held(59), None, Any, Serve),
            (Kind::Index, held(59), None, Checked, Revalidate),
            (Kind::Index, held(60), None, Any, Revalidate),
            (Kind::Other, held(60), None, Any, Revalidate),
            (Kind::Index, held(DAY), Some(trouble(1)), Checked, ServeStale(DAY)),
            (Kind::Index, held(DAY), Some(trouble(10)), Checked, Revalidate),
            (Kind::Index, held(8 * DAY), Some(trouble(1)), Any, Repeat(trouble(1))),
            (Kind::Index, held(DAY), Some(gone(1)), Any, Repeat(gone(1))),
        ] {
            let decided = decide(kind, held, failed, wish, 7 * DAY, NOW);
            assert_eq!(decided, decision, "{kind:?} {held:?} {failed:?} {wish:?}");
        }
    }

    // T13
    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh_for_ever() {
        let held = Some(Held { checked_at: NOW + DAY });
        let failed = Some(Failed { at: NOW + DAY, status: Some(404) });
        let decided = |held, failed| decide(Kind::Index, held, failed, Wish::Any, DAY, NOW);
        assert_eq!(decided(held, None), Decision::Revalidate);
        assert_eq!(decided(None, failed), Decision::Fetch);
        assert_eq!(decided(held, failed), Decision::Revalidate);
    }

    #[test]
    fn headers_say_how_new_an_answer_is_wanted_and_what_may_be_kept() {
        assert_eq!(wish(["max-age=0"].into_iter()), Wish::Checked);
        assert_eq!(wish(["max-stale=1, No-Cache"].into_iter()), Wish::Checked);
        assert_eq!(wish(["max-age=10"].into_iter()), Wish::Any);
        assert_eq!(wish([].into_iter()), Wish::Any);
        assert!(may_keep(None));
        assert!(may_keep(Some("public, max-age=120")));
        assert!(!may_keep(Some("max-age=1, no-store")));
        assert!(!may_keep(Some("Private=\"x\"")));
    }
}

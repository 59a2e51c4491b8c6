//! Which of two versions is the higher one, as Debian has it: Policy 5.6.12, and `dpkg --compare-versions`.
//!
//! Its order is good for most others' versions, too. It is asked only whether something goes upwards, and what is no
//! version does not.

use std::cmp::Ordering;

/// A version in its parts, of which the first and the last may be missing.
struct Parts<'a> {
    epoch: &'a [u8],
    upstream: &'a [u8],
    revision: &'a [u8],
}

/// Compares two versions; `None` if one of them is none.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Parts::of(a)?, Parts::of(b)?);
    let epochs = order(a.epoch, b.epoch);
    let upstreams = || order(a.upstream, b.upstream);
    Some(epochs.then_with(upstreams).then_with(|| order(a.revision, b.revision)))
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Option<Self> {
        let (epoch, rest) = match version.split_once(':') {
            Some(("", _)) => return None,
            Some(both) => both,
            None => ("", version),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let (epoch, upstream, revision) =
            (epoch.as_bytes(), upstream.as_bytes(), revision.as_bytes());
        let is_made_of = |text: &[u8], more: &[u8]| {
            text.iter().all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
        };
        let is_version = epoch.iter().all(u8::is_ascii_digit)
            && upstream.first().is_some_and(u8::is_ascii_digit)
            && is_made_of(upstream, b".+-~:")
            && is_made_of(revision, b".+~");
        is_version.then_some(Self { epoch, upstream, revision })
    }
}

/// Compares two parts: what is no number by its characters, then what is one by its value, in turn.
fn order(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let texts = weights(text(&mut a)).cmp(weights(text(&mut b)));
        let (number_a, number_b) = (number(&mut a), number(&mut b));
        let numbers = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        match texts.then(numbers) {
            Ordering::Equal => {}
            differs => return differs,
        }
    }
    Ordering::Equal
}

/// Returns what decides between two texts. What ends comes before letters, letters before the rest, and a tilde before
/// everything.
fn weights(text: &[u8]) -> impl Iterator<Item = i32> {
    let weight = |byte: &u8| match byte {
        b'~' => -1,
        byte if byte.is_ascii_alphabetic() => i32::from(*byte),
        byte => i32::from(*byte) + 256,
    };
    text.iter().map(weight).chain([0])
}

/// Takes what is no number from the front.
fn text<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let end = from.iter().position(u8::is_ascii_digit).unwrap_or(from.len());
    let (text, rest) = from.split_at(end);
    *from = rest;
    text
}

/// Takes a number from the front, and returns its digits without leading zeros.
fn number<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let end = from.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(from.len());
    let (digits, rest) = from.split_at(end);
    *from = rest;
    let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    // Policy 5.6.12
    #[test]
    fn versions_are_in_the_order_of_debian() {
        let rising = [
            "0",
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0",
            "1.0a",
            "1.0a+b",
            "1.0+",
            "1.0.",
            "1.0.1",
            "1.2",
            "1.02.1",
            "1.10",
            "2~rc1-1",
            "2-1",
            "2-1+deb12u1",
            "2-1.1",
            "2-2",
            "2a-1",
            "2+b-0",
            "2.0-1",
            "1:0",
            "1:0.1-3",
            "2:0",
        ];
        for (position, low) in rising.iter().enumerate() {
            assert_eq!(compare(low, low), Some(Ordering::Equal), "{low}");
            for high in &rising[position + 1..] {
                assert_eq!(compare(low, high), Some(Ordering::Less), "{low} {high}");
                assert_eq!(compare(high, low), Some(Ordering::Greater), "{high} {low}");
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_may_be_the_same() {
        for (a, b) in
            [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("00:1", "1"), ("1-", "1")]
        {
            assert_eq!(compare(a, b), Some(Ordering::Equal), "{a} {b}");
        }
        // Longer than any integer of ours.
        let long = format!("1.{}", "9".repeat(60));
        assert_eq!(compare(&long, "1.2"), Some(Ordering::Greater));
    }

    #[test]
    fn what_is_no_version_is_neither_higher_nor_lower() {
        for bad in ["", "a", ":1", "x:1", "1 2", "1:", "-1", "1.0_2", "1\n", "1.0-a_b", "~1"] {
            assert_eq!(compare(bad, "1"), None, "{bad:?}");
            assert_eq!(compare("1", bad), None, "{bad:?}");
        }
    }
}

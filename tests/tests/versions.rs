//! The order of versions, beside that of Debian's own program.

use std::cmp::Ordering;
use std::process::{Command, Stdio};

use sutler_orders::version::compare;
use sutler_tests::random::Random;
use sutler_tests::skips::skip;

/// Pairs that come from chance, beside those below.
const PAIRS: u64 = 300;

/// What chance puts together: everything that the order treats in a way of its own.
const PIECES: [&str; 16] =
    ["0", "1", "9", "10", "007", "a", "Z", "rc", "~", "~~", "+", ".", "-", "-1", "+deb12u1", "b"];

/// Returns whether dpkg says that `a RELATION b`; `None` if it is not here.
fn dpkg(a: &str, relation: &str, b: &str) -> Option<bool> {
    let mut command = Command::new("dpkg");
    command.args(["--compare-versions", "--", a, relation, b]).stderr(Stdio::null());
    Some(command.status().ok()?.success())
}

// N2
#[test]
fn versions_have_the_order_that_dpkg_gives_them() {
    let mut pairs: Vec<(String, String)> = [
        ("1.0", "1.0-0"),
        ("1.0~rc1", "1.0"),
        ("1:0.9", "2.0"),
        ("5.2.15-2+b8", "5.2.15-2+b13"),
        ("2.36-9+deb12u10", "2.36-9+deb12u9"),
        ("1.0-1~bpo12+1", "1.0-1"),
        ("0:1", "1"),
        ("1.0-1", "1.0-1.1"),
        ("1.0a", "1.0+a"),
        ("1.2.3-4-5", "1.2.3-4-6"),
        ("3.0.0+git20230101", "3.0.0"),
    ]
    .map(|(a, b)| (a.to_owned(), b.to_owned()))
    .into();
    let mut random = Random::of(7);
    let mut version = || {
        let epoch = random.weighted(&[(8, ""), (1, "0:"), (1, "1:")]);
        let pieces = random.below(5) + 1;
        let rest = (0..pieces).map(|_| PIECES[random.below(PIECES.len() as u64) as usize]);
        format!("{epoch}1{}", rest.collect::<String>())
    };
    pairs.extend((0..PAIRS).map(|_| (version(), version())));
    let mut compared = 0;
    for (a, b) in pairs {
        // A revision that is empty is none of Debian's, and of no interest.
        if a.ends_with('-') || b.ends_with('-') {
            continue;
        }
        let Some(ours) = compare(&a, &b) else { panic!("{a} or {b} is no version for us") };
        let relation = match ours {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        match dpkg(&a, relation, &b) {
            Some(agrees) => assert!(agrees, "dpkg does not say {a} {relation} {b}"),
            None => {
                return skip("versions_have_the_order_that_dpkg_gives_them", "there is no dpkg");
            }
        }
        compared += 1;
    }
    assert!(compared > PAIRS / 2, "{compared}");
}

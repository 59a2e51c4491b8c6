//! Whether a path matches a shell-style pattern: section 4.5 of the specification.
//!
//! `*` and `?` stand for characters other than `/`, as they do in a shell, and `[a-z]` or `[!a-z]` for
//! one of a set. A `[` that is never closed is itself. Everything else is itself.
//!
//! Always true: it takes at most the product of both lengths in steps, and no recursion.

/// Returns whether all of `path` matches `pattern`.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut parts = path.split('/');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches_part(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Matches one name. After a `*` that turns out to have taken too little, it takes one character more;
/// only the last `*` ever has to.
fn matches_part(pattern: &str, part: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < part.len() {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, read));
        } else if let Some(next) = step(&pattern, at, part[read]) {
            at = next;
            read += 1;
        } else if let Some((after, taken)) = star {
            at = after;
            read = taken + 1;
            star = Some((after, read));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// Returns where the pattern goes on if what stands at `at` takes `character`.
fn step(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => match set_end(pattern, at) {
            Some(end) => holds(&pattern[at + 1..end], character).then_some(end + 1),
            None => (character == '[').then_some(at + 1),
        },
        literal => (*literal == character).then_some(at + 1),
    }
}

/// Returns where the set that begins at `open` is closed. A `]` right behind its beginning is a member.
fn set_end(pattern: &[char], open: usize) -> Option<usize> {
    let mut first = open + 1;
    if pattern.get(first) == Some(&'!') {
        first += 1;
    }
    let after = pattern.get(first + 1..)?;
    after.iter().position(|character| *character == ']').map(|found| first + 1 + found)
}

fn holds(set: &[char], character: char) -> bool {
    let (is_negated, mut set) = match set {
        ['!', rest @ ..] => (true, rest),
        set => (false, set),
    };
    let mut found = false;
    while let [first, rest @ ..] = set {
        set = match rest {
            ['-', last, rest @ ..] => {
                found |= (*first..=*last).contains(&character);
                rest
            }
            rest => {
                found |= *first == character;
                rest
            }
        };
    }
    found != is_negated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stay_within_one_name() {
        for (pattern, path, expected) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("*", "", true),
            ("*/*", "a/b", true),
            ("releases/*/*.zip", "releases/y/v1.zip", true),
            ("releases/*/*.zip", "releases/y/z/v1.zip", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a?c", "ac", false),
            ("*.py", "x.py", true),
            ("*.py", "x.pyc", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("a.b", "axb", false),
            ("dir/", "dir/", true),
            ("/x", "x", false),
            ("**", "abc", true),
            ("é?", "éé", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_set_takes_one_character() {
        for (pattern, path, expected) in [
            ("v[0-9].deb", "v7.deb", true),
            ("v[0-9].deb", "va.deb", false),
            ("[!a]x", "bx", true),
            ("[!a]x", "ax", false),
            ("[]a]", "]", true),
            ("[!]a]", "]", false),
            ("[a-]", "-", true),
            ("[ab", "[ab", true),
            ("[ab", "a", false),
            ("[", "[", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"a".repeat(199)));
        assert!(!matches(&(pattern.clone() + "b"), &"a".repeat(4000)));
        assert!(matches(&pattern, &"a".repeat(200)));
    }

    proptest! {
        #[test]
        fn every_path_matches_itself_and_its_question_marks(path in "[a-z./]{0,20}") {
            prop_assert!(matches(&path, &path));
            let marks: String =
                path.chars().map(|character| if character == '/' { '/' } else { '?' }).collect();
            prop_assert!(matches(&marks, &path));
            let stars = vec!["*"; path.split('/').count()].join("/");
            prop_assert!(matches(&stars, &path));
        }
    }
}

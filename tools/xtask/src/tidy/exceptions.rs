//! What is longer than the house allows, for now: a list that may only shrink.
//!
//! An entry holds the exact number of lines. What grew past its entry, shrank below it, or fits
//! the house by now is a finding, so each change to such a place brings its entry down or out.

use std::collections::BTreeMap;

use super::Finding;

/// The committed list, from the workspace's root.
pub(super) const FILE: &str = "tools/xtask/tidy-exceptions.txt";

/// What an entry excuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    Function,
}

/// The list, with a note of which entries were of use.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    entries: BTreeMap<(Kind, String), Entry>,
}

#[derive(Debug)]
struct Entry {
    lines: usize,
    used: bool,
}

impl Kind {
    /// Lines that the house allows.
    pub(super) const fn lines_max(self) -> usize {
        match self {
            Self::File => 800,
            Self::Function => 70,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Function => "function",
        }
    }
}

impl Exceptions {
    /// Reads one entry a line, `file PATH LINES` or `function PATH::NAME LINES`; `#` begins a note.
    pub(super) fn parse(text: &str, findings: &mut Vec<Finding>) -> Self {
        let mut exceptions = Self::default();
        for (position, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let entry = match words[..] {
                ["file", place, lines] => {
                    lines.parse().ok().map(|lines| (Kind::File, place, lines))
                }
                ["function", place, lines] => {
                    lines.parse().ok().map(|lines| (Kind::Function, place, lines))
                }
                _ => None,
            };
            match entry {
                Some((kind, place, lines)) if lines > kind.lines_max() => {
                    let entry = Entry { lines, used: false };
                    exceptions.entries.insert((kind, place.to_owned()), entry);
                }
                _ => findings.push(Finding::at(FILE, position + 1, "is no exception")),
            }
        }
        exceptions
    }

    /// Returns what is wrong with a place of `lines` lines, if the list does not excuse it.
    pub(super) fn check(&mut self, kind: Kind, place: &str, lines: usize) -> Option<String> {
        if lines <= kind.lines_max() {
            return None;
        }
        let Some(entry) = self.entries.get_mut(&(kind, place.to_owned())) else {
            let (word, most) = (kind.word(), kind.lines_max());
            return Some(format!("a {word} of {lines} lines, where {most} are the most"));
        };
        entry.used = true;
        match lines.cmp(&entry.lines) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => {
                Some(format!("has shrunk to {lines} lines: lower its entry in {FILE}"))
            }
            std::cmp::Ordering::Greater => {
                Some(format!("has grown to {lines} lines, {} were excused", entry.lines))
            }
        }
    }

    /// Returns a finding for each entry that excused nothing.
    pub(super) fn unused(&self) -> Vec<Finding> {
        let unused = self.entries.iter().filter(|(_, entry)| !entry.used);
        unused
            .map(|((kind, place), _)| {
                let fault = format!("is no longer needed in {FILE} ({})", kind.word());
                Finding::new(place, fault)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_excuses_exactly_its_lines() {
        let mut findings = Vec::new();
        let mut list = Exceptions::parse("function a.rs::f 80 # why\n", &mut findings);
        assert_eq!(findings, []);
        assert_eq!(list.check(Kind::Function, "a.rs::g", 70), None);
        assert!(list.check(Kind::Function, "a.rs::g", 71).unwrap().contains("71 lines"));
        assert_eq!(list.unused().len(), 1);
        assert_eq!(list.check(Kind::Function, "a.rs::f", 80), None);
        assert!(list.check(Kind::Function, "a.rs::f", 79).unwrap().contains("shrunk"));
        assert!(list.check(Kind::Function, "a.rs::f", 81).unwrap().contains("grown"));
        assert_eq!(list.unused(), []);
    }

    #[test]
    fn an_entry_that_fits_the_house_or_says_nothing_is_refused() {
        for line in ["file a.rs 800", "function a.rs::f 70", "file a.rs", "folder a 900"] {
            let mut findings = Vec::new();
            Exceptions::parse(line, &mut findings);
            assert_eq!(findings.len(), 1, "{line}");
        }
    }
}

//! What lies at the top level, and that the rows and threats which tests name exist.

use super::Finding;
use super::source::Source;

/// The six folders and the files beside them; dot-files come on top.
const TOP: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "cache",
    "node",
    "protocol",
    "tests",
    "tools",
];

/// What cargo builds into: ignored by git, so never part of the house.
const BUILD_OUTPUT: &str = "target";

/// The tests that may skip themselves under CI, from the workspace's root.
pub(super) const SKIPS: &str = "tests/skips.txt";

/// The letter that a promise or threat is named by, and the highest number that has one.
const NUMBERED: [(char, u32); 4] = [('R', 164), ('D', 9), ('N', 11), ('T', 32)];

pub(super) fn top_level(names: &[String]) -> Vec<Finding> {
    names
        .iter()
        .filter(|name| !name.starts_with('.') && *name != BUILD_OUTPUT)
        .filter(|name| !TOP.contains(&name.as_str()))
        .map(|name| Finding::new(name, "does not belong at the top level"))
        .collect()
}

/// Finds entries of the list of skips that excuse no test there is, or give no reason.
pub(super) fn skips(list: &str, sources: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, line) in list.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default();
        let (name, reason) = entry.split_once(':').unwrap_or((entry, ""));
        let (name, reason) = (name.trim(), reason.trim());
        let function = format!("fn {name}(");
        if name.is_empty() && reason.is_empty() {
            continue;
        }
        if name.is_empty() || !sources.iter().any(|(_, text)| text.contains(&function)) {
            findings.push(Finding::at(SKIPS, position + 1, format!("there is no test {name:?}")));
        }
        if reason.is_empty() {
            findings.push(Finding::at(SKIPS, position + 1, "a skip has its reason"));
        }
    }
    findings
}

/// Finds comments that begin with the number of a row or threat that does not exist.
pub(super) fn names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, line) in source.text.lines().enumerate() {
        // A space behind it tells a comment from the `//` of a URL.
        let Some((_, comment)) = line.split_once("// ") else { continue };
        if comment.parse::<u32>().is_ok() {
            let fault = format!("a row is named with its letter: R{comment}");
            findings.push(Finding::at(source.path, position + 1, fault));
        }
        for word in comment.split([',', ' ', ':', '.', ';']).take_while(|word| is_numbered(word)) {
            if !exists(word) {
                let fault = format!("{word} is neither a requirement nor a threat");
                findings.push(Finding::at(source.path, position + 1, fault));
            }
        }
    }
    findings
}

fn is_numbered(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|first| NUMBERED.iter().any(|(letter, _)| *letter == first))
        && letters.as_str().starts_with(|digit: char| digit.is_ascii_digit())
}

fn exists(word: &str) -> bool {
    NUMBERED.iter().any(|(letter, last)| {
        word.strip_prefix(*letter).is_some_and(|number| {
            !number.starts_with('0')
                && number.parse::<u32>().is_ok_and(|number| (1..=*last).contains(&number))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_six_folders_and_their_files_lie_at_the_top() {
        let names = ["Cargo.toml", ".gitignore", "target", "protocol", "src", "notes.md"];
        let found = top_level(&names.map(str::to_owned));
        let places: Vec<&str> = found.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["src", "notes.md"]);
    }

    #[test]
    fn a_skip_is_of_a_test_that_exists_and_has_its_reason() {
        let sources = [("a.rs".to_owned(), "#[test]\nfn slow() {}\n".to_owned())];
        let list = "# a note\nslow: needs a second machine\nslow:\nslo: why\n\n";
        let places: Vec<String> =
            skips(list, &sources).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["tests/skips.txt:3", "tests/skips.txt:4"]);
    }

    #[test]
    fn a_test_names_rows_and_threats_that_exist() {
        let text = "//! Tests.\n// R34, T7: killed\n// D6\n// N12\n#[test] // T033.\nfn f() {}\n// R165 N6\n// Rows\n// 155\n";
        let source = Source::parse("tests/tests/a.rs", text).unwrap();
        let places: Vec<String> = names(&source).into_iter().map(|finding| finding.place).collect();
        let lines = [4, 5, 7, 9].map(|line| format!("tests/tests/a.rs:{line}"));
        assert_eq!(places, lines);
    }
}

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
    fn a_test_names_rows_and_threats_that_exist() {
        let text = "//! Tests.\n// R34, T7: killed\n// D6\n// N12\n#[test] // T033.\nfn f() {}\n// R165 N6\n// Rows\n// 155\n";
        let source = Source::parse("tests/tests/a.rs", text).unwrap();
        let places: Vec<String> = names(&source).into_iter().map(|finding| finding.place).collect();
        let lines = [4, 5, 7, 9].map(|line| format!("tests/tests/a.rs:{line}"));
        assert_eq!(places, lines);
    }
}

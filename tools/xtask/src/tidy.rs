//! The house rules that no compiler knows, as one list of findings.
//!
//! The rules are pure: they take the text of the house and give back findings, so that each has a
//! test of what it refuses. Only [`House::read`] touches the disk.
//!
//! | Rule | Room |
//! |---|---|
//! | which crate may use which, and what the pure ones may not touch | [`arrows`] |
//! | headers, sizes, words that must not stay | [`source`] |
//! | which functions and files are longer, for now | [`exceptions`] |
//! | what lies at the top, and how rows and threats are named | [`layout`] |

mod arrows;
mod exceptions;
mod layout;
mod source;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;

use exceptions::Exceptions;
use source::Source;

/// One breach of one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path, and the line where there is one.
    place: String,
    /// What is wrong there.
    fault: String,
}

/// All that the rules look at, in memory.
#[derive(Default)]
struct House {
    /// Names at the top level.
    top: Vec<String>,
    /// Path and text of each `Cargo.toml` below the top.
    manifests: Vec<(String, String)>,
    /// Path and text of each Rust file.
    sources: Vec<(String, String)>,
    /// The text of [`exceptions::FILE`].
    exceptions: String,
    /// The text of [`layout::SKIPS`].
    skips: String,
}

/// Returns every breach of the rules in the workspace at `root`, in order.
///
/// # Errors
///
/// If a file of the workspace cannot be read.
pub(crate) fn findings(root: &Path) -> anyhow::Result<Vec<Finding>> {
    Ok(House::read(root)?.findings())
}

impl House {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let list = |path: &str| {
            fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))
        };
        let mut house = Self {
            exceptions: list(exceptions::FILE)?,
            skips: list(layout::SKIPS)?,
            ..Self::default()
        };
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !name.starts_with('.') && name != "target" {
                house.read_folder(&entry.path(), &name)?;
            }
            house.top.push(name);
        }
        house.top.sort();
        Ok(house)
    }

    fn read_folder(&mut self, folder: &Path, place: &str) -> anyhow::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .with_context(|| format!("read {place}"))?
            .collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let place = format!("{place}/{name}");
            let read = || fs::read_to_string(entry.path()).with_context(|| format!("read {place}"));
            if entry.file_type()?.is_dir() {
                if name != "target" {
                    self.read_folder(&entry.path(), &place)?;
                }
            } else if name == "Cargo.toml" {
                self.manifests.push((place.clone(), read()?));
            } else if Path::new(&name).extension().is_some_and(|extension| extension == "rs") {
                self.sources.push((place.clone(), read()?));
            }
        }
        Ok(())
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = layout::top_level(&self.top);
        let mut exceptions = Exceptions::parse(&self.exceptions, &mut findings);
        for (path, text) in &self.manifests {
            findings.extend(arrows::manifest(path, text));
        }
        for (path, text) in &self.sources {
            match Source::parse(path, text) {
                Ok(source) => {
                    findings.extend(source.faults(&mut exceptions));
                    findings.extend(arrows::imports(&source));
                    findings.extend(layout::names(&source));
                }
                Err(finding) => findings.push(finding),
            }
        }
        if self.sources.is_empty() || self.manifests.is_empty() {
            findings.push(Finding::new("the workspace", "no source was found: tidy saw nothing"));
        }
        findings.extend(layout::skips(&self.skips, &self.sources));
        findings.extend(exceptions.unused());
        findings.sort();
        findings
    }
}

impl Finding {
    fn new(place: impl Into<String>, fault: impl Into<String>) -> Self {
        Self { place: place.into(), fault: fault.into() }
    }

    fn at(path: &str, line: usize, fault: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), fault)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let findings = findings(root).unwrap();
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }

    #[test]
    fn a_house_of_every_fault_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("NOTES.txt", "");
        write(exceptions::FILE, "file cache/src/gone.rs 900\n");
        write(layout::SKIPS, "# a note\ngone: it was slow\n");
        write(
            "cache/Cargo.toml",
            "[package]\nname = \"sutler-cache\"\n[dependencies]\ntokio = \"1\"\n",
        );
        write("cache/src/lib.rs", "fn f() { None::<u8>.unwrap(); }\n//\u{20}T99: no such threat\n");
        write("cache/src/broken.rs", "//! Broken.\nfn f( {\n");
        let said: Vec<String> =
            findings(folder.path()).unwrap().iter().map(ToString::to_string).collect();
        for (place, fault) in [
            ("NOTES.txt", "top level"),
            ("cache/src/gone.rs", "no longer needed"),
            ("tests/skips.txt:2", "no test"),
            ("cache/Cargo.toml", "tokio"),
            ("cache/src/lib.rs:1", "`//!`"),
            ("cache/src/lib.rs:1", "unwrap"),
            ("cache/src/lib.rs:2", "T99"),
            ("cache/src/broken.rs", "not Rust"),
        ] {
            let found = said.iter().any(|line| line.starts_with(place) && line.contains(fault));
            assert!(found, "{place}: {fault} is not among\n{}", said.join("\n"));
        }
    }

    #[test]
    fn an_empty_folder_is_a_finding_and_no_success() {
        let findings = House::default().findings();
        assert!(findings.iter().any(|finding| finding.fault.contains("saw nothing")));
    }
}

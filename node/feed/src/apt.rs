//! Which feeds has this machine's own apt, and whose keys sign them?
//!
//! apt is asked (`apt-get indextargets`, `apt-config`), because its configuration has many places and
//! its own rules. The one thing that it does not tell is a source's `Signed-By`; it tells in which
//! file and entry the source stands, and only that option is read there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::deb822::{Limits, StanzaError, Stanzas};
use crate::keyring::{Keyring, KeyringError};
use crate::program::{ProgramError, run};

/// How long one question may take: apt reads all its sources, on a small machine.
const TIME_MAX: Duration = Duration::from_mins(1);

/// Bytes of an answer, at most: some 1,500 for each index of each source.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a file of sources, at most; one with inline keys has some 10 kB each.
const SOURCES_BYTES_MAX: u64 = 4 << 20;

/// The apt of this machine, or one that lives apart from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apt {
    config: Option<PathBuf>,
}

/// One suite that apt follows: an archive, the folder of its Release, and who signs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    /// The archive's root, a URL that ends with a slash; the paths of packages are below it.
    pub archive: String,
    /// The folder of the Release, a URL that ends with a slash; the names of indexes are below it.
    pub release: String,
    /// Whose signature counts.
    pub signed_by: SignedBy,
}

/// Whose signature apt believes for a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignedBy {
    /// Whoever is in `trusted.gpg` and `trusted.gpg.d`: the source names nobody.
    Trusted,
    /// Keyrings in these files, or the keys in `trusted.gpg.d` with these fingerprints; as the source
    /// lists them.
    Named(Vec<String>),
    /// Keys that stand in the source itself, armored.
    Inline(String),
    /// apt does not say where the source stands, so nobody's signature counts.
    Unknown,
}

/// Why apt's feeds are not known.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// This machine has no apt.
    #[error("this machine has no {program}")]
    Absent {
        /// The program.
        program: &'static str,
    },
    /// It could not be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It did not answer in time, or answered without end.
    #[error("{program} did not answer within {} s", TIME_MAX.as_secs())]
    Silent {
        /// The program.
        program: &'static str,
    },
    /// It failed: its configuration is broken, mostly.
    #[error("{program} failed")]
    Failed {
        /// The program.
        program: &'static str,
    },
    /// Its answer is no stanzas.
    #[error("read the answer of apt-get indextargets")]
    Answer(#[source] StanzaError),
    /// A file of sources cannot be read.
    #[error("read the sources in {}", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of sources has no such entry, or it cannot be read.
    #[error("find entry {number} in the sources in {}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry, from 1: a stanza, or a line.
        number: usize,
    },
}

/// Why there is no keyring for a feed.
#[derive(Debug, thiserror::Error)]
pub enum FeedKeyringError {
    /// Where apt keeps its keyrings is not known.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The folder of trusted keyrings cannot be listed.
    #[error("list the keyrings in {}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The source names no keyring, and the machine trusts none.
    #[error("no keyring is named, and none is trusted")]
    None,
    /// Which keyring counts cannot be known ([`SignedBy::Unknown`]).
    #[error("apt does not say which keyring counts")]
    Unknown,
}

impl Apt {
    /// Returns the machine's own.
    pub fn of_this_machine() -> Self {
        Self::default()
    }

    /// Returns the one that this configuration file describes (`APT_CONFIG`).
    pub fn with_config(config: impl Into<PathBuf>) -> Self {
        Self { config: Some(config.into()) }
    }

    /// Returns the suites that it follows over HTTP and HTTPS, each once, in order. They need not have
    /// been fetched before.
    ///
    /// Blocks while apt reads its sources.
    ///
    /// # Errors
    ///
    /// [`AptError`] if apt is not here or does not answer, or a file of sources cannot be read.
    pub fn feeds(&self) -> Result<Vec<Feed>, AptError> {
        let answer = self.ask("apt-get", &["indextargets", "--no-release-info"])?;
        let mut files = BTreeMap::new();
        let mut feeds = Vec::new();
        for target in parse_targets(&answer).map_err(AptError::Answer)? {
            let signed_by = match &target.entry {
                None => SignedBy::Unknown,
                Some((path, number)) => {
                    let text = match files.entry(path.clone()) {
                        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(read_sources(path)?)
                        }
                    };
                    signed_by(path, text, *number)
                        .ok_or_else(|| AptError::Entry { path: path.clone(), number: *number })?
                }
            };
            feeds.push(Feed { archive: target.archive, release: target.release, signed_by });
        }
        feeds.sort();
        feeds.dedup();
        Ok(feeds)
    }

    /// Returns the keyring that counts for a feed, and no more than that.
    ///
    /// Blocks while it is read.
    ///
    /// # Errors
    ///
    /// [`FeedKeyringError`] if there is none.
    pub fn keyring(&self, feed: &Feed) -> Result<Keyring, FeedKeyringError> {
        match &feed.signed_by {
            SignedBy::Inline(armored) => Ok(Keyring::parse(armored.as_bytes())?),
            SignedBy::Trusted => self.trusted(),
            SignedBy::Unknown => Err(FeedKeyringError::Unknown),
            SignedBy::Named(names) => {
                let (files, keys): (Vec<_>, Vec<_>) =
                    names.iter().partition(|name| name.starts_with('/'));
                if files.is_empty() {
                    return Ok(self.trusted()?.only(keys.into_iter().map(String::as_str))?);
                }
                let read = joined(files.into_iter().map(Path::new))?;
                let keyring = read.ok_or(FeedKeyringError::None)?;
                // Both: those keys of those files.
                if keys.is_empty() {
                    return Ok(keyring);
                }
                Ok(keyring.only(keys.into_iter().map(String::as_str))?)
            }
        }
    }

    /// Returns the keyring of all that the machine trusts.
    fn trusted(&self) -> Result<Keyring, FeedKeyringError> {
        let arguments =
            ["shell", "FILE", "Dir::Etc::trusted/f", "FOLDER", "Dir::Etc::trustedparts/d"];
        let (file, folder) = parse_shell(&self.ask("apt-config", &arguments)?);
        let mut paths = Vec::new();
        if file.is_file() {
            paths.push(file);
        }
        let fault = |source| FeedKeyringError::List { path: folder.clone(), source };
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(fault)?.path();
                    if path.extension().is_some_and(|ending| ending == "gpg" || ending == "asc") {
                        paths.push(path);
                    }
                }
            }
        }
        paths.sort();
        joined(paths.iter().map(PathBuf::as_path))?.ok_or(FeedKeyringError::None)
    }

    fn ask(&self, program: &'static str, arguments: &[&str]) -> Result<String, AptError> {
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(config) = &self.config {
            command.env("APT_CONFIG", config);
        }
        let (status, said) =
            run(&mut command, TIME_MAX, ANSWER_BYTES_MAX).map_err(|fault| match fault {
                ProgramError::Absent => AptError::Absent { program },
                ProgramError::Run(source) => AptError::Run { program, source },
                ProgramError::Silent | ProgramError::Loud => AptError::Silent { program },
            })?;
        if !status.success() {
            return Err(AptError::Failed { program });
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// Reads keyrings into one; `None` if there are no paths.
fn joined<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<Option<Keyring>, KeyringError> {
    let mut whole: Option<Keyring> = None;
    for path in paths {
        let one = Keyring::read(path)?;
        whole = Some(match whole {
            None => one,
            Some(whole) => whole.and(&one)?,
        });
    }
    Ok(whole)
}

/// What apt says of one index of one source.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    archive: String,
    release: String,
    /// The file and the entry in it, from 1, where the source stands.
    entry: Option<(PathBuf, usize)>,
}

fn parse_targets(answer: &str) -> Result<Vec<Target>, StanzaError> {
    let mut stanzas = Stanzas::new(answer.as_bytes(), Limits::INDEX);
    let mut targets = Vec::new();
    while let Some(stanza) = stanzas.next_stanza()? {
        let (Some(uri), Some(name), Some(archive)) =
            (stanza.text("URI"), stanza.text("MetaKey"), stanza.text("Repo-URI"))
        else {
            continue;
        };
        let is_http = uri.starts_with("http://") || uri.starts_with("https://");
        let Some(release) = uri.strip_suffix(name).filter(|_| is_http) else { continue };
        let entry = stanza.text("Sourcesentry").and_then(|entry| {
            let (path, number) = entry.rsplit_once(':')?;
            Some((PathBuf::from(path), number.parse().ok()?))
        });
        let target = Target { archive: archive.to_owned(), release: release.to_owned(), entry };
        if targets.last() != Some(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

fn read_sources(path: &Path) -> Result<String, AptError> {
    let fault = |source| AptError::Sources { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fault)?;
    let mut file = io::Read::take(file, SOURCES_BYTES_MAX);
    io::Read::read_to_end(&mut file, &mut bytes).map_err(fault)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the `Signed-By` of an entry: a stanza of a `.sources` file, a line of any other. `None` if
/// there is no such entry, which is not the same as one that names nobody.
fn signed_by(path: &Path, text: &str, number: usize) -> Option<SignedBy> {
    let value = if path.extension().is_some_and(|ending| ending == "sources") {
        in_stanza(text, number)?
    } else {
        in_line(text.lines().nth(number.checked_sub(1)?)?).unwrap_or_default()
    };
    if value.contains("-----BEGIN PGP") {
        return Some(SignedBy::Inline(value));
    }
    let words = value.split(|c: char| c == ',' || c.is_ascii_whitespace());
    let names: Vec<String> = words.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(if names.is_empty() { SignedBy::Trusted } else { SignedBy::Named(names) })
}

/// Returns the field's value, empty where it is absent; `None` if there is no such stanza.
fn in_stanza(text: &str, number: usize) -> Option<String> {
    // Comments stand between fields there, and `.` for an empty line within one.
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let plain: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut stanzas = Stanzas::new(plain.as_bytes(), Limits::INDEX);
    for _ in 0..number.checked_sub(1)? {
        stanzas.next_stanza().ok()??;
    }
    let stanza = stanzas.next_stanza().ok()??;
    let value = std::str::from_utf8(stanza.field("Signed-By").unwrap_or_default()).ok()?;
    let lines = value.lines().map(|line| match line.trim() {
        "." => "",
        line => line,
    });
    Some(lines.flat_map(|line| [line, "\n"]).collect::<String>().trim().to_owned())
}

/// Reads `deb [… signed-by=FILE,… …] URI …`.
fn in_line(line: &str) -> Option<String> {
    let options = line.split_once('[')?.1.split_once(']')?.0;
    let value = options.split_ascii_whitespace().find_map(|option| {
        let (name, value) = option.split_once('=')?;
        name.eq_ignore_ascii_case("signed-by").then_some(value)
    })?;
    Some(value.to_owned())
}

/// Reads `FILE='…'` and `FOLDER='…'`.
fn parse_shell(answer: &str) -> (PathBuf, PathBuf) {
    let value = |name: &str| {
        let value = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix("='")?.strip_suffix('\''));
        PathBuf::from(value.unwrap_or_default().replace("'\\''", "'"))
    };
    (value("FILE"), value("FOLDER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
MetaKey: main/binary-amd64/Packages
URI: http://deb.debian.org/debian/dists/bookworm/main/binary-amd64/Packages
Repo-URI: http://deb.debian.org/debian/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:2

MetaKey: main/i18n/Translation-en
URI: http://deb.debian.org/debian/dists/bookworm/main/i18n/Translation-en
Repo-URI: http://deb.debian.org/debian/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:2

MetaKey: Packages
URI: file:/srv/flat/Packages
Repo-URI: file:/srv/flat/

MetaKey: Packages
URI: https://flat.example/repo/./Packages
Repo-URI: https://flat.example/repo/
";

    const SOURCES: &str = "\
# The first
Types: deb
URIs: http://a.example

Types: deb
# between
URIs: http://b.example
Signed-By: /usr/share/keyrings/b.gpg /c.asc
 /d.gpg

Types: deb
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AQID
 -----END PGP PUBLIC KEY BLOCK-----
";

    #[test]
    fn each_suite_over_http_is_told_once() {
        let targets = parse_targets(TARGETS).unwrap();
        let releases: Vec<&str> = targets.iter().map(|target| &*target.release).collect();
        assert_eq!(
            releases,
            ["http://deb.debian.org/debian/dists/bookworm/", "https://flat.example/repo/./"]
        );
        assert_eq!(targets[0].archive, "http://deb.debian.org/debian/");
        assert_eq!(
            targets[0].entry,
            Some((PathBuf::from("/etc/apt/sources.list.d/debian.sources"), 2))
        );
        assert_eq!(targets[1].entry, None);
    }

    #[test]
    fn signed_by_is_that_of_the_entry() {
        let of = |number| signed_by(Path::new("x.sources"), SOURCES, number);
        let named = ["/usr/share/keyrings/b.gpg", "/c.asc", "/d.gpg"].map(str::to_owned);
        let key =
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAQID\n-----END PGP PUBLIC KEY BLOCK-----";
        assert_eq!(of(1), Some(SignedBy::Trusted));
        assert_eq!(of(2), Some(SignedBy::Named(named.to_vec())));
        assert_eq!(of(3), Some(SignedBy::Inline(key.to_owned())));
        assert_eq!((of(4), of(0)), (None, None), "not everybody who is trusted");
        let list = "# x\ndeb [arch=amd64 signed-by=/a.gpg,/b.gpg] http://a.example x main\n";
        let of = |number| signed_by(Path::new("x.list"), list, number);
        let named = ["/a.gpg", "/b.gpg"].map(str::to_owned);
        assert_eq!(of(1), Some(SignedBy::Trusted));
        assert_eq!(of(2), Some(SignedBy::Named(named.to_vec())));
        assert_eq!((of(3), of(0)), (None, None), "not everybody who is trusted");
    }

    #[test]
    fn the_places_of_trusted_keys_are_unquoted() {
        let answer = "FILE='/etc/apt/trusted.gpg'\nFOLDER='/it'\\''s/'\n";
        assert_eq!(
            parse_shell(answer),
            (PathBuf::from("/etc/apt/trusted.gpg"), PathBuf::from("/it's/"))
        );
    }
}

//! Which packages would this machine's own apt install now, and where are they?
//!
//! apt is asked, its files are not read: their compression and layout are its own affair. Its
//! answers are text for programs (`-s`, `show`, `--print-uris`), read here by pure parsers. What
//! they name is data from outside: a package name that could be an option is never passed on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Stdio;
use std::time::Duration;

use sutler_protocol::Sha256Digest;
use tokio::process::Command;
use url::Url;

/// How long one question to apt may take: it reads lists of 60,000 packages on a small machine.
const ASK_MAX: Duration = Duration::from_mins(1);

/// Packages named in one question, so that an argument list never grows too long.
const NAMES_MAX: usize = 200;

/// Packages taken, at most: the table is for people.
const PACKAGES_MAX: usize = 200;

/// A package that apt knows where to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// The file's name, as in the pool.
    pub(crate) file: String,
    /// Where it is.
    pub(crate) url: Url,
    /// Its length, in bytes.
    pub(crate) bytes: u64,
    /// What its vendor says it hashes to.
    pub(crate) sha256: Sha256Digest,
}

/// Why these packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// `apt-get dist-upgrade` would install them.
    Upgrades,
    /// Nothing is to be upgraded; these are installed already.
    Installed,
}

/// Why apt gave no packages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AptError {
    /// There is no such program: this is no Debian.
    #[error("this machine has no {program}")]
    Absent { program: &'static str },
    /// It could not be run.
    #[error("run {program}")]
    Run { program: &'static str, source: io::Error },
    /// It took too long.
    #[error("{program} said nothing for {} s", ASK_MAX.as_secs())]
    Silent { program: &'static str },
    /// It failed.
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
}

/// Returns packages of together at most `bytes_max` bytes: what an upgrade would install, or else
/// what is installed already. Empty if apt knows no source for any.
///
/// # Errors
///
/// [`AptError`] if apt is not here or does not answer.
///
/// # Cancel safety
///
/// Dropping the future ends the program that was asked.
pub(crate) async fn packages(bytes_max: u64) -> Result<(Choice, Vec<Package>), AptError> {
    let plan = ask("apt-get", &["-s", "-o", "Debug::NoLocking=1", "dist-upgrade"], &[]).await?;
    let upgrades = located(&parse_plan(&plan), bytes_max).await?;
    if !upgrades.is_empty() {
        return Ok((Choice::Upgrades, upgrades));
    }
    let format = "--showformat=${db:Status-Abbrev} ${binary:Package}\\n";
    let names = parse_installed(&ask("dpkg-query", &["--show", format], &[]).await?);
    let mut candidates = Vec::new();
    for names in names.chunks(NAMES_MAX) {
        let shown = ask("apt-cache", &["show", "--no-all-versions"], names).await?;
        candidates.extend(parse_show(&shown).iter().map(Stanza::candidate));
        // Enough to choose from; a machine has thousands.
        if candidates.len() > 4 * PACKAGES_MAX {
            break;
        }
    }
    Ok((Choice::Installed, located(&candidates, bytes_max).await?))
}

/// Returns the proxy that apt itself uses for HTTP, if one is set.
///
/// # Errors
///
/// [`AptError`] if apt is not here or does not answer.
pub(crate) async fn proxy() -> Result<Option<String>, AptError> {
    Ok(parse_proxy(&ask("apt-config", &["dump", "Acquire::http::Proxy"], &[]).await?))
}

/// Finds digest and URL of `names` (`PACKAGE=VERSION`), as many as fit `bytes_max`.
async fn located(names: &[String], bytes_max: u64) -> Result<Vec<Package>, AptError> {
    let mut stanzas = Vec::new();
    for names in names.chunks(NAMES_MAX) {
        stanzas.extend(parse_show(&ask("apt-cache", &["show"], names).await?));
    }
    let chosen = choose(names, &stanzas, bytes_max);
    let names: Vec<String> = chosen.iter().map(|stanza| stanza.candidate()).collect();
    let mut urls = BTreeMap::new();
    for names in names.chunks(NAMES_MAX) {
        urls.extend(urls_of(names).await?);
    }
    let package = |stanza: &&Stanza| {
        let url = urls.iter().find(|(path, _)| stanza.lies_at(path))?.1.clone();
        let file = stanza.path.rsplit('/').next().unwrap_or(&stanza.path).to_owned();
        Some(Package { file, url, bytes: stanza.bytes, sha256: stanza.sha256 })
    };
    Ok(chosen.iter().filter_map(package).collect())
}

/// Asks where packages are. One that cannot be had fails the whole question, so it is then asked
/// again in halves.
async fn urls_of(names: &[String]) -> Result<Vec<(String, Url)>, AptError> {
    let mut found = Vec::new();
    let mut open = vec![names];
    while let Some(names) = open.pop() {
        match ask("apt-get", &["--print-uris", "download"], names).await {
            Ok(text) => found.extend(parse_uris(&text)),
            Err(AptError::Failed { .. }) if names.len() > 1 => {
                let (left, right) = names.split_at(names.len() / 2);
                open.extend([right, left]);
            }
            Err(AptError::Failed { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

async fn ask(program: &'static str, args: &[&str], names: &[String]) -> Result<String, AptError> {
    let mut command = Command::new(program);
    command.args(args).args(names).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ASK_MAX, command.output())
        .await
        .map_err(|_| AptError::Silent { program })?
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => AptError::Absent { program },
            _ => AptError::Run { program, source },
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it does not say why").to_owned();
        return Err(AptError::Failed { program, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One stanza of `apt-cache show` that names a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stanza {
    package: String,
    version: String,
    architecture: String,
    /// Below the archive's root.
    path: String,
    bytes: u64,
    sha256: Sha256Digest,
}

impl Stanza {
    fn candidate(&self) -> String {
        format!("{}={}", self.package, self.version)
    }

    /// Returns whether `name`, as a plan has it, is this package and version.
    fn is(&self, name: &str) -> bool {
        let Some((package, version)) = name.split_once('=') else { return false };
        let (package, architecture) = package.split_once(':').unwrap_or((package, ""));
        package == self.package
            && version == self.version
            && (architecture.is_empty() || architecture == self.architecture)
    }

    /// Returns whether the decoded path of a URL ends with this file's.
    fn lies_at(&self, url_path: &str) -> bool {
        url_path.strip_suffix(&self.path).is_some_and(|root| root.ends_with('/'))
    }
}

/// Takes each name's stanza, as long as all together fit.
fn choose<'s>(names: &[String], stanzas: &'s [Stanza], bytes_max: u64) -> Vec<&'s Stanza> {
    let mut left = bytes_max;
    let mut seen = BTreeSet::new();
    let mut chosen = Vec::new();
    for name in names {
        let Some(stanza) = stanzas.iter().find(|stanza| stanza.is(name)) else { continue };
        if chosen.len() < PACKAGES_MAX && stanza.bytes <= left && seen.insert(&stanza.path) {
            left -= stanza.bytes;
            chosen.push(stanza);
        }
    }
    chosen
}

/// Reads the `Inst` lines of a simulated upgrade: `Inst NAME [OLD] (NEW ORIGIN [ARCH]) …`.
fn parse_plan(text: &str) -> Vec<String> {
    let candidate = |line: &str| {
        let rest = line.strip_prefix("Inst ")?;
        let name = rest.split(' ').next()?;
        let version = rest.split_once('(')?.1.split(' ').next()?;
        (is_name(name) && is_version(version)).then(|| format!("{name}={version}"))
    };
    text.lines().filter_map(candidate).collect()
}

/// Reads `STATUS NAME` lines; installed ones only.
fn parse_installed(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let name = line.strip_prefix("ii ")?.trim();
        is_name(name).then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Reads the stanzas of `apt-cache show`; those without a file or a SHA-256 are left out.
fn parse_show(text: &str) -> Vec<Stanza> {
    let stanza = |text: &str| {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let stanza = Stanza {
            package: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            architecture: field("Architecture").unwrap_or_default().to_owned(),
            path: field("Filename")?.trim_start_matches("./").to_owned(),
            bytes: field("Size")?.parse().ok()?,
            sha256: Sha256Digest::from_hex(field("SHA256")?).ok()?,
        };
        let sound = is_name(&stanza.package) && is_version(&stanza.version);
        (sound && !stanza.path.is_empty()).then_some(stanza)
    };
    text.split("\n\n").filter_map(stanza).collect()
}

/// Reads `'URL' FILE BYTES DIGEST` lines, as decoded path and URL. Other lines, and URLs that are
/// not HTTP, are left out.
fn parse_uris(text: &str) -> Vec<(String, Url)> {
    let uri = |line: &str| {
        let url = Url::parse(line.strip_prefix('\'')?.split('\'').next()?).ok()?;
        let http = matches!(url.scheme(), "http" | "https");
        http.then(|| (decoded(url.path()), url))
    };
    text.lines().filter_map(uri).collect()
}

/// Reads `Acquire::http::Proxy "URL";`. `DIRECT` and nothing both mean none.
fn parse_proxy(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("Acquire::http::Proxy \""))?;
    let value = value.split('"').next()?;
    (!value.is_empty() && value != "DIRECT").then(|| value.to_owned())
}

/// Returns a URL's path with its `%xx` decoded; what is no UTF-8 then equals no path.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Debian Policy 5.6.1, with an architecture behind a colon where there are several.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good)
}

/// Debian Policy 5.6.12.
fn is_version(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || ".+-~:".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "\
Reading package lists...
The following packages will be upgraded:
  bash login
Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.14/oldstable [amd64])
Inst login [1:4.13] (1:4.13+dfsg1-1+deb12u2 Debian:12.14/oldstable [amd64]) [perl:amd64 ]
Inst libnew (2.0 Debian:12 [amd64])
Inst --evil [1] (2 Debian:12 [amd64])
Conf bash (5.2.15-2+b13 Debian:12.14/oldstable [amd64])
";

    const SHOW: &str = "\
Package: bash
Version: 5.2.15-2+b13
Architecture: amd64
Description: GNU Bourne Again SHell
 Version: 9 is not the version
Filename: pool/main/b/bash/bash_5.2.15-2+b13_amd64.deb
Size: 1490652
SHA256: 82130bb6a560cd2a7234d8018baf73f188f5dd56413d5aa0accc987b2197a6a1

Package: login
Version: 1:4.13+dfsg1-1+deb12u2
Architecture: amd64
Filename: pool/main/s/shadow/login_4.13+dfsg1-1+deb12u2_amd64.deb
Size: 617000
SHA256: 00130bb6a560cd2a7234d8018baf73f188f5dd56413d5aa0accc987b2197a6a1

Package: bash
Version: 5.2.15-2+b8
Status: install ok installed
";

    const URIS: &str = "\
'http://deb.debian.org/debian/pool/main/b/bash/bash_5.2.15-2%2bb13_amd64.deb' bash_5.2.15-2+b13_amd64.deb 1490652 SHA256:82130bb6a560cd2a7234d8018baf73f188f5dd56413d5aa0accc987b2197a6a1
'file:/srv/mirror/pool/x.deb' x.deb 5 SHA256:00
W: something else
";

    #[test]
    fn a_plan_gives_names_and_new_versions_and_no_option() {
        assert_eq!(
            parse_plan(PLAN),
            ["bash=5.2.15-2+b13", "login=1:4.13+dfsg1-1+deb12u2", "libnew=2.0"]
        );
    }

    #[test]
    fn a_stanza_without_a_file_is_not_to_be_had() {
        let stanzas = parse_show(SHOW);
        assert_eq!(stanzas.len(), 2);
        assert_eq!((stanzas[0].version.as_str(), stanzas[0].bytes), ("5.2.15-2+b13", 1_490_652));
    }

    #[test]
    fn a_url_is_matched_by_the_path_that_the_vendor_signed() {
        let (stanzas, urls) = (parse_show(SHOW), parse_uris(URIS));
        assert_eq!(urls.len(), 1);
        assert!(stanzas[0].lies_at(&urls[0].0));
        assert!(!stanzas[1].lies_at(&urls[0].0));
    }

    #[test]
    fn packages_are_taken_as_long_as_they_fit() {
        let (names, stanzas) = (parse_plan(PLAN), parse_show(SHOW));
        let files = |bytes_max| choose(&names, &stanzas, bytes_max).len();
        assert_eq!((files(5_000_000), files(1_490_652), files(1_000_000), files(5)), (2, 1, 1, 0));
    }

    #[test]
    fn a_foreign_architecture_is_told_apart() {
        let stanza = &parse_show(SHOW)[0];
        assert!(stanza.is("bash=5.2.15-2+b13"));
        assert!(stanza.is("bash:amd64=5.2.15-2+b13"));
        assert!(!stanza.is("bash:i386=5.2.15-2+b13"));
    }

    #[test]
    fn installed_packages_are_those_that_dpkg_says_are() {
        assert_eq!(parse_installed("ii  bash\nrc  gone\nii  libc6:amd64\nii  -x\n").len(), 2);
    }

    #[test]
    fn direct_is_no_proxy() {
        assert_eq!(parse_proxy("Acquire::http::Proxy \"DIRECT\";\n"), None);
        assert_eq!(
            parse_proxy("Acquire::http::Proxy \"http://cache:3142\";\n").as_deref(),
            Some("http://cache:3142")
        );
    }
}

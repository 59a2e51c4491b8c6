//! What a content is: the import key's word, in `custom.sutler` of its target.
//!
//! The target's path is `content/YYYY-MM/BLAKE3/NAME`. Length and SHA-256 are the target's own; BLAKE3 and
//! the rest are here. Nothing of it starts anything: that takes an approval of exactly these bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sutler_protocol::manifest::{TargetFile, TargetPath};
use sutler_protocol::name::Label;
use sutler_protocol::{ContentId, Sha256Digest};

use crate::bounds::{ARGUMENTS_MAX, LINKS_MAX, URL_BYTES_MAX};
use crate::order::{
    Breach, FORMAT, Kind, OrderError, RuleError, at_most, each, each_once, from_value,
};
use crate::rule::Rule;
use crate::text::{Line, Utc, is_false, list, one};

/// Exactly these bytes, in the three ways that two roles have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes {
    /// BLAKE3 of them all.
    pub blake3: ContentId,
    /// SHA-256 of them all.
    pub sha256: Sha256Digest,
    /// How many there are.
    pub length: u64,
}

/// A content as its target says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which bytes it is.
    pub bytes: Bytes,
    /// What is said of them.
    pub about: About,
}

/// What the import key says of a content: `custom.sutler`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The version of the schema: 1.
    pub format: u64,
    /// BLAKE3 of the bytes, in 64 hex digits.
    #[serde(with = "one")]
    pub blake3: ContentId,
    /// The file's name, the last part of the target's path.
    pub name: Line,
    /// What sort of artifact it is, such as `deb`: it chooses the command that a device's config has for it.
    #[serde(with = "one")]
    pub kind: Label,
    /// When it was published.
    pub published: Utc,
    /// Where the bytes can be had, as `http://` or `https://` URLs. None: from the organisation alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub origins: Vec<Line>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Line>,
    /// What it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<Line>,
    /// Which version of the product it brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Line>,
    /// What it is, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Line>,
    /// How bad it is to be without.
    #[serde(default)]
    pub severity: Severity,
    /// Who set the severity, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity_by: Option<Line>,
    /// Why it is this severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity_reason: Option<Line>,
    /// The weaknesses that it mends: `CVE-2026-12345`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub cve: Vec<Cve>,
    /// Contents that it takes the place of.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub supersedes: Vec<ContentId>,
    /// Contents that have to be installed before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub requires: Vec<ContentId>,
    /// Whether it never wants the machine started again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_restart: bool,
    /// Whether nothing that people use stops while it is installed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_interruption: bool,
    /// The devices that it can be of use to. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applies: Option<Rule>,
    /// What the commands of its kind are told beside the file.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
}

/// Arguments for the commands that a device's config has for a content's kind. They come after the
/// command's own, each as one argument, and never through a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// For the command that installs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub install: Vec<Line>,
    /// For the command that says whether it is installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "list")]
    pub detect: Vec<Line>,
}

/// How bad it is to be without a content. Unknown is an answer, and is never guessed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nobody has said it.
    #[default]
    Unknown,
    /// It can wait.
    Low,
    /// It should not wait long.
    Medium,
    /// It should not wait.
    High,
    /// It is being used against somebody.
    Severe,
}

/// The id of a published weakness: `CVE-`, a year, and a number of 4 to 19 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cve(Box<str>);

impl Content {
    /// Reads what a target that was verified says of a content.
    ///
    /// # Errors
    ///
    /// [`OrderError`], naming the field and the rule: the target is no content, or its path, its hashes
    /// and its `custom` do not belong together.
    pub fn of(path: &TargetPath, file: &TargetFile) -> Result<Self, OrderError> {
        let lacks = |field: &str, demand| {
            Breach::new(field, RuleError::Demand { demand }).of(Kind::Content)
        };
        let custom = file.custom.as_ref().and_then(|custom| custom.get("sutler"));
        let custom = custom.ok_or_else(|| lacks("custom.sutler", "a content's target has it"))?;
        let about = About::read(custom)?;
        let sha256 = file.hashes.sha256();
        let sha256 = sha256.ok_or_else(|| lacks("hashes.sha256", "a content's target has it"))?;
        let parts: Vec<&str> = path.as_str().split('/').collect();
        let elsewhere = || lacks("path", "a content lies at content/YYYY-MM/BLAKE3/NAME");
        let ["content", month, blake3, name] = parts[..] else { return Err(elsewhere()) };
        if !is_month(month) {
            return Err(elsewhere());
        }
        for (field, found, expected) in [
            ("blake3", about.blake3.to_string().as_str(), blake3),
            ("name", about.name.as_str(), name),
        ] {
            if found != expected {
                let (found, expected) = (found.to_owned(), expected.to_owned());
                let rule = RuleError::Differs { found, expected };
                return Err(Breach::new(field, rule).of(Kind::Content));
            }
        }
        let sha256 = Sha256Digest::from_bytes(sha256);
        Ok(Self { bytes: Bytes { blake3: about.blake3, sha256, length: file.length }, about })
    }
}

impl About {
    /// Reads `custom.sutler`.
    ///
    /// # Errors
    ///
    /// [`OrderError`], naming the field and the rule.
    pub fn read(custom: &Value) -> Result<Self, OrderError> {
        let about: Self = from_value(Kind::Content, custom.clone())?;
        about.rules().map_err(|breach| breach.of(Kind::Content))?;
        Ok(about)
    }

    /// Returns what goes into a target's `custom`, under `sutler`.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if a device would refuse it.
    pub fn write(&self) -> Result<Value, OrderError> {
        let document = Kind::Content;
        self.rules().map_err(|breach| breach.of(document))?;
        serde_json::to_value(self).map_err(|source| OrderError::Json { document, source })
    }

    /// Returns the path of the content's target, for the month `YYYY-MM` whose role signs it.
    pub fn path(&self, month: &str) -> TargetPath {
        TargetPath::from(format!("content/{month}/{}/{}", self.blake3, self.name).as_str())
    }

    /// Returns the months' name, `YYYY-MM`, that `instant` is in.
    pub fn month(instant: Utc) -> String {
        instant.to_string().chars().take(7).collect()
    }

    fn rules(&self) -> Result<(), Breach> {
        let demand = |field, demand| Breach::new(field, RuleError::Demand { demand });
        if self.format != FORMAT {
            let (found, only) = (self.format, FORMAT);
            return Err(Breach::new("format", RuleError::Range { found, min: only, max: only }));
        }
        if self.name.as_str().contains('/') || matches!(self.name.as_str(), "." | "..") {
            return Err(demand("name", "a file's name is no path"));
        }
        if self.name.as_str().starts_with('-') {
            return Err(demand("name", "a file's name does not look like an option"));
        }
        for (field, len) in [
            ("origins", self.origins.len()),
            ("cve", self.cve.len()),
            ("supersedes", self.supersedes.len()),
            ("requires", self.requires.len()),
        ] {
            at_most(field, len, LINKS_MAX)?;
        }
        each("origins", &self.origins, |origin| {
            let is_http = ["http://", "https://"].iter().any(|scheme| {
                origin.as_str().strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())
            });
            if is_http && origin.as_str().len() <= URL_BYTES_MAX && !origin.as_str().contains(' ') {
                return Ok(());
            }
            Err(demand("url", "an origin is an http:// or https:// URL"))
        })?;
        for (field, links) in [("supersedes", &self.supersedes), ("requires", &self.requires)] {
            each_once(field, links.iter())?;
            if links.contains(&self.blake3) {
                return Err(demand(field, "a content is not its own"));
            }
        }
        self.hooks.rules().map_err(|breach| breach.below("hooks"))
    }
}

impl Hooks {
    /// Returns whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.install.is_empty() && self.detect.is_empty()
    }

    pub(crate) fn rules(&self) -> Result<(), Breach> {
        for (field, arguments) in [("install", &self.install), ("detect", &self.detect)] {
            at_most(field, arguments.len(), ARGUMENTS_MAX)?;
            each(field, arguments, |argument| {
                // T24
                if !argument.as_str().starts_with('-') {
                    return Ok(());
                }
                let demand = "an argument does not look like an option; options belong into the \
                              device's config";
                Err(Breach::new("argument", RuleError::Demand { demand }))
            })?;
        }
        Ok(())
    }
}

impl Severity {
    /// Returns the severity's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Severe => "severe",
        }
    }
}

impl Cve {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no id of a weakness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weakness is written CVE-2026-12345, not {found:?}")]
pub struct CveError {
    /// What it was.
    pub found: String,
}

impl std::str::FromStr for Cve {
    type Err = CveError;

    fn from_str(text: &str) -> Result<Self, CveError> {
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let parts = text.strip_prefix("CVE-").and_then(|rest| rest.split_once('-'));
        let is_id = parts.is_some_and(|(year, number)| {
            year.len() == 4
                && is_digits(year)
                && (4..=19).contains(&number.len())
                && is_digits(number)
        });
        if is_id {
            Ok(Self(text.into()))
        } else {
            Err(CveError { found: text.chars().take(40).collect() })
        }
    }
}

impl std::str::FromStr for Severity {
    type Err = SeverityError;

    fn from_str(text: &str) -> Result<Self, SeverityError> {
        let all = [Self::Unknown, Self::Low, Self::Medium, Self::High, Self::Severe];
        all.into_iter().find(|severity| severity.as_str() == text).ok_or(SeverityError)
    }
}

/// Why a text is no severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a severity is severe, high, medium, low or unknown")]
pub struct SeverityError;

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Cve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Cve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether a text is a year and a month.
fn is_month(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    bytes.len() == 7
        && bytes[4] == b'-'
        && digits(0..4)
        && digits(5..7)
        && ("01"..="12").contains(&&text[5..])
}

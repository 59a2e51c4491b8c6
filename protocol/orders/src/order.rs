//! One order file: who it is from, which of its kind it is, and its body.
//!
//! [`Order::read`] takes the bytes of a target file, which [`sutler_protocol::manifest::Check`] has found to be those that were
//! signed; what it believes is the caller's business. [`Order::write`] is what an admin's tool signs.
//!
//! Always true: a field that nobody knows is refused, and so is a name twice in one object. An order that
//! is understood in part would be obeyed in part.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sutler_protocol::manifest::json;
use sutler_protocol::name::{Label, Organisation};

use crate::bounds::ORDER_BYTES_MAX;
use crate::text::{Utc, maybe, one};

/// The version of the schema, in every file's `format`.
pub const FORMAT: u64 = 1;

/// The kinds of order files, and what else of the orders can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a content is: `custom.sutler` of its target.
    Content,
    /// Decisions of a scope's approvers.
    Approvals,
    /// What silence approves in a scope.
    Standing,
    /// One approver's word that something must not be installed.
    Denial,
    /// How the devices of a scope behave.
    Policies,
    /// When the devices of a scope act.
    Schedules,
    /// Where the devices are.
    Sites,
    /// In which order devices receive something.
    Rings,
    /// What control stops for now.
    Halts,
    /// Who is let in no longer.
    Revocations,
    /// Which devices a role of approvals reaches: `sutler` of its delegation.
    Scope,
    /// What a device says.
    Report,
}

/// What every order file begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Whose orders these are.
    #[serde(with = "one")]
    pub organisation: Organisation,
    /// The scope that the file is for, where its kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub scope: Option<Label>,
    /// Rises by at least 1 with every new file of this kind and scope; from 1 on.
    pub seq: u64,
    /// When it was written.
    pub issued: Utc,
}

/// An order file.
#[derive(Clone, Debug, PartialEq)]
pub struct Order<B> {
    /// Who it is from, and which of its kind it is.
    pub head: Head,
    /// What it says.
    pub body: B,
}

/// What a kind of order file says.
pub trait Body: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// Checks what its fields alone do not say.
    ///
    /// # Errors
    ///
    /// [`Breach`], naming the field and the rule.
    fn rules(&self) -> Result<(), Breach>;
}

/// A rule that a document breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The field, as a path from the document's beginning.
    pub field: String,
    /// The rule.
    pub rule: RuleError,
}

/// Which rule a document breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// More than is looked at.
    #[error("it has {found} entries, and {max} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// A name that two entries have.
    #[error("{name:?} is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A number outside of what makes sense.
    #[error("it is {found}, not {min} to {max}")]
    Range {
        /// What it is.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// An end that does not come after its beginning.
    #[error("it is not later than {before}")]
    NotLater {
        /// The field that it has to come after.
        before: &'static str,
    },
    /// Something that has to be there beside something else, or must not be.
    #[error("{demand}")]
    Demand {
        /// What is demanded.
        demand: &'static str,
    },
    /// A text that has to agree with another one.
    #[error("it is {found:?} instead of {expected:?}")]
    Differs {
        /// What it says.
        found: String,
        /// What it has to say.
        expected: String,
    },
}

/// Why bytes are no such document, or none that is obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Longer than it may be.
    #[error("{document}: it has {found} bytes, and {bytes_max} are allowed")]
    TooLong {
        /// Which document.
        document: Kind,
        /// How many it has.
        found: u64,
        /// How many it may have.
        bytes_max: u64,
    },
    /// No JSON, or one that could be read in two ways.
    #[error("{document}: read it as JSON")]
    Json {
        /// Which document.
        document: Kind,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// No JSON object.
    #[error("{document}: it is no object with the field _type")]
    NoObject {
        /// Which document.
        document: Kind,
    },
    /// Another kind of document, or a version of the schema that is not known here.
    #[error("{document}: its field {field} is {found} instead of {expected}")]
    Other {
        /// Which document.
        document: Kind,
        /// `_type` or `format`.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it would have to say.
        expected: String,
    },
    /// A field that cannot be read.
    #[error("{document}: read its field {field}")]
    Field {
        /// Which document.
        document: Kind,
        /// Where in it.
        field: String,
        /// What was wrong there.
        source: serde_json::Error,
    },
    /// A field that breaks a rule.
    #[error("{document}: check its field {field}")]
    Rule {
        /// Which document.
        document: Kind,
        /// Where in it.
        field: String,
        /// The rule.
        source: RuleError,
    },
}

/// Which head an order file has to have, for whoever knows where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The organisation that the device belongs to.
    pub organisation: &'a Organisation,
    /// The scope in the file's path, if it has one.
    pub scope: Option<&'a Label>,
}

impl Kind {
    /// Returns its name, as `_type` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Approvals => "approvals",
            Self::Standing => "standing",
            Self::Denial => "denial",
            Self::Policies => "policies",
            Self::Schedules => "schedules",
            Self::Sites => "sites",
            Self::Rings => "rings",
            Self::Halts => "halts",
            Self::Revocations => "revocations",
            Self::Scope => "scope",
            Self::Report => "report",
        }
    }

    /// Returns whether its files belong to a scope.
    pub const fn has_scope(self) -> bool {
        matches!(
            self,
            Self::Approvals | Self::Standing | Self::Policies | Self::Schedules | Self::Denial
        )
    }

    /// Returns the role that signs its files, and their path below the manifest's targets, or `None` for
    /// what is no target file, or if the scope is absent where there has to be one.
    pub fn target(self, scope: Option<&Label>) -> Option<(String, String)> {
        let scoped = |role: &str, file: &str| {
            let scope = scope?;
            Some((format!("{role}-{scope}"), format!("{role}/{scope}/{file}.json")))
        };
        let own = |role: &str| Some((role.to_owned(), format!("{role}/{}.json", self.as_str())));
        match self {
            Self::Approvals => scoped("approvals", "approvals"),
            Self::Standing => scoped("approvals", "standing"),
            Self::Policies => scoped("schedules", "policies"),
            Self::Schedules => scoped("schedules", "schedules"),
            Self::Sites => own("sites"),
            Self::Rings => own("rings"),
            Self::Halts => own("halts"),
            Self::Revocations => own("admission"),
            Self::Content | Self::Denial | Self::Scope | Self::Report => None,
        }
    }
}

impl<B: Body> Order<B> {
    /// Reads an order file.
    ///
    /// # Errors
    ///
    /// [`OrderError`], naming the document, the field and the rule.
    pub fn read(bytes: &[u8]) -> Result<Self, OrderError> {
        let document = B::KIND;
        let found = bytes.len() as u64;
        if found > ORDER_BYTES_MAX {
            return Err(OrderError::TooLong { document, found, bytes_max: ORDER_BYTES_MAX });
        }
        let value = json::read(bytes).map_err(|source| OrderError::Json { document, source })?;
        let Value::Object(fields) = value else { return Err(OrderError::NoObject { document }) };
        Self::from_fields(fields)
    }

    /// Reads an order file's object.
    pub(crate) fn from_fields(mut fields: Map<String, Value>) -> Result<Self, OrderError> {
        let document = B::KIND;
        begins_well(document, &mut fields)?;
        let names = ["organisation", "scope", "seq", "issued"];
        let head = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), fields.remove(*name)?)))
            .collect();
        let head: Head = from_value(document, Value::Object(head))?;
        let body: B = from_value(document, Value::Object(fields))?;
        let order = Self { head, body };
        order.rules().map_err(|breach| breach.of(document))?;
        Ok(order)
    }

    /// Returns the bytes to be signed: JSON that a person reads, with a line break at its end.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if a device would refuse it.
    pub fn write(&self) -> Result<Vec<u8>, OrderError> {
        let document = B::KIND;
        self.rules().map_err(|breach| breach.of(document))?;
        let file = File {
            kind: document.as_str(),
            format: FORMAT,
            organisation: &self.head.organisation,
            scope: &self.head.scope,
            seq: self.head.seq,
            issued: self.head.issued,
            body: &self.body,
        };
        let mut bytes = serde_json::to_vec_pretty(&file)
            .map_err(|source| OrderError::Json { document, source })?;
        bytes.push(b'\n');
        // What cannot be read again is found before it is signed.
        Self::read(&bytes)?;
        Ok(bytes)
    }

    /// Checks that the file is of the organisation and scope that its place says.
    ///
    /// # Errors
    ///
    /// [`OrderError::Rule`] if it is not: an order that was copied from elsewhere (T12).
    pub fn belongs(&self, place: Place<'_>) -> Result<(), OrderError> {
        let differs = |field: &str, found: &str, expected: &str| {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            Breach::new(field, RuleError::Differs { found, expected }).of(B::KIND)
        };
        if self.head.organisation != *place.organisation {
            let (found, expected) = (self.head.organisation.as_str(), place.organisation.as_str());
            return Err(differs("organisation", found, expected));
        }
        if self.head.scope.as_ref() != place.scope {
            let text = |scope: Option<&Label>| scope.map_or_else(String::new, ToString::to_string);
            let (found, expected) = (text(self.head.scope.as_ref()), text(place.scope));
            return Err(differs("scope", &found, &expected));
        }
        Ok(())
    }

    fn rules(&self) -> Result<(), Breach> {
        let demand = |field: &str, demand| Err(Breach::new(field, RuleError::Demand { demand }));
        if self.head.seq == 0 {
            let rule = RuleError::Range { found: 0, min: 1, max: u64::MAX };
            return Err(Breach::new("seq", rule));
        }
        match (B::KIND.has_scope(), &self.head.scope) {
            (true, None) => return demand("scope", "orders of this kind are for a scope"),
            (false, Some(_)) => return demand("scope", "orders of this kind have no scope"),
            _ => {}
        }
        self.body.rules()
    }
}

/// How an order file is written: what names it first.
#[derive(Serialize)]
struct File<'a, B> {
    #[serde(rename = "_type")]
    kind: &'static str,
    format: u64,
    #[serde(with = "one")]
    organisation: &'a Organisation,
    #[serde(skip_serializing_if = "Option::is_none", with = "maybe")]
    scope: &'a Option<Label>,
    seq: u64,
    issued: Utc,
    #[serde(flatten)]
    body: &'a B,
}

impl Breach {
    /// Returns the breach of `rule` by `field`.
    pub(crate) fn new(field: impl Into<String>, rule: RuleError) -> Self {
        Self { field: field.into(), rule }
    }

    /// Returns the breach as one below `field`.
    pub(crate) fn below(self, field: impl fmt::Display) -> Self {
        Self { field: format!("{field}.{}", self.field), rule: self.rule }
    }

    /// Returns the error of a document that has it.
    pub(crate) fn of(self, document: Kind) -> OrderError {
        OrderError::Rule { document, field: self.field, source: self.rule }
    }
}

/// Takes `_type` and `format` out of a document's fields, and checks them.
pub(crate) fn begins_well(
    document: Kind,
    fields: &mut Map<String, Value>,
) -> Result<(), OrderError> {
    let mut check = |field, expected: Value| match fields.remove(field) {
        Some(found) if found == expected => Ok(()),
        found => {
            let found = found.map_or_else(|| "absent".to_owned(), |found| shortened(&found));
            let expected = expected.to_string();
            Err(OrderError::Other { document, field, found, expected })
        }
    };
    check("_type", document.as_str().into())?;
    check("format", FORMAT.into())
}

/// Reads a value of a document, with the path of what is wrong in it.
pub(crate) fn from_value<T: DeserializeOwned>(
    document: Kind,
    value: Value,
) -> Result<T, OrderError> {
    if let Some(field) = null_in(&value) {
        // A program that meant a value writes it; what is absent is left out.
        let rule = RuleError::Demand { demand: "null says nothing; leave it out" };
        return Err(Breach::new(field, rule).of(document));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        OrderError::Field { document, field, source: error.into_inner() }
    })
}

/// Returns the path of the first `null` among a value's fields, at any depth.
fn null_in(value: &Value) -> Option<String> {
    let below = |name: String, value: &Value| match value {
        Value::Null => Some(name),
        Value::Array(_) => null_in(value).map(|rest| format!("{name}{rest}")),
        value => null_in(value).map(|rest| format!("{name}.{rest}")),
    };
    match value {
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| below(name.chars().take(64).collect(), value))
        }
        Value::Array(values) => {
            let mut values = values.iter().enumerate();
            values.find_map(|(position, value)| below(format!("[{position}]"), value))
        }
        _ => None,
    }
}

/// Returns the beginning of a value's text: a stranger wrote it, and it goes into an error.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Checks the number of entries of a list.
pub(crate) fn at_most(field: &str, found: usize, max: usize) -> Result<(), Breach> {
    if found > max {
        return Err(Breach::new(field, RuleError::TooMany { found, max }));
    }
    Ok(())
}

/// Checks a number.
pub(crate) fn within(
    field: &str,
    found: impl Into<u64>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<(), Breach> {
    let found = found.into();
    if range.contains(&found) {
        return Ok(());
    }
    Err(Breach::new(field, RuleError::Range { found, min: *range.start(), max: *range.end() }))
}

/// Checks that no two entries of a list have the same name.
pub(crate) fn each_once<T: Ord + ToString>(
    field: &str,
    names: impl Iterator<Item = T>,
) -> Result<(), Breach> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if seen.contains(&name) {
            let name = name.to_string();
            return Err(Breach::new(field, RuleError::Twice { name }));
        }
        seen.insert(name);
    }
    Ok(())
}

/// Checks that an interval, where both ends are given, is one.
pub(crate) fn in_order(not_before: Option<Utc>, not_after: Option<Utc>) -> Result<(), Breach> {
    match (not_before, not_after) {
        (Some(from), Some(to)) if from >= to => {
            Err(Breach::new("not_after", RuleError::NotLater { before: "not_before" }))
        }
        _ => Ok(()),
    }
}

/// Checks each entry of a list.
pub(crate) fn each<T>(
    field: &str,
    entries: &[T],
    rules: impl Fn(&T) -> Result<(), Breach>,
) -> Result<(), Breach> {
    for (position, entry) in entries.iter().enumerate() {
        rules(entry).map_err(|breach| breach.below(format_args!("{field}[{position}]")))?;
    }
    Ok(())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.rule)
    }
}

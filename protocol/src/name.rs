//! What a member of an organisation is called, in a certificate and in logs.
//!
//! `spiffe://ORG/site/S/node/ID`, `spiffe://ORG/site/S/agent/ID` and `spiffe://ORG/control/ID` are
//! the only forms. The grammar is a subset of SPIFFE's own (SPIFFE-ID 1.0, section 2) in which a
//! name has one spelling: no percent-encoding, no empty or dot segments, nothing but ASCII, so that
//! two names are equal exactly when their bytes are.

use std::fmt;
use std::str::FromStr;

/// Bytes in an organisation's name, a site's name or an id, at most. The names also appear as
/// common names in certificates, where X.509 allows 64 characters.
pub const LABEL_BYTES_MAX: usize = 63;

/// The name of an organisation, and so of the authority that its members trust.
///
/// 1 to [`LABEL_BYTES_MAX`] of `a-z`, `0-9`, `.`, `-`, `_`; the first and last are letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Organisation(Box<str>);

/// The name of a site, or the id of one member.
///
/// 1 to [`LABEL_BYTES_MAX`] of `A-Z`, `a-z`, `0-9`, `.`, `-`, `_`; the first and last are letters or
/// digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The on-site manager.
    Node,
    /// The client on a managed device.
    Agent,
    /// The control plane.
    Control,
}

/// Who somebody is within an organisation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A node of a site.
    Node {
        /// The site that it serves.
        site: Label,
        /// Which of the site's nodes.
        id: Label,
    },
    /// An agent of a site.
    Agent {
        /// The site that its device belongs to.
        site: Label,
        /// Which of the site's agents.
        id: Label,
    },
    /// A part of the control plane.
    Control {
        /// Which part.
        id: Label,
    },
}

/// The full name of a member, as the one URI of its certificate says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    organisation: Organisation,
    member: Member,
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`LABEL_BYTES_MAX`].
    #[error("a name has 1 to {LABEL_BYTES_MAX} characters, not {len}")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A character that the name may not have, or not in this place.
    #[error("{found:?} is not allowed at position {at} of the name {name:?}")]
    Character {
        /// The name it was found in.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// Its place, in bytes from 0.
        at: usize,
    },
    /// Not one of the three forms of a peer's name.
    #[error("a peer is named spiffe://ORG/site/S/node|agent/ID or spiffe://ORG/control/ID")]
    Form,
    /// Not `node`, `agent` or `control`.
    #[error("a role is node, agent or control")]
    Role,
}

impl Organisation {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Label {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Member {
    /// Returns what the member does.
    pub const fn role(&self) -> Role {
        match self {
            Self::Node { .. } => Role::Node,
            Self::Agent { .. } => Role::Agent,
            Self::Control { .. } => Role::Control,
        }
    }

    /// Returns which of its kind the member is.
    pub const fn id(&self) -> &Label {
        match self {
            Self::Node { id, .. } | Self::Agent { id, .. } | Self::Control { id } => id,
        }
    }

    /// Returns the member's site; control has none.
    pub const fn site(&self) -> Option<&Label> {
        match self {
            Self::Node { site, .. } | Self::Agent { site, .. } => Some(site),
            Self::Control { .. } => None,
        }
    }
}

impl PeerName {
    /// Returns the name of `member` of `organisation`.
    pub const fn new(organisation: Organisation, member: Member) -> Self {
        Self { organisation, member }
    }

    /// Returns the organisation that the peer belongs to.
    pub const fn organisation(&self) -> &Organisation {
        &self.organisation
    }

    /// Returns who the peer is within its organisation.
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// Returns what the peer does.
    pub const fn role(&self) -> Role {
        self.member.role()
    }

    /// Returns the peer's site; control has none.
    pub const fn site(&self) -> Option<&Label> {
        self.member.site()
    }
}

impl FromStr for Organisation {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit()).map(|()| Self(text.into()))
    }
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked(text, |c| c.is_ascii_alphanumeric()).map(|()| Self(text.into()))
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "node" => Ok(Self::Node),
            "agent" => Ok(Self::Agent),
            "control" => Ok(Self::Control),
            _ => Err(NameError::Role),
        }
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    /// Parses exactly what `Display` prints.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let path = text.strip_prefix("spiffe://").ok_or(NameError::Form)?;
        let mut segments = path.split('/');
        let organisation = segments.next().ok_or(NameError::Form)?.parse()?;
        // Six: one more than the longest form, so that a tail is seen without collecting it all.
        let rest: Vec<&str> = segments.take(6).collect();
        let member = match rest[..] {
            ["site", site, "node", id] => Member::Node { site: site.parse()?, id: id.parse()? },
            ["site", site, "agent", id] => Member::Agent { site: site.parse()?, id: id.parse()? },
            ["control", id] => Member::Control { id: id.parse()? },
            _ => return Err(NameError::Form),
        };
        Ok(Self { organisation, member })
    }
}

/// Checks a name's length and its characters; `outer` says which may be first and last.
fn checked(text: &str, outer: fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX {
        return Err(NameError::Length { len: text.len() });
    }
    let last = text.len() - 1;
    let inner = |c: char| outer(c) || matches!(c, '.' | '-' | '_');
    let wrong = |&(at, c): &(usize, char)| !(outer(c) || inner(c) && at != 0 && at != last);
    match text.char_indices().find(wrong) {
        Some((at, found)) => Err(NameError::Character { name: text.to_owned(), found, at }),
        None => Ok(()),
    }
}

impl fmt::Display for Organisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Control => "control",
        })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.organisation)?;
        if let Some(site) = self.member.site() {
            write!(f, "/site/{site}")?;
        }
        write!(f, "/{}/{}", self.member.role(), self.member.id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_spelling_and_prints_it() {
        for text in [
            "spiffe://acme/site/leeds/node/n1",
            "spiffe://acme.example/site/HQ-2/agent/0f3c",
            "spiffe://a/control/c_1.eu",
        ] {
            let name: PeerName = text.parse().expect("a name");
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn anything_but_the_three_forms_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://acme",
            "spiffe://acme/",
            "spiffe:///site/s/node/n",
            "SPIFFE://acme/control/c",
            "https://acme/control/c",
            " spiffe://acme/control/c",
            "spiffe://acme/control/c ",
            "spiffe://acme/control/c/",
            "spiffe://acme/control//c",
            "spiffe://acme/control/c?q",
            "spiffe://acme/control/c#f",
            "spiffe://acme/control/%63",
            "spiffe://acme/control/.",
            "spiffe://acme/control/..",
            "spiffe://acme/control/c\0",
            "spiffe://acme/control/c\n",
            "spiffe://acme/control/é",
            "spiffe://Acme/control/c",
            "spiffe://acme:443/control/c",
            "spiffe://user@acme/control/c",
            "spiffe://acme./control/c",
            "spiffe://acme/site/s/control/c",
            "spiffe://acme/site/s/node",
            "spiffe://acme/site/s/node/n/x",
            "spiffe://acme/site/../node/n",
            "spiffe://acme/site//node/n",
            "spiffe://acme/site/s/Node/n",
            "spiffe://acme/node/n",
        ] {
            assert!(text.parse::<PeerName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_label_of_63_bytes_is_the_longest() {
        let longest = "x".repeat(LABEL_BYTES_MAX);
        assert!(longest.parse::<Label>().is_ok());
        assert_eq!(format!("{longest}x").parse::<Label>(), Err(NameError::Length { len: 64 }));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "spiffe://[a-z./-]{0,8}/(site/[A-z./%-]{0,4}/)?(node|agent|control)/.{0,4}") {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}

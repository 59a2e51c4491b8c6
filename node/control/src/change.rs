//! Making a change: the next document of each role that it concerns, and the order files beside them.
//!
//! Pure. A [`Change`] starts from what is published, is edited by what an admin asked for, and becomes a
//! [`Draft`] that the role's keys sign. Who changed something, when and why is in the document that they sign.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sutler_orders::content::About;
use sutler_orders::mandate::Mandates;
use sutler_orders::order::{Body, Head};
use sutler_orders::text::{Line, Utc};
use sutler_orders::{Kind, Order, OrderError};
use sutler_protocol::manifest::sign::ProposeError;
use sutler_protocol::manifest::{
    Believed, Digests, Expires, RoleName, Signed, TargetFile, TargetPath, Targets, Version,
};
use sutler_protocol::name::{Label, Organisation};

use crate::draft::Draft;
use crate::preset::TARGETS_LIFETIME;
use crate::state::State;

/// Who changes something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who.
    pub by: Line,
    /// When.
    pub at: Utc,
    /// What was done, in a few words.
    pub what: Line,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// A change that is being put together.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    state: &'a State,
    organisation: &'a Organisation,
    note: Note,
    now: Timestamp,
    documents: BTreeMap<RoleName, Targets>,
    files: BTreeMap<TargetPath, Bytes>,
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nobody is delegated what it would need.
    #[error(
        "change {role}: nobody delegates to a role of that name; the scope or month does not exist"
    )]
    NoRole {
        /// Which role.
        role: String,
    },
    /// The order file that is published cannot be read.
    #[error("read the {kind} that are published")]
    Published {
        /// Which.
        kind: Kind,
        /// What was wrong with them.
        source: OrderError,
    },
    /// No device would take what was asked for.
    #[error("write the new {kind}")]
    Order {
        /// Which.
        kind: Kind,
        /// The rule that it breaks.
        source: OrderError,
    },
    /// No client would.
    #[error("propose the new {role}")]
    Propose {
        /// Which.
        role: RoleName,
        /// The rule that it breaks.
        source: ProposeError,
    },
    /// It has the last version or number that there is, or the clock is at the end of time.
    #[error("change {role}: there is no next version of it")]
    Last {
        /// Which.
        role: RoleName,
    },
}

impl Note {
    /// Returns what a role's document says of its last change.
    pub fn of(document: &Targets) -> Option<Self> {
        let note = document.extra.get("sutler")?.get("change")?;
        serde_json::from_value(note.clone()).ok()
    }
}

impl<'a> Change<'a> {
    /// Starts a change of what is published.
    pub fn new(
        state: &'a State,
        organisation: &'a Organisation,
        note: Note,
        now: Timestamp,
    ) -> Self {
        let (documents, files) = (BTreeMap::new(), BTreeMap::new());
        Self { state, organisation, note, now, documents, files }
    }

    /// Returns the note that the change goes with.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Edits the order file of a kind and scope, which is empty if there was none.
    ///
    /// # Errors
    ///
    /// [`ChangeError`], or what `edit` says.
    pub fn order<B, E>(
        &mut self,
        scope: Option<&Label>,
        edit: impl FnOnce(&mut B) -> Result<(), E>,
    ) -> Result<(), E>
    where
        B: Body + Default,
        E: From<ChangeError>,
    {
        let kind = B::KIND;
        let place = kind.target(scope);
        let (role, path) =
            place.ok_or_else(|| ChangeError::NoRole { role: kind.as_str().to_owned() })?;
        let path = TargetPath::from(path.as_str());
        let before = self.files.get(&path).or_else(|| self.state.orders.get(&path));
        let before = before.map(|bytes| Order::<B>::read(bytes)).transpose();
        let before = before.map_err(|source| ChangeError::Published { kind, source })?;
        let (seq, mut body) = match before {
            Some(Order { head, body }) => (head.seq, body),
            None => (0, B::default()),
        };
        edit(&mut body)?;
        let seq = if self.files.contains_key(&path) { seq } else { seq.saturating_add(1) };
        let head = Head {
            organisation: self.organisation.clone(),
            scope: scope.cloned(),
            seq,
            issued: Utc::of(self.now),
        };
        let bytes = Order { head, body }.write();
        let bytes = Bytes::from(bytes.map_err(|source| ChangeError::Order { kind, source })?);
        self.document(&role)?.set_file(&path, TargetFile::of(&bytes));
        self.files.insert(path, bytes);
        Ok(())
    }

    /// Publishes a content in the month that it is.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn content(
        &mut self,
        about: &About,
        sha256: [u8; 32],
        length: u64,
    ) -> Result<(TargetPath, TargetFile), ChangeError> {
        let month = About::month(Utc::of(self.now));
        let path = about.path(&month);
        let kind = Kind::Content;
        let custom = about.write().map_err(|source| ChangeError::Order { kind, source })?;
        let custom = serde_json::json!({ "sutler": custom });
        let file = TargetFile::new(length, Digests::from_sha256(sha256), Some(custom));
        // What a device would say of it is said now.
        sutler_orders::Content::of(&path, &file)
            .map_err(|source| ChangeError::Order { kind, source })?;
        self.document(&format!("content-{month}"))?.set_file(&path, file.clone());
        Ok((path, file))
    }

    /// Edits the targets: who else may name files.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn targets(&mut self) -> Result<&mut Targets, ChangeError> {
        self.next(&RoleName::targets(), Some(self.state.targets.document()))
    }

    /// Edits who signs for a role: the targets, or the document of the directorate that its scope was left to.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn delegator(&mut self, role: &RoleName) -> Result<&mut Targets, ChangeError> {
        let by = self.mandates().delegator(role);
        let by = by.ok_or_else(|| ChangeError::NoRole { role: role.to_string() })?;
        self.document_of(&by)
    }

    /// Edits the targets or a delegated role's document.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn document_of(&mut self, role: &RoleName) -> Result<&mut Targets, ChangeError> {
        if *role == RoleName::targets() { self.targets() } else { self.document(role.as_str()) }
    }

    /// Signs a role anew without a change of what it names.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn renew(&mut self, role: &RoleName) -> Result<(), ChangeError> {
        self.document(role.as_str()).map(drop)
    }

    /// Returns the change as it is to be signed.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Propose`].
    pub fn draft(self) -> Result<Draft, ChangeError> {
        let mut draft = Draft::new();
        for (role, document) in self.documents {
            let proposal = Signed::propose(&document)
                .map_err(|source| ChangeError::Propose { role: role.clone(), source })?;
            draft.set_role(role, proposal);
        }
        for (path, bytes) in self.files {
            draft.set_file(path.as_str().to_owned(), bytes);
        }
        Ok(draft)
    }

    /// Returns the next document of a delegated role.
    fn document(&mut self, name: &str) -> Result<&mut Targets, ChangeError> {
        let no_role = || ChangeError::NoRole { role: name.to_owned() };
        let role = RoleName::delegated(name).ok_or_else(no_role)?;
        self.mandates().of(&role).ok_or_else(no_role)?;
        let published = self.state.roles.get(&role).map(Believed::document);
        self.next(&role, published)
    }

    /// Returns whose keys decide for which scope once the change is published.
    fn mandates(&self) -> Mandates<'_> {
        let targets = self.documents.get(&RoleName::targets());
        let published = |role: &RoleName| self.state.roles.get(role).map(Believed::document);
        Mandates::new(targets.unwrap_or(&self.state.targets), |role, _| {
            self.documents.get(role).or_else(|| published(role))
        })
    }

    fn next(
        &mut self,
        role: &RoleName,
        published: Option<&Targets>,
    ) -> Result<&mut Targets, ChangeError> {
        if !self.documents.contains_key(role) {
            let last = || ChangeError::Last { role: role.clone() };
            let version = self.state.next_version(role).ok_or_else(last)?;
            let expires = expiry(self.now).ok_or_else(last)?;
            let mut document =
                published.cloned().unwrap_or_else(|| Targets::new(Version::FIRST, expires));
            document.renew(version, expires);
            let note = serde_json::to_value(&self.note).expect("text is JSON");
            let ours = document.extra.entry("sutler").or_insert_with(|| serde_json::json!({}));
            if let Value::Object(ours) = ours {
                ours.insert("change".to_owned(), note);
            }
            self.documents.insert(role.clone(), document);
        }
        Ok(self.documents.get_mut(role).expect("it was put there"))
    }
}

fn expiry(now: Timestamp) -> Option<Expires> {
    now.checked_add(TARGETS_LIFETIME).ok().map(Expires::at)
}

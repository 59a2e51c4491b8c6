//! Orders that wait for signatures: proposed once, signed on as many machines as it takes, submitted once.
//!
//! A draft is a submission whose documents lack signatures. It is kept and carried in the form of one, so that
//! nothing has to be made of it when the last signature is there.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use sutler_orders::mandate::{self, Mandates};
use sutler_protocol::manifest::sign::MergeError;
use sutler_protocol::manifest::{
    Believed, KeyId, Kind, ParseError, RoleKeys, RoleName, Root, Signed, SigningKey, Targets,
    Version,
};

use crate::state::State;
use crate::submission::Submission;

/// Orders that wait for signatures.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    root: Option<Signed<Root>>,
    /// The targets and delegated roles.
    roles: BTreeMap<RoleName, Signed<Targets>>,
    files: BTreeMap<String, Bytes>,
}

/// What a role's document still lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The role.
    pub role: RoleName,
    /// How many signatures; `None` while nobody delegates to the role.
    pub signatures: Option<u64>,
    /// Who has signed.
    pub signers: Vec<KeyId>,
}

impl Lack {
    /// Returns whether it lacks nothing.
    pub fn is_nothing(&self) -> bool {
        self.signatures == Some(0)
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signatures {
            Some(1) => write!(f, "1 more signature for {}", self.role),
            Some(signatures) => write!(f, "{signatures} more signatures for {}", self.role),
            None => write!(f, "a delegation to {}", self.role),
        }
    }
}

/// Why something was not done to a draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// One of its documents is none.
    #[error("read the draft's {role}")]
    Parse {
        /// Whose.
        role: String,
        /// What was wrong with it.
        source: ParseError,
    },
    /// The key is of no role that the draft is about.
    #[error("sign the draft with {key}: it signs for nothing in it")]
    NotASigner {
        /// Whose.
        key: KeyId,
    },
    /// Another draft.
    #[error("merge two copies of a draft, {role}")]
    Merge {
        /// Which document differs.
        role: String,
        /// How.
        source: MergeError,
    },
    /// Other files or documents.
    #[error("merge two copies of a draft: they are about other things")]
    Differs,
}

impl Draft {
    /// Returns an empty draft.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the documents of a submission.
    ///
    /// # Errors
    ///
    /// [`DraftError::Parse`].
    pub fn of(submission: &Submission) -> Result<Self, DraftError> {
        let mut draft = Self { files: submission.files.clone(), ..Self::default() };
        for (name, bytes) in &submission.documents {
            let parse = |source| DraftError::Parse { role: name.clone(), source };
            if name == "root" {
                draft.root = Some(Signed::parse(bytes.clone()).map_err(parse)?);
                continue;
            }
            let role = RoleName::delegated(name).unwrap_or_else(RoleName::targets);
            draft.roles.insert(role, Signed::parse(bytes.clone()).map_err(parse)?);
        }
        Ok(draft)
    }

    /// Adds the root's successor.
    pub fn set_root(&mut self, root: Signed<Root>) {
        self.root = Some(root);
    }

    /// Adds a role's new document.
    pub fn set_role(&mut self, role: RoleName, document: Signed<Targets>) {
        self.roles.insert(role, document);
    }

    /// Adds an order file.
    pub fn set_file(&mut self, path: String, bytes: Bytes) {
        self.files.insert(path, bytes);
    }

    /// Returns it as it is submitted.
    pub fn submission(&self) -> Submission {
        let root = self.root.iter().map(|root| ("root".to_owned(), root.bytes().clone()));
        let roles =
            self.roles.iter().map(|(role, document)| (role.to_string(), document.bytes().clone()));
        Submission { documents: root.chain(roles).collect(), files: self.files.clone() }
    }

    /// Returns its name: it stays the same whoever signs, and changes with anything that is signed.
    pub fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let root = self.root.iter().map(Signed::fingerprint);
        for fingerprint in root.chain(self.roles.values().map(Signed::fingerprint)) {
            hasher.update(&fingerprint);
        }
        hasher.finalize().to_hex()[..12].to_owned()
    }

    /// Signs whatever the key signs for, and returns for which roles it did.
    ///
    /// # Errors
    ///
    /// [`DraftError::NotASigner`] if that is nothing.
    pub fn sign(
        &mut self,
        key: &SigningKey,
        state: Option<&State>,
    ) -> Result<Vec<RoleName>, DraftError> {
        let mut signed = Vec::new();
        let signs = |all: &[RoleKeys]| all.iter().any(|keys| keys.has(key.id()));
        let root_keys = self.root_keys(state);
        if let Some(root) = self.root.as_mut().filter(|_| signs(&root_keys)) {
            root.sign(key);
            signed.push(RoleName::root());
        }
        let keys: Vec<_> = self.roles.keys().map(|role| self.keys_of(role, state)).collect();
        for ((role, document), keys) in self.roles.iter_mut().zip(keys) {
            if signs(&keys) {
                document.sign(key);
                signed.push(role.clone());
            }
        }
        if signed.is_empty() {
            return Err(DraftError::NotASigner { key: key.id().clone() });
        }
        Ok(signed)
    }

    /// Takes over the signatures of a copy that was signed elsewhere.
    ///
    /// # Errors
    ///
    /// [`DraftError::Merge`] or [`DraftError::Differs`]; nothing is taken over.
    pub fn merge(&mut self, other: &Self) -> Result<(), DraftError> {
        let is_copy = self.files == other.files
            && self.root.is_some() == other.root.is_some()
            && self.roles.keys().eq(other.roles.keys());
        if !is_copy {
            return Err(DraftError::Differs);
        }
        let mut merged = self.clone();
        let failed = |role: &str| {
            let role = role.to_owned();
            move |source| DraftError::Merge { role, source }
        };
        if let (Some(root), Some(other)) = (&mut merged.root, &other.root) {
            root.merge(other).map_err(failed("root"))?;
        }
        for (role, document) in &mut merged.roles {
            document.merge(&other.roles[role]).map_err(failed(role.as_str()))?;
        }
        *self = merged;
        Ok(())
    }

    /// Returns what each document lacks, whether anything or nothing.
    pub fn lacks(&self, state: Option<&State>) -> Vec<Lack> {
        let lack = |role: RoleName,
                    keys: Vec<RoleKeys>,
                    of: &dyn Fn(&RoleKeys) -> (u64, Vec<KeyId>)| {
            let counted: Vec<_> = keys.iter().map(of).collect();
            let signatures = counted.iter().map(|(lacks, _)| *lacks).max();
            let mut signers: Vec<KeyId> = counted.into_iter().flat_map(|(_, who)| who).collect();
            signers.sort_unstable();
            signers.dedup();
            Lack { role, signatures, signers }
        };
        let root = self.root.iter().map(|root| {
            let of = |keys: &RoleKeys| (root.lacks(keys), root.signers(keys));
            lack(RoleName::root(), self.root_keys(state), &of)
        });
        let roles = self.roles.iter().map(|(role, document)| {
            let of = |keys: &RoleKeys| (document.lacks(keys), document.signers(keys));
            lack(role.clone(), self.keys_of(role, state), &of)
        });
        root.chain(roles).collect()
    }

    /// Returns what a role's new document says, before anybody has signed it.
    pub fn role(&self, role: &RoleName) -> Option<Targets> {
        self.roles.get(role).and_then(|document| document.proposed().ok())
    }

    /// Returns whether all that it would publish is published.
    pub fn is_published(&self, state: &State) -> bool {
        let root = self.root.as_ref().map(|root| root.bytes() == state.root.bytes());
        let roles = self.roles.iter().map(|(role, document)| {
            let published = match role.as_str() {
                "targets" => Some(&state.targets),
                _ => state.roles.get(role),
            };
            published.is_some_and(|published| published.bytes() == document.bytes())
        });
        root.into_iter().chain(roles).all(|is_published| is_published)
    }

    /// Returns the versions that its documents have.
    pub fn versions(&self) -> Vec<(RoleName, Version)> {
        let root = self.new_root().map(|root| (RoleName::root(), root.version()));
        let roles = self.roles.iter().filter_map(|(role, document)| {
            let document = document.proposed().ok()?;
            Some((role.clone(), document.version()))
        });
        root.into_iter().chain(roles).collect()
    }

    /// Returns the roles whose documents are in it, and the paths of its files.
    pub fn parts(&self) -> (Vec<RoleName>, Vec<&str>) {
        let root = self.root.iter().map(|_| RoleName::root());
        let roles = root.chain(self.roles.keys().cloned()).collect();
        (roles, self.files.keys().map(String::as_str).collect())
    }

    /// Returns an order file of it.
    pub fn file(&self, path: &str) -> Option<&Bytes> {
        self.files.get(path)
    }

    /// Whoever has to sign a new root: the keys of the one before, and its own.
    fn root_keys(&self, state: Option<&State>) -> Vec<RoleKeys> {
        let old = state.map(|state| state.root.keys_of(Kind::Root));
        old.into_iter().chain(self.new_root().map(|root| root.keys_of(Kind::Root))).collect()
    }

    fn keys_of(&self, role: &RoleName, state: Option<&State>) -> Vec<RoleKeys> {
        if *role == RoleName::targets() {
            let old = state.map(|state| state.root.keys_of(Kind::Targets));
            let new = self.new_root().map(|root| root.keys_of(Kind::Targets));
            return old.into_iter().chain(new).collect();
        }
        let new = self.role(&RoleName::targets());
        let Some(targets) = new.as_ref().or_else(|| state.map(|state| &*state.targets)) else {
            return Vec::new();
        };
        // What is signed along with it holds by then.
        let roles = self.roles.keys().filter(|role| mandate::directorate(role).is_some());
        let new: BTreeMap<_, _> =
            roles.filter_map(|role| Some((role.clone(), self.role(role)?))).collect();
        let published = |role: &RoleName| state.and_then(|state| state.roles.get(role));
        let mandates = Mandates::new(targets, |role, _| {
            new.get(role).or_else(|| published(role).map(Believed::document))
        });
        mandates.of(role).map(|mandate| mandate.keys()).into_iter().collect()
    }

    pub(crate) fn new_root(&self) -> Option<Root> {
        self.root.as_ref().and_then(|root| root.proposed().ok())
    }
}

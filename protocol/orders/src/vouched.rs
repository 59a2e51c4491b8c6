//! What a device believes of the orders, by type: documents that TUF vouches for.
//!
//! The way to a [`Vouched`] leads through a role's document that was believed, the path that the role names the
//! file by, and the digests that it gives for it. Whoever drives the manifest fetches the bytes and keeps them.

use jiff::Timestamp;
use sutler_protocol::manifest::signed::Believed;
use sutler_protocol::manifest::{Check, Expires, MismatchError, TargetPath, Targets, document};
use sutler_protocol::name::Label;

use crate::approvals::Approvals;
use crate::audience::Reached;
use crate::content::Content;
use crate::denial::BelievedDenial;
use crate::halts::Halts;
use crate::order::{Body, Order, OrderError, Place};
use crate::policies::Policies;
use crate::rings::Rings;
use crate::schedules::Schedules;
use crate::sites::Sites;
use crate::standing::Standing;

/// A document that a believed role vouches for, and until when.
#[derive(Clone, Debug, PartialEq)]
pub struct Vouched<T> {
    document: T,
    expires: Timestamp,
}

/// Why a file is none that a role vouches for.
#[derive(Debug, thiserror::Error)]
pub enum VouchError {
    /// The role names no such file.
    #[error("the role does not name {path}")]
    NotNamed {
        /// The file.
        path: TargetPath,
    },
    /// It is not the file that the role means.
    #[error("compare {path} with what its role says of it")]
    Mismatch {
        /// The file.
        path: TargetPath,
        /// What differs.
        source: MismatchError,
    },
    /// It is no order that is obeyed.
    #[error("read {path}")]
    Order {
        /// The file.
        path: TargetPath,
        /// What is wrong with it.
        source: OrderError,
    },
    /// A newer one was obeyed before (T1, T12).
    #[error("{path} has seq {found}, and {floor} was obeyed before")]
    Rollback {
        /// The file.
        path: TargetPath,
        /// What it says.
        found: u64,
        /// What was obeyed before.
        floor: u64,
    },
}

/// Everything that a device believes of its organisation's orders.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// The contents of every month's role.
    pub contents: Vec<Vouched<Content>>,
    /// The scopes, in the order in which the targets delegate to their approvals.
    pub scopes: Vec<Scope>,
    /// The site list.
    pub sites: Option<Vouched<Order<Sites>>>,
    /// The rings.
    pub rings: Option<Vouched<Order<Rings>>>,
    /// What control halts.
    pub halts: Option<Vouched<Order<Halts>>>,
    /// Free-standing denials, wherever they came from.
    pub denials: Vec<BelievedDenial>,
}

/// One scope with its orders. Of a role that cannot be believed now, the last document that was believed stays
/// here: what it stops must not start because somebody broke it.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name.
    pub name: Label,
    /// The devices that `approvals-SCOPE` reaches.
    pub reach: Reached,
    /// The devices that `schedules-SCOPE` reaches.
    pub schedules_reach: Reached,
    /// The approvers' decisions.
    pub approvals: Option<Vouched<Order<Approvals>>>,
    /// What silence approves.
    pub standing: Option<Vouched<Order<Standing>>>,
    /// How devices behave.
    pub policies: Option<Vouched<Order<Policies>>>,
    /// When they act.
    pub schedules: Option<Vouched<Order<Schedules>>>,
}

impl Orders {
    /// Returns the site list, where one is believed.
    pub fn sites(&self) -> Option<&Sites> {
        self.sites.as_ref().map(|sites| &sites.document().body)
    }

    /// Returns the rings, where they are believed.
    pub fn rings(&self) -> Option<&Rings> {
        self.rings.as_ref().map(|rings| &rings.document().body)
    }
}

impl<B: Body> Vouched<Order<B>> {
    /// Reads an order file that `role` vouches for. `floor` is the highest `seq` that was obeyed of this path, 0 if
    /// none was.
    ///
    /// # Errors
    ///
    /// [`VouchError`]; nothing of the file is believed.
    pub fn order(
        role: &Believed<Targets>,
        path: &TargetPath,
        bytes: &[u8],
        place: Place<'_>,
        floor: u64,
    ) -> Result<Self, VouchError> {
        let mismatch = |source| VouchError::Mismatch { path: path.clone(), source };
        let refused = |source| VouchError::Order { path: path.clone(), source };
        let file = role.file(path).ok_or_else(|| VouchError::NotNamed { path: path.clone() })?;
        let mut check = Check::new(file.length, &file.hashes).map_err(mismatch)?;
        check.update(bytes).map_err(mismatch)?;
        check.finish().map_err(mismatch)?;
        let order = Order::<B>::read(bytes).map_err(refused)?;
        order.belongs(place).map_err(refused)?;
        let found = order.head.seq;
        if found < floor {
            return Err(VouchError::Rollback { path: path.clone(), found, floor });
        }
        Ok(Self { document: order, expires: role.expires().instant() })
    }
}

impl Vouched<Content> {
    /// Returns the contents that a role `content-YYYY-MM` vouches for, and what is wrong with the other files that it
    /// names.
    pub fn contents(role: &Believed<Targets>) -> (Vec<Self>, Vec<VouchError>) {
        let expires = role.expires().instant();
        let (mut contents, mut errors) = (Vec::new(), Vec::new());
        for (path, file) in role.files() {
            match Content::of(&path, file) {
                Ok(document) => contents.push(Self { document, expires }),
                Err(source) => errors.push(VouchError::Order { path, source }),
            }
        }
        (contents, errors)
    }
}

impl<T> Vouched<T> {
    /// Lets it end with the document that gives its role the mandate, where that one expires first.
    #[must_use]
    pub fn at_most_until(mut self, expires: Option<Expires>) -> Self {
        self.expires = expires.map_or(self.expires, |at| self.expires.min(at.instant()));
        self
    }

    /// Takes a document that was not signed yet for one that was: to see what it would do. A device never
    /// calls it.
    pub fn assumed(document: T, expires: Timestamp) -> Self {
        Self { document, expires }
    }

    /// Returns the document.
    pub fn document(&self) -> &T {
        &self.document
    }

    /// Returns the instant at which its role expires.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// The newest timestamp that was verified: what ages the orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// When it was made.
    pub issued: Timestamp,
    /// When it expires: from then on the orders are stale.
    pub expires: Timestamp,
}

impl Statement {
    /// Returns what a believed timestamp states, or `None` if it does not say when it was made: such a one starts
    /// nothing.
    pub fn of(timestamp: &Believed<document::Timestamp>) -> Option<Self> {
        let issued = timestamp.issued()?;
        Some(Self { issued, expires: timestamp.expires().instant() })
    }
}

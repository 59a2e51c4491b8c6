//! Who may make tokens: the organisation's own authority, and the admins that the published targets name.
//!
//! Whoever publishes says who they are now. Tokens are judged when they are used: by one of an admin who was
//! removed since nobody joins any more.

use std::sync::{Arc, PoisonError, RwLock};

use sutler_swarm::enrol::TokenKeys;

/// Whose tokens count. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub struct TokenMakers(Arc<Makers>);

#[derive(Debug)]
struct Makers {
    authority: TokenKeys,
    now: RwLock<Arc<TokenKeys>>,
}

impl TokenMakers {
    /// Lets the authority's keys make tokens, and no admin yet.
    pub fn new(authority: TokenKeys) -> Self {
        let now = RwLock::new(Arc::new(authority.clone()));
        Self(Arc::new(Makers { authority, now }))
    }

    /// Lets these admins' Ed25519 keys make tokens beside the authority's, and no others any more.
    pub fn set_admins(&self, public_keys: impl IntoIterator<Item = [u8; 32]>) {
        let mut keys = self.0.authority.clone();
        for key in public_keys {
            keys.admin(key);
        }
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Returns whose tokens count now.
    pub(super) fn now(&self) -> Arc<TokenKeys> {
        // Whole whenever the lock is free: it is only ever replaced.
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

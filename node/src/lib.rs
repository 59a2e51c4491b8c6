//! The on-site manager.

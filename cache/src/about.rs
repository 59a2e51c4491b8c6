//! What is known of a content beside its bytes: its name, where it came from, its vendor's digest.
//!
//! All of it is a help and none of it is believed: bytes are checked against the content's id. So
//! what is too long for a record is left out instead of refused.

use sutler_protocol::{ContentId, Sha256Digest};

use crate::eviction::Day;

/// Bytes in a name, at most: what common file systems allow.
pub const NAME_BYTES_MAX: usize = 255;
/// Origins of one content, at most.
pub const ORIGINS_MAX: usize = 8;
/// Bytes in an origin's URL, at most.
pub const URL_BYTES_MAX: usize = 1024;
/// Bytes in an origin's validator, at most.
pub const VALIDATOR_BYTES_MAX: usize = 256;
/// Bytes in all origins together, at most, so that a record's slot holds them and a bitmap.
pub const ORIGINS_BYTES_MAX: usize = 5 * 1024;

/// What somebody says of a content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What its vendor calls the file.
    pub name: Option<String>,
    /// Where it can be had over HTTP.
    pub origins: Vec<Origin>,
    /// The digest that its vendor published. Checked before the content is complete.
    pub sha256: Option<Sha256Digest>,
    /// Who may have it from this store.
    pub offer: Offer,
}

/// Who may have a content from the store that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// Every peer that knows its id or digest.
    #[default]
    Peers,
    /// No peer: an HTTP cache holds it for its own clients, and nothing vouches for it.
    Nobody,
}

/// A place that answered with the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where.
    pub url: String,
    /// The `ETag` it answered with.
    pub etag: Option<String>,
    /// The `Last-Modified` it answered with.
    pub last_modified: Option<String>,
}

impl Origin {
    /// Returns the origin at `url`, with no validator.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), etag: None, last_modified: None }
    }

    /// Bytes that it takes in a record, its lengths included.
    fn record_bytes(&self) -> usize {
        let validator = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        6 + self.url.len() + validator(&self.etag) + validator(&self.last_modified)
    }
}

impl About {
    /// Returns what fits a record: long validators are dropped, then long URLs, then the origins
    /// beyond [`ORIGINS_MAX`] or [`ORIGINS_BYTES_MAX`], and a name is cut at [`NAME_BYTES_MAX`].
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(name) = &mut self.name {
            name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        }
        let fits = |text: &String| text.len() <= VALIDATOR_BYTES_MAX;
        let mut bytes = 0;
        self.origins.retain_mut(|origin| {
            origin.etag = origin.etag.take().filter(fits);
            origin.last_modified = origin.last_modified.take().filter(fits);
            let with_this = bytes + origin.record_bytes();
            let keep = origin.url.len() <= URL_BYTES_MAX && with_this <= ORIGINS_BYTES_MAX;
            if keep {
                bytes = with_this;
            }
            keep
        });
        self.origins.truncate(ORIGINS_MAX);
        self
    }

    /// Adds what `other` says and this does not. Of an origin that both know, the newer validators
    /// stay; of two digests the newer. What one of them offers is offered.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut origins = other.origins.clone();
        origins.extend(
            self.origins.drain(..).filter(|old| other.origins.iter().all(|new| new.url != old.url)),
        );
        let name = self.name.take().or_else(|| other.name.clone());
        let offer = match (self.offer, other.offer) {
            (Offer::Nobody, Offer::Nobody) => Offer::Nobody,
            _ => Offer::Peers,
        };
        *self = Self { name, origins, sha256: other.sha256.or(self.sha256), offer }.bounded();
    }
}

/// One content, as the store's list has it: as of its last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub id: ContentId,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes of it that are had.
    pub had_bytes: u64,
    /// Whether all of it is had, durable, and agrees with its vendor's digest.
    pub complete: bool,
    /// What its vendor calls it.
    pub name: Option<String>,
    /// When it was last opened.
    pub last_access: Day,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_a_record_is_left_out() {
        let long = "x".repeat(URL_BYTES_MAX + 1);
        let about = About {
            name: Some("é".repeat(200)),
            origins: (0..20)
                .map(|number| Origin {
                    url: format!("http://vendor.example/{number}/{}", "p".repeat(700)),
                    etag: Some(long.clone()),
                    last_modified: None,
                })
                .chain([Origin::at(long.clone())])
                .collect(),
            ..About::default()
        }
        .bounded();
        assert_eq!(about.name.map(|name| name.len()), Some(254));
        assert!(about.origins.len() < ORIGINS_MAX);
        assert!(about.origins.iter().all(|origin| origin.etag.is_none()));
        assert!(about.origins.iter().map(Origin::record_bytes).sum::<usize>() <= ORIGINS_BYTES_MAX);
    }

    #[test]
    fn merging_keeps_the_newer_validators_of_an_origin() {
        let mut about =
            About { origins: vec![Origin::at("a"), Origin::at("b")], ..About::default() };
        let newer = Origin { url: "b".into(), etag: Some("2".into()), last_modified: None };
        let other =
            About { name: Some("n".into()), origins: vec![newer.clone()], ..About::default() };
        about.merge(&other);
        assert_eq!(about.origins, [newer, Origin::at("a")]);
        assert_eq!(about.name.as_deref(), Some("n"));
    }

    #[test]
    fn what_was_for_nobody_is_offered_once_somebody_offers_it_and_never_withdrawn() {
        let held_back = About { offer: Offer::Nobody, ..About::default() };
        let mut about = held_back.clone();
        about.merge(&held_back);
        assert_eq!(about.offer, Offer::Nobody);
        about.merge(&About::default());
        assert_eq!(about.offer, Offer::Peers);
        about.merge(&held_back);
        assert_eq!(about.offer, Offer::Peers);
    }
}

//! What the orders say of contents that this machine has never seen, so that it can fill one for the first
//! device that asks.
//!
//! Bytes come from the vendor's places that the orders name, as far as the config allows them, and from
//! those whose orders are followed: control has the bytes of what has no vendor's place. Whoever sends them, the
//! content's name decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sutler_cache::{About, Origin};
use sutler_orders::Content;
use sutler_protocol::ContentId;
use sutler_protocol::manifest::Version;
use sutler_swarm::SourceAddress;
use sutler_swarm::orders::{Board, Manifest};
use tracing::debug;
use url::Url;

/// Where the contents' targets lie.
const FOLDER: &str = "content/";

/// The contents that the orders of a board name.
pub(crate) struct Catalogue {
    board: Board,
    sources: Vec<SocketAddr>,
    read: Mutex<Read>,
}

/// The contents of one manifest.
#[derive(Default)]
struct Read {
    version: Option<Version>,
    contents: Arc<BTreeMap<ContentId, About>>,
}

impl Catalogue {
    /// Returns the catalogue of `board`, whose orders come from `sources`.
    pub(crate) fn new(board: Board, sources: Vec<SocketAddr>) -> Self {
        Self { board, sources, read: Mutex::default() }
    }

    /// Returns what is known of a content that the orders name, and where it may be had.
    pub(crate) fn find(&self, id: ContentId) -> Option<(About, Vec<SourceAddress>)> {
        let about = self.contents()?.get(&id)?.clone();
        let origins = about.origins.iter().filter_map(|origin| Url::parse(&origin.url).ok());
        let sources = self.sources.iter().copied().map(SourceAddress::Peer);
        let sources = sources.chain(origins.map(SourceAddress::Origin)).collect();
        Some((about, sources))
    }

    fn contents(&self) -> Option<Arc<BTreeMap<ContentId, About>>> {
        let manifest = self.board.manifest().borrow().clone()?;
        // Read anew where a panic elsewhere left it half read.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.version != Some(manifest.statement.version) {
            let contents = Arc::new(contents(&manifest));
            *read = Read { version: Some(manifest.statement.version), contents };
        }
        Some(Arc::clone(&read.contents))
    }
}

fn contents(manifest: &Manifest) -> BTreeMap<ContentId, About> {
    let mut contents = BTreeMap::new();
    for path in manifest.roles.paths() {
        if !path.as_str().starts_with(FOLDER) {
            continue;
        }
        let Ok(Some(found)) = manifest.roles.find(&path) else { continue };
        match Content::of(&path, &found.file) {
            Ok(content) => {
                let about = About {
                    name: Some(content.about.name.to_string()),
                    origins: content
                        .about
                        .origins
                        .iter()
                        .map(|url| Origin::at(url.as_str()))
                        .collect(),
                    sha256: Some(content.bytes.sha256),
                    ..About::default()
                };
                contents.insert(content.bytes.blake3, about);
            }
            Err(error) => debug!(%path, %error, "the orders name no content there"),
        }
    }
    contents
}

//! Files that a user takes in from a URL, and what an interruption of that costs.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sutler_node::config::StoreConfig;
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::{AddUrl, StoreOwner};
use sutler_node::owner::{Bringer, OpenStore};
use sutler_node::report::Added;
use sutler_protocol::ContentId;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::origin::Origin;
use super::site::{Site, bytes, origins, sha256};

const LEN: usize = 4 << 20;
const HALF: u64 = (LEN / 2) as u64;

/// Where a user's store lies, and what it may ask.
struct User {
    folder: PathBuf,
    origins: sutler_swarm::origin::Origins,
}

impl User {
    fn new(site: &Site, origin: &Origin) -> Self {
        Self { folder: site.folder(), origins: origins(&[origin]) }
    }

    /// As `sutler add URL`: opens the store, takes the file in, and closes it. Stops when as many
    /// bytes have come as `until` says.
    async fn add(&self, url: &Url, hex: Option<String>, until: u64) -> Result<Added, Failure> {
        let bringer = Bringer {
            runtime: Handle::current(),
            fetcher: None,
            origins: Some(self.origins.clone()),
            stop: CancellationToken::new(),
        };
        let (folder, request) = (self.folder.clone(), AddUrl { url: url.to_string(), sha256: hex });
        let adding = move || {
            let data = DataFolder::new(&folder);
            let store = OpenStore::open(data, &StoreConfig::default()).unwrap();
            let store = store.with_bringer(bringer);
            store.add_url(&request, &mut |progress| {
                if progress.bytes_had >= until {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
        };
        tokio::task::spawn_blocking(adding).await.unwrap()
    }

    /// As [`Self::add`], cut off after half of the file, and then again.
    async fn add_twice(&self, origin: &Origin, between: impl FnOnce()) -> Result<Added, Failure> {
        let url = origin.url("/pool/a.deb");
        origin.hold_from(HALF);
        let stopped = self.add(&url, None, HALF).await.unwrap_err();
        assert_eq!(stopped.kind, Kind::Interrupted);
        origin.let_go();
        between();
        self.add(&url, None, u64::MAX).await
    }
}

fn quarantined(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("store/quarantine")).unwrap().count()
}

fn is(added: &Result<Added, Failure>, file: &[u8]) {
    let added = added.as_ref().unwrap();
    assert_eq!(added.content, ContentId::of(file).to_string());
    assert_eq!((added.bytes, added.name.as_deref()), (file.len() as u64, Some("a.deb")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_file_from_a_url_is_gone_on_with_where_its_origin_vouches_for_the_version() {
    let (site, file) = (Site::new(), bytes(LEN, 1));
    let origin = Origin::with(&[("/pool/a.deb", &file)]).await;
    let user = User::new(&site, &origin);
    is(&user.add_twice(&origin, || ()).await, &file);
    assert_eq!(origin.ranges(), [None, Some(format!("bytes={HALF}-"))]);
    assert_eq!(quarantined(&user.folder), 0);
    // Whatever is there now is what is asked for, and it is here already.
    let again = user.add(&origin.url("/pool/a.deb"), None, u64::MAX).await;
    assert!(again.as_ref().unwrap().existed);
    is(&again, &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_whose_version_nobody_vouches_for_is_begun_anew() {
    let (site, old, new) = (Site::new(), bytes(LEN, 2), bytes(LEN, 3));
    let origin = Origin::with(&[]).await;
    origin.put("/pool/a.deb", &old, None);
    let user = User::new(&site, &origin);
    let changed = || origin.put("/pool/a.deb", &new, None);
    is(&user.add_twice(&origin, changed).await, &new);
    assert_eq!(origin.ranges(), [None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_changed_meanwhile_is_begun_anew() {
    let (site, old, new) = (Site::new(), bytes(LEN, 4), bytes(LEN - 5, 5));
    let origin = Origin::with(&[("/pool/a.deb", &old)]).await;
    let user = User::new(&site, &origin);
    let changed = || origin.put("/pool/a.deb", &new, Some("v2"));
    is(&user.add_twice(&origin, changed).await, &new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_download_that_breaks_off_goes_on_by_itself_and_never_mixes_versions() {
    for tag in [Some("v1"), None] {
        let (site, file) = (Site::new(), bytes(LEN, 6));
        let origin = Origin::with(&[]).await;
        origin.put("/pool/a.deb", &file, tag);
        origin.cut_at(HALF);
        let user = User::new(&site, &origin);
        is(&user.add(&origin.url("/pool/a.deb"), None, u64::MAX).await, &file);
        let second = tag.map(|_| format!("bytes={HALF}-"));
        assert_eq!(origin.ranges(), [None, second]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_file_with_a_digest_is_gone_on_with_whatever_its_origin_says() {
    let (site, file) = (Site::new(), bytes(LEN, 7));
    let origin = Origin::with(&[]).await;
    origin.put("/pool/a.deb", &file, None);
    let user = User::new(&site, &origin);
    let (url, hex) = (origin.url("/pool/a.deb"), sha256(&file).to_string());
    origin.hold_from(HALF);
    user.add(&url, Some(hex.clone()), HALF).await.unwrap_err();
    origin.let_go();
    is(&user.add(&url, Some(hex), u64::MAX).await, &file);
    assert_eq!(origin.ranges(), [None, Some(format!("bytes={HALF}-"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R39
async fn a_file_of_another_digest_is_refused_and_nothing_of_it_is_kept() {
    let (site, file) = (Site::new(), bytes(LEN, 8));
    let origin = Origin::with(&[("/pool/a.deb", &file)]).await;
    let user = User::new(&site, &origin);
    let hex = sha256(b"something else").to_string();
    let failure = user.add(&origin.url("/pool/a.deb"), Some(hex), u64::MAX).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Corrupt);
    assert_eq!(quarantined(&user.folder), 0);
    let gone = user.add(&origin.url("/pool/b.deb"), None, u64::MAX).await.unwrap_err();
    assert_eq!(gone.kind, Kind::UnknownContent);
}

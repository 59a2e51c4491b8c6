//! Files that only their vendor's digest names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sutler_cache::{About, Content};
use sutler_node::fill::Keep;
use sutler_protocol::frame::{Class, Refusal};
use sutler_protocol::{ChunkIndex, ContentId, HashListBuilder, Sha256Digest};
use sutler_swarm::fetch::Progress;
use sutler_swarm::gateway::{Filled, Served};
use sutler_swarm::peer::RequestError;
use sutler_swarm::{FetchError, Gateway, StoreGateway};
use tokio::sync::watch;
use url::Url;

use super::origin::Origin;
use super::site::{Machine, Site, brought, bytes, eventually, failed, sha256, wanted};

const LEN: usize = 4 << 20;
const HALF: u64 = (LEN / 2) as u64;

/// Says of every digest that it is this content's.
struct Liar {
    plain: StoreGateway,
    says: (ContentId, u64),
}

impl Gateway for Liar {
    async fn open(&self, id: ContentId, class: Class) -> Result<Served, Refusal> {
        self.plain.open(id, class).await
    }

    async fn held(&self, id: ContentId) -> Result<Served, Refusal> {
        self.plain.held(id).await
    }

    async fn resolve(
        &self,
        _: Sha256Digest,
        _: Url,
        _: Class,
        _: watch::Sender<Filled>,
    ) -> Result<(ContentId, u64), Refusal> {
        Ok(self.says)
    }

    fn damaged(&self, id: ContentId, chunk: ChunkIndex) {
        self.plain.damaged(id, chunk);
    }
}

/// Is busy a few times before it answers.
struct Busy {
    plain: StoreGateway,
    says: (ContentId, u64),
    times_left: AtomicU32,
}

impl Busy {
    fn is_busy(&self) -> Result<(), Refusal> {
        let less = |left: u32| left.checked_sub(1);
        match self.times_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(Refusal::Busy { retry_ms: 10 }),
            Err(_) => Ok(()),
        }
    }
}

impl Gateway for Busy {
    async fn open(&self, id: ContentId, class: Class) -> Result<Served, Refusal> {
        self.is_busy()?;
        self.plain.open(id, class).await
    }

    async fn held(&self, id: ContentId) -> Result<Served, Refusal> {
        self.plain.held(id).await
    }

    async fn resolve(
        &self,
        _: Sha256Digest,
        _: Url,
        _: Class,
        _: watch::Sender<Filled>,
    ) -> Result<(ContentId, u64), Refusal> {
        self.is_busy()?;
        self.times_left.store(3, Ordering::SeqCst);
        Ok(self.says)
    }

    fn damaged(&self, id: ContentId, chunk: ChunkIndex) {
        self.plain.damaged(id, chunk);
    }
}

fn liar(site: &Site, file: &[u8]) -> (Machine, ContentId) {
    let says = (ContentId::of(file), file.len() as u64);
    let liar = site.node_of(|plain| Liar { plain, says });
    liar.import(file, None);
    (liar, says.0)
}

/// Returns the refusal that a fetch by digest ended with.
fn refused(error: FetchError) -> Refusal {
    match error {
        FetchError::Resolve { source: RequestError::Refused(refusal), .. } => refusal,
        other => panic!("{other}: {:?}", std::error::Error::source(&other)),
    }
}

fn quarantined(machine: &Machine) -> usize {
    std::fs::read_dir(machine.dir.join("store/quarantine")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D2, R33
async fn a_vendors_file_is_fetched_once_for_two_who_ask_at_once() {
    let (site, file) = (Site::new(), bytes(LEN, 1));
    let origin = Origin::with(&[("/pool/file.deb", &file)]).await;
    let node = site.node(&origin);
    let (one, other) = (site.agent(), site.agent());
    let (digest, url) = (sha256(&file), origin.url("/pool/file.deb"));
    let from = [&node.machine];
    let (one, other) = tokio::join!(
        one.fetch_vendor(digest, &url, &from),
        other.fetch_vendor(digest, &url, &from)
    );
    brought(one, &file);
    brought(other, &file);
    assert_eq!(origin.sent(), LEN as u64);
    assert_eq!(node.machine.counters.fetched_vendor_bytes.value(), LEN as u64);
    let content = node.machine.store.content(ContentId::of(&file)).unwrap().unwrap();
    assert_eq!(content.about().name.as_deref(), Some("file.deb"));
    assert_eq!(content.about().origins[0].etag.as_deref(), Some("\"v1\""));
    assert_eq!(node.machine.store.by_digest(digest), Some(content.id()));
    // Who comes later, and names the content itself, meets it as any other.
    brought(site.agent().fetch(content.id(), &from).await, &file);
    assert_eq!(origin.sent(), LEN as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_vendors_file_hears_how_far_the_node_is() {
    let (site, file) = (Site::new(), bytes(LEN, 20));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    origin.hold_from(HALF);
    let (agent, from) = (site.agent(), [&node.machine]);
    let progress = watch::Sender::new(Progress::default());
    let mut seen = progress.subscribe();
    let (digest, url) = (sha256(&file), origin.url("/file"));
    let wanted = wanted(ContentId::of(b""), &from);
    let letting_go = async {
        let upstream = seen.wait_for(|progress| progress.is_upstream).await.unwrap().clone();
        assert_eq!(upstream.len, Some(LEN as u64));
        assert!((1..=HALF).contains(&upstream.have_bytes), "{upstream:?}");
        origin.let_go();
    };
    let fetching = agent.fetcher.fetch_vendor(digest, &url, wanted, &progress);
    let (fetched, ()) = tokio::join!(fetching, letting_go);
    brought(fetched, &file);
    assert!(!seen.borrow_and_update().is_upstream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T16
async fn a_url_that_is_not_allowed_is_not_asked_for() {
    let (site, file) = (Site::new(), bytes(LEN, 2));
    let (origin, other) = (Origin::with(&[]).await, Origin::with(&[("/file", &file)]).await);
    let node = site.node(&origin);
    let fetched =
        site.agent().fetch_vendor(sha256(&file), &other.url("/file"), &[&node.machine]).await;
    assert_eq!(refused(fetched.err().unwrap()), Refusal::OriginNotAllowed);
    assert_eq!(other.ranges().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, R39
async fn a_file_of_another_digest_is_refused_and_nothing_of_it_is_kept() {
    let (site, file) = (Site::new(), bytes(LEN, 3));
    let origin = Origin::with(&[("/file", &bytes(LEN, 4))]).await;
    let node = site.node(&origin);
    let (digest, url) = (sha256(&file), origin.url("/file"));
    let fetched = site.agent().fetch_vendor(digest, &url, &[&node.machine]).await;
    assert_eq!(refused(fetched.err().unwrap()), Refusal::DigestDiffers);
    assert_eq!(node.machine.store.list(), []);
    assert_eq!(node.machine.store.usage().used_bytes, 0);
    assert_eq!(quarantined(&node.machine), 0);
    // The next who asks is told at once.
    let fetched = site.agent().fetch_vendor(digest, &url, &[&node.machine]).await;
    assert_eq!(refused(fetched.err().unwrap()), Refusal::DigestDiffers);
    assert_eq!(origin.sent(), LEN as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_place_for_a_file_does_not_spoil_the_right_one() {
    let (site, file) = (Site::new(), bytes(LEN, 5));
    let origin = Origin::with(&[("/file", &file), ("/wrong", &bytes(LEN, 6))]).await;
    let node = site.node(&origin);
    origin.hold_from(HALF);
    let (hostile, honest) = (site.agent(), site.agent());
    let (digest, from) = (sha256(&file), [&node.machine]);
    let wrong = origin.url("/wrong");
    let right = origin.url("/file");
    let honest_after = async {
        eventually("the wrong one is begun", || node.filler.running() == 1).await;
        let fetching = honest.fetch_vendor(digest, &right, &from);
        let letting_go = async { origin.let_go() };
        tokio::join!(fetching, letting_go).0
    };
    let (hostile, honest) = tokio::join!(hostile.fetch_vendor(digest, &wrong, &from), honest_after);
    assert_eq!(refused(hostile.err().unwrap()), Refusal::DigestDiffers);
    brought(honest, &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn an_origin_that_dies_half_way_is_gone_on_with_where_it_was() {
    let (site, file) = (Site::new(), bytes(LEN, 7));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    origin.cut_at(HALF);
    let fetched =
        site.agent().fetch_vendor(sha256(&file), &origin.url("/file"), &[&node.machine]).await;
    brought(fetched, &file);
    assert_eq!(origin.ranges(), [None, Some(format!("bytes={HALF}-"))]);
    assert_eq!(origin.sent(), LEN as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_origin_without_ranges_is_read_from_the_start_again() {
    let (site, file) = (Site::new(), bytes(LEN, 8));
    let origin = Origin::with(&[("/file", &file)]).await;
    origin.without_ranges();
    origin.cut_at(HALF);
    let node = site.node(&origin);
    let fetched =
        site.agent().fetch_vendor(sha256(&file), &origin.url("/file"), &[&node.machine]).await;
    brought(fetched, &file);
    assert_eq!(origin.sent(), LEN as u64 + HALF);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_changes_on_the_way_is_begun_anew() {
    let (site, old, new) = (Site::new(), bytes(LEN, 9), bytes(LEN, 10));
    // With tags the change is seen; without, the parts do not fit, and the whole is read once more.
    for (old_tag, new_tag) in [(Some("v1"), Some("v2")), (None, None)] {
        let origin = Origin::with(&[]).await;
        origin.put("/file", &old, old_tag);
        let node = site.node(&origin);
        origin.cut_at(HALF);
        let changing = async {
            eventually("half was sent", || origin.sent() == HALF).await;
            origin.put("/file", &new, new_tag);
        };
        let (agent, url, from) = (site.agent(), origin.url("/file"), [&node.machine]);
        let (fetched, ()) = tokio::join!(agent.fetch_vendor(sha256(&new), &url, &from), changing);
        brought(fetched, &new);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R34
async fn a_node_that_is_stopped_half_way_goes_on_where_it_was() {
    let (site, file) = (Site::new(), bytes(LEN, 11));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    origin.hold_from(HALF);
    let filled = watch::Sender::new(Filled::default());
    let mut seen = filled.subscribe();
    let (digest, url) = (sha256(&file), origin.url("/file"));
    tokio::select! {
        resolved = node.filler.resolve(digest, url.clone(), Class::Normal, filled) => {
            panic!("half is held back: {resolved:?}");
        }
        some = seen.wait_for(|filled| filled.have > 0) => {
            assert_eq!(some.unwrap().len, Some(LEN as u64));
        }
    }
    let dir = node.stop().await;
    origin.let_go();
    let node = site.node_in(&dir, &origin, Keep::Yes, None);
    brought(site.agent().fetch_vendor(digest, &url, &[&node.machine]).await, &file);
    let range = origin.ranges()[1].clone().expect("it asks for the rest");
    let from: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 0 && from <= HALF, "{range}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_does_not_fit_the_store_is_refused() {
    let (site, file) = (Site::new(), bytes(LEN, 12));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node_in(&site.folder(), &origin, Keep::Yes, Some(HALF));
    let why = failed(
        site.agent().fetch_vendor(sha256(&file), &origin.url("/file"), &[&node.machine]).await,
    );
    assert!(why.contains("make room"), "{why}");
    assert_eq!(node.machine.store.usage().used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, R39
async fn a_node_that_names_another_content_is_found_out() {
    let (site, file, other) = (Site::new(), bytes(LEN, 13), bytes(LEN, 14));
    let (liar, lie) = liar(&site, &other);
    let (agent, url) = (site.agent(), "http://vendor.example/file".parse().unwrap());
    let error = agent.fetch_vendor(sha256(&file), &url, &[&liar]).await.err().unwrap();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    assert_eq!((agent.store.list(), agent.store.by_digest(sha256(&file))), (vec![], None));
    assert!(agent.store.content(lie).unwrap().is_none());
    let unknown = failed(site.agent().fetch(lie, &[&agent]).await);
    assert!(unknown.contains("not known"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, R39
async fn a_node_that_names_a_content_which_is_here_already_is_found_out_too() {
    let (site, file, other) = (Site::new(), bytes(LEN, 15), bytes(LEN, 16));
    let (liar, lie) = liar(&site, &other);
    let url = "http://vendor.example/file".parse().unwrap();
    let agent = site.agent();
    agent.import(&other, None);
    let error = agent.fetch_vendor(sha256(&file), &url, &[&liar]).await.err().unwrap();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    let content = agent.store.content(lie).unwrap().unwrap();
    assert!(content.is_complete(), "what is right stays");
    assert_eq!(agent.store.by_digest(sha256(&file)), None);

    let agent = site.agent();
    agent.import(&other, None);
    agent.store.evict(lie).unwrap();
    let error = agent.fetch_vendor(sha256(&file), &url, &[&liar]).await.err().unwrap();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    assert_eq!(agent.had_bytes(lie), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_busy_is_asked_again() {
    let (site, file) = (Site::new(), bytes(LEN, 21));
    let says = (ContentId::of(&file), file.len() as u64);
    let node = site.node_of(|plain| Busy { plain, says, times_left: AtomicU32::new(3) });
    node.import(&file, None);
    let url = "http://vendor.example/file".parse().unwrap();
    brought(site.agent().fetch_vendor(sha256(&file), &url, &[&node]).await, &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7
async fn the_next_node_is_asked_where_one_has_lied() {
    let (site, file) = (Site::new(), bytes(LEN, 17));
    let (liar, _) = liar(&site, &bytes(LEN, 18));
    let origin = Origin::with(&[("/file", &file)]).await;
    let node = site.node(&origin);
    let from = [&liar, &node.machine];
    brought(site.agent().fetch_vendor(sha256(&file), &origin.url("/file"), &from).await, &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T7, R39
async fn what_awaits_its_digest_is_served_to_nobody() {
    let (site, file) = (Site::new(), Arc::new(bytes(LEN, 19)));
    let agent = site.agent();
    let mut builder = HashListBuilder::new();
    builder.update(&file);
    let about = About { sha256: Some(sha256(&file)), ..About::default() };
    let content: Content = agent.store.create(builder.finish().unwrap(), &about).unwrap();
    content.commit(ChunkIndex(0), &file[..65_536]).unwrap();
    let unknown = failed(site.agent().fetch(content.id(), &[&agent]).await);
    assert!(unknown.contains("not known"), "{unknown}");
    for (index, chunk) in (0..).zip(file.chunks(65_536)) {
        content.commit(ChunkIndex(index), chunk).unwrap();
    }
    agent.store.complete(std::slice::from_ref(&content)).unwrap();
    brought(site.agent().fetch(content.id(), &[&agent]).await, &file);
}

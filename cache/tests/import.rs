//! Taking files in: once, checked, and without trusting the user's copy afterwards.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sutler_cache::import::{ImportError, ImportFrom, ImportHow, Imported, Novelty};
use sutler_cache::{About, Origin, Store, StoreOptions};
use sutler_protocol::{ContentId, Sha256Digest};

const HOWS: [ImportHow; 3] = [ImportHow::Copy, ImportHow::Reflink, ImportHow::HardLink];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn store(&self) -> Store {
        self.store_of(StoreOptions::default())
    }

    fn store_of(&self, options: StoreOptions) -> Store {
        Store::open(&self.0.path().join("store"), options).expect("the store opens")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    fn left_over(&self) -> usize {
        fs::read_dir(self.0.path().join("store/quarantine")).expect("listed").count()
    }
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().expect("32 bytes"))
}

fn import(
    store: &Store,
    path: &Path,
    how: ImportHow,
    about: &About,
) -> Result<Imported, ImportError> {
    let file = File::open(path).expect("opened");
    store.import(ImportFrom::File { file: &file, path, how }, about)
}

fn whole(store: &Store, id: ContentId) -> Vec<u8> {
    let content = store.content(id).expect("opened").expect("known");
    let mut bytes = vec![0; content.geometry().len() as usize];
    content.read(0..bytes.len() as u64, &mut bytes).expect("read");
    bytes
}

#[test]
fn a_file_of_any_size_comes_in_complete_and_survives_a_restart_in_every_way() {
    for (seed, how) in (0u8..).zip(HOWS) {
        let folder = Folder::new();
        for len in [0, 1, 65_536, 65_537, 3 << 20] {
            let data = bytes(len, seed);
            let path = folder.file("source", &data);
            let store = folder.store();
            let imported = import(&store, &path, how, &About::default()).expect("imported");
            assert_eq!(imported.novelty, Novelty::New);
            assert!(imported.content.is_complete());
            assert_eq!(imported.content.id(), ContentId::of(&data), "{how:?} {len}");
            drop((imported, store));
            let store = folder.store();
            assert_eq!(whole(&store, ContentId::of(&data)), data);
            assert_eq!(folder.left_over(), 0);
            fs::remove_file(path).expect("removed");
        }
    }
}

#[test]
fn a_stream_comes_in_like_a_file() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(5_000_001, 1);
    let mut stream = &data[..];
    let about = About { sha256: Some(sha256(&data)), ..About::default() };
    let imported = store.import(ImportFrom::Stream(&mut stream), &about).expect("imported");
    assert_eq!(whole(&store, imported.content.id()), data);
    assert_eq!(store.by_digest(sha256(&data)), Some(ContentId::of(&data)));
    assert_eq!(store.usage().used_bytes, 5_000_001);
    assert_eq!(store.usage().reserved_bytes, 0);
}

#[test]
fn a_known_content_is_not_stored_twice_and_learns_what_is_new_about_it() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(1 << 20, 2);
    let path = folder.file("source", &data);
    let first = About { name: Some("a.deb".into()), ..About::default() };
    import(&store, &path, ImportHow::Copy, &first).expect("imported");
    let second = About {
        name: Some("b.deb".into()),
        origins: vec![Origin::at("https://vendor.example/a.deb")],
        sha256: Some(sha256(&data)),
        ..About::default()
    };
    let imported = import(&store, &path, ImportHow::Copy, &second).expect("imported");
    assert_eq!(imported.novelty, Novelty::Known);
    assert_eq!(store.usage().used_bytes, 1 << 20);
    assert_eq!(folder.left_over(), 0);
    let id = imported.content.id();
    drop((imported, store));
    let store = folder.store();
    assert_eq!(store.by_url("https://vendor.example/a.deb"), Some(id));
    assert_eq!(store.by_digest(sha256(&data)), Some(id));
    assert_eq!(store.list()[0].name.as_deref(), Some("a.deb"));
}

#[test]
fn a_partly_fetched_content_is_completed_by_the_file() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(1 << 20, 3);
    let mut builder = sutler_protocol::HashListBuilder::new();
    builder.update(&data);
    let hashes = builder.finish().expect("short");
    let content = store.create(hashes, &About::default()).expect("made");
    content.commit(sutler_protocol::ChunkIndex(3), &data[3 << 16..5 << 16]).expect("committed");
    let path = folder.file("source", &data);
    import(&store, &path, ImportHow::Reflink, &About::default()).expect("imported");
    assert!(content.is_complete(), "who held it sees it complete");
    assert_eq!(store.usage().used_bytes, 1 << 20);
    assert_eq!(whole(&store, content.id()), data);
}

// R39
#[test]
fn a_wrong_vendor_digest_is_refused_and_nothing_stays() {
    let folder = Folder::new();
    let store = folder.store();
    for len in [100, 1 << 20] {
        let path = folder.file("source", &bytes(len, 4));
        let about = About { sha256: Some(sha256(b"something else")), ..About::default() };
        let refused = import(&store, &path, ImportHow::Copy, &about);
        assert!(matches!(refused, Err(ImportError::Digest { .. })), "{refused:?}");
    }
    assert!(store.list().is_empty());
    assert_eq!(store.usage().used_bytes + store.usage().reserved_bytes, 0);
    assert_eq!(folder.left_over(), 0);
}

#[test]
fn a_folder_and_a_vanished_file_are_named() {
    let folder = Folder::new();
    let store = folder.store();
    let refused = import(&store, folder.0.path(), ImportHow::Copy, &About::default());
    let error = refused.expect_err("a folder");
    assert!(matches!(error, ImportError::NotAFile { .. }));
    assert!(error.to_string().contains(folder.0.path().to_str().expect("ASCII")));
}

#[test]
fn a_stream_that_breaks_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(2 << 20, 5);
    let mut stream = (&data[..]).chain(Broken);
    let refused = store.import(ImportFrom::Stream(&mut stream), &About::default());
    assert!(matches!(refused, Err(ImportError::Read { .. })));
    assert_eq!(folder.left_over(), 0);
    assert_eq!(store.usage().reserved_bytes, 0);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_refused_by_name() {
    let folder = Folder::new();
    let store = folder.store();
    let path = folder.file("growing", &bytes(24 << 20, 6));
    let (began, beginning) = std::sync::mpsc::channel();
    let writer = path.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let growing = std::thread::spawn(move || {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).open(writer).expect("opened");
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            file.write_all(&[0; 64]).expect("appended");
            // Who waits for it listens to the first alone.
            began.send(()).unwrap_or_default();
        }
    });
    beginning.recv().expect("it grows");
    let refused = import(&store, &path, ImportHow::Copy, &About::default());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    growing.join().expect("joined");
    match refused {
        Err(error @ ImportError::Changed { .. }) => {
            assert!(error.to_string().contains("growing"));
            assert!(store.list().is_empty());
        }
        other => panic!("{other:?}"),
    }
}

// R32
#[test]
fn what_does_not_fit_the_quota_is_refused_before_it_is_read() {
    let folder = Folder::new();
    let bytes_max = std::num::NonZeroU64::new(1 << 20);
    let store = folder.store_of(StoreOptions { bytes_max, free_bytes_min: 0 });
    let path = folder.file("source", &bytes(2 << 20, 7));
    let refused = import(&store, &path, ImportHow::Copy, &About::default());
    assert!(matches!(refused, Err(ImportError::Full { .. })), "{refused:?}");
    let mut stream = io::repeat(1).take(3 << 20);
    let refused = store.import(ImportFrom::Stream(&mut stream), &About::default());
    assert!(matches!(refused, Err(ImportError::Full { .. })), "{refused:?}");
}

// R38
#[test]
fn a_hard_linked_file_is_never_written_to() {
    let folder = Folder::new();
    let data = bytes(1 << 20, 8);
    let path = folder.file("users", &data);
    let id = {
        let store = folder.store();
        let imported = import(&store, &path, ImportHow::HardLink, &About::default());
        imported.expect("imported").content.id()
    };
    let mut spoiled = data.clone();
    spoiled[70_000] ^= 1;
    spoiled.extend_from_slice(b"and more");
    fs::write(&path, &spoiled).expect("the user changes the file");

    let store = folder.store();
    let content = store.content(id).expect("opened").expect("known");
    let mut buffer = vec![0; 1 << 16];
    assert!(content.read(1 << 16..2 << 16, &mut buffer).is_err(), "noticed");
    let chunk = sutler_protocol::ChunkIndex(1);
    content.commit(chunk, &data[1 << 16..2 << 16]).expect("fetched again");
    store.complete(std::slice::from_ref(&content)).expect("complete again");
    assert_eq!(whole(&store, id), data);
    assert_eq!(fs::read(&path).expect("read"), spoiled, "the user's file is as they left it");
}

#[test]
fn what_a_killed_import_left_is_swept_at_the_next_start() {
    let folder = Folder::new();
    drop(folder.store());
    fs::write(folder.0.path().join("store/quarantine/import-0"), b"half").expect("written");
    drop(folder.store());
    assert_eq!(folder.left_over(), 0);
}

#[test]
fn small_files_share_a_barrier_when_they_are_staged() {
    let folder = Folder::new();
    let store = folder.store();
    let staged: Vec<_> = (0..20)
        .map(|seed| {
            let data = bytes(4096, seed);
            let mut stream = &data[..];
            store.stage(ImportFrom::Stream(&mut stream), &About::default()).expect("staged").content
        })
        .collect();
    assert!(staged.iter().all(|content| !content.is_complete()));
    store.complete(&staged).expect("complete");
    assert!(staged.iter().all(sutler_cache::Content::is_complete));
}

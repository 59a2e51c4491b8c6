//! Handing contents out: whole, verified, and only where the user pointed.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sutler_cache::export::{ExportError, ExportHow};
use sutler_cache::import::{ImportFrom, ImportHow};
use sutler_cache::{About, Content, ReadError, Store, StoreOptions};

const HOWS: [ExportHow; 2] = [ExportHow::Copy, ExportHow::HardLink];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store"), StoreOptions::default()).expect("the store opens")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn imported(&self, store: &Store, bytes: &[u8]) -> Content {
        let path = self.path("source");
        fs::write(&path, bytes).expect("written");
        let file = File::open(&path).expect("opened");
        let from = ImportFrom::File { file: &file, path: &path, how: ImportHow::Copy };
        store.import(from, &About::default()).expect("imported").content
    }

    fn flip(&self, content: &Content, position: usize) {
        let id = content.id().to_string();
        let path = self.path("store/contents").join(&id[..2]).join(format!("{id}.data"));
        let mut bytes = fs::read(&path).expect("read");
        bytes[position] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn export(content: &Content, to: &Path, how: ExportHow) -> Result<(), ExportError> {
    content.export(to, how)
}

#[test]
fn what_comes_out_is_what_came_in_at_any_size_before_and_after_a_restart() {
    for how in HOWS {
        for len in [0, 1, 65_536, 65_537, 3_000_000] {
            let folder = Folder::new();
            let data = bytes(len);
            let store = folder.store();
            let content = folder.imported(&store, &data);
            let id = content.id();
            let to = folder.path("out");
            export(&content, &to, how).expect("exported");
            assert_eq!(fs::read(&to).expect("read"), data);
            drop((content, store));

            let store = folder.store();
            let content = store.content(id).expect("opened").expect("known");
            // Not written over: it may be the store's own file.
            fs::remove_file(&to).expect("removed");
            fs::write(&to, b"older").expect("something is there");
            export(&content, &to, how).expect("exported over it");
            assert_eq!(fs::read(&to).expect("read"), data);
            let mut stream = Vec::new();
            content.write_to(&mut stream).expect("streamed");
            assert_eq!(stream, data);
            let left = fs::read_dir(folder.0.path()).expect("listed").count();
            assert_eq!(left, 3, "the store, the source and the target");
        }
    }
}

#[test]
fn a_hard_link_shares_the_file_and_a_copy_does_not() {
    let folder = Folder::new();
    let store = folder.store();
    let content = folder.imported(&store, &bytes(200_000));
    export(&content, &folder.path("copy"), ExportHow::Copy).expect("exported");
    export(&content, &folder.path("link"), ExportHow::HardLink).expect("exported");
    assert_eq!(fs::metadata(folder.path("copy")).expect("there").nlink(), 1);
    assert_eq!(fs::metadata(folder.path("link")).expect("there").nlink(), 2);
}

// R38, T8
#[test]
fn a_byte_flipped_while_stopped_is_never_exported() {
    for how in HOWS {
        let folder = Folder::new();
        let store = folder.store();
        let content = folder.imported(&store, &bytes(1 << 20));
        let id = content.id();
        let to = folder.path("out");
        fs::write(&to, b"older").expect("something is there");
        folder.flip(&content, 700_000);
        drop((content, store));

        let store = folder.store();
        let content = store.content(id).expect("opened").expect("known");
        let refused = export(&content, &to, how);
        let corrupt = matches!(refused, Err(ExportError::Read(ReadError::Corrupt { .. })));
        assert!(corrupt, "{how:?}: {refused:?}");
        assert_eq!(fs::read(&to).expect("read"), b"older");
        assert!(!content.is_complete(), "it is to be fetched again");
        assert!(matches!(export(&content, &to, how), Err(ExportError::Incomplete { .. })));
        let left = fs::read_dir(folder.0.path()).expect("listed").count();
        assert_eq!(left, 3);
    }
}

// T14
#[test]
fn a_symbolic_link_where_the_bytes_go_first_is_refused_and_not_followed() {
    let folder = Folder::new();
    let store = folder.store();
    let content = folder.imported(&store, &bytes(100_000));
    let victim = folder.path("victim");
    fs::write(&victim, b"precious").expect("written");
    symlink(&victim, folder.path(".out.sutler-part")).expect("linked");
    for how in HOWS {
        let refused = export(&content, &folder.path("out"), how);
        assert!(matches!(refused, Err(ExportError::Obstructed { .. })), "{refused:?}");
    }
    assert_eq!(fs::read(&victim).expect("read"), b"precious");
}

// T14
#[test]
fn a_symbolic_link_at_the_target_is_replaced_and_not_followed() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(100_000);
    let content = folder.imported(&store, &data);
    let victim = folder.path("victim");
    fs::write(&victim, b"precious").expect("written");
    symlink(&victim, folder.path("out")).expect("linked");
    export(&content, &folder.path("out"), ExportHow::Copy).expect("exported");
    assert_eq!(fs::read(&victim).expect("read"), b"precious");
    assert_eq!(fs::read(folder.path("out")).expect("read"), data);
}

#[test]
fn what_an_interrupted_export_left_is_replaced() {
    let folder = Folder::new();
    let store = folder.store();
    let data = bytes(100_000);
    let content = folder.imported(&store, &data);
    fs::write(folder.path(".out.sutler-part"), vec![1; 200_000]).expect("written");
    export(&content, &folder.path("out"), ExportHow::Copy).expect("exported");
    assert_eq!(fs::read(folder.path("out")).expect("read"), data);
}

#[test]
fn a_folder_and_a_missing_folder_are_named() {
    let folder = Folder::new();
    let store = folder.store();
    let content = folder.imported(&store, &bytes(10));
    let onto = export(&content, folder.0.path(), ExportHow::Copy).expect_err("a folder");
    assert!(onto.to_string().contains(folder.0.path().to_str().expect("ASCII")));
    let into = export(&content, &folder.path("absent/out"), ExportHow::Copy).expect_err("absent");
    assert!(into.to_string().contains("absent/out"));
}

//! The bytes of contents that come from elsewhere: what is named comes in whole, and nothing else ever lies there.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::backend::{Backend as _, Disk, read_file};
use sutler_cache::{About, Content as Stored, ImportFrom, Store, StoreOptions};
use sutler_control::change::ChangeError;
use sutler_control::uploads::{Lack, UPLOADS_MAX, UploadError, Uploads};
use sutler_protocol::{ContentId, HashListBuilder};

use crate::house::{House, about, now, said, sha256};

/// Bytes of a content of several chunks.
fn many() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn list_of(bytes: &[u8]) -> Vec<u8> {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    builder.finish().unwrap().as_bytes().to_vec()
}

/// Publishes contents whose bytes are elsewhere, and returns their places.
fn published(house: &House, contents: &[(&str, &[u8])], origins: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    let draft = house.draft(&[6], |change| {
        for (name, bytes) in contents {
            let mut about = about(name, bytes);
            about.origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
            let digest = *sha256(bytes).as_bytes();
            let (path, file) = change.content(&about, digest, bytes.len() as u64)?;
            places.push(path.place(file.hashes.prefix().as_deref()));
        }
        Ok::<_, ChangeError>(())
    });
    house.submit(&draft.submission(), now()).unwrap();
    places
}

fn uploads(house: &House, disk: &Faulty) -> Uploads {
    let uploads = Uploads::on(Arc::new(disk.clone()), 0);
    uploads.know(&house.state());
    uploads
}

fn upload(uploads: &Uploads, place: &str, announced: u64, bytes: &[u8]) -> Result<(), UploadError> {
    let mut upload = uploads.begin(place, announced)?;
    for piece in bytes.chunks(10_000) {
        upload.take(piece)?;
    }
    Ok(upload.settle()?)
}

fn target(place: &str) -> PathBuf {
    Path::new("targets").join(place)
}

// T8, T23
#[test]
fn what_was_published_comes_in_whole_and_nothing_else_does() {
    let house = House::new(1);
    let bytes = many();
    let place = &published(&house, &[("many.bin", &bytes)], &[])[0];
    let uploads = uploads(&house, &house.disk);
    let length = bytes.len() as u64;
    let before = house.disk.paths();
    let mut flipped = bytes.clone();
    flipped[100_000] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    for (place, announced, bytes, says) in [
        ("content/2026-11/x", length, &bytes[..], "nothing that is published lies there"),
        ("../metadata/timestamp.json", length, &bytes, "nothing that is published lies there"),
        ("approvals/lab/approvals.json", length, &bytes, "nothing that is published lies there"),
        (place, length + 1, &longer, "200001 are announced"),
        (place, length, &flipped, "sha256"),
        (place, length, &longer, "more than"),
        (place, length, &bytes[..length as usize - 1], "199999"),
        (place, length, b"", "bytes"),
    ] {
        let error = upload(&uploads, place, announced, bytes).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
        assert!(!house.disk.paths().contains(&target(place)));
    }
    assert!(!uploads.have_arrived());
    let new = house.disk.paths().into_iter().filter(|path| !before.contains(path));
    assert_eq!(new.filter(|path| path.extension().is_some()).count(), 0);

    upload(&uploads, place, length, &bytes).unwrap();
    assert_eq!(read_file(&house.disk, &target(place), 1 << 24).unwrap(), bytes);
    let list = Path::new("lists").join(ContentId::of(&bytes).to_string());
    assert_eq!(read_file(&house.disk, &list, 1 << 24).unwrap(), list_of(&bytes));
    assert!(uploads.have_arrived() && !uploads.have_arrived());
    let error = upload(&uploads, place, length, &bytes).unwrap_err();
    assert!(matches!(error, UploadError::Here { .. }), "{error}");
}

#[test]
fn of_a_content_with_origins_the_hash_list_comes_in_alone() {
    let house = House::new(1);
    let (bytes, small) = (many(), b"small");
    let contents: [(&str, &[u8]); 2] = [("many.bin", &bytes), ("small.bin", small)];
    let places = published(&house, &contents, &["http://vendor.example.com/many.bin"]);
    let uploads = uploads(&house, &house.disk);
    let error = upload(&uploads, &places[0], bytes.len() as u64, &bytes).unwrap_err();
    assert!(matches!(error, UploadError::Unknown { .. }), "{error}");
    let (id, list) = (ContentId::of(&bytes), list_of(&bytes));
    let mut wrong = list.clone();
    wrong[0] ^= 1;
    for (id, list, says) in [
        (id, &wrong[..], "does not merge"),
        (id, &list[1..], "has a hash list of"),
        (ContentId::of(b"other"), &list, "nothing that is published lies there"),
        // Of one chunk the list is its name.
        (ContentId::of(small), &list, "it is here already"),
    ] {
        let error = uploads.put_list(id, list).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
    }
    uploads.put_list(id, &list).unwrap();
    let place = Path::new("lists").join(id.to_string());
    assert_eq!(read_file(&house.disk, &place, 1 << 24).unwrap(), list);
    assert!(matches!(uploads.put_list(id, &list), Err(UploadError::Here { .. })));
}

// T5
#[test]
fn few_come_at_a_time_and_each_once_and_only_where_there_is_room() {
    let house = House::new(1);
    let bytes: Vec<Vec<u8>> = (0..=UPLOADS_MAX).map(|byte| vec![byte as u8; 1000]).collect();
    let names: Vec<String> = (0..bytes.len()).map(|number| format!("{number}.bin")).collect();
    let contents: Vec<(&str, &[u8])> =
        names.iter().zip(&bytes).map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let places = published(&house, &contents, &[]);
    let uploads = uploads(&house, &house.disk);
    let mut under_way = vec![uploads.begin(&places[0], 1000).unwrap()];
    assert!(matches!(uploads.begin(&places[0], 1000), Err(UploadError::Busy { .. })));
    for place in &places[1..UPLOADS_MAX] {
        under_way.push(uploads.begin(place, 1000).unwrap());
    }
    let last = &places[UPLOADS_MAX];
    assert!(matches!(uploads.begin(last, 1000), Err(UploadError::Busy { .. })));
    // Whoever gives up makes room, and leaves nothing.
    drop(under_way.pop());
    assert!(uploads.begin(last, 1000).is_ok());
    drop(under_way);
    let beside = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "new");
    assert!(!house.disk.paths().iter().any(beside));
    // What stays free stays free.
    house.disk.set_capacity(1 << 20);
    let greedy = Uploads::on(Arc::new(house.disk.clone()), 1 << 20);
    greedy.know(&house.state());
    let error = greedy.begin(last, 1000).map(drop).unwrap_err();
    assert!(matches!(error, UploadError::Full { missing_bytes: 1000.., .. }), "{error}");
}

// T2
#[test]
fn an_upload_cut_short_at_any_step_leaves_nothing_wrong_and_is_done_again() {
    let house = House::new(1);
    let bytes = many();
    let place = &published(&house, &[("many.bin", &bytes)], &[])[0];
    let start = house.disk.restart(1);
    let steps = {
        let disk = start.restart(1);
        upload(&uploads(&house, &disk), place, bytes.len() as u64, &bytes).unwrap();
        disk.operations()
    };
    assert!(steps > 10, "{steps}");
    for step in 0..steps {
        for seed in 0..4 {
            let disk = start.restart(1);
            disk.plan(&[Fault::PowerCut(step)]);
            drop(upload(&uploads(&house, &disk), place, bytes.len() as u64, &bytes));
            let disk = disk.restart(seed);
            if let Ok(found) = read_file(&disk, &target(place), 1 << 24) {
                assert_eq!(Bytes::from(found), bytes, "{step} {seed}");
                continue;
            }
            let again = uploads(&house, &disk);
            upload(&again, place, bytes.len() as u64, &bytes)
                .unwrap_or_else(|error| panic!("{step} {seed}: {}", said(&error)));
            assert_eq!(read_file(&disk, &target(place), 1 << 24).unwrap(), bytes);
        }
    }
}

fn stored(store: &Store, bytes: &[u8]) -> Stored {
    store.import(ImportFrom::Stream(&mut &bytes[..]), &About::default()).unwrap().content
}

// T31
#[test]
fn what_is_lacking_is_the_bytes_of_what_has_no_origin_and_the_lists_of_the_others() {
    let house = House::new(1);
    let (bytes, small, vendors) = (many(), b"small", [many(), many()].concat());
    let contents: [(&str, &[u8]); 2] = [("many.bin", &bytes), ("small.bin", small)];
    let places = published(&house, &contents, &[]);
    // That of one chunk is its name, and lacks nothing.
    let contents: [(&str, &[u8]); 2] = [("vendors.bin", &vendors), ("tiny.bin", b"tiny")];
    published(&house, &contents, &["http://vendor.example.com/x"]);
    let uploads = uploads(&house, &house.disk);
    let lack = |name: &str, bytes: &[u8], place: &str| Lack::Bytes {
        length: bytes.len() as u64,
        content: ContentId::of(bytes),
        sha256: sha256(bytes),
        name: name.to_owned(),
        place: place.to_owned(),
    };
    let list = Lack::List { length: vendors.len() as u64, content: ContentId::of(&vendors) };
    let (short, long) =
        (lack("small.bin", small, &places[1]), lack("many.bin", &bytes, &places[0]));
    assert_eq!(uploads.lacks().unwrap(), [list.clone(), short.clone(), long.clone()]);
    upload(&uploads, &places[0], bytes.len() as u64, &bytes).unwrap();
    assert_eq!(uploads.lacks().unwrap(), [list.clone(), short.clone()]);
    uploads.put_list(ContentId::of(&vendors), &list_of(&vendors)).unwrap();
    assert_eq!(uploads.lacks().unwrap(), [short]);
    // Of bytes that are here a lost list is looked for alone.
    let lost = Path::new("lists").join(ContentId::of(&bytes).to_string());
    house.disk.remove(&lost).unwrap();
    let list = Lack::List { length: bytes.len() as u64, content: ContentId::of(&bytes) };
    assert_eq!(uploads.lacks().unwrap()[0], list);
}

// T31, T8
#[test]
fn a_content_of_the_store_gets_the_place_where_it_is_lacking_and_no_other() {
    let (house, folder) = (House::new(1), tempfile::tempdir().unwrap());
    let bytes = many();
    let place = &published(&house, &[("many.bin", &bytes)], &[])[0];
    let options = StoreOptions { bytes_max: None, free_bytes_min: 0 };
    let store = Store::open(&folder.path().join("store"), options).unwrap();
    let (right, wrong) = (stored(&store, &bytes), stored(&store, b"other"));
    std::fs::create_dir(folder.path().join("repository")).unwrap();
    for name in ["targets", "lists"] {
        std::fs::create_dir(folder.path().join("repository").join(name)).unwrap();
    }
    let disk = Disk::open(&folder.path().join("repository")).unwrap();
    // What a kill has left there is a second name of the store's file: nothing may be written into it.
    let beside = folder.path().join("repository").join(target(place)).with_extension("link.new");
    std::fs::create_dir_all(beside.parent().unwrap()).unwrap();
    right.link(&beside).unwrap();

    // Where there can be a second name, and where there cannot.
    let (linking, copying) = (Uploads::on(Arc::new(disk), 0), uploads(&house, &house.disk));
    linking.know(&house.state());
    for uploads in [&linking, &copying] {
        let error = uploads.give(place, &wrong).unwrap_err();
        assert!(said(&error).contains("are the content"), "{}", said(&error));
        let error = uploads.give("content/2026-11/x", &right).unwrap_err();
        assert!(matches!(error, UploadError::Unknown { .. }), "{error}");
        assert_eq!(uploads.lacks().unwrap().len(), 1);
        assert!(!uploads.have_arrived());
        uploads.give(place, &right).unwrap();
        assert_eq!(uploads.lacks().unwrap(), []);
        assert!(uploads.have_arrived());
        let error = uploads.give(place, &right).unwrap_err();
        assert!(matches!(error, UploadError::Here { .. }), "{error}");
    }
    let linked = folder.path().join("repository").join(target(place));
    assert_eq!(std::fs::read(&linked).unwrap(), bytes);
    assert_eq!(std::fs::metadata(&linked).unwrap().nlink(), 2, "the store's, and this");
    assert!(!beside.exists());
    assert_eq!(read_file(&house.disk, &target(place), 1 << 24).unwrap(), bytes);
    let list = Path::new("lists").join(ContentId::of(&bytes).to_string());
    assert_eq!(read_file(&house.disk, &list, 1 << 24).unwrap(), list_of(&bytes));
}

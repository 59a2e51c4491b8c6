//! The bytes of contents that come from elsewhere: what is named comes in whole, and nothing else ever lies there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_cache::backend::read_file;
use sutler_control::change::ChangeError;
use sutler_control::uploads::{UPLOADS_MAX, UploadError, Uploads};
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

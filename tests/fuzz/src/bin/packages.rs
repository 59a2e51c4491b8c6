//! An index of packages or of sources, in every packing: no bytes make the reader panic or take memory without bound, and no path
//! that it gives leads out of the archive.

#![no_main]

use aws_lc_rs::digest::{SHA256, digest};
use libfuzzer_sys::fuzz_target;
use sutler_feed::{Compression, Index, IndexFile, Packages, Table};
use sutler_protocol::Sha256Digest;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let compression = Compression::ALL[usize::from(*first) % Compression::ALL.len()];
    let sha256 = digest(&SHA256, rest).as_ref().try_into().expect("a SHA-256 has 32 bytes");
    let packed = IndexFile { bytes: rest.len() as u64, sha256: Sha256Digest::from_bytes(sha256) };
    let table = match usize::from(*first) / Compression::ALL.len() % 3 {
        0 => Table::Packages,
        1 => Table::Sources,
        _ => Table::Primary,
    };
    let index = Index { table, compression, packed: Some(packed), plain: None };
    let read = Packages::read(rest, &index);
    if let Ok(packages) = &read {
        for (path, file) in packages.iter() {
            assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
            assert!(!path.bytes().any(|byte| byte < 0x20 || byte == b'\\'));
            assert_eq!(packages.vouches(path), Some(file));
        }
    }

    // The same bytes, of which one more was promised: whatever they say, they are not the file.
    let longer = IndexFile { bytes: packed.bytes + 1, ..packed };
    assert!(Packages::read(rest, &Index { packed: Some(longer), ..index }).is_err());
});

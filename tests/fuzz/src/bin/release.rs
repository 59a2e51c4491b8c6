//! What a vendor signs, and how: no text makes a reader panic, and no name that is believed leads out of the archive.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_feed::Keyring;
use sutler_feed::clear_signed::ClearSigned;
use sutler_feed::{gpgv, release};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(files) = release::read_unsigned(bytes) {
        for (name, _) in files {
            assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?}");
        }
    }
    if let Ok(names) = release::read_unverified_repomd(bytes) {
        for (name, file) in names.files() {
            assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?}");
            if let Some(hashed) = names.hashed_name(name) {
                assert_eq!(names.resolve(&hashed).map(|(_, found)| found), Some(file));
            }
        }
    }
    // One signed message and nothing else: with anything around it, it is none.
    if ClearSigned::split(bytes).is_ok() {
        for around in [[bytes, b"Origin: evil\n"].concat(), [b"Origin: evil\n", bytes].concat()] {
            assert!(ClearSigned::split(&around).is_err());
        }
    }
    drop(Keyring::parse(bytes));
    let keyring = Keyring::parse(&[0x99]).expect("it begins as a key does");
    let status = String::from_utf8_lossy(bytes);
    if gpgv::judge(&status, &keyring).is_ok() {
        assert!(status.contains("GOODSIG") && status.contains("VALIDSIG"));
    }
});

//! The manifest's documents: no bytes make a reader panic, and what was signed is what is read.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sutler_protocol::manifest::json::{canonical, read};
use sutler_protocol::manifest::signed::Document;
use sutler_protocol::manifest::{
    Kept, Kind, Root, Signed, Snapshot, TargetPath, Targets, Timestamp, Trusted,
};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = Trusted::load(&Kept { root: bytes.clone(), ..Kept::default() });
    let _ = Signed::<Targets>::parse(bytes.clone());
    let Ok(value) = read(&bytes) else { return };
    // However a value is written, its canonical form is the same.
    let written = serde_json::to_vec(&value).expect("a value can be written");
    let again = read(&written).expect("what was written can be read");
    assert_eq!(canonical(&value).ok(), canonical(&again).ok());

    // A signature stops every random input, so here is what lies behind it.
    let signed = value.get("signed").unwrap_or(&value);
    if let Some(root) = document::<Root>(signed) {
        for kind in [Kind::Root, Kind::Timestamp, Kind::Snapshot, Kind::Targets] {
            assert!(root.keys_of(kind).check(b"a message", &[]).is_err());
        }
    }
    if let Some(timestamp) = document::<Timestamp>(signed) {
        assert!(timestamp.snapshot().version.number() > 0);
    }
    document::<Snapshot>(signed);
    let Some(targets) = document::<Targets>(signed) else { return };
    let Some(delegations) = &targets.delegations else { return };
    for path in ["", "a", "a/b.deb", "../x"].map(TargetPath::from) {
        let found = delegations.of(&path);
        let terminating = found.iter().position(|delegated| delegated.is_terminating);
        assert!(terminating.is_none_or(|position| position + 1 == found.len()));
        for delegated in found {
            assert!(!delegated.role.place(None).contains('/'));
        }
    }
});

fn document<T: Document + DeserializeOwned>(signed: &Value) -> Option<T> {
    serde_json::from_value::<T>(signed.clone()).ok().filter(|document| document.rules().is_ok())
}

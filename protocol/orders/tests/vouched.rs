//! Orders are believed by type: through a role that was verified, or by one approver's key.

use std::collections::BTreeMap;

use serde_json::json;
use sutler_orders::denial::{Denial, SignedDenial};
use sutler_orders::order::Place;
use sutler_orders::vouched::VouchError;
use sutler_orders::{Halts, Order, Vouched};
use sutler_protocol::manifest::{
    Believed, Expires, KeyId, RoleKeys, Signed, SigningKey, TargetFile, TargetPath, Targets,
    Version,
};

const BLAKE3: &str = "55409142cced2ec79897459f170b6d22565daf883710b4ad7aeeddaef54244b4";

fn halts(seq: u64) -> Vec<u8> {
    json!({
        "_type": "halts", "format": 1, "organisation": "example", "seq": seq,
        "issued": "2026-03-01T09:00:00Z", "halts": [],
    })
    .to_string()
    .into_bytes()
}

/// A role that names these bytes `halts/halts.json`, verified.
fn role(bytes: &[u8]) -> Believed<Targets> {
    let expires: Expires = serde_json::from_value(json!("2026-09-01T00:00:00Z")).unwrap();
    let mut targets = Targets::new(Version::FIRST, expires);
    targets.set_file(&path(), TargetFile::of(bytes));
    let key = SigningKey::from_seed(&[1; 32]);
    let mut signed = Signed::propose(&targets).unwrap();
    signed.sign(&key);
    let listed = BTreeMap::from([(key.id().clone(), key.key().clone())]);
    signed.verify(&RoleKeys::new(&listed, &[key.id().clone()], 1)).unwrap()
}

fn path() -> TargetPath {
    TargetPath::from("halts/halts.json")
}

// T1, T12
#[test]
fn an_order_file_is_what_its_role_names_and_not_older_than_what_was_obeyed() {
    let organisation = "example".parse().unwrap();
    let place = Place { organisation: &organisation, scope: None };
    let (bytes, role) = (halts(7), role(&halts(7)));
    let read = |path: &TargetPath, bytes: &[u8], floor| {
        Vouched::<Order<Halts>>::order(&role, path, bytes, place, floor)
    };
    let vouched = read(&path(), &bytes, 7).unwrap();
    assert_eq!(vouched.document().head.seq, 7);
    assert_eq!(vouched.expires().to_string(), "2026-09-01T00:00:00Z");
    assert!(matches!(read(&path(), &bytes, 8), Err(VouchError::Rollback { floor: 8, .. })));
    assert!(matches!(read(&path(), &halts(8), 0), Err(VouchError::Mismatch { .. })));
    let other = TargetPath::from("halts/other.json");
    assert!(matches!(read(&other, &bytes, 0), Err(VouchError::NotNamed { .. })));
    let elsewhere = "elsewhere".parse().unwrap();
    let place = Place { organisation: &elsewhere, scope: None };
    let foreign = Vouched::<Order<Halts>>::order(&role, &path(), &bytes, place, 0);
    assert!(matches!(foreign, Err(VouchError::Order { .. })));
}

// T29
#[test]
fn one_approver_is_enough_for_a_denial_and_a_stranger_is_not() {
    let denial: Denial = serde_json::from_value(json!({
        "organisation": "example", "scope": "desktops", "id": "d-1", "issued": "2026-03-01T09:00:00Z",
        "contents": [BLAKE3], "by": "Bert",
    }))
    .unwrap();
    let [anna, bert, eve] = [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]));
    let listed: BTreeMap<_, _> =
        [&anna, &bert, &eve].map(|key| (key.id().clone(), key.key().clone())).into();
    let approvers: [KeyId; 2] = [anna.id().clone(), bert.id().clone()];
    let unsigned = SignedDenial::parse(&denial.envelope(&[]).unwrap()).unwrap();
    let signed_by = |key: &SigningKey| {
        let signature = key.sign(unsigned.message());
        let bytes = denial.envelope(&[(signature.keyid, signature.sig)]).unwrap();
        SignedDenial::parse(&bytes).unwrap()
    };
    let believed = signed_by(&bert).verify(&listed, &approvers).unwrap();
    assert_eq!(*believed.denial(), denial);
    assert!(signed_by(&eve).verify(&listed, &approvers).is_err());
    assert!(unsigned.verify(&listed, &approvers).is_err());
}

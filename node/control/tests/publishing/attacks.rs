//! What is handed in by a thief, a careless colleague, or a machine in between, each test named after it.

use bytes::Bytes;
use serde_json::{Value, json};
use sutler_control::submission::{Refused, Submission, SubmissionError};
use sutler_orders::Approvals;
use sutler_orders::order::Order;
use sutler_protocol::manifest::signed::VerifyError;
use sutler_protocol::manifest::{
    Delegation, RoleName, Signed, TargetFile, TargetPath, Targets, Version,
};

use crate::house::{
    House, deny, in_days, install, key, later, now, online_keys, said, sha256, signed,
};

const ROLE: &str = "approvals-lab";
const APPROVALS: &str = "approvals/lab/approvals.json";

/// Asserts that a submission is refused with these words, and that nothing changed.
fn refused(house: &House, submission: &Submission, says: &str) {
    let before = house.disk.paths();
    let error = house.submit(submission, now()).unwrap_err();
    assert!(said(&error).contains(says), "{}", said(&error));
    assert_eq!(house.disk.paths(), before);
}

/// A submission of one delegated role that names these files.
fn naming(role: &str, version: u64, files: &[(&str, &[u8])], signers: &[u8]) -> Submission {
    let mut document = Targets::new(Version::new(version).unwrap(), in_days(30));
    for (path, bytes) in files {
        document.set_file(&TargetPath::from(*path), TargetFile::of(bytes));
    }
    let bytes = signed(&document, signers).bytes().clone();
    Submission {
        documents: [(role.to_owned(), bytes)].into(),
        files: files
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), Bytes::copy_from_slice(bytes)))
            .collect(),
    }
}

fn approvals(organisation: &str, scope: &str, seq: u64) -> Vec<u8> {
    let order: Order<Approvals> = Order {
        head: serde_json::from_value(json!({
            "organisation": organisation, "scope": scope, "seq": seq, "issued": "2026-11-27T20:00:00Z",
        }))
        .unwrap(),
        body: Approvals::default(),
    };
    order.write().unwrap()
}

// T10
#[test]
fn wrong_threshold() {
    let house = House::new(2);
    refused(
        &house,
        &house.approve(install(b"x"), &[4]).submission(),
        "1 of its role's keys have signed it, and 2",
    );
    let submission = house.approve(install(b"x"), &[4, 5]).submission();
    assert!(house.submit(&submission, now()).is_ok());
}

// T10
#[test]
fn duplicate_signatures_by_one_key() {
    let house = House::new(2);
    let mut submission = house.approve(install(b"x"), &[4]).submission();
    let mut document: Value = serde_json::from_slice(&submission.documents[ROLE]).unwrap();
    let signature = document["signatures"][0].clone();
    document["signatures"].as_array_mut().unwrap().push(signature);
    let bytes = Bytes::from(serde_json::to_vec(&document).unwrap());
    submission.documents.insert(ROLE.to_owned(), bytes);
    refused(&house, &submission, "twice");
}

// T10
#[test]
fn one_key_under_two_ids() {
    let house = House::new(2);
    // The admins were talked into listing dora's key once more, spelled otherwise.
    let mut spelled = key(4).key().clone();
    spelled.keyval.public = spelled.keyval.public.map(|public| public.to_uppercase());
    let keys = [key(4).key().clone(), spelled.clone()];
    let role = RoleName::delegated(ROLE).unwrap();
    let draft = house.draft(&[1, 2], |change| {
        let paths = vec!["approvals/lab/*".to_owned()];
        change.targets()?.delegate(Delegation::new(role, &keys, 2, paths), &keys);
        Ok(())
    });
    house.submit(&draft.submission(), now()).unwrap();
    let mut submission = house.approve(install(b"x"), &[4]).submission();
    let mut document: Value = serde_json::from_slice(&submission.documents[ROLE]).unwrap();
    let mut signature = document["signatures"][0].clone();
    signature["keyid"] = json!(spelled.id().as_str());
    document["signatures"].as_array_mut().unwrap().push(signature);
    submission.documents.insert(ROLE.to_owned(), serde_json::to_vec(&document).unwrap().into());
    refused(&house, &submission, "1 of its role's keys have signed it, and 2 are needed");
}

// T10
#[test]
fn stolen_import_key_approves() {
    let house = House::new(1);
    house.publish("tool.deb", b"a tool");
    let stolen = naming(ROLE, 1, &[(APPROVALS, &approvals("acme", "lab", 1))], &[6]);
    refused(&house, &stolen, "0 of its role's keys have signed it");
}

// T10
#[test]
fn stolen_online_keys_approve_publish_or_delegate() {
    let house = House::new(1);
    for online in [101, 102, 103] {
        let file = approvals("acme", "lab", 1);
        refused(&house, &naming(ROLE, 1, &[(APPROVALS, &file)], &[online]), "0 of its role's keys");
        refused(&house, &naming("content-2026-11", 1, &[], &[online]), "0 of its role's keys");
        refused(&house, &naming("targets", 2, &[], &[online]), "0 of its role's keys");
    }
    for role in ["snapshot", "timestamp"] {
        refused(&house, &naming(role, 2, &[], &[101, 102]), "control alone signs it");
    }
}

// T14
#[test]
fn delegate_claims_a_path_outside_its_own() {
    let house = House::new(1);
    for path in [
        "approvals/prod/approvals.json",
        "content/2026-11/aa/x",
        "approvals/lab/deeper/approvals.json",
        "rings/rings.json",
    ] {
        refused(&house, &naming(ROLE, 1, &[(path, b"{}")], &[4]), "which it was not delegated");
    }
    // Its own folder, and no order file.
    refused(&house, &naming(ROLE, 1, &[("approvals/lab/x.json", b"{}")], &[4]), "no order file");
    refused(&house, &naming("approvals-prod", 1, &[], &[4]), "nobody delegates to a role");
    refused(&house, &naming("../x", 1, &[], &[4]), "nobody delegates to a role");
}

// T12
#[test]
fn approval_copied_from_another_scope_or_organisation() {
    let house = House::new(1);
    for (file, says) in [
        (approvals("elsewhere", "lab", 1), "\"elsewhere\" instead of \"acme\""),
        (approvals("acme", "prod", 1), "\"prod\" instead of \"lab\""),
    ] {
        refused(&house, &naming(ROLE, 1, &[(APPROVALS, &file)], &[4]), says);
    }
}

// T1, T12
#[test]
fn approval_handed_in_twice_or_with_an_old_number() {
    let house = House::new(1);
    let first = house.approve(install(b"x"), &[4]).submission();
    house.submit(&first, now()).unwrap();
    refused(&house, &first, "its field version is 1, and 2 comes next");
    let file = approvals("acme", "lab", 1);
    refused(
        &house,
        &naming(ROLE, 2, &[(APPROVALS, &file)], &[4]),
        "its field seq is 1, and has to be more than 1",
    );
    refused(
        &house,
        &naming(ROLE, 3, &[(APPROVALS, &approvals("acme", "lab", 2))], &[4]),
        "and 2 comes next",
    );
    let file = approvals("acme", "lab", 2);
    assert!(house.submit(&naming(ROLE, 2, &[(APPROVALS, &file)], &[4]), now()).is_ok());
}

#[test]
fn two_admins_collide_and_the_second_is_told() {
    let house = House::new(1);
    let (first, second) = (house.approve(install(b"x"), &[4]), house.approve(deny(b"y"), &[5]));
    house.submit(&first.submission(), now()).unwrap();
    let error = house.submit(&second.submission(), now()).unwrap_err();
    assert!(matches!(error, Refused::Version { .. }), "{error}");
}

// T7
#[test]
fn order_file_exchanged_on_the_way() {
    let house = House::new(1);
    let mut submission = house.approve(deny(b"x"), &[4]).submission();
    let good = submission.files[APPROVALS].clone();
    let text = String::from_utf8(good.to_vec()).unwrap();
    submission.files.insert(APPROVALS.to_owned(), text.replace("deny", "DENY").into());
    refused(&house, &submission, "its sha256 is another one");
    submission.files.insert(APPROVALS.to_owned(), (text + " ").into());
    refused(&house, &submission, "bytes instead of");
    submission.files.clear();
    refused(&house, &submission, "its bytes are not in the submission");
    submission.files.insert(APPROVALS.to_owned(), good);
    submission.files.insert("approvals/lab/standing.json".to_owned(), Bytes::from("{}"));
    refused(&house, &submission, "no new document names it");
}

#[test]
fn order_file_that_no_device_obeys() {
    let house = House::new(1);
    for (file, says) in [
        (&b"{}"[..], "_type"),
        (b"{\"_type\":\"standing\"}", "_type"),
        (b"not json", "JSON"),
        (b"{\"_type\":\"approvals\",\"_type\":\"approvals\"}", "twice"),
    ] {
        refused(&house, &naming(ROLE, 1, &[(APPROVALS, file)], &[4]), says);
    }
}

#[test]
fn expired_role_is_handed_in() {
    let house = House::new(1);
    let document = Targets::new(Version::FIRST, in_days(0));
    let bytes = signed(&document, &[4]).bytes().clone();
    let submission =
        Submission { documents: [(ROLE.to_owned(), bytes)].into(), ..Submission::default() };
    refused(&house, &submission, "which has passed");
}

// T22
#[test]
fn expired_role_in_an_unrelated_delegation() {
    let house = House::new(1);
    let document = Targets::new(Version::FIRST, in_days(1));
    let short = Submission {
        documents: [(ROLE.to_owned(), signed(&document, &[4]).bytes().clone())].into(),
        ..Submission::default()
    };
    house.submit(&short, now()).unwrap();
    let about = house.publish("tool.deb", b"a tool");
    let path = about.path("2026-11");
    let mut client = house.client();
    client.refresh(later(48)).unwrap();
    assert!(client.find(APPROVALS, later(48)).is_err());
    assert_eq!(client.download(path.as_str(), later(48)).unwrap(), b"a tool");
}

// T10
#[test]
fn published_content_is_given_other_bytes() {
    let house = House::new(1);
    let about = house.publish("tool.deb", b"a tool");
    let path = about.path("2026-11");
    let mut document =
        house.state().roles[&RoleName::delegated("content-2026-11").unwrap()].document().clone();
    let mut file = document.file(&path).unwrap().clone();
    file.length += 1;
    document.set_file(&path, file);
    document.renew(Version::new(2).unwrap(), in_days(30));
    let bytes = signed(&document, &[6]).bytes().clone();
    let submission = Submission {
        documents: [("content-2026-11".to_owned(), bytes)].into(),
        ..Submission::default()
    };
    refused(&house, &submission, "do not change once it is published");
}

// T10
#[test]
fn closed_month_is_changed() {
    let house = House::new(1);
    house.publish("tool.deb", b"a tool");
    let draft = house.draft(&[6], |change| {
        change.content(
            &crate::house::about("late.deb", b"late"),
            *sha256(b"late").as_bytes(),
            4,
        )?;
        Ok(())
    });
    // Until a day after the month's end, for clocks that differ; then no more.
    let error = house.submit(&draft.submission(), later(24 * 6)).unwrap_err();
    assert!(said(&error).contains("contents of another month than 2026-12 do not change"));
    let renewal =
        house.draft(&[6], |change| change.renew(&RoleName::delegated("content-2026-11").unwrap()));
    house.submit(&renewal.submission(), later(24 * 6)).unwrap();
    // Nor is a month opened before its time.
    let early = naming("content-2027-01", 1, &[("content/2027-01/aa/x", b"x")], &[6]);
    refused(&house, &early, "do not change");
}

// T14
#[test]
fn content_with_a_name_that_is_a_path() {
    let house = House::new(1);
    for path in [
        "content/2026-11/aa/..",
        "content/2026-11/aa/a b",
        "content/2026-11/aa/%2e",
        "content/2026-11//x",
    ] {
        refused(
            &house,
            &naming("content-2026-11", 1, &[(path, b"x")], &[6]),
            "a name here is of letters",
        );
    }
}

// T10
#[test]
fn bytes_of_a_content_are_exchanged() {
    let house = House::new(1);
    let about = crate::house::about("tool.deb", b"a tool");
    let path = about.path("2026-11");
    let file = TargetFile::of(b"a tool");
    for bytes in [&b"a t00l"[..], b"a too", b"a tool and more"] {
        let put = house.repository.put(&path, &file, about.blake3, &mut &*bytes);
        assert!(put.is_err());
        assert!(!house.repository.has(&path, &file).unwrap());
    }
    // The vendor's digest fits, and the content is another one: import and hash list disagree.
    let other = sutler_protocol::ContentId::of(b"other");
    let error = house.repository.put(&path, &file, other, &mut &b"a tool"[..]).unwrap_err();
    assert!(error.to_string().contains("are the content"), "{error}");
    assert!(!house.repository.has(&path, &file).unwrap());
}

// T5
#[test]
fn submission_without_end_or_of_another_kind() {
    let long = vec![b' '; sutler_control::bounds::SUBMISSION_BYTES_MAX as usize + 1];
    assert!(matches!(Submission::read(&long), Err(SubmissionError::TooLong { .. })));
    let many: serde_json::Map<_, _> = (0..300).map(|n| (n.to_string(), json!(""))).collect();
    let many = serde_json::to_vec(&json!({ "format": 1, "documents": many })).unwrap();
    assert!(matches!(Submission::read(&many), Err(SubmissionError::TooMany { found: 300 })));
    for (text, says) in [
        (&b"{\"format\":2,\"documents\":{}}"[..], "format is 2"),
        (b"{\"format\":1,\"documents\":{},\"x\":1}", "unknown field"),
        (b"{\"format\":1,\"documents\":{\"a\":1}}", "documents.a"),
        (b"{\"format\":1,\"documents\":{}} x", "trailing"),
        (b"[]", "invalid length"),
        (b"\xff", "read the submission"),
    ] {
        let error = Submission::read(text).unwrap_err();
        assert!(said(&error).contains(says), "{}", said(&error));
    }
    let house = House::new(1);
    let nothing = Submission::read(b"{\"format\":1,\"documents\":{}}").unwrap();
    refused(&house, &nothing, "the submission has no document");
}

#[test]
fn submission_is_kept_as_it_was_signed() {
    let house = House::new(2);
    let draft = house.approve(install(b"x"), &[4, 5]);
    let submission = draft.submission();
    assert_eq!(Submission::read(&submission.write()).unwrap(), submission);
}

// T10
#[test]
fn online_keys_of_another_organisation_sign_nothing_here() {
    let house = House::new(1);
    let mut keys = online_keys();
    keys.timestamp = vec![key(99)];
    let nothing = sutler_control::submission::Accepted::default();
    let state = house.state();
    let map = serde_json::Map::new();
    let error =
        sutler_control::online::publication(&state, &nothing, &keys, &map, now()).unwrap_err();
    assert!(error.to_string().contains("1 more of the keys that the root names"), "{error}");
}

#[test]
fn unsigned_document_says_so_with_its_rule() {
    let house = House::new(1);
    let draft = house.approve(install(b"x"), &[]);
    let parsed = Signed::<Targets>::parse(draft.submission().documents[ROLE].clone()).unwrap();
    let keys = house.state().keys_of(&RoleName::delegated(ROLE).unwrap()).unwrap();
    assert!(matches!(parsed.verify(&keys), Err(VerifyError::Threshold { needed: 1, counted: 0 })));
}

//! `SPEC.md` against the code: every vector in the page is what the code writes, and is read back.
//!
//! A vector is a fenced block that names itself: ```` ```vector NAME ````. What stands behind a `;`
//! is for the reader.

use std::collections::BTreeMap;
use std::fmt::Write;

use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{
    Answer, Body, ChunksRequest, Class, DocumentRequest, Frame, Holding, LENGTH_BYTES, Mismatch,
    News, Open, Opened, Refusal, Request, Resolve, decode, encode,
};
use sutler_protocol::join::{Join, JoinAnswer, JoinRefusal, JoinRequest};
use sutler_protocol::{
    ChunkIndex, ChunkRanges, ContentId, Geometry, HashList, HashListBuilder, Sha256Digest,
};

const SPEC: &str = include_str!("../SPEC.md");

/// The content of the page: byte `i` is `i % 251`.
fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|position| (position % 251) as u8).collect()
}

/// The vectors of the page by name: the text without remarks, blanks as they are.
fn vectors() -> BTreeMap<&'static str, String> {
    let mut vectors = BTreeMap::new();
    let mut open: Option<(&str, String)> = None;
    for line in SPEC.lines() {
        match &mut open {
            None => {
                open = line.strip_prefix("```vector ").map(|name| (name.trim(), String::new()));
            }
            Some(_) if line == "```" => {
                let (name, text) = open.take().unwrap();
                assert!(vectors.insert(name, text).is_none(), "{name} stands in SPEC.md twice");
            }
            Some((_, text)) => {
                writeln!(text, "{}", line.split(';').next().unwrap().trim_end()).unwrap();
            }
        }
    }
    assert!(open.is_none(), "a vector of SPEC.md does not end");
    vectors
}

fn bytes_of(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The rows of a vector that is a table.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| !row.is_empty())
        .collect()
}

fn content() -> ContentId {
    ContentId::of(&pattern(200_000))
}

fn requests() -> Vec<(&'static str, Request)> {
    let (content, class) = (content(), Class::Normal);
    vec![
        ("request.open", Request::Open(Open { content, body: Body::List, class })),
        (
            "request.chunks",
            Request::Chunks(ChunksRequest {
                content,
                len: 200_000,
                start: 1,
                end: 4,
                skip_bytes: 1_000,
                class: Class::Urgent,
                deadline_ms: 70_000,
            }),
        ),
        (
            "request.resolve",
            Request::Resolve(Resolve {
                sha256: Sha256Digest::from_bytes([0xab; 32]),
                url: "http://deb.debian.org/x.deb".to_owned(),
                class: Class::Background,
            }),
        ),
        ("request.mismatch", Request::Mismatch(Mismatch { content, chunk: 300 })),
        (
            "request.document",
            Request::Document(DocumentRequest {
                place: "metadata/3.root.json".to_owned(),
                bytes_max: 65_536,
            }),
        ),
        ("request.watch", Request::Watch),
        ("request.deny", Request::Deny(b"{}".to_vec())),
        ("request.report", Request::Report { bytes: 70_000 }),
        ("request.hello", Request::Hello { instance: *b"0123456789abcdef" }),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let opened = |holding, body_bytes| Answer::Opened(Opened { len: 200_000, holding, body_bytes });
    let refusals = [
        ("answer.refused.unknown", Refusal::Unknown),
        ("answer.refused.not-held", Refusal::NotHeld),
        ("answer.refused.length-differs", Refusal::LengthDiffers { len: 200_000 }),
        ("answer.refused.out-of-bounds", Refusal::OutOfBounds),
        ("answer.refused.busy", Refusal::Busy { retry_ms: 1_500 }),
        ("answer.refused.damaged", Refusal::Damaged),
        ("answer.refused.origin-not-allowed", Refusal::OriginNotAllowed),
        ("answer.refused.origin-failed", Refusal::OriginFailed { detail: "status 404".to_owned() }),
        ("answer.refused.digest-differs", Refusal::DigestDiffers),
        ("answer.refused.store-failed", Refusal::StoreFailed { detail: "no space".to_owned() }),
        ("answer.refused.draining", Refusal::Draining),
        ("answer.refused.absent", Refusal::Absent),
        ("answer.refused.not-taken", Refusal::NotTaken { detail: "old".to_owned() }),
    ];
    let answers = [
        ("answer.opened.whole", opened(Holding::Whole, 128)),
        ("answer.opened.part", opened(Holding::Part(vec![0b1001]), 0)),
        ("answer.opened.filling", opened(Holding::Filling(vec![0b0001]), 128)),
        ("answer.opened.growing", opened(Holding::Growing(vec![0b0001]), 128)),
        ("answer.chunks", Answer::Chunks { bytes: 133_464 }),
        ("answer.filling.unknown", Answer::Filling { have: 0, len: None }),
        ("answer.filling", Answer::Filling { have: 65_536, len: Some(200_000) }),
        ("answer.resolved", Answer::Resolved { content: content(), len: 200_000 }),
        ("answer.rechecked", Answer::Rechecked { good: true }),
        ("answer.document", Answer::Document { bytes: 65_536 }),
        ("answer.news.timestamp", Answer::News(News::Timestamp(b"{}".to_vec()))),
        ("answer.news.denial", Answer::News(News::Denial(b"{}".to_vec()))),
        ("answer.taken", Answer::Taken),
        ("answer.greeted", Answer::Greeted { alone: false }),
    ];
    let refused = refusals.map(|(name, refusal)| (name, Answer::Refused(refusal)));
    answers.into_iter().chain(refused).collect()
}

fn join_requests() -> Vec<(&'static str, JoinRequest)> {
    let join = Join {
        statement: b"{}".to_vec(),
        signature: vec![0xaa; 4],
        secret: *b"0123456789abcdef",
        csr: vec![0x30, 0],
        replace: false,
    };
    vec![
        ("join.join", JoinRequest::Join(join)),
        ("join.renew", JoinRequest::Renew { csr: vec![0x30, 0] }),
    ]
}

fn join_answers() -> Vec<(&'static str, JoinAnswer)> {
    let chain = vec![vec![0x30, 0]];
    let refused = JoinAnswer::Refused;
    vec![
        (
            "join.joined",
            JoinAnswer::Joined { chain: chain.clone(), roots: chain.clone(), root_bytes: 200 },
        ),
        ("join.renewed", JoinAnswer::Renewed { chain }),
        ("join.held", JoinAnswer::Held { id: "a1".to_owned(), retry_ms: 5_000 }),
        ("join.refused.used-up", refused(JoinRefusal::UsedUp)),
        ("join.refused.csr", refused(JoinRefusal::Csr { detail: "no".to_owned() })),
        ("join.refused.failed", refused(JoinRefusal::Failed { detail: "disk".to_owned() })),
    ]
}

fn check_frame<F: Frame + PartialEq + std::fmt::Debug>(name: &str, frame: &F, faults: &mut String) {
    let written = encode(frame);
    let read = vectors().get(name).map(|text| bytes_of(text));
    if read.as_ref() != Some(&written) {
        writeln!(faults, "```vector {name}\n{}\n```", hex(&written)).unwrap();
    }
    assert_eq!(decode::<F>(&written[LENGTH_BYTES..]).as_ref(), Ok(frame), "{name}");
}

#[test]
fn every_frame_of_the_page_is_what_the_code_writes() {
    let mut faults = String::new();
    for (name, frame) in requests() {
        check_frame(name, &frame, &mut faults);
    }
    for (name, frame) in answers() {
        check_frame(name, &frame, &mut faults);
    }
    for (name, frame) in join_requests() {
        check_frame(name, &frame, &mut faults);
    }
    for (name, frame) in join_answers() {
        check_frame(name, &frame, &mut faults);
    }
    assert!(faults.is_empty(), "SPEC.md should say:\n{faults}");
}

#[test]
fn every_vector_of_the_page_has_its_test() {
    let others = ["bitmap", "close-codes", "content-ids", "geometry", "hash-list"];
    let mut expected: Vec<&str> = others.to_vec();
    expected.extend(requests().iter().map(|(name, _)| name));
    expected.extend(answers().iter().map(|(name, _)| name));
    expected.extend(join_requests().iter().map(|(name, _)| name));
    expected.extend(join_answers().iter().map(|(name, _)| name));
    expected.sort_unstable();
    assert_eq!(vectors().into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn content_ids_of_the_page_are_those_of_the_pattern() {
    for row in rows(&vectors()["content-ids"]) {
        let [len, id] = row[..] else { panic!("{row:?} is no length and id") };
        assert_eq!(ContentId::of(&pattern(len.parse().unwrap())).to_string(), id, "{len} bytes");
    }
}

#[test]
fn geometry_of_the_page_follows_from_the_length() {
    for row in rows(&vectors()["geometry"]) {
        let numbers: Vec<u64> = row.iter().map(|word| word.parse().unwrap()).collect();
        let geometry = Geometry::of(numbers[0]).unwrap();
        let last = geometry.chunk(geometry.last());
        let found = [
            geometry.len(),
            geometry.chunk_bytes(),
            geometry.chunks().into(),
            last.end - last.start,
            geometry.pieces().into(),
        ];
        assert_eq!(numbers, found);
    }
}

#[test]
fn the_hash_list_of_the_page_merges_to_the_id() {
    let mut builder = HashListBuilder::new();
    builder.update(&pattern(200_000));
    let list = builder.finish().unwrap();
    let said = bytes_of(&vectors()["hash-list"]);
    assert_eq!(hex(list.as_bytes()), hex(&said));
    assert!(HashList::verify(&said, content(), 200_000).is_ok());
}

#[test]
fn the_bitmap_of_the_page_is_the_set_it_names() {
    let mut set = ChunkRanges::empty(20);
    for chunk in [0, 1, 8, 15, 19] {
        set.insert(ChunkIndex(chunk));
    }
    assert_eq!(hex(&set.to_bitmap()), hex(&bytes_of(&vectors()["bitmap"])));
}

#[test]
fn close_codes_of_the_page_are_those_of_the_code() {
    let codes = [
        CloseCode::Done,
        CloseCode::BadFrame,
        CloseCode::TooMuch,
        CloseCode::TooSlow,
        CloseCode::BadBytes,
        CloseCode::Damaged,
        CloseCode::Draining,
        CloseCode::TooMany,
        CloseCode::Revoked,
    ];
    let found = codes.map(|code| vec![code.code().to_string(), format!("{code:?}")]);
    assert_eq!(rows(&vectors()["close-codes"]), found);
}

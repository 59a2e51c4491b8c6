//! Every kind of reply that an origin may give, and the verdict on it.

use super::*;

const PATH: &str = "/debian/pool/a.deb";
const ETAG: &str = "\"v1\"";

type Header = (HeaderName, &'static str);

fn map(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, value.parse().expect("a value"));
    }
    map
}

fn verdict(request: &RangeRequest, status: u16, headers: &[Header]) -> Verdict {
    judge(request, PATH, StatusCode::from_u16(status).expect("a status"), &map(headers))
}

fn refused(request: &RangeRequest, status: u16, headers: &[Header]) -> ReplyFault {
    match verdict(request, status, headers) {
        Verdict::Refuse(fault) => fault,
        other => panic!("{status} {headers:?}: {other:?}"),
    }
}

fn reading(request: &RangeRequest, status: u16, headers: &[Header]) -> Reading {
    match verdict(request, status, headers) {
        Verdict::Read(reading) => reading,
        other => panic!("{status} {headers:?}: {other:?}"),
    }
}

fn bytes(range: Range<u64>) -> RangeRequest {
    RangeRequest::bytes(range, Validators::default())
}

fn from(first: u64) -> RangeRequest {
    RangeRequest::from(first, Validators::default())
}

fn recorded(len: u64) -> Validators {
    Validators { etag: Some(ETAG.to_owned()), last_modified: None, len: Some(len) }
}

#[test]
fn the_request_headers_say_exactly_what_is_wanted() {
    assert_eq!(bytes(0..1).range().as_deref(), Some("bytes=0-0"));
    assert_eq!(bytes(64..128).range().as_deref(), Some("bytes=64-127"));
    assert_eq!(from(64).range().as_deref(), Some("bytes=64-"));
    assert_eq!(from(0).range(), None);
    assert_eq!(RangeRequest::from(0, recorded(9)).if_range(), None);
    assert_eq!(RangeRequest::from(1, recorded(9)).if_range(), Some(ETAG));
    let weak = Validators { etag: Some("W/\"v1\"".to_owned()), ..Validators::default() };
    assert_eq!(RangeRequest::bytes(0..9, weak).if_range(), None);
}

#[test]
fn the_right_range_is_read_to_its_last_byte() {
    let read = reading(
        &RangeRequest::bytes(100..200, recorded(1000)),
        206,
        &[
            (header::CONTENT_RANGE, "bytes 100-199/1000"),
            (header::CONTENT_LENGTH, "100"),
            (header::ETAG, ETAG),
        ],
    );
    let expected = Reading {
        skip: 0,
        take: Some(100),
        rest: Rest::Nothing,
        ranges: true,
        file: recorded(1000),
    };
    assert_eq!(read, expected);

    // Chunked, and with a length that the origin does not know.
    let read = reading(&bytes(100..200), 206, &[(header::CONTENT_RANGE, "bytes 100-199/*")]);
    assert_eq!((read.take, read.file.len), (Some(100), None));
    let read = reading(&from(900), 206, &[(header::CONTENT_RANGE, "bytes 900-999/1000")]);
    assert_eq!((read.take, read.file.len), (Some(100), Some(1000)));
}

#[test]
fn another_range_is_refused() {
    for range in [
        "bytes 0-99/1000",
        "bytes 101-200/1000",
        "bytes 100-198/1000",
        "bytes 100-200/1000",
        "bytes 100-199/150",
        "bytes 199-100/1000",
        "bytes 100-18446744073709551615/*",
        "bytes 100-199/",
        "bytes 100-199",
        "bytes +100-199/1000",
        "bytes */1000",
        "items 100-199/1000",
        "",
    ] {
        let fault = refused(&bytes(100..200), 206, &[(header::CONTENT_RANGE, range)]);
        assert_eq!(fault, ReplyFault::WrongRange, "{range}");
    }
    assert_eq!(refused(&bytes(100..200), 206, &[]), ReplyFault::WrongRange);
    let good = (header::CONTENT_RANGE, "bytes 100-199/1000");
    assert_eq!(refused(&bytes(100..200), 206, &[good.clone(), good]), ReplyFault::WrongRange);
    let unasked = (header::CONTENT_RANGE, "bytes 0-999/1000");
    assert_eq!(refused(&from(0), 206, &[unasked]), ReplyFault::WrongRange);
}

#[test]
fn several_parts_are_refused() {
    for kind in ["multipart/byteranges; boundary=x", "Multipart/ByteRanges", "multipart/mixed"] {
        let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_RANGE, "bytes 100-199/1000")];
        assert_eq!(refused(&bytes(100..200), 206, &headers), ReplyFault::Multipart, "{kind}");
    }
}

#[test]
fn a_wrong_length_is_refused_wherever_it_shows() {
    let part = (header::CONTENT_RANGE, "bytes 100-199/1000");
    let fault = refused(&bytes(100..200), 206, &[part.clone(), (header::CONTENT_LENGTH, "99")]);
    assert_eq!(fault, ReplyFault::WrongLength { expected: 100, got: 99 });
    let fault = refused(&RangeRequest::bytes(100..200, recorded(1001)), 206, &[part]);
    assert_eq!(fault, ReplyFault::WrongLength { expected: 1001, got: 1000 });
    let short = (header::CONTENT_RANGE, "bytes 100-149/150");
    let fault = refused(&bytes(100..200), 206, &[short]);
    assert_eq!(fault, ReplyFault::WrongLength { expected: 200, got: 150 });

    let whole = (header::CONTENT_LENGTH, "1000");
    let fault = refused(&RangeRequest::from(0, recorded(999)), 200, std::slice::from_ref(&whole));
    assert_eq!(fault, ReplyFault::WrongLength { expected: 999, got: 1000 });
    let fault = refused(&bytes(100..2000), 200, std::slice::from_ref(&whole));
    assert_eq!(fault, ReplyFault::WrongLength { expected: 2000, got: 1000 });
    let fault = refused(&from(1001), 200, &[whole]);
    assert_eq!(fault, ReplyFault::WrongLength { expected: 1001, got: 1000 });
}

#[test]
fn a_whole_file_in_place_of_a_range_is_cut_when_the_range_is_near() {
    let len = (header::CONTENT_LENGTH, "4000000");
    let read = reading(&bytes(100..200), 200, std::slice::from_ref(&len));
    assert_eq!((read.skip, read.take, read.rest), (100, Some(100), Rest::Unread));
    assert!(!read.ranges);

    let near = bytes(SKIP_BYTES_MAX..SKIP_BYTES_MAX + 1);
    assert_eq!(reading(&near, 200, std::slice::from_ref(&len)).skip, SKIP_BYTES_MAX);
    let far = bytes(SKIP_BYTES_MAX + 1..SKIP_BYTES_MAX + 2);
    let fault = refused(&far, 200, std::slice::from_ref(&len));
    assert_eq!(fault, ReplyFault::WholeOnly { len: Some(4_000_000) });
    assert_eq!(refused(&far, 200, &[]), ReplyFault::WholeOnly { len: None });

    // The rest of a file is worth its prefix: the asker has no other way.
    let read = reading(&from(3_000_000), 200, &[len]);
    assert_eq!((read.skip, read.take), (3_000_000, Some(1_000_000)));
}

#[test]
fn a_whole_file_in_place_of_a_range_is_read_from_its_start_where_that_is_wanted() {
    let len = (header::CONTENT_LENGTH, "4000000");
    let read = reading(&bytes(3_000_000..3_000_100).or_whole(), 200, &[len]);
    assert_eq!((read.skip, read.take, read.rest), (0, Some(4_000_000), Rest::Nothing));
    assert!(!read.ranges);
    let chunked = (header::TRANSFER_ENCODING, "chunked");
    let request = RangeRequest::bytes(100..200, recorded(1000)).or_whole();
    let fault = refused(&request, 200, std::slice::from_ref(&chunked));
    assert_eq!(fault, ReplyFault::Changed, "it does not say which version it is");
    let read = reading(&request, 200, &[chunked, (header::ETAG, ETAG)]);
    assert_eq!((read.skip, read.take), (0, Some(1000)));
    let part = (header::CONTENT_RANGE, "bytes 100-199/1000");
    assert!(reading(&bytes(100..200).or_whole(), 206, &[part]).ranges);
}

#[test]
fn a_body_of_unknown_length_is_bounded_by_the_record() {
    let chunked = (header::TRANSFER_ENCODING, "chunked");
    let read = reading(&from(0), 200, std::slice::from_ref(&chunked));
    assert_eq!((read.take, read.file.len), (None, None));
    let request = RangeRequest::from(0, recorded(1000));
    let read = reading(&request, 200, &[chunked.clone(), (header::CONTENT_LENGTH, "7")]);
    assert_eq!((read.take, read.rest), (Some(1000), Rest::Nothing));
    let read = reading(&bytes(5..9), 200, &[chunked]);
    assert_eq!((read.skip, read.take, read.rest), (5, Some(4), Rest::Unread));
}

#[test]
fn a_changed_file_is_told_from_one_without_ranges() {
    let request = RangeRequest::bytes(100..200, recorded(1000));
    let part = (header::CONTENT_RANGE, "bytes 100-199/1000");
    let other = (header::ETAG, "\"v2\"");
    assert_eq!(refused(&request, 206, &[part.clone(), other.clone()]), ReplyFault::Changed);
    assert_eq!(refused(&request, 200, &[other]), ReplyFault::Changed);
    // `If-Range` was sent: the whole file, unlabelled, means that it did not match.
    assert_eq!(refused(&request, 200, &[(header::CONTENT_LENGTH, "1000")]), ReplyFault::Changed);
    let read = reading(&request, 200, &[(header::ETAG, ETAG)]);
    assert_eq!((read.skip, read.take), (100, Some(100)));
    // A weak tag proves nothing either way.
    assert!(reading(&request, 206, &[part, (header::ETAG, "W/\"v2\"")]).ranges);

    let dated = Validators {
        last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        ..Validators::default()
    };
    let headers = [
        (header::CONTENT_RANGE, "bytes 0-9/10"),
        (header::LAST_MODIFIED, "Mon, 07 Nov 1994 08:49:37 GMT"),
        (header::DATE, "Tue, 08 Nov 1994 08:49:37 GMT"),
    ];
    assert_eq!(refused(&RangeRequest::bytes(0..10, dated), 206, &headers), ReplyFault::Changed);
}

#[test]
fn an_unsatisfiable_range_is_the_end_or_a_fault() {
    let end = (header::CONTENT_RANGE, "bytes */1000");
    let read = reading(&from(1000), 416, std::slice::from_ref(&end));
    assert_eq!(read.take, Some(0));
    let fault = refused(&from(1001), 416, std::slice::from_ref(&end));
    assert_eq!(fault, ReplyFault::PastEnd { len: Some(1000) });
    let fault = refused(&bytes(1000..1001), 416, std::slice::from_ref(&end));
    assert_eq!(fault, ReplyFault::PastEnd { len: Some(1000) });
    assert_eq!(refused(&from(1000), 416, &[]), ReplyFault::PastEnd { len: None });
    let request = RangeRequest::from(1000, recorded(2000));
    let fault = refused(&request, 416, &[end]);
    assert_eq!(fault, ReplyFault::WrongLength { expected: 2000, got: 1000 });
}

#[test]
fn a_busy_origin_is_believed_within_bounds() {
    let date = (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
    for (headers, expected) in [
        (vec![], None),
        (vec![(header::RETRY_AFTER, "7")], Some(Duration::from_secs(7))),
        (vec![(header::RETRY_AFTER, "0")], Some(RETRY_AFTER_MIN)),
        (vec![(header::RETRY_AFTER, "86400")], Some(RETRY_AFTER_MAX)),
        (vec![(header::RETRY_AFTER, "99999999999999999999999")], Some(RETRY_AFTER_MAX)),
        (vec![(header::RETRY_AFTER, "-7")], None),
        (vec![(header::RETRY_AFTER, "soon")], None),
        (
            vec![(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:50:07 GMT"), date.clone()],
            Some(Duration::from_secs(30)),
        ),
        (vec![(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:00:00 GMT"), date], Some(RETRY_AFTER_MIN)),
        (vec![(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:50:07 GMT")], None),
    ] {
        for status in [429, 503] {
            let busy = ReplyFault::Busy { status, retry_after: expected };
            assert_eq!(refused(&bytes(0..1), status, &headers), busy, "{headers:?}");
        }
    }
}

#[test]
fn a_redirect_names_one_target() {
    for status in [301, 302, 303, 307, 308] {
        let to = verdict(&from(0), status, &[(header::LOCATION, "/elsewhere")]);
        assert_eq!(to, Verdict::Redirect("/elsewhere".to_owned()));
        assert_eq!(refused(&from(0), status, &[]), ReplyFault::RedirectNowhere);
    }
    let two = [(header::LOCATION, "/a"), (header::LOCATION, "/b")];
    assert_eq!(refused(&from(0), 302, &two), ReplyFault::RedirectNowhere);
}

#[test]
fn other_statuses_are_faults() {
    for status in [100, 201, 204, 300, 304, 400, 401, 403, 404, 407, 410, 500, 502, 504, 599] {
        assert_eq!(refused(&from(0), status, &[]), ReplyFault::Status { status });
    }
}

// T15
#[test]
fn an_encoded_body_is_refused_unless_the_file_itself_is_compressed() {
    let judge_at = |path: &str, encoding: &'static str| {
        judge(&from(0), path, StatusCode::OK, &map(&[(header::CONTENT_ENCODING, encoding)]))
    };
    for encoding in ["gzip", "GZIP", "br", "deflate", "gzip, gzip", "zstd"] {
        let verdict = judge_at(PATH, encoding);
        assert_eq!(verdict, Verdict::Refuse(ReplyFault::Encoded), "{encoding}");
    }
    assert!(matches!(judge_at(PATH, "identity"), Verdict::Read(_)));
    assert!(matches!(judge_at("/Packages.gz", "x-gzip"), Verdict::Read(_)));
    assert_eq!(judge_at("/Packages.gz", "br"), Verdict::Refuse(ReplyFault::Encoded));
    let twice = [(header::CONTENT_ENCODING, "identity"), (header::CONTENT_ENCODING, "br")];
    assert_eq!(refused(&from(0), 200, &twice), ReplyFault::Encoded);
}

// T5
#[test]
fn a_file_larger_than_a_content_may_be_is_refused_by_its_head() {
    let len = 257 << 30;
    let whole = [(header::CONTENT_LENGTH, "275951648768")];
    assert_eq!(refused(&from(0), 200, &whole), ReplyFault::TooLarge { len });
    let part = [(header::CONTENT_RANGE, "bytes 0-0/275951648768")];
    assert_eq!(refused(&bytes(0..1), 206, &part), ReplyFault::TooLarge { len });
}

proptest::proptest! {
    // T5
    #[test]
    fn no_reply_makes_more_than_was_asked_for_nor_panics(
        status in proptest::sample::select(&[200_u16, 206, 301, 416, 429, 503][..]),
        first in 0_u64..40,
        asked in proptest::option::of(1_u64..40),
        len in proptest::option::of(0_u64..80),
        numbers in proptest::array::uniform4(proptest::option::of(0_u64..80)),
        text in "[ -~]{0,20}",
    ) {
        let validators = Validators { len, ..Validators::default() };
        let request = match asked {
            Some(asked) => RangeRequest::bytes(first..first + asked, validators),
            None => RangeRequest::from(first, validators),
        };
        let mut headers = HeaderMap::new();
        let number = |number: Option<u64>| number.map_or_else(|| text.clone(), |n| n.to_string());
        let [a, b, total, announced] = numbers.map(number);
        for (name, value) in [
            (header::CONTENT_RANGE, format!("bytes {a}-{b}/{total}")),
            (header::CONTENT_LENGTH, announced),
            (header::RETRY_AFTER, text.clone()),
            (header::ETAG, text.clone()),
            (header::LOCATION, text),
        ] {
            headers.insert(name, value.parse().expect("visible ASCII"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        if let Verdict::Read(reading) = judge(&request, PATH, status, &headers) {
            if let Some(asked) = asked {
                proptest::prop_assert_eq!(reading.take, Some(asked));
            }
            proptest::prop_assert!(reading.skip == 0 || reading.skip == first);
            if let (Some(len), Some(take)) = (len, reading.take) {
                proptest::prop_assert!(first + take <= len);
            }
        }
    }
}

//! What a client of the proxy sends: nothing makes a reader panic, what is read strictly does not depend on how it was
//! cut, no target leaves its host, and no range its file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_node::proxy::fuzzed;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let whole = fuzzed::is_strict(rest, rest.len());
    assert_eq!(whole, fuzzed::is_strict(rest, usize::from(*first)));
    let head = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    assert!(
        !whole || !head.contains(&0) || head.starts_with(b"CONNECT "),
        "a NUL in a request line"
    );

    if let Some((method, target)) = str::from_utf8(head).ok().and_then(|head| head.split_once(' '))
    {
        let target = target.split(' ').next().unwrap_or_default();
        assert_eq!(fuzzed::target(method, target, 2), None, "two hosts");
        if let Some(url) = fuzzed::target(method, target, 1) {
            assert!(matches!(url.scheme(), "http" | "https") && url.has_host(), "{url}");
            assert!(url.username().is_empty() && url.password().is_none(), "{url}");
            assert!(url.path().split('/').all(|part| !matches!(part, "." | "..")), "{url}");
            assert!(method != "CONNECT" || url.port_or_known_default() == Some(443), "{url}");
            // Asked for as a mirror's, it is the same file.
            let again = match url.scheme() {
                "https" => format!("/https/{}", &url.as_str()["https://".len()..]),
                _ => format!("/{}", &url.as_str()["http://".len()..]),
            };
            // A host of that name has no such form.
            if again.len() <= 8 * 1024 && url.host_str() != Some("https") {
                let again = fuzzed::target("GET", &again, 1);
                assert!(again.is_none_or(|again| again == url), "{url}");
            }
        }
    }

    let headers: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').take(64).collect();
    let len = u64::from(*first) << (*first % 48);
    if let Some((start, end)) = fuzzed::part(&headers, len) {
        assert!(start < end && end <= len);
    }
});

//! Requests that two parsers read differently: none is answered with a file, and nothing behind one
//! is answered at all (T25).

use super::client::{Client, get};
use super::house::{House, bytes};
use super::origin::Origin;

const DEB: &str = "/pool/a_1.deb";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T25
async fn no_request_is_read_in_two_ways() {
    let (house, origin, file) = (House::new(), Origin::new().await, bytes(1000, 1));
    origin.put(DEB, &file, Some("1"));
    origin.put("/pool/smuggled_1.deb", &file, Some("1"));
    let node = house.node(&[&origin]);
    let (url, host) = (origin.url(DEB), origin.address.to_string());
    let inner =
        format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", origin.url("/pool/smuggled_1.deb"));
    let len = inner.len();
    let get_with =
        |headers: &str| format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{inner}");
    let corpus = [
        (
            "both lengths",
            get_with(&format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n")),
        ),
        (
            "both lengths, the other way",
            get_with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        ),
        ("a body", get_with(&format!("Content-Length: {len}\r\n"))),
        ("chunks", get_with("Transfer-Encoding: chunked\r\n")),
        ("an odd coding", get_with("Transfer-Encoding: xchunked\r\n")),
        ("a coding twice", get_with("Transfer-Encoding: chunked, identity\r\n")),
        ("a coding with a tab", get_with("Transfer-Encoding:\tchunked\r\n")),
        ("a coding with a blank before the colon", get_with("Transfer-Encoding : chunked\r\n")),
        ("lengths that differ", get_with("Content-Length: 0\r\nContent-Length: 5\r\n")),
        ("a list of lengths", get_with("Content-Length: 0, 5\r\n")),
        ("a signed length", get_with("Content-Length: +0\r\n")),
        ("a folded header", get_with("X: a\r\n b\r\n")),
        ("a folded coding", get_with("Transfer-Encoding:\r\n chunked\r\n")),
        ("a header that begins with a blank", get_with(" Content-Length: 5\r\n")),
        ("a blank in a name", get_with("Content Length: 5\r\n")),
        ("a line feed alone", get_with("X: a\nContent-Length: 5\r\n")),
        ("a carriage return alone", get_with("X: a\rContent-Length: 5\r\n")),
        ("a NUL", get_with("X: a\0b\r\n")),
        ("two hosts", get_with("Host: other\r\n")),
        ("no host", format!("GET {url} HTTP/1.1\r\n\r\n{inner}")),
        ("lines that end with a line feed", format!("GET {url} HTTP/1.1\nHost: {host}\n\n{inner}")),
        ("an old version", format!("GET {url}\r\n\r\n{inner}")),
        ("a strange version", format!("GET {url} HTTP/1.9\r\nHost: {host}\r\n\r\n{inner}")),
        ("a blank in the target", format!("GET {url} x HTTP/1.1\r\nHost: {host}\r\n\r\n{inner}")),
        ("another method", format!("POST {url} HTTP/1.1\r\nHost: {host}\r\n\r\n{inner}")),
        ("many headers", get_with(&"X: a\r\n".repeat(200))),
        ("a long header", get_with(&format!("X: {}\r\n", "a".repeat(64 << 10)))),
        (
            "a long target",
            format!("GET {url}?{} HTTP/1.1\r\nHost: {host}\r\n\r\n{inner}", "a".repeat(9000)),
        ),
        (
            "something behind a tunnel that is refused",
            format!("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n{inner}"),
        ),
    ];
    for (what, request) in corpus {
        let mut client = Client::of(node.proxy).await;
        client.send(&request).await;
        if let Some(reply) = client.reply().await {
            assert!((400..=505).contains(&reply.status), "{what}: {}", reply.status);
            assert!(client.reply().await.is_none(), "{what}: the connection went on");
        }
    }
    assert_eq!(origin.asked().len(), 0);
    assert_eq!(get(node.proxy, &url, "").await.status, 200);
}

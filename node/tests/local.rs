//! The local socket, with a real store at one end and whatever comes along at the other.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use sutler_cache::import::ImportFrom;
use sutler_node::config::StoreConfig;
use sutler_node::data::DataFolder;
use sutler_node::failure::Kind;
use sutler_node::local::message::{Reply, VERSION};
use sutler_node::local::{AddFile, LocalClient, LocalServer, StoreOwner, frame};
use sutler_node::owner::OpenStore;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A store and its socket, answered on threads of their own until dropped.
struct Owner {
    data: DataFolder,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataFolder::new(folder.path());
        let store = OpenStore::open(data.clone(), &StoreConfig::default()).expect("a store");
        let server = LocalServer::bind(&data, Arc::new(store)).expect("a socket");
        let (runtime, stop) = (Runtime::new().expect("threads"), CancellationToken::new());
        runtime.spawn(server.run(stop.clone()));
        Self { data, stop, runtime: Some(runtime), _folder: folder }
    }

    fn client(&self) -> LocalClient {
        LocalClient::connect(self.data.clone()).expect("it answers")
    }

    fn stream(&self) -> UnixStream {
        UnixStream::connect(self.data.control_socket()).expect("it listens")
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.cancel();
        drop(self.runtime.take());
    }
}

fn file(bytes: u64) -> AddFile {
    AddFile { name: Some("a".to_owned()), bytes, sha256: None }
}

/// Reads the one reply that a connection ends with.
fn reply(mut stream: UnixStream) -> Option<Reply> {
    frame::read(&mut stream, frame::REPLY_BYTES_MAX).expect("a frame")
}

#[test]
fn bytes_go_in_by_the_socket_and_are_there() {
    let owner = Owner::new();
    let bytes = vec![7; 100_000];
    let mut stream = bytes.as_slice();
    let added = owner.client().add(&file(100_000), ImportFrom::Stream(&mut stream)).expect("added");
    assert_eq!((added.bytes, added.existed), (100_000, false));
    let mut rows = Vec::new();
    owner.client().list(&mut |row| rows.push(row)).expect("listed");
    assert_eq!((rows.len(), &rows[0].content, rows[0].complete), (1, &added.content, true));
}

#[test]
fn a_file_that_is_cut_short_meanwhile_is_blamed_and_nothing_is_stored() {
    let owner = Owner::new();
    let mut bytes: &[u8] = &[7; 99];
    let failure = owner.client().add(&file(100), ImportFrom::Stream(&mut bytes)).expect_err("cut");
    assert_eq!(failure.kind, Kind::File);
    assert_eq!(owner.client().status().expect("it lives on").store.contents, 0);
}

#[test]
fn what_the_owner_refuses_is_told_though_bytes_are_still_on_their_way() {
    let owner = Owner::new();
    let wrong = AddFile { sha256: Some("no digest".to_owned()), ..file(50_000_000) };
    let mut bytes = std::io::repeat(7);
    let failure = owner.client().add(&wrong, ImportFrom::Stream(&mut bytes)).expect_err("refused");
    assert_eq!(failure.kind, Kind::Usage, "{failure}");
}

#[test]
fn a_command_of_another_version_is_told_so() {
    let owner = Owner::new();
    let mut stream = owner.stream();
    let request = serde_json::json!({ "version": VERSION + 1, "request": "unheard-of" });
    frame::write(&mut stream, &request).expect("sent");
    assert!(matches!(reply(stream), Some(Reply::Failed(failure)) if failure.kind == Kind::Store));
}

// T5
#[test]
fn rubbish_and_endless_frames_are_refused_and_others_are_served_on() {
    let owner = Owner::new();
    for rubbish in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x03{]}", b"\0\0\0\x02{}"] {
        let mut stream = owner.stream();
        stream.write_all(rubbish).expect("sent");
        assert!(matches!(reply(stream), Some(Reply::Failed(_))), "{rubbish:?}");
    }
    owner.client().status().expect("it lives on");
}

#[test]
fn a_request_with_unknown_fields_is_refused() {
    let owner = Owner::new();
    let mut stream = owner.stream();
    let request = serde_json::json!({
        "version": VERSION, "request": { "gc": { "bytes_max": 1, "force": true } },
    });
    frame::write(&mut stream, &request).expect("sent");
    assert!(matches!(reply(stream), Some(Reply::Failed(_))));
}

#[test]
fn commands_that_stay_silent_do_not_hold_up_a_stop() {
    let owner = Owner::new();
    let silent: Vec<UnixStream> = (0..3).map(|_| owner.stream()).collect();
    owner.client().status().expect("others are served meanwhile");
    owner.stop.cancel();
    for mut stream in silent {
        // Closed by the owner, long before its own patience would have ended.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the end");
    }
}

//! Signed files and their indexes: no client is given one of one generation and one of another. Who
//! signed them does not matter here, so these are not signed at all.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use sutler_protocol::Sha256Digest;

use super::client::get;
use super::house::{House, bytes, config, eventually};
use super::origin::Origin;

const SUITE: &str = "/debian/dists/stable";
const NAME: &str = "main/binary-amd64/Packages";
/// What apt says with each index that it asks for.
const INSIST: &str = "Cache-Control: max-age=0\r\n";

fn hex(bytes: &[u8]) -> String {
    let sha256 = digest(&SHA256, bytes);
    let sha256 = Sha256Digest::from_bytes(sha256.as_ref().try_into().unwrap());
    sha256.to_string().trim_start_matches("sha256:").to_owned()
}

/// Publishes a release whose one index is this.
fn publish(origin: &Origin, number: u32, index: &[u8]) -> String {
    let release = format!(
        "Origin: House\nLabel: House\nSuite: stable\nDate: Mon, 01 Nov 2021 08:00:0{number} UTC\n\
         Architectures: amd64\nComponents: main\nSHA256:\n {} {} {NAME}\n",
        hex(index),
        index.len()
    );
    let tag = number.to_string();
    origin.put(&format!("{SUITE}/Release"), release.as_bytes(), Some(&tag));
    origin.put(&format!("{SUITE}/{NAME}"), index, Some(&tag));
    let folder = NAME.rsplit_once('/').unwrap().0;
    origin.put(&format!("{SUITE}/{folder}/by-hash/SHA256/{}", hex(index)), index, Some(&tag));
    release
}

/// Asks from another address of this machine.
async fn get_as(last: u8, proxy: SocketAddr, url: &str) -> super::client::Reply {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    let mut client = super::client::Client(socket.connect(proxy).await.unwrap());
    client.get(url, INSIST).await;
    client.reply().await.expect("a reply")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5
async fn who_is_in_the_middle_of_an_update_is_answered_from_the_generation_it_began_with() {
    let (house, origin) = (House::new(), Origin::new().await);
    let (old, new) = (bytes(50_000, 1), bytes(60_000, 2));
    let node = house.node(&[&origin]);
    let (release, index) =
        (origin.url(&format!("{SUITE}/Release")), origin.url(&format!("{SUITE}/{NAME}")));
    let first = publish(&origin, 1, &old);
    assert_eq!(get_as(2, node.proxy, &release).await.text(), first);
    assert!(get_as(2, node.proxy, &index).await.body == old);
    // Others begin with the old one, and are in the middle when the new one comes.
    assert_eq!(get_as(3, node.proxy, &release).await.text(), first);
    let second = publish(&origin, 2, &new);
    assert_eq!(get_as(4, node.proxy, &release).await.text(), second);
    assert!(get_as(4, node.proxy, &index).await.body == new);
    assert!(get_as(3, node.proxy, &index).await.body == old);
    assert!(get_as(2, node.proxy, &index).await.body == old);
    for wanted in [&old, &new] {
        let folder = NAME.rsplit_once('/').unwrap().0;
        let url = origin.url(&format!("{SUITE}/{folder}/by-hash/SHA256/{}", hex(wanted)));
        let reply = get_as(3, node.proxy, &url).await;
        assert_eq!(reply.mark(), "HIT");
        assert!(reply.body == *wanted);
    }
    // The new index was here before the new release was given out, and came once.
    let asked = origin.asked().len();
    assert_eq!(get_as(3, node.proxy, &release).await.text(), second);
    assert!(get_as(3, node.proxy, &index).await.body == new);
    assert_eq!(origin.asked().len(), asked + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_whose_index_is_not_the_one_it_names_breaks_nothing_that_was_there() {
    let (house, origin) = (House::new(), Origin::new().await);
    let (old, wrong) = (bytes(200_000, 3), bytes(200_000, 4));
    let node = house.node(&[&origin]);
    let index = origin.url(&format!("{SUITE}/{NAME}"));
    publish(&origin, 1, &old);
    // The mirror is half way: the index is not yet the one that the release names.
    origin.put(&format!("{SUITE}/{NAME}"), &wrong, Some("9"));
    get(node.proxy, &origin.url(&format!("{SUITE}/Release")), INSIST).await;
    let reply = get(node.proxy, &index, INSIST).await;
    assert!(reply.is_broken || reply.status == 502, "{}", reply.status);
    assert!(reply.body.len() < wrong.len());
    eventually("nothing of it is kept", || node.held().1 == 1).await;
    origin.put(&format!("{SUITE}/{NAME}"), &old, Some("10"));
    let mut status = 502;
    while status != 200 {
        let reply = get(node.proxy, &index, INSIST).await;
        status = reply.status;
        assert!(status != 200 || reply.body == old);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R31
async fn a_restart_and_an_origin_that_is_down_leave_what_fits_together() {
    let (house, origin, old) = (House::new(), Origin::new().await, bytes(50_000, 5));
    let node = house.node(&[&origin]);
    let release = origin.url(&format!("{SUITE}/Release"));
    let index = origin.url(&format!("{SUITE}/{NAME}"));
    let first = publish(&origin, 1, &old);
    get(node.proxy, &release, INSIST).await;
    get(node.proxy, &index, INSIST).await;
    eventually("both are kept", || node.held().1 == 2).await;
    let dir = node.stop().await;
    assert!(dir.join("proxy/suites.json").exists());
    let node = house.node_with(&dir, &config(&[&origin]));
    origin.answer_only(Some(500));
    let stale = get(node.proxy, &release, INSIST).await;
    assert_eq!((stale.mark().as_str(), stale.text()), ("STALE", first));
    assert!(get(node.proxy, &index, INSIST).await.body == old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // R39, R41
async fn a_release_that_nobody_understands_is_passed_on_as_it_is() {
    let (house, origin, old) = (House::new(), Origin::new().await, bytes(50_000, 6));
    let node = house.node(&[&origin]);
    let release = origin.url(&format!("{SUITE}/Release"));
    publish(&origin, 1, &old);
    get(node.proxy, &release, INSIST).await;
    for (number, rubbish) in ["no release", "", "SHA256:\n zz 1 x\n"].iter().enumerate() {
        origin.put(&format!("{SUITE}/Release"), rubbish.as_bytes(), Some(&format!("r{number}")));
        let reply = get(node.proxy, &release, INSIST).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, *rubbish));
    }
    // What fits together is still there for who began with it.
    assert!(get(node.proxy, &origin.url(&format!("{SUITE}/{NAME}")), INSIST).await.body == old);
}

/// Publishes an RPM repository whose index of packages is this; its name holds its digest or not.
fn publish_rpms(origin: &Origin, number: u32, index: &[u8], is_unique: bool) -> (String, String) {
    let prefix = if is_unique { format!("{}-", hex(index)) } else { String::new() };
    let location = format!("repodata/{prefix}primary.xml.gz");
    let root = format!(
        "<?xml version=\"1.0\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n\
         <revision>{number}</revision><data type=\"primary\"><checksum type=\"sha256\">{}</checksum>\
         <location href=\"{location}\"/><timestamp>{number}</timestamp><size>{}</size></data></repomd>",
        hex(index),
        index.len()
    );
    let tag = number.to_string();
    origin.put("/el9/repodata/repomd.xml", root.as_bytes(), Some(&tag));
    origin.put("/el9/repodata/repomd.xml.asc", signature(number).as_bytes(), Some(&tag));
    origin.put(&format!("/el9/{location}"), index, Some(&tag));
    (root, origin.url(&format!("/el9/{location}")))
}

/// What lies beside the `repomd.xml` of a release; who signed it does not matter here.
fn signature(number: u32) -> String {
    format!("the signature of {number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // D5
async fn no_client_mixes_a_repomd_with_the_index_of_another() {
    for is_unique in [false, true] {
        let (house, origin) = (House::new(), Origin::new().await);
        let (old, new) = (bytes(50_000, 7), bytes(60_000, 8));
        let node = house.node(&[&origin]);
        let repomd = origin.url("/el9/repodata/repomd.xml");
        let (first, old_index) = publish_rpms(&origin, 1, &old, is_unique);
        assert_eq!(get_as(2, node.proxy, &repomd).await.text(), first);
        assert!(get_as(2, node.proxy, &old_index).await.body == old);
        assert_eq!(get_as(3, node.proxy, &repomd).await.text(), first);
        assert_eq!(get_as(3, node.proxy, &repomd).await.mark(), "REVALIDATED");

        let (second, new_index) = publish_rpms(&origin, 2, &new, is_unique);
        if is_unique {
            origin.remove(&old_index[old_index.find("/el9").unwrap()..]);
        }
        assert_eq!(get_as(4, node.proxy, &repomd).await.text(), second);
        // It was here before the new repomd was given out.
        let asked = origin.asked().len();
        let reply = get_as(4, node.proxy, &new_index).await;
        assert!(reply.body == new && reply.mark() == "HIT");
        assert!(get_as(3, node.proxy, &old_index).await.body == old);
        assert_eq!(origin.asked().len(), asked);
        let beside = format!("{repomd}.asc");
        assert_eq!(get_as(3, node.proxy, &beside).await.text(), signature(1));
        assert_eq!(get_as(4, node.proxy, &beside).await.text(), signature(2));
        assert_eq!(get_as(3, node.proxy, &repomd).await.text(), second);
        assert!(get_as(3, node.proxy, &new_index).await.body == new);
        assert_eq!(get_as(3, node.proxy, &beside).await.text(), signature(2));
    }
}

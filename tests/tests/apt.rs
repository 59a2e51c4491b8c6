//! The real `apt-get` in front of archives that the tests make.

use std::fs;

use sutler_tests::apt_root::AptRoot;
use sutler_tests::vendor::{Archive, Origin, Publication, Signer};

#[test]
fn the_house_vendor_satisfies_the_real_apt() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::new(folder.path().join("debian"), "stable", &["main"]);
    let path = archive.add("main", "tool", "1.0", 200_000);
    let signer = Signer::new();
    archive.publish(&signer, &Publication::default());
    let origin = Origin::serve(folder.path());
    let apt = AptRoot::new();
    apt.follow("house", &origin.url("debian"), "stable", &signer);
    apt.update_well();
    let said = apt.install(&["tool"]);
    assert!(said.is_ok, "{}", said.text);
    assert_eq!(apt.installed("tool").as_deref(), Some("1.0"));
    let deb = fs::metadata(archive.path(&path)).unwrap().len();
    assert_eq!(origin.asked(&format!("debian/{path}")).bytes, deb);
}

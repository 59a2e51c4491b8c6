//! Feeds that real programs made and signed, as they are and as an attacker would have them.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sutler_feed::apt::{Apt, SignedBy};
use sutler_feed::index::{FileError, IndexFile};
use sutler_feed::packages::PackagesError;
use sutler_feed::release::{ReleaseError, verify_detached, verify_inrelease};
use sutler_feed::{Compression, Index, Keyring, Packages, Reason, Release, Table};
use sutler_tests::skip;
use sutler_tests::vendor::archive::architecture;
use sutler_tests::vendor::{Archive, Publication, Signer};
use tempfile::TempDir;

/// An archive with one package, published as asked.
struct Vendor {
    _folder: TempDir,
    archive: Archive,
    signer: Signer,
    keyring: Keyring,
    path: String,
}

impl Vendor {
    fn new(publication: &Publication) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path(), "stable", &["main"]);
        let path = archive.add("main", "tool", "1.0", 3000);
        let signer = Signer::new();
        archive.publish(&signer, publication);
        let keyring = Keyring::parse(&signer.public()).unwrap();
        Self { _folder: folder, archive, signer, keyring, path }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.archive.path("dists/stable").join(name)).unwrap()
    }

    fn verify(&self, inrelease: &[u8]) -> Result<Release, ReleaseError> {
        verify_inrelease(inrelease, &self.keyring, SystemTime::now())
    }

    /// Signs a text and returns why it is refused.
    fn refused(&self, text: &str) -> Reason {
        self.verify(&self.signer.clear_signed(text.as_bytes())).unwrap_err().reason()
    }
}

fn packages_name(ending: &str) -> String {
    format!("main/binary-{}/Packages{ending}", architecture())
}

fn now_text(ahead: Duration) -> String {
    httpdate::fmt_http_date(SystemTime::now() + ahead)
}

/// Returns an index of `bytes` as if a Release named it.
fn named(bytes: &[u8], compression: Compression, plain: Option<&[u8]>) -> Index {
    let file = |bytes: &[u8]| {
        let mut sum = Command::new("sha256sum");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), bytes).unwrap();
        let said = sum.arg(folder.path().join("x")).output().unwrap().stdout;
        let sha256 = std::str::from_utf8(&said[..64]).unwrap().parse().unwrap();
        IndexFile { bytes: bytes.len() as u64, sha256 }
    };
    Index { table: Table::Packages, compression, packed: Some(file(bytes)), plain: plain.map(file) }
}

fn packed(program: &str, plain: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    fs::write(&file, plain).unwrap();
    let output = Command::new(program).args(["--stdout", "--quiet"]).arg(file).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

const STANZA: &str = "Package: a\nFilename: pool/a.deb\nSize: 5\nSHA256: \
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\n";

#[test]
fn a_package_is_vouched_for_by_the_chain_from_its_vendors_key() {
    // R39
    let vendor = Vendor::new(&Publication::default());
    let release = vendor.verify(&vendor.file("InRelease")).unwrap();
    assert_eq!(release.suite(), Some("stable"));
    assert_eq!(release.signers()[0].as_str(), vendor.signer.fingerprint());
    assert!(release.is_by_hash() && release.valid_until().is_some());

    for ending in ["", ".xz", ".gz"] {
        let name = packages_name(ending);
        assert!(release.packages().any(|listed| listed == name), "{name}");
        let index = release.index(&name).unwrap();
        let packages = Packages::read(&*vendor.file(&name), &index).unwrap();
        let file = packages.vouches(&vendor.path).unwrap();
        let deb = fs::read(vendor.archive.path(&vendor.path)).unwrap();
        assert!(file.check(&*deb).is_ok());
        assert!(matches!(file.check(&deb[1..]), Err(FileError::Length { .. })));
        assert_eq!(packages.vouches("pool/main/other.deb"), None);
        assert_eq!(packages.len(), 1);
    }
}

#[test]
fn a_release_with_its_signature_beside_it_vouches_too() {
    let vendor = Vendor::new(&Publication { in_release: false, ..Publication::default() });
    let (text, signature) = (vendor.file("Release"), vendor.file("Release.gpg"));
    let now = SystemTime::now();
    assert!(verify_detached(&text, &signature, &vendor.keyring, now).is_ok());

    let reason = |text: &[u8], signature: &[u8]| {
        verify_detached(text, signature, &vendor.keyring, now).unwrap_err().reason()
    };
    let mut tampered = text.clone();
    tampered[10] ^= 1;
    assert_eq!(reason(&tampered, &signature), Reason::BadSignature);
    assert_eq!(reason(&text, b""), Reason::Unsigned);
    assert_eq!(reason(&text, b"<html>log in</html>"), Reason::Unsigned);
    // A whole signed message in the place of a signature over another.
    let other = vendor.signer.clear_signed(b"Origin: elsewhere\n");
    assert_eq!(reason(&text, &other), Reason::Unsigned);
    assert_eq!(reason(&vec![b'a'; 10_000_001], &signature), Reason::TooLarge);
    assert_eq!(reason(&text, &vec![b'a'; 70_000]), Reason::TooLarge);
}

#[test]
fn each_release_that_is_not_to_be_believed_has_a_reason_of_its_own() {
    // R39
    let vendor = Vendor::new(&Publication::default());
    let sound = vendor.file("InRelease");
    let reason = |file: &[u8]| vendor.verify(file).unwrap_err().reason();

    let tampered = String::from_utf8(sound.clone()).unwrap().replace("stable", "stablE");
    assert_eq!(reason(tampered.as_bytes()), Reason::BadSignature);
    assert_eq!(reason(&vendor.file("Release")), Reason::Unsigned);

    let stranger = Signer::new();
    let text = vendor.file("Release");
    assert_eq!(reason(&stranger.clear_signed(&text)), Reason::UnknownKey);
    assert_eq!(reason(&vendor.signer.clear_signed_by(&text, "SHA1")), Reason::WeakSignature);

    let only = vendor.keyring.clone().only([&*stranger.fingerprint()]).unwrap();
    let other = verify_inrelease(&sound, &only, SystemTime::now()).unwrap_err();
    assert_eq!(other.reason(), Reason::UnknownKey);
    let only = vendor.keyring.clone().only([&*vendor.signer.fingerprint()]).unwrap();
    assert!(verify_inrelease(&sound, &only, SystemTime::now()).is_ok());
}

#[test]
fn keys_that_are_expired_or_revoked_are_told_from_unknown_ones() {
    // R39
    let text = format!("Date: {}\nSHA256:\n", now_text(Duration::ZERO));
    let reason = |signer: &Signer| {
        let keyring = Keyring::parse(&signer.public()).unwrap();
        let signed = signer.clear_signed(text.as_bytes());
        verify_inrelease(&signed, &keyring, SystemTime::now()).unwrap_err().reason()
    };
    let year_2020 = 1_577_836_800;
    assert_eq!(reason(&Signer::for_a_year_from(year_2020)), Reason::ExpiredKey);

    let revoked = Signer::new();
    let signed = revoked.clear_signed(text.as_bytes());
    let before = Keyring::parse(&revoked.public()).unwrap();
    assert!(verify_inrelease(&signed, &before, SystemTime::now()).is_ok());
    revoked.revoke();
    let after = Keyring::parse(&revoked.public()).unwrap();
    let refused = verify_inrelease(&signed, &after, SystemTime::now()).unwrap_err();
    assert_eq!(refused.reason(), Reason::RevokedKey);
}

#[test]
fn one_known_key_is_enough_and_keyrings_may_be_armored_or_several() {
    let vendor = Vendor::new(&Publication::default());
    let file = vendor.file("InRelease");
    let armored = Keyring::parse(vendor.signer.public_armored().as_bytes()).unwrap();
    assert_eq!(armored, vendor.keyring);
    let stranger = Keyring::parse(&Signer::new().public()).unwrap();
    let now = SystemTime::now();
    assert!(verify_inrelease(&file, &stranger, now).is_err());
    assert!(verify_inrelease(&file, &stranger.and(&armored).unwrap(), now).is_ok());
}

#[test]
fn only_what_was_signed_is_read() {
    let vendor = Vendor::new(&Publication::default());
    let sound = String::from_utf8(vendor.file("InRelease")).unwrap();
    let evil = format!("Date: {}\nSHA256:\n", now_text(Duration::ZERO));
    let reason = |file: String| vendor.verify(file.as_bytes()).unwrap_err().reason();
    assert_eq!(reason(format!("{evil}\n{sound}")), Reason::Unsigned);
    assert_eq!(reason(format!("{sound}\n{evil}")), Reason::Malformed);
    assert_eq!(reason(format!("{sound}{sound}")), Reason::Malformed);
    // In the header, before the text: gpg would not hash it.
    let hidden = sound.replacen("\n\n", &format!("\nOrigin: evil\n{evil}\n\n"), 1);
    assert_eq!(reason(hidden), Reason::Malformed);
    // Space that the signature does not cover changes nothing.
    let spaced = sound.replace("Suite: stable\n", "Suite: stable \t\n");
    assert_eq!(vendor.verify(spaced.as_bytes()).unwrap().suite(), Some("stable"));
}

#[test]
fn a_silent_vendor_and_a_wrong_clock_are_told_apart() {
    // R41, T13
    let at = SystemTime::now() - Duration::from_hours(48);
    let vendor = Vendor::new(&Publication { at, ..Publication::default() });
    let file = vendor.file("InRelease");
    let on = |now| verify_inrelease(&file, &vendor.keyring, now);
    assert_eq!(on(SystemTime::now()).unwrap_err().reason(), Reason::ExpiredIndex);
    assert_eq!(on(at - Duration::from_hours(1)).unwrap_err().reason(), Reason::Clock);
    assert_eq!(on(UNIX_EPOCH).unwrap_err().reason(), Reason::Clock);

    let release = on(at).unwrap();
    assert!(release.is_valid(at + Duration::from_hours(23)).is_ok());
    let later = release.is_valid(at + Duration::from_hours(25)).unwrap_err();
    assert_eq!(later.reason(), Reason::ExpiredIndex);

    let at = UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
    let vendor = Vendor::new(&Publication { at, valid_for: None, ..Publication::default() });
    assert!(vendor.verify(&vendor.file("InRelease")).is_ok(), "one that names no end has none");
}

#[test]
fn names_that_lead_out_of_the_archive_are_refused_in_both_places() {
    // T14
    let vendor = Vendor::new(&Publication::default());
    let digest = "0".repeat(64);
    let date = now_text(Duration::ZERO);
    for name in ["../../etc/passwd", "/etc/passwd", "a/../../b", "a//b"] {
        let text = format!("Date: {date}\nSHA256:\n {digest} 1 {name}\n");
        assert_eq!(vendor.refused(&text), Reason::Malformed, "{name}");

        let text = STANZA.replace("pool/a.deb", name);
        let error =
            Packages::read(text.as_bytes(), &named(text.as_bytes(), Compression::Plain, None));
        assert!(matches!(error, Err(PackagesError::Path { line: 1 })), "{name}");
    }
}

#[test]
fn what_is_signed_and_makes_no_sense_is_an_error_and_no_panic() {
    let vendor = Vendor::new(&Publication::default());
    let date = now_text(Duration::ZERO);
    let digest = "0".repeat(64);
    for text in [
        String::new(),
        "SHA256:\n".to_owned(),
        format!("Date: {date}\n"),
        "Date: yesterday\nSHA256:\n".to_owned(),
        format!("Date: {date}\nDate: {date}\nSHA256:\n"),
        format!("Date: {date}\nSHA256:\n {digest} 1\n"),
        format!("Date: {date}\nSHA256:\n {digest} -1 a\n"),
        format!("Date: {date}\nSHA256:\n {digest} 99999999999999999999 a\n"),
        format!("Date: {date}\nSHA256:\n {digest} 1 a b\n"),
        format!("Date: {date}\nSHA256:\n 00 1 a\n"),
        format!("Date: {date}\nSHA256:\n {digest} 1 a\n {digest} 2 a\n"),
        format!("Date: {date}\nSHA256:\n {digest} 1 a\nSHA512:\n {digest}{digest} 2 a\n"),
        format!("Date: {date}\nSHA256:\n {digest} 1 {}\n", "a".repeat(3000)),
        format!("Date: {date}\nSHA256:\n\nDate: {date}\n"),
    ] {
        assert_eq!(vendor.refused(&text), Reason::Malformed, "{text}");
    }
    let files: Vec<String> = (0..70_000).map(|number| format!(" {digest} 1 {number}\n")).collect();
    let text = format!("Date: {date}\nSHA256:\n{}", files.concat());
    assert_eq!(vendor.refused(&text), Reason::TooLarge);
}

#[test]
fn an_index_is_found_by_its_name_and_by_its_digests() {
    let vendor = Vendor::new(&Publication::default());
    let release = vendor.verify(&vendor.file("InRelease")).unwrap();
    let folder = format!("main/binary-{}", architecture());
    for hash in ["SHA256", "SHA512"] {
        let by_hash = vendor.archive.path(format!("dists/stable/{folder}/by-hash/{hash}"));
        for entry in fs::read_dir(by_hash).unwrap() {
            let entry = entry.unwrap();
            let digest = entry.file_name().into_string().unwrap();
            let (name, file) =
                release.resolve(&format!("{folder}/by-hash/{hash}/{digest}")).unwrap();
            assert!(name.starts_with(&folder));
            assert!(file.check(fs::File::open(entry.path()).unwrap()).is_ok());
            assert_eq!(release.resolve(&format!("by-hash/{hash}/{digest}")), None);
        }
    }
    assert!(release.resolve(&packages_name(".xz")).is_some());
    for path in ["", "by-hash/SHA256/", "by-hash/MD5Sum/00", "main/by-hash/SHA256/zz"] {
        assert_eq!(release.resolve(path), None, "{path}");
    }
}

#[test]
fn suites_of_security_updates_call_their_components_otherwise() {
    let vendor = Vendor::new(&Publication { prefix: "updates/", ..Publication::default() });
    let release = vendor.verify(&vendor.file("InRelease")).unwrap();
    assert_eq!(release.components(), ["updates/main"]);
    assert!(release.has_component("main") && release.has_component("updates/main"));
    assert!(!release.has_component("contrib"));
    assert!(release.index(&packages_name(".xz")).is_some());
}

#[test]
fn an_index_that_was_tampered_with_says_so_before_anything_else() {
    // R39, T14
    let vendor = Vendor::new(&Publication::default());
    let release = vendor.verify(&vendor.file("InRelease")).unwrap();
    for ending in ["", ".xz", ".gz"] {
        let name = packages_name(ending);
        let index = release.index(&name).unwrap();
        let sound = vendor.file(&name);
        for place in [0, sound.len() / 2, sound.len() - 1] {
            let mut tampered = sound.clone();
            tampered[place] ^= 1;
            let error = Packages::read(&*tampered, &index).unwrap_err();
            assert!(matches!(error, PackagesError::File(FileError::Digest { .. })), "{error:?}");
            assert_eq!(error.reason(), Reason::WrongDigest);
        }
        let cut = Packages::read(&sound[..sound.len() - 1], &index).unwrap_err();
        assert!(matches!(cut, PackagesError::File(FileError::Length { more: false, .. })));
        let longer = Packages::read(sound.chain(std::io::repeat(0)), &index).unwrap_err();
        assert!(matches!(longer, PackagesError::File(FileError::Length { more: true, .. })));
    }
}

#[test]
fn every_packing_is_read_and_each_bad_one_refused() {
    // T15
    let plain = STANZA.as_bytes().to_vec();
    for (program, compression) in [
        ("xz", Compression::Xz),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
        ("lz4", Compression::Lz4),
    ] {
        let bytes = packed(program, &plain);
        let read = |bytes: &[u8], plain: Option<&[u8]>| {
            Packages::read(bytes, &named(bytes, compression, plain))
        };
        assert_eq!(read(&bytes, Some(&plain)).unwrap().len(), 1, "{program}");
        assert_eq!(read(&bytes, None).unwrap().len(), 1, "{program}");
        // The vendor's own digests, of something that is not to be unpacked.
        for end in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            let error = read(&bytes[..end], Some(&plain)).unwrap_err();
            let is_told = matches!(
                error,
                PackagesError::Unpack(_) | PackagesError::Short { .. } | PackagesError::Stanza(_)
            );
            assert!(is_told, "{program} cut to {end}: {error:?}");
        }
        assert!(
            matches!(read(b"<html>", Some(&plain)), Err(PackagesError::Unpack(_))),
            "{program}"
        );
        // A bomb: more than the Release says, and than it may where it does not say.
        let bomb = packed(program, &vec![b'\n'; 40_000_000]);
        let error = read(&bomb, Some(&plain)).unwrap_err();
        assert!(matches!(error, PackagesError::Bomb { .. }), "{program}: {error:?}");
        let error = read(&bomb, None).unwrap_err();
        assert!(matches!(error, PackagesError::Bomb { .. }), "{program}: {error:?}");
    }
}

#[test]
fn a_decoder_is_not_given_the_memory_that_a_stream_asks_for() {
    // T15
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    fs::write(&file, STANZA).unwrap();
    let mut xz = Command::new("xz");
    let output = xz.args(["--stdout", "--lzma2=dict=512MiB"]).arg(&file).output().unwrap();
    let index = named(&output.stdout, Compression::Xz, Some(STANZA.as_bytes()));
    let error = Packages::read(&*output.stdout, &index).unwrap_err();
    assert!(matches!(error, PackagesError::Unpack(_)), "{error:?}");

    // A window is only asked for where the plain text is not known to be short: from a pipe.
    let mut zstd = Command::new("zstd");
    zstd.args(["--stdout", "--long=30", "--ultra", "-22"]);
    zstd.stdin(fs::File::open(&file).unwrap()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Command::new("cat");
    let mut cat = child.arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    let mut packed = Vec::new();
    let mut zstd = zstd.stdin(cat.stdout.take().unwrap()).spawn().unwrap();
    zstd.stdout.take().unwrap().read_to_end(&mut packed).unwrap();
    assert!(zstd.wait().unwrap().success() && cat.wait().unwrap().success());
    let error = Packages::read(&*packed, &named(&packed, Compression::Zstd, None)).unwrap_err();
    assert!(matches!(error, PackagesError::Unpack(_)), "{error:?}");
}

#[test]
fn each_fault_in_a_vouched_index_is_told() {
    let read = |text: &str| {
        Packages::read(text.as_bytes(), &named(text.as_bytes(), Compression::Plain, None))
    };
    let fault = |text: &str| {
        let error = read(text).unwrap_err();
        (error.reason(), std::error::Error::source(&error).unwrap_or(&error).to_string())
    };
    let malformed = |said: &str| (Reason::Malformed, said.to_owned());
    assert_eq!(read("").unwrap().len(), 0);
    assert_eq!(read(STANZA.trim_end()).unwrap().len(), 1);
    assert_eq!(read(&STANZA.replace("pool/", "./")).unwrap().vouches("a.deb").unwrap().bytes, 5);
    for field in ["Package", "Filename", "Size", "SHA256"] {
        let said = format!("the package at line 1 has no {field}");
        assert_eq!(fault(&STANZA.replace(field, "X")), malformed(&said));
    }
    for (from, to, field) in [("Size: 5", "Size: +5", "Size"), ("0123", "012", "SHA256")] {
        let said = format!("the package at line 1 has a {field} that is none");
        assert_eq!(fault(&STANZA.replacen(from, to, 1)), malformed(&said));
    }
    assert_eq!(fault(&STANZA.replace("a\n", "a\0\n")), malformed("line 1 holds a NUL"));
    let dos = STANZA.replace('\n', "\r\n");
    assert_eq!(fault(&dos), malformed("line 1 ends with a carriage return"));
    let twice = STANZA.replace("Size: 5\n", "Size: 5\nsize: 6\n");
    assert_eq!(fault(&twice), malformed("line 4 gives size a second time"));
    let two = STANZA.to_owned() + &STANZA.replace("Size: 5", "Size: 6");
    assert_eq!(
        fault(&two),
        malformed("the index names pool/a.deb twice and says two things of it")
    );
    assert_eq!(read(&STANZA.repeat(2)).unwrap().len(), 1);
    let long = format!("Package: {}\n", "a".repeat(50_000_000));
    assert_eq!(fault(&long), (Reason::TooLarge, "line 1 is longer than 1048576 bytes".to_owned()));
}

#[test]
fn an_index_that_apt_packed_anew_is_checked_by_its_plain_text() {
    let vendor = Vendor::new(&Publication::default());
    let release = vendor.verify(&vendor.file("InRelease")).unwrap();
    let plain = vendor.file(&packages_name(""));
    let index = release.repacked(&packages_name(""), Compression::Lz4).unwrap();
    assert_eq!(Packages::read(&*packed("lz4", &plain), &index).unwrap().len(), 1);
    let mut tampered = plain.clone();
    tampered[9] ^= 1;
    let error = Packages::read(&*packed("lz4", &tampered), &index).unwrap_err();
    assert_eq!(error.reason(), Reason::WrongDigest);
    let error = Packages::read(&*packed("lz4", &plain[..plain.len() - 1]), &index).unwrap_err();
    assert_eq!(error.reason(), Reason::WrongDigest);
}

#[test]
fn the_feeds_of_an_apt_are_told_with_whose_keys_sign_them() {
    let test = "the_feeds_of_an_apt_are_told_with_whose_keys_sign_them";
    if Command::new("apt-get").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip(test, "there is no apt here");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["etc/sources.list.d", "etc/trusted.gpg.d", "state", "cache"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    let (named_key, trusted) = (Signer::new(), Signer::new());
    let keyring = path("named.asc");
    fs::write(&keyring, named_key.public_armored()).unwrap();
    fs::write(path("etc/trusted.gpg.d/a.gpg"), trusted.public()).unwrap();
    let inline: String = named_key
        .public_armored()
        .lines()
        .flat_map(|line| [" ", if line.is_empty() { "." } else { line }, "\n"])
        .collect();
    let sources = format!(
        "# a note\nTypes: deb\nURIs: http://a.invalid/debian\nSuites: one two\nComponents: main\n\
         Signed-By: {}\n\nTypes: deb\nURIs: https://b.invalid/\nSuites: ./\nSigned-By:\n{inline}\n",
        keyring.display()
    );
    fs::write(path("etc/sources.list.d/x.sources"), sources).unwrap();
    let list = "# a note\ndeb http://c.invalid/debian three main\ndeb file:/srv/x three main\n";
    fs::write(path("etc/sources.list"), list).unwrap();
    let config = path("apt.conf");
    let dir = folder.path().display();
    let text = format!(
        "Dir \"{dir}/\";\nDir::Etc \"etc/\";\nDir::State \"state/\";\nDir::Cache \"cache/\";\n\
         Dir::State::status \"{dir}/status\";\n"
    );
    fs::write(&config, text).unwrap();
    fs::write(path("status"), "").unwrap();

    let apt = Apt::with_config(config);
    let feeds = apt.feeds().unwrap();
    let releases: Vec<&str> = feeds.iter().map(|feed| &*feed.release).collect();
    assert_eq!(
        releases,
        [
            "http://a.invalid/debian/dists/one/",
            "http://a.invalid/debian/dists/two/",
            "http://c.invalid/debian/dists/three/",
            "https://b.invalid/./",
        ]
    );
    assert_eq!(feeds[0].archive, "http://a.invalid/debian/");
    assert_eq!(feeds[0].signed_by, SignedBy::Named(vec![keyring.display().to_string()]));
    assert_eq!(feeds[2].signed_by, SignedBy::Trusted);
    let of = |signer: &Signer| Keyring::parse(&signer.public()).unwrap();
    assert_eq!(apt.keyring(&feeds[0]).unwrap(), of(&named_key));
    assert_eq!(apt.keyring(&feeds[2]).unwrap(), of(&trusted));
    assert_eq!(apt.keyring(&feeds[3]).unwrap(), of(&named_key));
}

#[test]
fn the_lists_of_this_machine_are_verified_as_its_own_apt_did() {
    let test = "the_lists_of_this_machine_are_verified_as_its_own_apt_did";
    let apt = Apt::of_this_machine();
    let feeds = apt.feeds().unwrap_or_default();
    let mut read = 0;
    for feed in feeds {
        let name = feed.release.split_once("//").unwrap().1.replace('/', "_");
        let Ok(file) = fs::read(format!("/var/lib/apt/lists/{name}InRelease")) else { continue };
        let keyring = apt.keyring(&feed).unwrap();
        // Lists grow old: what is asked is whether they were right when they came.
        let release = match verify_inrelease(&file, &keyring, SystemTime::now()) {
            Err(ReleaseError::Expired { valid_until }) => {
                verify_inrelease(&file, &keyring, valid_until).unwrap()
            }
            other => other.unwrap(),
        };
        for plain in release.packages().filter(|name| name.ends_with("/Packages")) {
            for packing in Compression::ALL {
                let list = plain.replace('/', "_") + packing.suffix();
                let path = format!("/var/lib/apt/lists/{name}{list}");
                let Ok(list) = fs::File::open(path) else { continue };
                let index = release.repacked(plain, packing).unwrap();
                let packages = Packages::read(list, &index).unwrap();
                assert!(packages.iter().all(|(path, file)| packages.vouches(path) == Some(file)));
                read += packages.len();
            }
        }
    }
    if read == 0 {
        skip(test, "this machine's apt has no lists");
    }
}

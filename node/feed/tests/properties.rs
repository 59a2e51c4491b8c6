//! What holds for every text, however it is cut and packed.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use aws_lc_rs::digest::{SHA256, digest};
use proptest::prelude::*;
use sutler_feed::clear_signed::ClearSigned;
use sutler_feed::deb822::{Limits, Stanzas};
use sutler_feed::{Compression, Index, IndexFile, Keyring, Packages, Table};
use sutler_protocol::Sha256Digest;

/// A reader that gives a few bytes at a time.
struct Dripping<'b> {
    rest: &'b [u8],
    at_once: usize,
}

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.at_once.min(buffer.len()).min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

fn file_of(bytes: &[u8]) -> IndexFile {
    let sha256 = digest(&SHA256, bytes).as_ref().try_into().unwrap();
    IndexFile { bytes: bytes.len() as u64, sha256: Sha256Digest::from_bytes(sha256) }
}

fn packed(plain: &[u8], compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    match compression {
        Compression::Plain => bytes.extend(plain),
        Compression::Xz => {
            liblzma::read::XzEncoder::new(plain, 1).read_to_end(&mut bytes).unwrap();
        }
        Compression::Zstd => bytes = zstd::encode_all(plain, 1).unwrap(),
        Compression::Gzip => {
            let mut encoder = flate2::read::GzEncoder::new(plain, flate2::Compression::fast());
            encoder.read_to_end(&mut bytes).unwrap();
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut bytes);
            io::copy(&mut { plain }, &mut encoder).unwrap();
            encoder.finish().unwrap();
        }
    }
    bytes
}

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

/// Paths, lengths and digests, and the text of an index that names them.
fn table() -> impl Strategy<Value = (BTreeMap<String, IndexFile>, Vec<u8>)> {
    let file = (any::<u64>(), any::<[u8; 32]>())
        .prop_map(|(bytes, hash)| IndexFile { bytes, sha256: Sha256Digest::from_bytes(hash) });
    let names = prop::collection::btree_map("[a-z0-9+~.-]{1,9}/[a-z0-9+]{1,30}", file, 0..40);
    let names = names.prop_filter("those that stay", |names| {
        names.keys().all(|name| !name.starts_with("./") && !name.starts_with("../"))
    });
    names.prop_map(|names| {
        let text: Vec<String> = names
            .iter()
            .map(|(path, file)| {
                let hex = file.sha256.to_string();
                let hex = hex.strip_prefix("sha256:").unwrap();
                format!(
                    "Package: x\nFilename: {path}\nDescription: y\n .\n Size: 1\n\
                     Size: {}\nSHA256: {hex}\n\n",
                    file.bytes
                )
            })
            .collect();
        (names, text.concat().into_bytes())
    })
}

proptest! {
    #[test]
    fn an_index_says_what_was_written_however_it_is_packed_and_cut(
        (names, plain) in table(),
        compression in compression(),
        at_once in 1_usize..5000,
    ) {
        let bytes = packed(&plain, compression);
        let plain = Some(file_of(&plain));
        for index in [
            Index { table: Table::Packages, compression, packed: Some(file_of(&bytes)), plain },
            Index { table: Table::Packages, compression, packed: Some(file_of(&bytes)), plain: None },
            Index { table: Table::Packages, compression, packed: None, plain },
        ] {
            let packages = Packages::read(Dripping { rest: &bytes, at_once }, &index).unwrap();
            let read: BTreeMap<String, IndexFile> =
                packages.iter().map(|(path, file)| (path.to_owned(), file)).collect();
            prop_assert_eq!(&read, &names);
            prop_assert!(names.iter().all(|(path, file)| packages.vouches(path) == Some(*file)));
        }
    }

    // R39
    #[test]
    fn one_wrong_bit_is_found_in_every_packing(
        (_, plain) in table(),
        compression in compression(),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut bytes = packed(&plain, compression);
        prop_assume!(!bytes.is_empty());
        let index = Index { table: Table::Packages, compression, packed: Some(file_of(&bytes)), plain: Some(file_of(&plain)) };
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let error = Packages::read(&*bytes, &index).unwrap_err();
        prop_assert_eq!(error.reason(), sutler_feed::Reason::WrongDigest);
    }

    // T14, T15
    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        compression in compression(),
    ) {
        let index = Index { table: Table::Packages, compression, packed: Some(file_of(&bytes)), plain: None };
        drop(Packages::read(&*bytes, &index));
        drop(ClearSigned::split(&bytes));
        drop(Keyring::parse(&bytes));
        drop(sutler_feed::release::read_unsigned(&bytes));
        drop(sutler_feed::gpgv::judge(
            &String::from_utf8_lossy(&bytes),
            &Keyring::parse(&[0x99]).unwrap(),
        ));
    }

    #[test]
    fn stanzas_do_not_depend_on_how_they_arrive(
        text in "([A-C]: [a-z]{0,3}\n( [a-z]{0,3}\n){0,2}|\n){0,20}",
        at_once in 1_usize..50,
    ) {
        let read = |reader: &mut dyn io::BufRead| {
            let mut stanzas = Stanzas::new(reader, Limits::INDEX);
            let mut all = Vec::new();
            loop {
                match stanzas.next_stanza() {
                    Ok(Some(stanza)) => all.push(Ok((
                        stanza.line(),
                        ["a", "b", "c"].map(|name| stanza.text(name).map(str::to_owned)),
                    ))),
                    Ok(None) => break all,
                    Err(error) => {
                        all.push(Err(error.to_string()));
                        break all;
                    }
                }
            }
        };
        let whole = read(&mut text.as_bytes());
        let dripping = Dripping { rest: text.as_bytes(), at_once };
        prop_assert_eq!(whole, read(&mut BufReader::with_capacity(7, dripping)));
    }
}

//! `repomd.xml`: what stands in the place of a Release in an RPM repository.
//!
//! It lies in `repodata/` and names the files beside it by digest. Most repositories put the digest
//! in front of a file's name, too, so that a new release has new names. Here each file has the name
//! without it, which stays from release to release; [`Release::hashed_name`] has the other.
//!
//! It says nothing of an end of its validity, so a repository that is held back cannot be told from
//! one in which nothing happens.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use sutler_protocol::Sha256Digest;

use super::parse::{FILES_MAX, TextError, number};
use super::{Hashed, Release};
use crate::compression::Compression;
use crate::index::IndexFile;
use crate::path::confined;
use crate::xml::{Field, Record, Records, Shape};

/// The folder of all indexes below the repository's root.
const FOLDER: &str = "repodata/";

const SHAPE: Shape = Shape {
    root: "repomd",
    record: "data",
    fields: &["checksum", "open-checksum", "location", "timestamp", "size", "open-size"],
};

/// Parses a `repomd.xml`.
pub(super) fn parse(text: &[u8]) -> Result<Release, TextError> {
    let mut records = Records::new(text, SHAPE);
    let (mut files, mut seconds) = (BTreeMap::new(), 0);
    let mut hashed = Hashed::No;
    while let Some(record) = records.next_record()? {
        // Old programs write fractions of seconds.
        let timestamp = record.field("timestamp").and_then(|field| field.text().split('.').next());
        seconds = timestamp.and_then(number).unwrap_or(0).max(seconds);
        let Some((name, file)) = named(&record)? else { continue };
        let unhashed = name.split_once('-').and_then(|(hex, name)| {
            let is_it = Sha256Digest::from_hex(hex).is_ok_and(|sha256| sha256 == file.sha256);
            is_it.then_some(name)
        });
        if unhashed.is_some() {
            hashed = Hashed::Prefix;
        }
        let name = unhashed.unwrap_or(name);
        let (plain, compression) = Compression::split(name);
        if let (Some(file), true) = (plain_form(&record), compression != Compression::Plain) {
            take(&mut files, plain, file)?;
        }
        take(&mut files, name, file)?;
    }
    let date = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    Ok(Release {
        origin: None,
        label: None,
        suite: None,
        codename: None,
        components: Vec::new(),
        architectures: Vec::new(),
        date: date.ok_or(TextError::Field { field: "timestamp" })?,
        valid_until: None,
        hashed,
        files,
        by_sha512: HashMap::new(),
        signers: Vec::new(),
    })
}

/// Returns the file that a record names, by its name in the folder. `None` if it lies elsewhere, or
/// its SHA-256 and length are not said: it is then a file like any other.
fn named(record: &Record) -> Result<Option<(&str, IndexFile)>, TextError> {
    let location = record.field("location").filter(|field| field.attribute("xml:base").is_none());
    let Some(href) = location.and_then(|field| field.attribute("href")) else { return Ok(None) };
    let Some(name) = confined(href) else {
        return Err(TextError::Name { name: href.chars().take(200).collect() });
    };
    let Some(name) = name.strip_prefix(FOLDER) else { return Ok(None) };
    let file = form(record.field("checksum"), record.field("size"));
    Ok(file.map(|file| (name, file)))
}

/// Returns what a record says of its file once that is unpacked.
fn plain_form(record: &Record) -> Option<IndexFile> {
    form(record.field("open-checksum"), record.field("open-size"))
}

fn form(checksum: Option<&Field>, size: Option<&Field>) -> Option<IndexFile> {
    let checksum = checksum.filter(|field| field.attribute("type") == Some("sha256"))?;
    let sha256 = Sha256Digest::from_hex(checksum.text()).ok()?;
    Some(IndexFile { bytes: number(size?.text())?, sha256 })
}

fn take(
    files: &mut BTreeMap<String, IndexFile>,
    name: &str,
    file: IndexFile,
) -> Result<(), TextError> {
    if files.len() == FILES_MAX {
        return Err(TextError::TooMany);
    }
    match files.insert(name.to_owned(), file) {
        Some(known) if known != file => Err(TextError::Conflict { name: name.to_owned() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn data(href: &str, more: &str) -> String {
        format!(
            "<data type='x'><checksum type='sha256'>{}</checksum><size>7</size>\
             <location href='{href}'/><timestamp>1800000000.5</timestamp>{more}</data>",
            hex('a')
        )
    }

    fn read(data: &str) -> Result<Release, TextError> {
        parse(format!("<repomd><revision>1</revision>{data}</repomd>").as_bytes())
    }

    #[test]
    fn files_keep_their_names_from_release_to_release() {
        let open = format!(
            "<open-checksum type='sha256'>{}</open-checksum><open-size>9</open-size>",
            hex('b')
        );
        let href = format!("repodata/{}-primary.xml.gz", hex('a'));
        let release = read(&data(&href, &open)).unwrap();
        let names: Vec<&str> = release.files().map(|(name, _)| name).collect();
        assert_eq!(names, ["primary.xml", "primary.xml.gz"]);
        let hashed = format!("{}-primary.xml.gz", hex('a'));
        assert_eq!(release.hashed_name("primary.xml.gz"), Some(hashed.clone()));
        let resolved = release.resolve(&hashed).map(|(name, file)| (name, file.bytes));
        assert_eq!(resolved, Some(("primary.xml.gz", 7)));
        assert_eq!(release.resolve(&format!("{}-primary.xml.gz", hex('b'))), None);
        let index = release.index("primary.xml.gz").unwrap();
        assert_eq!(index.plain.map(|plain| plain.bytes), Some(9));
        let date = release.date().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(date.as_secs(), 1_800_000_000);

        let plain = read(&data("repodata/primary.xml.gz", "")).unwrap();
        assert_eq!(plain.hashed_name("primary.xml.gz"), None);
        assert!(plain.file("primary.xml.gz").is_some());
    }

    #[test]
    fn what_is_not_named_by_digest_beside_it_is_not_its_own() {
        for odd in [
            "<data type='x'><location href='repodata/a'/></data>".to_owned(),
            data("other/a", ""),
            data("repodata/a", "").replace("sha256", "sha1"),
            data("repodata/a", "").replace("<size>7", "<size>-7"),
            data("repodata/a", "").replace("<location", "<location xml:base='http://x/'"),
        ] {
            assert_eq!(read(&odd).unwrap().files().len(), 0, "{odd}");
        }
    }

    #[test]
    fn names_that_lead_out_and_files_of_which_two_things_are_said_are_refused() {
        // T14
        for name in ["../../etc/passwd", "/etc/passwd", "repodata/../../x"] {
            assert!(matches!(read(&data(name, "")), Err(TextError::Name { .. })), "{name}");
        }
        let twice = data("repodata/a", "") + &data("repodata/a", "").replace(">7<", ">8<");
        assert!(matches!(read(&twice), Err(TextError::Conflict { .. })));
        assert!(matches!(parse(b"<html/>"), Err(TextError::Xml(_))));
    }
}

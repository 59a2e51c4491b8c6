//! Which indexes are to be read because of what clients ask for: those that say which file of the
//! archive has which digest. Pure.

use sutler_feed::{Compression, Table};

use super::generation::Files;

/// Returns the index of packages, or of sources, of each folder from which something was asked for:
/// the form that was asked for, or else the smallest. In an RPM repository it is the one of all.
pub(super) fn tables(files: &Files, asked: &[String]) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for name in asked {
        let plain = if Table::of(name).is_some() {
            Compression::split(name).0.to_owned()
        } else if let Some(table) = patched(name) {
            table
        } else if files.keys().any(|name| Table::of(name) == Some(Table::Primary)) {
            PRIMARY.to_owned()
        } else {
            continue;
        };
        if tables.iter().any(|table| Compression::split(table).0 == plain) {
            continue;
        }
        let forms = Compression::ALL.iter().map(|form| format!("{plain}{}", form.suffix()));
        let own = Some(name.clone()).filter(|name| Table::of(name).is_some());
        tables.extend(own.into_iter().chain(forms).find(|form| files.contains_key(form)));
    }
    tables
}

/// The index of packages of an RPM repository.
const PRIMARY: &str = "primary.xml";

/// Returns the index that a name belongs to as one of its differences.
fn patched(name: &str) -> Option<String> {
    let (table, _) = name.split_once(".diff/")?;
    Table::of(table).map(|_| table.to_owned())
}

#[cfg(test)]
mod tests {
    use sutler_feed::IndexFile;
    use sutler_protocol::Sha256Digest;

    use super::*;

    fn asked(names: &[&str], asked: &[&str]) -> Vec<String> {
        let file = IndexFile { bytes: 1, sha256: Sha256Digest::from_bytes([1; 32]) };
        let files: Files = names.iter().map(|name| ((*name).to_owned(), file)).collect();
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
        tables(&files, &asked)
    }

    #[test]
    fn one_index_of_packages_is_read_for_each_folder_that_clients_follow() {
        let names = [
            "main/binary-amd64/Packages",
            "main/binary-amd64/Packages.gz",
            "main/binary-amd64/Packages.xz",
            "main/binary-arm64/Packages.gz",
            "main/source/Sources.xz",
            "Packages.gz",
        ];
        let tables = |of: &[&str]| asked(&names, of);
        assert_eq!(tables(&["main/binary-amd64/Packages.gz"]), ["main/binary-amd64/Packages.gz"]);
        assert_eq!(
            tables(&["main/binary-amd64/Packages.diff/Index", "main/binary-amd64/Packages.xz"]),
            ["main/binary-amd64/Packages.xz"]
        );
        assert_eq!(
            tables(&["main/binary-arm64/Packages.diff/x.gz"]),
            ["main/binary-arm64/Packages.gz"]
        );
        assert_eq!(
            tables(&["main/source/Sources.diff/Index", "main/i18n/Translation-en"]),
            ["main/source/Sources.xz"]
        );
        assert_eq!(tables(&["Packages.gz"]), ["Packages.gz"]);
        assert_eq!(tables(&["main/i18n/Translation-en"]), [""; 0]);
    }

    #[test]
    fn an_rpm_repository_has_one_index_of_packages_whatever_is_asked_for() {
        let names = ["filelists.xml.gz", "primary.sqlite.bz2", "primary.xml", "primary.xml.gz"];
        for of in ["primary.xml.gz", "filelists.xml.gz", "primary.sqlite.bz2"] {
            assert_eq!(asked(&names, &[of]), ["primary.xml.gz"], "{of}");
        }
    }
}

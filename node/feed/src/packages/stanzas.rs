//! What the stanzas of `Packages` and `Sources` say of files.

use std::io::BufRead;

use sutler_protocol::Sha256Digest;

use super::{Packages, PackagesError, number};
use crate::deb822::{Limits, Stanza, StanzaError, Stanzas};
use crate::index::IndexFile;

/// Reads stanzas to their end, each by `take`.
pub(super) fn collect(
    packages: &mut Packages,
    plain: impl BufRead,
    take: fn(&mut Packages, &Stanza<'_>) -> Result<(), PackagesError>,
) -> Result<(), PackagesError> {
    let mut stanzas = Stanzas::new(plain, Limits::INDEX);
    loop {
        match stanzas.next_stanza() {
            Ok(Some(stanza)) => take(packages, &stanza)?,
            Ok(None) => return Ok(()),
            Err(StanzaError::Read { source, .. }) => return Err(PackagesError::Unpack(source)),
            Err(other) => return Err(PackagesError::Stanza(other)),
        }
    }
}

/// Takes a binary package: one file.
pub(super) fn package(packages: &mut Packages, stanza: &Stanza<'_>) -> Result<(), PackagesError> {
    let line = stanza.line();
    text(stanza, "Package")?;
    let path = text(stanza, "Filename")?;
    let bytes = number(text(stanza, "Size")?);
    let bytes = bytes.ok_or(PackagesError::Field { field: "Size", line })?;
    let sha256 = Sha256Digest::from_hex(text(stanza, "SHA256")?)
        .map_err(|_| PackagesError::Field { field: "SHA256", line })?;
    packages.push(path, IndexFile { bytes, sha256 }, line)
}

/// Takes a source package: the files of one folder, a line each (Debian Policy, section 5.6.24).
pub(super) fn source(packages: &mut Packages, stanza: &Stanza<'_>) -> Result<(), PackagesError> {
    const FILES: &str = "Checksums-Sha256";
    let (line, wrong) =
        (stanza.line(), |field| PackagesError::Field { field, line: stanza.line() });
    text(stanza, "Package")?;
    let folder = text(stanza, "Directory")?;
    for file in text(stanza, FILES)?.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = file.split_ascii_whitespace().take(4).collect();
        let [hex, bytes, name] = *words else { return Err(wrong(FILES)) };
        let sha256 = Sha256Digest::from_hex(hex).map_err(|_| wrong(FILES))?;
        let bytes = number(bytes).ok_or_else(|| wrong(FILES))?;
        if name.contains('/') {
            return Err(PackagesError::Path { line });
        }
        packages.push(&format!("{folder}/{name}"), IndexFile { bytes, sha256 }, line)?;
    }
    Ok(())
}

fn text<'s>(stanza: &Stanza<'s>, field: &'static str) -> Result<&'s str, PackagesError> {
    let line = stanza.line();
    let value = stanza.field(field).ok_or(PackagesError::Missing { field, line })?;
    std::str::from_utf8(value).map_err(|_| PackagesError::Field { field, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "Package: a\nDirectory: pool/main/a\nFiles:\n 0 1 a.dsc\nChecksums-Sha256:\n \
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 5 a_1.dsc\n \
        1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 6 a_1.tar.xz\n\n";

    fn read(text: &str) -> Result<Packages, PackagesError> {
        let mut packages = Packages { paths: String::new(), entries: Vec::new() };
        collect(&mut packages, text.as_bytes(), source)?;
        packages.sort()?;
        Ok(packages)
    }

    #[test]
    fn each_file_of_a_source_package_is_vouched_for() {
        let packages = read(SOURCE).unwrap();
        assert_eq!(packages.vouches("pool/main/a/a_1.dsc").unwrap().bytes, 5);
        assert_eq!(packages.vouches("pool/main/a/a_1.tar.xz").unwrap().bytes, 6);
        assert_eq!((packages.len(), packages.vouches("pool/main/a/a.dsc")), (2, None));
        // Flat archives have their sources beside the index.
        let flat = read(&SOURCE.replace("pool/main/a", ".")).unwrap();
        assert_eq!(flat.vouches("a_1.dsc").unwrap().bytes, 5);
    }

    #[test]
    fn a_source_package_that_leads_out_or_makes_no_sense_is_refused() {
        // T14
        for (part, other) in [("a_1.dsc", "../a_1.dsc"), ("a_1.dsc", ".."), ("pool/main/a", "../a")]
        {
            let error = read(&SOURCE.replace(part, other)).unwrap_err();
            assert!(matches!(error, PackagesError::Path { line: 1 }), "{other}: {error:?}");
        }
        for (part, other) in [(" 5 ", " -5 "), (" 5 ", " "), ("0123456", ""), ("a_1.dsc", "a b")] {
            let error = read(&SOURCE.replace(part, other)).unwrap_err();
            assert!(matches!(error, PackagesError::Field { .. }), "{other}: {error:?}");
        }
        for field in ["Package", "Directory", "Checksums-Sha256"] {
            let error = read(&SOURCE.replace(field, "Other")).unwrap_err();
            assert!(matches!(error, PackagesError::Missing { .. }), "{field}: {error:?}");
        }
    }
}

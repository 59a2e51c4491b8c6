//! What the `primary.xml` of an RPM repository says of files.

use std::io::{self, BufRead};

use sutler_protocol::Sha256Digest;

use super::{Packages, PackagesError, number};
use crate::index::IndexFile;
use crate::xml::{Record, Records, Shape, XmlError};

const SHAPE: Shape =
    Shape { root: "metadata", record: "package", fields: &["checksum", "size", "location"] };

/// Reads packages to their end.
pub(super) fn collect(packages: &mut Packages, plain: impl BufRead) -> Result<(), PackagesError> {
    let mut records = Records::new(plain, SHAPE);
    loop {
        match records.next_record() {
            Ok(Some(record)) => take(packages, &record)?,
            Ok(None) => return Ok(()),
            Err(XmlError::Read { source, .. }) => {
                return Err(PackagesError::Unpack(io::Error::new(source.kind(), source)));
            }
            Err(other) => return Err(PackagesError::Xml(other)),
        }
    }
}

/// Takes a package, if it lies in this repository and its SHA-256 is said.
fn take(packages: &mut Packages, record: &Record) -> Result<(), PackagesError> {
    let line = record.line;
    let field =
        |field: &'static str| record.field(field).ok_or(PackagesError::Missing { field, line });
    let (location, checksum) = (field("location")?, field("checksum")?);
    let is_here = location.attribute("xml:base").is_none();
    if !is_here || checksum.attribute("type") != Some("sha256") {
        return Ok(());
    }
    let wrong = |field| PackagesError::Field { field, line };
    let path = location.attribute("href").ok_or_else(|| wrong("location"))?;
    let sha256 = Sha256Digest::from_hex(checksum.text()).map_err(|_| wrong("checksum"))?;
    let bytes = field("size")?.attribute("package").and_then(number);
    let bytes = bytes.ok_or_else(|| wrong("size"))?;
    packages.push(path, IndexFile { bytes, sha256 }, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "<package type=\"rpm\">\n<name>a</name><checksum type=\"sha256\" pkgid=\"YES\">\
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef</checksum>\
        <size package=\"5\" installed=\"6\"/><location href=\"Packages/a/a-1.rpm\"/>\
        <format><rpm:entry name='b'/></format></package>\n";

    fn read(packages: &str) -> Result<Packages, PackagesError> {
        let text = format!("<metadata xmlns:rpm='r' packages='1'>\n{packages}</metadata>");
        let mut packages = Packages { paths: String::new(), entries: Vec::new() };
        collect(&mut packages, text.as_bytes())?;
        packages.sort()?;
        Ok(packages)
    }

    #[test]
    fn each_package_of_the_repository_is_vouched_for() {
        let packages = read(PACKAGE).unwrap();
        assert_eq!((packages.len(), packages.vouches("Packages/a/a-1.rpm").unwrap().bytes), (1, 5));
        for (part, other) in [("href=", "xml:base='http://x/' href="), ("sha256", "sha512")] {
            assert!(read(&PACKAGE.replace(part, other)).unwrap().is_empty(), "{other}");
        }
    }

    #[test]
    fn a_package_that_leads_out_or_makes_no_sense_is_refused() {
        // T14
        let error = read(&PACKAGE.replace("Packages/a", "../../etc")).unwrap_err();
        assert!(matches!(error, PackagesError::Path { line: 2 }), "{error:?}");
        for (part, other) in [("0123456", "x"), ("package=\"5", "package=\"-5"), ("href", "ref")] {
            let error = read(&PACKAGE.replace(part, other)).unwrap_err();
            assert!(matches!(error, PackagesError::Field { line: 2, .. }), "{other}: {error:?}");
        }
        let error =
            read(&PACKAGE.replace("<size package=\"5\" installed=\"6\"/>", "")).unwrap_err();
        assert!(matches!(error, PackagesError::Missing { field: "size", .. }), "{error:?}");
        assert!(matches!(read("<x>").unwrap_err(), PackagesError::Xml(_)));
    }
}

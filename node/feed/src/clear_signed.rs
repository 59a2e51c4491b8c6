//! What was signed of a clear-signed file, and what merely stands around it.
//!
//! The cleartext framework (RFC 9580, section 7) wraps a text between lines that anybody can add to. So
//! the file has to be exactly one signed message, from its first byte to its last, and it is taken
//! apart here: the text goes to `gpgv` as a file of its own with the signature detached, and that very
//! text is what is read afterwards. What was not checked cannot be read, wherever it stood.

use std::fmt;

const BEGIN_MESSAGE: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &[u8] = b"-----END PGP SIGNATURE-----";

/// A clear-signed file, taken apart. Nothing in it is believed yet.
#[derive(Clone, PartialEq, Eq)]
pub struct ClearSigned<'f> {
    /// The text as its signer hashed it: dashes unescaped, no space at the ends of lines, no last
    /// line feed.
    pub(crate) text: Vec<u8>,
    /// The armored signature.
    pub(crate) signature: &'f [u8],
}

/// Why a file is not one clear-signed message and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// It does not begin with a signed message: an HTML page, an unsigned Release, or something
    /// put in front.
    #[error("it does not begin with a signed message")]
    Front,
    /// A header other than `Hash` stands before the text.
    #[error("a header other than Hash stands before the text")]
    Header,
    /// A line of the text begins with a dash that is not escaped, as nested messages do.
    #[error("line {line} begins with a dash that is not escaped")]
    Dash {
        /// The line in the file, from 1.
        line: usize,
    },
    /// A NUL, which programs take for an end.
    #[error("line {line} holds a NUL")]
    Nul {
        /// The line in the file, from 1.
        line: usize,
    },
    /// It ends before its signature does.
    #[error("it ends before its signature does")]
    Cut,
    /// Something follows the signature.
    #[error("something follows the signature")]
    Back,
}

impl<'f> ClearSigned<'f> {
    /// Takes a clear-signed file apart.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if it is anything but one signed message.
    pub fn split(file: &'f [u8]) -> Result<Self, ShapeError> {
        let mut lines = Lines { rest: file, number: 0 };
        if lines.next().map(trimmed) != Some(BEGIN_MESSAGE) {
            return Err(ShapeError::Front);
        }
        loop {
            match trimmed(lines.next().ok_or(ShapeError::Cut)?) {
                b"" => break,
                line if line.starts_with(b"Hash: ") => {}
                _ => return Err(ShapeError::Header),
            }
        }
        let (text, begin) = body(&mut lines, file)?;
        let signature = loop {
            let line = lines.next().ok_or(ShapeError::Cut)?;
            match trimmed(line) {
                END_SIGNATURE => break &file[begin..lines.at(file)],
                line if line.starts_with(b"-") => {
                    return Err(ShapeError::Dash { line: lines.number });
                }
                line if line.contains(&0) => return Err(ShapeError::Nul { line: lines.number }),
                _ => {}
            }
        };
        if lines.all(|line| trimmed(line).is_empty()) {
            Ok(Self { text, signature })
        } else {
            Err(ShapeError::Back)
        }
    }
}

/// Returns the text, and where the signature begins in the file.
fn body(lines: &mut Lines<'_>, file: &[u8]) -> Result<(Vec<u8>, usize), ShapeError> {
    let mut text = Vec::with_capacity(file.len());
    let mut is_first = true;
    loop {
        let begin = lines.at(file);
        let line = trimmed(lines.next().ok_or(ShapeError::Cut)?);
        let line = match line.strip_prefix(b"- ") {
            Some(escaped) => escaped,
            None if line == BEGIN_SIGNATURE => break Ok((text, begin)),
            None if line.starts_with(b"-") => {
                return Err(ShapeError::Dash { line: lines.number });
            }
            None => line,
        };
        if line.contains(&0) {
            return Err(ShapeError::Nul { line: lines.number });
        }
        // The line feed before the signature is not part of the text.
        if !std::mem::replace(&mut is_first, false) {
            text.push(b'\n');
        }
        text.extend_from_slice(line);
    }
}

/// Returns a detached signature if it is nothing but that: armored blocks of signatures, or packets.
pub(crate) fn detached(file: &[u8]) -> Result<&[u8], ShapeError> {
    // Every OpenPGP packet begins with a byte above 127, every armor with a dash.
    if file.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(file);
    }
    let mut lines = Lines { rest: file, number: 0 };
    let mut blocks = 0;
    while let Some(line) = lines.next() {
        match trimmed(line) {
            b"" => continue,
            BEGIN_SIGNATURE => {}
            _ if blocks == 0 => return Err(ShapeError::Front),
            _ => return Err(ShapeError::Back),
        }
        blocks += 1;
        loop {
            match trimmed(lines.next().ok_or(ShapeError::Cut)?) {
                END_SIGNATURE => break,
                line if line.starts_with(b"-") => {
                    return Err(ShapeError::Dash { line: lines.number });
                }
                line if line.contains(&0) => return Err(ShapeError::Nul { line: lines.number }),
                _ => {}
            }
        }
    }
    if blocks == 0 { Err(ShapeError::Front) } else { Ok(file) }
}

/// Lines without their line feed.
struct Lines<'f> {
    rest: &'f [u8],
    number: usize,
}

impl Lines<'_> {
    fn at(&self, file: &[u8]) -> usize {
        file.len() - self.rest.len()
    }
}

impl<'f> Iterator for Lines<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(line)
    }
}

/// Space at the end of a line is not signed (RFC 9580, section 7.1).
fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    &line[..end.map_or(0, |last| last + 1)]
}

impl fmt::Debug for ClearSigned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClearSigned({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: x  \n- -dash\n\nlast\n\
                         -----BEGIN PGP SIGNATURE-----\n\nAQID\n-----END PGP SIGNATURE-----\n";

    fn fault(file: &str) -> ShapeError {
        ClearSigned::split(file.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_text_is_what_was_hashed() {
        let signed = ClearSigned::split(SOUND.as_bytes()).unwrap();
        assert_eq!(signed.text, b"Origin: x\n-dash\n\nlast");
        assert!(signed.signature.starts_with(BEGIN_SIGNATURE));
        assert!(signed.signature.ends_with(b"-----END PGP SIGNATURE-----\n"));
        let dos = SOUND.replace('\n', "\r\n");
        assert_eq!(ClearSigned::split(dos.as_bytes()).unwrap().text, signed.text);
    }

    #[test]
    fn nothing_stands_before_or_after_the_message() {
        assert_eq!(fault(&format!("Origin: evil\n{SOUND}")), ShapeError::Front);
        assert_eq!(fault(&format!("\n{SOUND}")), ShapeError::Front);
        assert_eq!(fault(&format!("{SOUND}Origin: evil\n")), ShapeError::Back);
        assert_eq!(fault(&format!("{SOUND}{SOUND}")), ShapeError::Back);
        assert!(ClearSigned::split(format!("{SOUND}\n \n").as_bytes()).is_ok());
        assert_eq!(fault("<html>log in</html>"), ShapeError::Front);
        assert_eq!(fault(""), ShapeError::Front);
    }

    #[test]
    fn a_message_in_the_message_is_refused() {
        let nested = SOUND.replace("last", "-----BEGIN PGP SIGNED MESSAGE-----");
        assert_eq!(fault(&nested), ShapeError::Dash { line: 7 });
        let early = SOUND.replace("AQID", "-----BEGIN PGP SIGNATURE-----");
        assert_eq!(fault(&early), ShapeError::Dash { line: 10 });
    }

    #[test]
    fn headers_and_nuls_do_not_hide_text() {
        assert_eq!(fault(&SOUND.replace("\n\nOrigin", "\nOrigin")), ShapeError::Header);
        assert_eq!(fault(&SOUND.replace("last", "la\0st")), ShapeError::Nul { line: 7 });
        assert_eq!(fault(&SOUND.replace("AQID", "AQ\0ID")), ShapeError::Nul { line: 10 });
    }

    #[test]
    fn every_cut_is_refused() {
        let whole = SOUND.trim_end();
        for end in 0..whole.len() {
            assert!(ClearSigned::split(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_detached_signature_is_nothing_else() {
        let armored = "-----BEGIN PGP SIGNATURE-----\n\nAQID\n-----END PGP SIGNATURE-----\n";
        assert!(detached(armored.as_bytes()).is_ok());
        assert!(detached(armored.repeat(2).as_bytes()).is_ok());
        assert!(detached(&[0x89, 1]).is_ok());
        assert_eq!(detached(SOUND.as_bytes()), Err(ShapeError::Front));
        assert_eq!(detached(b""), Err(ShapeError::Front));
        assert_eq!(detached(format!("{armored}x").as_bytes()), Err(ShapeError::Back));
        assert_eq!(detached(&armored.as_bytes()[..36]), Err(ShapeError::Cut));
    }
}

//! `OpenPGP`'s ASCII armor, as far as keyrings use it (RFC 9580, section 6).
//!
//! `gpgv` reads binary keyrings only, and the `Signed-By` of a source may be armored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Why an armored text holds no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmorError {
    /// No block of public keys begins in it.
    #[error("no public key block begins in it")]
    NoBlock,
    /// A block does not end.
    #[error("a public key block does not end")]
    Cut,
    /// It is not base64.
    #[error("a public key block is not base64")]
    NotBase64,
    /// The block's checksum is not that of its bytes.
    #[error("a public key block differs from its checksum")]
    Checksum,
}

/// Returns whether the text is armored rather than binary.
pub(crate) fn is_armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP")
}

/// Returns the bytes of all public key blocks of a text, one after the other.
pub(crate) fn public_keys(text: &str) -> Result<Vec<u8>, ArmorError> {
    let mut lines = text.lines().map(str::trim);
    let mut keys = Vec::new();
    while lines.by_ref().any(|line| line == BEGIN) {
        // Headers end with an empty line, which may be missing where there are none.
        let mut base64 = String::new();
        let mut checksum = None;
        loop {
            match lines.next().ok_or(ArmorError::Cut)? {
                END => break,
                line if line.contains(": ") && base64.is_empty() => {}
                line => match line.strip_prefix('=') {
                    Some(digits) => checksum = Some(digits.to_owned()),
                    None => base64.push_str(line),
                },
            }
        }
        let block = STANDARD.decode(base64).map_err(|_| ArmorError::NotBase64)?;
        if let Some(digits) = checksum {
            let wanted = STANDARD.decode(digits).map_err(|_| ArmorError::NotBase64)?;
            if wanted != crc24(&block).to_be_bytes()[1..] {
                return Err(ArmorError::Checksum);
            }
        }
        keys.extend(block);
    }
    if keys.is_empty() { Err(ArmorError::NoBlock) } else { Ok(keys) }
}

/// The checksum of RFC 9580, section 6.1.1.
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = 0x00b7_04ce_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    crc & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armored(body: &str) -> String {
        format!("a note before\n{BEGIN}\nVersion: x\n\n{body}\n{END}\n")
    }

    #[test]
    fn blocks_are_joined_and_what_is_around_them_is_not_read() {
        let text = armored("AQID") + &armored("BAUG");
        assert_eq!(public_keys(&text), Ok(vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn a_checksum_is_held_against_the_bytes() {
        // As gpg --enarmor writes it for the bytes 1, 2, 3.
        let digits = STANDARD.encode(&crc24(&[1, 2, 3]).to_be_bytes()[1..]);
        assert_eq!(public_keys(&armored(&format!("AQID\n={digits}"))), Ok(vec![1, 2, 3]));
        assert_eq!(public_keys(&armored("AQID\n=AAAA")), Err(ArmorError::Checksum));
    }

    #[test]
    fn what_is_no_armor_is_told() {
        assert_eq!(public_keys("nothing"), Err(ArmorError::NoBlock));
        assert_eq!(public_keys(&format!("{BEGIN}\n\nAQID\n")), Err(ArmorError::Cut));
        assert_eq!(public_keys(&armored("!!!")), Err(ArmorError::NotBase64));
    }
}

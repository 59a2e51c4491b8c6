//! A stream of a length that was announced.

use std::io::{self, Read};

/// Reads exactly as many bytes as were announced: a stream that ends early is an error, not a
/// shorter file.
pub(super) struct ExactReader<'a> {
    from: &'a mut (dyn Read + Send),
    left: u64,
}

impl<'a> ExactReader<'a> {
    pub(super) fn new(from: &'a mut (dyn Read + Send), bytes: u64) -> Self {
        Self { from, left: bytes }
    }
}

impl Read for ExactReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || into.is_empty() {
            return Ok(0);
        }
        let wanted = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = self.from.read(&mut into[..wanted])?;
        if bytes == 0 {
            let early = format!("{} bytes were announced and never came", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, early));
        }
        self.left -= bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_early_is_no_shorter_file() {
        let mut bytes: &[u8] = b"12345";
        let mut exact = ExactReader::new(&mut bytes, 6);
        let error = io::copy(&mut exact, &mut io::sink()).expect_err("a byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_follows_an_announced_stream_is_left_alone() {
        let mut bytes: &[u8] = b"12345";
        let mut exact = ExactReader::new(&mut bytes, 3);
        assert_eq!(io::copy(&mut exact, &mut io::sink()).expect("three bytes"), 3);
        assert_eq!(bytes, b"45");
    }
}

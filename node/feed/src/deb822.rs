//! Stanzas of `Field: value` lines, as Debian's indexes and control files have them (Debian Policy,
//! chapter 5), read one at a time from a stream.
//!
//! A reader of our own, because an index comes from outside: the crate that Debian's tools use reads
//! a line of any length into memory, and allocates each field. Here a line and a stanza have bounds,
//! one buffer serves all stanzas, and what is not a stanza is an error that names its line.

use std::io::{self, BufRead};
use std::ops::Range;

/// Fields of a stanza, at most. The most in Debian 12 is 31; each is compared with the others.
const FIELDS_MAX: usize = 256;

/// How much text a reader is ready to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line, at most, with its line feed.
    pub line_bytes_max: usize,
    /// Bytes of a stanza, at most.
    pub stanza_bytes_max: usize,
}

impl Limits {
    /// For indexes of packages. The longest line of Debian 12 has 75,649 bytes and the longest stanza
    /// 76,338 (a Rust package's `Provides`); this leaves room for ten times as much.
    pub const INDEX: Self = Self { line_bytes_max: 1 << 20, stanza_bytes_max: 2 << 20 };
}

/// Reads stanzas from a stream.
#[derive(Debug)]
pub struct Stanzas<R> {
    reader: R,
    limits: Limits,
    /// The line read last, from 1.
    line: u64,
    /// The stanza at hand, with line feeds.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// One stanza. Lives until the next is read.
#[derive(Clone, Copy, Debug)]
pub struct Stanza<'s> {
    text: &'s [u8],
    fields: &'s [Field],
    line: u64,
}

/// Where a field is in its stanza's text.
#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    /// From behind the colon to the end of the last continuation line.
    value: Range<usize>,
}

/// Why a stream is not stanzas.
#[derive(Debug, thiserror::Error)]
pub enum StanzaError {
    /// The stream could not be read.
    #[error("read line {line}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// Why not.
        source: io::Error,
    },
    /// A line is longer than the limit.
    #[error("line {line} is longer than {bytes_max} bytes")]
    LineTooLong {
        /// The line, from 1.
        line: u64,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// A stanza is longer than the limit, or has more fields.
    #[error("the stanza that reaches line {line} is too long")]
    StanzaTooLong {
        /// The line at which that was seen, from 1.
        line: u64,
    },
    /// A line is neither `Field: value` nor begins with a space.
    #[error("line {line} is no field")]
    NoField {
        /// The line, from 1.
        line: u64,
    },
    /// A NUL, which programs take for an end.
    #[error("line {line} holds a NUL")]
    Nul {
        /// The line, from 1.
        line: u64,
    },
    /// A line ends with a carriage return: a file of another system, which apt reads otherwise.
    #[error("line {line} ends with a carriage return")]
    CarriageReturn {
        /// The line, from 1.
        line: u64,
    },
    /// A stanza has a field twice, and programs differ in which they believe.
    #[error("line {line} gives {name} a second time")]
    Duplicate {
        /// The line, from 1.
        line: u64,
        /// The field.
        name: String,
    },
}

impl<R: BufRead> Stanzas<R> {
    /// Returns a reader of the stream, at its first stanza.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self { reader, limits, line: 0, text: Vec::new(), fields: Vec::new() }
    }

    /// Returns the next stanza, or `None` at the end.
    ///
    /// # Errors
    ///
    /// [`StanzaError`]; what is read after one makes no sense.
    pub fn next_stanza(&mut self) -> Result<Option<Stanza<'_>>, StanzaError> {
        self.text.clear();
        self.fields.clear();
        let mut first = 0;
        loop {
            let start = self.text.len();
            let read = self.read_line()?;
            let is_blank = read == self.text.len() - start && self.text[start..] == *b"\n";
            if read == 0 || (is_blank && !self.fields.is_empty()) {
                break;
            }
            if is_blank {
                self.text.truncate(start);
                continue;
            }
            first = if self.fields.is_empty() { self.line } else { first };
            self.take_line(start)?;
        }
        let stanza = Stanza { text: &self.text, fields: &self.fields, line: first };
        Ok((!self.fields.is_empty()).then_some(stanza))
    }

    /// Appends a line to the text, and returns how many bytes that are; 0 at the end.
    fn read_line(&mut self) -> Result<usize, StanzaError> {
        let bytes_max = self.limits.line_bytes_max;
        self.line += 1;
        let line = self.line;
        // One byte more, to see that there is more.
        let mut limited = io::Read::take(&mut self.reader, bytes_max as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.text);
        let read = read.map_err(|source| StanzaError::Read { line, source })?;
        if read > bytes_max {
            return Err(StanzaError::LineTooLong { line, bytes_max });
        }
        if self.text.len() > self.limits.stanza_bytes_max {
            return Err(StanzaError::StanzaTooLong { line });
        }
        Ok(read)
    }

    /// Takes the line that begins at `start` for a field, or for more of the last one.
    fn take_line(&mut self, start: usize) -> Result<(), StanzaError> {
        let line = self.line;
        let text = &self.text[start..];
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let end = start + text.len();
        if text.contains(&0) {
            return Err(StanzaError::Nul { line });
        }
        if text.ends_with(b"\r") {
            return Err(StanzaError::CarriageReturn { line });
        }
        if text.starts_with(b" ") || text.starts_with(b"\t") {
            let last = self.fields.last_mut().ok_or(StanzaError::NoField { line })?;
            last.value.end = end;
            return Ok(());
        }
        let colon = text.iter().position(|byte| *byte == b':').unwrap_or(0);
        let name = &text[..colon];
        // Debian Policy 5.1: neither control characters nor spaces, nor `#` and `-` in front.
        let is_name = name.iter().all(|byte| (0x21..0x7f).contains(byte));
        if name.is_empty() || !is_name || name.starts_with(b"#") || name.starts_with(b"-") {
            return Err(StanzaError::NoField { line });
        }
        let known = |field: &Field| self.text[field.name.clone()].eq_ignore_ascii_case(name);
        if self.fields.iter().any(known) {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(StanzaError::Duplicate { line, name });
        }
        if self.fields.len() == FIELDS_MAX {
            return Err(StanzaError::StanzaTooLong { line });
        }
        let name = start..start + colon;
        self.fields.push(Field { name, value: start + colon + 1..end });
        Ok(())
    }
}

impl<'s> Stanza<'s> {
    /// Returns the line in the stream at which the stanza begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Returns a field's value without the space around it; names are compared without case. A value
    /// of several lines has them all, each with its first space.
    pub fn field(&self, name: &str) -> Option<&'s [u8]> {
        let named =
            |field: &&Field| self.text[field.name.clone()].eq_ignore_ascii_case(name.as_bytes());
        let field = self.fields.iter().find(named)?;
        Some(self.text[field.value.clone()].trim_ascii())
    }

    /// Returns a field's value if it is text; see [`Stanza::field`].
    pub fn text(&self, name: &str) -> Option<&'s str> {
        std::str::from_utf8(self.field(name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { line_bytes_max: 40, stanza_bytes_max: 100 };

    fn read(text: &[u8]) -> Result<Vec<(u64, Option<String>)>, StanzaError> {
        let mut stanzas = Stanzas::new(text, SMALL);
        let mut all = Vec::new();
        while let Some(stanza) = stanzas.next_stanza()? {
            all.push((stanza.line(), stanza.text("a").map(str::to_owned)));
        }
        Ok(all)
    }

    fn fault(text: &[u8]) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn stanzas_are_told_apart_by_empty_lines() {
        let text = b"\n\nA: 1\nB: 2\n x\n\n\nb:3\na:\n one\n .\n two\n\n";
        let value = |text: &str| Some(text.to_owned());
        let wanted = [(3, value("1")), (8, value("one\n .\n two"))];
        assert_eq!(read(text).unwrap(), wanted);
        assert_eq!(read(b"a: no line feed").unwrap(), [(1, value("no line feed"))]);
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read(b"\n\n").unwrap(), []);
    }

    #[test]
    fn what_is_no_stanza_is_named_by_its_line() {
        assert_eq!(fault(b"a: 1\nnothing\n"), "line 2 is no field");
        assert_eq!(fault(b": 1\n"), "line 1 is no field");
        assert_eq!(fault(b"a b: 1\n"), "line 1 is no field");
        assert_eq!(fault(b"-----BEGIN: 1\n"), "line 1 is no field");
        assert_eq!(fault(b"# a: 1\n"), "line 1 is no field");
        assert_eq!(fault(b" more of nothing\n"), "line 1 is no field");
        assert_eq!(fault(b"a: 1\n\n b\n"), "line 3 is no field");
        assert_eq!(fault(b"a: \0\n"), "line 1 holds a NUL");
        assert_eq!(fault(b"a: 1\r\n"), "line 1 ends with a carriage return");
        assert_eq!(fault(b"a: 1\n b\r\n"), "line 2 ends with a carriage return");
        assert_eq!(fault(b"\r\n"), "line 1 ends with a carriage return");
        assert_eq!(fault(b"Size: 1\nsize: 2\n"), "line 2 gives size a second time");
    }

    #[test]
    fn lines_and_stanzas_have_bounds() {
        // T5
        let line = |len: usize| [b"a: ".to_vec(), vec![b'x'; len - 4], b"\n".to_vec()].concat();
        assert!(read(&line(40)).is_ok());
        assert_eq!(fault(&line(41)), "line 1 is longer than 40 bytes");
        let more = [line(40), b" 2345678 1 2345678 2\n".repeat(3)].concat();
        assert_eq!(fault(&more), "the stanza that reaches line 4 is too long");
        let many: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("{n}:\n")).collect();
        let many = many.concat();
        let mut stanzas = Stanzas::new(many.as_bytes(), Limits::INDEX);
        assert!(matches!(stanzas.next_stanza(), Err(StanzaError::StanzaTooLong { line: 257 })));
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_the_limit() {
        // T5: 50 MB of one line, of which no more is held than the limit and the reader's buffer.
        let endless = io::Read::take(io::repeat(b'x'), 50_000_000);
        let mut stanzas = Stanzas::new(io::BufReader::new(endless), Limits::INDEX);
        assert!(matches!(stanzas.next_stanza(), Err(StanzaError::LineTooLong { line: 1, .. })));
        assert!(stanzas.text.capacity() <= 4 * Limits::INDEX.line_bytes_max);
    }
}

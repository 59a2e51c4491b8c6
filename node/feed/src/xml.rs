//! Records of an XML document, read one at a time from a stream, as RPM repositories' indexes have
//! them: a root, below it records, and of each record the few fields that somebody wants.
//!
//! The pull parser reads a tag or a text of any length into memory. Here both are metered, and so are
//! depth and attributes; what is not wanted is passed over. There are no document types and so no
//! entities of anybody's making.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Bytes of one tag or one text, at most. The longest in Fedora 40 is a description of 70 kB.
const EVENT_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a field's text, at most: digests and numbers, no prose.
const TEXT_BYTES_MAX: usize = 4096;

/// Attributes of a tag that is wanted, at most. The most in use are three; each is compared with the
/// others.
const ATTRIBUTES_MAX: usize = 16;

/// Elements within each other, at most. RPM's indexes have five.
const DEPTH_MAX: usize = 32;

/// Which elements of a document are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The name of the root.
    pub(crate) root: &'static str,
    /// The name of a record, a child of the root.
    pub(crate) record: &'static str,
    /// The names of its fields, children of the record. Each comes once at most.
    pub(crate) fields: &'static [&'static str],
}

/// Reads records from a stream.
pub(crate) struct Records<R> {
    reader: Reader<Metered<R>>,
    shape: Shape,
    buffer: Vec<u8>,
    depth: usize,
    /// Whether the root has begun.
    is_begun: bool,
}

/// One record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The line in the document at which its tag ends, from 1.
    pub(crate) line: u64,
    fields: Vec<Field>,
}

/// A field of a record: its attributes, and its text without the space around it.
#[derive(Debug, Default)]
pub(crate) struct Field {
    name: &'static str,
    attributes: Vec<(String, String)>,
    text: String,
}

/// Why a stream is no such document.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// The stream could not be read.
    #[error("read line {line}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A tag or a text is longer than the limit, or has too many attributes, or lies too deep.
    #[error("what reaches line {line} is too long or too deep")]
    TooLong {
        /// The line at which that was seen, from 1.
        line: u64,
    },
    /// It is not well-formed, or not UTF-8.
    #[error("at line {line}, it is no XML")]
    Syntax {
        /// The line, from 1.
        line: u64,
        /// Why not.
        source: Box<quick_xml::Error>,
    },
    /// It has a document type, which could mean anything.
    #[error("it has a document type at line {line}")]
    DocType {
        /// The line, from 1.
        line: u64,
    },
    /// Its root is another.
    #[error("its root is no {wanted}, or there is more than one")]
    Root {
        /// The name that the root should have.
        wanted: &'static str,
    },
    /// It ends before its root does.
    #[error("it ends before its root does")]
    Cut,
    /// A record has a field twice, and programs differ in which they believe.
    #[error("line {line} gives {name} a second time")]
    Duplicate {
        /// The line, from 1.
        line: u64,
        /// The field, or the attribute.
        name: String,
    },
}

impl<R: BufRead> Records<R> {
    /// Returns a reader of the stream, before its first record.
    pub(crate) fn new(reader: R, shape: Shape) -> Self {
        let mut reader = Reader::from_reader(Metered { reader, left: 0, is_over: false, line: 1 });
        reader.config_mut().expand_empty_elements = true;
        Self { reader, shape, buffer: Vec::new(), depth: 0, is_begun: false }
    }

    /// Returns the next record, or `None` at the end of the document.
    ///
    /// # Errors
    ///
    /// [`XmlError`]; what is read after one makes no sense.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, XmlError> {
        let mut record: Option<Record> = None;
        let mut is_wanted = false;
        loop {
            self.buffer.clear();
            self.reader.get_mut().left = EVENT_BYTES_MAX;
            let event = self.reader.read_event_into(&mut self.buffer);
            let Metered { line, is_over, .. } = *self.reader.get_ref();
            match event.map_err(|error| fault(error, line, is_over))? {
                Event::Start(tag) => {
                    self.depth += 1;
                    let name = tag.name();
                    match (self.depth, &mut record) {
                        (1, _) if self.is_begun || name.as_ref() != self.shape.root.as_bytes() => {
                            return Err(XmlError::Root { wanted: self.shape.root });
                        }
                        (1, _) => self.is_begun = true,
                        (2, None) if name.as_ref() == self.shape.record.as_bytes() => {
                            record = Some(Record { line, fields: Vec::new() });
                        }
                        (3, Some(record)) => is_wanted = record.begin(&tag, self.shape, line)?,
                        (DEPTH_MAX.., _) => return Err(XmlError::TooLong { line }),
                        _ => {}
                    }
                }
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    is_wanted &= self.depth > 2;
                    if self.depth == 1 && record.is_some() {
                        return Ok(record);
                    }
                }
                Event::Text(text) if is_wanted && self.depth == 3 => {
                    let text = text.decode().map_err(|error| syntax(error.into(), line))?;
                    record.iter_mut().try_for_each(|record| record.more(text.trim(), line))?;
                }
                // No digest and no number has a reason to be spelt by references.
                Event::GeneralRef(_) | Event::CData(_) if is_wanted && self.depth == 3 => {
                    return Err(XmlError::TooLong { line });
                }
                Event::DocType(_) => return Err(XmlError::DocType { line }),
                Event::Eof if self.depth == 0 && self.is_begun => return Ok(None),
                Event::Eof => return Err(XmlError::Cut),
                _ => {}
            }
        }
    }
}

impl Record {
    /// Returns a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Takes a field whose tag this is, and returns whether it is wanted.
    fn begin(&mut self, tag: &BytesStart<'_>, shape: Shape, line: u64) -> Result<bool, XmlError> {
        let name = tag.name();
        let wanted = shape.fields.iter().find(|field| name.as_ref() == field.as_bytes());
        let Some(name) = wanted.copied() else { return Ok(false) };
        if self.field(name).is_some() {
            return Err(XmlError::Duplicate { line, name: name.to_owned() });
        }
        let mut field = Field { name, ..Field::default() };
        // The parser's own check compares each with each, however many there are.
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| syntax(error.into(), line))?;
            if field.attributes.len() == ATTRIBUTES_MAX {
                return Err(XmlError::TooLong { line });
            }
            let key = tag.decoder().decode(attribute.key.into_inner());
            let key = key.map_err(|error| syntax(error.into(), line))?.into_owned();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| syntax(error, line))?.into_owned();
            if field.attribute(&key).is_some() {
                return Err(XmlError::Duplicate { line, name: key });
            }
            field.attributes.push((key, value));
        }
        self.fields.push(field);
        Ok(true)
    }

    /// Takes more text of the field that was begun last.
    fn more(&mut self, text: &str, line: u64) -> Result<(), XmlError> {
        let Some(field) = self.fields.last_mut() else { return Ok(()) };
        if field.text.len() + text.len() > TEXT_BYTES_MAX {
            return Err(XmlError::TooLong { line });
        }
        field.text.push_str(text);
        Ok(())
    }
}

impl Field {
    /// Returns its text, without the space around it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns one of its attributes, by the name that is written there.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn fault(error: quick_xml::Error, line: u64, is_over: bool) -> XmlError {
    match error {
        quick_xml::Error::Io(_) if is_over => XmlError::TooLong { line },
        quick_xml::Error::Io(source) => XmlError::Read { line, source },
        other => syntax(other, line),
    }
}

fn syntax(source: quick_xml::Error, line: u64) -> XmlError {
    XmlError::Syntax { line, source: Box::new(source) }
}

/// A reader that gives no more than it was told, and counts lines.
struct Metered<R> {
    reader: R,
    /// Bytes that may still be read.
    left: u64,
    /// Whether more was asked for.
    is_over: bool,
    line: u64,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.reader.fill_buf()?;
        if self.left == 0 && !available.is_empty() {
            self.is_over = true;
            return Err(io::Error::other("longer than it may be"));
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..count])
    }

    fn consume(&mut self, count: usize) {
        // What is about to be consumed was given out just now, so this reads nothing.
        if let Ok(given) = self.reader.fill_buf() {
            let given = &given[..count.min(given.len())];
            self.line += given.split(|byte| *byte == b'\n').skip(1).count() as u64;
        }
        self.left = self.left.saturating_sub(count as u64);
        self.reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { root: "list", record: "item", fields: &["a", "b"] };

    type Read = Vec<(u64, Option<String>, Option<String>)>;

    fn read(text: &[u8]) -> Result<Read, XmlError> {
        let mut records = Records::new(text, SHAPE);
        let mut all = Vec::new();
        while let Some(record) = records.next_record()? {
            let text = record.field("a").map(|field| field.text().to_owned());
            let of = record.field("b").and_then(|field| field.attribute("of").map(str::to_owned));
            all.push((record.line, text, of));
        }
        Ok(all)
    }

    fn fault(text: &[u8]) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn records_have_the_fields_that_are_wanted() {
        let text = b"<?xml version=\"1.0\"?>\n<list xmlns='x'><other><a>0</a></other>\n<item>\n\
            <x><a>no</a></x><a> 1 <!-- no -->\n</a><b of=\"2&amp;3\"/></item>\n<item/></list>\n";
        let text_of = |text: &str| Some(text.to_owned());
        let wanted = [(3, text_of("1"), text_of("2&3")), (6, None, None)];
        assert_eq!(read(text).unwrap(), wanted);
        assert_eq!(read(b"<list/>").unwrap(), []);
    }

    #[test]
    fn what_is_no_such_document_is_an_error() {
        for (text, wanted) in [
            (&b""[..], "it ends before its root does"),
            (b"<list><item>", "it ends before its root does"),
            (b"<list>", "it ends before its root does"),
            (b"<other/>", "its root is no list, or there is more than one"),
            (b"<list/><list/>", "its root is no list, or there is more than one"),
            (b"<!DOCTYPE list [<!ENTITY a 'b'>]>\n<list/>", "it has a document type at line 1"),
            (b"<list><item></list></item>", "at line 1, it is no XML"),
            (b"<list>\n<item><b of='&a;'/></item></list>", "at line 2, it is no XML"),
            (b"<list><item><a>\xff</a></item></list>", "at line 1, it is no XML"),
            (b"<list><item><a/><a/></item></list>", "line 1 gives a a second time"),
            (b"<list><item><a x='1' x='2'/></item></list>", "line 1 gives x a second time"),
            (
                b"<list><item><a>1&#50;</a></item></list>",
                "what reaches line 1 is too long or too deep",
            ),
        ] {
            assert_eq!(fault(text), wanted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn tags_texts_and_depths_have_bounds() {
        // T5
        let long = "too long or too deep";
        let within = |inner: String| fault(format!("<list><item>{inner}").as_bytes());
        assert!(within(format!("<a>{}", "x".repeat(5000))).contains(long));
        assert!(within("<c>".repeat(40)).contains(long));
        let attributes: Vec<String> = (0..20).map(|n| format!(" x{n}=''")).collect();
        assert!(within(format!("<a{}/>", attributes.concat())).contains(long));
    }

    #[test]
    fn a_tag_or_a_text_without_an_end_takes_no_more_memory_than_the_limit() {
        // T5: 50 MB of one, of which no more is held than the limit and the reader's buffer.
        for begin in ["<list><item><c>", "<list><item><c ", "<list><!-- "] {
            let endless = io::Read::take(io::repeat(b'x'), 50_000_000);
            let stream = io::BufReader::new(io::Read::chain(begin.as_bytes(), endless));
            let mut records = Records::new(stream, SHAPE);
            assert!(matches!(records.next_record(), Err(XmlError::TooLong { line: 1 })));
            assert!(records.buffer.capacity() <= 4 * EVENT_BYTES_MAX as usize);
        }
    }
}

//! Looking at every byte on the disk, one chunk at a time, before somebody needs it.
//!
//! A [`Scrub`] does nothing by itself: whoever drives it decides how many steps a second the disk
//! can spare. Each step reads one chunk as the disk has it now, whatever was thought of it before.
//!
//! Invariants:
//! - a chunk that is not right counts as lacking before the step returns, in the record too;
//! - a content is leased only while its chunks are looked at;
//! - a content that cannot be opened is reported and passed over: one does not end the scrub.

use std::collections::VecDeque;

use sutler_protocol::{ChunkIndex, ContentId};

use crate::content::{Content, ReadError};
use crate::store::Store;

/// A walk over what is had of the contents that there were when it began.
#[derive(Debug)]
pub struct Scrub {
    store: Store,
    ahead: VecDeque<ContentId>,
    /// The content that is being looked at, and its chunks still ahead.
    current: Option<(Content, VecDeque<ChunkIndex>)>,
}

/// What one step found.
#[derive(Debug)]
pub enum ScrubStep {
    /// A chunk is right.
    Good {
        /// Its length, for whoever keeps to a rate.
        bytes: u64,
    },
    /// A chunk is not right and counts as lacking now: fetch it again.
    Bad {
        /// The content.
        content: ContentId,
        /// The chunk.
        chunk: ChunkIndex,
        /// Its length, for whoever keeps to a rate.
        bytes: u64,
    },
    /// A content could not be opened.
    Unreadable {
        /// The content.
        content: ContentId,
        /// Why.
        error: ReadError,
    },
    /// Everything was looked at.
    Done,
}

/// What a look at one content found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Chunks that were looked at.
    pub chunks: u32,
    /// Those that were not right, and count as lacking now.
    pub bad: Vec<ChunkIndex>,
    /// Whether all of the content is here and right.
    pub complete: bool,
}

impl Store {
    /// Begins a walk over all contents, in the order of their ids.
    pub fn scrub(&self) -> Scrub {
        let ahead = self.list().into_iter().filter(|entry| entry.had_bytes > 0);
        let ahead = ahead.map(|entry| entry.id).collect();
        Scrub { store: self.clone(), ahead, current: None }
    }

    /// Looks at every chunk that is had of one content, or returns `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the content cannot be opened.
    pub fn verify(&self, id: ContentId) -> Result<Option<Verified>, ReadError> {
        let Some(content) = self.content(id)? else { return Ok(None) };
        let had = content.had();
        let mut bad = Vec::new();
        for chunk in had.iter() {
            if !content.recheck(chunk)? {
                bad.push(chunk);
            }
        }
        Ok(Some(Verified { chunks: had.count(), bad, complete: content.is_complete() }))
    }
}

impl Scrub {
    /// Looks at the next chunk.
    pub fn step(&mut self) -> ScrubStep {
        loop {
            if let Some((content, chunks)) = &mut self.current {
                let next = chunks.pop_front();
                if let Some(chunk) = next {
                    return look(content, chunk);
                }
                self.current = None;
            }
            let Some(id) = self.ahead.pop_front() else { return ScrubStep::Done };
            match self.store.content(id) {
                Ok(Some(content)) => {
                    let chunks = content.had().iter().collect();
                    self.current = Some((content, chunks));
                }
                // It has gone since the walk began.
                Ok(None) => {}
                Err(error) => return ScrubStep::Unreadable { content: id, error },
            }
        }
    }

    /// Returns how many contents are still ahead, the current one included.
    pub fn contents_ahead(&self) -> usize {
        self.ahead.len() + usize::from(self.current.is_some())
    }
}

fn look(content: &Content, chunk: ChunkIndex) -> ScrubStep {
    // It may have gone bad, and been found out, since the content's turn came.
    if !content.had().contains(chunk) {
        return ScrubStep::Good { bytes: 0 };
    }
    let place = content.geometry().chunk(chunk);
    let bytes = place.end - place.start;
    match content.recheck(chunk) {
        Ok(true) => ScrubStep::Good { bytes },
        Ok(false) => ScrubStep::Bad { content: content.id(), chunk, bytes },
        Err(error) => ScrubStep::Unreadable { content: content.id(), error },
    }
}

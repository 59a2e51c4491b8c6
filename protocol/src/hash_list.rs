//! Are these the right bytes? The one verifier, whatever source they came from.
//!
//! A [`HashList`] holds one BLAKE3 chaining value per chunk. It exists only when those values merge
//! to the content's id, so holding one means that each value is as sure as the id itself.
//!
//! A hash list does *not* vouch for the length: contents of 0.75 GiB and 1.5 GiB both have 12,288
//! chunks and the same tree over them. The length is settled by the last chunk, whose hash covers
//! its exact bytes; until it was checked, the length is a claim of whoever sent it.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{
    HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::content::ContentId;
use crate::geometry::{CHUNK_BYTES_MIN, CHUNKS_MAX, ChunkIndex, Geometry, TooLong};

/// Bytes of one chaining value.
pub const HASH_BYTES: usize = 32;

/// Bytes of the longest hash list: [`CHUNKS_MAX`] values.
pub const HASH_LIST_BYTES_MAX: usize = CHUNKS_MAX as usize * HASH_BYTES;

type ChainingValue = [u8; HASH_BYTES];

/// The chaining values of a content's chunks, known to merge to its id.
#[derive(Clone, PartialEq, Eq)]
pub struct HashList {
    id: ContentId,
    geometry: Geometry,
    /// One per chunk. A content of one chunk has the id itself here, which is a root and no
    /// chaining value.
    values: Vec<ChainingValue>,
}

/// Why bytes are not the hash list of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashListError {
    /// No content is that long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The list does not have 32 bytes for each chunk of a content of the claimed length.
    #[error("a content of {len} bytes has a hash list of {expected} bytes, not {found}")]
    Size {
        /// The claimed length, in bytes.
        len: u64,
        /// Bytes that the list of such a content has.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The values do not merge to the id.
    #[error("the hash list does not merge to {id}")]
    Root {
        /// The content that was asked for.
        id: ContentId,
    },
}

impl HashList {
    /// Believes `bytes` to be the hash list of the content `id` of `len` bytes, if they merge to it.
    ///
    /// # Errors
    ///
    /// [`HashListError`] if the length is out of bounds, the list has another size, or it does not
    /// merge to `id`. A *wrong* `len` with the same number of chunks is not noticed here; see the
    /// module's note.
    pub fn verify(bytes: &[u8], id: ContentId, len: u64) -> Result<Self, HashListError> {
        let geometry = Geometry::of(len)?;
        let expected = geometry.chunks() as usize * HASH_BYTES;
        if bytes.len() != expected {
            return Err(HashListError::Size { len, expected, found: bytes.len() });
        }
        let (values, _) = bytes.as_chunks::<HASH_BYTES>();
        if root(values, geometry) != *id.as_bytes() {
            return Err(HashListError::Root { id });
        }
        Ok(Self { id, geometry, values: values.to_vec() })
    }

    /// Returns the list of a content of one chunk, which is its id: nothing needs to be fetched.
    /// `None` if a content of `len` bytes has more chunks.
    pub fn of_one_chunk(id: ContentId, len: u64) -> Option<Self> {
        (len <= CHUNK_BYTES_MIN).then(|| Self {
            id,
            geometry: Geometry::of(len).expect("64 KiB is within the bound"),
            values: vec![*id.as_bytes()],
        })
    }

    /// Returns the content that the list belongs to.
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Returns the division into chunks, as claimed until the last chunk was checked.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the list as bytes, 32 for each chunk, as it goes on the wire and on the disk.
    pub fn as_bytes(&self) -> &[u8] {
        self.values.as_flattened()
    }

    /// Returns whether `bytes` are exactly the chunk at `index`.
    ///
    /// Gather a chunk before asking: hashing runs at a tenth of its speed on packet-sized pieces.
    pub fn vouches_for(&self, index: ChunkIndex, bytes: &[u8]) -> bool {
        let Some(expected) = self.values.get(index.0 as usize) else {
            return false;
        };
        let place = self.geometry.chunk(index);
        if bytes.len() as u64 != place.end - place.start {
            return false;
        }
        if self.values.len() == 1 {
            return blake3::hash(bytes).as_bytes() == expected;
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(place.start).update(bytes);
        hasher.finalize_non_root() == *expected
    }
}

impl fmt::Debug for HashList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashList")
            .field("id", &self.id)
            .field("len", &self.geometry.len())
            .field("chunks", &self.geometry.chunks())
            .finish_non_exhaustive()
    }
}

/// Merges chaining values, one per chunk, to the hash of the whole.
fn root(values: &[ChainingValue], geometry: Geometry) -> [u8; HASH_BYTES] {
    if let [only] = values {
        return *only;
    }
    let (left, right) = halves(values, geometry.len(), geometry.chunk_bytes());
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// Returns the chaining values of the two subtrees below a tree of `len` bytes, more than a chunk.
fn halves(values: &[ChainingValue], len: u64, chunk_bytes: u64) -> (ChainingValue, ChainingValue) {
    let left_len = left_subtree_len(len);
    let (left, right) = values.split_at((left_len / chunk_bytes) as usize);
    (subtree(left, left_len, chunk_bytes), subtree(right, len - left_len, chunk_bytes))
}

fn subtree(values: &[ChainingValue], len: u64, chunk_bytes: u64) -> ChainingValue {
    if let [only] = values {
        return *only;
    }
    let (left, right) = halves(values, len, chunk_bytes);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// Hashes a content whose length is not yet known, from its first byte to its last.
///
/// When the content outgrows [`CHUNKS_MAX`] chunks, neighbours are merged and chunks double, so the
/// builder never holds more than 512 KiB.
pub struct HashListBuilder {
    /// Chaining values of the chunks before the open one.
    values: Vec<ChainingValue>,
    chunk_bytes: u64,
    /// The chunk being filled. A full one stays open until another byte comes, because a content
    /// of one chunk is finished as a root.
    open: Hasher,
    open_bytes: u64,
    len: u64,
}

impl Default for HashListBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl HashListBuilder {
    /// Returns a builder that has seen no byte.
    pub fn new() -> Self {
        Self {
            values: Vec::new(),
            chunk_bytes: CHUNK_BYTES_MIN,
            open: Hasher::new(),
            open_bytes: 0,
            len: 0,
        }
    }

    /// Takes the content's next bytes. Fastest when they come in multiples of 64 KiB.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open_bytes == self.chunk_bytes {
                self.close_chunk();
            }
            let room = (self.chunk_bytes - self.open_bytes).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(room as usize);
            self.open.update(now);
            self.open_bytes += room;
            self.len += room;
            bytes = later;
        }
    }

    /// Returns the bytes taken so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether no byte was taken.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the list of all that was taken; its id is the content's.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if that is more than a content may have.
    pub fn finish(mut self) -> Result<HashList, TooLong> {
        let geometry = Geometry::of(self.len)?;
        if self.values.is_empty() {
            let id = ContentId::from_bytes(*self.open.finalize().as_bytes());
            return Ok(HashList { id, geometry, values: vec![*id.as_bytes()] });
        }
        self.values.push(self.open.finalize_non_root());
        let id = ContentId::from_bytes(root(&self.values, geometry));
        Ok(HashList { id, geometry, values: self.values })
    }

    fn close_chunk(&mut self) {
        self.values.push(self.open.finalize_non_root());
        if self.values.len() == CHUNKS_MAX as usize {
            let (pairs, _) = self.values.as_chunks::<2>();
            self.values = pairs
                .iter()
                .map(|[left, right]| merge_subtrees_non_root(left, right, Mode::Hash))
                .collect();
            self.chunk_bytes *= 2;
        }
        self.open = Hasher::new();
        self.open.set_input_offset(self.len);
        self.open_bytes = 0;
    }
}

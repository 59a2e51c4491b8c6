//! Taking over what lies in the data file beyond what the record's slot says.
//!
//! A killed process leaves chunks that were written and never checkpointed. They are hashed like
//! bytes from a peer, so nothing needs to be known of how they came there.

use sutler_protocol::ChunkIndex;

use super::{Content, ReadError};

impl Content {
    /// Verifies the chunks that are not had but have bytes in the file, takes over those that are
    /// right, and returns how many these were. Doing it again finds nothing more.
    ///
    /// # Errors
    ///
    /// [`ReadError::Read`] if the data file cannot be looked at. Chunks that cannot be read are
    /// passed over: they are fetched.
    pub fn adopt(&self) -> Result<u32, ReadError> {
        let shared = &*self.0;
        let lacking = {
            let state = shared.state();
            if !state.data_made || state.had.is_full() {
                return Ok(0);
            }
            state.had.complement()
        };
        let refused = |source| ReadError::Read { content: shared.id(), source };
        let data = shared.data().map_err(refused)?;
        let ranges = data.data_ranges(0..shared.geometry().len()).map_err(refused)?;
        let mut buffer = Vec::new();
        let mut adopted = 0;
        let mut ranges = ranges.into_iter().peekable();
        for chunk in lacking.iter() {
            let place = shared.geometry().chunk(chunk);
            while ranges.next_if(|range| range.end <= place.start).is_some() {}
            if ranges.peek().is_none_or(|range| range.start >= place.end) {
                continue;
            }
            if shared.read_chunk(&*data, chunk, &mut buffer).is_ok()
                && shared.hashes.vouches_for(chunk, &buffer)
            {
                adopted += u32::from(shared.adopt_one(chunk));
            }
        }
        Ok(adopted)
    }
}

impl super::Shared {
    /// Counts a verified chunk as had, and returns whether it was not.
    fn adopt_one(&self, chunk: ChunkIndex) -> bool {
        let place = self.geometry().chunk(chunk);
        let mut state = self.state();
        if state.had.contains(chunk) {
            return false;
        }
        state.gain(chunk, place.end - place.start, &self.store);
        true
    }
}

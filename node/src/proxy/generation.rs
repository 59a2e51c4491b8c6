//! The generations of one suite: which index belongs to which signed Release, and who was given
//! which. Pure: the time is an argument, in seconds since 1970.
//!
//! A suite is one signed file that names indexes by digest. When it changes, clients in the middle
//! of an update hold the old one and ask for its indexes, under names that now mean others. So the
//! one before is kept for an hour, a name means what it means in the generation that the client was
//! last given, and a digest is answered from either.
//!
//! Invariants:
//! - at most two generations are kept, the older for [`KEPT_SECONDS`] after it was replaced;
//! - a client is never given an index of one generation with the signed file of another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sutler_feed::IndexFile;
use sutler_protocol::Sha256Digest;

/// How long a generation is kept after it was replaced.
pub(super) const KEPT_SECONDS: u64 = 3_600;

/// How long after it was last asked for an index is prefetched with a new generation.
pub(super) const ASKED_SECONDS: u64 = 7 * 86_400;

/// Clients whose generation is remembered; of more, the one that was longest silent is forgotten.
const CLIENTS_MAX: usize = 4_096;

/// Indexes that are remembered as asked for.
const ASKED_MAX: usize = 512;

/// The indexes of a Release, by name below its folder.
pub(super) type Files = BTreeMap<String, IndexFile>;

/// One signed file and what it names.
#[derive(Debug)]
pub(super) struct Generation<T> {
    /// Rises with each.
    pub(super) number: u64,
    /// What it names.
    pub(super) files: Files,
    /// What its keeper knows of it.
    pub(super) with: T,
}

/// The generations of one suite.
#[derive(Debug)]
pub(super) struct Suite<T> {
    current: Option<Arc<Generation<T>>>,
    /// And when it was replaced.
    before: Option<(Arc<Generation<T>>, u64)>,
    numbers: u64,
    /// Which generation each client was given last, and when.
    clients: BTreeMap<IpAddr, (u64, u64)>,
    /// When each index was last asked for, by name.
    asked: BTreeMap<String, u64>,
}

/// An index that was asked for.
#[derive(Debug)]
pub(super) struct Named<T> {
    /// The generation that names it.
    pub(super) generation: Arc<Generation<T>>,
    /// Its name below the Release's folder.
    pub(super) name: String,
    /// What the Release says of it.
    pub(super) file: IndexFile,
}

impl<T> Default for Suite<T> {
    fn default() -> Self {
        Self {
            current: None,
            before: None,
            numbers: 0,
            clients: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }
}

impl<T> Suite<T> {
    /// Returns the newest generation.
    pub(super) fn current(&self) -> Option<&Arc<Generation<T>>> {
        self.current.as_ref()
    }

    /// Returns the generations that are kept, the newest first.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Arc<Generation<T>>> {
        self.current.iter().chain(self.before.iter().map(|(before, _)| before))
    }

    /// Takes note that a client was given the newest generation's signed file.
    pub(super) fn given(&mut self, client: IpAddr, now: u64) {
        let Some(current) = &self.current else { return };
        self.clients.insert(client, (current.number, now));
        if self.clients.len() > CLIENTS_MAX {
            let silent = self.clients.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(silent) = silent.map(|(client, _)| *client) {
                self.clients.remove(&silent);
            }
        }
    }

    /// Returns the generation that a client is to be answered from.
    pub(super) fn of(&self, client: IpAddr) -> Option<&Arc<Generation<T>>> {
        let given = self.clients.get(&client).map(|(number, _)| *number);
        let kept = given.and_then(|number| self.kept().find(|kept| kept.number == number));
        kept.or(self.current())
    }

    /// Finds the index that a client asks for by its name, and takes note of its being asked for.
    pub(super) fn named(&mut self, client: IpAddr, name: &str, now: u64) -> Option<Named<T>> {
        let generation = Arc::clone(self.of(client)?);
        let file = *generation.files.get(name)?;
        self.ask(name, now);
        Some(Named { generation, name: name.to_owned(), file })
    }

    /// Finds the index that a client asks for by its digest, in either generation.
    pub(super) fn hashed(&mut self, sha256: Sha256Digest, now: u64) -> Option<Named<T>> {
        let (generation, name, file) = self.kept().find_map(|generation| {
            let found = generation.files.iter().find(|(_, file)| file.sha256 == sha256);
            found.map(|(name, file)| (Arc::clone(generation), name.clone(), *file))
        })?;
        self.ask(&name, now);
        Some(Named { generation, name, file })
    }

    fn ask(&mut self, name: &str, now: u64) {
        self.asked.insert(name.to_owned(), now);
        if self.asked.len() > ASKED_MAX {
            let oldest = self.asked.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.asked.remove(&oldest);
            }
        }
    }

    /// Returns the indexes that were asked for lately, by name, and when.
    pub(super) fn asked(&self, now: u64) -> impl Iterator<Item = (&str, u64)> {
        let lately = move |(_, at): &(&String, &u64)| now.saturating_sub(**at) < ASKED_SECONDS;
        self.asked.iter().filter(lately).map(|(name, at)| (name.as_str(), *at))
    }

    /// Takes note of what was asked for before a restart.
    pub(super) fn recall(&mut self, asked: BTreeMap<String, u64>) {
        self.asked = asked;
    }

    /// Returns which indexes of a new generation must be here before it is given out: those that were
    /// asked for lately and that it changes.
    pub(super) fn awaited(&self, files: &Files, now: u64) -> Vec<(String, IndexFile)> {
        let current = self.current.as_ref();
        let changed = |name: &str| {
            let file = files.get(name)?;
            let before = current.and_then(|current| current.files.get(name));
            (before != Some(file)).then_some(*file)
        };
        let asked = self.asked(now);
        asked.filter_map(|(name, _)| Some((name.to_owned(), changed(name)?))).collect()
    }

    /// Puts a new generation in place of the newest, which becomes the one before.
    pub(super) fn switch(&mut self, files: Files, with: T, now: u64) -> Arc<Generation<T>> {
        self.numbers += 1;
        let new = Arc::new(Generation { number: self.numbers, files, with });
        let replaced = self.current.replace(Arc::clone(&new));
        self.before = replaced.map(|replaced| (replaced, now));
        new
    }

    /// Gives up what has been kept for long enough.
    pub(super) fn expire(&mut self, now: u64) {
        // A clock that was set back makes nothing stay for ever.
        self.before.take_if(|(_, at)| now.checked_sub(*at).is_none_or(|age| age >= KEPT_SECONDS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn file(number: u8) -> IndexFile {
        IndexFile { bytes: u64::from(number), sha256: Sha256Digest::from_bytes([number; 32]) }
    }

    fn files(of: &[(&str, u8)]) -> Files {
        of.iter().map(|(name, number)| ((*name).to_owned(), file(*number))).collect()
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn no_client_is_given_an_index_of_another_generation_than_its_signed_file() {
        let mut suite = Suite::default();
        suite.switch(files(&[("Packages", 1), ("Sources", 2)]), (), NOW);
        suite.given(client(1), NOW);
        suite.switch(files(&[("Packages", 3), ("Sources", 2)]), (), NOW + 10);
        suite.given(client(2), NOW + 10);
        let mut named = |of, name| suite.named(client(of), name, NOW + 20).map(|named| named.file);
        assert_eq!(named(1, "Packages"), Some(file(1)));
        assert_eq!(named(2, "Packages"), Some(file(3)));
        // Who was given neither is given the newest.
        assert_eq!(named(3, "Packages"), Some(file(3)));
        assert_eq!(named(1, "Contents"), None);
        // It asks again, and is given the newest from then on.
        suite.given(client(1), NOW + 30);
        assert_eq!(suite.named(client(1), "Packages", NOW + 40).unwrap().file, file(3));
    }

    #[test]
    fn a_digest_is_answered_from_either_generation_for_an_hour() {
        let mut suite = Suite::default();
        suite.switch(files(&[("Packages", 1)]), (), NOW);
        suite.given(client(1), NOW);
        suite.switch(files(&[("Packages", 3)]), (), NOW + 10);
        let has = |suite: &mut Suite<()>, number| suite.hashed(file(number).sha256, NOW).is_some();
        for (at, older) in
            [(NOW + 10, true), (NOW + 9 + KEPT_SECONDS, true), (NOW + 10 + KEPT_SECONDS, false)]
        {
            suite.expire(at);
            assert_eq!(has(&mut suite, 1), older, "{at}");
            assert!(has(&mut suite, 3));
        }
        // What it was given is gone, so it is given what there is.
        assert_eq!(suite.named(client(1), "Packages", NOW + 7200).unwrap().file, file(3));
    }

    // T13
    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_ever() {
        let mut suite = Suite::default();
        suite.switch(files(&[("Packages", 1)]), (), NOW);
        suite.switch(files(&[("Packages", 3)]), (), NOW);
        suite.expire(NOW - 1);
        assert_eq!(suite.kept().count(), 1);
    }

    #[test]
    fn a_new_generation_awaits_what_was_asked_for_lately_and_what_it_changes() {
        let mut suite = Suite::default();
        suite.switch(files(&[("Packages", 1), ("Sources", 2), ("Contents", 4)]), (), NOW);
        suite.named(client(1), "Contents", NOW);
        let later = NOW + ASKED_SECONDS;
        suite.named(client(1), "Packages", later);
        suite.hashed(file(2).sha256, later);
        let new = files(&[("Packages", 7), ("Sources", 2), ("Contents", 8)]);
        let awaited = |now| suite.awaited(&new, now);
        // Contents was asked for too long ago, Sources has not changed.
        assert_eq!(awaited(later), [("Packages".to_owned(), file(7))]);
        assert_eq!(awaited(later + ASKED_SECONDS), []);
    }

    #[test]
    fn clients_are_remembered_within_a_bound() {
        let mut suite = Suite::default();
        suite.switch(files(&[("Packages", 1)]), (), NOW);
        for number in 0..=CLIENTS_MAX as u64 {
            suite.given(IpAddr::from(u128::from(number).to_be_bytes()), NOW + number);
        }
        assert_eq!(suite.clients.len(), CLIENTS_MAX);
        assert!(!suite.clients.contains_key(&IpAddr::from(0_u128.to_be_bytes())));
    }
}

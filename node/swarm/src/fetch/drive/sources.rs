//! The sources of a drive: how each comes in, goes, and comes back.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use sutler_protocol::ChunkRanges;
use sutler_protocol::fetch::{Fetch, Outlook, SourceId};
use sutler_protocol::frame::{Body, Holding, Refusal};
use sutler_protocol::geometry::ChunkIndex;
use tracing::{debug, warn};

use super::Drive;
use crate::fetch::introduce::{Again, Introduced, Link, Useless, introduce};
use crate::fetch::report::SourceKind;
use crate::fetch::{BUSY_ATTEMPTS, FetchError, SourceAddress, blocking};
use crate::gateway::causes;
use crate::peer::RequestError;

/// How often a lost connection is made again before its source is given up. The waits between
/// double from [`RETURN_AFTER`], so that an address change or a reboot of a switch is survived.
const RETURNS_MAX: u32 = 6;

/// How long the only source may be gone from its machine, since it last said anything, before it is
/// given up: one that is started anew is back by then, and who waits is told within 5 s.
const GONE_MAX: Duration = Duration::from_secs(4);

/// The wait before a lost connection is made again for the first time.
const RETURN_AFTER: Duration = Duration::from_millis(200);

/// A source, as its drive knows it.
pub(super) struct Source {
    pub(super) address: SourceAddress,
    pub(super) kind: SourceKind,
    pub(super) link: Option<Link>,
    /// Introduced before there was a hash list to begin with.
    pub(super) waiting: Option<Introduced>,
    pub(super) useless: Option<Useless>,
    pub(super) is_partial: bool,
    pub(super) is_refreshing: bool,
    /// When it last sent anything, or was asked.
    pub(super) heard: Instant,
    /// When it last sent anything.
    pub(super) said: Instant,
    pub(super) returns: u32,
    /// How often it said that it is busy when it was to introduce itself.
    busy_times: u32,
    /// Bytes that came with its introduction.
    pub(super) inline_bytes: u64,
}

impl Drive<'_> {
    pub(super) fn link_lost(&mut self, id: SourceId, how: String) {
        let index = id.0 as usize;
        let source = &mut self.sources[index];
        if source.is_linked() || source.link.take().is_none() {
            return;
        }
        // One that was left for what it did is not asked back.
        if source.useless.is_none() {
            // It may be waited for in vain, and who waits is to know for whom.
            warn!(source = %source.address, "a source has fallen silent or gone, and is tried again");
            self.comes_back_later(index, how, Again::Perhaps);
        }
    }

    /// Tries a source again after a while, or gives it up.
    fn comes_back_later(&mut self, index: usize, how: String, again: Again) {
        let is_sole = self.sources.iter().all(|source| source.link.is_none());
        let source = &mut self.sources[index];
        let is_away = again == Again::IfStarted && source.said.elapsed() >= GONE_MAX;
        let is_gone = is_away && is_sole;
        if source.returns >= RETURNS_MAX || is_gone {
            source.useless = Some(Useless::bad(&how));
            if let Some(machine) = &mut self.machine {
                machine.handle_lost(SourceId(index as u32), how);
            }
            return;
        }
        debug!(source = %source.address, how, "a source is tried again");
        let after = RETURN_AFTER * 2_u32.pow(source.returns);
        source.returns += 1;
        self.introduce(index, after);
    }

    pub(super) fn introduce(&mut self, index: usize, after: Duration) {
        let body = if self.content.is_some() { Body::Nothing } else { Body::List };
        let introduction = introduce(
            self.fetcher.links.clone(),
            self.sources[index].address.clone(),
            self.wanted.content,
            self.wanted.class,
            body,
        );
        self.introductions.spawn(async move {
            tokio::time::sleep(after).await;
            (index, introduction.await)
        });
    }

    pub(super) async fn introduced(
        &mut self,
        index: usize,
        introduced: Result<Introduced, Useless>,
    ) -> Result<(), FetchError> {
        let introduced = match introduced {
            Ok(introduced) => introduced,
            Err(Useless { busy_for: Some(after), .. })
                if self.sources[index].busy_times < BUSY_ATTEMPTS =>
            {
                self.sources[index].busy_times += 1;
                self.introduce(index, after);
                return Ok(());
            }
            Err(useless) if self.sources[index].returns > 0 && useless.again != Again::No => {
                self.comes_back_later(index, useless.reason, useless.again);
                return Ok(());
            }
            Err(useless) => {
                debug!(source = %self.sources[index].address, useless.reason, "no use");
                if let Some(machine) = &mut self.machine {
                    machine.handle_lost(SourceId(index as u32), useless.reason.clone());
                }
                self.sources[index].useless = Some(useless);
                return Ok(());
            }
        };
        self.sources[index].kind = introduced.kind;
        if self.machine.is_none() && !self.begin(index, &introduced).await? {
            self.sources[index].waiting = Some(introduced);
            return Ok(());
        }
        self.enter(index, introduced);
        // Those that came before the hash list did.
        for other in 0..self.sources.len() {
            if let Some(waiting) = self.sources[other].waiting.take() {
                self.enter(other, waiting);
            }
        }
        Ok(())
    }

    /// Begins the scheduler, if there is a hash list by now.
    async fn begin(&mut self, index: usize, by: &Introduced) -> Result<bool, FetchError> {
        let content = match (&self.content, &by.hashes) {
            (Some(content), _) => content.clone(),
            (None, None) => return Ok(false),
            (None, Some(hashes)) => {
                let (store, hashes) = (self.fetcher.store.clone(), hashes.clone());
                let about = self.wanted.about.clone();
                blocking(move || store.create(hashes, &about)).await?.map_err(FetchError::Create)?
            }
        };
        let whole = by.whole.clone();
        let (adopter, inline) = (content.clone(), whole.is_some());
        // What lies beyond the record is looked at before anything is asked for again.
        let missing = blocking(move || -> Result<ChunkRanges, FetchError> {
            if !adopter.had().is_full() {
                adopter.adopt().map_err(FetchError::Read)?;
            }
            if let Some(bytes) = whole.filter(|_| adopter.had().is_empty()) {
                adopter.commit(ChunkIndex(0), &bytes).map_err(FetchError::Commit)?;
            }
            Ok(adopter.had().complement())
        })
        .await??;
        if inline {
            self.sources[index].inline_bytes = content.geometry().len();
            self.arrival.stored();
        }
        // A length that an earlier fetch believed is nobody's word now.
        let claimant = by.len.filter(|len| *len == content.geometry().len());
        let claimant = claimant.map(|_| SourceId(index as u32));
        self.claimant = claimant;
        let seed = RandomState::new().hash_one(self.wanted.content.as_bytes());
        self.machine =
            Some(Fetch::new(content.geometry(), missing, claimant, seed, Instant::now()));
        self.content = Some(content);
        Ok(true)
    }

    /// Lets the scheduler have a source, or have it back.
    fn enter(&mut self, index: usize, introduced: Introduced) {
        let (Some(machine), Some(content)) = (&mut self.machine, &self.content) else { return };
        let source = &mut self.sources[index];
        let geometry = content.geometry();
        if introduced.len.is_some_and(|len| len != geometry.len()) {
            source.useless = Some(Useless::bad("claims another length"));
            return;
        }
        let Ok(held) = introduced.holding.promised(geometry) else {
            source.useless = Some(Useless::bad("sent a bitmap of another size"));
            return;
        };
        source.is_partial = introduced.holding != Holding::Whole;
        let id = SourceId(index as u32);
        machine.add_source(id, introduced.scheduled_as(), held.clone(), introduced.rtt);
        machine.handle_back(id, held, Instant::now());
        machine.handle_outlook(id, outlook(&introduced.holding));
        source.link = Some(introduced.link);
        source.said = Instant::now();
    }

    pub(super) fn refreshed(&mut self, index: usize, holding: Result<Holding, RequestError>) {
        self.sources[index].is_refreshing = false;
        let (Some(machine), Some(content)) = (&mut self.machine, &self.content) else { return };
        let id = SourceId(index as u32);
        match holding {
            Ok(holding) => {
                self.sources[index].said = Instant::now();
                if let Ok(held) = holding.promised(content.geometry()) {
                    self.sources[index].is_partial = holding != Holding::Whole;
                    machine.handle_holding(id, held, Instant::now());
                    machine.handle_outlook(id, outlook(&holding));
                }
            }
            // With nothing asked of it, nobody else would notice.
            Err(error @ RequestError::Connection(_)) => self.link_lost(id, causes(&error)),
            // It will be there again.
            Err(RequestError::Refused(Refusal::Busy { .. } | Refusal::Damaged)) => {}
            // It cannot get what it lacks, and says why.
            Err(error @ RequestError::Refused(_)) => machine.handle_lost(id, causes(&error)),
            Err(error) => {
                debug!(source = %self.sources[index].address, %error, "does not say what it has");
            }
        }
    }
}

/// Returns whether who has this may come to have more.
const fn outlook(holding: &Holding) -> Outlook {
    match holding {
        Holding::Whole | Holding::Part(_) => Outlook::Settled,
        Holding::Filling(_) | Holding::Growing(_) => Outlook::Open,
    }
}

impl Source {
    /// Returns whether there is a connection to it that lives.
    pub(super) fn is_linked(&self) -> bool {
        matches!(&self.link, Some(Link::Peer(peer)) if peer.ended().is_none())
    }

    pub(super) fn new(address: SourceAddress) -> Self {
        let kind = match address {
            SourceAddress::Peer(_) => SourceKind::Peer,
            SourceAddress::Origin(_) => SourceKind::Vendor,
        };
        Self {
            address,
            kind,
            link: None,
            waiting: None,
            useless: None,
            is_partial: false,
            is_refreshing: false,
            heard: Instant::now(),
            said: Instant::now(),
            returns: 0,
            busy_times: 0,
            inline_bytes: 0,
        }
    }
}

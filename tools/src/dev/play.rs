//! How content moves in `sutler dev`: agent A gets each file through the node, then agent B gets it
//! from A and the node together. A few files are on their way at a time.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sutler_cache::{About, Origin};
use sutler_node::failure::{Failure, Kind};
use sutler_node::owner::report;
use sutler_node::report::{Fetched, Progress};
use sutler_node::size::ByteCount;
use sutler_protocol::frame::Class;
use sutler_protocol::{ContentId, ContentName, Sha256Digest};
use sutler_swarm::fetch::Progress as FetchProgress;
use sutler_swarm::{FetchError, SourceAddress, Wanted};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::cast::{Actor, Cast};
use super::summary::Row;
use crate::output::printable;
use crate::progress::Bars;

/// Files on their way at a time: enough that a slow mirror is kept busy, few enough to watch.
const FILES_AT_A_TIME: usize = 4;

/// How often the bars move.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// A file that everybody shall have.
#[derive(Clone, Debug)]
pub(crate) struct Prop {
    /// What it is called.
    pub(crate) name: String,
    /// Where it is to be had.
    pub(crate) from: PropFrom,
}

/// Where a file is to be had.
#[derive(Clone, Debug)]
pub(crate) enum PropFrom {
    /// The node has it in its store.
    Node(ContentId),
    /// Its vendor has it; the node fetches it when it is asked.
    Vendor { sha256: Sha256Digest, url: Url },
}

/// What became of all files.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Those that both agents have, in the order that was given.
    pub(crate) rows: Vec<Row>,
    /// Those that could not be had, and why.
    pub(crate) failed: Vec<(String, Failure)>,
}

/// Brings every file to both agents.
///
/// Cancel-safe: what was verified stays in the stores.
pub(crate) async fn play(cast: &Cast, props: &[Prop], stop: &CancellationToken) -> Outcome {
    let screen = Screen::new();
    let turns = Arc::new(Semaphore::new(FILES_AT_A_TIME));
    // Owns every file's task: none outlives this function.
    let mut files = JoinSet::new();
    for (position, prop) in props.iter().cloned().enumerate() {
        let (turns, screen, stop) = (Arc::clone(&turns), screen.clone(), stop.clone());
        let (a, b) = (Agent::of("A", &cast.agent_a), Agent::of("B", &cast.agent_b));
        let (node, a_address) = (cast.node.address, cast.agent_a.address);
        files.spawn(async move {
            let _turn = turns.acquire().await;
            let sources = [SourceAddress::Peer(a_address), SourceAddress::Peer(node)];
            let moved = tokio::select! {
                // Dropped at a stop: what was verified is kept.
                moved = async {
                    let first = a.fetch(&prop, &prop.from, &sources[1..], &screen).await?;
                    let (id, agent_a) = first;
                    let again = PropFrom::Node(id);
                    let (_, agent_b) = b.fetch(&prop, &again, &sources, &screen).await?;
                    let (file, bytes) = (prop.name.clone(), agent_a.bytes);
                    Ok(Row { file, bytes, agent_a, agent_b })
                } => moved,
                // Cancel-safe: a token stays cancelled.
                () = stop.cancelled() => Err(Failure::new(Kind::Interrupted, "interrupted")),
            };
            (position, prop.name, moved)
        });
    }
    let mut ended = Vec::new();
    while let Some(file) = files.join_next().await {
        match file {
            Ok(file) => ended.push(file),
            Err(error) => {
                let failure = Failure::because(Kind::Internal, "move a file", &error);
                ended.push((usize::MAX, "a file".to_owned(), Err(failure)));
            }
        }
    }
    ended.sort_by_key(|(position, ..)| *position);
    let mut outcome = Outcome::default();
    for (_, name, moved) in ended {
        match moved {
            Ok(row) => outcome.rows.push(row),
            Err(failure) => outcome.failed.push((name, failure)),
        }
    }
    outcome
}

/// An agent that fetches.
struct Agent {
    name: &'static str,
    fetcher: sutler_swarm::Fetcher,
}

impl Agent {
    fn of(name: &'static str, actor: &Actor) -> Self {
        Self { name, fetcher: actor.fetcher.clone() }
    }

    async fn fetch(
        &self,
        prop: &Prop,
        from: &PropFrom,
        sources: &[SourceAddress],
        screen: &Screen,
    ) -> Result<(ContentId, Fetched), Failure> {
        let (origin, sha256) = match &prop.from {
            PropFrom::Node(_) => (None, None),
            PropFrom::Vendor { sha256, url } => (Some(Origin::at(url.as_str())), Some(*sha256)),
        };
        let mut wanted = Wanted {
            content: ContentId::from_bytes([0; 32]),
            about: About {
                name: Some(prop.name.clone()),
                origins: origin.into_iter().collect(),
                sha256,
                ..About::default()
            },
            class: Class::Normal,
            sources: sources.to_vec(),
        };
        let (sender, told) = watch::channel(FetchProgress::default());
        let label = format!("{} {}", self.name, prop.name);
        let (name, fetched) = match from {
            PropFrom::Node(id) => {
                wanted.content = *id;
                let fetching = self.fetcher.fetch(&wanted, &sender);
                (ContentName::Id(*id), screen.show(&label, fetching, &told).await)
            }
            PropFrom::Vendor { sha256, url } => {
                let fetching = self.fetcher.fetch_vendor(*sha256, url, wanted, &sender);
                (ContentName::Vendor(*sha256), screen.show(&label, fetching, &told).await)
            }
        };
        let fetched = fetched.map_err(Failure::from)?;
        let report = report(&fetched, name);
        screen.done(&label, &report);
        Ok((fetched.content.id(), report))
    }
}

/// Where a person watches. Cheap to clone.
#[derive(Clone)]
struct Screen {
    bars: Arc<Mutex<Bars>>,
    is_terminal: bool,
}

impl Screen {
    fn new() -> Self {
        Self { bars: Arc::new(Mutex::new(Bars::new())), is_terminal: stderr().is_terminal() }
    }

    /// Waits for a fetch and shows how far it has come.
    async fn show<T>(
        &self,
        label: &str,
        fetching: impl Future<Output = Result<T, FetchError>>,
        told: &watch::Receiver<FetchProgress>,
    ) -> Result<T, FetchError> {
        tokio::pin!(fetching);
        let mut tick = tokio::time::interval(SHOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // Pinned: polled again where it was.
                done = &mut fetching => {
                    self.bars.lock().unwrap_or_else(PoisonError::into_inner).end(label);
                    return done;
                }
                // Cancel-safe: a tick that is missed comes again.
                _ = tick.tick() => {
                    let (bytes_had, bytes) = {
                        let told = told.borrow();
                        (told.have_bytes, told.len)
                    };
                    let progress = Progress { subject: label.to_owned(), bytes_had, bytes };
                    let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
                    bars.show(label, &progress);
                }
            }
        }
    }

    /// Says that a fetch is done, where no bar shows it.
    fn done(&self, label: &str, report: &Fetched) {
        if !self.is_terminal {
            eprintln!("agent {}  {}", printable(label), ByteCount(report.bytes));
        }
    }
}

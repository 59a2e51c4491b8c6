//! The caching proxy: serves package managers over plain HTTP, as they are, from the store.
//!
//! Off unless `[http_proxy]` names an address. It caches, and it does not govern: a client gets what
//! it asks for from the origins that are allowed, and judges for itself what that is worth.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`settings`] |
//! | Who is let in, and what may that cost? | `listen`, `clients`, `strict` |
//! | What is asked for? | `target`, `kind` |
//! | Which index fits which signed file, and who vouches for what? | `generation`, `feeds`, `tables`, `index` |
//! | May what is held be given out? | `freshness`, `known`, `turns` |
//! | Which part of it? | `range` |
//! | How does it come, once for all who ask? | `flight` |
//! | How is it given? | `server`, `reply`, `body`, `blocks`, `shelf` |
//! | What if not? | `failed` |
//! | What is passed through unread? | `tunnel` |
//! | What has it come to? | [`tally`] |

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sutler_feed::apt::Apt;
use sutler_swarm::disk::Disk;
use sutler_swarm::fetch::Fetcher;
use sutler_swarm::origin::{AllowEntry, Origins};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use url::{Host, Position, Url};

mod blocks;
mod body;
mod clients;
mod durable;
mod failed;
mod feeds;
mod flight;
mod freshness;
#[doc(hidden)]
pub mod fuzzed;
mod generation;
mod index;
mod kind;
mod known;
mod listen;
mod range;
mod reply;
mod server;
pub mod settings;
mod shelf;
mod strict;
mod tables;
pub mod tally;
mod target;
mod tunnel;
mod turns;

use blocks::Blocks;
use body::Reader;
use clients::Passwords;
use feeds::Feeds;
use flight::Flights;
use known::Known;
use listen::Listener;
use server::{Server, now};
use settings::HttpProxyConfig;
use shelf::Shelf;
use tally::Tally;
use turns::Turns;

use crate::failure::{Failure, Kind};
use crate::fill::Filler;
use crate::status::{OriginStatus, ProxyStatus};

/// How often what is known is written down, and what nobody uses put back.
const TICK: Duration = Duration::from_secs(5);

/// What a proxy knows of its feeds before it has clients.
#[derive(Debug)]
pub struct Sources {
    feeds: Feeds,
    allow: Vec<AllowEntry>,
}

impl Sources {
    /// Asks this machine's apt for its sources, if the config wants that. What is known of them later
    /// lies in the folder `data`. Blocks while apt reads its sources.
    pub fn ask(config: &HttpProxyConfig, data: &Path) -> Self {
        let apt = config.apt_sources.then(|| match &config.apt_config {
            Some(path) => Apt::with_config(path),
            None => Apt::of_this_machine(),
        });
        let feeds = Feeds::new(data.join("suites.json"), apt, config.feeds.clone());
        let followed = feeds.follow();
        let urls = followed.iter().flat_map(|feed| [&feed.archive, &feed.release]);
        let mut allow = config.allow.clone();
        for entry in urls.filter_map(|url| whole_host(url)) {
            if !allow.contains(&entry) {
                allow.push(entry);
            }
        }
        Self { feeds, allow }
    }

    /// Returns the origins that clients may ask for.
    pub fn allow(&self) -> &[AllowEntry] {
        &self.allow
    }
}

/// Returns the origin of a source of this machine. Its name may lead to public addresses only; where
/// the source is an address itself, that is what it is.
fn whole_host(url: &str) -> Option<AllowEntry> {
    let url = Url::parse(url).ok()?;
    let root = url[..Position::BeforePath].to_owned();
    match url.host()? {
        Host::Ipv4(_) | Host::Ipv6(_) | Host::Domain("localhost") => {
            Some(AllowEntry::private(root))
        }
        Host::Domain(_) => Some(AllowEntry::public(root)),
    }
}

/// A proxy that has its socket and does not answer yet.
pub struct Proxy {
    listener: Listener,
    server: Arc<Server>,
}

impl Proxy {
    /// Listens at `address`. What the proxy remembers lies in the folder `data`; reads it.
    ///
    /// # Errors
    ///
    /// Kind `unreachable` if the address is in use or not this machine's, `usage` if the password
    /// file cannot be used.
    pub fn bind(
        address: SocketAddr,
        config: &HttpProxyConfig,
        data: &Path,
        sources: Sources,
        fetcher: Fetcher,
        filler: Filler,
        origins: Origins,
    ) -> Result<Self, Failure> {
        let passwords = config.password_file.as_deref().map(|path| {
            Passwords::read(path).map_err(|error| {
                let what = format!("use http_proxy.password_file {}", path.display());
                Failure::because(Kind::Usage, what, &error)
            })
        });
        let listener = Listener::bind(address, config).map_err(|error| {
            let what = format!("listen at {address} for the caching proxy");
            Failure::because(Kind::Unreachable, what, &error)
        })?;
        let tally = Arc::new(Tally::default());
        let reader = Reader {
            disk: Arc::new(Disk::default()),
            blocks: Blocks::default(),
            origins: origins.clone(),
            tally: tally.clone(),
            tasks: TaskTracker::new(),
        };
        let server = Server {
            origins,
            flights: Flights::new(fetcher.clone(), filler.clone(), &config.upstream),
            feeds: sources.feeds,
            fetcher,
            filler,
            known: Arc::new(Known::open(data.join("known.json"))),
            shelf: Shelf::default(),
            turns: Turns::default(),
            reader,
            tally,
            passwords: passwords.transpose()?,
            stale_seconds_max: config.stale_hours_max.saturating_mul(3600),
        };
        Ok(Self { listener, server: Arc::new(server) })
    }

    /// Returns the address that is listened at.
    pub const fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Returns what tells how it is doing.
    pub fn gauge(&self) -> Gauge {
        Gauge { server: self.server.clone(), address: self.address() }
    }

    /// Answers until `shutdown`, then lets open requests finish for a bounded time and writes down
    /// what it knows.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket and its connections; flights go on until the node stops.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { listener, server } = self;
        server.reader.tasks.spawn(server.clone().recall());
        let listening = listener.run(server.clone(), shutdown);
        let looking_after = async {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                look_after(&server).await;
            }
        };
        let ended = tokio::select! {
            ended = listening => ended,
            // It never ends by itself; what it had not written is written below.
            () = looking_after => Ok(()),
        };
        server.flights.stop().await;
        // Each ends with its client, and the last client is gone.
        server.reader.tasks.close();
        server.reader.tasks.wait().await;
        look_after(&server).await;
        ended
    }
}

/// Tells how a proxy is doing. Cheap to clone.
#[derive(Clone)]
pub struct Gauge {
    server: Arc<Server>,
    address: SocketAddr,
}

impl Gauge {
    /// Returns what it has done since its start, and what it thinks of its feeds.
    pub fn status(&self) -> ProxyStatus {
        let tally = &self.server.tally;
        let origin = |(host, of): (String, tally::OriginTally)| {
            let status = OriginStatus {
                requests: of.requests,
                hits: of.hits,
                bytes_from_vendor: of.vendor_bytes,
                bytes_from_nodes: of.node_bytes,
            };
            (host, status)
        };
        ProxyStatus {
            url: format!("http://{}", self.address),
            requests: tally.requests.value(),
            hits: tally.hits.value(),
            stale: tally.stale.value(),
            refused: tally.refused.value(),
            tunnels: tally.tunnels.value(),
            bytes_from_disk: tally.disk_bytes.value(),
            bytes_passed: tally.passed_bytes.value(),
            origins: tally.by_origin().into_iter().map(origin).collect(),
            feeds: self.server.feeds.status(SystemTime::now()),
        }
    }
}

/// Writes down what is known, and puts back what nobody uses.
async fn look_after(server: &Arc<Server>) {
    server.shelf.sweep(Instant::now());
    server.feeds.expire(now());
    server.feeds.warn_of_expired(SystemTime::now());
    let saving = server.clone();
    let saved = tokio::task::spawn_blocking(move || {
        saving.known.save()?;
        saving.feeds.save(now())
    })
    .await;
    if let Ok(Err(error)) = saved {
        warn!(%error, "what the proxy knows could not be written down");
    }
}

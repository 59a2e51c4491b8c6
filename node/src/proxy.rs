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
//! | May what is held be given out? | `freshness`, `known`, `turns` |
//! | Which part of it? | `range` |
//! | How does it come, once for all who ask? | `flight` |
//! | How is it given? | `server`, `reply`, `body`, `shelf` |
//! | What if not? | `failed` |
//! | What is passed through unread? | `tunnel` |
//! | What has it come to? | [`tally`] |

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sutler_swarm::disk::Disk;
use sutler_swarm::fetch::Fetcher;
use sutler_swarm::origin::Origins;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

mod body;
mod clients;
mod durable;
mod failed;
mod flight;
mod freshness;
mod kind;
mod known;
mod listen;
mod range;
mod reply;
mod server;
pub mod settings;
mod shelf;
mod strict;
pub mod tally;
mod target;
mod tunnel;
mod turns;

use body::Reader;
use clients::Passwords;
use flight::Flights;
use known::Known;
use listen::Listener;
use server::Server;
use settings::HttpProxyConfig;
use shelf::Shelf;
use tally::Tally;
use turns::Turns;

use crate::failure::{Failure, Kind};
use crate::fill::Filler;

/// How often what is known is written down, and what nobody uses put back.
const TICK: Duration = Duration::from_secs(5);

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
            origins: origins.clone(),
            tally: tally.clone(),
            tasks: TaskTracker::new(),
        };
        let server = Server {
            origins,
            flights: Flights::new(fetcher.clone(), filler.clone()),
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

    /// Returns what it counts.
    pub fn tally(&self) -> Arc<Tally> {
        self.server.tally.clone()
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

/// Writes down what is known, and puts back what nobody uses.
async fn look_after(server: &Arc<Server>) {
    server.shelf.sweep(Instant::now());
    let known = server.known.clone();
    let saved = tokio::task::spawn_blocking(move || known.save()).await;
    if let Ok(Err(error)) = saved {
        warn!(%error, "what the proxy knows could not be written down");
    }
}

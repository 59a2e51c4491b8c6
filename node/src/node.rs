//! A node that runs: one store, one endpoint, and everything that is served from them.
//!
//! An agent that serves its peers is the same thing with an agent's identity and no origins.
//!
//! Opening does everything that can fail by the machine's fault, in an order in which a failure
//! leaves nothing behind: config, store, identity, sockets. Running then only ends when it is told
//! to, and drains first.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sutler_cache::Store;
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::endpoint::BindError;
use sutler_swarm::enrol::device::control_addresses;
use sutler_swarm::enrol::relay::JoinRelay;
use sutler_swarm::enrol::renew::keep_renewed;
use sutler_swarm::identity::{Identity, LoadError};
use sutler_swarm::orders::{Board, Orders, Outbox};
use sutler_swarm::origin::{OriginConfig, Origins, ProxyEnvironment, Resolve, SystemResolver};
use sutler_swarm::{Endpoint, Fetcher, Server, TransportConfig};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::adopt;
use crate::config::{Config, JoinRelayConfig};
use crate::data::DataFolder;
use crate::expiry::Expiries;
use crate::failure::{Failure, Kind};
use crate::fill::{Filler, Keep, LINGER};
use crate::http::HttpServer;
use crate::local::LocalServer;
use crate::metrics::Meter;
use crate::orders::{Relay, RelayGauge};
use crate::owner::{Bringer, OpenStore, Service};
use crate::proxy::{Gauge, Proxy, Sources};
use crate::report::SourceKind;
use crate::scrub;
use crate::status::ServiceStatus;

/// A node that has everything it needs and does not serve yet.
pub struct Node {
    endpoint: Endpoint,
    address: SocketAddr,
    owner: Arc<OpenStore>,
    fetcher: Fetcher,
    filler: Filler,
    counters: Arc<Counters>,
    local: LocalServer,
    http: Option<HttpServer>,
    proxy: Option<Proxy>,
    relay: Option<Relay>,
    /// What is answered about orders.
    orders: Option<Arc<dyn Orders>>,
    join_relay: Option<JoinRelay>,
    /// The identity folder, whose certificate is to be renewed, and what expires.
    upkeep: (PathBuf, Expiries),
    connections_max: usize,
    scrub_bytes_per_second: u64,
    stop_bringing: CancellationToken,
}

/// What a node finds around it, and what a test puts something of its own in place of.
pub struct Surroundings {
    /// Resolves the names of origins. What it answers is judged as ever.
    pub resolver: Arc<dyn Resolve>,
    /// How long a content that is not kept stays after the last request for it.
    pub linger: Duration,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { resolver: Arc::new(SystemResolver), linger: LINGER }
    }
}

impl Node {
    /// Opens the store of `data` and every socket. Must be called within a tokio runtime; waits
    /// for the disk.
    ///
    /// # Errors
    ///
    /// Kind `usage` for the config, `store`, `refused` for the identity, `unreachable` where an
    /// address cannot be listened at.
    pub fn open(data: &DataFolder, listen: SocketAddr, config: &Config) -> Result<Self, Failure> {
        Self::open_in(&Surroundings::default(), data, listen, config)
    }

    /// As [`Node::open`], in surroundings of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub fn open_in(
        surroundings: &Surroundings,
        data: &DataFolder,
        listen: SocketAddr,
        config: &Config,
    ) -> Result<Self, Failure> {
        let proxy_at = config.http_proxy.listen;
        let sources = proxy_at.map(|_| Sources::ask(&config.http_proxy, &data.proxy()));
        let allowed = with_sources(&config.origin, sources.as_ref());
        let origins = origins_by(&allowed, &surroundings.resolver)?;
        let store = OpenStore::open(data.clone(), &config.store)?;
        let endpoint = endpoint(data, listen, config.transport.clone())?;
        let address = bound_to(&endpoint, listen)?;
        let (counters, stop_bringing) = (Arc::new(Counters::default()), CancellationToken::new());
        let fetcher = Fetcher::new(
            endpoint.clone(),
            store.store().clone(),
            Arrivals::default(),
            Some(origins.clone()),
            Arc::clone(&counters),
        );
        let keep = if config.store.keep { Keep::Yes } else { Keep::For(surroundings.linger) };
        let filler = Filler::new(fetcher.clone(), origins.clone(), keep);
        filler.vacate();
        let proxy = proxy_at.zip(sources).map(|(listen, sources)| {
            let (fetcher, filler, origins) = (fetcher.clone(), filler.clone(), origins.clone());
            let (config, folder) = (&config.http_proxy, data.proxy());
            Proxy::bind(listen, config, &folder, sources, fetcher, filler, origins)
        });
        let proxy = proxy.transpose()?;
        let relay = Relay::open(data, &config.orders, &endpoint, &filler)?;
        let expiries = Expiries::new(&data.identity(), endpoint.clone(), relay.as_ref());
        let service = NodeService {
            started: Instant::now(),
            address,
            counters: Arc::clone(&counters),
            gauge: proxy.as_ref().map(Proxy::gauge),
            relay: relay.as_ref().map(Relay::gauge),
            expiries: expiries.clone(),
        };
        let meter = service.meter(store.store().clone(), filler.clone());
        let bringer = Bringer {
            runtime: Handle::current(),
            fetcher: Some(fetcher.clone()),
            origins: Some(origins),
            stop: stop_bringing.clone(),
        };
        let owner = Arc::new(store.with_bringer(bringer).with_service(Arc::new(service)));
        let local = LocalServer::bind(data, Arc::clone(&owner) as Arc<_>)
            .map_err(|error| Failure::from_error(Kind::Store, &error))?;
        let http = config.http.listen.map(|listen| HttpServer::bind(listen, meter)).transpose()?;
        Ok(Self {
            join_relay: join_relay(&config.join_relay)?,
            upkeep: (data.identity(), expiries),
            endpoint,
            address,
            owner,
            fetcher,
            filler,
            counters,
            local,
            http,
            proxy,
            orders: relay.as_ref().map(Relay::orders),
            relay,
            connections_max: config.limits.connections_max.get(),
            scrub_bytes_per_second: config.store.scrub_bytes_per_second.0,
            stop_bringing,
        })
    }

    /// Returns the UDP address that peers are served at.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of `/metrics` and `/healthz`, if they are on.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Returns the address at which joiners are passed on to control, if they are.
    pub fn join_relay_address(&self) -> Option<SocketAddr> {
        self.join_relay.as_ref().and_then(|relay| relay.local_address().ok())
    }

    /// Returns the address of the caching proxy, if it is on.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(Proxy::address)
    }

    /// Answers about the orders of this board: those of a machine that publishes them by itself.
    #[must_use]
    pub fn publishing(mut self, board: Board) -> Self {
        self.upkeep.1.heed(board.clone());
        self.orders = Some(Arc::new(board));
        self
    }

    /// Returns what is believed of the orders and where reports go, if orders are followed.
    pub fn follows(&self) -> Option<(Board, Outbox)> {
        self.relay.as_ref().map(Relay::follows)
    }

    /// Returns the store, as commands use it.
    pub const fn owner(&self) -> &Arc<OpenStore> {
        &self.owner
    }

    /// Returns what fetches into the store.
    pub const fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Returns what has been moved since the start.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Serves until `shutdown`, then finishes what is open, for a bounded time, and closes the
    /// store.
    ///
    /// # Errors
    ///
    /// Kind `store` if the store cannot be closed in order, `internal` if a service ended by itself.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: dropping it drops every connection, and the next start is as after a kill.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let serving = Server::new(self.endpoint.clone(), self.filler.clone(), self.counters)
            .connections_max(self.connections_max)
            .orders(self.orders);
        // Owns every service: none outlives this function.
        let mut services = JoinSet::new();
        let stop = shutdown.clone();
        services.spawn(async move {
            serving.run(stop).await;
            Ok(())
        });
        services.spawn(self.local.run(shutdown.clone()));
        if let Some(http) = self.http {
            services.spawn(http.run(shutdown.clone()));
        }
        if let Some(proxy) = self.proxy {
            services.spawn(proxy.run(shutdown.clone()));
        }
        if let Some(relay) = self.relay {
            services.spawn(relay.run(shutdown.clone()));
        }
        if let Some(relay) = self.join_relay {
            services.spawn(relay.run(shutdown.clone()));
        }
        services.spawn(upkeep(self.upkeep, shutdown.clone()));
        let (store, stop) = (self.fetcher.store().clone(), shutdown.clone());
        services.spawn(async move {
            let told = stop.clone();
            let adopted = tokio::task::spawn_blocking(move || adopt::run(&store, &told)).await;
            // It has nothing more to do, and its end is not the node's.
            stop.cancelled().await;
            adopted.map_err(std::io::Error::other)
        });
        if self.scrub_bytes_per_second > 0 {
            let (store, filler) = (self.fetcher.store().clone(), self.filler.clone());
            let (rate, stop) = (self.scrub_bytes_per_second, shutdown.clone());
            services.spawn(async move {
                scrub::run(store, filler, rate, stop).await;
                Ok(())
            });
        }
        let stopped_by = tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = shutdown.cancelled() => None,
            // Cancel-safe: a service is taken out only when it is returned.
            ended = services.join_next() => ended,
        };
        info!("draining");
        // A service may have heard of it, and ended, before this task did.
        let was_told = shutdown.is_cancelled();
        shutdown.cancel();
        self.stop_bringing.cancel();
        let mut trouble = match stopped_by.map(trouble_of) {
            Some(None) if was_told => None,
            Some(None) => Some(Failure::new(Kind::Internal, "a service ended by itself")),
            ended => ended.flatten(),
        };
        while let Some(ended) = services.join_next().await {
            trouble = trouble.or_else(|| trouble_of(ended));
        }
        self.filler.stop().await;
        self.endpoint.close().await;
        let owner = self.owner;
        let closed = tokio::task::spawn_blocking(move || owner.close()).await;
        match (trouble, closed) {
            (Some(trouble), _) => Err(trouble),
            (None, Ok(closed)) => closed,
            (None, Err(_)) => Err(Failure::new(Kind::Internal, "close the store")),
        }
    }
}

/// Returns the address that an endpoint is bound to, having been asked to listen at `listen`.
fn bound_to(endpoint: &Endpoint, listen: SocketAddr) -> Result<SocketAddr, Failure> {
    endpoint
        .local_address()
        .map_err(|error| Failure::because(Kind::Unreachable, format!("listen at {listen}"), &error))
}

/// Returns what may be asked of origins, with what the proxy's clients may ask for.
fn with_sources(config: &OriginConfig, sources: Option<&Sources>) -> OriginConfig {
    let mut config = config.clone();
    config.allow.extend(sources.iter().flat_map(|sources| sources.allow()).cloned());
    config
}

/// Returns the client of the origins that a config allows.
///
/// # Errors
///
/// Kind `usage`, with all that is wrong.
pub fn origins(config: &OriginConfig) -> Result<Origins, Failure> {
    origins_by(config, &Surroundings::default().resolver)
}

fn origins_by(config: &OriginConfig, resolver: &Arc<dyn Resolve>) -> Result<Origins, Failure> {
    Origins::with(config, &ProxyEnvironment::of_process(), resolver).map_err(|error| {
        let causes = error.problems.iter().map(ToString::to_string).collect();
        Failure { causes, ..Failure::new(Kind::Usage, "use the [origin] part of the config") }
    })
}

/// Keeps the identity renewed that lies in a folder, and says what expires.
async fn upkeep(
    (dir, expiries): (PathBuf, Expiries),
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let endpoint = expiries.endpoint();
    let (identity, clock) = (endpoint.identity().clone(), endpoint.clock().clone());
    let told = expiries.run(shutdown.clone());
    // One that was issued by hand says nowhere to renew it.
    if control_addresses(&dir).is_ok_and(|addresses| !addresses.is_empty()) {
        tokio::join!(keep_renewed(dir, identity, clock, shutdown), told);
    } else {
        told.await;
    }
    Ok(())
}

/// Listens for joiners to be passed on, if a config says so.
fn join_relay(config: &JoinRelayConfig) -> Result<Option<JoinRelay>, Failure> {
    let Some((listen, control)) = config.listen.zip(config.control.clone()) else {
        return Ok(None);
    };
    let bound = JoinRelay::bind(listen, control);
    bound.map(Some).map_err(|error| {
        Failure::because(Kind::Unreachable, format!("listen for joiners at {listen}"), &error)
    })
}

/// Makes the endpoint of the member whose identity lies in `data`.
///
/// # Errors
///
/// Kind `refused` if there is no identity that any peer would accept, `unreachable` if `listen`
/// cannot be listened at.
pub fn endpoint(
    data: &DataFolder,
    listen: SocketAddr,
    transport: TransportConfig,
) -> Result<Endpoint, Failure> {
    let identity = Identity::load(&data.identity()).map_err(|error| {
        let failure = Failure::from_error(Kind::Refused, &error);
        match error {
            LoadError::Exposed { path, .. } => {
                failure.with_help(format!("chmod 600 {}", path.display()))
            }
            _ => failure.with_help(format!(
                "sutler org issue ORG_DIR --site SITE --role node|agent --out {}",
                data.identity().display()
            )),
        }
    })?;
    Endpoint::bind(listen, &identity, transport).map_err(|error| match &error {
        BindError::Socket { .. } => {
            Failure::from_error(Kind::Unreachable, &error).with_help("port 0 takes any free port")
        }
        BindError::Tls(_) => Failure::from_error(Kind::Refused, &error),
    })
}

/// Makes an endpoint that only asks: on any port, of both address families where there are both.
///
/// # Errors
///
/// As [`endpoint`].
pub fn asking_endpoint(
    data: &DataFolder,
    transport: &TransportConfig,
) -> Result<Endpoint, Failure> {
    let any = |ip: std::net::IpAddr| SocketAddr::new(ip, 0);
    match endpoint(data, any(Ipv6Addr::UNSPECIFIED.into()), transport.clone()) {
        // A machine without IPv6.
        Err(failure) if failure.kind == Kind::Unreachable => {
            endpoint(data, any(Ipv4Addr::UNSPECIFIED.into()), transport.clone())
        }
        made => made,
    }
}

/// Returns why a service ended, if it did not end as it should.
fn trouble_of(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> Option<Failure> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Failure::because(Kind::Internal, "serve", &error)),
        Err(error) => {
            warn!(%error, "a service ended by a defect");
            Some(Failure::because(Kind::Internal, "serve", &error))
        }
    }
}

/// What `sutler status` shows of a node.
struct NodeService {
    started: Instant,
    address: SocketAddr,
    counters: Arc<Counters>,
    gauge: Option<Gauge>,
    relay: Option<RelayGauge>,
    expiries: Expiries,
}

impl NodeService {
    /// Returns what measures the same.
    fn meter(&self, store: Store, filler: Filler) -> Meter {
        let (counters, expiries) = (Arc::clone(&self.counters), self.expiries.clone());
        Meter::new(store, counters, filler, self.gauge.clone(), expiries)
    }
}

impl Service for NodeService {
    fn status(&self) -> ServiceStatus {
        let counters = &self.counters;
        let uptime = self.started.elapsed().as_millis();
        let opened = counters.connections_opened.value();
        ServiceStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: Some(self.expiries.endpoint().name().to_string()),
            listen: vec![self.address.to_string()],
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            connections: opened.saturating_sub(counters.connections_closed.value()),
            bytes_served: counters.served_bytes.value(),
            bytes_by_source: [
                (SourceKind::Peer, counters.fetched_peer_bytes.value()),
                (SourceKind::Node, counters.fetched_node_bytes.value()),
                (SourceKind::Vendor, counters.fetched_vendor_bytes.value()),
            ]
            .into(),
            proxy: self.gauge.as_ref().map(Gauge::status),
            orders: self.relay.as_ref().map(RelayGauge::status),
            contents_returned: counters.returned_contents.value(),
            contents_lacking: counters.lacking_contents.value(),
            expiring: self.expiries.status(),
        }
    }
}

//! Origins that misbehave, on loopback, over real sockets: what `sutler_swarm::origin` makes of them.

mod bodies;
mod places;
mod server;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use server::Server;
use sutler_swarm::origin::{
    AllowEntry, OriginBody, OriginConfig, OriginError, Origins, ProxyEnvironment, Validators,
};
use url::Url;

/// Answers every name with loopback.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(addr)) as Addrs) })
    }
}

fn config(allow: Vec<AllowEntry>) -> OriginConfig {
    OriginConfig { allow, ..OriginConfig::default() }
}

fn origins(config: &OriginConfig) -> Origins {
    let resolver: Arc<dyn Resolve> = Arc::new(Loopback);
    Origins::with(config, &ProxyEnvironment::default(), &resolver).expect("a config in order")
}

fn of(server: &Server) -> Origins {
    origins(&config(vec![AllowEntry::private(server.url("").as_str())]))
}

async fn collect(mut body: OriginBody) -> Result<Vec<u8>, OriginError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(body.delivered(), bytes.len() as u64);
    assert_eq!(body.len(), Some(bytes.len() as u64), "known at the end");
    Ok(bytes)
}

async fn read(
    origins: &Origins,
    url: &Url,
    bytes: std::ops::Range<u64>,
) -> Result<Vec<u8>, OriginError> {
    collect(origins.read(url, bytes, &Validators::default()).await?).await
}

async fn whole(origins: &Origins, url: &Url) -> Result<Vec<u8>, OriginError> {
    collect(origins.whole(url, 0, &Validators::default()).await?).await
}

/// 3 MB of bytes that differ from place to place.
fn file() -> Arc<[u8]> {
    (0..3_000_000_u32).map(|i| (i ^ (i >> 9)) as u8).collect()
}

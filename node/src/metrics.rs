//! What Prometheus is told: names are `sutler_NOUN_UNIT_total`, values are read when asked for.
//!
//! Nothing is counted here: the numbers are those of [`Counters`] and of the store, so a scrape
//! and `sutler status` never disagree.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sutler_cache::Store;
use sutler_protocol::expiry::Expiring;
use sutler_swarm::counters::Counters;

use crate::expiry::Expiries;
use crate::fill::Filler;
use crate::proxy::Gauge;
use crate::status::{OriginStatus, ProxyStatus};

/// Reads a node's numbers. Cheap to clone.
#[derive(Clone)]
pub struct Meter {
    registry: Arc<Registry>,
}

impl Meter {
    /// Returns the meter of a node.
    pub(crate) fn new(
        store: Store,
        counters: Arc<Counters>,
        filler: Filler,
        proxy: Option<Gauge>,
        expiries: Expiries,
    ) -> Self {
        let mut registry = Registry::default();
        let started = Instant::now();
        let numbers = Numbers { store, counters, filler, proxy, expiries, started };
        registry.register_collector(Box::new(numbers));
        Self { registry: Arc::new(registry) }
    }

    /// Returns the numbers now, in the text format of Prometheus. Reads the index of the store.
    ///
    /// # Errors
    ///
    /// Formatting failed, which memory alone can cause.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

struct Numbers {
    store: Store,
    counters: Arc<Counters>,
    filler: Filler,
    proxy: Option<Gauge>,
    expiries: Expiries,
    started: Instant,
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = &self.counters;
        let opened = counters.connections_opened.value();
        for (name, help, value) in [
            ("sutler_connections_opened", "Connections let in", opened),
            (
                "sutler_connections_refused",
                "Attempts to connect that were not let in",
                counters.connections_refused.value(),
            ),
            ("sutler_requests", "Requests received", counters.requests.value()),
            (
                "sutler_requests_refused",
                "Requests answered with a refusal",
                counters.requests_refused.value(),
            ),
            ("sutler_violations", "Peers that broke the protocol", counters.violations.value()),
            (
                "sutler_mismatches",
                "Chunks that peers reported as not verifying",
                counters.mismatches.value(),
            ),
            (
                "sutler_served_bytes",
                "Bytes of contents and hash lists sent",
                counters.served_bytes.value(),
            ),
            (
                "sutler_wasted_bytes",
                "Bytes fetched that were of no use",
                counters.wasted_bytes.value(),
            ),
            (
                "sutler_returned_contents",
                "Published contents that control had lost and has back from nodes",
                counters.returned_contents.value(),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        self.by_source(&mut encoder)?;
        self.expiries(&mut encoder)?;
        if let Some(proxy) = &self.proxy {
            of_proxy(&proxy.status(), &mut encoder)?;
        }
        self.gauges(&mut encoder)
    }
}

impl Numbers {
    /// What is so now.
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = &self.counters;
        let entries = self.store.list();
        let opened = counters.connections_opened.value();
        let open = opened.saturating_sub(counters.connections_closed.value());
        for (name, help, value) in [
            ("sutler_connections_open", "Connections open now", open),
            ("sutler_store_bytes", "Bytes held", self.store.usage().used_bytes),
            (
                "sutler_store_reserved_bytes",
                "Bytes promised to downloads",
                self.store.usage().reserved_bytes,
            ),
            ("sutler_store_contents", "Contents known", entries.len() as u64),
            (
                "sutler_store_contents_complete",
                "Contents that are complete",
                entries.iter().filter(|entry| entry.complete).count() as u64,
            ),
            (
                "sutler_lacking_contents",
                "Published contents that control lost and looks for",
                counters.lacking_contents.value(),
            ),
            ("sutler_fills_running", "Fills from origins", self.filler.running() as u64),
            ("sutler_uptime_seconds", "Time since the start", self.started.elapsed().as_secs()),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }

    // R164
    fn expiries(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time until a role of the manifest or the certificate expires, negative after";
        let name = "sutler_metadata_expires_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let (all, now) = self.expiries.all();
        for Expiring { what, expires, .. } in &all {
            let left = expires.duration_since(now).as_secs();
            let labels = [("role", what.as_str())];
            ConstGauge::new(left).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    // D6
    fn by_source(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Content bytes fetched and verified, by kind of source";
        let mut family =
            encoder.encode_descriptor("sutler_fetched_bytes", help, None, MetricType::Counter)?;
        for (source, counter) in [
            ("peer", &self.counters.fetched_peer_bytes),
            ("node", &self.counters.fetched_node_bytes),
            ("vendor", &self.counters.fetched_vendor_bytes),
        ] {
            let labels = [("source", source)];
            let metric = family.encode_family(&labels)?;
            ConstCounter::new(counter.value()).encode(metric)?;
        }
        Ok(())
    }
}

// D6, R40, R41
fn of_proxy(status: &ProxyStatus, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    for (name, help, value) in [
        ("sutler_proxy_requests", "Requests of the proxy's clients", status.requests),
        ("sutler_proxy_hits", "Requests answered with what was held", status.hits),
        ("sutler_proxy_stale", "Requests answered though the origin is in trouble", status.stale),
        ("sutler_proxy_refused", "Requests for what may not be had", status.refused),
        ("sutler_proxy_tunnels", "Tunnels opened", status.tunnels),
        ("sutler_proxy_disk_bytes", "Bytes sent that were on the disk", status.bytes_from_disk),
        ("sutler_proxy_passed_bytes", "Bytes sent while they came", status.bytes_passed),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)?;
    }
    for (name, help, value) in [
        (
            "sutler_proxy_origin_requests",
            "Requests by host of the origin",
            (|of: &OriginStatus| of.requests) as fn(&OriginStatus) -> u64,
        ),
        ("sutler_proxy_origin_hits", "Hits by host of the origin", |of| of.hits),
        ("sutler_proxy_vendor_bytes", "Bytes from the origin itself", |of| of.bytes_from_vendor),
        ("sutler_proxy_node_bytes", "Bytes of the origin from other nodes", |of| {
            of.bytes_from_nodes
        }),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (host, of) in &status.origins {
            let labels = [("origin", host.as_str())];
            ConstCounter::new(value(of)).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Whether a feed vouches for what it names, and if not, why";
    let mut family =
        encoder.encode_descriptor("sutler_feed_verified", help, None, MetricType::Gauge)?;
    for feed in &status.feeds {
        let labels = [("feed", feed.url.as_str()), ("state", feed.state.as_str())];
        let verified = i64::from(feed.state == "verified");
        ConstGauge::new(verified).encode(family.encode_family(&labels)?)?;
    }
    let help = "Time since a feed was last found to be the newest";
    let mut family =
        encoder.encode_descriptor("sutler_feed_age_seconds", help, None, MetricType::Gauge)?;
    for feed in &status.feeds {
        let age = i64::try_from(feed.age_seconds).unwrap_or(i64::MAX);
        let labels = [("feed", feed.url.as_str())];
        ConstGauge::new(age).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

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
use sutler_swarm::counters::Counters;

use crate::fill::Filler;

/// Reads a node's numbers. Cheap to clone.
#[derive(Clone)]
pub struct Meter {
    registry: Arc<Registry>,
}

impl Meter {
    /// Returns the meter of a node.
    pub fn new(store: Store, counters: Arc<Counters>, filler: Filler) -> Self {
        let mut registry = Registry::default();
        let started = Instant::now();
        registry.register_collector(Box::new(Numbers { store, counters, filler, started }));
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
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        self.by_source(&mut encoder)?;
        let entries = self.store.list();
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
            ("sutler_fills_running", "Fills from origins", self.filler.running() as u64),
            ("sutler_uptime_seconds", "Time since the start", self.started.elapsed().as_secs()),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }
}

impl Numbers {
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

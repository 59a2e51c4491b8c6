//! `sutler status`: what a store holds, and what the process that owns it does.

use clap::Args;
use sutler_node::report::SourceKind;
use sutler_node::size::ByteCount;
use sutler_node::status::{OrdersStatus, ProxyStatus};

use crate::access::{Absent, DataArgs};
use crate::output::{Output, Stop, printable};

const EXAMPLES: &str = "\
Examples:
  sutler status --data ./node
  sutler status --data ./node --json | jq .store.bytes";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    data: DataArgs,
}

impl StatusArgs {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Fail)?;
        let status = access.owner().status()?;
        let store = &status.store;
        output.line(format_args!("data      {}", printable(&status.data)))?;
        output.line(format_args!(
            "contents  {} ({} complete)",
            store.contents, store.contents_complete
        ))?;
        let most = store
            .bytes_max
            .map_or("no quota".to_owned(), |most| format!("quota {}", ByteCount(most)));
        output.line(format_args!("bytes     {} ({most})", ByteCount(store.bytes)))?;
        output.line(format_args!(
            "disk      {} free, of which {} stay free",
            ByteCount(store.free_bytes),
            ByteCount(store.free_bytes_min)
        ))?;
        match &status.service {
            None => output.line("service   none: nobody serves this store now")?,
            Some(service) => {
                let identity = service.identity.as_deref().unwrap_or("no identity");
                output.line(format_args!("service   {identity}, process {}", service.pid))?;
                output.line(format_args!("listen    {}", service.listen.join(", ")))?;
                output.line(format_args!("uptime    {} s", service.uptime_ms / 1000))?;
                output.line(format_args!("peers     {} connected", service.connections))?;
                let from = |kind| {
                    ByteCount(service.bytes_by_source.get(&kind).copied().unwrap_or_default())
                };
                output.line(format_args!("served    {}", ByteCount(service.bytes_served)))?;
                output.line(format_args!(
                    "fetched   vendor {}, node {}, peer {}",
                    from(SourceKind::Vendor),
                    from(SourceKind::Node),
                    from(SourceKind::Peer)
                ))?;
                if let Some(proxy) = &service.proxy {
                    show_proxy(proxy, output)?;
                }
                if let Some(orders) = &service.orders {
                    show_orders(orders, output)?;
                }
            }
        }
        output.json(&status)?;
        Ok(access.close()?)
    }
}

fn show_orders(orders: &OrdersStatus, output: Output) -> Result<(), Stop> {
    match orders.version {
        Some(version) => output.line(format_args!(
            "orders    statement {version}, issued {}, good until {}",
            orders.issued.as_deref().unwrap_or("at a time that it does not say"),
            orders.expires.as_deref().unwrap_or("it is replaced"),
        ))?,
        None => output.line("orders    none yet")?,
    }
    if !orders.refused_roles.is_empty() {
        let roles = orders.refused_roles.join(", ");
        output.line(format_args!("          not believed: {}", printable(&roles)))?;
    }
    output.line(format_args!(
        "          {} denials by themselves, {} reports wait",
        orders.denials, orders.reports_waiting
    ))
}

fn show_proxy(proxy: &ProxyStatus, output: Output) -> Result<(), Stop> {
    output.line(format_args!(
        "proxy     {}: {} requests, {} hits, {} stale, {} refused, {} tunnels",
        proxy.url, proxy.requests, proxy.hits, proxy.stale, proxy.refused, proxy.tunnels
    ))?;
    output.line(format_args!(
        "clients   {} from disk, {} while it came",
        ByteCount(proxy.bytes_from_disk),
        ByteCount(proxy.bytes_passed)
    ))?;
    for (host, of) in &proxy.origins {
        output.line(format_args!(
            "origin    {}: {} requests, {} hits, vendor {}, nodes {}",
            printable(host),
            of.requests,
            of.hits,
            ByteCount(of.bytes_from_vendor),
            ByteCount(of.bytes_from_nodes)
        ))?;
    }
    for feed in &proxy.feeds {
        let owner = feed.owner.as_deref().map(|owner| format!(" of {}", printable(owner)));
        let why = feed.detail.as_deref().map(|why| format!(": {}", printable(why)));
        output.line(format_args!(
            "feed      {} {}{}, checked {} s ago, {} packages{}",
            printable(&feed.url),
            feed.state,
            owner.unwrap_or_default(),
            feed.age_seconds,
            feed.packages,
            why.unwrap_or_default()
        ))?;
        for (index, reason) in &feed.unread {
            output.line(format_args!(
                "index     {}{} vouches for nothing: {reason}",
                printable(&feed.url),
                printable(index)
            ))?;
        }
    }
    Ok(())
}

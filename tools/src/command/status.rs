//! `sutler status`: what a store holds, and what the process that owns it does.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use sutler_agent::view::{View, WindowView};
use sutler_node::report::SourceKind;
use sutler_node::size::ByteCount;
use sutler_node::status::{ExpiryStatus, OrdersStatus, ProxyStatus, Status};

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
                if service.contents_lacking > 0 || service.contents_returned > 0 {
                    output.line(format_args!(
                        "lost      {} published contents lacking, {} back from nodes",
                        service.contents_lacking, service.contents_returned
                    ))?;
                }
                let warned = service.expiring.iter().filter(|one| !one.warning.is_empty());
                for ExpiryStatus { what, expires, warning, .. } in warned {
                    let (what, expires) = (printable(what), printable(expires));
                    output.line(format_args!("expires   {what} {warning}, on {expires}"))?;
                }
            }
        }
        let agent = View::read(&self.data.folder().agent()).ok();
        if let Some(agent) = &agent {
            show_agent(agent, output)?;
        }
        output.json(&Shown { status: &status, agent: agent.as_ref() })?;
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

/// What is printed with `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a View>,
}

/// Shows what the agent of this data folder showed last.
fn show_agent(agent: &View, output: Output) -> Result<(), Stop> {
    output.line(format_args!("device    {}", printable(&agent.identity)))?;
    if let Some(why) = &agent.observes {
        output.line(format_args!("observes  nothing is installed: {}", printable(why)))?;
    }
    let contact = agent.last_contact.map_or_else(|| "none yet".to_owned(), |at| at.to_string());
    output.line(format_args!("contact   {contact}"))?;
    let confirmed = if agent.time.confirmed { "" } else { ", not confirmed" };
    output.line(format_args!(
        "time      {} (clock {}{confirmed})",
        agent.time.trusted, agent.time.clock
    ))?;
    match &agent.statement {
        None => output.line("orders    none yet")?,
        Some(statement) => {
            // The agent may have ended before they expired.
            let is_stale = statement.stale || statement.expires.instant() <= Timestamp::now();
            let age = if is_stale { "STALE" } else { "fresh" };
            let (version, expires) = (statement.version, statement.expires);
            output
                .line(format_args!("orders    version {version}, {age}, good until {expires}"))?;
        }
    }
    for refused in &agent.refused {
        output.line(format_args!("refused   {}", printable(refused)))?;
    }
    let mut states = BTreeMap::<&str, usize>::new();
    for answer in &agent.answers {
        *states.entry(&answer.state).or_default() += 1;
    }
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    output.line(format_args!("answers   {}", printable(&states.join(", "))))?;
    for window in &agent.windows {
        let WindowView { scope, local, begin, end, .. } = window;
        output.line(format_args!(
            "window    {}: {}, {begin} to {end}",
            printable(scope),
            printable(local)
        ))?;
    }
    output.line(format_args!("reports   {} wait", agent.reports_waiting))
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

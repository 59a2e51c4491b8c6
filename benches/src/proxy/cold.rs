//! Files that nobody has yet: how fast they come to one client and to many, what the vendor sends for
//! that, and how soon the first byte is there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ground::Ground;
use crate::line::{Line, RATE_MBIT};
use crate::process::{Finished, Usage, finish_all};
use crate::scale::Scale;
use crate::table::{Contestant, Sample, Table, median};

use super::caches::{self, Cache, Vendor, curl};

/// Clients that ask for the same cold file at once.
pub(super) const CROWD: usize = 50;

/// The length of a file that is fetched cold, over loopback and over a line: some seconds.
const COLD_BYTES: u64 = 256 << 20;
const LINE_COLD_BYTES: u64 = 32 << 20;

/// How long a client waits for more.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Names of files that nobody has asked for yet, all of the same bytes.
struct Fresh<'a> {
    ground: &'a Ground,
    name: String,
    bytes: u64,
    number: Cell<u64>,
}

impl Fresh<'_> {
    /// Returns another; its name says who asks for it.
    fn file(&self, who: &str) -> anyhow::Result<String> {
        let Self { ground, name, bytes, number } = self;
        number.set(number.get() + 1);
        let first = format!("vendor/pool/{name}_1_all.deb");
        if !ground.path(&first).exists() {
            ground.file(&first, *bytes)?;
        }
        // A hard link, so that the vendor has it in memory.
        let file = format!("{name}-{}-{}_1_all.deb", mark(who), number.get());
        fs::hard_link(ground.path(&first), ground.path(&format!("vendor/pool/{file}")))?;
        Ok(file)
    }
}

/// Returns a name as it may stand in a URL.
fn mark(who: &str) -> String {
    who.replace([' ', '_'], "-")
}

/// Compares how fast such a file comes to `clients` clients at once.
pub(super) fn to_clients(
    scale: &Scale,
    ground: &Ground,
    caches: &[Cache],
    vendor: &Vendor,
    clients: usize,
) -> anyhow::Result<Table> {
    let name = format!("cold{clients}");
    let fresh = Fresh { ground, name, bytes: COLD_BYTES, number: Cell::new(0) };
    let bytes = COLD_BYTES * clients as u64;
    let crowd = |url: &str| {
        let mut curls: Vec<Command> = (0..clients).map(|_| curl()).collect();
        for curl in &mut curls {
            curl.args(["--output", "/dev/null", url]);
        }
        finish_all(&mut curls)
    };
    let mut contestants = Vec::new();
    for cache in caches {
        let (fresh, crowd) = (&fresh, &crowd);
        contestants.push(Contestant::new(cache.name, bytes, move || {
            let url = cache.url(&fresh.file(cache.name)?);
            cache.daemon.sample(|| crowd(&url))
        }));
    }
    contestants.push(Contestant::new(ITSELF, bytes, || {
        Ok(Sample::from(crowd(&vendor.url(&fresh.file(ITSELF)?))?))
    }));
    let title =
        format!("proxy cold: {} MiB to {clients} clients, {}", COLD_BYTES >> 20, scale.place());
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.compare("sutler", "nginx proxy_cache", "as fast");
    table.compare("sutler", "apt-cacher-ng", "as fast");
    table.compare("sutler", ITSELF, "none; this is no line that anybody has");
    table.note(copies(vendor, &fresh, caches, scale)?);
    Ok(table)
}

/// The contestant without a cache.
const ITSELF: &str = "vendor itself";

/// Says how often the vendor sent each file, by who asked for it.
fn copies(
    vendor: &Vendor,
    fresh: &Fresh<'_>,
    caches: &[Cache],
    scale: &Scale,
) -> anyhow::Result<String> {
    let files = scale.runs() as u64 + 1;
    let names = caches.iter().map(|cache| cache.name).chain([ITSELF]);
    let each = names.map(|name| {
        let sent = vendor.sent(&format!("{}-{}-", fresh.name, mark(name)))?;
        Ok(format!("{name} {:.3}", sent as f64 / (fresh.bytes * files) as f64))
    });
    let each = each.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(format!("Copies that the vendor sent of each file: {}. Wanted: 1.", each.join(", ")))
}

/// Compares how fast such a file comes over a line that is slower than everybody, and how soon its
/// first byte. Nothing where there can be no such line.
pub(super) fn over_a_line(scale: &Scale, ground: &Ground) -> anyhow::Result<Option<Table>> {
    let line = match Line::new() {
        Ok(line) => line,
        Err(error) => {
            eprintln!("without a limited line: {error:#}");
            return Ok(None);
        }
    };
    let vendor = Vendor::behind(&line, ground)?;
    let caches = caches::all(ground, "far", vendor.at)?;
    let name = "line".to_owned();
    let fresh = Fresh { ground, name, bytes: LINE_COLD_BYTES, number: Cell::new(0) };
    let first_bytes = RefCell::new(BTreeMap::<&str, Vec<f64>>::new());
    let read = |who: &'static str, url: &str| -> anyhow::Result<Finished> {
        let (first, finished) = read_to_end(url, LINE_COLD_BYTES)?;
        first_bytes.borrow_mut().entry(who).or_default().push(first * 1e3);
        Ok(finished)
    };
    let mut contestants = Vec::new();
    for cache in &caches {
        let (fresh, read) = (&fresh, &read);
        contestants.push(Contestant::new(cache.name, LINE_COLD_BYTES, move || {
            let url = cache.url(&fresh.file(cache.name)?);
            cache.daemon.sample(|| read(cache.name, &url))
        }));
    }
    contestants.push(Contestant::new(ITSELF, LINE_COLD_BYTES, || {
        Ok(Sample::from(read(ITSELF, &vendor.url(&fresh.file(ITSELF)?))?))
    }));
    let title = format!(
        "proxy cold: {} MiB over a line of {RATE_MBIT} Mbit/s, {}",
        LINE_COLD_BYTES >> 20,
        scale.place()
    );
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.compare("sutler", ITSELF, "at least 0.95 x: the share of what the line gives");
    table.compare("sutler", "nginx proxy_cache", "as fast");
    table.compare("sutler", "apt-cacher-ng", "as fast");
    let first_bytes = first_bytes.borrow();
    let each = first_bytes
        .iter()
        .map(|(name, times)| format!("{name} {:.1}", median(times.iter().copied())));
    let each: Vec<String> = each.collect();
    table.note(format!("Milliseconds to the first byte of the body, median: {}.", each.join(", ")));
    table.note(copies(&vendor, &fresh, &caches, scale)?);
    Ok(Some(table))
}

/// Reads a file to its end, and returns after how many seconds its first byte was here.
fn read_to_end(url: &str, bytes: u64) -> anyhow::Result<(f64, Finished)> {
    let started = Instant::now();
    let (host, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("a URL")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let (mut head, mut block) = (Vec::new(), vec![0; 256 << 10]);
    let (mut body, mut first) = (0, None);
    loop {
        let read = stream.read(&mut block)?;
        if read == 0 {
            break;
        }
        if first.is_none() {
            head.extend_from_slice(&block[..read]);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            body = (head.len() - end - 4) as u64;
        } else {
            body += read as u64;
        }
        if body > 0 {
            first.get_or_insert_with(|| started.elapsed());
        }
    }
    ensure!(head.starts_with(b"HTTP/1.1 200"), "{url}: {}", head.escape_ascii());
    ensure!(body == bytes, "{url}: {body} bytes of {bytes}");
    let first = first.context("a body")?.as_secs_f64();
    let elapsed_s = started.elapsed().as_secs_f64();
    Ok((first, Finished { elapsed_s, usage: Usage::default() }))
}

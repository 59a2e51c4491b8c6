//! The caching proxy beside what sites use today: nginx with `proxy_cache`, and apt-cacher-ng where it
//! is installed. The vendor is another nginx, over plain HTTP.
//!
//! | Question | Room |
//! |---|---|
//! | How is each set up? | [`caches`] |
//! | How does a file come that nobody has yet? | [`cold`] |
//! | How fast is what is held given out? | here |

mod caches;
mod cold;

use std::fmt::Write as _;
use std::fs;

use crate::ground::{Ground, Noise};
use crate::process::finish;
use crate::scale::Scale;
use crate::table::{Contestant, Table};

use caches::{Cache, Vendor, curl};

/// Small files, and their lengths.
const FILES: u64 = 2_000;
const FILE_BYTES_MIN: u64 = 4 << 10;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Runs the comparisons.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let ground = Ground::new(scale.disk())?;
    let pool = ground.folder("vendor")?.join("pool");
    fs::create_dir(&pool)?;
    let large = scale.large_bytes();
    ground.file("vendor/pool/large_1_all.deb", large)?;
    let (mut noise, mut small) = (Noise::new(0), 0);
    for number in 0..FILES {
        let len = FILE_BYTES_MIN + noise.word() % (FILE_BYTES_MAX - FILE_BYTES_MIN + 1);
        ground.noise(&format!("vendor/pool/small_{number}_all.deb"), len, number)?;
        small += len;
    }
    let vendor = Vendor::start(&ground)?;
    let caches = caches::all(&ground, "near", vendor.at)?;
    let mut tables = vec![
        hits(scale, &caches, "large", large, |cache| vec![cache.url("large_1_all.deb")])?,
        hits(scale, &caches, "2,000 small", small, |cache| {
            (0..FILES).map(|number| cache.url(&format!("small_{number}_all.deb"))).collect()
        })?,
        cold::to_clients(scale, &ground, &caches, &vendor, 1)?,
        cold::to_clients(scale, &ground, &caches, &vendor, cold::CROWD)?,
    ];
    // The first ones would hold memory and disk for nothing.
    drop(caches);
    tables.extend(cold::over_a_line(scale, &ground)?);
    Ok(tables)
}

/// Compares how fast what is held is given out.
fn hits(
    scale: &Scale,
    caches: &[Cache],
    what: &str,
    bytes: u64,
    urls: impl Fn(&Cache) -> Vec<String>,
) -> anyhow::Result<Table> {
    let contestant = |cache: &'_ Cache| {
        let mut list = String::new();
        for url in urls(cache) {
            // Writing to a string cannot fail.
            let _ = writeln!(list, "url = \"{url}\"\noutput = \"/dev/null\"");
        }
        list
    };
    let lists: Vec<String> = caches.iter().map(contestant).collect();
    let folder = Ground::new(None)?;
    let mut contestants = Vec::new();
    for (number, (cache, list)) in caches.iter().zip(lists).enumerate() {
        let path = folder.path(&format!("list-{number}"));
        fs::write(&path, list)?;
        contestants.push(Contestant::new(cache.name, bytes, move || {
            cache.daemon.sample(|| finish(curl().arg("--config").arg(&path)))
        }));
    }
    let title = format!("proxy hits: {what}, {} MiB, {}", bytes >> 20, scale.place());
    let mut table = Table::of(title, scale.runs(), contestants)?;
    let wanted = if what == "large" { "at least 0.8 x" } else { "at least 0.67 x" };
    table.compare("sutler", "nginx proxy_cache", wanted);
    table.compare("sutler", "apt-cacher-ng", "at least 2 x");
    Ok(table)
}

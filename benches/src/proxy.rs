//! The caching proxy beside what sites use today: nginx with `proxy_cache`, and apt-cacher-ng where it
//! is installed. The vendor is another nginx, over plain HTTP; clients are `curl`.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ground::{Ground, Noise};
use crate::process::{Daemon, finish, finish_all};
use crate::program::{Program, node_data};
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Sample, Table};

/// Small files, and their lengths.
const FILES: u64 = 2_000;
const FILE_BYTES_MIN: u64 = 4 << 10;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The length of a file that is fetched cold.
const COLD_BYTES: u64 = 256 << 20;

/// Clients that ask for the same cold file at once.
const CROWD: usize = 50;

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(10);

/// A cache that listens, and where it has the vendor's files.
struct Cache {
    name: &'static str,
    daemon: Daemon,
    base: String,
}

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
    let (vendor, at) = vendor(&ground)?;
    let caches = caches(&ground, at)?;
    let tables = vec![
        hits(scale, &caches, "large", large, |cache| vec![cache.url("large_1_all.deb")])?,
        hits(scale, &caches, "2,000 small", small, |cache| {
            (0..FILES).map(|number| cache.url(&format!("small_{number}_all.deb"))).collect()
        })?,
        cold(scale, &ground, &caches, at, 1)?,
        cold(scale, &ground, &caches, at, CROWD)?,
    ];
    drop(vendor);
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

/// Compares how fast a file that nobody has yet comes to `clients` clients.
fn cold(
    scale: &Scale,
    ground: &Ground,
    caches: &[Cache],
    vendor: SocketAddr,
    clients: usize,
) -> anyhow::Result<Table> {
    let number = Cell::new(0);
    // A new name each time: hard links, so that the vendor has it in memory.
    let fresh = || -> anyhow::Result<String> {
        number.set(number.get() + 1);
        let name = format!("cold-{clients}-{}_1_all.deb", number.get());
        let first = ground.path("vendor/pool/cold_1_all.deb");
        if !first.exists() {
            ground.file("vendor/pool/cold_1_all.deb", COLD_BYTES)?;
        }
        fs::hard_link(first, ground.path(&format!("vendor/pool/{name}")))?;
        Ok(name)
    };
    let bytes = COLD_BYTES * clients as u64;
    let mut contestants = Vec::new();
    for cache in caches {
        contestants.push(Contestant::new(cache.name, bytes, || {
            let url = cache.url(&fresh()?);
            let mut curls: Vec<Command> = (0..clients).map(|_| curl()).collect();
            for curl in &mut curls {
                curl.args(["--output", "/dev/null", &url]);
            }
            cache.daemon.sample(|| finish_all(&mut curls))
        }));
    }
    contestants.push(Contestant::new("vendor itself", bytes, || {
        let url = format!("http://{vendor}/pool/{}", fresh()?);
        let mut curls: Vec<Command> = (0..clients).map(|_| curl()).collect();
        for curl in &mut curls {
            curl.args(["--output", "/dev/null", &url]);
        }
        Ok(Sample::from(finish_all(&mut curls)?))
    }));
    let title =
        format!("proxy cold: {} MiB to {clients} clients, {}", COLD_BYTES >> 20, scale.place());
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.compare("sutler", "nginx proxy_cache", "as fast");
    table.compare("sutler", "vendor itself", "at least 0.95 x of a line that is slower than this");
    Ok(table)
}

/// Starts the vendor: plain HTTP, as fast as it goes.
fn vendor(ground: &Ground) -> anyhow::Result<(Daemon, SocketAddr)> {
    let root = ground.path("vendor");
    let at = free_port()?;
    let server = format!("root {};", root.display());
    Ok((nginx(&ground.folder("vendor-nginx")?, at, "", &server)?, at))
}

fn caches(ground: &Ground, vendor: SocketAddr) -> anyhow::Result<Vec<Cache>> {
    let mut caches = vec![sutler(ground, vendor)?, nginx_cache(ground, vendor)?];
    match apt_cacher_ng(ground, vendor) {
        Ok(cache) => caches.push(cache),
        Err(error) => eprintln!("without apt-cacher-ng: {error:#}"),
    }
    Ok(caches)
}

fn sutler(ground: &Ground, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let data = node_data(ground, "proxy", Mtu::Discovered)?;
    let config = format!(
        "store.scrub_bytes_per_second = 0\norigin.proxy = 'none'\n[http_proxy]\n\
         listen = '127.0.0.1:0'\napt_sources = false\n\
         allow = [{{ url = 'http://{vendor}', private = true }}]\n"
    );
    fs::write(data.join("sutler.toml"), config)?;
    let mut node = Program::find()?.command("node", &data);
    let (daemon, proxy) = Daemon::saying(node.args(["--listen", "127.0.0.1:0"]), "proxy http://")?;
    Ok(Cache { name: "sutler", daemon, base: format!("http://{proxy}/{vendor}") })
}

fn nginx_cache(ground: &Ground, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let dir = ground.folder("cache-nginx")?;
    let at = free_port()?;
    let zone = format!(
        "proxy_cache_path {}/cache levels=1:2 keys_zone=all:10m max_size=100g inactive=1d \
         use_temp_path=off;",
        dir.display()
    );
    let server = format!(
        "location / {{ proxy_pass http://{vendor}; proxy_cache all; proxy_cache_valid 200 1d; \
         proxy_cache_lock on; proxy_http_version 1.1; proxy_set_header Connection ''; }}"
    );
    let daemon = nginx(&dir, at, &zone, &server)?;
    Ok(Cache { name: "nginx proxy_cache", daemon, base: format!("http://{at}") })
}

fn apt_cacher_ng(ground: &Ground, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let dir = ground.folder("apt-cacher-ng")?;
    for folder in ["config", "cache", "log"] {
        fs::create_dir(dir.join(folder))?;
    }
    let at = free_port()?;
    let config = format!(
        "CacheDir: {0}/cache\nLogDir: {0}/log\nSocketPath: {0}/socket\nPidFile: {0}/pid\n\
         BindAddress: 127.0.0.1\nPort: {1}\nForeGround: 1\nAllowUserPorts: 0\nOfflinemode: 0\n",
        dir.display(),
        at.port()
    );
    fs::write(dir.join("config/acng.conf"), config)?;
    let mut command = Command::new("apt-cacher-ng");
    command.arg("-c").arg(dir.join("config")).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = Daemon::start(&mut command).context("apt-get install apt-cacher-ng")?;
    listens(at, "apt-cacher-ng")?;
    Ok(Cache { name: "apt-cacher-ng", daemon, base: format!("http://{at}/{vendor}") })
}

/// Starts nginx with what is set outside and inside of its one server.
fn nginx(dir: &Path, at: SocketAddr, outside: &str, server: &str) -> anyhow::Result<Daemon> {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; {user} worker_processes auto; pid {0}/nginx.pid;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 100000; {outside}
            client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
            fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
            server {{ listen {at}; {server} }}
        }}
        ",
        dir.display()
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(dir.join("error.log")).arg("-c").arg(&path);
    let daemon = Daemon::start(command.stdout(Stdio::null())).context("apt-get install nginx")?;
    listens(at, "nginx")?;
    Ok(daemon)
}

/// Returns a port that nobody asks for just now, for a server that takes no socket from others.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn listens(at: SocketAddr, who: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(at).is_err() {
        ensure!(started.elapsed() < START_MAX, "{who} does not listen");
        std::thread::sleep(START_LOOK);
    }
    Ok(())
}

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
    curl
}

impl Cache {
    fn url(&self, name: &str) -> String {
        format!("{}/pool/{name}", self.base)
    }
}

//! The vendor, and the caches that stand before it, each as its makers would have it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ground::Ground;
use crate::line::{self, Line};
use crate::process::Daemon;
use crate::program::{Program, node_data};
use crate::scale::Mtu;

/// Where servers listen: apt-cacher-ng neither listens at a port from 32,768 on, where those begin that the system
/// gives, nor fetches from one.
const LOW_PORTS: Range<u16> = 20_000..32_768;

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(10);

/// A cache that listens, and where it has the vendor's files.
pub(super) struct Cache {
    pub(super) name: &'static str,
    pub(super) daemon: Daemon,
    base: String,
}

/// A vendor that counts what it sends.
pub(super) struct Vendor {
    pub(super) at: SocketAddr,
    log: PathBuf,
    _daemon: Daemon,
}

impl Vendor {
    /// Starts one: plain HTTP, as fast as it goes.
    pub(super) fn start(ground: &Ground) -> anyhow::Result<Self> {
        Self::with(ground, "vendor-nginx", free_port()?, Command::new("nginx"))
    }

    /// Starts one at the far end of a line.
    pub(super) fn behind(line: &Line, ground: &Ground) -> anyhow::Result<Self> {
        let at = SocketAddr::new(line::FAR.into(), free_port()?.port());
        Self::with(ground, "vendor-nginx-far", at, line.command("nginx"))
    }

    fn with(ground: &Ground, name: &str, at: SocketAddr, nginx: Command) -> anyhow::Result<Self> {
        let dir = ground.folder(name)?;
        let log = dir.join("access.log");
        let outside = "log_format sent '$uri $body_bytes_sent';";
        let server =
            format!("root {}; access_log {} sent;", ground.path("vendor").display(), log.display());
        let daemon = start_nginx(nginx, &dir, at, outside, &server)?;
        Ok(Self { at, log, _daemon: daemon })
    }

    /// Returns the bytes of files, whose names have this part, that it has sent.
    pub(super) fn sent(&self, part: &str) -> anyhow::Result<u64> {
        let log = fs::read_to_string(&self.log)?;
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        let of_it = lines.filter(|(uri, _)| uri.contains(part));
        Ok(of_it.flat_map(|(_, sent)| sent.parse::<u64>()).sum())
    }

    /// Returns where a file of it is, without a cache.
    pub(super) fn url(&self, name: &str) -> String {
        format!("http://{}/pool/{name}", self.at)
    }
}

/// Starts every cache there is, before the vendor. `place` tells their folders from those of others.
pub(super) fn all(ground: &Ground, place: &str, vendor: SocketAddr) -> anyhow::Result<Vec<Cache>> {
    let mut caches = vec![sutler(ground, place, vendor)?, nginx_cache(ground, place, vendor)?];
    match apt_cacher_ng(ground, place, vendor) {
        Ok(cache) => caches.push(cache),
        Err(error) => eprintln!("without apt-cacher-ng: {error:#}"),
    }
    Ok(caches)
}

fn sutler(ground: &Ground, place: &str, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let data = node_data(ground, &format!("sutler-{place}"), Mtu::Discovered)?;
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

fn nginx_cache(ground: &Ground, place: &str, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let dir = ground.folder(&format!("nginx-{place}"))?;
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
    let daemon = start_nginx(Command::new("nginx"), &dir, at, &zone, &server)?;
    Ok(Cache { name: "nginx proxy_cache", daemon, base: format!("http://{at}") })
}

fn apt_cacher_ng(ground: &Ground, place: &str, vendor: SocketAddr) -> anyhow::Result<Cache> {
    let dir = ground.folder(&format!("apt-cacher-ng-{place}"))?;
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
fn start_nginx(
    mut command: Command,
    dir: &Path,
    at: SocketAddr,
    outside: &str,
    server: &str,
) -> anyhow::Result<Daemon> {
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
    command.arg("-e").arg(dir.join("error.log")).arg("-c").arg(&path);
    let daemon = Daemon::start(command.stdout(Stdio::null())).context("apt-get install nginx")?;
    listens(at, "nginx")?;
    Ok(daemon)
}

/// Returns a port that nobody asks for just now, for a server that takes no socket from others.
fn free_port() -> anyhow::Result<SocketAddr> {
    let mut ports = LOW_PORTS;
    let bound = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    Ok(bound.context("every port is in use")?.local_addr()?)
}

fn listens(at: SocketAddr, who: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(at).is_err() {
        ensure!(started.elapsed() < START_MAX, "{who} does not listen");
        std::thread::sleep(START_LOOK);
    }
    Ok(())
}

/// Returns a `curl` that fails where a page says so, and asks no proxy.
pub(super) fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
    curl
}

impl Cache {
    /// Returns where it has a file of the vendor's.
    pub(super) fn url(&self, name: &str) -> String {
        format!("{}/pool/{name}", self.base)
    }
}

//! What users would pick instead: nginx with TLS 1.3, and curl.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ground::Ground;
use crate::process::{Daemon, Finished, finish, finish_all};
use crate::scale::Scale;
use crate::table::Sample;

/// How long nginx may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(10);

/// A web server for the files of one folder.
pub(crate) struct Nginx {
    daemon: Daemon,
    port: u16,
    certificate: PathBuf,
}

impl Nginx {
    /// Starts nginx on loopback for the files in `root`, with as many workers as there are cores.
    pub(crate) fn start(ground: &Ground, root: &Path) -> anyhow::Result<Self> {
        let dir = ground.path("nginx");
        std::fs::create_dir(&dir)?;
        let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        certify(&certificate, &key)?;
        // Freed for nginx, which takes no socket from others; nobody else asks for this port now.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(&dir, root, port))?;
        let mut command = Command::new("nginx");
        command.arg("-e").arg(dir.join("error.log")).arg("-c").arg(&config);
        let daemon =
            Daemon::start(command.stdout(Stdio::null())).context("apt-get install nginx")?;
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(started.elapsed() < START_MAX, "nginx does not listen");
            std::thread::sleep(START_LOOK);
        }
        Ok(Self { daemon, port, certificate })
    }

    /// Returns where a file of the folder is to be had.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://localhost:{}/{name}", self.port)
    }

    /// Returns a curl that believes the certificate.
    pub(crate) fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--tlsv1.3", "--ipv4", "--cacert"]);
        curl.arg(&self.certificate);
        curl
    }

    /// Downloads a file to `out`, has it verified by `b3sum` and, on a disk, synced: what `sutler
    /// fetch` promises.
    pub(crate) fn download(&self, scale: &Scale, name: &str, out: &Path) -> anyhow::Result<Sample> {
        let sample = self.daemon.sample(|| {
            let mut done = finish(self.curl().arg("--output").arg(out).arg(self.url(name)))?;
            if scale.disk().is_some() {
                done = done.then(finish(Command::new("sync").arg(out))?);
            }
            Ok(done.then(finish(Command::new("b3sum").arg(out))?))
        })?;
        std::fs::remove_file(out)?;
        Ok(sample)
    }

    /// Has `clients` curls download a file at the same time and discard it.
    pub(crate) fn crowd(&self, name: &str, clients: usize) -> anyhow::Result<Sample> {
        let mut curls: Vec<Command> = (0..clients).map(|_| self.curl()).collect();
        for curl in &mut curls {
            curl.args(["--output", "/dev/null", &self.url(name)]);
        }
        self.daemon.sample(|| finish_all(&mut curls))
    }

    /// Runs clients of this server and says what both took.
    pub(crate) fn sample(
        &self,
        run: impl FnOnce() -> anyhow::Result<Finished>,
    ) -> anyhow::Result<Sample> {
        self.daemon.sample(run)
    }
}

fn certify(certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "7", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .stderr(Stdio::null());
    finish(&mut openssl).context("apt-get install openssl")?;
    Ok(())
}

fn configuration(dir: &Path, root: &Path, port: u16) -> String {
    let (dir, root) = (dir.display(), root.display());
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "daemon off; {user} worker_processes auto; pid {dir}/nginx.pid;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 100000;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
            fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            server {{
                listen 127.0.0.1:{port} ssl; root {root};
                ssl_certificate {dir}/certificate.pem; ssl_certificate_key {dir}/key.pem;
                ssl_protocols TLSv1.3;
            }}
        }}
        "
    )
}

//! Those who must not get in, at the door of a running node; and a false node at an agent's door.
//!
//! The certificates themselves are forged in every way in the tests of `sutler-swarm`. Here the real
//! programs meet the ones that an attacker could simply come by.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use sutler_swarm::identity::{
    ALPN, Authority, HandshakeRefusal, Member, RefusalCause, Role, SERVER_NAME, Validity,
    handshake_refusal,
};

/// The exit code of `sutler --help` for whatever a certificate or a rule forbids.
const REFUSED: i32 = 4;

const MONTH: Duration = Duration::from_hours(30 * 24);

/// Organisations, members and stores of one test, in a folder that goes when it does.
struct World {
    folder: tempfile::TempDir,
}

/// A running `sutler node`, killed when dropped.
struct Node {
    process: Child,
    address: SocketAddr,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the authority of `organisation` in the folder `name`.
    fn authority(&self, name: &str, organisation: &str) -> Authority {
        let organisation = organisation.parse().expect("a name");
        Authority::create(&self.path(name), organisation).expect("an authority")
    }

    /// Issues an identity to whoever keeps their store in `data`.
    fn issue(&self, authority: &Authority, role: Role, data: &str, validity: Validity) {
        let (site, id) = ("leeds".parse().expect("a site"), data.parse().expect("an id"));
        let member = match role {
            Role::Node => Member::Node { site, id },
            Role::Agent => Member::Agent { site, id },
            Role::Control => Member::Control { id },
        };
        let out = self.path(data).join("identity");
        authority.issue(member, validity, &out).expect("an identity");
    }

    /// Runs `sutler` in this folder until it ends.
    fn sutler(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(sutler_tests::sutler());
        command.args(arguments).current_dir(&self.folder);
        command.output().expect("the program runs")
    }

    /// Adds a file of some bytes to the store in `data`, and returns its content id.
    fn add(&self, data: &str) -> String {
        fs::write(self.path("patch.bin"), vec![7; 200_000]).expect("written");
        let output = self.sutler(&["add", "--data", data, "patch.bin"]);
        let text = printed(&output);
        assert!(output.status.success(), "{text}");
        text.split_whitespace()
            .find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .unwrap_or_else(|| panic!("no content id in {text}"))
            .to_owned()
    }

    /// Starts `sutler node` on the store in `data` and waits until it listens.
    fn node(&self, data: &str) -> Node {
        // A file and not a pipe: a pipe that nobody reads would stop the node once it is full.
        let log = self.path("node.log");
        let mut process = Command::new(sutler_tests::sutler())
            .args(["node", "--data", data, "--listen", "127.0.0.1:0", "--log", "trace"])
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("created"))
            .spawn()
            .expect("the program runs");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("read");
        let address = line.trim().strip_prefix("listening ").and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("the node said {line:?}"));
        Node { process, address, stdout, log }
    }

    /// Fetches `content` from `node` into the file `out`, as whoever keeps their store in `data`.
    fn fetch(&self, content: &str, data: &str, node: &Node) -> Output {
        let from = node.address.to_string();
        self.sutler(&["fetch", content, "--data", data, "--from", &from, "--out", "out.bin"])
    }

    /// Checks that a fetch was refused because of a certificate, and that nothing came of it.
    fn was_refused(&self, output: &Output) -> String {
        let text = printed(output);
        assert_eq!(output.status.code(), Some(REFUSED), "{text}");
        assert!(text.contains("certificate"), "{text}");
        assert!(!self.path("out.bin").exists(), "{text}");
        text
    }
}

impl Node {
    /// Ends the node and returns all that it printed.
    fn end(mut self) -> String {
        self.process.kill().expect("killed");
        let mut text = fs::read_to_string(&self.log).expect("text");
        self.stdout.read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended: nothing is left to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// All that a command printed.
fn printed(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).expect("text")
}

#[test]
fn a_member_is_served() {
    let world = World::new();
    let acme = world.authority("ca", "acme");
    world.issue(&acme, Role::Node, "node", Validity::from_now(MONTH));
    world.issue(&acme, Role::Agent, "agent", Validity::from_now(MONTH));
    let content = world.add("node");
    let node = world.node("node");
    let output = world.fetch(&content, "agent", &node);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(fs::read(world.path("out.bin")).expect("a file"), vec![7; 200_000]);
}

#[test]
fn an_agent_and_a_node_of_two_organisations_have_nothing_to_do_with_each_other() {
    let world = World::new();
    world.issue(&world.authority("ca", "acme"), Role::Node, "node", Validity::from_now(MONTH));
    let content = world.add("node");
    let node = world.node("node");
    // The second has the first one's name, and is another all the same.
    for organisation in ["other", "acme"] {
        let data = format!("agent-{organisation}");
        let authority = world.authority(&format!("ca-{organisation}"), organisation);
        world.issue(&authority, Role::Agent, &data, Validity::from_now(MONTH));
        world.was_refused(&world.fetch(&content, &data, &node));
    }
}

#[test]
fn an_agent_without_an_identity_is_told_how_to_come_by_one() {
    let world = World::new();
    world.issue(&world.authority("ca", "acme"), Role::Node, "node", Validity::from_now(MONTH));
    let content = world.add("node");
    let node = world.node("node");
    let output = world.fetch(&content, "nobody", &node);
    let text = printed(&output);
    assert!(!output.status.success() && text.contains("sutler org issue"), "{text}");
    assert!(!world.path("out.bin").exists());
}

#[test]
fn an_expired_identity_is_refused_where_it_lies() {
    let world = World::new();
    let acme = world.authority("ca", "acme");
    world.issue(&acme, Role::Node, "node", Validity::from_now(MONTH));
    let content = world.add("node");
    let node = world.node("node");
    let past = Validity::starting(SystemTime::now() - MONTH * 2, MONTH);
    world.issue(&acme, Role::Agent, "late", past);
    let text = world.was_refused(&world.fetch(&content, "late", &node));
    assert!(text.contains("expired"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_node_whose_key_others_may_read_does_not_start() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    world.issue(&world.authority("ca", "acme"), Role::Node, "node", Validity::from_now(MONTH));
    let key = world.path("node/identity/key.pem");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).expect("changed");
    let output = world.sutler(&["node", "--data", "node", "--listen", "127.0.0.1:0"]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(REFUSED), "{text}");
    assert!(text.contains("key.pem") && text.contains("644"), "{text}");
}

// T23, T19: whoever comes to a running node without a certificate that it accepts learns why, and
// gets nothing, each time.
#[tokio::test]
async fn a_running_node_turns_strangers_away() {
    let world = World::new();
    let acme = world.authority("ca", "acme");
    world.issue(&acme, Role::Node, "node", Validity::from_now(MONTH));
    world.add("node");
    let now = Validity::from_now(MONTH);
    world.issue(&world.authority("other-ca", "other"), Role::Agent, "foreign", now);
    world.issue(&world.authority("same-ca", "acme"), Role::Agent, "namesake", now);
    let past = Validity::starting(SystemTime::now() - MONTH * 2, MONTH);
    world.issue(&acme, Role::Agent, "late", past);

    let node = world.node("node");
    for (who, cause) in [
        (None, RefusalCause::NoCertificate),
        (Some("foreign"), RefusalCause::ForeignAuthority),
        (Some("namesake"), RefusalCause::BadSignature),
        (Some("late"), RefusalCause::Expired),
        // The first once more: nothing that it was given helped it.
        (None, RefusalCause::NoCertificate),
    ] {
        let shown = who.map(|who| world.path(who).join("identity"));
        let refusal = knock(node.address, shown.as_deref()).await;
        assert_eq!(refusal, Some(HandshakeRefusal::ByPeer(cause)), "{who:?}");
    }

    // T28: the log of all that, as chatty as it gets, has none of the node's key in it.
    let log = node.end();
    let key = fs::read_to_string(world.path("node/identity/key.pem")).expect("a key");
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!log.contains(line), "the node's key was logged");
    }
}

/// Connects to a node as an attacker that believes anything, asks for a stream, and returns how it
/// was turned away.
async fn knock(address: SocketAddr, identity: Option<&Path>) -> Option<HandshakeRefusal> {
    let builder = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some(dir) => {
            let chain = CertificateDer::from_pem_file(dir.join("chain.pem")).expect("a chain");
            let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("a key");
            builder.with_client_auth_cert(vec![chain], key).expect("they match")
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    let config = QuicClientConfig::try_from(tls).expect("a cipher for QUIC");
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("an endpoint");
    let connecting = client
        .connect_with(quinn::ClientConfig::new(Arc::new(config)), address, SERVER_NAME)
        .expect("a connection begins");
    let error = match connecting.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    handshake_refusal(&error)
}

// T23: the QUIC port is the only way in; what else could listen is off until somebody asks for it.
#[cfg(target_os = "linux")]
#[test]
fn a_node_listens_on_no_tcp_port_by_default() {
    let world = World::new();
    world.issue(&world.authority("ca", "acme"), Role::Node, "node", Validity::from_now(MONTH));
    let node = world.node("node");
    let folder = format!("/proc/{}/fd", node.process.id());
    let sockets: Vec<String> = fs::read_dir(folder)
        .expect("the node runs")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "the node has its QUIC socket at least");
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A kernel without IPv6 has no second table, and no such sockets.
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let inode = line.split_whitespace().nth(9).expect("a column of inodes");
            assert!(!sockets.iter().any(|socket| socket == inode), "{table}: {line}");
        }
    }
}

/// An attacker's verifier, which is happy with anything.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

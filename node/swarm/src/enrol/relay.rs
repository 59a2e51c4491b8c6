//! A node's door to control's enrolment port, for devices that cannot reach control themselves.
//!
//! Datagrams go to and fro as they are: the joiner's TLS ends at control, so that the node sees no
//! secret, can change nothing, and is trusted with nothing but passing on. To control all joiners of
//! a relay come from the relay's address.
//!
//! Bounds: [`FLOWS_MAX`] joiners at a time, each with one socket and one buffer, forgotten after
//! [`QUIET_MAX`]. Nothing is sent to an address but what control answered to it, and control sends an
//! address that did not show itself less than came from it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Joiners that are passed on at a time.
pub const FLOWS_MAX: usize = 256;

/// Of these, how many may come from one address, which may be a whole network behind it.
pub const FLOWS_OF_ONE_ADDRESS_MAX: usize = 64;

/// How long a joiner that says nothing keeps its place.
pub const QUIET_MAX: Duration = Duration::from_secs(30);

/// Bytes of a datagram, at most: what Ethernet carries.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// Datagrams from joiners that wait for their turn; more are dropped, as any line would.
const WAITING_MAX: usize = 32;

/// A relay's socket, which passes nothing on yet.
pub struct JoinRelay {
    socket: Arc<UdpSocket>,
    control: String,
}

/// A joiner's way to control.
struct Flow {
    to_control: tokio::sync::mpsc::Sender<Vec<u8>>,
}

impl JoinRelay {
    /// Binds the UDP port `address`; what comes there is passed on to `control`, a `host:port`, which is
    /// looked up for each joiner. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bind(address: SocketAddr, control: String) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Arc::new(UdpSocket::from_std(socket)?), control })
    }

    /// Returns the address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Passes datagrams on until `shutdown`.
    ///
    /// Cancel-safe: a joiner whose datagram is lost sends it again.
    ///
    /// # Errors
    ///
    /// The socket is of no use any more.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let mut tasks = JoinSet::new(); // Owns every flow: none outlives this function.
        let mut flows = BTreeMap::<SocketAddr, Flow>::new();
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX + 1];
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // Cancel-safe: a finished task is taken out only when it is returned.
                Some(ended) = tasks.join_next() => {
                    if let Ok(joiner) = ended {
                        flows.remove(&joiner);
                    }
                }
                // Cancel-safe: a datagram is taken only when it is returned.
                came = self.socket.recv_from(&mut datagram) => {
                    let (len, joiner) = match came {
                        Ok(came) => came,
                        // An earlier datagram found nobody; that is no reason to stop.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                        Err(error) => return Err(error),
                    };
                    if len > DATAGRAM_BYTES_MAX {
                        continue;
                    }
                    if !flows.contains_key(&joiner) {
                        if !has_room(&flows, joiner.ip()) {
                            debug!(%joiner, "refused: enough joiners");
                            continue;
                        }
                        let (to_control, datagrams) = tokio::sync::mpsc::channel(WAITING_MAX);
                        let (socket, control) = (Arc::clone(&self.socket), self.control.clone());
                        tasks.spawn(async move {
                            if let Err(error) = pass_on(&socket, joiner, &control, datagrams).await {
                                info!(%joiner, control, %error, "a joiner cannot be passed on");
                            }
                            joiner
                        });
                        flows.insert(joiner, Flow { to_control });
                    }
                    if let Some(flow) = flows.get(&joiner) {
                        // Full: dropped, as any line would.
                        drop(flow.to_control.try_send(datagram[..len].to_vec()));
                    }
                }
            }
        }
    }
}

fn has_room(flows: &BTreeMap<SocketAddr, Flow>, address: IpAddr) -> bool {
    let from = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
    flows.len() < FLOWS_MAX && flows.range(from).count() < FLOWS_OF_ONE_ADDRESS_MAX
}

/// Passes one joiner's datagrams on, and the answers back, until both are quiet.
async fn pass_on(
    joiners: &UdpSocket,
    joiner: SocketAddr,
    control: &str,
    mut datagrams: tokio::sync::mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let control = tokio::net::lookup_host(control).await?.next().ok_or_else(unknown)?;
    let any: IpAddr = match control {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, so that only control's answers come in.
    socket.connect(control).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX + 1];
    let mut quiet_at = Instant::now() + QUIET_MAX;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(quiet_at) => return Ok(()),
            // Cancel-safe: a datagram is taken only when it is returned.
            datagram = datagrams.recv() => {
                let Some(datagram) = datagram else { return Ok(()) };
                socket.send(&datagram).await?;
            }
            // Cancel-safe, as above.
            len = socket.recv(&mut answer) => {
                let len = len?;
                if len <= DATAGRAM_BYTES_MAX {
                    joiners.send_to(&answer[..len], joiner).await?;
                }
            }
        }
        quiet_at = Instant::now() + QUIET_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow { to_control: tokio::sync::mpsc::channel(1).0 }
    }

    #[test]
    fn one_address_does_not_fill_the_relay() {
        let address = |last, port| SocketAddr::from(([192, 0, 2, last], port));
        let mut flows = BTreeMap::new();
        for port in 1..=FLOWS_OF_ONE_ADDRESS_MAX as u16 {
            assert!(has_room(&flows, address(1, port).ip()));
            flows.insert(address(1, port), flow());
        }
        assert!(!has_room(&flows, address(1, 0).ip()));
        assert!(has_room(&flows, address(2, 0).ip()));
        for place in 0..=FLOWS_MAX as u16 {
            flows.insert(address((place / 50) as u8 + 2, 1 + place), flow());
        }
        assert!(!has_room(&flows, address(99, 0).ip()));
    }
}

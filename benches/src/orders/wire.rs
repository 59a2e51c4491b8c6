//! A line that counts: datagrams go to and fro as they are, and are added up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of IPv4 and UDP before each datagram's own.
const HEADER_BYTES: u64 = 28;

/// Longer than any datagram.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// How long nothing may have come until nothing more does: a late acknowledgement takes 25 ms.
const QUIET: Duration = Duration::from_millis(100);

/// How often a line looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A line from one client to one server, until it is dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    counted: Arc<Counted>,
    threads: Vec<JoinHandle<()>>,
}

/// Bytes and datagrams in both directions together, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Traffic {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Datagrams.
    pub(crate) datagrams: u64,
}

#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    datagrams: AtomicU64,
    over: AtomicBool,
}

impl Wire {
    /// Returns a line to `server`.
    pub(crate) fn to(server: SocketAddr) -> io::Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        far.connect(server)?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(LOOK_EVERY))?;
        }
        let (address, counted) = (near.local_addr()?, Arc::new(Counted::default()));
        let client = Arc::new(OnceLock::new());
        let forth = {
            let (near, far, client) = (near.clone(), far.clone(), client.clone());
            pass_on(counted.clone(), move |datagram| {
                let (len, from) = near.recv_from(datagram)?;
                client.get_or_init(|| from);
                far.send(&datagram[..len]).map(|_| len)
            })
        };
        let back = pass_on(counted.clone(), move |datagram| {
            let len = far.recv(datagram)?;
            let to = client.get().ok_or(io::ErrorKind::NotConnected)?;
            near.send_to(&datagram[..len], to).map(|_| len)
        });
        Ok(Self { address, counted, threads: vec![forth, back] })
    }

    /// Returns where to connect to instead of to the server.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until nothing comes any more, and returns what has come since the start.
    pub(crate) fn settled(&self) -> Traffic {
        let mut before = self.counted.now();
        loop {
            thread::sleep(QUIET);
            let now = self.counted.now();
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

impl Traffic {
    /// Returns what has come since `earlier`.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self { bytes: self.bytes - earlier.bytes, datagrams: self.datagrams - earlier.datagrams }
    }
}

impl Counted {
    fn now(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            datagrams: self.datagrams.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.counted.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only passes on.
            drop(thread.join());
        }
    }
}

/// Passes one direction's datagrams on until the line is over. What cannot be passed on is lost, as on any
/// line.
fn pass_on(
    counted: Arc<Counted>,
    next: impl Fn(&mut [u8]) -> io::Result<usize> + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !counted.over.load(Ordering::Relaxed) {
            if let Ok(len) = next(&mut datagram) {
                counted.bytes.fetch_add(len as u64 + HEADER_BYTES, Ordering::Relaxed);
                counted.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_both_directions_with_their_headers() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Wire::to(server.local_addr().unwrap()).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.send_to(&[1; 100], wire.address()).unwrap();
        let mut datagram = [0; 1_000];
        let (len, line) = server.recv_from(&mut datagram).unwrap();
        server.send_to(&[2; 50], line).unwrap();
        assert_eq!((len, client.recv(&mut datagram).unwrap()), (100, 50));
        assert_eq!(wire.settled(), Traffic { bytes: 100 + 50 + 2 * 28, datagrams: 2 });
    }
}

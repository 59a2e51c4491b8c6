//! A relay of datagrams between a client and a server: what a network does to them is done here.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::machines::v4;

/// What the relay does to the line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// After this many datagrams of the client they come from another address, as behind a router
    /// that forgot who it was.
    MovesAfter(u32),
    /// What is sent arrives, both ways.
    Whole,
    /// Nothing that the server says gets through.
    OneWay,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    _task: JoinSet<()>,
}

impl Relay {
    pub(super) async fn start(server: SocketAddr, line: Line) -> Self {
        let front = UdpSocket::bind(v4()).await.unwrap();
        let address = front.local_addr().unwrap();
        let mut task = JoinSet::new();
        let (to, server) = watch::channel(server);
        task.spawn(run(front, server, line));
        Self { address, to, _task: task }
    }

    /// Has another server answer from now on, as when a machine is started anew.
    pub(super) fn lead_to(&self, server: SocketAddr) {
        self.to.send_replace(server);
    }
}

async fn run(front: UdpSocket, mut server: watch::Receiver<SocketAddr>, line: Line) {
    let mut back = socket_to(&mut server).await;
    let mut client = None;
    let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
    let mut sent = 0;
    loop {
        // Cancel-safe, both: a datagram is taken only when it is returned.
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                sent += 1;
                if line == Line::MovesAfter(sent) || server.has_changed().unwrap_or(false) {
                    back = socket_to(&mut server).await;
                }
                // Datagrams may be lost; QUIC minds.
                let _ = back.send(&there[..len]).await;
            }
            Ok(len) = back.recv(&mut here) => {
                if let Some(client) = client.filter(|_| line != Line::OneWay) {
                    let _ = front.send_to(&here[..len], client).await;
                }
            }
        }
    }
}

async fn socket_to(server: &mut watch::Receiver<SocketAddr>) -> UdpSocket {
    let server = *server.borrow_and_update();
    let socket = UdpSocket::bind(v4()).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

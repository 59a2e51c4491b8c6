//! Asks the system whether anything listens at a UDP address.
//!
//! A machine that is up refuses a datagram to a port where nobody listens (ICMP, port unreachable).
//! QUIC's socket talks to many and is not told; one that is connected to a single address is. So a
//! process that was killed is known of at once, and not only by its silence.
//!
//! Anybody on the way can refuse in a machine's name. That is believed only of one that says nothing
//! itself, and costs no more than it could by dropping packets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

/// The silence after which it is worth asking: a living machine has mostly answered by then.
pub(crate) const WORTH_AFTER: Duration = Duration::from_millis(200);

/// How long a refusal may take to come; the next question follows after it.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);

/// Waits until datagrams to `address` have been refused for at least `lasting`: who starts anew is
/// away for a moment. For ever where nothing is refused, or the system does not tell.
///
/// Cancel-safe: nothing is kept.
pub(crate) async fn refused(address: SocketAddr, lasting: Duration) {
    if let Ok(socket) = socket_to(address).await {
        let mut since = None;
        loop {
            if is_refused(&socket).await {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= lasting {
                    return;
                }
                // A refusal comes at once, and the next one would too.
                sleep(ANSWER_WITHIN).await;
            }
        }
    }
    std::future::pending::<()>().await;
}

async fn socket_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let any: SocketAddr = any;
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Sends a datagram without anything in it, which no living QUIC machine answers, and returns
/// whether it was refused.
async fn is_refused(socket: &UdpSocket) -> bool {
    let asked = async {
        socket.send(&[]).await?;
        socket.recv(&mut [0]).await
    };
    // An answer means that somebody is there, though no machine of ours.
    let answer = timeout(ANSWER_WITHIN, asked).await;
    matches!(answer, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_refused() {
        let nobody = UdpSocket::bind(anywhere()).await.unwrap().local_addr().unwrap();
        refused(nobody, Duration::ZERO).await;
        refused(nobody, Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn who_listens_and_says_nothing_is_not_refused() {
        let somebody = UdpSocket::bind(anywhere()).await.unwrap();
        let socket = socket_to(somebody.local_addr().unwrap()).await.unwrap();
        assert!(!is_refused(&socket).await);
        assert_eq!(somebody.recv(&mut [0]).await.unwrap(), 0);
    }
}

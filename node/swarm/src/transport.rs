//! How QUIC is set up, and the figures behind each default.
//!
//! Everything can be set in the `[transport]` part of a configuration; the defaults are what was
//! fastest on loopback without giving up a bound (`benches/README.md` has the runs).

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, VarInt};
use serde::{Deserialize, Serialize};
use sutler_protocol::frame::{FRAME_BYTES_MAX, LENGTH_BYTES};

/// The largest datagram that path MTU discovery may settle on: 10 of them, which is what quinn
/// hands to one system call, must stay below 64 KiB or segmentation offload breaks.
pub const MTU_MAX: u16 = 6_550;

/// Settings of the QUIC transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// Bytes of UDP payload in the first datagrams. 1,200 gets through every path that QUIC can
    /// use; a site that knows better saves the discovery's first round trips.
    pub mtu_initial: u16,
    /// Bytes of UDP payload that discovery may go up to, at most 6,550. `mtu_initial` or less
    /// turns discovery off. Jumbo frames and loopback double the rate.
    pub mtu_max: u16,
    /// Bytes of one stream that may be on their way unread.
    pub stream_window_bytes: u32,
    /// Bytes of one connection that may be on their way unread, while clients are few. They share
    /// [`Self::windows_bytes_max`] when there are many.
    pub connection_window_bytes: u32,
    /// Bytes in flight or buffered to send, over all connections of one endpoint.
    pub windows_bytes_max: u64,
    /// Bytes of the UDP socket's buffers, each way, as far as the kernel allows.
    pub socket_buffer_bytes: usize,
    /// Seconds without a packet after which a connection is given up.
    pub idle_timeout_s: u32,
    /// Milliseconds after which a handshake is given up: blocked UDP is to be said within 3 s, and
    /// a command needs some of them to start and to end.
    pub handshake_timeout_ms: u32,
    /// Whether the kernel may cut one large send into datagrams (GSO). Off costs four times the
    /// processor time; some network drivers need it off.
    pub enable_segmentation_offload: bool,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            mtu_initial: 1_200,
            mtu_max: 6_500,
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
            windows_bytes_max: 32 << 20,
            socket_buffer_bytes: 4 << 20,
            idle_timeout_s: 30,
            handshake_timeout_ms: 2_400,
            enable_segmentation_offload: true,
        }
    }
}

/// The send and receive windows of one connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Bytes buffered to send and not yet acknowledged.
    pub send_bytes: u64,
    /// Bytes the other side may send ahead of our reading.
    pub receive_bytes: u32,
}

impl TransportConfig {
    /// Returns everything that is wrong with the settings, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.mtu_max > MTU_MAX {
            problems.push(format!("mtu_max is at most {MTU_MAX}, not {}", self.mtu_max));
        }
        if !(1_200..=MTU_MAX).contains(&self.mtu_initial) {
            let found = self.mtu_initial;
            problems.push(format!("mtu_initial is from 1200 to {MTU_MAX}, not {found}"));
        }
        let windows = [
            ("stream_window_bytes", u64::from(self.stream_window_bytes)),
            ("connection_window_bytes", u64::from(self.connection_window_bytes)),
            ("windows_bytes_max", self.windows_bytes_max),
        ];
        for (name, bytes) in windows {
            if bytes < WINDOW_BYTES_MIN {
                problems.push(format!("{name} is at least {WINDOW_BYTES_MIN}, not {bytes}"));
            }
        }
        if self.idle_timeout_s == 0 || self.handshake_timeout_ms < 1_000 {
            problems.push("a time-out is at least 1 second".to_owned());
        }
        problems
    }

    /// Returns the windows of each of `connections`: they share a fixed sum, because windows sized
    /// for one client cost 9.5 MB a connection and a quarter of the rate at 200 clients.
    pub fn windows(&self, connections: usize) -> Windows {
        let share = self.windows_bytes_max / (connections.max(1) as u64);
        let most = u64::from(self.connection_window_bytes);
        let bytes = share.clamp(WINDOW_BYTES_MIN, most.max(WINDOW_BYTES_MIN));
        Windows { send_bytes: bytes, receive_bytes: bytes as u32 }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms.into())
    }

    /// Returns quinn's form of the settings of a socket.
    ///
    /// It tells the other side how far its path MTU discovery may go. quinn's own bound of 1,472
    /// would end it there, at half the rate that loopback and jumbo frames can carry.
    pub fn endpoint(&self) -> EndpointConfig {
        let mut endpoint = EndpointConfig::default();
        let payload_max = self.mtu_max.max(self.mtu_initial);
        // Refused below 1,200, where quinn's default stays.
        let _ = endpoint.max_udp_payload_size(payload_max);
        endpoint
    }

    /// Returns quinn's form of the settings for connections that are made from here.
    pub fn quinn(&self) -> Arc<quinn::TransportConfig> {
        Arc::new(self.both_ways())
    }

    /// Returns quinn's form of the settings for connections that are accepted: those bring requests
    /// and nothing else, so what a peer can make this side hold is small.
    pub(crate) fn quinn_accepting(&self) -> Arc<quinn::TransportConfig> {
        let mut quinn = self.both_ways();
        quinn
            .stream_receive_window(VarInt::from_u32(REQUEST_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(REQUESTS_WINDOW_BYTES));
        Arc::new(quinn)
    }

    fn both_ways(&self) -> quinn::TransportConfig {
        let mut quinn = quinn::TransportConfig::default();
        let windows = self.windows(1);
        let idle_ms = self.idle_timeout_s.saturating_mul(1_000);
        quinn
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(windows.receive_bytes))
            .send_window(windows.send_bytes)
            .initial_mtu(self.mtu_initial)
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
            .keep_alive_interval(Some(Duration::from_millis(u64::from(idle_ms) / 3)))
            .congestion_controller_factory(Arc::new(CubicConfig::default()))
            .enable_segmentation_offload(self.enable_segmentation_offload);
        let discovery = (self.mtu_max > self.mtu_initial).then(|| {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(self.mtu_max);
            discovery
        });
        quinn.mtu_discovery_config(discovery);
        quinn
    }

    /// Enlarges the socket's buffers as far as the kernel allows: beyond its limit with privilege,
    /// up to it without. Smaller ones lose packets and cost speed, so a refusal is no error.
    pub fn size_buffers(&self, socket: &UdpSocket) {
        use rustix::net::sockopt;
        let bytes = self.socket_buffer_bytes;
        #[cfg(target_os = "linux")]
        let forced = sockopt::set_socket_recv_buffer_size_force(socket, bytes);
        #[cfg(not(target_os = "linux"))]
        let forced: rustix::io::Result<()> = Err(rustix::io::Errno::NOSYS);
        let receive = forced.or_else(|_| sockopt::set_socket_recv_buffer_size(socket, bytes));
        let send = sockopt::set_socket_send_buffer_size(socket, bytes);
        if let Err(error) = receive.and(send) {
            tracing::debug!(%error, "socket buffers stay at the system's size");
        }
    }
}

/// Requests that a peer may have open on one connection.
pub const STREAMS_MAX: u32 = 64;

/// Bytes of one request that may be on their way unread: the largest frame and its length field.
const REQUEST_WINDOW_BYTES: u32 = (FRAME_BYTES_MAX + LENGTH_BYTES) as u32;

/// Bytes of all requests of one connection that may be on their way unread. [`STREAMS_MAX`] of the
/// largest honest requests, which a URL fills, are half of it.
const REQUESTS_WINDOW_BYTES: u32 = 256 * 1024;

/// The least window that still keeps a gigabit LAN busy at 1 ms.
const WINDOW_BYTES_MIN: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_number_of_clients() {
        let config = TransportConfig::default();
        assert_eq!(config.windows(1).send_bytes, 16 << 20);
        assert_eq!(config.windows(16).send_bytes, 2 << 20);
        assert_eq!(config.windows(200).send_bytes, 256 << 10);
        assert_eq!(config.windows(10_000).send_bytes, 256 << 10);
    }

    #[test]
    fn settings_out_of_bounds_are_all_named() {
        let config = TransportConfig {
            mtu_initial: 500,
            mtu_max: 9_000,
            stream_window_bytes: 1,
            idle_timeout_s: 0,
            ..TransportConfig::default()
        };
        assert_eq!(config.problems().len(), 4);
        assert_eq!(TransportConfig::default().problems(), Vec::<String>::new());
    }
}

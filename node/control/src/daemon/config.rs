//! What an operator may set of control: the `[control]` table of its config file.

use std::net::SocketAddr;

use serde::Deserialize;

/// The `[control]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Address of the repository over HTTP, for any TUF client, and of the doors for submissions and for the bytes that
    /// they name. Absent: it is off.
    pub http: Option<SocketAddr>,
    /// UDP address at which machines join and renew their certificates. Absent: none does.
    pub join: Option<SocketAddr>,
    /// Nodes that are asked at each start whether they know newer orders than this control, as after a restoration, and
    /// for what it lacks of published contents; at most [`SOURCES_MAX`](sutler_swarm::orders::SOURCES_MAX).
    pub sources: Vec<SocketAddr>,
}

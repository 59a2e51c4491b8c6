//! What this machine stands on and when it expires, as far as it knows: its certificate, and the roles of the manifest
//! that it believes. `sutler status` and the metrics show it, and the log says it once a day.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use sutler_protocol::expiry::{
    BY_HAND_DAYS, BY_ITSELF_DAYS, Expiring, HOURLY_DAYS, Reminder, left_days,
};
use sutler_swarm::Endpoint;
use sutler_swarm::enrol::device::control_addresses;
use sutler_swarm::orders::{Board, Manifest};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::orders::Relay;
use crate::status::ExpiryStatus;

/// How often it looks whether there is something to say: what is said once a day is late by no more.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// Knows what expires. Cheap to clone; all clones share what they know.
#[derive(Clone)]
pub(crate) struct Expiries {
    endpoint: Endpoint,
    /// Days before its end at which the certificate is spoken of.
    certificate_days: &'static [i64],
    board: Arc<OnceLock<Board>>,
}

impl Expiries {
    /// Returns what expires of a machine whose identity lies in `identity`, and of the orders that `relay` follows.
    pub(crate) fn new(identity: &Path, endpoint: Endpoint, relay: Option<&Relay>) -> Self {
        // One that was issued by hand says nowhere to renew it.
        let renews = control_addresses(identity).is_ok_and(|addresses| !addresses.is_empty());
        let certificate_days = if renews { BY_ITSELF_DAYS } else { BY_HAND_DAYS };
        let board = relay.map_or_else(OnceLock::new, |relay| OnceLock::from(relay.follows().0));
        Self { endpoint, certificate_days, board: Arc::new(board) }
    }

    /// Heeds the orders of a board from now on, unless it does those of another already.
    pub(crate) fn heed(&self, board: Board) {
        // Once is enough: a machine has one.
        drop(self.board.set(board));
    }

    /// Returns the endpoint of the machine.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns all that expires, and what time it is for the machine.
    pub(crate) fn all(&self) -> (Vec<Expiring>, Timestamp) {
        let certificate = Expiring {
            what: "certificate".to_owned(),
            expires: instant(self.endpoint.identity().shown_ends().as_secs()),
            days: self.certificate_days,
        };
        let manifest = self.board.get().and_then(|board| board.manifest().borrow().clone());
        let roles = manifest.iter().flat_map(|manifest| of_manifest(manifest));
        let all = [certificate].into_iter().chain(roles).collect();
        (all, instant(self.endpoint.clock().now().as_secs()))
    }

    /// Returns it as `sutler status` shows it.
    pub(crate) fn status(&self) -> Vec<ExpiryStatus> {
        let (all, now) = self.all();
        let status = |one: Expiring| ExpiryStatus {
            warning: one.warning(now).as_str(),
            left_days: left_days(one.expires, now),
            expires: one.expires.to_string(),
            what: one.what,
        };
        all.into_iter().map(status).collect()
    }

    /// Says in the log what expires, until `shutdown`.
    ///
    /// Cancel-safe: what was said is said again.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut reminder = Reminder::default();
        loop {
            let (all, now) = self.all();
            for (Expiring { what, expires, .. }, warning) in reminder.due(&all, now) {
                if warning.is_urgent() {
                    error!(role = %what, %expires, %warning, "expires");
                } else {
                    warn!(role = %what, %expires, %warning, "expires");
                }
            }
            tokio::select! {
                // Cancel-safe: a token stays cancelled, and a nap is only a nap.
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn of_manifest(manifest: &Manifest) -> Vec<Expiring> {
    let expiring = |what: &str, expires: sutler_protocol::manifest::Expires, days| Expiring {
        what: what.to_owned(),
        expires: expires.instant(),
        days,
    };
    let roles = &manifest.roles;
    let mut all = vec![
        expiring("root", manifest.root_expires, BY_HAND_DAYS),
        expiring("timestamp", manifest.statement.expires, HOURLY_DAYS),
        expiring("targets", roles.targets().expires(), BY_HAND_DAYS),
    ];
    let delegated = roles.believed();
    all.extend(
        delegated.map(|(role, known)| expiring(role.as_str(), known.expires(), BY_HAND_DAYS)),
    );
    all
}

fn instant(secs: u64) -> Timestamp {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    Timestamp::from_second(secs).unwrap_or(Timestamp::MAX)
}

//! A member's next certificate, asked for by itself at two thirds of the present one's life.
//!
//! The key stays: what is renewed is control's word about it. The new certificate takes the old
//! one's place on the disk in one step, then in every open socket, and no connection ends for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use sutler_protocol::join::JoinRefusal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{self, JoinError};
use super::device::{DeviceError, control_addresses, csr_of, replace_chain};
use crate::gateway::causes;
use crate::identity::{Identity, LoadError, RenewError, TrustedClock};

/// How soon after a failure control is asked again, at first and at the latest.
const RETRY_MIN: Duration = Duration::from_mins(1);
const RETRY_MAX: Duration = Duration::from_hours(1);

/// How long the task sleeps at most before it looks at the clock again: a clock can be set, and a
/// machine can be suspended.
const NAP_MAX: Duration = Duration::from_hours(1);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The identity on the disk is of no use, even to renew it.
    #[error("load the identity")]
    Load(#[source] LoadError),
    /// The disk refused.
    #[error(transparent)]
    Device(DeviceError),
    /// Nobody was named whom to ask: the identity was issued by hand.
    #[error("the identity does not say where to renew it; `sutler org issue` made it")]
    Nowhere,
    /// An address could not be resolved.
    #[error("resolve {address}")]
    Resolve {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No address gave a certificate; this is what the last one said.
    #[error("ask control for a certificate")]
    Ask(#[source] JoinError),
    /// The new certificate is not ours.
    #[error("show the new certificate")]
    Show(#[source] RenewError),
}

/// Returns when a certificate is due for renewal: at two thirds of its life.
pub fn due(begins: UnixTime, ends: UnixTime) -> UnixTime {
    let life = ends.as_secs().saturating_sub(begins.as_secs());
    UnixTime::since_unix_epoch(Duration::from_secs(begins.as_secs() + life / 3 * 2))
}

/// Returns how long to wait after so many failures in a row.
pub fn pause(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX)
}

/// Renews the certificate in the identity folder `dir` now, whether it is due or not, at the first of
/// its addresses that answers; returns the identity with the new one. The present one may have ended
/// up to [`super::GRACE`] ago.
///
/// Cancel-safe: the disk has the old certificate or the new one.
///
/// # Errors
///
/// [`RenewalError`]; the old certificate is there still.
pub async fn renew_now(dir: &Path, clock: &TrustedClock) -> Result<Identity, RenewalError> {
    let identity = Identity::load_to_renew(dir).map_err(RenewalError::Load)?;
    clock.begin(identity.begins());
    let csr = csr_of(dir).map_err(RenewalError::Device)?;
    let mut last = RenewalError::Nowhere;
    for address in control_addresses(dir).map_err(RenewalError::Device)? {
        let resolved = match tokio::net::lookup_host(&address).await {
            Ok(resolved) => resolved,
            Err(source) => {
                last = RenewalError::Resolve { address: address.clone(), source };
                continue;
            }
        };
        for address in resolved {
            match client::renew(address, &identity, &csr, clock).await {
                Ok(chain) => {
                    replace_chain(dir, &chain).map_err(RenewalError::Device)?;
                    return Identity::load(dir).map_err(RenewalError::Load);
                }
                // Control has spoken; another of its addresses says the same.
                Err(error @ JoinError::Refused(_)) => return Err(RenewalError::Ask(error)),
                Err(error) => last = RenewalError::Ask(error),
            }
        }
    }
    Err(last)
}

/// Keeps the certificate of `identity`, which lies in the folder `dir`, renewed until `shutdown`:
/// on the disk, and in every socket that was opened with it.
///
/// Cancel-safe, as [`renew_now`].
pub async fn keep_renewed(
    dir: PathBuf,
    identity: Identity,
    clock: TrustedClock,
    shutdown: CancellationToken,
) {
    let mut present = identity.clone();
    let mut failures = 0;
    // A certificate that is due as soon as it is there must not be asked for in a circle.
    let mut nap_min = Duration::ZERO;
    loop {
        let left = due(present.begins(), present.ends()).as_secs();
        let left = Duration::from_secs(left.saturating_sub(clock.now().as_secs()));
        let nap = if failures > 0 { pause(failures) } else { left.min(NAP_MAX).max(nap_min) };
        tokio::select! {
            // Cancel-safe: a token stays cancelled, and a nap is only a nap.
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(nap) => {}
        }
        if due(present.begins(), present.ends()).as_secs() > clock.now().as_secs() {
            continue;
        }
        let renewed = match renew_now(&dir, &clock).await {
            Ok(renewed) => identity.renew(&renewed).map_err(RenewalError::Show).map(|()| renewed),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(renewed) => {
                failures = 0;
                nap_min = RETRY_MIN;
                info!(peer.id = %identity.name(), "the certificate was renewed");
                present = renewed;
            }
            Err(error) => {
                failures += 1;
                warn!(error = causes(&error), "the certificate was not renewed");
            }
        }
    }
}

impl RenewalError {
    /// Returns whether asking again is of no use: control said no.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Ask(JoinError::Refused(
                JoinRefusal::Retired | JoinRefusal::Revoked | JoinRefusal::NoCertificate
            ))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life() {
        assert_eq!(due(at(1_000), at(1_900)), at(1_600));
        assert_eq!(due(at(1_000), at(500)), at(1_000));
    }

    #[test]
    fn control_is_asked_less_and_less_often_but_at_least_once_an_hour() {
        assert_eq!(pause(1), RETRY_MIN);
        assert_eq!(pause(2), RETRY_MIN * 2);
        assert_eq!(pause(40), RETRY_MAX);
    }
}

//! How much the store may hold, kept as an account: no folder is ever walked for it.
//!
//! Bytes are *reserved* before a download, and become *used* as they are written. Both count
//! against the quota; only what is reserved still lacks its disk, so only that is set against the
//! disk's free bytes.
//!
//! Invariants:
//! - used and reserved bytes together stay within [`Limits::bytes_max`] when a reservation is granted;
//! - a reservation that is dropped gives back what it did not use;
//! - what was used stays counted until [`Quota::free`] is told that it has gone.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the store may fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of contents, at most. Absent: the disk is the limit.
    pub bytes_max: Option<NonZeroU64>,
    /// Bytes of the disk that stay free for others.
    pub free_bytes_min: u64,
}

/// What the account says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of contents on the disk.
    pub used_bytes: u64,
    /// Bytes promised to downloads and not yet written.
    pub reserved_bytes: u64,
}

/// Why nothing was reserved: the bytes to free first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missing_bytes} bytes too many")]
pub struct Short {
    /// Bytes by which the request exceeds what is left.
    pub missing_bytes: u64,
}

/// The account of one store. Cheap to clone; all clones are the same account.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    account: Arc<Mutex<Account>>,
}

/// Bytes set aside for one content; released when dropped.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation {
    account: Arc<Mutex<Account>>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Account {
    limits: Limits,
    usage: Usage,
}

impl Quota {
    /// Returns an account of nothing.
    pub fn new(limits: Limits) -> Self {
        Self { account: Arc::new(Mutex::new(Account { limits, usage: Usage::default() })) }
    }

    /// Returns the limits in force.
    pub fn limits(&self) -> Limits {
        lock(&self.account).limits
    }

    /// Puts other limits in force. Usage may exceed them until something is evicted.
    pub fn set_limits(&self, limits: Limits) {
        lock(&self.account).limits = limits;
    }

    /// Returns what is used and reserved now.
    pub fn usage(&self) -> Usage {
        lock(&self.account).usage
    }

    /// Counts bytes that were found on the disk at a start; they need no leave.
    pub fn found(&self, bytes: u64) {
        let mut account = lock(&self.account);
        account.usage.used_bytes = account.usage.used_bytes.saturating_add(bytes);
    }

    /// Counts used bytes as gone.
    pub fn free(&self, bytes: u64) {
        let mut account = lock(&self.account);
        account.usage.used_bytes = account.usage.used_bytes.saturating_sub(bytes);
    }

    /// Sets `bytes` aside, given that the disk has `disk_free_bytes` now.
    ///
    /// # Errors
    ///
    /// [`Short`] with the bytes to free first: what exceeds the quota, or what would leave the disk
    /// with less than its minimum, whichever is more.
    pub fn reserve(&self, bytes: u64, disk_free_bytes: u64) -> Result<Reservation, Short> {
        let mut account = lock(&self.account);
        let promised = account.usage.reserved_bytes.saturating_add(bytes);
        let over_disk =
            promised.saturating_add(account.limits.free_bytes_min).saturating_sub(disk_free_bytes);
        let over_quota = account.limits.bytes_max.map_or(0, |max| {
            account.usage.used_bytes.saturating_add(promised).saturating_sub(max.get())
        });
        // Nothing is asked for when a content is already there, however full the disk has become.
        if bytes > 0 && over_disk.max(over_quota) > 0 {
            return Err(Short { missing_bytes: over_disk.max(over_quota) });
        }
        account.usage.reserved_bytes = promised;
        Ok(Reservation { account: Arc::clone(&self.account), bytes })
    }

    /// Returns the bytes by which the store exceeds its limits now: what to evict after the quota
    /// shrank or the disk filled up.
    pub fn excess(&self, disk_free_bytes: u64) -> u64 {
        let account = lock(&self.account);
        let held = account.usage.used_bytes.saturating_add(account.usage.reserved_bytes);
        let over_quota = account.limits.bytes_max.map_or(0, |max| held.saturating_sub(max.get()));
        over_quota.max(account.limits.free_bytes_min.saturating_sub(disk_free_bytes))
    }
}

impl Reservation {
    /// Returns the bytes still set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds another reservation of the same account to this one.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Counts `bytes` of the reservation as written. Bytes beyond it are counted all the same:
    /// the disk holds them.
    pub fn spend(&mut self, bytes: u64) {
        let mut account = lock(&self.account);
        let from_reserved = bytes.min(self.bytes);
        self.bytes -= from_reserved;
        account.usage.reserved_bytes -= from_reserved;
        account.usage.used_bytes = account.usage.used_bytes.saturating_add(bytes);
    }

    /// Counts written bytes as lacking again: a chunk that went bad is to be fetched once more.
    pub fn unspend(&mut self, bytes: u64) {
        let mut account = lock(&self.account);
        let returned = bytes.min(account.usage.used_bytes);
        self.bytes += returned;
        account.usage.used_bytes -= returned;
        account.usage.reserved_bytes = account.usage.reserved_bytes.saturating_add(returned);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut account = lock(&self.account);
        account.usage.reserved_bytes = account.usage.reserved_bytes.saturating_sub(self.bytes);
    }
}

/// Locks the account. A panic elsewhere leaves it whole: each change is one assignment.
fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(bytes_max: u64, free_bytes_min: u64) -> Quota {
        Quota::new(Limits { bytes_max: NonZeroU64::new(bytes_max), free_bytes_min })
    }

    // R32
    #[test]
    fn what_is_reserved_counts_until_it_is_used_or_released() {
        let quota = quota(100, 0);
        quota.found(20);
        let mut first = quota.reserve(60, u64::MAX).expect("80 of 100");
        assert_eq!(quota.reserve(30, u64::MAX).err(), Some(Short { missing_bytes: 10 }));
        first.spend(50);
        assert_eq!(quota.usage(), Usage { used_bytes: 70, reserved_bytes: 10 });
        drop(first);
        assert_eq!(quota.usage(), Usage { used_bytes: 70, reserved_bytes: 0 });
        let second = quota.reserve(30, u64::MAX).expect("the released 10 make room");
        quota.free(50);
        assert_eq!(quota.usage(), Usage { used_bytes: 20, reserved_bytes: 30 });
        drop(second);
    }

    // R32
    #[test]
    fn promises_not_yet_written_count_against_the_free_disk() {
        let quota = quota(0, 1000);
        let first = quota.reserve(500, 2000).expect("1500 stay free");
        assert_eq!(quota.reserve(501, 2000).err(), Some(Short { missing_bytes: 1 }));
        assert!(quota.reserve(500, 2000).is_ok());
        assert_eq!(quota.excess(2000), 0);
        assert_eq!(quota.excess(900), 100);
        drop(first);
    }

    #[test]
    fn a_shrunken_quota_names_its_excess_and_grants_only_nothing() {
        let quota = quota(100, 0);
        quota.found(100);
        quota.set_limits(Limits { bytes_max: NonZeroU64::new(70), free_bytes_min: 0 });
        assert_eq!(quota.excess(u64::MAX), 30);
        assert!(quota.reserve(0, 0).is_ok());
        assert!(quota.reserve(1, u64::MAX).is_err());
    }

    #[test]
    fn a_chunk_that_went_bad_is_owed_again() {
        let quota = quota(100, 0);
        let mut reservation = quota.reserve(60, u64::MAX).expect("60 of 100");
        reservation.spend(60);
        reservation.unspend(10);
        assert_eq!(quota.usage(), Usage { used_bytes: 50, reserved_bytes: 10 });
    }

    proptest! {
        // R32
        #[test]
        fn granted_bytes_never_exceed_the_quota(
            steps in proptest::collection::vec((0u64..400, 0u64..400, any::<bool>()), 1..40),
        ) {
            let quota = quota(1000, 0);
            let mut open = Vec::new();
            for (ask, spend, drop_one) in steps {
                if let Ok(mut reservation) = quota.reserve(ask, u64::MAX) {
                    reservation.spend(spend.min(reservation.bytes()));
                    open.push(reservation);
                }
                if drop_one {
                    open.pop();
                }
                let usage = quota.usage();
                prop_assert!(usage.used_bytes + usage.reserved_bytes <= 1000);
                let promised: u64 = open.iter().map(Reservation::bytes).sum();
                prop_assert_eq!(usage.reserved_bytes, promised);
            }
        }
    }
}

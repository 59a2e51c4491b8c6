//! One identity on two machines, told from one machine that was started anew.
//!
//! A running machine is an *instance*: the system's boot and the very file that the key lies in. A
//! cloned disk boots apart, a copied folder has another file; a process that is started again, or a
//! second one beside it, is the same instance. A machine that boots again is another instance, and
//! the one before it never speaks again. So whoever speaks after another has spoken in its name is a
//! second holder, however long either was silent; and no machine alone is ever taken for two.
//!
//! What is not told apart: two copies of a machine that was suspended, which have one boot.
//! [`Instances`] is driven by whoever hears instances said, and reads no clock.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use rustls::pki_types::UnixTime;
use sutler_protocol::name::PeerName;

use super::revoked::hash;

/// Bytes of an instance: enough that two are never equal by chance.
pub const INSTANCE_BYTES: usize = 16;

/// One machine's life from boot to boot.
pub type Instance = [u8; INSTANCE_BYTES];

/// Names that are remembered; beyond, the one that was silent longest is forgotten.
const NAMES_MAX: usize = 65_536;

/// Earlier instances that are remembered of a name: two holders alternate between two.
const PAST_MAX: usize = 8;

/// The instances that have spoken under each name.
#[derive(Debug, Default)]
pub struct Instances(BTreeMap<PeerName, Spoken>);

#[derive(Debug)]
struct Spoken {
    /// The last that spoke.
    present: Instance,
    /// Those that spoke before it, the latest first.
    past: VecDeque<Instance>,
    at: UnixTime,
    /// When one of the past spoke again, last.
    duplicate_at: Option<UnixTime>,
}

/// Whether a name has one holder, as far as was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// Nobody else spoke in between.
    One,
    /// An instance spoke again after another had: two machines are alive under the name.
    Two,
}

impl Instances {
    /// Takes note that `instance` spoke under `name` at `now`.
    pub fn heard(&mut self, name: &PeerName, instance: Instance, now: UnixTime) -> Holders {
        if !self.0.contains_key(name) && self.0.len() >= NAMES_MAX {
            let silent = self.0.iter().min_by_key(|(_, spoken)| spoken.at.as_secs());
            if let Some(silent) = silent.map(|(name, _)| name.clone()) {
                self.0.remove(&silent);
            }
        }
        let spoken = self.0.entry(name.clone()).or_insert_with(|| Spoken {
            present: instance,
            past: VecDeque::new(),
            at: now,
            duplicate_at: None,
        });
        spoken.at = now;
        if spoken.present == instance {
            return Holders::One;
        }
        let returned = spoken.past.iter().position(|past| *past == instance);
        let before = std::mem::replace(&mut spoken.present, instance);
        if let Some(position) = returned {
            spoken.past.remove(position);
        }
        spoken.past.push_front(before);
        spoken.past.truncate(PAST_MAX);
        if returned.is_none() {
            return Holders::One;
        }
        spoken.duplicate_at = Some(now);
        Holders::Two
    }

    /// Returns the names that two machines were heard under since `since`, in their order.
    pub fn duplicates(&self, since: UnixTime) -> Vec<PeerName> {
        let is_recent = |at: UnixTime| at.as_secs() >= since.as_secs();
        let two = self.0.iter().filter(|(_, spoken)| spoken.duplicate_at.is_some_and(is_recent));
        two.map(|(name, _)| name.clone()).collect()
    }
}

/// Returns this machine's instance, by its boot and the key's file in the identity folder; `None`
/// where the system does not say when it booted.
pub fn instance_here(identity: &Path) -> Option<Instance> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let place = place(&identity.join(super::load::KEY_FILE))?;
    let hash = hash(&[&boot[..], &place].concat());
    hash.first_chunk().copied()
}

#[cfg(unix)]
fn place(key: &Path) -> Option<[u8; 16]> {
    use std::os::unix::fs::MetadataExt;

    let about = std::fs::metadata(key).ok()?;
    let mut place = [0; 16];
    place[..8].copy_from_slice(&about.dev().to_be_bytes());
    place[8..].copy_from_slice(&about.ino().to_be_bytes());
    Some(place)
}

#[cfg(not(unix))]
fn place(_key: &Path) -> Option<[u8; 16]> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    fn name(id: usize) -> PeerName {
        format!("spiffe://acme/site/s/agent/a{id}").parse().expect("a name")
    }

    // T32
    #[test]
    fn a_cloned_disk_is_two_holders_as_soon_as_both_have_spoken_in_turn() {
        let (mut instances, name) = (Instances::default(), name(1));
        assert_eq!(instances.heard(&name, [1; 16], at(1)), Holders::One);
        assert_eq!(instances.heard(&name, [2; 16], at(2)), Holders::One);
        assert_eq!(instances.duplicates(at(0)), []);
        assert_eq!(instances.heard(&name, [1; 16], at(3)), Holders::Two);
        assert_eq!(instances.heard(&name, [2; 16], at(9_999)), Holders::Two);
        assert_eq!(instances.duplicates(at(0)), [name]);
        assert_eq!(instances.duplicates(at(10_000)), []);
    }

    // T32
    #[test]
    fn a_machine_that_boots_again_and_again_is_one() {
        let (mut instances, name) = (Instances::default(), name(1));
        for boot in 0..100 {
            for _ in 0..3 {
                assert_eq!(instances.heard(&name, [boot; 16], at(boot.into())), Holders::One);
            }
        }
        assert_eq!(instances.duplicates(at(0)), []);
        assert_eq!(instances.0[&name].past.len(), PAST_MAX);
    }

    #[test]
    fn no_more_names_are_remembered_than_the_bound() {
        let mut instances = Instances::default();
        for id in 0..NAMES_MAX + 2 {
            instances.heard(&name(id), [1; 16], at(id as u64));
        }
        assert_eq!(instances.0.len(), NAMES_MAX);
        assert!(!instances.0.contains_key(&name(0)) && instances.0.contains_key(&name(2)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_copied_folder_is_another_instance_and_the_same_one_stays_so() {
        let temp = tempfile::tempdir().expect("a folder");
        let (one, copy) = (temp.path().join("one"), temp.path().join("copy"));
        for dir in [&one, &copy] {
            std::fs::create_dir(dir).expect("made");
            std::fs::write(dir.join("key.pem"), "key").expect("written");
        }
        assert_eq!(instance_here(&one), instance_here(&one));
        assert_ne!(instance_here(&one), instance_here(&copy));
        assert_eq!(instance_here(&temp.path().join("none")), None);
    }
}

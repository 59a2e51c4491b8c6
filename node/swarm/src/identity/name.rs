//! What members are called, as `protocol` has it, and the ids of those whom nobody named.

pub use sutler_protocol::name::{
    LABEL_BYTES_MAX, Label, Member, NameError, Organisation, PeerName, Role,
};

/// Returns an id of 16 random hex digits, for a member that nobody named. Two are never equal in
/// practice.
///
/// # Panics
///
/// If the operating system has no randomness, without which no key could be made either.
pub fn random_label() -> Label {
    let mut bytes = [0; size_of::<u64>()];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    format!("{:016x}", u64::from_be_bytes(bytes)).parse().expect("hex digits are a label")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_is_a_label_and_differs_from_the_next() {
        let id = random_label();
        assert_eq!(id.as_str().len(), 16);
        assert_ne!(id, random_label());
    }
}

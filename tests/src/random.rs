//! Chance that can be had again: numbers and bytes that follow from a seed.

use blake3::{Hasher, OutputReader};

/// A stream of numbers that follows from its seed. Not for secrets.
#[derive(Clone)]
pub struct Random(OutputReader);

impl Random {
    /// Returns the stream of `seed`.
    pub fn of(seed: u64) -> Self {
        Self(Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// Returns a number below `bound`, which is not 0. Each is about as likely.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    /// Returns one of `choices`, each as often as the number beside it says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let sum: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(sum);
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        choices[choices.len() - 1].1
    }
}

/// Returns `len` bytes that follow from `seed`; no 64 KiB of them are all zero.
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random::of(seed).0.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_does_not() {
        let numbers = |seed| {
            let mut random = Random::of(seed);
            [random.below(100), random.below(100), random.below(1 << 60)]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_ne!(bytes_of(7, 100), bytes_of(8, 100));
    }

    #[test]
    fn a_choice_of_no_weight_is_never_made() {
        let mut random = Random::of(1);
        assert!((0..100).all(|_| random.weighted(&[(0, 'a'), (3, 'b'), (0, 'c')]) == 'b'));
    }
}

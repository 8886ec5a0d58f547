//! Random numbers that are the same on every machine, for each tensor its own.
//!
//! The generator is `SplitMix64` (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014): a counter
//! and a mixing function, so that a tensor's numbers depend on its name alone and not on what was drawn before it. Instead
//! of the normal distribution, for which logarithms and cosines are needed that differ in their last bit between
//! libraries, there is the sum of four uniform numbers (Irwin-Hall), which has its bell shape and is exact.

use ring::digest::{SHA256, digest};

/// Half the greatest sum of four 16-bit numbers: their mean.
const MEAN: f64 = 2.0 * 65_535.0;
/// Four times the variance of a uniform 16-bit number, (2^32 - 1) / 12.
const VARIANCE: f64 = 4_294_967_295.0 / 3.0;

/// A stream of random numbers.
pub(crate) struct Draws {
    counter: u64,
    one_over_deviation: f64,
}

impl Draws {
    /// The stream of a tensor of a network.
    pub(crate) fn of(network: &str, tensor: &str) -> Self {
        let name = format!("sesemi-paper-models/1\0{network}\0{tensor}");
        let digest = digest(&SHA256, name.as_bytes());
        let seed = digest.as_ref().iter().take(8);
        Self {
            counter: seed.fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
            one_over_deviation: 1.0 / VARIANCE.sqrt(),
        }
    }

    fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.counter;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number of mean 0 and variance 1, never beyond 3.5 from 0.
    pub(crate) fn bell(&mut self) -> f64 {
        let bits = self.next();
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        // At most 18 bits: exact.
        (sum as f64 - MEAN) * self.one_over_deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first numbers of the published generator from seed 1234567.
        let mut draws = Draws {
            counter: 1_234_567,
            one_over_deviation: 1.0,
        };
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([draws.next(), draws.next(), draws.next()], expected);
    }

    #[test]
    fn a_draw_has_mean_0_and_variance_1_and_another_tensor_has_other_draws() {
        let mut draws = Draws::of("network", "tensor");
        let numbers: Vec<_> = (0..100_000).map(|_| draws.bell()).collect();
        let mean = numbers.iter().sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
        assert!(numbers.iter().all(|number| number.abs() < 3.5));
        assert_ne!(Draws::of("network", "other").bell(), numbers[0]);
        assert_ne!(Draws::of("other", "tensor").bell(), numbers[0]);
    }
}

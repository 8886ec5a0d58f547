//! What values are on average, followed through the network without running it.
//!
//! Training gives a batch norm the mean and the variance that its input has. A drawn network needs about the right ones too:
//! with others, a hundred layers blow the signal up or let it die. They follow from the weights. Over all channels, a He-normal
//! convolution of values with mean square `s` has mean 0 and variance `2 s`, however alike neighbouring values are, because
//! its weights are independent; so errors of this estimate do not add up from layer to layer.
//!
//! The true mean of a single channel is not 0, and is not subtracted: a drawn network that subtracts it in every layer is
//! chaotic, and makes of a difference in the last bit one in the scores.

use std::f64::consts::FRAC_1_SQRT_2;

/// Mean and variance of a channel, over images, places and weights that might have been drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) variance: f64,
}

impl Moments {
    /// Of an image that was normalised.
    pub(crate) const STANDARD: Self = Self {
        mean: 0.0,
        variance: 1.0,
    };

    /// The mean square.
    pub(crate) fn power(self) -> f64 {
        self.mean * self.mean + self.variance
    }

    /// Of the sum of two channels.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            mean: self.mean + other.mean,
            variance: self.variance + other.variance,
        }
    }

    /// Of the greatest of nine values: the constants are those of nine standard normal numbers.
    pub(crate) fn greatest_of_nine(self) -> Self {
        Self {
            mean: self.mean + 1.485_01 * self.variance.sqrt(),
            variance: 0.357_35 * self.variance,
        }
    }

    /// Of what a `Relu` leaves.
    pub(crate) fn rectified(self) -> Self {
        let deviation = self.variance.sqrt();
        let ratio = self.mean / deviation;
        let below = distribution(ratio);
        let at = density(ratio);
        let mean = self.mean * below + deviation * at;
        let square = self.power() * below + self.mean * deviation * at;
        Self {
            mean,
            variance: (square - mean * mean).max(0.0),
        }
    }
}

/// The density of the standard normal distribution. `exp` is not exact in libraries; this power is the same everywhere, and
/// right to 1e-5.
fn density(x: f64) -> f64 {
    const ONE_OVER_ROOT_OF_2_PI: f64 = 0.398_942_280_401_432_7;
    let mut power = 1.0 + x * x / 2.0 / 1_048_576.0;
    for _ in 0..20 {
        power *= power;
    }
    ONE_OVER_ROOT_OF_2_PI / power
}

/// The standard normal distribution function, by 7.1.28 of Abramowitz and Stegun (right to 3e-7).
fn distribution(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 6] = [
        0.000_043_063_8,
        0.000_276_567_2,
        0.000_152_014_3,
        0.009_270_527_2,
        0.042_282_012_3,
        0.070_523_078_4,
    ];
    let y = x.abs() * FRAC_1_SQRT_2;
    let mut sum = COEFFICIENTS.iter().fold(0.0, |sum, it| sum * y + it) * y + 1.0;
    for _ in 0..4 {
        sum *= sum;
    }
    let error_function = 1.0 - 1.0 / sum;
    0.5 + error_function.copysign(x) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (x, expected_distribution, expected_density) in [
            (0.0, 0.5, 0.398_942),
            (1.0, 0.841_345, 0.241_971),
            (-1.96, 0.024_998, 0.058_441),
            (3.0, 0.998_650, 0.004_432),
        ] {
            assert!(
                (distribution(x) - expected_distribution).abs() < 1e-6,
                "{x}"
            );
            assert!((density(x) - expected_density).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn moments_are_those_of_a_sample() {
        let mut draws = crate::draws::Draws::of("moments", "sample");
        // The sum of four of the generator's numbers is close to normal.
        let mut normal = || (0..4).map(|_| draws.bell()).sum::<f64>() / 2.0 * 1.5 + 0.4;
        let input = Moments {
            mean: 0.4,
            variance: 2.25,
        };
        let rectified: Vec<_> = (0..50_000).map(|_| normal().max(0.0)).collect();
        close(input.rectified(), &rectified);
        let greatest: Vec<_> = (0..50_000)
            .map(|_| {
                let nine: [f64; 9] = std::array::from_fn(|_| normal());
                // Not a fold with `f64::max`: rustc 1.95 at opt-level 2 was seen to leave out the ninth.
                let greatest = nine.iter().max_by(|left, right| left.total_cmp(right));
                *greatest.unwrap_or(&f64::NAN)
            })
            .collect();
        close(input.greatest_of_nine(), &greatest);
        let sums: Vec<_> = (0..50_000).map(|_| normal() + normal()).collect();
        close(input.plus(input), &sums);
    }

    fn close(expected: Moments, sample: &[f64]) {
        let count = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / count;
        let variance = sample.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count;
        assert!((mean - expected.mean).abs() < 0.04, "{mean} {expected:?}");
        let ratio = variance / expected.variance;
        assert!((0.95..1.05).contains(&ratio), "{variance} {expected:?}");
    }
}

//! The normal distribution: how much lies beyond a value, and beyond which value how much lies.
//!
//! `statrs` has both, by approximations of its own that differ in the last digits, and a cutoff is to
//! be alike in every version; the error function is `libm`'s.

use std::f64::consts::SQRT_2;

/// Standard deviations that no share of interest lies beyond: the double's least is at 38.
const FURTHEST: f64 = 38.0;

/// The share of a standard normal distribution that lies above `z`.
pub fn survival(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

/// The value above which that share of a standard normal distribution lies.
pub fn inverse_survival(share: f64) -> f64 {
    let (mut low, mut high) = (-FURTHEST, FURTHEST);
    // Halved until neighbouring doubles remain.
    for _ in 0..64 {
        let middle = low + (high - low) / 2.0;
        if survival(middle) > share {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_tables() {
        for (z, share) in [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457_05),
            (1.959_963_984_540_054, 0.025),
            (3.090_232_306_167_813, 0.001),
            (4.753_424_308_822_899, 1e-6),
            (5.997_807_015_007_687, 1e-9),
        ] {
            assert!((survival(z) / share - 1.0).abs() < 1e-9, "above {z}");
            assert!((inverse_survival(share) - z).abs() < 1e-9, "beyond {share}");
        }
        assert!((inverse_survival(0.975) + inverse_survival(0.025)).abs() < 1e-9);
    }
}

//! Two-bit codes of embeddings: a search looks at these first.
//!
//! An embedding is rotated at random, the same way for all, which spreads its direction evenly over
//! the coordinates: each is then close to normally distributed, whatever the model. Two bits a
//! coordinate keep the sum of products with an unquantised probe to a standard deviation of 0.365 /
//! sqrt(dimension), 0.032 of cosine at 128 dimensions (Lloyd-Max quantisation loses 0.1175 of a
//! normal variable's variance at two bits: J. Max, Quantizing for minimum distortion, 1960), from a
//! sixteenth of the bytes: 32 instead of 512.
//!
//! Codes stand in blocks of 32 rows, so that one shuffle of a vector register looks up two
//! coordinates of 32 rows (F. André et al., Cache locality is not enough, VLDB 2015).

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// What the rotation is drawn from: "muster".
const SEED: u64 = 0x6d75_7374_6572;
/// Rows whose codes stand together.
pub(super) const BLOCK: usize = 32;
/// Values of a nibble, which holds two coordinates.
const NIBBLE: usize = 16;
/// Random sign changes, each before a Hadamard transform, that make the rotation.
const ROUNDS: usize = 3;
/// Between the inner and the outer levels of a normal variable of variance one.
const BOUNDARY: f32 = 0.981_6;
/// What the four codes of a coordinate stand for.
const LEVELS: [f32; 4] = [-1.510, -0.452_8, 0.452_8, 1.510];
/// The greatest sum that a lane of a search can hold.
const GREATEST_SUM: usize = i16::MAX as usize;

/// How embeddings of one dimension are coded. Always alike for that dimension: codes are stored.
#[derive(Clone, Debug)]
pub(super) struct Quantizer {
    dimension: usize,
    signs: [Vec<f32>; ROUNDS],
}

impl Quantizer {
    pub fn new(dimension: usize) -> Self {
        let width = width(dimension);
        let mut random = SplitMix64::seed_from_u64(SEED);
        let mut sign = || {
            if random.next_u64() & 1 == 0 {
                1.0
            } else {
                -1.0
            }
        };
        let signs = [(); ROUNDS].map(|()| (0..width).map(|_| sign()).collect());
        Self { dimension, signs }
    }

    /// Rotates a unit vector and scales it so that its coordinates have a variance of one.
    fn rotate(&self, values: &[f32]) -> Vec<f32> {
        let width = width(self.dimension);
        let mut rotated = vec![0.0; width];
        rotated[..values.len()].copy_from_slice(values);
        let shrink = 1.0 / (width as f32).sqrt();
        for signs in &self.signs {
            for (value, sign) in rotated.iter_mut().zip(signs) {
                *value *= sign * shrink;
            }
            hadamard(&mut rotated);
        }
        let grow = (width as f32).sqrt();
        for value in &mut rotated {
            *value *= grow;
        }
        rotated
    }

    /// Bytes of one block.
    pub fn block_bytes(dimension: usize) -> usize {
        width(dimension) / 4 * BLOCK
    }

    /// Codes rows, block after block; what the last block has over is zero.
    pub fn encode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<u8> {
        let block_bytes = Self::block_bytes(self.dimension);
        let mut codes = vec![0; rows.len().div_ceil(BLOCK) * block_bytes];
        for (row, values) in rows.enumerate() {
            let block = &mut codes[row / BLOCK * block_bytes..][..block_bytes];
            let (lane, shift) = place(row % BLOCK);
            for (nibble, pair) in self.rotate(values).as_chunks::<2>().0.iter().enumerate() {
                let value = level(pair[0]) | level(pair[1]) << 2;
                block[nibble / 2 * BLOCK + nibble % 2 * 16 + lane] |= value << shift;
            }
        }
        codes
    }

    /// What each nibble of a row adds to its sum with the probe.
    pub fn lookup_table(&self, probe: &[f32]) -> LookupTable {
        let rotated = self.rotate(probe);
        let (pairs, _) = rotated.as_chunks::<2>();
        let product = |pair: &[f32; 2], nibble: usize| {
            pair[0] * LEVELS[nibble & 3] + pair[1] * LEVELS[nibble >> 2]
        };
        let least = |pair: &[f32; 2]| -LEVELS[3] * (pair[0].abs() + pair[1].abs());
        let widest = pairs
            .iter()
            .map(|pair| -2.0 * least(pair))
            .fold(0.0, f32::max);
        let greatest = (GREATEST_SUM / pairs.len()).min(u8::MAX as usize) as f32;
        let scale = if widest > 0.0 { greatest / widest } else { 0.0 };
        let mut chunks = vec![[0; BLOCK]; pairs.len() / 2];
        for (at, pair) in pairs.iter().enumerate() {
            for nibble in 0..NIBBLE {
                let above = (product(pair, nibble) - least(pair)) * scale;
                chunks[at / 2][at % 2 * NIBBLE + nibble] = above.round().clamp(0.0, greatest) as u8;
            }
        }
        LookupTable { chunks }
    }
}

/// What the nibbles of a row add to its sum with one probe: two nibbles a chunk.
#[derive(Debug)]
pub(super) struct LookupTable {
    pub chunks: Vec<[u8; BLOCK]>,
}

/// Where in a chunk of a block a row's nibble stands: its byte within a lane, and the shift.
fn place(row: usize) -> (usize, u32) {
    (row % 16, if row < 16 { 0 } else { 4 })
}

/// The Hadamard transform needs a power of two; a block's chunk holds four coordinates.
fn width(dimension: usize) -> usize {
    dimension.next_power_of_two().max(8)
}

fn level(value: f32) -> u8 {
    u8::from(value > -BOUNDARY) + u8::from(value > 0.0) + u8::from(value > BOUNDARY)
}

fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::Embedding;
    use proptest::prelude::*;

    use super::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::normalise(values).unwrap()
    }

    #[test]
    fn the_rotation_of_stored_codes_is_pinned() {
        let signs = Quantizer::new(8).signs.concat();
        let signs = signs.iter().map(|sign| if *sign > 0.0 { '+' } else { '-' });
        assert_eq!(signs.collect::<String>(), "-+-++----++++-++++--+++-");
    }

    proptest! {
        #[test]
        fn the_rotation_keeps_angles(
            (a, b) in (1usize..200).prop_flat_map(|n| {
                let values = || prop::collection::vec(-1.0f32..1.0, n)
                    .prop_filter("a direction", |v| v.iter().any(|x| x.abs() > 0.1));
                (values(), values())
            }),
        ) {
            let (a, b) = (unit(&a), unit(&b));
            let quantizer = Quantizer::new(a.dimension());
            let (x, y) = (quantizer.rotate(a.as_slice()), quantizer.rotate(b.as_slice()));
            let product: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            prop_assert!((product / x.len() as f32 - a.cosine(&b)).abs() < 1e-4);
        }
    }
}

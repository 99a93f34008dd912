//! The rows whose codes promise the most, of all that were looked at.

use crate::codes::{BLOCK, LookupTable};

/// The best rows so far; keeps at least `keep` of those offered, and not more than twice as many.
#[derive(Debug)]
pub(super) struct Shortlist {
    keep: usize,
    /// Sums up to this one are not among the best any more.
    floor: i16,
    /// The sum in the top 16 bits, the segment in the next, then the row.
    found: Vec<u64>,
}

impl Shortlist {
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            floor: -1,
            found: Vec::with_capacity(2 * keep + BLOCK),
        }
    }

    /// Scans a segment's rows: whole blocks of codes, of which `rows` rows are used. Those that
    /// are not `live` are passed over.
    pub fn scan(
        &mut self,
        segment: u16,
        blocks: &[u8],
        rows: usize,
        table: &LookupTable,
        live: &dyn Fn(u32) -> bool,
    ) {
        let mut scan = Scan {
            list: self,
            segment,
            rows,
            live,
        };
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            #[expect(
                unsafe_code,
                reason = "the processor was just asked for what it requires"
            )]
            // SAFETY: `add_up` is safe but for its processor feature, which is there.
            unsafe {
                avx2::add_up(blocks, table, &mut scan);
            }
            return;
        }
        add_up(blocks, table, &mut scan);
    }

    /// The best rows as (segment, row), ascending.
    pub fn finish(mut self) -> Vec<(u16, u32)> {
        self.shorten();
        let place = |found: &u64| ((found >> 32) as u16, *found as u32);
        let mut best: Vec<_> = self.found.iter().map(place).collect();
        best.sort_unstable();
        best
    }

    fn shorten(&mut self) {
        if self.found.len() > self.keep {
            let worse = self.found.len() - self.keep;
            self.found.select_nth_unstable(worse);
            self.found.drain(..worse);
            self.floor = (self.found[0] >> 48) as i16;
        }
    }
}

/// One segment, being scanned.
struct Scan<'a> {
    list: &'a mut Shortlist,
    segment: u16,
    rows: usize,
    live: &'a dyn Fn(u32) -> bool,
}

impl Scan<'_> {
    /// Takes the sums of a block's rows.
    fn offer(&mut self, block: usize, sums: &[i16; BLOCK]) {
        for (at, sum) in sums.iter().enumerate() {
            let row = block * BLOCK + at;
            if *sum > self.list.floor && row < self.rows && (self.live)(row as u32) {
                let place = u64::from(self.segment) << 32 | row as u64;
                self.list.found.push((*sum as u64) << 48 | place);
            }
        }
        if self.list.found.len() >= 2 * self.list.keep {
            self.list.shorten();
        }
    }
}

/// Sums up every row, on any processor.
fn add_up(blocks: &[u8], table: &LookupTable, scan: &mut Scan<'_>) {
    let chunks = table.chunks.len();
    let (all, _) = blocks.as_chunks::<BLOCK>();
    for (block, codes) in all.chunks_exact(chunks).enumerate() {
        let mut sums = [0i16; BLOCK];
        for (codes, table) in codes.iter().zip(&table.chunks) {
            let (low, high) = table.split_at(16);
            for at in 0..16 {
                let (first, second) = (codes[at], codes[16 + at]);
                sums[at] += i16::from(low[usize::from(first & 15)]);
                sums[at] += i16::from(high[usize::from(second & 15)]);
                sums[16 + at] += i16::from(low[usize::from(first >> 4)]);
                sums[16 + at] += i16::from(high[usize::from(second >> 4)]);
            }
        }
        scan.offer(block, &sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use crate::codes::{BLOCK, LookupTable};
    use crate::shortlist::Scan;

    /// Sums up every row as [`super::add_up`] does, 64 lookups at once.
    #[target_feature(enable = "avx2")]
    pub fn add_up(blocks: &[u8], table: &LookupTable, scan: &mut Scan<'_>) {
        let chunks = table.chunks.len();
        let (all, _) = blocks.as_chunks::<BLOCK>();
        let tables: Vec<__m256i> = table.chunks.iter().map(|t| bytemuck::cast(*t)).collect();
        let nibble = _mm256_set1_epi8(15);
        for (block, codes) in all.chunks_exact(chunks).enumerate() {
            // Sums of the rows 0-15 and 16-31, each of even rows, with 256 times those of odd rows
            // on top as far as it fits, and of odd rows alone.
            let mut sums = [_mm256_setzero_si256(); 4];
            for (codes, table) in codes.iter().zip(&tables) {
                let codes: __m256i = bytemuck::cast(*codes);
                let first = _mm256_and_si256(codes, nibble);
                let second = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
                let first = _mm256_shuffle_epi8(*table, first);
                let second = _mm256_shuffle_epi8(*table, second);
                sums[0] = _mm256_add_epi16(sums[0], first);
                sums[1] = _mm256_add_epi16(sums[1], _mm256_srli_epi16(first, 8));
                sums[2] = _mm256_add_epi16(sums[2], second);
                sums[3] = _mm256_add_epi16(sums[3], _mm256_srli_epi16(second, 8));
            }
            for even in [0, 2] {
                sums[even] = _mm256_sub_epi16(sums[even], _mm256_slli_epi16(sums[even + 1], 8));
            }
            let lanes = |first, second| {
                let low = _mm256_permute2x128_si256(first, second, 0x20);
                let high = _mm256_permute2x128_si256(first, second, 0x31);
                _mm256_add_epi16(low, high)
            };
            let (even, odd) = (lanes(sums[0], sums[2]), lanes(sums[1], sums[3]));
            let floor = _mm256_set1_epi16(scan.list.floor);
            let above = _mm256_or_si256(
                _mm256_cmpgt_epi16(even, floor),
                _mm256_cmpgt_epi16(odd, floor),
            );
            if _mm256_movemask_epi8(above) != 0 {
                let (even, odd): ([i16; 16], [i16; 16]) =
                    (bytemuck::cast(even), bytemuck::cast(odd));
                let mut rows = [0; BLOCK];
                for (pair, (even, odd)) in
                    rows.as_chunks_mut().0.iter_mut().zip(even.iter().zip(&odd))
                {
                    *pair = [*even, *odd];
                }
                scan.offer(block, &rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codes::Quantizer;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..count).map(|_| (0..6).map(|_| next()).sum()).collect();
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter().map(|v| v / length).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_processor_finds_the_same(
            rows in 1usize..300, dimension in prop::sample::select(vec![3usize, 8, 100, 128, 512]),
            keep in 1usize..40, dead in 0u32..300, seed in any::<u64>(),
        ) {
            let quantizer = Quantizer::new(dimension);
            let all: Vec<_> = (0..rows).map(|n| values(seed ^ n as u64, dimension)).collect();
            let blocks = quantizer.encode(all.iter().map(Vec::as_slice));
            let table = quantizer.lookup_table(&values(!seed, dimension));
            let live = |row| row != dead;
            let mut here = Shortlist::new(keep);
            here.scan(3, &blocks, rows, &table, &live);
            let mut anywhere = Shortlist::new(keep);
            let mut scan = Scan { list: &mut anywhere, segment: 3, rows, live: &live };
            add_up(&blocks, &table, &mut scan);
            let here = here.finish();
            prop_assert_eq!(&here, &anywhere.finish());
            let living = rows - usize::from((dead as usize) < rows);
            prop_assert_eq!(here.len(), keep.min(living));
            prop_assert!(here.iter().all(|(segment, row)| *segment == 3 && *row != dead));
        }
    }

    #[test]
    fn the_nearest_of_many_is_shortlisted() {
        let quantizer = Quantizer::new(128);
        let all: Vec<_> = (0..20_000).map(|n| values(n * 7919 + 1, 128)).collect();
        let blocks = quantizer.encode(all.iter().map(Vec::as_slice));
        for probe in 0..20 {
            let probe = values(probe * 104_729 + 5, 128);
            let dot = |row: &Vec<f32>| row.iter().zip(&probe).map(|(a, b)| a * b).sum::<f32>();
            let nearest = (0..all.len()).max_by(|a, b| dot(&all[*a]).total_cmp(&dot(&all[*b])));
            let mut list = Shortlist::new(256);
            list.scan(
                0,
                &blocks,
                all.len(),
                &quantizer.lookup_table(&probe),
                &|_| true,
            );
            let nearest = (0, nearest.unwrap() as u32);
            assert!(list.finish().contains(&nearest));
        }
    }
}

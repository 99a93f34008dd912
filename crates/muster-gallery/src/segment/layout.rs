//! Where everything stands in a segment's bytes.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::codes::{BLOCK, Quantizer};
use crate::person::PersonId;

pub(super) const MAGIC: [u8; 8] = *b"MUSTERSG";
/// The layout that this build writes.
pub(super) const LAYOUT: u32 = 2;
/// The layout of before, which differs in the names' keys: hashes of the names as they are written.
pub(super) const EXACT_NAMES: u32 = 1;
pub(super) const HEADER: usize = 128;
const ALIGNMENT: usize = 64;
/// Of the header, what its own check covers.
pub(super) const CHECKED: usize = 80;
/// Id, place and length of the record, first vector, vectors, first row, rows, faces.
pub(super) const ENTRY: usize = 16 + 8 + 6 * 4;
/// Hash and position.
pub(super) const KEY: usize = 8 + 4;

/// Where the sections are, and how many there is of everything.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    pub dimension: usize,
    pub people: usize,
    pub faces: usize,
    pub rows: usize,
    pub model: Range<usize>,
    pub entries: Range<usize>,
    pub names: Range<usize>,
    pub external_ids: Range<usize>,
    pub row_vectors: Range<usize>,
    pub row_people: Range<usize>,
    pub codes: Range<usize>,
    pub vectors: Range<usize>,
    pub records: Range<usize>,
}

impl Sections {
    /// How many vectors there are.
    pub fn vectors_count(&self) -> u32 {
        (self.vectors.len() / (4 * self.dimension).max(1)) as u32
    }

    /// The sections of these sizes, and the length of the whole. `None` where it overflows.
    pub fn new(counts: &Counts) -> Option<(Self, usize)> {
        let mut end = HEADER;
        let mut section = |length: Option<usize>| {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            end = start.checked_add(length?)?;
            Some(start..end)
        };
        let count = |count: u32| count as usize;
        let dimension = count(counts.dimension);
        let row = dimension.checked_mul(4)?;
        let blocks = match dimension {
            0 => 0,
            _ => count(counts.rows)
                .div_ceil(BLOCK)
                .checked_mul(Quantizer::block_bytes(dimension))?,
        };
        let sections = Self {
            dimension,
            people: count(counts.people),
            faces: count(counts.faces),
            rows: count(counts.rows),
            model: section(Some(count(counts.model)))?,
            entries: section(count(counts.people).checked_mul(ENTRY))?,
            names: section(count(counts.people).checked_mul(KEY))?,
            external_ids: section(count(counts.external_ids).checked_mul(KEY))?,
            row_vectors: section(count(counts.rows).checked_mul(4))?,
            row_people: section(count(counts.rows).checked_mul(4))?,
            codes: section(Some(blocks))?,
            vectors: section(count(counts.vectors).checked_mul(row))?,
            records: section(usize::try_from(counts.records).ok())?,
        };
        Some((sections, end))
    }
}

/// How many there is of everything, as the header says it.
#[derive(Default)]
pub(super) struct Counts {
    pub people: u32,
    pub faces: u32,
    pub vectors: u32,
    pub rows: u32,
    pub dimension: u32,
    pub model: u32,
    pub external_ids: u32,
    pub records: u64,
}

pub(super) fn header(counts: &Counts, length: usize, digest: &[u8]) -> [u8; HEADER] {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    let fields = [
        LAYOUT,
        counts.people,
        counts.faces,
        counts.vectors,
        counts.rows,
        counts.dimension,
        counts.model,
        counts.external_ids,
    ];
    header.extend_from_slice(&little_endian(&fields));
    header.extend_from_slice(&counts.records.to_le_bytes());
    header.extend_from_slice(digest);
    let check = Sha256::digest(&header);
    header.extend_from_slice(&check[..8]);
    header.extend_from_slice(&(length as u64).to_le_bytes());
    let mut padded = [0; HEADER];
    padded[..header.len()].copy_from_slice(&header);
    padded
}

/// One person's places in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub id: PersonId,
    pub record_at: u64,
    pub record_length: u32,
    pub vectors_at: u32,
    pub vectors: u32,
    pub rows_at: u32,
    pub rows: u32,
    pub faces: u32,
}

impl Entry {
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id.to_bytes());
        to.extend_from_slice(&self.record_at.to_le_bytes());
        let places = [
            self.record_length,
            self.vectors_at,
            self.vectors,
            self.rows_at,
            self.rows,
            self.faces,
        ];
        to.extend_from_slice(&little_endian(&places));
    }

    pub fn read(bytes: &[u8]) -> Self {
        let id: [u8; 16] = std::array::from_fn(|at| bytes[at]);
        let place = |n: usize| u32_at(bytes, 24 + 4 * n);
        Self {
            id: PersonId::from_bytes(id),
            record_at: u64_at(bytes, 16),
            record_length: place(0),
            vectors_at: place(1),
            vectors: place(2),
            rows_at: place(3),
            rows: place(4),
            faces: place(5),
        }
    }
}

/// Keys ascending by their hash.
pub(super) fn keys(mut keys: Vec<(u64, u32)>) -> Vec<u8> {
    keys.sort_unstable();
    let bytes = keys
        .iter()
        .flat_map(|(hash, position)| hash.to_le_bytes().into_iter().chain(position.to_le_bytes()));
    bytes.collect()
}

pub(super) fn little_endian(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

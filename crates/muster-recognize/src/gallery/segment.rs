//! A segment: some people of a gallery in one immutable piece of bytes, used where it stands.
//!
//! A header, then these sections, each at a multiple of 64 bytes: the model's name; one entry a
//! person, ascending by id; the people by the hash of their name and of their external id; which
//! vector each row is, and whose; the rows' codes; the vectors as little-endian `f32`; and what
//! else is known of each person, as JSON. A row is a vector that probes are compared with.
//!
//! Invariant: bytes that [`Segment::verify`] accepted once do not change.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codes::{BLOCK, Coder};
use super::index::rows;
use super::person::{Person, PersonId};
use crate::embed::Embedding;

const MAGIC: [u8; 8] = *b"MUSTERSG";
/// The layout that this build writes, and the only one it reads.
const LAYOUT: u32 = 1;
const HEADER: usize = 128;
const ALIGNMENT: usize = 64;
/// Of the header, what its own check covers.
const CHECKED: usize = 80;
/// Id, place and length of the record, first vector, vectors, first row, rows, faces.
const ENTRY: usize = 16 + 8 + 6 * 4;
/// Hash and position.
const KEY: usize = 8 + 4;

/// Why bytes are no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Not a segment, or cut off, or changed.
    #[error("the bytes are damaged")]
    Damaged,
    /// Another version of Muster wrote it.
    #[error("it has the layout {found}, this build reads {LAYOUT}")]
    Layout {
        /// Its layout.
        found: u32,
    },
}

/// What a person's record holds: all but the vectors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    person: Cow<'a, Person>,
    /// The positions of the faces that have no vector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<u32>,
}

/// Where the sections are, and how many there is of everything.
#[derive(Clone, Debug)]
struct Sections {
    dimension: usize,
    people: usize,
    faces: usize,
    rows: usize,
    model: Range<usize>,
    entries: Range<usize>,
    names: Range<usize>,
    external_ids: Range<usize>,
    row_vectors: Range<usize>,
    row_people: Range<usize>,
    codes: Range<usize>,
    vectors: Range<usize>,
    records: Range<usize>,
}

impl Sections {
    /// The sections of these sizes, and the length of the whole. `None` where it overflows.
    fn new(counts: &Counts) -> Option<(Self, usize)> {
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
                .checked_mul(Coder::block_bytes(dimension))?,
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
struct Counts {
    people: u32,
    faces: u32,
    vectors: u32,
    rows: u32,
    dimension: u32,
    model: u32,
    external_ids: u32,
    records: u64,
}

/// The bytes of a segment, in memory or mapped from a file.
#[derive(Debug)]
pub(super) enum Bytes {
    Held(Vec<u8>),
    Mapped(memmap2::Mmap),
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// Some people, where they stand.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Bytes,
    sections: Sections,
}

/// One person's places in a segment.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: PersonId,
    record_at: u64,
    record_length: u32,
    vectors_at: u32,
    vectors: u32,
    rows_at: u32,
    rows: u32,
    faces: u32,
}

impl Segment {
    /// Opens bytes of which [`Segment::verify`] is known to hold. Reads no more than the header.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(bytes: Bytes) -> Result<Self, SegmentError> {
        let slice = bytes.as_slice();
        let header = slice.get(..HEADER).ok_or(SegmentError::Damaged)?;
        if header[..8] != MAGIC {
            return Err(SegmentError::Damaged);
        }
        let layout = u32_at(header, 8);
        if layout != LAYOUT {
            return Err(SegmentError::Layout { found: layout });
        }
        if header[CHECKED..][..8] != Sha256::digest(&header[..CHECKED])[..8] {
            return Err(SegmentError::Damaged);
        }
        let field = |n: usize| u32_at(header, 12 + 4 * n);
        let counts = Counts {
            people: field(0),
            faces: field(1),
            vectors: field(2),
            rows: field(3),
            dimension: field(4),
            model: field(5),
            external_ids: field(6),
            records: u64_at(header, 40),
        };
        let (sections, length) = Sections::new(&counts).ok_or(SegmentError::Damaged)?;
        if length != slice.len() {
            return Err(SegmentError::Damaged);
        }
        Ok(Self { bytes, sections })
    }

    /// Checks every byte, as they come from the object store.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`].
    pub fn verify(&self) -> Result<(), SegmentError> {
        let bytes = self.bytes.as_slice();
        let found = Sha256::digest(&bytes[HEADER..]);
        if bytes[48..CHECKED] == found[..] {
            Ok(())
        } else {
            Err(SegmentError::Damaged)
        }
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the content.
    pub fn digest(&self) -> String {
        let digest = &self.bytes.as_slice()[48..56];
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes people, who must be ascending by id, so that `model` compares them.
    pub fn build(model: Option<&str>, people: Vec<Cow<'_, Person>>) -> Self {
        let model = model.unwrap_or_default();
        let embedding = |face: usize, person: &Person| {
            let embedding = person.faces[face].embeddings.by(model);
            embedding.map(Embedding::dimension)
        };
        let dimension = people
            .iter()
            .find_map(|person| (0..person.faces.len()).find_map(|face| embedding(face, person)));
        let dimension = dimension.unwrap_or(0);
        let mut counts = Counts {
            people: people.len() as u32,
            dimension: dimension as u32,
            model: model.len() as u32,
            ..Counts::default()
        };
        let mut entries = Vec::with_capacity(people.len() * ENTRY);
        let (mut names, mut external_ids) = (Vec::new(), Vec::new());
        let (mut row_vectors, mut row_people) = (Vec::<u32>::new(), Vec::<u32>::new());
        let mut vectors: Vec<Embedding> = Vec::new();
        let mut records = Vec::new();
        for (position, person) in people.into_iter().enumerate() {
            let position = position as u32;
            names.push((hash(&person.name), position));
            if let Some(external_id) = &person.external_id {
                external_ids.push((hash(external_id), position));
            }
            let (first_vector, first_row) = (vectors.len(), row_vectors.len());
            let compared = rows(&person, model);
            let mut compared: Vec<Embedding> = compared.cloned().collect();
            compared.retain(|row| row.dimension() == dimension);
            let mut person = person.into_owned();
            let mut without = Vec::new();
            for (face, enrolled) in person.faces.iter_mut().enumerate() {
                match enrolled.embeddings.by(model) {
                    Some(made) if made.dimension() == dimension => {
                        vectors.push(made.clone());
                        enrolled.embeddings.forget(model);
                    }
                    _ => without.push(face as u32),
                }
            }
            let faces = vectors.len() - first_vector;
            for row in compared {
                let same = vectors[first_vector..]
                    .iter()
                    .position(|vector| *vector == row);
                let vector = same.map_or(vectors.len(), |same| first_vector + same);
                if same.is_none() {
                    vectors.push(row);
                }
                row_vectors.push(vector as u32);
                row_people.push(position);
            }
            let record_at = records.len();
            let entry = Entry {
                id: person.id,
                record_at: record_at as u64,
                record_length: 0,
                vectors_at: first_vector as u32,
                vectors: faces as u32,
                rows_at: first_row as u32,
                rows: (row_vectors.len() - first_row) as u32,
                faces: person.faces.len() as u32,
            };
            let record = Record {
                person: Cow::Owned(person),
                without,
            };
            serde_json::to_writer(&mut records, &record).expect("a person has only string keys");
            let record_length = (records.len() - record_at) as u32;
            counts.faces += entry.faces;
            Entry {
                record_length,
                ..entry
            }
            .write(&mut entries);
        }
        counts.vectors = vectors.len() as u32;
        counts.rows = row_vectors.len() as u32;
        counts.external_ids = external_ids.len() as u32;
        counts.records = records.len() as u64;
        let (sections, length) = Sections::new(&counts).expect("what fits into memory fits");
        let mut bytes = vec![0; length];
        let mut put =
            |at: &Range<usize>, content: &[u8]| bytes[at.clone()].copy_from_slice(content);
        put(&sections.model, model.as_bytes());
        put(&sections.entries, &entries);
        put(&sections.names, &keys(names));
        put(&sections.external_ids, &keys(external_ids));
        put(&sections.row_vectors, &little_endian(&row_vectors));
        put(&sections.row_people, &little_endian(&row_people));
        if dimension > 0 {
            let rows = row_vectors
                .iter()
                .map(|row| vectors[*row as usize].as_slice());
            put(&sections.codes, &Coder::new(dimension).code(rows));
        }
        for (vector, at) in vectors
            .iter()
            .zip(sections.vectors.clone().step_by(4 * dimension.max(1)))
        {
            put(&(at..at + 4 * dimension), &vector.to_bytes());
        }
        put(&sections.records, &records);
        let digest = Sha256::digest(&bytes[HEADER..]);
        let header = header(&counts, length, &digest);
        bytes[..HEADER].copy_from_slice(&header);
        let bytes = Bytes::Held(bytes);
        Self { bytes, sections }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// How many people there are.
    pub fn people(&self) -> usize {
        self.sections.people
    }

    /// How many faces they have together.
    pub fn faces(&self) -> usize {
        self.sections.faces
    }

    /// How many vectors probes are compared with.
    pub fn rows(&self) -> usize {
        self.sections.rows
    }

    /// How many values a vector has; 0 where there is none.
    pub fn dimension(&self) -> usize {
        self.sections.dimension
    }

    /// The rows' codes.
    pub fn codes(&self) -> &[u8] {
        self.section(&self.sections.codes)
    }

    /// The row's values.
    pub fn row(&self, row: u32) -> &[[u8; 4]] {
        let vector = u32_at(self.section(&self.sections.row_vectors), 4 * row as usize);
        self.vector(vector)
    }

    /// The position of the person whose row it is.
    pub fn row_person(&self, row: u32) -> u32 {
        u32_at(self.section(&self.sections.row_people), 4 * row as usize)
    }

    /// The rows of the person at a position.
    pub fn rows_of(&self, position: u32) -> Range<u32> {
        let entry = self.entry(position);
        entry.rows_at..entry.rows_at + entry.rows
    }

    /// The faces of the person at a position.
    pub fn faces_of(&self, position: u32) -> usize {
        self.entry(position).faces as usize
    }

    /// The id of the person at a position.
    pub fn id(&self, position: u32) -> PersonId {
        self.entry(position).id
    }

    /// The first position whose person has that id or one after it, and whether it is that id.
    pub fn position(&self, id: PersonId) -> (u32, bool) {
        let (mut low, mut high) = (0, self.people() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.id(middle).cmp(&id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return (middle, true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The positions of people who may have that name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = u32> {
        find(self.section(&self.sections.names), hash(name))
    }

    /// The positions of people who may have that external id.
    pub fn external(&self, external_id: &str) -> impl Iterator<Item = u32> {
        find(self.section(&self.sections.external_ids), hash(external_id))
    }

    /// Everything about the person at a position.
    pub fn person(&self, position: u32) -> Person {
        let entry = self.entry(position);
        let records = self.section(&self.sections.records);
        let record = &records[entry.record_at as usize..][..entry.record_length as usize];
        let record: Record =
            serde_json::from_slice(record).expect("every byte was verified when it was fetched");
        let mut person = record.person.into_owned();
        let model = self.section(&self.sections.model);
        let model = std::str::from_utf8(model).expect("the bytes were verified");
        let mut vectors = entry.vectors_at..entry.vectors_at + entry.vectors;
        for (face, enrolled) in person.faces.iter_mut().enumerate() {
            if record.without.contains(&(face as u32)) {
                continue;
            }
            let Some(vector) = vectors.next() else { break };
            let embedding = Embedding::from_bytes(self.vector(vector).as_flattened());
            let embedding = embedding.expect("the bytes were verified, and were an embedding");
            enrolled.embeddings.put(model, embedding);
        }
        person
    }

    fn vector(&self, vector: u32) -> &[[u8; 4]] {
        let bytes = 4 * self.sections.dimension;
        let vectors = self.section(&self.sections.vectors);
        vectors[vector as usize * bytes..][..bytes].as_chunks().0
    }

    fn section(&self, section: &Range<usize>) -> &[u8] {
        &self.bytes.as_slice()[section.clone()]
    }

    fn entry(&self, position: u32) -> Entry {
        let at = position as usize * ENTRY;
        Entry::read(&self.section(&self.sections.entries)[at..at + ENTRY])
    }
}

impl Entry {
    fn write(&self, to: &mut Vec<u8>) {
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

    fn read(bytes: &[u8]) -> Self {
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

fn header(counts: &Counts, length: usize, digest: &[u8]) -> [u8; HEADER] {
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

/// A hash that stays the same from build to build (FNV-1a, 64 bits).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Keys ascending by their hash.
fn keys(mut keys: Vec<(u64, u32)>) -> Vec<u8> {
    keys.sort_unstable();
    let bytes = keys
        .iter()
        .flat_map(|(hash, position)| hash.to_le_bytes().into_iter().chain(position.to_le_bytes()));
    bytes.collect()
}

/// The positions under a hash.
fn find(keys: &[u8], hash: u64) -> impl Iterator<Item = u32> {
    let (keys, _) = keys.as_chunks::<KEY>();
    let first = keys.partition_point(|key| u64_at(key, 0) < hash);
    let same = keys[first..]
        .iter()
        .take_while(move |key| u64_at(*key, 0) == hash);
    same.map(|key| u32_at(key, 8))
}

fn little_endian(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests;

//! A segment: some people of a gallery in one immutable piece of bytes.
//!
//! A header, then these sections, each at a multiple of 64 bytes: the model's name; one entry a
//! person, ascending by id; the people by the hash of their name's key and of their external id; which
//! vector each row is, and whose; the rows' codes; the vectors as little-endian `f32`; and what
//! else is known of each person, as JSON. A row is a vector that probes are compared with.
//!
//! What every search looks at, all that comes before the vectors, is in memory. The vectors and the
//! records may stay in a file, from which those are read that a search or a look ends up with.
//!
//! Invariant: what [`Segment::verify`] accepted once does not change, or is not handed out: what a
//! file holds is checked each time that it is read.

mod build;
mod layout;
mod rest;

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

use muster_jobs::{Embedding, cosine_le, name_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::layout::{
    CHECKED, Counts, ENTRY, EXACT_NAMES, Entry, HEADER, KEY, LAYOUT, MAGIC, Sections, u32_at,
    u64_at,
};
use self::rest::Rest;
use super::person::{Person, PersonId};

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

/// Some people, where they stand.
#[derive(Debug)]
pub(super) struct Segment {
    /// All of it, or what comes before the vectors where the rest is in a file.
    bytes: Vec<u8>,
    sections: Sections,
    rest: Option<Rest>,
    /// The vectors of a rest, once all of them were compared.
    vectors: OnceLock<Vec<u8>>,
    /// The people by the hash of their name's key, where the segment has another section for that:
    /// read from the records when somebody is first looked up by name.
    read_names: Option<OnceLock<Vec<u8>>>,
}

impl Segment {
    /// Opens bytes of which [`Segment::verify`] is known to hold. Reads no more than the header.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(bytes: Vec<u8>) -> Result<Self, SegmentError> {
        let header = bytes.get(..HEADER).ok_or(SegmentError::Damaged)?;
        if header[..8] != MAGIC {
            return Err(SegmentError::Damaged);
        }
        let layout = u32_at(header, 8);
        if !matches!(layout, EXACT_NAMES | LAYOUT) {
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
        if length != bytes.len() {
            return Err(SegmentError::Damaged);
        }
        Ok(Self {
            bytes,
            sections,
            rest: None,
            vectors: OnceLock::new(),
            read_names: (layout == EXACT_NAMES).then(OnceLock::new),
        })
    }

    /// Checks every byte, as they come from the object store.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`].
    pub fn verify(&self) -> Result<(), SegmentError> {
        let found = Sha256::digest(&self.bytes[HEADER..]);
        if self.bytes[48..CHECKED] == found[..] {
            Ok(())
        } else {
            Err(SegmentError::Damaged)
        }
    }

    /// Leaves the vectors and the records in a file that has the verified bytes.
    #[must_use]
    pub fn leave_in(mut self, file: File) -> Self {
        let width = self.vector_bytes().max(1);
        let vectors = self.section(&self.sections.vectors).chunks_exact(width);
        let records = (0..self.people() as u32).map(|at| &self.bytes[self.record_at(at)]);
        self.rest = Some(Rest::new(file, vectors.chain(records)));
        self.bytes.truncate(self.sections.vectors.start);
        self.bytes.shrink_to_fit();
        self
    }

    /// Whether everything that was read so far is as it was verified. Of a segment of which it is not,
    /// people were left out of what was found.
    pub fn is_intact(&self) -> bool {
        !self.rest.as_ref().is_some_and(Rest::is_damaged)
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the content.
    pub fn digest(&self) -> String {
        let digest = &self.bytes[48..56];
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes that are in memory: all of them, until [`Segment::leave_in`].
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The model whose embeddings the rows are; empty where there was none.
    pub fn model(&self) -> &str {
        let model = self.section(&self.sections.model);
        std::str::from_utf8(model).expect("the bytes were verified, and were a name")
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

    /// The row's cosine similarity to a probe; `None` where the row is damaged.
    pub fn similarity(&self, row: u32, probe: &Embedding) -> Option<f32> {
        let vector = u32_at(self.section(&self.sections.row_vectors), 4 * row as usize);
        let values = self.vectors(vector..vector + 1)?;
        Some(cosine_le(values.as_chunks().0, probe.as_slice()))
    }

    /// Keeps all vectors in memory, for searches that compare every one.
    pub fn keep_vectors(&self) {
        if self.rest.is_some()
            && self.vectors.get().is_none()
            && let Some(all) = self.vectors(0..self.sections.vectors_count())
        {
            let _ = self.vectors.set(all.into_owned());
        }
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

    /// The positions of people whose name may have that key ([`name_key`]).
    pub fn named(&self, key: &str) -> impl Iterator<Item = u32> {
        let names = match &self.read_names {
            None => self.section(&self.sections.names),
            Some(names) => match names.get() {
                Some(names) => names.as_slice(),
                None => match self.read_names() {
                    Some(read) => names.get_or_init(|| read).as_slice(),
                    None => &[],
                },
            },
        };
        find(names, hash(key))
    }

    fn read_names(&self) -> Option<Vec<u8>> {
        #[derive(Deserialize)]
        struct Named {
            person: Name,
        }
        #[derive(Deserialize)]
        struct Name {
            name: String,
        }
        let key = |position: u32| {
            let Named { person } = self.record(position)?;
            Some((hash(&name_key(&person.name)), position))
        };
        let keys: Option<_> = (0..self.people() as u32).map(key).collect();
        keys.map(layout::keys)
    }

    /// The positions of people who may have that external id.
    pub fn external(&self, external_id: &str) -> impl Iterator<Item = u32> {
        find(self.section(&self.sections.external_ids), hash(external_id))
    }

    /// Everything about the person at a position; `None` where that is damaged.
    pub fn person(&self, position: u32) -> Option<Person> {
        let record: Record = self.record(position)?;
        let mut person = record.person.into_owned();
        let mut made = self.embeddings(position)?.into_iter();
        for (face, enrolled) in (0..).zip(&mut person.faces) {
            if !record.without.contains(&face)
                && let Some(embedding) = made.next()
            {
                enrolled.embeddings.put(self.model(), embedding);
            }
        }
        Some(person)
    }

    fn record<R: DeserializeOwned>(&self, position: u32) -> Option<R> {
        let at = self.record_at(position);
        let piece = self.sections.vectors_count() as usize + position as usize;
        let record = self.read(at.clone(), at.len(), piece)?;
        Some(serde_json::from_slice(&record).expect("every byte is as it was verified"))
    }

    fn record_at(&self, position: u32) -> Range<usize> {
        let entry = self.entry(position);
        let start = self.sections.records.start + entry.record_at as usize;
        start..start + entry.record_length as usize
    }

    /// What the segment's model made of the faces of the person at a position, in the order of
    /// enrolment; `None` where that is damaged.
    pub fn embeddings(&self, position: u32) -> Option<Vec<Embedding>> {
        let entry = self.entry(position);
        let vectors = self.vectors(entry.vectors_at..entry.vectors_at + entry.vectors)?;
        let made = vectors.chunks_exact(self.vector_bytes().max(1));
        let made = made
            .map(|values| Embedding::from_bytes(values).expect("every byte is as it was verified"));
        Some(made.collect())
    }

    fn vector_bytes(&self) -> usize {
        4 * self.sections.dimension
    }

    fn vectors(&self, vectors: Range<u32>) -> Option<Cow<'_, [u8]>> {
        let width = self.vector_bytes();
        let at = vectors.start as usize * width..vectors.end as usize * width;
        if let Some(all) = self.vectors.get() {
            return Some(Cow::Borrowed(&all[at]));
        }
        let start = self.sections.vectors.start;
        let at = start + at.start..start + at.end;
        self.read(at, width, vectors.start as usize)
    }

    /// Reads pieces of the rest, wherever it is.
    fn read(&self, at: Range<usize>, length: usize, first: usize) -> Option<Cow<'_, [u8]>> {
        match &self.rest {
            None => Some(Cow::Borrowed(&self.bytes[at])),
            Some(rest) => rest.read(at, length, first).map(Cow::Owned),
        }
    }

    fn section(&self, section: &Range<usize>) -> &[u8] {
        &self.bytes[section.clone()]
    }

    fn entry(&self, position: u32) -> Entry {
        let at = position as usize * ENTRY;
        Entry::read(&self.section(&self.sections.entries)[at..at + ENTRY])
    }
}

/// A hash that stays the same from build to build (FNV-1a, 64 bits).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
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

#[cfg(test)]
mod tests;

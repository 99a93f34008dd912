//! A segment: some people of a gallery in one immutable piece of bytes, used where it stands.
//!
//! A header, then these sections, each at a multiple of 64 bytes: the model's name; one entry a
//! person, ascending by id; the people by the hash of their name's key and of their external id; which
//! vector each row is, and whose; the rows' codes; the vectors as little-endian `f32`; and what
//! else is known of each person, as JSON. A row is a vector that probes are compared with.
//!
//! Invariant: bytes that [`Segment::verify`] accepted once do not change.

mod build;
mod layout;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use muster_jobs::{Embedding, name_key};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::layout::{
    CHECKED, Counts, ENTRY, EXACT_NAMES, Entry, HEADER, KEY, LAYOUT, MAGIC, Sections, u32_at,
    u64_at,
};
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

/// The bytes of a segment, in memory or mapped from a file.
#[derive(Debug)]
pub(super) enum Bytes {
    Held(Vec<u8>),
    Mapped(MappedFile),
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Mapped(file) => &file.map,
        }
    }
}

/// A file that is mapped, and how it was then.
#[derive(Debug)]
pub(super) struct MappedFile {
    map: memmap2::Mmap,
    file: File,
    mapped: Stamp,
}

/// The length of a file and when it was last written.
type Stamp = (u64, i64, i64);

impl MappedFile {
    /// The file, which `map` is of.
    ///
    /// # Errors
    /// When it can not be looked at.
    pub fn new(file: File, map: memmap2::Mmap) -> io::Result<Self> {
        let mapped = stamp(&file)?;
        Ok(Self { map, file, mapped })
    }

    /// Whether nobody has written to the file or shortened it.
    fn is_intact(&self) -> bool {
        stamp(&self.file).is_ok_and(|now| now == self.mapped && now.0 == self.map.len() as u64)
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let found = file.metadata()?;
    Ok((found.len(), found.mtime(), found.mtime_nsec()))
}

/// Some people, where they stand.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Bytes,
    sections: Sections,
    /// The people by the hash of their name's key, where the segment has another section for that:
    /// read from the records when somebody is first looked up by name.
    read_names: Option<OnceLock<Vec<u8>>>,
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
        if length != slice.len() {
            return Err(SegmentError::Damaged);
        }
        Ok(Self {
            bytes,
            sections,
            read_names: (layout == EXACT_NAMES).then(OnceLock::new),
        })
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

    /// Whether the bytes are still those that were verified. Nothing else may be read of a segment of
    /// which they are not: the end of a file that was shortened is not there any more.
    pub fn is_intact(&self) -> bool {
        match &self.bytes {
            Bytes::Held(_) => true,
            Bytes::Mapped(file) => file.is_intact(),
        }
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the content.
    pub fn digest(&self) -> String {
        let digest = &self.bytes.as_slice()[48..56];
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
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

    /// The positions of people whose name may have that key ([`name_key`]).
    pub fn named(&self, key: &str) -> impl Iterator<Item = u32> {
        let names = match &self.read_names {
            None => self.section(&self.sections.names),
            Some(names) => names.get_or_init(|| self.read_names()),
        };
        find(names, hash(key))
    }

    fn read_names(&self) -> Vec<u8> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            person: Name<'a>,
        }
        #[derive(Deserialize)]
        struct Name<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
        }
        let key = |position: u32| {
            let Named { person } = self.record(position);
            (hash(&name_key(&person.name)), position)
        };
        layout::keys((0..self.people() as u32).map(key).collect())
    }

    /// The positions of people who may have that external id.
    pub fn external(&self, external_id: &str) -> impl Iterator<Item = u32> {
        find(self.section(&self.sections.external_ids), hash(external_id))
    }

    /// Everything about the person at a position.
    pub fn person(&self, position: u32) -> Person {
        let record: Record = self.record(position);
        let mut person = record.person.into_owned();
        let mut made = self.embeddings(position);
        for (face, enrolled) in (0..).zip(&mut person.faces) {
            if !record.without.contains(&face)
                && let Some(embedding) = made.next()
            {
                enrolled.embeddings.put(self.model(), embedding);
            }
        }
        person
    }

    fn record<'a, R: Deserialize<'a>>(&'a self, position: u32) -> R {
        let entry = self.entry(position);
        let records = self.section(&self.sections.records);
        let record = &records[entry.record_at as usize..][..entry.record_length as usize];
        serde_json::from_slice(record).expect("every byte was verified when it was fetched")
    }

    /// What the segment's model made of the faces of the person at a position, in the order of
    /// enrolment.
    pub fn embeddings(&self, position: u32) -> impl Iterator<Item = Embedding> {
        let entry = self.entry(position);
        (entry.vectors_at..entry.vectors_at + entry.vectors).map(|vector| {
            let embedding = Embedding::from_bytes(self.vector(vector).as_flattened());
            embedding.expect("the bytes were verified, and were an embedding")
        })
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

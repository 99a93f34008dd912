//! Writing a segment.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use muster_jobs::{Embedding, name_key};
use sha2::{Digest, Sha256};

use super::layout::{self, Counts, ENTRY, Entry, HEADER, Sections, keys, little_endian};
use super::{Record, Segment, hash};
use crate::codes::Quantizer;
use crate::person::Person;
use crate::template;

impl Segment {
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
            names.push((hash(&name_key(&person.name)), position));
            if let Some(external_id) = &person.external_id {
                external_ids.push((hash(external_id), position));
            }
            let (first_vector, first_row) = (vectors.len(), row_vectors.len());
            let compared = template::rows(&person, model).into_iter();
            let mut compared: Vec<Embedding> = compared.cloned().collect();
            compared.retain(|row| row.dimension() == dimension);
            let mut person = person.into_owned();
            let mut without = Vec::new();
            for (face, enrolled) in person.faces.iter_mut().enumerate() {
                match enrolled.embeddings.take(model) {
                    Some(made) if made.dimension() == dimension => vectors.push(made),
                    made => {
                        if let Some(made) = made {
                            enrolled.embeddings.put(model, made);
                        }
                        without.push(face as u32);
                    }
                }
            }
            let faces = vectors.len() - first_vector;
            for row in compared {
                let mut faces = (first_vector..).zip(&vectors[first_vector..]);
                let same = faces.find(|(_, vector)| **vector == row);
                row_vectors.push(same.expect("a row is one of the faces").0 as u32);
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
            put(&sections.codes, &Quantizer::new(dimension).encode(rows));
        }
        for (vector, at) in vectors
            .iter()
            .zip(sections.vectors.clone().step_by(4 * dimension.max(1)))
        {
            put(&(at..at + 4 * dimension), &vector.to_bytes());
        }
        put(&sections.records, &records);
        let digest = Sha256::digest(&bytes[HEADER..]);
        let header = layout::header(&counts, length, &digest);
        bytes[..HEADER].copy_from_slice(&header);
        Self {
            bytes,
            sections,
            rest: None,
            vectors: OnceLock::new(),
            read_names: None,
        }
    }
}

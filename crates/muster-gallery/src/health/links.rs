//! Faces that reach the cutoff for somebody else, and what follows when they are moved there.

use std::collections::HashMap;

use muster_jobs::Embedding;

use super::findings::{Mislabelled, Named, Pair};
use crate::gallery::Gallery;
use crate::person::{EnrolledFace, FaceId, Person, PersonId};

/// Faces of one person that a mean is taken over, at most.
const FACES: usize = 32;

/// Everybody's faces, as far as a link needs them.
pub struct Links<'a> {
    gallery: &'a Gallery,
    model: &'a str,
    cutoff: f32,
    people: HashMap<PersonId, Group>,
    links: Vec<Link>,
}

/// A person's faces, those moved away or here included.
struct Group {
    named: Named,
    faces: Vec<(FaceId, Embedding)>,
}

impl Group {
    /// Mean similarity to the faces other than that one; `None` without others.
    fn mean(&self, face: FaceId, embedding: &Embedding) -> Option<f32> {
        let others = self.faces.iter().filter(|(other, _)| *other != face);
        mean(others.take(FACES).map(|(_, other)| other.cosine(embedding)))
    }
}

fn mean(values: impl Iterator<Item = f32>) -> Option<f32> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (count > 0).then(|| sum / count as f32)
}

struct Link {
    face: FaceId,
    file: String,
    embedding: Embedding,
    from: PersonId,
    to: PersonId,
    /// How much more similar the face is to the other; `None` where it is not mislabelled.
    found: Option<(f32, f32)>,
}

impl<'a> Links<'a> {
    /// No links yet.
    pub fn new(gallery: &'a Gallery, model: &'a str, cutoff: f32) -> Self {
        Self {
            gallery,
            model,
            cutoff,
            people: HashMap::new(),
            links: Vec::new(),
        }
    }

    /// A face that reaches the cutoff for another.
    pub fn add(&mut self, person: &Person, face: &EnrolledFace, other: &Person) {
        self.load(person);
        self.load(other);
        if let Some(embedding) = face.embeddings.by(self.model) {
            self.links.push(Link {
                face: face.id,
                file: face.file.clone(),
                embedding: embedding.clone(),
                from: person.id,
                to: other.id,
                found: None,
            });
        }
    }

    fn load(&mut self, person: &Person) {
        let model = self.model;
        self.people.entry(person.id).or_insert_with(|| {
            let faces = person.faces.iter();
            Group {
                named: Named::of(person),
                faces: faces
                    .filter_map(|face| Some((face.id, face.embeddings.by(model)?.clone())))
                    .collect(),
            }
        });
    }

    fn judge(&self, link: &Link) -> Option<(f32, f32)> {
        let (from, to) = (&self.people[&link.from], &self.people[&link.to]);
        let own = from.mean(link.face, &link.embedding)?;
        let other = to.mean(link.face, &link.embedding)?;
        // Its friend there may have been moved away.
        let reaches = to
            .faces
            .iter()
            .any(|(_, face)| face.cosine(&link.embedding) >= self.cutoff);
        (reaches && other > own && own < self.cutoff).then_some((own, other))
    }

    /// Moves the clearest until none is left; answers them, clearest first.
    pub fn resolve(&mut self) -> Vec<Mislabelled> {
        let mut found = Vec::new();
        let mut changed: Option<(PersonId, PersonId)> = None;
        loop {
            for n in 0..self.links.len() {
                let link = &self.links[n];
                let touched = changed.is_none_or(|(a, b)| {
                    [link.from, link.to].iter().any(|id| *id == a || *id == b)
                });
                if touched {
                    self.links[n].found = self.judge(&self.links[n]);
                }
            }
            let clearest = self.links.iter().enumerate().filter_map(|(n, link)| {
                let (own, other) = link.found?;
                Some((n, own, other))
            });
            let Some((n, own, other)) = clearest.max_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)))
            else {
                break;
            };
            let link = self.links.swap_remove(n);
            // Moved once: its other links are of no interest any more.
            self.links.retain(|other| other.face != link.face);
            if let Some(from) = self.people.get_mut(&link.from) {
                from.faces.retain(|(face, _)| *face != link.face);
            }
            if let Some(to) = self.people.get_mut(&link.to) {
                to.faces.push((link.face, link.embedding));
            }
            found.push(Mislabelled {
                face: link.face,
                file: link.file,
                person: self.people[&link.from].named.clone(),
                looks_like: self.people[&link.to].named.clone(),
                to_own: own,
                to_other: other,
                score: other - own,
            });
            changed = Some((link.from, link.to));
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found
    }

    /// How alike two people are, with the likely mislabelled faces where they belong; `None` where
    /// one has no faces left.
    pub fn pair(&mut self, first: PersonId, second: PersonId, nearest: f32) -> Option<Pair> {
        for id in [first, second] {
            let person = self.gallery.person(id)?;
            self.load(&person);
        }
        let (a, b) = (&self.people[&first], &self.people[&second]);
        let all = a.faces.iter().take(FACES).flat_map(|(_, face)| {
            let others = b.faces.iter().take(FACES);
            others.map(move |(_, other)| other.cosine(face))
        });
        Some(Pair {
            first: a.named.clone(),
            second: b.named.clone(),
            nearest,
            score: mean(all)?,
        })
    }
}

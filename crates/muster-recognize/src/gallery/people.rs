//! The gallery: who is enrolled, and who is nearest to a probe.
//!
//! Most people stand in segments ([`super::segment`]), which are used where they are; those who
//! changed since the segments were written are in memory and take precedence.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::index::{self, EXACT_UP_TO, Flat, Place};
use super::parts::{self, Part};
use super::person::{Change, Person, PersonId};
use crate::embed::Embedding;

/// A person near a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Who.
    pub person: Cow<'a, Person>,
    /// Cosine similarity between the probe and this person's nearest face.
    pub similarity: f32,
}

/// What a gallery knows beside its people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Standing {
    /// The model whose embeddings are compared; `None` until somebody is enrolled.
    pub model: Option<String>,
    /// The model that faces are being re-embedded for.
    pub migrating_to: Option<String>,
}

/// What a gallery was read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    /// The number of the manifest; 0 before the first.
    pub sequence: u64,
    /// The version that the segments were written at.
    pub version: u64,
    pub parts: Vec<Part>,
}

/// Everyone enrolled, at one version. Cheap to clone: the segments are shared.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    version: u64,
    standing: Standing,
    base: Base,
    /// Those who changed since; nobody of them is alive in a part.
    recent: BTreeMap<PersonId, Person>,
    names: HashMap<String, PersonId>,
    external_ids: HashMap<String, PersonId>,
    flat: Flat,
}

impl PartialEq for Gallery {
    /// Whether both have the same people at the same version.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.standing == other.standing
            && self.people().eq(other.people())
    }
}

impl Gallery {
    /// The gallery as it was written into segments.
    pub(super) fn restore(standing: Standing, base: Base) -> Self {
        Self {
            version: base.version,
            standing,
            base,
            ..Self::default()
        }
    }

    /// The gallery of these people, matched by that model: version 1.
    pub fn of(model: &str, people: Vec<Person>) -> Self {
        let standing = Standing {
            model: Some(model.to_owned()),
            migrating_to: None,
        };
        let mut gallery = Self {
            version: 1,
            standing,
            ..Self::default()
        };
        for person in people {
            gallery.name(&person);
            gallery.recent.insert(person.id, person);
        }
        gallery.index_recent();
        gallery
    }

    /// Applies the change that leads to `version`.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        let forgets = self.forgets(&change);
        self.version = version;
        match change {
            Change::Put(person) => self.put(person, forgets),
            Change::Remove(id) => {
                if self.take(id, forgets).is_some() {
                    self.index_recent();
                }
            }
            Change::Migrate { to } => self.standing.migrating_to = Some(to),
            Change::Embed(made) => {
                for made in made {
                    let Some(mut person) = self.take(made.person, false) else {
                        continue;
                    };
                    let mut all = person.embeddings_mut();
                    if let Some((_, embeddings)) = all.find(|(source, _)| *source == made.source) {
                        for (model, embedding) in made.embeddings.iter() {
                            embeddings.put(model, embedding.clone());
                        }
                    }
                    drop(all);
                    self.name(&person);
                    self.recent.insert(person.id, person);
                }
                self.index_recent();
            }
            Change::CutOver { to } => {
                self.standing.migrating_to = None;
                self.standing.model = Some(to);
                self.base.parts = parts::rebuild(&self.base.parts, self.model(), |_| ());
                self.index_recent();
            }
            Change::Forget { model } => {
                if self.standing.migrating_to.as_ref() == Some(&model) {
                    self.standing.migrating_to = None;
                }
                let forget = |person: &mut Person| {
                    for (_, embeddings) in person.embeddings_mut() {
                        embeddings.forget(&model);
                    }
                };
                self.recent.values_mut().for_each(forget);
                self.base.parts = parts::rebuild(&self.base.parts, self.model(), forget);
                self.index_recent();
            }
        }
    }

    fn put(&mut self, person: Person, forgets: bool) {
        if self.standing.model.is_none() {
            let mut made = person.faces.iter().flat_map(|face| face.embeddings.iter());
            self.standing.model = made.next().map(|(model, _)| model.to_owned());
        }
        let was_recent = self.recent.contains_key(&person.id);
        self.take(person.id, forgets);
        self.name(&person);
        if was_recent {
            self.recent.insert(person.id, person);
            self.index_recent();
        } else {
            if let Some(model) = &self.standing.model {
                self.flat.add(&person, model);
            }
            self.recent.insert(person.id, person);
        }
    }

    /// Takes a person out of wherever they stand. The recent index is not changed.
    fn take(&mut self, id: PersonId, forget: bool) -> Option<Person> {
        let recent = self.recent.remove(&id);
        if let Some(person) = &recent {
            self.names.remove(&person.name);
            if let Some(external_id) = &person.external_id {
                self.external_ids.remove(external_id);
            }
        }
        let standing = recent.or_else(|| self.person_of_parts(id));
        for part in &mut self.base.parts {
            part.bury(id, forget);
        }
        standing
    }

    fn name(&mut self, person: &Person) {
        self.names.insert(person.name.clone(), person.id);
        if let Some(external_id) = &person.external_id {
            self.external_ids.insert(external_id.clone(), person.id);
        }
    }

    fn index_recent(&mut self) {
        self.flat = Flat::default();
        if let Some(model) = &self.standing.model {
            for person in self.recent.values() {
                self.flat.add(person, model);
            }
        }
    }

    /// Whether after the change something must be gone that older objects of the log still hold.
    pub(super) fn forgets(&self, change: &Change) -> bool {
        match change {
            Change::Remove(_) | Change::Forget { .. } => true,
            Change::Put(person) => self.person(person.id).is_some_and(|before| {
                before.embeddings().any(|(source, _)| {
                    let mut kept = person.embeddings();
                    !kept.any(|(still, _)| still == source)
                })
            }),
            Change::Migrate { .. } | Change::Embed(_) | Change::CutOver { .. } => false,
        }
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// The segments that this version of the gallery needs; those that are not stored have no id.
    pub(super) fn compacted(&self) -> Vec<Part> {
        parts::compact(&self.base.parts, self.recent.values(), self.model())
    }

    /// How many changes led here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The model whose embeddings are compared; `None` until somebody is enrolled.
    pub fn model(&self) -> Option<&str> {
        self.standing.model.as_deref()
    }

    /// The model that faces are being re-embedded for, while a migration is under way.
    pub fn migrating_to(&self) -> Option<&str> {
        self.standing.migrating_to.as_deref()
    }

    /// Everyone, in the order of enrolment.
    pub fn people(&self) -> impl Iterator<Item = Cow<'_, Person>> {
        self.after(None)
    }

    /// Those enrolled after that person, or from the first on, `limit` at most.
    pub fn page(&self, after: Option<PersonId>, limit: usize) -> Vec<Cow<'_, Person>> {
        self.after(after).take(limit).collect()
    }

    fn after(&self, after: Option<PersonId>) -> impl Iterator<Item = Cow<'_, Person>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut recent = self.recent.range((from, Bound::Unbounded)).peekable();
        let first = |part: &Part| match after.map(|after| part.segment.position(after)) {
            Some((position, found)) => part.next(position + u32::from(found)),
            None => part.next(0),
        };
        // Each part's next person.
        let mut heads: Vec<Option<u32>> = self.base.parts.iter().map(first).collect();
        std::iter::from_fn(move || {
            let parts = self.base.parts.iter().zip(&heads).enumerate();
            let ids = parts.filter_map(|(n, (part, head))| Some((part.segment.id((*head)?), n)));
            let standing = ids.min();
            match (standing, recent.peek()) {
                (Some((id, n)), other) if other.is_none_or(|(other, _)| id < **other) => {
                    let part = &self.base.parts[n];
                    let position = heads[n]?;
                    heads[n] = part.next(position + 1);
                    Some(Cow::Owned(part.segment.person(position)))
                }
                _ => recent.next().map(|(_, person)| Cow::Borrowed(person)),
            }
        })
    }

    /// How many people there are.
    pub fn people_count(&self) -> usize {
        self.recent.len() + self.base.parts.iter().map(Part::count).sum::<usize>()
    }

    /// The person of that id.
    pub fn person(&self, id: PersonId) -> Option<Cow<'_, Person>> {
        match self.recent.get(&id) {
            Some(person) => Some(Cow::Borrowed(person)),
            None => self.person_of_parts(id).map(Cow::Owned),
        }
    }

    fn person_of_parts(&self, id: PersonId) -> Option<Person> {
        let mut parts = self.base.parts.iter();
        parts.find_map(|part| Some(part.segment.person(part.position(id)?)))
    }

    /// The person of that name.
    pub fn named(&self, name: &str) -> Option<Cow<'_, Person>> {
        if let Some(id) = self.names.get(name) {
            return self.person(*id);
        }
        self.base.parts.iter().find_map(|part| {
            let mut living = part
                .segment
                .named(name)
                .filter(|at| !part.dead.contains(at));
            let person = living.find_map(|at| {
                let person = part.segment.person(at);
                (person.name == name).then_some(person)
            });
            person.map(Cow::Owned)
        })
    }

    /// The person whom the operator gave that id.
    pub fn external(&self, external_id: &str) -> Option<Cow<'_, Person>> {
        if let Some(id) = self.external_ids.get(external_id) {
            return self.person(*id);
        }
        self.base.parts.iter().find_map(|part| {
            let found = part.segment.external(external_id);
            let mut living = found.filter(|at| !part.dead.contains(at));
            let person = living.find_map(|at| {
                let person = part.segment.person(at);
                (person.external_id.as_deref() == Some(external_id)).then_some(person)
            });
            person.map(Cow::Owned)
        })
    }

    /// How many faces all people have together.
    pub fn faces(&self) -> usize {
        let recent: usize = self.recent.values().map(|person| person.faces.len()).sum();
        recent + self.base.parts.iter().map(Part::faces).sum::<usize>()
    }

    /// The `count` people nearest to the probe, nearest first, each by their nearest face.
    ///
    /// Every face is compared as long as there are 20,000 or fewer. Beyond, those are whose codes
    /// of a quarter of a byte a dimension promise the most; the similarities are exact all the
    /// same. `cargo bench --workspace --bench gallery` measures how often the nearest is found.
    pub fn nearest(&self, probe: &Embedding, count: usize) -> Vec<Candidate<'_>> {
        self.nearest_of(probe, count, EXACT_UP_TO)
    }

    /// The same by comparing every face, however many there are: what [`Gallery::nearest`] is
    /// measured against.
    pub fn nearest_exactly(&self, probe: &Embedding, count: usize) -> Vec<Candidate<'_>> {
        self.nearest_of(probe, count, usize::MAX)
    }

    fn nearest_of(&self, probe: &Embedding, count: usize, exact: usize) -> Vec<Candidate<'_>> {
        let parts = &self.base.parts;
        let nearest = index::nearest(parts, &self.flat, probe, count, exact).into_iter();
        let candidate = |(place, similarity)| Candidate {
            person: match place {
                Place::Recent(id) => Cow::Borrowed(&self.recent[&id]),
                Place::Part(part, at) => Cow::Owned(parts[usize::from(part)].segment.person(at)),
            },
            similarity,
        };
        nearest.map(candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gallery::{Denial, DenialId, Embeddings, EnrolledFace, Reembedded, Source};

    /// A person whose faces have these directions, in five dimensions.
    fn person(number: usize, directions: &[Vec<f32>]) -> Person {
        let face = |values: &Vec<f32>| {
            let embedding = Embedding::normalise(values).unwrap();
            EnrolledFace::new(String::new(), Embeddings::of("sface", embedding), 0)
        };
        Person {
            external_id: Some(format!("key-{number}")),
            ..Person::new(number.to_string(), directions.iter().map(face).collect(), 0)
        }
    }

    fn direction() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-1.0f32..1.0, 5).prop_filter("a direction", |values| {
            values.iter().any(|value| value.abs() > 0.01)
        })
    }

    proptest! {
        #[test]
        fn the_nearest_are_those_of_a_full_comparison(
            people in prop::collection::vec(prop::collection::vec(direction(), 1..4), 0..12),
            removed in prop::collection::vec(any::<bool>(), 12),
            probe in direction(),
            count in 1usize..6,
        ) {
            let mut gallery = Gallery::default();
            let all: Vec<Person> =
                people.iter().enumerate().map(|(n, faces)| person(n, faces)).collect();
            for (n, person) in all.iter().enumerate() {
                gallery.apply(n as u64 + 1, Change::Put(person.clone()));
            }
            for (person, removed) in all.iter().zip(&removed) {
                if *removed {
                    gallery.apply(gallery.version() + 1, Change::Remove(person.id));
                }
            }
            let probe = Embedding::normalise(&probe).unwrap();
            let best = |person: &Person| {
                let faces = person.faces.iter();
                faces.map(|face| face.embeddings.by("sface").unwrap().cosine(&probe)).fold(-1.0, f32::max)
            };
            let mut expected: Vec<f32> = gallery.people().map(|person| best(&person)).collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(count);
            let found = gallery.nearest(&probe, count);
            prop_assert_eq!(found.iter().map(|c| c.similarity).collect::<Vec<_>>(), expected.clone());
            for candidate in found {
                prop_assert_eq!(candidate.similarity, best(&candidate.person));
            }
            let base = Base {
                sequence: 1,
                version: gallery.version(),
                parts: gallery.compacted(),
            };
            let restored = Gallery::restore(gallery.standing.clone(), base);
            prop_assert_eq!(&restored, &gallery);
            prop_assert_eq!(gallery.nearest(&probe, count).len(),
                restored.nearest(&probe, count).len());
            for gallery in [&gallery, &restored] {
                let shortlisted = gallery.nearest_of(&probe, count, 0);
                let similarities = shortlisted.iter().map(|c| c.similarity);
                prop_assert_eq!(similarities.collect::<Vec<_>>(), expected.clone());
                for (n, (person, removed)) in all.iter().zip(&removed).enumerate() {
                    let expected = (!removed).then_some(person.id);
                    prop_assert_eq!(gallery.named(&person.name).map(|p| p.id), expected);
                    let key = format!("key-{n}");
                    prop_assert_eq!(gallery.external(&key).map(|p| p.id), expected);
                }
            }
        }

        #[test]
        fn pages_together_are_everyone(count in 0usize..20, limit in 1usize..7) {
            let mut gallery = Gallery::default();
            for n in 0..count {
                gallery.apply(n as u64 + 1, Change::Put(person(n, &[vec![1.0; 5]])));
            }
            let mut seen = Vec::new();
            loop {
                let page = gallery.page(seen.last().copied(), limit);
                if page.is_empty() {
                    break;
                }
                seen.extend(page.iter().map(|person| person.id));
            }
            let everyone: Vec<_> = gallery.people().map(|person| person.id).collect();
            prop_assert_eq!(seen, everyone);
        }
    }

    #[test]
    fn a_renamed_person_is_found_by_the_new_name_alone() {
        let mut gallery = Gallery::default();
        let mut anna = person(1, &[vec![1.0, 0.0]]);
        gallery.apply(1, Change::Put(anna.clone()));
        anna.name = "Anna".to_owned();
        anna.external_id = None;
        gallery.apply(2, Change::Put(anna.clone()));
        assert_eq!(gallery.named("Anna").map(|p| p.id), Some(anna.id));
        assert_eq!(
            (gallery.named("1"), gallery.external("key-1")),
            (None, None)
        );
    }

    #[test]
    fn a_migration_changes_what_is_compared_only_at_the_cut_over() {
        let mut gallery = Gallery::default();
        let mut anna = person(1, &[vec![1.0, 0.0]]);
        let denied = Embeddings::of("sface", Embedding::normalise(&[0.9, 0.1]).unwrap());
        anna.denials.push(Denial {
            id: DenialId::new(),
            request_id: String::new(),
            face: 0,
            embeddings: denied,
            at_ms: 0,
        });
        gallery.apply(1, Change::Put(anna.clone()));
        assert_eq!(gallery.model(), Some("sface"));
        let to = || "other".to_owned();
        gallery.apply(2, Change::Migrate { to: to() });
        let made = Embedding::normalise(&[0.0, 0.0, 1.0]).unwrap();
        let reembedded = |source| Reembedded {
            person: anna.id,
            source,
            embeddings: Embeddings::of("other", made.clone()),
        };
        let sources: Vec<Source> = anna.embeddings().map(|(source, _)| source).collect();
        assert_eq!(sources.len(), 2);
        let gone = Reembedded {
            person: PersonId::new(),
            ..reembedded(sources[0])
        };
        let all = sources
            .iter()
            .map(|source| reembedded(*source))
            .chain([gone]);
        gallery.apply(3, Change::Embed(all.collect()));
        let similarity =
            |gallery: &Gallery, probe: &Embedding| gallery.nearest(probe, 1)[0].similarity;
        let old = Embedding::normalise(&[1.0, 0.0]).unwrap();
        assert_eq!(similarity(&gallery, &old), 1.0);
        assert_eq!(gallery.migrating_to(), Some("other"));
        gallery.apply(4, Change::CutOver { to: to() });
        assert_eq!(
            (gallery.model(), gallery.migrating_to()),
            (Some("other"), None)
        );
        assert_eq!(similarity(&gallery, &made), 1.0);
        assert_eq!(similarity(&gallery, &old), 0.0, "another model's");
        gallery.apply(
            5,
            Change::CutOver {
                to: "sface".to_owned(),
            },
        );
        assert_eq!(similarity(&gallery, &old), 1.0, "the way back");
        let forget = Change::Forget { model: to() };
        assert!(gallery.forgets(&forget));
        gallery.apply(6, forget);
        let left = gallery.person(anna.id).unwrap().into_owned();
        assert!(
            left.embeddings()
                .all(|(_, made)| made.by("other").is_none())
        );
    }

    #[test]
    fn a_change_forgets_when_it_drops_a_face_or_a_person() {
        let mut gallery = Gallery::default();
        let anna = person(1, &[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!(!gallery.forgets(&Change::Put(anna.clone())));
        gallery.apply(1, Change::Put(anna.clone()));
        let mut fewer = anna.clone();
        fewer.faces.pop();
        assert!(gallery.forgets(&Change::Put(fewer)));
        let mut more = anna.clone();
        more.faces
            .push(person(2, &[vec![1.0, 1.0]]).faces.remove(0));
        assert!(!gallery.forgets(&Change::Put(more)));
        assert!(gallery.forgets(&Change::Remove(anna.id)));
    }
}

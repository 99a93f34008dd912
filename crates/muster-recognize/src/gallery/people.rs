//! The gallery in memory: who is enrolled, and who is nearest to a probe.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::person::{Change, Person, PersonId};
use crate::embed::{Embedding, cosine};
use crate::template;

/// People whose faces tell which models' embeddings are kept.
const KEPT_MODELS_SAMPLED: usize = 8;

/// A person near a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Who.
    pub person: Cow<'a, Person>,
    /// Cosine similarity between the probe and this person's nearest face.
    pub similarity: f32,
}

/// Everyone enrolled, at one version.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    version: u64,
    model: Option<String>,
    people: BTreeMap<PersonId, Person>,
    names: HashMap<String, PersonId>,
    external_ids: HashMap<String, PersonId>,
    index: Index,
}

impl PartialEq for Gallery {
    /// Whether both have the same people at the same version.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.model == other.model && self.people == other.people
    }
}

/// Every embedding that probes are compared with, one after the other in memory: a search reads it
/// front to back.
#[derive(Clone, Debug, Default)]
struct Index {
    values: Vec<f32>,
    /// Whose each is and how many values it has; a person's stand together.
    rows: Vec<(PersonId, usize)>,
}

impl Index {
    fn add(&mut self, person: &Person, model: &str) {
        for embedding in template::rows(person, model) {
            let values = embedding.as_slice();
            self.values.extend_from_slice(values);
            self.rows.push((person.id, values.len()));
        }
    }

    /// Calls `found` with each person's greatest similarity to the probe.
    fn search(&self, probe: &Embedding, mut found: impl FnMut(PersonId, f32)) {
        let mut rest = self.values.as_slice();
        let mut best: Option<(PersonId, f32)> = None;
        for &(person, length) in &self.rows {
            let (values, after) = rest.split_at(length);
            rest = after;
            let similarity = cosine(values, probe.as_slice());
            best = Some(match best {
                Some((same, before)) if same == person => (same, before.max(similarity)),
                Some((other, before)) => {
                    found(other, before);
                    (person, similarity)
                }
                None => (person, similarity),
            });
        }
        if let Some((person, similarity)) = best {
            found(person, similarity);
        }
    }
}

impl Gallery {
    /// The gallery of these people, as it was at that version.
    pub(super) fn restore(version: u64, model: Option<String>, people: Vec<Person>) -> Self {
        let mut gallery = Self {
            version,
            model,
            ..Self::default()
        };
        for person in people {
            gallery.name(&person);
            gallery.people.insert(person.id, person);
        }
        gallery.rebuild_index();
        gallery
    }

    /// The gallery of these people, matched by that model: version 1.
    pub fn of(model: &str, people: Vec<Person>) -> Self {
        Self::restore(1, Some(model.to_owned()), people)
    }

    /// Applies the change that leads to `version`.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        match change {
            Change::Put(person) => self.put(person),
            Change::UseModel(model) => {
                self.model = Some(model);
                self.rebuild_index();
            }
            Change::Remove(id) => {
                if let Some(person) = self.people.remove(&id) {
                    self.unname(&person);
                    self.rebuild_index();
                }
            }
        }
    }

    fn put(&mut self, person: Person) {
        if self.model.is_none() {
            let mut made = person.faces.iter().flat_map(|face| face.embeddings.iter());
            self.model = made.next().map(|(model, _)| model.to_owned());
        }
        let id = person.id;
        let before = self.people.remove(&id);
        if let Some(before) = &before {
            self.unname(before);
        }
        self.name(&person);
        self.people.insert(id, person);
        if before.is_some() {
            self.rebuild_index();
        } else if let Some(model) = &self.model {
            self.index.add(&self.people[&id], model);
        }
    }

    fn name(&mut self, person: &Person) {
        self.names.insert(person.name.clone(), person.id);
        if let Some(external_id) = &person.external_id {
            self.external_ids.insert(external_id.clone(), person.id);
        }
    }

    fn unname(&mut self, person: &Person) {
        self.names.remove(&person.name);
        if let Some(external_id) = &person.external_id {
            self.external_ids.remove(external_id);
        }
    }

    fn rebuild_index(&mut self) {
        self.index = Index::default();
        if let Some(model) = &self.model {
            for person in self.people.values() {
                self.index.add(person, model);
            }
        }
    }

    /// Whether after the change something must be gone that older objects of the log still hold.
    pub(super) fn forgets(&self, change: &Change) -> bool {
        match change {
            Change::Remove(_) => true,
            Change::UseModel(_) => false,
            Change::Put(person) => self.people.get(&person.id).is_some_and(|before| {
                let mut before = before.kept();
                before.any(|made| !person.kept().any(|kept| kept == made))
            }),
        }
    }

    /// How many changes led here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The model whose embeddings are compared; `None` until somebody is enrolled.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The models that newly enrolled faces are embedded with: the gallery's, and whichever the
    /// first people's faces have an embedding of besides, after a change of the model and until the
    /// old one is forgotten.
    pub fn kept_models(&self) -> BTreeSet<String> {
        let faces = self.people().take(KEPT_MODELS_SAMPLED);
        let mut kept: BTreeSet<String> = self.model.iter().cloned().collect();
        for person in faces {
            for face in &person.faces {
                kept.extend(face.embeddings.iter().map(|(model, _)| model.to_owned()));
            }
        }
        kept
    }

    /// Everyone, in the order of enrolment.
    pub fn people(&self) -> impl Iterator<Item = Cow<'_, Person>> {
        self.people.values().map(Cow::Borrowed)
    }

    /// Those enrolled after that person, or from the first on, `limit` at most.
    pub fn page(&self, after: Option<PersonId>, limit: usize) -> Vec<Cow<'_, Person>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let people = self.people.range((from, Bound::Unbounded)).take(limit);
        people.map(|(_, person)| Cow::Borrowed(person)).collect()
    }

    /// How many people there are.
    pub fn people_count(&self) -> usize {
        self.people.len()
    }

    /// The person of that id.
    pub fn person(&self, id: PersonId) -> Option<Cow<'_, Person>> {
        self.people.get(&id).map(Cow::Borrowed)
    }

    /// The person of that name.
    pub fn named(&self, name: &str) -> Option<Cow<'_, Person>> {
        self.person(*self.names.get(name)?)
    }

    /// The person whom the operator gave that id.
    pub fn external(&self, external_id: &str) -> Option<Cow<'_, Person>> {
        self.person(*self.external_ids.get(external_id)?)
    }

    /// How many faces all people have together.
    pub fn faces(&self) -> usize {
        self.people.values().map(|person| person.faces.len()).sum()
    }

    /// The `count` people nearest to the probe, nearest first, each by their nearest face.
    ///
    /// Exact: every face that stands for its person ([`template::rows`]) is compared, in
    /// O(faces x dimensions).
    pub fn nearest(&self, probe: &Embedding, count: usize) -> Vec<Candidate<'_>> {
        let mut nearest: Vec<(PersonId, f32)> = Vec::with_capacity(count + 1);
        self.index.search(probe, |person, similarity| {
            let place = nearest.partition_point(|(_, nearer)| *nearer >= similarity);
            if place < count {
                nearest.insert(place, (person, similarity));
                nearest.truncate(count);
            }
        });
        nearest
            .into_iter()
            .map(|(id, similarity)| Candidate {
                person: Cow::Borrowed(&self.people[&id]),
                similarity,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gallery::{Denial, DenialId, Embeddings, EnrolledFace};

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
                template::similarity(&template::rows(person, "sface"), &probe).unwrap()
            };
            let mut expected: Vec<f32> = gallery.people().map(|person| best(&person)).collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(count);
            let found = gallery.nearest(&probe, count);
            prop_assert_eq!(found.iter().map(|c| c.similarity).collect::<Vec<_>>(), expected);
            for candidate in found {
                prop_assert_eq!(candidate.similarity, best(&candidate.person));
            }
            let people = gallery.people().map(Cow::into_owned).collect();
            let restored = Gallery::restore(gallery.version(), gallery.model.clone(), people);
            prop_assert_eq!(&restored, &gallery);
            prop_assert_eq!(gallery.nearest(&probe, count).len(),
                restored.nearest(&probe, count).len());
            for gallery in [&gallery, &restored] {
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
    fn a_change_of_the_model_is_one_step_and_so_is_the_way_back() {
        let mut gallery = Gallery::default();
        let mut people = [person(0, &[vec![1.0, 0.0]]), person(1, &[vec![0.0, 1.0]])];
        for (n, person) in people.iter().enumerate() {
            gallery.apply(n as u64 + 1, Change::Put(person.clone()));
        }
        assert_eq!(people[0].lacking("other").count(), 1);
        // To the other model the two look the other way round.
        for (person, other) in people.iter_mut().zip([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]) {
            for (_, embeddings) in person.embeddings_mut() {
                let made = Embedding::normalise(&other).unwrap();
                *embeddings = embeddings.clone().with("other", made);
            }
            assert_eq!(person.lacking("other").count(), 0);
            gallery.apply(gallery.version() + 1, Change::Put(person.clone()));
        }
        let kept: Vec<String> = gallery.kept_models().into_iter().collect();
        assert_eq!(kept, ["other", "sface"]);
        let nearest = |gallery: &Gallery, probe: &[f32]| {
            let probe = Embedding::normalise(probe).unwrap();
            gallery.nearest(&probe, 1)[0].person.name.clone()
        };
        assert_eq!(nearest(&gallery, &[1.0, 0.0]), "0");
        gallery.apply(5, Change::UseModel("other".to_owned()));
        assert_eq!(gallery.model(), Some("other"));
        assert_eq!(nearest(&gallery, &[1.0, 0.0, 0.0]), "1");
        gallery.apply(6, Change::UseModel("sface".to_owned()));
        assert_eq!(nearest(&gallery, &[1.0, 0.0]), "0");
        let mut bare = people[0].clone();
        assert!(!gallery.forgets(&Change::Put(bare.clone())));
        for (_, embeddings) in bare.embeddings_mut() {
            *embeddings = embeddings.clone().without("other");
        }
        assert_eq!(
            bare.faces[0].embeddings,
            Embeddings::of("sface", Embedding::normalise(&[1.0, 0.0]).unwrap())
        );
        assert!(gallery.forgets(&Change::Put(bare)));
    }

    #[test]
    fn only_embeddings_of_the_gallerys_model_are_compared() {
        let mut gallery = Gallery::default();
        let anna = person(1, &[vec![1.0, 0.0]]);
        gallery.apply(1, Change::Put(anna.clone()));
        assert_eq!(gallery.model(), Some("sface"));
        let probe = Embedding::normalise(&[0.0, 1.0]).unwrap();
        let embeddings = Embeddings::of("other", probe.clone());
        let face = EnrolledFace::new(String::new(), embeddings, 0);
        gallery.apply(2, Change::Put(Person::new("Ben".to_owned(), vec![face], 0)));
        let nearest = gallery.nearest(&probe, 5);
        assert_eq!(nearest.len(), 1, "Ben's is another model's");
        assert_eq!(
            (nearest[0].person.id, nearest[0].similarity),
            (anna.id, 0.0)
        );
    }

    #[test]
    fn the_likest_denial_counts() {
        let mut anna = person(1, &[vec![1.0, 0.0]]);
        let probe = Embedding::normalise(&[0.0, 1.0]).unwrap();
        assert_eq!(anna.nearest_denial("sface", &probe), None);
        for direction in [[1.0, 0.0], [0.0, 1.0]] {
            let denied = Embedding::normalise(&direction).unwrap();
            anna.denials.push(Denial {
                id: DenialId::new(),
                request_id: String::new(),
                face: 0,
                embeddings: Embeddings::of("sface", denied),
                at_ms: 0,
            });
        }
        assert_eq!(anna.nearest_denial("sface", &probe), Some(1.0));
        assert_eq!(anna.nearest_denial("other", &probe), None);
        let mut forgiven = anna.clone();
        forgiven.denials.pop();
        let mut gallery = Gallery::default();
        gallery.apply(1, Change::Put(anna));
        assert!(
            gallery.forgets(&Change::Put(forgiven)),
            "its embedding must go"
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

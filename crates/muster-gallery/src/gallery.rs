//! The gallery: who is enrolled, and who is nearest to a probe.
//!
//! Most people stand in segments ([`super::segment`]); those who changed since the segments were
//! written are in memory and take precedence.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;

use muster_jobs::{Embedding, name_key};

use crate::compaction;
use crate::index::{self, EXACT_UP_TO, FlatIndex, Place};
use crate::live_segment::LiveSegment;
use crate::person::{Change, Person, PersonId};
use crate::segment::SegmentError;

/// People whose faces tell which models' embeddings are kept.
const KEPT_MODELS_SAMPLED: usize = 8;

/// A person near a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour<'a> {
    /// Who.
    pub person: Cow<'a, Person>,
    /// Cosine similarity between the probe and this person's nearest face.
    pub similarity: f32,
}

/// What a gallery was read from, as its manifest names it.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The number of the manifest; 0 before the first.
    pub sequence: u64,
    /// The version that the segments were written at.
    pub version: u64,
    pub segments: Vec<LiveSegment>,
}

/// Everyone enrolled, at one version. Cheap to clone: the segments are shared.
///
/// Where something else than Muster wrote to a segment's file while it is in use, the people whose part
/// it hit are left out of whatever is found: look through [`Gallery::look`], which tells.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    version: u64,
    /// The model whose embeddings are compared; `None` until somebody is enrolled.
    model: Option<String>,
    snapshot: Snapshot,
    /// Those who changed since; nobody of them is alive in a part.
    recent: BTreeMap<PersonId, Person>,
    /// Ids by the key of the name: people of before may be several of one name.
    names: HashMap<String, BTreeSet<PersonId>>,
    external_ids: HashMap<String, PersonId>,
    flat: FlatIndex,
}

impl PartialEq for Gallery {
    /// Whether both have the same people at the same version.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.model == other.model
            && self.people().eq(other.people())
    }
}

impl Gallery {
    /// The gallery as it was written into segments.
    pub(super) fn restore(model: Option<String>, snapshot: Snapshot) -> Self {
        Self {
            version: snapshot.version,
            model,
            snapshot,
            ..Self::default()
        }
    }

    /// The gallery of these people, matched by that model: version 1.
    pub fn of(model: &str, people: Vec<Person>) -> Self {
        let mut gallery = Self {
            version: 1,
            model: Some(model.to_owned()),
            ..Self::default()
        };
        for person in people {
            gallery.index_names(&person);
            gallery.recent.insert(person.id, person);
        }
        gallery.index_recent();
        gallery
    }

    /// Applies the change that leads to `version`.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        let erase = self.must_erase(&change);
        self.version = version;
        match change {
            Change::Put(person) => self.put(person, erase),
            Change::UseModel(model) => {
                self.model = Some(model);
                self.index_recent();
            }
            Change::Remove(id) => {
                if self.take_out(id, erase) {
                    self.index_recent();
                }
            }
        }
    }

    fn put(&mut self, person: Person, erase: bool) {
        if self.model.is_none() {
            let mut made = person.faces.iter().flat_map(|face| face.embeddings.iter());
            self.model = made.next().map(|(model, _)| model.to_owned());
        }
        let was_recent = self.take_out(person.id, erase);
        self.index_names(&person);
        if let Some(model) = self.model.as_deref().filter(|_| !was_recent) {
            self.flat.add(&person, model);
        }
        self.recent.insert(person.id, person);
        if was_recent {
            self.index_recent();
        }
    }

    /// Takes a person out of wherever they stand, and says whether that was among the recent ones,
    /// whose index is not changed.
    fn take_out(&mut self, id: PersonId, erase: bool) -> bool {
        for segment in &mut self.snapshot.segments {
            segment.add_tombstone(id, erase);
        }
        let Some(person) = self.recent.remove(&id) else {
            return false;
        };
        let key = name_key(&person.name);
        if let Some(namesakes) = self.names.get_mut(&key) {
            namesakes.remove(&id);
            if namesakes.is_empty() {
                self.names.remove(&key);
            }
        }
        if let Some(external_id) = &person.external_id {
            self.external_ids.remove(external_id);
        }
        true
    }

    fn index_names(&mut self, person: &Person) {
        let namesakes = self.names.entry(name_key(&person.name)).or_default();
        namesakes.insert(person.id);
        if let Some(external_id) = &person.external_id {
            self.external_ids.insert(external_id.clone(), person.id);
        }
    }

    fn index_recent(&mut self) {
        self.flat = FlatIndex::default();
        if let Some(model) = &self.model {
            for person in self.recent.values() {
                self.flat.add(person, model);
            }
        }
    }

    /// Whether the gallery is as that change makes it.
    pub(super) fn reflects(&self, change: &Change) -> bool {
        match change {
            Change::Put(person) => self.person(person.id).as_deref() == Some(person),
            Change::Remove(id) => self.person(*id).is_none(),
            Change::UseModel(model) => self.model() == Some(model),
        }
    }

    /// Whether after the change something must be gone that older objects of the log still hold.
    pub(super) fn must_erase(&self, change: &Change) -> bool {
        match change {
            Change::Remove(_) => true,
            Change::UseModel(_) => false,
            Change::Put(person) => {
                let less = self.person(person.id).is_some_and(|before| {
                    let mut before = before.kept();
                    before.any(|made| !person.kept().any(|kept| kept == made))
                });
                // Of what can not be read any more nothing may stay.
                less || !self.is_intact()
            }
        }
    }

    /// Whether it is of a later version, or of the same one with later segments.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let age = |gallery: &Self| (gallery.version, gallery.snapshot.sequence);
        age(self) > age(other)
    }

    /// Whether everything that was read of it so far is as it was verified. One of which it is not
    /// is read anew from the store.
    pub(super) fn is_intact(&self) -> bool {
        let mut segments = self.snapshot.segments.iter();
        segments.all(|live| live.segment.is_intact())
    }

    /// Runs `look`, of which the outcome counts only where everything that was read is as it was
    /// verified.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] where it is not.
    pub fn look<T>(&self, look: impl FnOnce(&Self) -> T) -> Result<T, SegmentError> {
        let seen = look(self);
        match self.is_intact() {
            true => Ok(seen),
            false => Err(SegmentError::Damaged),
        }
    }

    /// Those who may have changed since a copy of before; `None` where segments were written since,
    /// which everybody may be in.
    pub fn changed_since(&self, before: &Self) -> Option<impl Iterator<Item = &Person>> {
        let same = self.snapshot.sequence == before.snapshot.sequence;
        same.then(|| self.recent.values())
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The segments that this version of the gallery needs; those that are not stored have no id.
    pub(super) fn compacted(&self) -> Vec<LiveSegment> {
        compaction::compact(&self.snapshot.segments, self.recent.values(), self.model())
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
        self.people_at(self.places(None))
    }

    /// One in `step` of everyone, from the first on.
    pub fn every_nth(&self, step: usize) -> impl Iterator<Item = Cow<'_, Person>> {
        self.people_at(self.places(None).step_by(step))
    }

    /// Those enrolled after that person, or from the first on, `limit` at most.
    pub fn page(&self, after: Option<PersonId>, limit: usize) -> Vec<Cow<'_, Person>> {
        self.people_at(self.places(after).take(limit)).collect()
    }

    /// What the gallery's model made of the faces of up to `count` people, by the hashes of their ids,
    /// of which those are the smallest.
    ///
    /// So the sample is of people of all times, and changes only where one of them does.
    pub fn sample(&self, count: usize) -> Vec<(u64, Vec<Embedding>)> {
        let recent = self.recent.keys().map(|id| (*id, Place::Recent(*id)));
        let parts = 0..self.snapshot.segments.len() as u16;
        let stored = parts.flat_map(|part| {
            let people = self.live_segment(part).live_people();
            people.map(move |(id, at)| (id, Place::Segment(part, at)))
        });
        let mut smallest: Vec<(u64, Place)> = Vec::new();
        let mut bound = u64::MAX;
        for (id, place) in recent.chain(stored) {
            let hash = id.sampling_hash();
            if hash > bound || count == 0 {
                continue;
            }
            smallest.push((hash, place));
            if smallest.len() == 2 * count {
                bound = smallest
                    .select_nth_unstable_by_key(count - 1, |one| one.0)
                    .1
                    .0;
                smallest.truncate(count);
            }
        }
        smallest.sort_unstable_by_key(|one| one.0);
        smallest.truncate(count);
        let smallest = smallest.into_iter();
        smallest
            .filter_map(|(hash, place)| Some((hash, self.embeddings_at(place)?)))
            .collect()
    }

    /// What the gallery's model made of a person's faces, in the order of enrolment.
    fn embeddings_at(&self, place: Place) -> Option<Vec<Embedding>> {
        let model = self.model().unwrap_or_default();
        match place {
            Place::Segment(part, at) if self.live_segment(part).segment.model() == model => {
                self.live_segment(part).segment.embeddings(at)
            }
            place => Some(self.person_at(place)?.embeddings(model).cloned().collect()),
        }
    }

    /// Where the people stand who were enrolled after that one, in the order of enrolment.
    fn places(&self, after: Option<PersonId>) -> impl Iterator<Item = Place> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut recent = self.recent.range((from, Bound::Unbounded));
        let mut next_recent = move || Some(Reverse((*recent.next()?.0, None)));
        let next_of = |number: u16, position: u32| {
            let live = self.live_segment(number);
            let position = live.next_live(position)?;
            Some(Reverse((
                live.segment.id(position),
                Some((number, position)),
            )))
        };
        // The next of each segment and of the recent ones.
        let mut heads: BinaryHeap<_> = (0..self.snapshot.segments.len() as u16)
            .filter_map(|number| {
                let segment = &self.live_segment(number).segment;
                let first = after.map_or(0, |after| {
                    let (position, found) = segment.position(after);
                    position + u32::from(found)
                });
                next_of(number, first)
            })
            .chain(next_recent())
            .collect();
        std::iter::from_fn(move || {
            let Reverse((id, standing)) = heads.pop()?;
            heads.extend(match standing {
                Some((number, position)) => next_of(number, position + 1),
                None => next_recent(),
            });
            Some(match standing {
                Some((number, position)) => Place::Segment(number, position),
                None => Place::Recent(id),
            })
        })
    }

    fn people_at(
        &self,
        places: impl Iterator<Item = Place>,
    ) -> impl Iterator<Item = Cow<'_, Person>> {
        places.filter_map(|place| self.person_at(place))
    }

    fn person_at(&self, place: Place) -> Option<Cow<'_, Person>> {
        match place {
            Place::Recent(id) => Some(Cow::Borrowed(&self.recent[&id])),
            Place::Segment(number, at) => {
                let person = self.live_segment(number).segment.person(at);
                person.map(Cow::Owned)
            }
        }
    }

    fn live_segment(&self, number: u16) -> &LiveSegment {
        &self.snapshot.segments[usize::from(number)]
    }

    /// How many people there are.
    pub fn people_count(&self) -> usize {
        let segments = self.snapshot.segments.iter();
        self.recent.len() + segments.map(LiveSegment::people_count).sum::<usize>()
    }

    /// The person of that id.
    pub fn person(&self, id: PersonId) -> Option<Cow<'_, Person>> {
        match self.recent.get(&id) {
            Some(person) => Some(Cow::Borrowed(person)),
            None => self.person_of_segments(id).map(Cow::Owned),
        }
    }

    fn person_of_segments(&self, id: PersonId) -> Option<Person> {
        let mut segments = self.snapshot.segments.iter();
        segments.find_map(|live| live.segment.person(live.live_position(id)?))
    }

    /// The people of that name, as names are compared ([`name_key`]).
    pub fn named(&self, name: &str) -> impl Iterator<Item = Cow<'_, Person>> {
        let key = name_key(name);
        let recent = self.names.get(&key).into_iter().flatten();
        let recent = recent.map(|id| Cow::Borrowed(&self.recent[id]));
        let stored = self.snapshot.segments.iter().flat_map(move |stored| {
            let found = stored.segment.named(&key).filter(|at| stored.is_live(*at));
            let people = found.filter_map(|at| stored.segment.person(at));
            let namesakes: Vec<_> = people
                .filter(|person| name_key(&person.name) == key)
                .collect();
            namesakes.into_iter().map(Cow::Owned)
        });
        recent.chain(stored)
    }

    /// The person whom the operator gave that id.
    pub fn external(&self, external_id: &str) -> Option<Cow<'_, Person>> {
        if let Some(id) = self.external_ids.get(external_id) {
            return self.person(*id);
        }
        self.snapshot.segments.iter().find_map(|stored| {
            let found = stored.segment.external(external_id);
            let mut live = found.filter(|at| stored.is_live(*at));
            let person = live.find_map(|at| {
                let person = stored.segment.person(at)?;
                (person.external_id.as_deref() == Some(external_id)).then_some(person)
            });
            person.map(Cow::Owned)
        })
    }

    /// How many faces all people have together.
    pub fn faces(&self) -> usize {
        let recent = self.recent.values().map(|person| person.faces.len());
        let segments = self.snapshot.segments.iter();
        recent.sum::<usize>() + segments.map(LiveSegment::face_count).sum::<usize>()
    }

    /// The `count` people nearest to the probe, nearest first, each by the nearest of the faces that
    /// stand for them ([`crate::template::rows`]).
    ///
    /// Every face is compared as long as there are 20,000 or fewer. Beyond, those are whose codes
    /// of a quarter of a byte a dimension promise the most; the similarities are exact all the
    /// same. `make bench-gallery` measures how often the nearest is found.
    pub fn nearest(&self, probe: &Embedding, count: usize) -> Vec<Neighbour<'_>> {
        self.nearest_of(probe, count, EXACT_UP_TO)
    }

    /// The `count` nearest people by comparing every face, however many there are: what
    /// [`Gallery::nearest`] is measured against.
    pub fn nearest_exactly(&self, probe: &Embedding, count: usize) -> Vec<Neighbour<'_>> {
        self.nearest_of(probe, count, usize::MAX)
    }

    fn nearest_of(&self, probe: &Embedding, count: usize, exact: usize) -> Vec<Neighbour<'_>> {
        let Some(model) = self.model() else {
            return Vec::new();
        };
        let parts = &self.snapshot.segments;
        let nearest = index::nearest(parts, &self.flat, model, probe, count, exact);
        let neighbours = nearest.into_iter().filter_map(|(place, similarity)| {
            let person = self.person_at(place)?;
            Some(Neighbour { person, similarity })
        });
        neighbours.collect()
    }
}

#[cfg(test)]
mod tests;

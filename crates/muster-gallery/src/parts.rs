//! The segments that a gallery stands on, and how they are put together anew.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::Living;
use super::person::{Person, PersonId};
use super::segment::Segment;

/// A segment holds up to this many faces: what a removal has to write again, about 12 MB at 128
/// dimensions.
pub(super) const FACES_PER_SEGMENT: usize = 16_384;
/// A segment is written again when more than one in so many of its people are gone.
const DEAD_SHARE: usize = 4;

/// A segment and who of it still counts.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub segment: Arc<Segment>,
    /// The name under which it is stored; `None` while it is only here.
    pub id: Option<String>,
    /// The positions of those who were removed, or who stand elsewhere as they are now.
    pub dead: BTreeSet<u32>,
    /// Whether it holds what must be forgotten.
    pub forget: bool,
}

impl Living for Part {
    fn segment(&self) -> &Segment {
        &self.segment
    }

    fn alive(&self, position: u32) -> bool {
        self.dead.is_empty() || !self.dead.contains(&position)
    }
}

impl Part {
    /// A part that is not stored yet.
    pub fn fresh(segment: Segment) -> Self {
        Self {
            segment: Arc::new(segment),
            id: None,
            dead: BTreeSet::new(),
            forget: false,
        }
    }

    /// The position of the person, dead or alive.
    fn holds(&self, id: PersonId) -> Option<u32> {
        let (position, found) = self.segment.position(id);
        found.then_some(position)
    }

    /// The position of the person as they are now.
    pub fn position(&self, id: PersonId) -> Option<u32> {
        self.holds(id).filter(|position| self.alive(*position))
    }

    /// Says that the person does not stand here any more, and whether to forget that they did.
    pub fn bury(&mut self, id: PersonId, forget: bool) {
        if let Some(position) = self.holds(id) {
            self.dead.insert(position);
            self.forget |= forget;
        }
    }

    /// The people, with their ids, who stand here as they are now.
    pub fn people(&self) -> impl Iterator<Item = (PersonId, u32)> {
        let positions = 0..self.segment.people() as u32;
        let living = positions.filter(|position| self.alive(*position));
        living.map(|position| (self.segment.id(position), position))
    }

    /// How many people stand here as they are now.
    pub fn count(&self) -> usize {
        self.segment.people() - self.dead.len()
    }

    /// How many faces they have.
    pub fn faces(&self) -> usize {
        let dead = self.dead.iter();
        self.segment.faces() - dead.map(|at| self.segment.faces_of(*at)).sum::<usize>()
    }

    /// The first of the people, as they are now, at that position or after it.
    pub fn next(&self, position: u32) -> Option<u32> {
        (position..self.segment.people() as u32).find(|position| self.alive(*position))
    }

    fn worn(&self, model: Option<&str>) -> bool {
        self.forget
            || self.dead.len() * DEAD_SHARE > self.segment.people()
            || self.segment.model() != model.unwrap_or_default()
    }
}

/// Parts and recent people that will be one segment.
#[derive(Default)]
struct Group<'a> {
    parts: Vec<&'a Part>,
    recent: Vec<&'a Person>,
    faces: usize,
}

impl Group<'_> {
    fn join(&mut self, other: Self) {
        self.parts.extend(other.parts);
        self.recent.extend(other.recent);
        self.faces += other.faces;
    }

    fn build(self, model: Option<&str>) -> Option<Part> {
        if let ([part], []) = (&*self.parts, &*self.recent)
            && !part.worn(model)
        {
            return Some(Part::clone(part));
        }
        let recent = self.recent.into_iter().map(Cow::Borrowed);
        let standing = self.parts.iter().flat_map(|part| {
            let people = part.people();
            people.map(|(_, position)| Cow::Owned(part.segment.person(position)))
        });
        let mut people: Vec<Cow<'_, Person>> = standing.chain(recent).collect();
        people.sort_unstable_by_key(|person| person.id);
        (!people.is_empty()).then(|| Part::fresh(Segment::build(model, people)))
    }
}

/// The parts with the recent people among them, and without anything that must be forgotten.
///
/// Segments are joined while the newer is at least half as large as the one before it, so that a
/// face is written again a few times, not with every compaction, and a gallery has few segments.
pub(super) fn compact<'a>(
    parts: &'a [Part],
    recent: impl Iterator<Item = &'a Person>,
    model: Option<&str>,
) -> Vec<Part> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for part in parts {
        groups.push(Group {
            parts: vec![part],
            recent: Vec::new(),
            faces: part.faces(),
        });
        join(&mut groups);
    }
    let mut fresh = Group::default();
    for person in recent {
        if fresh.faces + person.faces.len() > FACES_PER_SEGMENT && !fresh.recent.is_empty() {
            groups.push(std::mem::take(&mut fresh));
        }
        fresh.faces += person.faces.len();
        fresh.recent.push(person);
    }
    if !fresh.recent.is_empty() {
        groups.push(fresh);
        join(&mut groups);
    }
    let built = groups.into_iter().filter_map(|group| group.build(model));
    built.collect()
}

/// Joins the last groups as long as that keeps the number of segments low.
fn join(groups: &mut Vec<Group<'_>>) {
    while let [.., older, newer] = &**groups
        && older.faces <= 2 * newer.faces
        && older.faces + newer.faces <= FACES_PER_SEGMENT
    {
        let newer = groups.pop().expect("there are two");
        groups.last_mut().expect("there is one").join(newer);
    }
}

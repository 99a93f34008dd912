//! A segment of a gallery, and which of its people still count.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_jobs::keys::SegmentId;

use crate::person::PersonId;
use crate::segment::Segment;

/// A segment is written again when more than one in so many of its people are gone.
const TOMBSTONE_SHARE: usize = 4;

/// A segment with its tombstones.
#[derive(Clone, Debug)]
pub(crate) struct LiveSegment {
    pub segment: Arc<Segment>,
    /// The name under which it is stored; `None` while it is only here.
    pub id: Option<SegmentId>,
    /// The positions of those who were removed, or who stand elsewhere as they are now.
    pub tombstones: BTreeSet<u32>,
    /// Whether it holds what must be erased.
    pub erase: bool,
}

impl LiveSegment {
    /// A segment that is not stored yet.
    pub fn fresh(segment: Segment) -> Self {
        Self {
            segment: Arc::new(segment),
            id: None,
            tombstones: BTreeSet::new(),
            erase: false,
        }
    }

    /// Whether the person at that position still counts.
    pub fn is_live(&self, position: u32) -> bool {
        self.tombstones.is_empty() || !self.tombstones.contains(&position)
    }

    /// The position of the person, whether they still count or not.
    fn stored_position(&self, id: PersonId) -> Option<u32> {
        let (position, found) = self.segment.position(id);
        found.then_some(position)
    }

    /// The position of the person as they are now.
    pub fn live_position(&self, id: PersonId) -> Option<u32> {
        self.stored_position(id)
            .filter(|position| self.is_live(*position))
    }

    /// Says that the person does not stand here any more, and whether that they did must be erased.
    pub fn add_tombstone(&mut self, id: PersonId, erase: bool) {
        if let Some(position) = self.stored_position(id) {
            self.tombstones.insert(position);
            self.erase |= erase;
        }
    }

    /// The people, with their ids, who stand here as they are now.
    pub fn live_people(&self) -> impl Iterator<Item = (PersonId, u32)> {
        let positions = 0..self.segment.people() as u32;
        let live = positions.filter(|position| self.is_live(*position));
        live.map(|position| (self.segment.id(position), position))
    }

    /// How many people stand here as they are now.
    pub fn people_count(&self) -> usize {
        self.segment.people() - self.tombstones.len()
    }

    /// How many faces they have.
    pub fn face_count(&self) -> usize {
        let gone = self.tombstones.iter();
        self.segment.faces() - gone.map(|at| self.segment.faces_of(*at)).sum::<usize>()
    }

    /// The first of the people, as they are now, at that position or after it.
    pub fn next_live(&self, position: u32) -> Option<u32> {
        (position..self.segment.people() as u32).find(|position| self.is_live(*position))
    }

    /// Whether it is to be written again.
    pub fn is_due(&self, model: Option<&str>) -> bool {
        self.erase
            || self.tombstones.len() * TOMBSTONE_SHARE > self.segment.people()
            || self.segment.model() != model.unwrap_or_default()
    }
}

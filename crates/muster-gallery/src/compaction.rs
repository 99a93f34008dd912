//! Putting a gallery's segments together anew.

use std::borrow::Cow;

use crate::live_segment::LiveSegment;
use crate::person::Person;
use crate::segment::Segment;

/// A segment holds up to this many faces: what a removal has to write again, about 12 MB at 128
/// dimensions.
const FACES_PER_SEGMENT: usize = 16_384;

/// Segments and recent people that will be one segment.
#[derive(Default)]
struct Group<'a> {
    segments: Vec<&'a LiveSegment>,
    recent: Vec<&'a Person>,
    faces: usize,
}

impl Group<'_> {
    fn join(&mut self, other: Self) {
        self.segments.extend(other.segments);
        self.recent.extend(other.recent);
        self.faces += other.faces;
    }

    fn build(self, model: Option<&str>) -> Option<LiveSegment> {
        if let ([segment], []) = (&*self.segments, &*self.recent)
            && !segment.is_due(model)
        {
            return Some(LiveSegment::clone(segment));
        }
        let recent = self.recent.into_iter().map(Cow::Borrowed);
        let standing = self.segments.iter().flat_map(|live| {
            let people = live.live_people();
            people.filter_map(|(_, position)| live.segment.person(position).map(Cow::Owned))
        });
        let mut people: Vec<Cow<'_, Person>> = standing.chain(recent).collect();
        people.sort_unstable_by_key(|person| person.id);
        (!people.is_empty()).then(|| LiveSegment::fresh(Segment::build(model, people)))
    }
}

/// The segments with the recent people among them, and without anything that must be erased.
///
/// Segments are joined while the newer is at least half as large as the one before it, so that a
/// face is written again a few times, not with every compaction, and a gallery has few segments.
pub(crate) fn compact<'a>(
    segments: &'a [LiveSegment],
    recent: impl Iterator<Item = &'a Person>,
    model: Option<&str>,
) -> Vec<LiveSegment> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for segment in segments {
        groups.push(Group {
            segments: vec![segment],
            recent: Vec::new(),
            faces: segment.face_count(),
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

//! Who is nearest to a probe.
//!
//! Up to [`EXACT_UP_TO`] vectors, every one is compared. Beyond, the segments' codes are looked
//! through first and the [`SHORTLIST`] most promising vectors are compared exactly, and so is
//! every vector of the changes since: the similarities are exact in either case, and only who is
//! compared at all is an estimate.

use super::codes::Coder;
use super::person::{Person, PersonId};
use super::segment::Segment;
use super::shortlist::Shortlist;
use crate::template;
use muster_jobs::{Embedding, cosine, cosine_le};

/// So many vectors are compared one by one, in 1 to 2 ms.
pub(super) const EXACT_UP_TO: usize = 20_000;
/// How many vectors are compared after the codes were looked through.
pub(super) const SHORTLIST: usize = 1024;

/// Every vector of some people, one after the other in memory: a search reads it front to back.
#[derive(Clone, Debug, Default)]
pub(super) struct Flat {
    values: Vec<f32>,
    /// Whose each is and how many values it has; a person's stand together.
    rows: Vec<(PersonId, usize)>,
}

impl Flat {
    pub fn add(&mut self, person: &Person, model: &str) {
        for row in template::rows(person, model) {
            let values = row.as_slice();
            self.values.extend_from_slice(values);
            self.rows.push((person.id, values.len()));
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn search(&self, probe: &Embedding, nearest: &mut Nearest) {
        let mut rest = self.values.as_slice();
        let mut best = Best::new(nearest);
        for &(person, length) in &self.rows {
            let (values, after) = rest.split_at(length);
            rest = after;
            best.take(Place::Recent(person), cosine(values, probe.as_slice()));
        }
        best.finish();
    }
}

/// Where a person stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Changed since the segments were written.
    Recent(PersonId),
    /// At a position of a part.
    Part(u16, u32),
}

/// A segment and who of it is not in the gallery any more, or not any more as they stand there.
pub(super) trait Living {
    fn segment(&self) -> &Segment;
    fn alive(&self, position: u32) -> bool;
}

/// The `count` nearest people.
struct Nearest {
    count: usize,
    found: Vec<(Place, f32)>,
}

impl Nearest {
    fn take(&mut self, place: Place, similarity: f32) {
        let at = self
            .found
            .partition_point(|(_, nearer)| *nearer >= similarity);
        if at < self.count {
            self.found.insert(at, (place, similarity));
            self.found.truncate(self.count);
        }
    }
}

/// The best of the rows of one person, which come one after the other.
struct Best<'a> {
    nearest: &'a mut Nearest,
    now: Option<(Place, f32)>,
}

impl<'a> Best<'a> {
    fn new(nearest: &'a mut Nearest) -> Self {
        Self { nearest, now: None }
    }

    fn take(&mut self, place: Place, similarity: f32) {
        match &mut self.now {
            Some((same, best)) if *same == place => *best = best.max(similarity),
            now => {
                if let Some((other, best)) = now.replace((place, similarity)) {
                    self.nearest.take(other, best);
                }
            }
        }
    }

    fn finish(self) {
        if let Some((place, best)) = self.now {
            self.nearest.take(place, best);
        }
    }
}

/// The `count` people nearest to the probe, nearest first, each by their nearest row.
pub(super) fn nearest(
    parts: &[impl Living],
    recent: &Flat,
    model: &str,
    probe: &Embedding,
    count: usize,
    exact_up_to: usize,
) -> Vec<(Place, f32)> {
    let mut nearest = Nearest {
        count,
        found: Vec::with_capacity(count + 1),
    };
    recent.search(probe, &mut nearest);
    let mut rows = recent.len();
    let mut coded = true;
    for (number, part) in (0..).zip(parts) {
        let segment = part.segment();
        if segment.model() != model {
            by_record(number, part, model, probe, &mut nearest);
        } else if segment.rows() > 0 {
            rows += segment.rows();
            coded &= segment.dimension() == probe.dimension();
        }
    }
    let compared = || {
        let parts = (0u16..).zip(parts);
        parts.filter(|(_, part)| part.segment().model() == model)
    };
    if rows <= exact_up_to || !coded {
        for (number, part) in compared() {
            by_row(number, part, probe, &mut nearest);
        }
        return nearest.found;
    }
    let table = Coder::new(probe.dimension()).table(probe.as_slice());
    let mut list = Shortlist::new(SHORTLIST.max(count));
    for (number, part) in compared() {
        let segment = part.segment();
        let alive = |row| part.alive(segment.row_person(row));
        list.look(number, segment.codes(), segment.rows(), &table, &alive);
    }
    let mut best = Best::new(&mut nearest);
    for (number, row) in list.finish() {
        let segment = parts[usize::from(number)].segment();
        let place = Place::Part(number, segment.row_person(row));
        best.take(place, cosine_le(segment.row(row), probe.as_slice()));
    }
    best.finish();
    // Whoever was found by one row may have a nearer one that was not shortlisted.
    for (place, similarity) in &mut nearest.found {
        if let Place::Part(number, position) = *place
            && let segment = parts[usize::from(number)].segment()
            && segment.model() == model
        {
            for row in segment.rows_of(position) {
                *similarity = similarity.max(cosine_le(segment.row(row), probe.as_slice()));
            }
        }
    }
    nearest.found.sort_by(|a, b| b.1.total_cmp(&a.1));
    nearest.found
}

/// Compares every row of a part.
fn by_row(number: u16, part: &impl Living, probe: &Embedding, nearest: &mut Nearest) {
    let segment = part.segment();
    let mut best = Best::new(nearest);
    for position in (0..segment.people() as u32).filter(|at| part.alive(*at)) {
        for row in segment.rows_of(position) {
            let similarity = cosine_le(segment.row(row), probe.as_slice());
            best.take(Place::Part(number, position), similarity);
        }
    }
    best.finish();
}

/// Compares a part whose rows are another model's, until the next compaction writes it anew: by the
/// people's records.
fn by_record(
    number: u16,
    part: &impl Living,
    model: &str,
    probe: &Embedding,
    nearest: &mut Nearest,
) {
    let segment = part.segment();
    for position in (0..segment.people() as u32).filter(|at| part.alive(*at)) {
        let person = segment.person(position);
        let rows = template::rows(&person, model);
        if let Some(similarity) = template::similarity(&rows, probe) {
            nearest.take(Place::Part(number, position), similarity);
        }
    }
}

//! Who is nearest to a probe.
//!
//! Up to [`EXACT_UP_TO`] vectors, every one is compared. Beyond, the segments' codes are looked
//! through first and the [`SHORTLIST`] most promising vectors are compared exactly, and so is
//! every vector of the changes since: the similarities are exact in either case, and only who is
//! compared at all is an estimate.

use muster_jobs::{Embedding, cosine};

use crate::codes::Quantizer;
use crate::live_segment::LiveSegment;
use crate::person::{Person, PersonId};
use crate::shortlist::Shortlist;
use crate::template;

/// So many vectors are compared one by one, in 1 to 2 ms.
pub(super) const EXACT_UP_TO: usize = 20_000;
/// How many vectors are compared after the codes were looked through.
pub(super) const SHORTLIST: usize = 1024;

/// Every vector of some people, one after the other in memory: a search reads it front to back.
#[derive(Clone, Debug, Default)]
pub(super) struct FlatIndex {
    values: Vec<f32>,
    /// Whose each is and how many values it has; a person's stand together.
    rows: Vec<(PersonId, usize)>,
}

impl FlatIndex {
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
        let mut best = BestRow::new(nearest);
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
    /// At a position of a segment.
    Segment(u16, u32),
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
struct BestRow<'a> {
    nearest: &'a mut Nearest,
    now: Option<(Place, f32)>,
}

impl<'a> BestRow<'a> {
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
    segments: &[LiveSegment],
    recent: &FlatIndex,
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
    for (number, live) in (0..).zip(segments) {
        let segment = &live.segment;
        if segment.model() != model {
            scan_records(number, live, model, probe, &mut nearest);
        } else if segment.rows() > 0 {
            rows += segment.rows();
            coded &= segment.dimension() == probe.dimension();
        }
    }
    let compared = || {
        let numbered = (0u16..).zip(segments);
        numbered.filter(|(_, live)| live.segment.model() == model)
    };
    if rows <= exact_up_to || !coded {
        for (number, live) in compared() {
            scan_rows(number, live, probe, &mut nearest);
        }
        return nearest.found;
    }
    let table = Quantizer::new(probe.dimension()).lookup_table(probe.as_slice());
    let mut list = Shortlist::new(SHORTLIST.max(count));
    for (number, live) in compared() {
        let segment = &live.segment;
        let live_row = |row| live.is_live(segment.row_person(row));
        list.scan(number, segment.codes(), segment.rows(), &table, &live_row);
    }
    let mut best = BestRow::new(&mut nearest);
    for (number, row) in list.finish() {
        let segment = &segments[usize::from(number)].segment;
        let place = Place::Segment(number, segment.row_person(row));
        if let Some(similarity) = segment.similarity(row, probe) {
            best.take(place, similarity);
        }
    }
    best.finish();
    // Whoever was found by one row may have a nearer one that was not shortlisted.
    for (place, similarity) in &mut nearest.found {
        if let Place::Segment(number, position) = *place
            && let segment = &segments[usize::from(number)].segment
            && segment.model() == model
        {
            for row in segment.rows_of(position) {
                let found = segment.similarity(row, probe);
                *similarity = found.map_or(*similarity, |found| similarity.max(found));
            }
        }
    }
    nearest.found.sort_by(|a, b| b.1.total_cmp(&a.1));
    nearest.found
}

/// Compares every row of a segment.
fn scan_rows(number: u16, live: &LiveSegment, probe: &Embedding, nearest: &mut Nearest) {
    let segment = &live.segment;
    segment.keep_vectors();
    let mut best = BestRow::new(nearest);
    for position in (0..segment.people() as u32).filter(|at| live.is_live(*at)) {
        for row in segment.rows_of(position) {
            if let Some(similarity) = segment.similarity(row, probe) {
                best.take(Place::Segment(number, position), similarity);
            }
        }
    }
    best.finish();
}

/// Compares a segment whose rows are another model's, until the next compaction writes it anew: by
/// the people's records.
fn scan_records(
    number: u16,
    live: &LiveSegment,
    model: &str,
    probe: &Embedding,
    nearest: &mut Nearest,
) {
    let segment = &live.segment;
    for position in (0..segment.people() as u32).filter(|at| live.is_live(*at)) {
        let Some(person) = segment.person(position) else {
            continue;
        };
        let rows = template::rows(&person, model);
        if let Some(similarity) = template::similarity(&rows, probe) {
            nearest.take(Place::Segment(number, position), similarity);
        }
    }
}

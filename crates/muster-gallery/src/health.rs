//! What is likely wrong in a gallery: faces under the wrong name, people enrolled twice, people who
//! are hard to tell apart, faces that are of little use.

mod findings;
mod links;

use std::collections::BTreeMap;

use crate::gallery::Gallery;
use crate::person::{EnrolledFace, Person, PersonId};
use crate::template;
use links::Links;

pub use findings::{Health, Mislabelled, Named, Pair, Weak};
use muster_jobs::{Embedding, Requirements};

/// Findings of each kind in one report, at most; the most serious come first.
const FINDINGS: usize = 500;
/// Confusable pairs named.
const CONFUSABLE: usize = 20;
/// People looked at for each face beside its own.
const OTHERS: usize = 3;

/// Which people are examined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Those enrolled after this one; from the first on when `None`.
    pub after: Option<PersonId>,
    /// Faces examined, about: a search each.
    pub faces: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            after: None,
            faces: 5000,
        }
    }
}

/// Examines a gallery, or a part of it, at that cutoff, by what is required of a face at enrolment.
///
/// Takes a search for each face examined.
///
/// A face is likely under the wrong name when it reaches the cutoff for another person and is on
/// average more similar to that person's faces than to the other faces of its own. The clearest is
/// taken for moved, and what follows from it (the other half of a swap, whose new company is gone)
/// judged again, until none is left. People are likely one when their faces (those likely moved
/// left out) reach the cutoff on average.
#[must_use]
pub fn examine(gallery: &Gallery, cutoff: f32, required: &Requirements, extent: Extent) -> Health {
    let mut health = Health {
        version: gallery.version(),
        cutoff,
        required: *required,
        people: gallery.people_count(),
        faces: gallery.faces(),
        examined: 0,
        next: None,
        mislabelled: Vec::new(),
        duplicates: Vec::new(),
        confusable: Vec::new(),
        weak: Vec::new(),
    };
    let Some(model) = gallery.model() else {
        return health;
    };
    let mut links = Links::new(gallery, model, cutoff);
    let mut alike: BTreeMap<(PersonId, PersonId), f32> = BTreeMap::new();
    let mut after = extent.after;
    'all: loop {
        let page = gallery.page(after, 256);
        if page.is_empty() {
            break;
        }
        for person in page {
            if health.examined >= extent.faces {
                health.next = after;
                break 'all;
            }
            after = Some(person.id);
            health.examined += person.faces.len();
            weak(&person, model, required, &mut health.weak);
            for face in &person.faces {
                let Some(embedding) = face.embeddings.by(model) else {
                    continue;
                };
                for near in gallery.nearest(embedding, OTHERS + 1) {
                    if near.person.id == person.id {
                        continue;
                    }
                    let pair = (person.id.min(near.person.id), person.id.max(near.person.id));
                    let nearest = alike.entry(pair).or_insert(near.similarity);
                    *nearest = nearest.max(near.similarity);
                    if near.similarity >= cutoff {
                        links.add(&person, face, &near.person);
                    }
                }
            }
        }
    }
    health.mislabelled = links.resolve();
    health.mislabelled.truncate(FINDINGS);
    let mut pairs: Vec<((PersonId, PersonId), f32)> = alike.into_iter().collect();
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
    for ((first, second), nearest) in pairs {
        let full = health.confusable.len() == CONFUSABLE;
        if nearest < cutoff && full {
            break;
        }
        let Some(pair) = links.pair(first, second, nearest) else {
            continue;
        };
        if pair.score >= cutoff {
            health.duplicates.push(pair);
        } else if !full {
            health.confusable.push(pair);
        }
    }
    health
        .duplicates
        .sort_by(|a, b| b.score.total_cmp(&a.score));
    health.duplicates.truncate(FINDINGS);
    // Without an agreement last: those are of people with one face.
    health.weak.sort_by(|a, b| {
        let agreement = |weak: &Weak| weak.agreement.unwrap_or(f32::INFINITY);
        agreement(a).total_cmp(&agreement(b))
    });
    health.weak.truncate(FINDINGS);
    health
}

/// Finds a person's faces that are of little use.
fn weak(person: &Person, model: &str, required: &Requirements, found: &mut Vec<Weak>) {
    let made = person.faces.iter();
    let (faces, embeddings): (Vec<&EnrolledFace>, Vec<&Embedding>) = made
        .filter_map(|face| Some((face, face.embeddings.by(model)?)))
        .unzip();
    let outliers = template::outliers(&embeddings);
    let disagree = template::disagree(&embeddings);
    for (place, face) in faces.into_iter().enumerate() {
        let quality = face.quality.as_ref();
        let unfit = quality.map_or_else(Vec::new, |quality| required.unmet_by(quality));
        let mut reasons: Vec<String> = unfit.iter().map(ToString::to_string).collect();
        let agreement = template::agreement(&embeddings, place);
        if let Some(agreement) = agreement {
            if outliers.contains(&place) {
                reasons.push(format!(
                    "it is unlike the person's other faces (similarity {agreement:.3}; half of \
                     what theirs have among each other is required) and not compared with: remove it"
                ));
            } else if disagree {
                reasons.push(format!(
                    "the person's two faces are unlike each other (similarity {agreement:.3}, {:.3} \
                     is required): remove the wrong one, or add a third",
                    template::AGREEMENT
                ));
            }
        }
        if !reasons.is_empty() {
            found.push(Weak {
                face: face.id,
                file: face.file.clone(),
                person: Named::of(person),
                reasons,
                unfit,
                agreement,
            });
        }
    }
}

#[cfg(test)]
mod tests;

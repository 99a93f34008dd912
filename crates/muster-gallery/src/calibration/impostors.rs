//! How alike different people are in a gallery.

use super::tail::Tail;
use crate::gallery::Gallery;
use crate::template;

/// People that are compared, at most: those with the smallest hashes of their ids, so that whoever
/// was enrolled first does not speak for everybody after, and a new person seldom changes the sample.
const PEOPLE: usize = 1024;
/// Fewer people say nothing of a distribution.
pub const FEWEST_PEOPLE: usize = 10;
/// Faces of one person that are compared, at most.
pub const SAMPLED: usize = 8;
/// Products of two values that comparisons come to, at most: some ten milliseconds. In 128
/// dimensions these are all pairs of 1,024 people with two faces each.
const PRODUCTS: usize = 1 << 27;

/// The similarities of faces to other people: the upper tail of their distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impostors {
    /// The tail.
    pub tail: Tail,
    /// How many people were compared.
    pub people: usize,
    /// How many comparisons there were of a face with a person.
    pub pairs: usize,
}

impl Impostors {
    /// Compares the gallery's own faces; `None` while there are fewer than ten people with faces.
    ///
    /// One face of each of up to 1,024 people is compared with the others, each pair once as far as
    /// the bound of the work allows; a person's similarity is that of the nearest of their faces, as
    /// in recognition.
    #[must_use]
    pub fn of(gallery: &Gallery) -> Option<Self> {
        let sample = gallery.sample(PEOPLE);
        let people = sample.iter().map(|(hash, faces)| {
            let rows = template::trusted(faces.iter().take(SAMPLED).collect());
            (*hash as usize, rows)
        });
        let people: Vec<_> = people.filter(|(_, rows)| !rows.is_empty()).collect();
        let count = people.len();
        if count < FEWEST_PEOPLE {
            return None;
        }
        let rows: usize = people.iter().map(|(_, rows)| rows.len()).sum();
        let dimension = people[0].1[0].dimension().max(1);
        let partners = (PRODUCTS / (rows * dimension)).clamp(1, count / 2);
        let mut similarities = Vec::with_capacity(count * partners);
        for (n, (hash, rows)) in people.iter().enumerate() {
            let probe = rows[hash % rows.len()];
            for step in 1..=partners {
                let (_, other) = &people[(n + step) % count];
                similarities.extend(template::similarity(other, probe));
            }
        }
        Some(Self {
            tail: Tail::fit(&mut similarities, count)?,
            people: count,
            pairs: similarities.len(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_jobs::Embedding;
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    use super::super::normal;
    use super::*;
    use crate::{Embeddings, EnrolledFace, Person};

    /// People whose faces are drawn evenly from a sphere of `dimensions`.
    pub(crate) fn strangers(count: usize, dimensions: usize) -> Gallery {
        let mut random = SplitMix64::seed_from_u64(1);
        let mut draw = || {
            let share = ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            normal::inverse_survival(share) as f32
        };
        let people = (0..count).map(|n| {
            let values: Vec<f32> = (0..dimensions).map(|_| draw()).collect();
            let made = Embeddings::of("m", Embedding::normalise(&values).unwrap());
            let face = EnrolledFace::new(String::new(), made, 0);
            Person::new(n.to_string(), vec![face], 0)
        });
        Gallery::of("m", people.collect())
    }

    #[test]
    fn people_on_a_sphere_are_as_alike_as_geometry_says() {
        // Cosines of evenly drawn directions have the deviation 1 / sqrt(dimensions).
        let found = Impostors::of(&strangers(400, 100)).unwrap();
        let at = found.tail.exceeded_at(1e-3);
        assert!((at - 0.1 * 3.09).abs() < 0.01, "{at}");
        assert_eq!((found.people, found.pairs), (400, 400 * 200));
        assert_eq!(Impostors::of(&strangers(FEWEST_PEOPLE - 1, 100)), None);
        assert!(Impostors::of(&strangers(FEWEST_PEOPLE, 100)).is_some());
        assert_eq!(Impostors::of(&Gallery::default()), None);
    }

    #[test]
    fn people_who_are_all_one_are_no_riddle() {
        let face = Embedding::normalise(&[1.0, 2.0]).unwrap();
        let person = |n: usize| {
            let made = Embeddings::of("m", face.clone());
            let faces = vec![EnrolledFace::new(String::new(), made, 0)];
            Person::new(n.to_string(), faces, 0)
        };
        let gallery = Gallery::of("m", (0..12).map(person).collect());
        let found = Impostors::of(&gallery).unwrap();
        assert!(
            (found.tail.exceeded_at(1e-6) - 1.0).abs() < 1e-5,
            "{found:?}"
        );
        assert!((found.tail.bound_at(1e-6) - 1.0).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn large_galleries_cost_no_more() {
        let found = Impostors::of(&strangers(PEOPLE + 500, 8)).unwrap();
        assert_eq!(found.people, PEOPLE);
        assert_eq!(found.pairs, PEOPLE * PEOPLE / 2);
        let wide = Impostors::of(&strangers(PEOPLE, 512)).unwrap();
        assert_eq!(wide.pairs * 512, PRODUCTS);
    }
}

//! How alike different people are in a gallery.

use std::sync::LazyLock;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::normal;
use crate::gallery::Gallery;
use crate::person::PersonId;
use crate::template;

/// People that are compared, at most: those who were enrolled first, so that the sample does not
/// change with every enrolment.
const PEOPLE: usize = 1024;
/// Faces of one person that are compared, at most.
pub const SAMPLED: usize = 8;
/// Comparisons of a face with a person, about: so many take a millisecond.
const COMPARISONS: usize = 16_384;
/// The quantiles that the distribution is fitted to: only the upper half matters, and what lies
/// beyond the last is left to people enrolled twice.
const QUANTILES: std::ops::Range<usize> = 100..199;
/// Shares are these many parts of one.
const PARTS: f64 = 200.0;

/// For each quantile its share and the standard normal value there.
static FITTED: LazyLock<Vec<(f64, f64)>> = LazyLock::new(|| {
    let shares = QUANTILES.map(|part| (part as f64 + 0.5) / PARTS);
    shares
        .map(|share| (share, normal::inverse_survival(1.0 - share)))
        .collect()
});

/// A normal distribution fitted to the similarities of faces to other people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impostors {
    /// Where the fitted distribution has its middle.
    pub centre: f64,
    /// Its standard deviation.
    pub spread: f64,
    /// How many people were compared.
    pub people: usize,
    /// How many comparisons there were of a face with a person.
    pub pairs: usize,
}

impl Impostors {
    /// Fits the gallery's own faces; `None` while there are not two people with faces.
    ///
    /// One face of each of up to 1,024 people is compared with some of the others, about 16,000
    /// times altogether; a person's similarity is that of the nearest of their faces, as in
    /// recognition. Least squares over the 50 % to 99.5 % quantiles against the normal
    /// distribution's: of that distribution it is the upper tail that decides, and the lower half
    /// and a few people who are enrolled under two names do not bend it.
    #[must_use]
    pub fn of(gallery: &Gallery) -> Option<Self> {
        let people: Vec<_> = gallery.embeddings().take(PEOPLE).collect();
        let rows = people.iter().map(|(id, faces)| {
            let faces = faces.iter().take(SAMPLED).collect();
            (scattered(*id), template::trusted(faces))
        });
        let mut people: Vec<_> = rows.filter(|(_, rows)| !rows.is_empty()).collect();
        // Neighbours in the order of enrolment are often family or colleagues.
        people.sort_unstable_by_key(|(order, _)| *order);
        let count = people.len();
        if count < 2 {
            return None;
        }
        let partners = (COMPARISONS / count).clamp(1, count - 1);
        let mut similarities = Vec::with_capacity(count * partners);
        for (n, (_, rows)) in people.iter().enumerate() {
            let probe = rows[n % rows.len()];
            for step in 1..=partners {
                let (_, other) = &people[(n + step) % count];
                similarities.extend(template::similarity(other, probe));
            }
        }
        let (centre, spread) = fit(&mut similarities);
        Some(Self {
            centre,
            spread,
            people: count,
            pairs: similarities.len(),
        })
    }

    /// The similarity that a comparison with one other person exceeds at that rate.
    #[must_use]
    pub fn exceeded_at(&self, rate: f64) -> f64 {
        self.centre + self.spread * normal::inverse_survival(rate)
    }
}

/// The centre and the standard deviation of a normal distribution with these upper quantiles.
fn fit(similarities: &mut [f32]) -> (f64, f64) {
    let count = similarities.len();
    let (_, _, upper) = {
        let from = (FITTED[0].0 * count as f64) as usize;
        similarities.select_nth_unstable_by(from, f32::total_cmp)
    };
    upper.sort_unstable_by(f32::total_cmp);
    let lower = count - upper.len();
    let least = |place: usize| similarities[place.clamp(lower.saturating_sub(1), count - 1)];
    let points = FITTED.iter().map(|(share, z)| {
        let place = (share * count as f64) as usize;
        (*z, f64::from(least(place)))
    });
    let n = FITTED.len() as f64;
    let (sum_z, sum_s) = points
        .clone()
        .fold((0.0, 0.0), |(a, b), (z, s)| (a + z, b + s));
    let (mean_z, mean_s) = (sum_z / n, sum_s / n);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (z, s) in points {
        covariance += (z - mean_z) * (s - mean_s);
        variance += (z - mean_z).powi(2);
    }
    let spread = covariance / variance;
    (mean_s - spread * mean_z, spread)
}

/// A number by which people who were enrolled one after the other stand apart.
fn scattered(id: PersonId) -> u64 {
    SplitMix64::seed_from_u64(id.random_half()).next_u64()
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_jobs::Embedding;

    use super::*;
    use crate::{Embeddings, EnrolledFace, Person};

    #[test]
    fn a_normal_distribution_is_found_again_whatever_its_lower_half_and_top_are() {
        let count = 20_000;
        let normal = |n: usize| {
            let share = (n as f64 + 0.5) / f64::from(count);
            (0.1 + 0.08 * normal::inverse_survival(1.0 - share)) as f32
        };
        let mut values: Vec<f32> = (0..count as usize).rev().map(normal).collect();
        let near = |(centre, spread): (f64, f64)| {
            assert!((centre - 0.1).abs() < 2e-3, "{centre}");
            assert!((spread - 0.08).abs() < 2e-3, "{spread}");
        };
        near(fit(&mut values));
        values.sort_unstable_by(f32::total_cmp);
        values[..8000].fill(-0.9);
        values[19_950..].fill(0.95);
        near(fit(&mut values));
    }

    /// People whose faces are drawn evenly from a sphere of `dimensions`.
    pub(crate) fn strangers(count: usize, dimensions: usize) -> Gallery {
        let mut state = 1u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let share = ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
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
        assert!(found.centre.abs() < 5e-3, "{found:?}");
        assert!((found.spread - 0.1).abs() < 5e-3, "{found:?}");
        assert_eq!((found.people, found.pairs), (400, 400 * 40));
        assert_eq!(Impostors::of(&strangers(1, 100)), None);
        assert_eq!(Impostors::of(&Gallery::default()), None);
    }

    #[test]
    fn large_galleries_cost_no_more() {
        let found = Impostors::of(&strangers(PEOPLE + 500, 8)).unwrap();
        assert_eq!((found.people, found.pairs), (PEOPLE, COMPARISONS));
        assert_eq!(
            Impostors::of(&strangers(2, 8)).map(|found| found.pairs),
            Some(2)
        );
    }
}

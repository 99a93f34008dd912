//! The cutoff at a chosen rate of strangers taken for somebody.

use muster_jobs::ShippedCalibration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::impostors::{Impostors, SAMPLED};
use super::normal;
use crate::gallery::Gallery;

/// The target where none is set: one stranger in a thousand is taken for somebody.
pub const DEFAULT_TARGET: f64 = 1e-3;
/// The cutoff is never above this: what is more alike is one person to any use.
const HIGHEST: f64 = 0.7;
/// Fewer people say nothing of a distribution.
const FEWEST_PEOPLE: usize = 10;
/// From this weight of the gallery's own distribution on, the shipped distribution does not matter.
const OWN_FROM: f64 = 0.9;

/// What a cutoff rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The operator's setting.
    Set,
    /// What is shipped with the model.
    Shipped,
    /// Both what is shipped and the gallery's own faces.
    Blended,
    /// The gallery's own faces.
    Own,
}

/// From which similarity on a face is a person's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cutoff {
    /// The similarity.
    pub value: f32,
    /// What it rests on.
    pub basis: Basis,
}

impl Cutoff {
    /// The cutoff that the operator has set.
    #[must_use]
    pub fn set(value: f32) -> Self {
        Self {
            value,
            basis: Basis::Set,
        }
    }

    /// The cutoff at which strangers are taken for somebody in this gallery at the rate `target`,
    /// within (0, 1).
    ///
    /// A stranger is compared with N people, each taken for them at the rate FMR: the target is
    /// 1 - (1 - FMR)^N, and the cutoff is the similarity that a normal distribution exceeds at that
    /// FMR. For N independent comparisons that is exact; those of one probe depend on each other,
    /// which makes it an upper bound. The gallery's own distribution ([`Impostors`]) and the shipped
    /// one have the weights of the people they were measured on; the published cutoff is the least.
    ///
    /// Own is the similarity to a person with up to [`SAMPLED`] faces, so that many more
    /// count as several people; shipped is that to a single face.
    #[must_use]
    pub fn for_target(gallery: &Gallery, shipped: &ShippedCalibration, target: f64) -> Self {
        Self::estimate(
            Impostors::of(gallery).as_ref(),
            gallery.people_count(),
            gallery.faces(),
            shipped,
            target,
        )
    }

    pub(super) fn estimate(
        own: Option<&Impostors>,
        people: usize,
        faces: usize,
        shipped: &ShippedCalibration,
        target: f64,
    ) -> Self {
        let least = f64::from(shipped.cutoff);
        let prior = shipped.impostors.map(|shipped| {
            let beyond = normal::inverse_survival(match_rate(target, faces));
            f64::from(shipped.mean) + f64::from(shipped.deviation) * beyond
        });
        let own = own.filter(|own| own.people >= FEWEST_PEOPLE);
        let weight = own.map_or(0.0, |own| {
            let shipped = shipped.impostors.map_or(0, |shipped| shipped.people);
            own.people as f64 / (own.people as f64 + f64::from(shipped))
        });
        let prior = prior.unwrap_or(least);
        let compared = people.max(faces.div_ceil(SAMPLED));
        let own = own.map_or(0.0, |own| own.exceeded_at(match_rate(target, compared)));
        let value = (1.0 - weight) * prior + weight * own;
        Self {
            value: value.clamp(least, HIGHEST.max(least)) as f32,
            basis: if weight == 0.0 {
                Basis::Shipped
            } else if weight < OWN_FROM {
                Basis::Blended
            } else {
                Basis::Own
            },
        }
    }
}

/// The rate at which one comparison of `comparisons` may be wrong so that any is at `target`.
fn match_rate(target: f64, comparisons: usize) -> f64 {
    -(f64::ln_1p(-target) / comparisons.max(1) as f64).exp_m1()
}

#[cfg(test)]
mod tests {
    use muster_jobs::ShippedImpostors;
    use proptest::prelude::*;

    use super::*;

    const SHIPPED: ShippedCalibration = ShippedCalibration {
        cutoff: 0.363,
        impostors: Some(ShippedImpostors {
            mean: 0.05,
            deviation: 0.1,
            people: 30,
        }),
    };

    fn own(people: usize, centre: f64, spread: f64) -> Impostors {
        Impostors {
            centre,
            spread,
            people,
            pairs: people * (people - 1),
        }
    }

    #[test]
    fn a_small_gallery_has_the_published_cutoff() {
        let cutoff = Cutoff::estimate(None, 1, 1, &SHIPPED, DEFAULT_TARGET);
        assert_eq!((cutoff.value, cutoff.basis), (0.363, Basis::Shipped));
        let few = own(FEWEST_PEOPLE - 1, 0.9, 0.3);
        let cutoff = Cutoff::estimate(Some(&few), 9, 9, &SHIPPED, DEFAULT_TARGET);
        assert_eq!(cutoff.basis, Basis::Shipped);
        let alone = ShippedCalibration {
            impostors: None,
            ..SHIPPED
        };
        let cutoff = Cutoff::estimate(None, 9, 9, &alone, DEFAULT_TARGET);
        assert_eq!(cutoff.value, 0.363);
    }

    #[test]
    fn the_cutoff_is_what_the_formula_says() {
        // Of 1,000 comparisons any is wrong at 0.1 %: one at 1.0005e-6, 4.7533 deviations out.
        let all = own(1_000_000, 0.1, 0.08);
        let cutoff = Cutoff::estimate(Some(&all), 1000, 1000, &SHIPPED, DEFAULT_TARGET);
        assert!(
            (cutoff.value - (0.1 + 0.08 * 4.7533)).abs() < 2e-4,
            "{cutoff:?}"
        );
        assert_eq!(cutoff.basis, Basis::Own);
        let half = own(30, 0.1, 0.08);
        let cutoff = Cutoff::estimate(Some(&half), 1000, 1000, &SHIPPED, DEFAULT_TARGET);
        let (shipped, own) = (0.05 + 0.1 * 4.7533, 0.1 + 0.08 * 4.7533);
        assert!(
            (cutoff.value - (shipped + own) / 2.0).abs() < 2e-4,
            "{cutoff:?}"
        );
        assert_eq!(cutoff.basis, Basis::Blended);
    }

    proptest! {
        #[test]
        fn more_people_and_a_lower_target_never_lower_the_cutoff(
            people in 1usize..2_000_000,
            more in 1usize..2_000_000,
            target in 1e-6f64..0.5,
            of_it in 0.01f64..1.0,
            sampled in 2usize..1000,
            centre in -0.2f64..0.3,
            spread in 0.01f64..0.3,
        ) {
            let own = own(sampled, centre, spread);
            let at = |people, target| {
                Cutoff::estimate(Some(&own), people, 2 * people, &SHIPPED, target).value
            };
            let cutoff = at(people, target);
            prop_assert!((0.363..=0.7).contains(&cutoff));
            prop_assert!(at(people + more, target) >= cutoff);
            prop_assert!(at(people, target * of_it) >= cutoff);
        }
    }
}

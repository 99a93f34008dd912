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
    /// within (0, 1), or more seldom.
    ///
    /// A stranger is compared with N people, each taken for them at the rate FMR: the target is
    /// 1 - (1 - FMR)^N, and the cutoff is the similarity that is exceeded at that FMR. For N
    /// independent comparisons that is exact; those of one probe depend on each other, which makes
    /// it an upper bound. Of the gallery's own faces ([`Impostors`]) the upper bound of what they show
    /// counts, with the weight of the comparisons that show it; what is shipped has the weight of the
    /// pairs it was measured on, and never lowers the cutoff below what the gallery shows. The
    /// published cutoff is the least.
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
            let similarity = f64::from(shipped.mean) + f64::from(shipped.deviation) * beyond;
            let people = f64::from(shipped.people);
            (similarity, people * (people - 1.0).max(0.0) / 2.0)
        });
        let (weight, value) = match own {
            None => (0.0, prior.map_or(least, |(similarity, _)| similarity)),
            Some(own) => {
                let rate = match_rate(target, people.max(faces.div_ceil(SAMPLED)));
                let (shown, bound) = (own.tail.exceeded_at(rate), own.tail.bound_at(rate));
                let (similarity, pairs) = prior.unwrap_or((bound, 0.0));
                let weight = own.tail.highest as f64 / (own.tail.highest as f64 + pairs);
                let value = weight * bound + (1.0 - weight) * similarity;
                (weight, value.max(shown))
            }
        };
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

    use super::super::impostors::FEWEST_PEOPLE;
    use super::super::impostors::tests::strangers;
    use super::super::tail::Tail;
    use super::*;

    const SHIPPED: ShippedCalibration = ShippedCalibration {
        cutoff: 0.363,
        impostors: Some(ShippedImpostors {
            mean: 0.05,
            deviation: 0.1,
            people: 30,
        }),
    };

    /// So many comparisons show such a tail.
    fn own(highest: usize, centre: f64, spread: f64) -> Impostors {
        Impostors {
            tail: Tail {
                middle: 0.0,
                level: centre,
                slope: spread,
                highest,
            },
            people: 1000,
            pairs: 499_500,
        }
    }

    /// The cutoff of 1,000 people and 0.1 %: of 1,000 comparisons any is wrong at 1.0005e-6 each,
    /// 4.7533 deviations out.
    fn of_1000(own: &Impostors, shipped: &ShippedCalibration) -> Cutoff {
        Cutoff::estimate(Some(own), 1000, 1000, shipped, DEFAULT_TARGET)
    }

    fn near(found: Cutoff, expected: f64) {
        let apart = (f64::from(found.value) - expected).abs();
        assert!(apart < 2e-4, "{found:?} {expected}");
    }

    #[test]
    fn a_small_gallery_has_the_published_cutoff() {
        let cutoff = Cutoff::estimate(None, 1, 1, &SHIPPED, DEFAULT_TARGET);
        assert_eq!((cutoff.value, cutoff.basis), (0.363, Basis::Shipped));
        let alone = ShippedCalibration {
            impostors: None,
            ..SHIPPED
        };
        let cutoff = Cutoff::estimate(None, 9, 9, &alone, DEFAULT_TARGET);
        assert_eq!(cutoff.value, 0.363);
        let two = strangers(2, 16);
        let cutoff = Cutoff::for_target(&two, &SHIPPED, DEFAULT_TARGET);
        assert_eq!(cutoff.basis, Basis::Shipped);
    }

    #[test]
    fn the_cutoff_is_what_the_formula_says() {
        let all = of_1000(&own(usize::MAX, 0.1, 0.08), &SHIPPED);
        near(all, 0.1 + 0.08 * 4.7533);
        assert_eq!(all.basis, Basis::Own);
        // 30 people are 435 pairs. The bound is 1.645 standard errors above what the gallery shows.
        let half = of_1000(&own(435, 0.1, 0.08), &SHIPPED);
        let own = 0.1 + 0.08 * 4.7533 * (1.0 + 1.645 / 435f64.sqrt());
        near(half, (0.05 + 0.1 * 4.7533 + own) / 2.0);
        assert_eq!(half.basis, Basis::Blended);
    }

    #[test]
    fn what_is_shipped_does_not_lower_what_the_gallery_shows() {
        near(of_1000(&own(435, 0.2, 0.09), &SHIPPED), 0.2 + 0.09 * 4.7533);
        let alone = ShippedCalibration {
            impostors: None,
            ..SHIPPED
        };
        let found = of_1000(&own(100, 0.1, 0.08), &alone);
        near(found, 0.1 + 0.08 * 4.7533 * 1.1645);
        assert_eq!(found.basis, Basis::Own);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn more_people_and_a_lower_target_never_lower_the_cutoff(
            people in 1usize..2_000_000,
            more in 1usize..2_000_000,
            target in 1e-6f64..0.5,
            of_it in 0.01f64..1.0,
            sampled in FEWEST_PEOPLE..60,
            dimensions in 2usize..40,
        ) {
            let own = Impostors::of(&strangers(sampled, dimensions)).unwrap();
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

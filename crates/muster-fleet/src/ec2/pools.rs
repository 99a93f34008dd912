//! Where instances can be had, and which of these places have just said no.
//!
//! Invariant: the same refusals at the same times give the same calls; nothing here is random or
//! knows a clock.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::failure::Refusal;
use super::options::Capacity;

/// One place that instances are launched in: what sets a launch apart from the template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pool {
    /// The template's own when absent.
    pub instance_type: Option<String>,
    /// The template's own when absent.
    pub subnet: Option<String>,
    pub spot: bool,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let market = if self.spot { "Spot" } else { "on-demand" };
        let kind = self.instance_type.as_deref();
        write!(f, "{market} {}", kind.unwrap_or("capacity"))?;
        match &self.subnet {
            Some(subnet) => write!(f, " in {subnet}"),
            None => Ok(()),
        }
    }
}

/// How long a refusal is remembered: doubles from the first to the longest with each repetition.
fn backoff_bounds(refusal: Refusal) -> (Duration, Duration) {
    let (first_s, longest_s) = match refusal {
        // Karpenter remembers for 3 minutes; a short shortage is over sooner.
        Refusal::Capacity => (15, 180),
        // Room is made when instances end, or by the operator's request for more.
        Refusal::Limit => (15, 300),
        Refusal::Throttled | Refusal::Unknown => (1, 60),
        // An operator has to act, and is to see that it helped.
        Refusal::NotPermitted
        | Refusal::NotFound
        | Refusal::Refused
        | Refusal::Spent
        | Refusal::Differs => (15, 300),
    };
    (Duration::from_secs(first_s), Duration::from_secs(longest_s))
}

/// What a place has said, the last time that it said no.
#[derive(Debug, Default)]
struct Backoff {
    until: Option<Instant>,
    times: u32,
    said: String,
}

impl Backoff {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    fn refused(&mut self, now: Instant, refusal: Refusal, said: String) {
        let (first, longest) = backoff_bounds(refusal);
        let wait = first.saturating_mul(1 << self.times.min(16)).min(longest);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + wait);
        self.said = said;
    }
}

/// Every pool, in the configured order, and the stopped instances before them.
#[derive(Debug)]
pub(super) struct Pools {
    pools: Vec<(Pool, Backoff)>,
    stopped: Backoff,
    /// Refusals that have nothing to do with a place.
    service: Backoff,
}

impl Pools {
    /// Market by market, type by type, subnet by subnet.
    pub fn new(capacity: Capacity, instance_types: &[String], subnets: &[String]) -> Self {
        let markets: &[bool] = match capacity {
            Capacity::OnDemand => &[false],
            Capacity::Spot => &[true],
            Capacity::SpotFirst => &[true, false],
        };
        let or_own = |names: &[String]| match names {
            [] => vec![None],
            names => names.iter().cloned().map(Some).collect(),
        };
        let mut pools = Vec::new();
        for spot in markets {
            for instance_type in or_own(instance_types) {
                for subnet in or_own(subnets) {
                    let pool = Pool {
                        instance_type: instance_type.clone(),
                        subnet,
                        spot: *spot,
                    };
                    pools.push((pool, Backoff::default()));
                }
            }
        }
        Self {
            pools,
            stopped: Backoff::default(),
            service: Backoff::default(),
        }
    }

    /// Every pool, in this order.
    pub fn into_pools(self) -> Vec<Pool> {
        self.pools.into_iter().map(|(pool, _)| pool).collect()
    }

    /// The first pool that may be asked.
    pub fn next_free(&self, now: Instant) -> Option<Pool> {
        let free = |(_, backoff): &&(Pool, Backoff)| !backoff.holds(now);
        let found = self.pools.iter().find(free);
        found
            .filter(|_| !self.service.holds(now))
            .map(|(pool, _)| pool.clone())
    }

    /// Whether stopped instances may be started.
    pub fn may_start(&self, now: Instant) -> bool {
        !self.service.holds(now) && !self.stopped.holds(now)
    }

    /// `pool` has said no; the stopped instances when it is none.
    pub fn refused(&mut self, pool: Option<&Pool>, now: Instant, refusal: Refusal, said: String) {
        let concerned = match refusal {
            Refusal::Throttled | Refusal::Unknown => &mut self.service,
            _ => self.backoff_of(pool),
        };
        concerned.refused(now, refusal, said);
    }

    /// `pool` has given what was asked for.
    pub fn accepted(&mut self, pool: Option<&Pool>) {
        *self.backoff_of(pool) = Backoff::default();
        self.service = Backoff::default();
    }

    fn backoff_of(&mut self, pool: Option<&Pool>) -> &mut Backoff {
        let found = self.pools.iter_mut().find(|(known, _)| Some(known) == pool);
        // A launch of earlier settings may name a pool that is not among them any more.
        found.map_or(&mut self.stopped, |(_, backoff)| backoff)
    }

    /// How long until a pool may be asked, and what the one that is free first has said.
    pub fn wait(&self, now: Instant) -> (Duration, String) {
        let all_hold = self.pools.iter().all(|(_, backoff)| backoff.holds(now));
        let first = self
            .pools
            .iter()
            .filter(|_| all_hold)
            .map(|(pool, backoff)| (backoff.until, format!("{pool}: {}", backoff.said)))
            .min();
        let service = self.service.holds(now);
        let service = service.then(|| (self.service.until, self.service.said.clone()));
        match first.max(service) {
            Some((Some(until), said)) => (until.saturating_duration_since(now), said),
            _ => (Duration::ZERO, String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn asked(pools: &Pools, now: Instant) -> String {
        pools
            .next_free(now)
            .map_or("none".into(), |pool| pool.to_string())
    }

    #[test]
    fn pools_are_asked_in_order_and_one_that_refused_is_passed_over() {
        let now = Instant::now();
        let mut pools = Pools::new(
            Capacity::SpotFirst,
            &names(&["m7i.large"]),
            &names(&["subnet-1", "subnet-2"]),
        );
        let mut order = Vec::new();
        while let Some(pool) = pools.next_free(now) {
            order.push(pool.to_string());
            pools.refused(Some(&pool), now, Refusal::Capacity, "none".into());
        }
        assert_eq!(
            order,
            [
                "Spot m7i.large in subnet-1",
                "Spot m7i.large in subnet-2",
                "on-demand m7i.large in subnet-1",
                "on-demand m7i.large in subnet-2",
            ]
        );
        let (wait, said) = pools.wait(now);
        assert_eq!(wait, Duration::from_secs(15));
        assert_eq!(said, "Spot m7i.large in subnet-1: none");
        assert_eq!(asked(&pools, now + wait), "Spot m7i.large in subnet-1");
    }

    #[test]
    fn throttling_holds_every_pool_and_success_ends_it() {
        let now = Instant::now();
        let mut pools = Pools::new(Capacity::OnDemand, &names(&["a", "b"]), &[]);
        let first = pools.next_free(now).expect("one is free");
        pools.refused(Some(&first), now, Refusal::Throttled, "slow down".into());
        assert_eq!(asked(&pools, now), "none");
        assert!(!pools.may_start(now));
        assert_eq!(
            pools.wait(now),
            (Duration::from_secs(1), "slow down".into())
        );
        let later = now + Duration::from_secs(1);
        assert_eq!(asked(&pools, later), "on-demand a");
        pools.accepted(Some(&first));
        assert!(pools.may_start(now));
    }

    /// Calls of an outage in which a controller asks whenever something may be asked.
    fn calls_in(outage: Duration, pools: &mut Pools, refusal: Refusal) -> u32 {
        let begun = Instant::now();
        let mut now = begun;
        let mut calls = 0;
        while now < begun + outage {
            if let Some(pool) = pools.next_free(now) {
                calls += 1;
                pools.refused(Some(&pool), now, refusal, String::new());
            } else {
                now += pools.wait(now).0;
            }
        }
        calls
    }

    #[test]
    fn an_outage_of_ninety_minutes_costs_few_calls() {
        let outage = Duration::from_secs(90 * 60);
        let calls = |refusal| {
            calls_in(
                outage,
                &mut Pools::new(Capacity::OnDemand, &[], &[]),
                refusal,
            )
        };
        assert_eq!(calls(Refusal::Capacity), 33);
        assert_eq!(calls(Refusal::Limit), 22);
        assert_eq!(calls(Refusal::NotPermitted), 22);
        assert_eq!(calls(Refusal::Throttled), 95);
    }

    proptest! {
        /// Each pool costs the same few calls, however many there are.
        #[test]
        fn calls_grow_with_the_pools_and_not_with_the_asking(types in 1usize..5, subnets in 1usize..5) {
            let types: Vec<_> = (0..types).map(|n| n.to_string()).collect();
            let subnets: Vec<_> = (0..subnets).map(|n| n.to_string()).collect();
            let mut pools = Pools::new(Capacity::SpotFirst, &types, &subnets);
            let calls = calls_in(Duration::from_secs(90 * 60), &mut pools, Refusal::Capacity);
            prop_assert_eq!(calls as usize, 33 * 2 * types.len() * subnets.len());
        }
    }
}

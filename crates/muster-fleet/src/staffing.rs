//! How many servers a rate needs so that few requests wait for long: what queueing theory says of a
//! load that comes by chance.

/// A load as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests a second.
    pub rate: f64,
    /// Seconds that a request takes of one slot: the mean, and the square of its coefficient of
    /// variation.
    pub service_s: f64,
    pub service_cv2: f64,
    /// The variance of the requests in service if none waited, over its mean (peakedness): 1 where
    /// they come by chance, more where they come in bursts.
    pub peakedness: f64,
    /// Requests that one instance works on at a time.
    pub slots: u32,
}

impl Load {
    /// The share of requests that wait longer than `wait_s` with 0, 1, 2 … instances.
    ///
    /// With `n` slots it is `C(n) exp(-(n / S - r) wait f)`: the probability to wait at all by Erlang's
    /// formula C, from the recursion of his formula B, and the tail of the wait, which for other than
    /// exponential service times falls `f = 2 / (1 + cv^2)` times as fast in heavy traffic (Köllerström,
    /// "Heavy traffic theory for queues with several servers", 1974), and in light traffic faster
    /// ([`SPARED_TAIL`]). Until a wait is as long as a service it falls less fast than that;
    /// [`TAIL_AT_ONCE`] is measured. Where requests come in bursts
    /// of peakedness `z`, `n` slots are to them as `n / z` are to single ones (Hayward's approximation;
    /// Fredericks, "Congestion in blocking systems", 1980).
    pub fn late_shares(self, wait_s: f64) -> impl Iterator<Item = f64> {
        let z = self.peakedness.max(1.0);
        let offered = self.rate * self.service_s / z;
        let hastened = 2.0 / (1.0 + self.service_cv2) - 1.0;
        let later = (1.0 - TAIL_AT_ONCE) * (wait_s / self.service_s).min(1.0);
        let mut waiting = Waiting::new(offered);
        (0u32..).map(move |instances| {
            let slots = f64::from(instances) * f64::from(self.slots.max(1));
            let spare = slots / self.service_s - self.rate;
            if spare <= 0.0 {
                return 1.0;
            }
            let spared = if hastened > 0.0 {
                1.0 - SPARED_TAIL * (self.rate * self.service_s / slots).ln()
            } else {
                1.0
            };
            let tail = 1.0 + hastened * (TAIL_AT_ONCE + later * spared);
            let log_waits = waiting.log_probability(slots / z);
            (log_waits - spare * wait_s * tail / z).exp().min(1.0)
        })
    }
}

/// How much of what the tail of the wait gains from regular service times it has from the first
/// second on, by simulation of 13 loads at three variations: within a fifth of the share of late
/// requests where that is around one in a hundred.
const TAIL_AT_ONCE: f64 = 0.4;

/// How much more it gains where slots are busy for a share `u` of the time: `-0.75 ln(u)`.
///
/// With regular service times the wait of `n` servers falls by `x r` a second, where `ln(1 + x) = u x`
/// (that of Erlang arrivals of order `n` at one server: Crommelin, "Delay probability formulae", 1932),
/// instead of by `n / S - r`. The quotient is 2 for `u = 1`, 2.2 for 3/4, 2.5 for 1/2 and 3.1 for 1/4.
const SPARED_TAIL: f64 = 0.75;

/// The probability to wait, for ever more slots.
struct Waiting {
    /// Servers that are busy on average.
    offered: f64,
    /// Slots so far, the probability that all are busy where nobody waits (Erlang B), and the
    /// logarithm of the probability to wait (Erlang C) with these and with one less.
    slots: f64,
    blocked: f64,
    log_waits: f64,
    log_waits_before: f64,
}

impl Waiting {
    fn new(offered: f64) -> Self {
        Self {
            offered,
            slots: 0.0,
            blocked: 1.0,
            log_waits: 0.0,
            log_waits_before: 0.0,
        }
    }

    /// With `slots`, which may be no whole number and are never less than before.
    fn log_probability(&mut self, slots: f64) -> f64 {
        while self.slots < slots {
            self.slots += 1.0;
            self.blocked = self.offered * self.blocked / (self.slots + self.offered * self.blocked);
            let utilization = self.offered / self.slots;
            self.log_waits_before = self.log_waits;
            self.log_waits = if utilization >= 1.0 {
                0.0
            } else {
                (self.blocked / (1.0 - utilization * (1.0 - self.blocked))).ln()
            };
        }
        let share = 1.0 - (self.slots - slots);
        self.log_waits_before * (1.0 - share) + self.log_waits * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: f64, service_s: f64) -> Load {
        Load {
            rate,
            service_s,
            service_cv2: 1.0,
            peakedness: 1.0,
            slots: 1,
        }
    }

    fn late(load: Load, wait_s: f64, instances: usize) -> f64 {
        let share = load.late_shares(wait_s).nth(instances);
        share.expect("there is no last")
    }

    /// Of M/M/1, `P(wait > t) = rho exp(-(mu - lambda) t)`; with two servers and `a = 1`, Erlang C is
    /// 1/3 (`B(2) = 1/5`, `C = B / (1 - rho (1 - B))`).
    #[test]
    fn erlangs_formula_by_hand() {
        assert_eq!(late(load(0.5, 1.0), 0.0, 0), 1.0, "nobody serves");
        assert!((late(load(0.5, 1.0), 0.0, 1) - 0.5).abs() < 1e-12);
        assert!((late(load(0.5, 1.0), 2.0, 1) - 0.5 * (-1.0f64).exp()).abs() < 1e-12);
        assert!((late(load(1.0, 1.0), 0.0, 2) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(late(load(3.0, 1.0), 1.0, 3), 1.0, "no spare");
        let two_slots = Load {
            slots: 2,
            ..load(1.0, 1.0)
        };
        assert!((late(two_slots, 0.0, 1) - 1.0 / 3.0).abs() < 1e-12);
    }

    /// The load of which eight fixed instances answer 99 of 100 within a second: 0.5 a second, 6 s each.
    #[test]
    fn an_offered_load_of_three_needs_eight() {
        let regular = Load {
            service_cv2: 0.0,
            ..load(0.5, 6.0)
        };
        let enough = regular.late_shares(1.0).position(|late| late <= 0.008);
        assert_eq!(enough, Some(8));
    }

    /// One server that is busy for a quarter of the time: 0.42 % wait for longer than two services, by
    /// Erlang's formula for regular ones (1909), and a fifth more are on the safe side.
    #[test]
    fn in_light_traffic_regular_services_leave_few_to_wait() {
        let regular = Load {
            service_cv2: 0.0,
            ..load(0.5, 0.5)
        };
        let waits = late(regular, 1.0, 1);
        assert!((0.0042..0.0051).contains(&waits), "{waits}");
    }

    #[test]
    fn bursts_and_irregular_services_need_more_and_every_instance_helps() {
        let needed = |load: Load| load.late_shares(1.0).position(|late| late <= 0.01);
        let plain = needed(load(5.0, 2.0));
        let regular = needed(Load {
            service_cv2: 0.0,
            ..load(5.0, 2.0)
        });
        let bursty = needed(Load {
            peakedness: 3.0,
            ..load(5.0, 2.0)
        });
        assert!(
            regular < plain && plain < bursty,
            "{regular:?} {plain:?} {bursty:?}"
        );
        let shares: Vec<f64> = load(5.0, 2.0).late_shares(1.0).take(100).collect();
        assert!(shares.is_sorted_by(|a, b| a >= b));
    }
}

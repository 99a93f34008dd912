//! The load of a trace, and how many of its requests are late when so many instances serve it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::scenario::Scenario;

/// The share of requests that may be late: 1 % for a p99.
pub(super) const LATE_SHARE: f64 = 0.01;

/// Levels of a fleet that are decided one by one.
const LEVELS: u32 = 256;

/// What rounding may do to a time.
const ROUNDING_S: f64 = 1e-6;

/// Requests with the time that each occupies a slot.
pub(super) struct Load<'a> {
    /// When each arrives, in order.
    pub(super) arrivals: &'a [f64],
    /// What each takes.
    pub(super) services: Vec<f64>,
    longest_s: f64,
    slots: usize,
    wait_s: f64,
}

impl<'a> Load<'a> {
    pub(super) fn new(arrivals: &'a [f64], scenario: &Scenario) -> Self {
        let services: Vec<f64> = (0..arrivals.len() as u64)
            .map(|request| scenario.service_time_s(request))
            .collect();
        Self {
            arrivals,
            longest_s: services.iter().copied().fold(0.0, f64::max),
            services,
            slots: scenario.slots as usize,
            wait_s: scenario.target_wait_s,
        }
    }

    /// Returns how many requests may be late.
    pub(super) fn allowed_late(&self) -> usize {
        (LATE_SHARE * self.arrivals.len() as f64 + ROUNDING_S) as usize
    }

    /// Calls `late` for each late request where `instances` serve all of them from the first on, and
    /// returns how many these are.
    pub(super) fn late(&self, instances: u32, late: impl FnMut(usize)) -> usize {
        let free = vec![Reverse(0); instances as usize * self.slots];
        self.serve(0..self.arrivals.len(), free.into(), self.wait_s, late)
    }

    /// Returns how many instances make one level of the fleet: one, or for fleets that would have too many
    /// levels as many as make at most [`LEVELS`] of as many instances as nobody is late with, or as there may
    /// be.
    ///
    /// A fleet of thousands is so decided in some hundred steps: that takes a hundredth of the time and of the
    /// memory, and is wrong by one level at most.
    pub(super) fn instances_a_level(&self, max_instances: u32) -> u32 {
        let mut each = 1;
        while LEVELS * each < max_instances && self.late(LEVELS * each, |_| {}) > 0 {
            each *= 2;
        }
        each
    }

    /// Returns how many of `requests` are late at least where no more than `instances` run at any time
    /// from the first arrival until the last of them has to begin.
    ///
    /// Requests begin in the order of arrival, so that whatever is in time has begun by then, and all
    /// before it. Here as many instances run all the time, the requests before are in service at the
    /// first arrival, or begin then, and end as soon as their arrival and their service time allow. So
    /// each request begins no later than it can in truth, by induction: when it does in truth, a slot has
    /// nothing to do with those before it, which end no later here.
    pub(super) fn least_late(&self, requests: Range<usize>, instances: u32) -> usize {
        let from_s = self.arrivals[requests.start];
        let slots = instances as usize * self.slots;
        let mut free: BinaryHeap<_> = vec![Reverse(from_s.to_bits()); slots].into();
        let before = self.arrivals[..requests.start]
            .partition_point(|arrival| arrival + self.longest_s <= from_s);
        for earlier in before..requests.start {
            let left_s = self.arrivals[earlier] + self.services[earlier] - ROUNDING_S - from_s;
            if left_s > 0.0
                && let Some(mut slot) = free.peek_mut()
            {
                *slot = Reverse((f64::from_bits(slot.0) + left_s).to_bits());
            }
        }
        self.serve(requests, free, self.wait_s + ROUNDING_S, |_| {})
    }

    /// Serves requests in order, each by the slot that is free first. Times are the bits of floats that
    /// are not negative, which sort as the floats do.
    fn serve(
        &self,
        requests: Range<usize>,
        mut free: BinaryHeap<Reverse<u64>>,
        wait_s: f64,
        mut late: impl FnMut(usize),
    ) -> usize {
        let mut count = 0;
        for request in requests {
            let arrival = self.arrivals[request];
            let begin = free.peek_mut().map_or(f64::INFINITY, |mut slot| {
                let begin = f64::from_bits(slot.0).max(arrival);
                *slot = Reverse((begin + self.services[request]).to_bits());
                begin
            });
            if begin - arrival > wait_s {
                count += 1;
                late(request);
            }
        }
        count
    }
}

/// How many requests less are late by the first instance, by the second, and so on: of the largest
/// convex function that is nowhere above `late`, which has the number late with none, with one, and so
/// on, and ends with 0.
pub(super) fn saved_by_each(late: &[usize]) -> Vec<f64> {
    let slope = |from: usize, to: usize| (late[from] as f64 - late[to] as f64) / (to - from) as f64;
    let mut corners: Vec<usize> = Vec::new();
    for at in 0..late.len() {
        while let [.., before, last] = corners[..]
            && slope(before, last) <= slope(last, at)
        {
            corners.pop();
        }
        corners.push(at);
    }
    let sides = corners.windows(2);
    sides
        .flat_map(|side| std::iter::repeat_n(slope(side[0], side[1]), side[1] - side[0]))
        .take_while(|saved| *saved > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_single_instances_where_256_are_enough() {
        for (requests, each) in [(1, 1), (256, 1), (257, 2), (512, 2), (513, 4), (1000, 4)] {
            let arrivals = vec![0.0; requests];
            let scenario = Scenario {
                service_s: 60.0,
                ..Scenario::on_ec2(32)
            };
            let load = Load::new(&arrivals, &scenario);
            assert_eq!(
                load.instances_a_level(10_000),
                each,
                "{requests} at one time"
            );
        }
    }
}

//! The requests of late: how many came, in which time.

use std::collections::VecDeque;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What was looked at of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// The newest last.
    looks: VecDeque<Look>,
    /// Until when the load is believed to grow.
    grows_until: Seconds,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Seconds,
    /// Requests submitted by then.
    submitted: f64,
    /// Those without an answer.
    backlog: u64,
}

impl Arrivals {
    /// Takes in how many requests there are by now, and forgets what is older than the longest time that is
    /// asked for.
    pub fn observe(&mut self, now: Seconds, submitted: f64, backlog: u64, longest: Seconds) {
        self.looks.push_back(Look {
            at: now,
            submitted,
            backlog,
        });
        while self
            .looks
            .get(1)
            .is_some_and(|look| look.at <= now - longest)
        {
            self.looks.pop_front();
        }
    }

    /// Requests of the last `window` seconds.
    pub fn within(&self, window: Seconds) -> f64 {
        self.counted(window).0
    }

    /// Requests that would be in service if none had waited: those of the last service time.
    pub fn in_service(&self, service_s: Seconds) -> f64 {
        let (came, in_s) = self.counted(service_s);
        came * (service_s / in_s.max(service_s))
    }

    /// By how much the requests a second become more each second, of a load that is believed to grow.
    pub fn growth(&self, window: Seconds) -> f64 {
        let now = self.looks.back().map_or(0.0, |look| look.at);
        if now <= self.grows_until {
            self.counted_growth(window)
        } else {
            0.0
        }
    }

    /// A load is believed to grow once its requests have been late for two boots, which is how long it takes
    /// to launch for them and to clear them, and are ever more; until it has not grown for one. (Of
    /// clients who wait for their answers, there are never more.)
    pub fn believe_growth(&mut self, late_s: Seconds, boot_s: Seconds, window: Seconds) {
        let now = self.looks.back().map_or(0.0, |look| look.at);
        let outgrows = late_s >= 2.0 * boot_s && self.outgrow_answers(boot_s);
        if (outgrows || now <= self.grows_until) && self.counted_growth(window) > 0.0 {
            self.grows_until = now + boot_s;
        }
    }

    /// What has long been the same does not grow, whatever chance makes of a moment.
    pub fn believe_no_growth(&mut self) {
        self.grows_until = 0.0;
    }

    /// Whether more requests are without an answer than were a `window` ago, and more than by chance.
    fn outgrow_answers(&self, window: Seconds) -> bool {
        let backlog = self.looks.back().map_or(0, |look| look.backlog);
        let before = self.before(window).map_or(0, |look| look.backlog);
        backlog.saturating_sub(before) as f64 > (backlog as f64).sqrt()
    }

    /// By how much the requests a second become more each second, if in each quarter of a `window` came more
    /// than in the one before, and in the last more than by chance; a deviation less than was counted.
    fn counted_growth(&self, window: Seconds) -> f64 {
        let part_s = window / 4.0;
        let within = [1.0, 2.0, 3.0, 4.0].map(|parts| self.within(parts * part_s));
        // The newest first.
        let came = [
            within[0],
            within[1] - within[0],
            within[2] - within[1],
            within[3] - within[2],
        ];
        let (more, deviation) = (came[0] - came[3], (came[0] + came[3]).sqrt());
        let always = came.is_sorted_by(|newer, older| newer > older);
        if always {
            (more - deviation).max(0.0) / (3.0 * part_s * part_s)
        } else {
            0.0
        }
    }

    /// Requests of the last `window` seconds, and how long ago the look was that they are counted from.
    fn counted(&self, window: Seconds) -> (f64, Seconds) {
        let looks = self.looks.back().zip(self.before(window));
        looks.map_or((0.0, window), |(now, before)| {
            (now.submitted - before.submitted, now.at - before.at)
        })
    }

    /// What the last look saw that is a `window` ago.
    fn before(&self, window: Seconds) -> Option<&Look> {
        let from = self.looks.back()?.at - window;
        let after = self.looks.partition_point(|look| look.at <= from);
        self.looks.get(after.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second at so many requests of it, none of which is answered.
    fn seen(came: impl IntoIterator<Item = u64>) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let mut submitted = 0;
        for (second, came) in came.into_iter().enumerate() {
            submitted += came;
            arrivals.observe(second as f64, submitted as f64, submitted, 1000.0);
        }
        arrivals
    }

    #[test]
    fn what_becomes_more_all_the_time_grows_and_what_rises_once_does_not() {
        // By 2 requests a second each second, less a deviation of 92 and 32 requests: 60 - 11 in 3 x 16.
        let growing = seen((0..=16).map(|second| 2 * second));
        let growth = growing.counted_growth(16.0);
        assert!((1.7..2.0).contains(&growth), "{growth}");
        let risen = seen((0..=16).map(|second| if second < 10 { 2 } else { 40 }));
        assert_eq!(risen.counted_growth(16.0), 0.0);
        // 5, 6, 7 and 8 are in order, and may be so by chance.
        let chance = seen([0, 5, 6, 7, 8]);
        assert_eq!(chance.counted_growth(4.0), 0.0);
    }

    #[test]
    fn growth_is_believed_of_what_is_late_for_two_boots_and_forgotten_after_one() {
        let mut growing = seen((0..=16).map(|second| 2 * second));
        growing.believe_growth(7.0, 4.0, 16.0);
        assert_eq!(growing.growth(16.0), 0.0, "not for long enough");
        growing.believe_growth(8.0, 4.0, 16.0);
        assert!(growing.growth(16.0) > 0.0);
        growing.believe_no_growth();
        assert_eq!(growing.growth(16.0), 0.0);
        growing.believe_growth(8.0, 4.0, 16.0);
        growing.observe(21.0, 300.0, 300, 1000.0);
        assert_eq!(growing.growth(16.0), 0.0, "over");
        let mut answered = Arrivals::default();
        for second in 0..=16 {
            answered.observe(f64::from(second), f64::from(second * second), 100, 1000.0);
        }
        answered.believe_growth(8.0, 4.0, 16.0);
        assert_eq!(answered.growth(16.0), 0.0, "as many wait as before");
    }

    #[test]
    fn requests_are_counted_from_a_look_and_those_in_service_by_the_time() {
        let arrivals = seen([0, 4, 4, 4, 4]);
        assert_eq!(arrivals.within(2.0), 8.0);
        assert_eq!(arrivals.within(1.5), 8.0, "by the look before");
        assert_eq!(arrivals.in_service(1.5), 6.0);
        assert_eq!(arrivals.in_service(0.5), 2.0);
        assert!(arrivals.outgrow_answers(2.0));
        assert_eq!(Arrivals::default().within(2.0), 0.0);
    }
}

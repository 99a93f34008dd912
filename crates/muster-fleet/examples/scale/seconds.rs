//! What happened in each second of a simulated load.

use muster_fleet::simulate::Outcome;

/// One second of the load: how much happened in it, and what there was at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Requests that came.
    pub arrived: u32,
    /// Requests that an instance began with.
    pub begun: u32,
    /// Requests that were answered.
    pub answered: u32,
    /// Requests that came and are not answered.
    pub unanswered: u32,
    /// Calls that were to launch instances.
    pub launch_calls: u32,
    /// Instances that were launched.
    pub launched: u32,
    /// Instances that were to be launched and were not, as there was no token for them.
    pub refused: u32,
    /// Instances that have booted.
    pub booted: u32,
    /// Instances that were drained.
    pub drained: u32,
    /// Instances that take work.
    pub ready: u32,
    /// Instances that boot.
    pub booting: u32,
}

/// Tells the seconds of the load: what is left when it is over is not looked at.
pub fn seconds(arrivals: &[f64], length_s: f64, service_s: f64, outcome: &Outcome) -> Vec<Second> {
    let mut seconds = vec![Second::default(); length_s.ceil() as usize];
    let mut count = |at_s: f64, field: fn(&mut Second) -> &mut u32, by: u32| {
        if let Some(second) = seconds.get_mut(at_s as usize) {
            *field(second) += by;
        }
    };
    for (arrival, wait) in arrivals.iter().zip(&outcome.waits) {
        count(*arrival, |second| &mut second.arrived, 1);
        count(arrival + wait, |second| &mut second.begun, 1);
        let answered_s = arrival + wait + service_s;
        count(answered_s, |second| &mut second.answered, 1);
    }
    let launched_s: Vec<f64> = outcome.bills.iter().map(|bill| bill.0).collect();
    for (at_s, instances) in &outcome.refused_launches {
        count(*at_s, |second| &mut second.refused, *instances);
    }
    // What is launched at one time is one call, and one that is refused in part is one, too.
    let refused_s = outcome.refused_launches.iter().map(|refused| refused.0);
    let mut called_s: Vec<f64> = launched_s.iter().copied().chain(refused_s).collect();
    called_s.sort_unstable_by(f64::total_cmp);
    called_s.dedup();
    for at_s in launched_s {
        count(at_s, |second| &mut second.launched, 1);
    }
    for at_s in called_s {
        count(at_s, |second| &mut second.launch_calls, 1);
    }
    let mut changes = outcome.fleet.iter().peekable();
    let mut before = Second::default();
    for (second, end_s) in seconds.iter_mut().zip(1..) {
        (second.ready, second.booting) = (before.ready, before.booting);
        while let Some((_, ready, booting)) = changes.next_if(|change| change.0 < f64::from(end_s))
        {
            // Whoever boots no more and is not ready was drained while it booted.
            second.booted += ready.saturating_sub(second.ready);
            (second.ready, second.booting) = (*ready, *booting);
        }
        second.unanswered = before.unanswered + second.arrived - second.answered;
        let there = before.ready + before.booting + second.launched;
        second.drained = there.saturating_sub(second.ready + second.booting);
        before = *second;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two instances are launched at 0.5 s and are ready at 2 s, where three requests wait that each take
    /// 0.8 s; one is drained at 3.5 s.
    #[test]
    fn a_load_is_told_second_by_second() {
        let outcome = Outcome {
            name: String::new(),
            cost: 0.0,
            instance_hours: 0.0,
            waits: vec![1.8, 1.5, 1.3],
            bills: vec![(0.5, 60.5), (0.5, 60.5)],
            launches: 2,
            refused_launches: vec![(0.5, 3)],
            cold_starts: 1,
            peak: 2,
            fleet: vec![
                (0.0, 0, 0),
                (0.5, 0, 2),
                (2.0, 1, 1),
                (2.1, 2, 0),
                (3.5, 1, 0),
            ],
            reasons: Vec::new(),
        };
        let told = seconds(&[0.2, 0.5, 1.5], 4.0, 0.8, &outcome);
        let launched = Second {
            arrived: 2,
            unanswered: 2,
            launch_calls: 1,
            launched: 2,
            refused: 3,
            booting: 2,
            ..Second::default()
        };
        let waiting = Second {
            arrived: 1,
            unanswered: 3,
            booting: 2,
            ..Second::default()
        };
        let serving = Second {
            begun: 3,
            answered: 2,
            unanswered: 1,
            booted: 2,
            ready: 2,
            ..Second::default()
        };
        let draining = Second {
            answered: 1,
            drained: 1,
            ready: 1,
            ..Second::default()
        };
        assert_eq!(told, [launched, waiting, serving, draining]);
    }
}

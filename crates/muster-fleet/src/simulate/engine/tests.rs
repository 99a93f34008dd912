use super::*;
use crate::simulate::arrivals::spread;
use crate::simulate::peers::Fixed;

fn scenario(service_s: f64, service_cv: f64) -> Scenario {
    Scenario {
        boot_s: 26.0,
        service_s,
        service_cv,
        slots: 1,
        max_instances: 32,
        price_per_hour: 1.0,
        billing_minimum_s: 60.0,
        target_wait_s: 1.0,
        count_lag_s: 1.0,
        count_noise: 0,
        seed: 7,
    }
}

#[test]
fn the_totals_have_what_the_answered_requests_took() {
    let scenario = scenario(2.0, 0.5);
    let arrivals = spread(&[(0.0, 50)], 100.0, 1);
    let mut sim = Simulation::new(&scenario, arrivals.len());
    sim.replay(&arrivals, 100.0, &mut Autoscaler::Peer(Box::new(Fixed(2))));
    let took_s: f64 = (0..50).map(|n| scenario.service_time_s(n)).sum();
    assert_eq!(sim.answered, 50);
    let off_s = sim.worked.as_secs_f64() - took_s;
    assert!(off_s.abs() < 1e-6, "{:?}, and {took_s}", sim.worked);
}

/// With Poisson arrivals and exponential times Erlang's C has the waits: an offered load of `a = 2` at
/// `k = 4` instances waits with a probability of `C = X / (1 + 2 + 2 + 4/3 + X)`, where
/// `X = 2^4 / 4! * 4 / (4 - 2) = 4/3`: 0.1739; and longer than a service time with `C e^-2`: 0.0235.
#[test]
fn exponential_times_wait_as_erlang_has_it() {
    let scenario = scenario(1.0, 1.0);
    let length_s = 100_000.0;
    let arrivals = spread(&[(0.0, 200_000)], length_s, 1);
    let fixed = Autoscaler::Peer(Box::new(Fixed(4)));
    let outcome = run(&arrivals, length_s, &scenario, fixed);
    let (waits, long) = (outcome.share_over(0.0), outcome.share_over(1.0));
    assert!((waits - 0.1739).abs() < 0.01, "{waits}");
    assert!((long - 0.0235).abs() < 0.003, "{long}");
}

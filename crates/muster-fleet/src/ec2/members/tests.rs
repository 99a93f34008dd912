//! What is known of instances, under a clock of the test's own.

use InstanceState::{Draining, Pending, Running};

use super::*;

const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
const HUNG_TIMEOUT: Duration = Duration::from_secs(40);
const NOW_MS: u64 = 1_800_000_000_000;

/// Members under a clock of the test's own.
struct World {
    members: Members,
    begun: Instant,
    now_s: u64,
    every: Duration,
    listing: Vec<ListedInstance>,
}

impl World {
    fn new(max: u32) -> Self {
        let mut members = Members::new(max, BOOT_TIMEOUT, HUNG_TIMEOUT);
        members.template_version = TemplateVersion::Known(1);
        Self {
            members,
            begun: Instant::now(),
            now_s: 0,
            every: Duration::from_secs(10),
            listing: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.now_s)
    }

    /// Lists `id`, launched `age_s` ago by EC2's clock.
    fn add(&mut self, id: &str, age_s: u64, slot: Option<u32>) {
        self.listing.push(ListedInstance {
            id: InstanceId(id.to_owned()),
            power: PowerState::Running,
            launched_at_ms: Some(NOW_MS + self.now_s * 1000 - age_s * 1000),
            spot: false,
            slot,
            launch: None,
            template_version: Some(1),
        });
    }

    fn power(&mut self, id: &str, power: PowerState) {
        let found = self.listing.iter_mut().find(|listed| listed.id.0 == id);
        found.unwrap().power = power;
    }

    fn list(&mut self) {
        let (now, now_ms) = (self.now(), NOW_MS + self.now_s * 1000);
        self.members
            .apply_listing(now, now_ms, self.listing.clone(), &[]);
    }

    /// Time passes, and reports are asked for all the while.
    fn listen(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_s += 1;
            self.members.record_receive(self.now());
        }
    }

    fn report(&mut self, id: &str, phase: Phase, started_at_ms: u64) {
        self.report_answers(id, phase, started_at_ms, 0);
    }

    fn report_answers(&mut self, id: &str, phase: Phase, started_at_ms: u64, answered: u64) {
        let report = Heartbeat {
            id: InstanceId(id.to_owned()),
            phase,
            busy: true,
            started_at_ms,
            answered,
            every: self.every,
        };
        self.members.record_heartbeat(self.now(), &report);
    }

    fn states(&self) -> Vec<(String, InstanceState)> {
        let instances = self.members.instances(self.now()).into_iter();
        instances.map(|i| (i.id.0, i.state)).collect()
    }

    fn overdue(&self, id: &str) -> bool {
        let mut instances = self.members.instances(self.now()).into_iter();
        instances.any(|instance| instance.id.0 == id && instance.overdue)
    }

    fn unresponsive(&self) -> Vec<(String, Unresponsive)> {
        let unresponsive = self.members.unresponsive(self.now()).into_iter();
        unresponsive.map(|(id, why)| (id.0, why)).collect()
    }
}

#[test]
fn who_is_not_heard_is_given_up_while_others_could_be() {
    let mut world = World::new(5);
    world.add("mute", 0, Some(1));
    world.add("silent", 0, Some(2));
    world.list();
    world.listen(5);
    world.report("silent", Phase::Ready, NOW_MS);
    assert_eq!(
        world.states(),
        [("mute".to_owned(), Pending), ("silent".to_owned(), Running)]
    );
    world.listen(19);
    assert!(!world.overdue("silent"));
    world.listen(1);
    assert!(world.overdue("silent") && !world.overdue("mute"));
    world.listen(20);
    assert_eq!(world.unresponsive(), []);
    world.listen(1);
    assert_eq!(
        world.unresponsive(),
        [("silent".to_owned(), Unresponsive::Silent)]
    );
    // The queue of reports fails for longer than anything may be silent.
    world.now_s += 600;
    assert_eq!(world.unresponsive(), []);
    world.listen(40);
    assert_eq!(world.unresponsive(), [], "both have their time again");
    world.report("silent", Phase::Ready, NOW_MS);
    assert!(!world.overdue("silent"));
    world.listen(262);
    let silent = ("silent".to_owned(), Unresponsive::Silent);
    assert_eq!(
        world.unresponsive(),
        [("mute".to_owned(), Unresponsive::NeverReported), silent]
    );
}

#[test]
fn one_that_reports_less_often_than_its_controller_expects_has_its_own_time() {
    let mut world = World::new(5);
    world.every = Duration::from_secs(15);
    world.add("a", 0, Some(1));
    world.list();
    world.listen(1);
    world.report("a", Phase::Ready, NOW_MS);
    world.listen(60);
    assert_eq!(world.unresponsive(), []);
    world.listen(1);
    let silent = ("a".to_owned(), Unresponsive::Silent);
    assert_eq!(world.unresponsive(), [silent]);
}

#[test]
fn a_successor_gives_everyone_a_fresh_deadline_and_no_boot_of_hours() {
    let mut world = World::new(5);
    // Launched a minute from now, by a clock that is off.
    world.add("early", 0, Some(1));
    world.listing[0].launched_at_ms = Some(NOW_MS + 60_000);
    world.add("old", 7200, Some(2));
    world.list();
    world.listen(299);
    assert_eq!(world.unresponsive(), []);
    let ages = world.members.instances(world.now());
    assert!(
        ages.iter().all(|i| i.age == Duration::from_secs(299)),
        "{ages:?}"
    );
    world.report("old", Phase::Ready, NOW_MS - 7_200_000);
    let oldest = &world.members.instances(world.now())[0];
    assert_eq!(oldest.age, Duration::from_secs(7200 + 299));
    world.report("early", Phase::Ready, NOW_MS);
    assert_eq!(
        world.states()[1],
        ("early".to_owned(), Running),
        "10 minutes are tolerated"
    );
}

#[test]
fn reports_from_before_the_last_start_count_for_nothing() {
    let mut world = World::new(5);
    world.add("a", 0, Some(1));
    world.list();
    world.report("a", Phase::Ready, NOW_MS + 1);
    world
        .members
        .shutdown_requested(world.now(), &InstanceId("a".to_owned()));
    assert_eq!(world.states(), [("a".to_owned(), Draining)]);
    world.report("a", Phase::Ready, NOW_MS + 1);
    assert_eq!(world.states(), [("a".to_owned(), Draining)]);
    world.power("a", PowerState::Stopped);
    world.list();
    assert_eq!(world.states(), []);
    world.now_s += 5;
    world
        .members
        .started(world.now(), &InstanceId("a".to_owned()));
    world.list();
    assert_eq!(world.states(), [("a".to_owned(), Pending)], "listed late");
    world.report("a", Phase::Ready, NOW_MS + 1);
    assert_eq!(world.states(), [("a".to_owned(), Pending)]);
    world.report("a", Phase::Ready, NOW_MS + 6000);
    assert_eq!(world.states(), [("a".to_owned(), Running)]);
    // Late, and out of order.
    world.report("a", Phase::Draining, NOW_MS + 1);
    assert_eq!(world.states(), [("a".to_owned(), Running)]);
    world.report("a", Phase::Draining, NOW_MS + 6000);
    world.report("a", Phase::Ready, NOW_MS + 6000);
    assert_eq!(world.states(), [("a".to_owned(), Draining)]);
    assert_eq!(world.members.failed_starts(), 0);
}

#[test]
fn a_launch_that_is_not_listed_yet_is_pending_and_then_gone() {
    let mut world = World::new(5);
    let id = InstanceId("a".to_owned());
    world.members.launched(world.now(), &id, Some(1), "token");
    world.now_s = 59;
    world.list();
    assert_eq!(world.states(), [("a".to_owned(), Pending)]);
    world.now_s = 60;
    world.list();
    assert_eq!(world.states(), []);
    assert_eq!(world.members.failed_starts(), 1);
    // One that was listed and vanishes is gone at once.
    world.add("b", 0, Some(1));
    world.list();
    world.listing.clear();
    world.list();
    assert_eq!(world.states(), []);
    assert_eq!(world.members.failed_starts(), 2);
}

#[test]
fn no_two_bear_the_same_slot_and_the_lowest_free_ones_are_used() {
    let mut world = World::new(6);
    world.add("a", 10, Some(2));
    world.add("b", 5, Some(2));
    world.add("unlisted", 5, None);
    world.list();
    assert_eq!(world.members.untagged(world.now()), []);
    world.report("b", Phase::Ready, NOW_MS);
    world.report("unlisted", Phase::Ready, NOW_MS);
    world.list();
    let untagged = world.members.untagged(world.now());
    let slots: Vec<_> = untagged
        .iter()
        .map(|(id, slot)| (id.0.as_str(), *slot))
        .collect();
    assert_eq!(slots, [("b", 1), ("unlisted", 3)]);
    assert_eq!(world.members.free_slots(world.now(), 9, &[]), [4, 5, 6]);
    assert_eq!(world.members.free_slots(world.now(), 1, &[]), [4]);
}

#[test]
fn what_an_instance_has_answered_is_known_and_no_late_report_takes_it_back() {
    let mut world = World::new(1);
    world.add("a", 60, None);
    world.list();
    let answered = |world: &World| {
        let answers = world.members.instances(world.now())[0].answered;
        answers.map(|answers| (answers.count, answers.age.as_secs()))
    };
    assert_eq!(answered(&world), None);
    for (reported, known) in [(3, 3), (8, 8), (5, 8)] {
        world.report_answers("a", Phase::Ready, NOW_MS, reported);
        assert_eq!(answered(&world), Some((known, 0)));
        world.listen(3);
        assert_eq!(answered(&world), Some((known, 3)));
    }
    // Another run of its worker counts anew.
    world.report_answers("a", Phase::Ready, NOW_MS + 1, 2);
    assert_eq!(answered(&world), Some((2, 0)));
}

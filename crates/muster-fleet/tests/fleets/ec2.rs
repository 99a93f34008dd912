//! What EC2 needs beyond the conformance suite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::InstanceStateName;
use muster_fleet::{Capacity, Fleet, FleetError, InstanceState, Tier};
use muster_testbed::moto::Pool;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, When};

use crate::account::{Account, Booter, FoundInstance, report};
use crate::conformance::{self, all, ids, until};
use crate::crash::{counted, launches, named};

#[tokio::test]
async fn a_batch_lives_and_ends() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    let (fleet, _booter) = account.booted().await;
    conformance::a_batch_lives_and_ends(fleet).await;
}

#[tokio::test]
async fn a_start_that_fails_is_counted() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    let (fleet, booter) = account.booted().await;
    booter.reports.store(false, Ordering::Relaxed);
    let end = async |id: muster_fleet::InstanceId| {
        // EC2 has shown it once it is named.
        named(&account, &fleet, 1).await;
        let call = account.client.terminate_instances().instance_ids(id.0);
        call.send().await.unwrap();
    };
    let counted = conformance::a_start_that_fails_is_counted(Arc::clone(&fleet), end);
    counted.await;
}

#[tokio::test]
async fn one_that_is_never_heard_from_is_ended() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.boot_timeout = Duration::from_millis(500);
    let (fleet, booter) = account.booted().await;
    booter.reports.store(false, Ordering::Relaxed);
    fleet.launch(Tier::Ec2, 2).await.unwrap();
    until(&*fleet, "both are ended", <[_]>::is_empty).await;
    assert_eq!(fleet.failed_starts(Tier::Ec2), 2);
}

#[tokio::test]
async fn a_stopped_instance_is_started_before_any_is_launched() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.stopped_instances = 1;
    let (fleet, booter) = account.booted().await;
    fleet.launch(Tier::Ec2, 2).await.unwrap();
    let running = |i: &[_]| i.len() == 2 && all(InstanceState::Running)(i);
    let there = until(&*fleet, "two run", running).await;
    // One that EC2 has not shown yet can not be stopped.
    named(&account, &fleet, 2).await;
    // A late report of its first run must not count for its second.
    let late: Vec<_> = account.instances().await.into_iter().collect();
    fleet.drain(&ids(&there)).await.unwrap();
    until(&*fleet, "none is listed", <[_]>::is_empty).await;
    let left = account.instances().await;
    assert_eq!(left.len(), 1, "{left:?}");
    let (id, seen) = left.into_iter().next().unwrap();
    assert_eq!(seen.state, InstanceStateName::Stopped);

    drop(booter);
    fleet.launch(Tier::Ec2, 2).await.unwrap();
    for (id, seen) in &late {
        fleet.record_heartbeat(&report(id, seen.launched_at_ms + 1));
    }
    let there = fleet.instances().await.unwrap();
    assert!(all(InstanceState::Pending)(&there), "{there:?}");
    assert_eq!(there.len(), 2);
    assert!(
        there.iter().any(|instance| instance.id.0 == id),
        "{there:?}"
    );
    let _booter = Booter::new(account, Arc::clone(&fleet), None);
    until(&*fleet, "two run again", running).await;
    assert_eq!(fleet.failed_starts(Tier::Ec2), 0);
}

#[tokio::test]
#[ignore = "takes AWS's server ten seconds: run `make test-long`"]
async fn no_call_launches_more_than_a_thousand() {
    let Some(account) = Account::new(1001).await else {
        return;
    };
    let (fleet, _lease) = account.fleet_at(account.server.endpoint()).await;
    fleet.launch(Tier::Ec2, 1001).await.unwrap();
    let launches = launches(&account).await;
    let counts: Vec<_> = launches
        .iter()
        .map(|launch| launch["slots"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [1000, 1]);
}

async fn subnets(account: &Account) -> Vec<String> {
    let mut subnets = Vec::new();
    let vpc = account.client.create_vpc().cidr_block("10.0.0.0/16");
    let vpc = vpc.send().await.unwrap();
    let vpc = vpc.vpc().unwrap().vpc_id().unwrap();
    for n in 0..2 {
        let made = account.client.create_subnet().vpc_id(vpc);
        let made = made
            .cidr_block(format!("10.0.{n}.0/24"))
            .send()
            .await
            .unwrap();
        subnets.push(made.subnet().unwrap().subnet_id().unwrap().to_owned());
    }
    subnets
}

fn place(subnet: &str, instance_type: &str) -> Pool {
    Pool {
        subnet: Some(subnet.to_owned()),
        instance_type: Some(instance_type.to_owned()),
        ..Pool::default()
    }
}

/// How many instances there are of each kind that `of` tells apart.
async fn tally<K: Ord>(account: &Account, of: impl Fn(FoundInstance) -> K) -> BTreeMap<K, u32> {
    let mut tally = BTreeMap::new();
    for seen in account.instances().await.into_values() {
        *tally.entry(of(seen)).or_default() += 1;
    }
    tally
}

#[tokio::test]
async fn a_batch_is_had_from_types_and_subnets_in_order_and_each_in_part() {
    let Some(mut account) = Account::new(9).await else {
        return;
    };
    let subnets = subnets(&account).await;
    let types = ["m7i.large", "m6i.large"].map(str::to_owned);
    account.options.instance_types = types.to_vec();
    account.options.subnets = subnets.clone();
    let places = types
        .iter()
        .flat_map(|kind| subnets.iter().map(move |subnet| (subnet, kind)));
    for ((subnet, kind), instances) in places.zip([2, 0, 3, 1]) {
        let place = place(subnet, kind);
        account.server.set_capacity(&place, Some(instances));
    }
    let (fleet, _booter) = account.booted().await;
    fleet.launch(Tier::Ec2, 4).await.unwrap();
    assert_eq!(fleet.instances().await.unwrap().len(), 4);
    let of = |seen: FoundInstance| (seen.instance_type, seen.subnet);
    let key = |kind: usize, subnet: usize| (types[kind].clone(), Some(subnets[subnet].clone()));
    let there = tally(&account, of).await;
    assert_eq!(there, BTreeMap::from([(key(0, 0), 2), (key(1, 0), 2)]));
    let error = fleet.launch(Tier::Ec2, 4).await.unwrap_err();
    let FleetError::NoCapacity {
        missing: 2,
        retry_after,
        last,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(*retry_after > Duration::from_secs(5), "{retry_after:?}");
    assert!(last.contains("subnet-"), "{last}");
    let there = tally(&account, of).await;
    let all = BTreeMap::from([(key(0, 0), 2), (key(1, 0), 3), (key(1, 1), 1)]);
    assert_eq!(there, all);
    named(&account, &fleet, 6).await;
}

/// The deployment's capacity of a market.
fn market(account: &Account, market: &str) -> Pool {
    Pool {
        market: Some(market.to_owned()),
        launch_template: Some(account.options.launch_template.clone()),
        ..Pool::default()
    }
}

#[tokio::test]
async fn spot_comes_first_and_what_it_lacks_is_on_demand() {
    let Some(mut account) = Account::new(5).await else {
        return;
    };
    account.options.capacity = Capacity::SpotFirst;
    account.options.stopped_instances = 5;
    account
        .server
        .set_capacity(&market(&account, "spot"), Some(2));
    let (fleet, _booter) = account.booted().await;
    fleet.launch(Tier::Ec2, 3).await.unwrap();
    let there = tally(&account, |seen| seen.spot).await;
    assert_eq!(there, BTreeMap::from([(true, 2), (false, 1)]));
    named(&account, &fleet, 3).await;
    let running = |i: &[_]| i.len() == 3 && all(InstanceState::Running)(i);
    let there = until(&*fleet, "three run", running).await;
    // One of a one-time Spot request can not be stopped.
    fleet.drain(&ids(&there)).await.unwrap();
    until(&*fleet, "none is listed", <[_]>::is_empty).await;
    let left = account.instances().await;
    let left: Vec<_> = left.values().map(|seen| (&seen.state, seen.spot)).collect();
    assert_eq!(left, [(&InstanceStateName::Stopped, false)]);
}

#[tokio::test]
async fn spot_alone_takes_nothing_on_demand() {
    let Some(mut account) = Account::new(5).await else {
        return;
    };
    account.options.capacity = Capacity::Spot;
    account
        .server
        .set_capacity(&market(&account, "spot"), Some(1));
    let (fleet, _booter) = account.booted().await;
    let short = fleet.launch(Tier::Ec2, 2).await;
    assert!(
        matches!(short, Err(FleetError::NoCapacity { missing: 1, .. })),
        "{short:?}"
    );
    let there = tally(&account, |seen| seen.spot).await;
    assert_eq!(there, BTreeMap::from([(true, 1)]));
}

/// Waits until no launch is written down any more, so that nothing but the listing tells of them.
async fn forgotten(account: &Account, fleet: &impl Fleet) {
    let wait = async {
        while !launches(account).await.is_empty() {
            fleet.instances().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(conformance::LIMIT, wait).await;
    waited.expect("the launches are forgotten");
}

#[tokio::test]
async fn every_page_of_a_listing_is_read() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let (fleet, booter) = account.booted().await;
    // A launch is one reservation, and two are on a page.
    for _ in 0..5 {
        fleet.launch(Tier::Ec2, 1).await.unwrap();
    }
    // One that the listing lacks is not named.
    named(&account, &fleet, 5).await;
    forgotten(&account, &*fleet).await;
    drop((fleet, booter));
    let (fleet, proxy, _booter) = counted(&account).await;
    assert_eq!(fleet.instances().await.unwrap().len(), 5);
    assert_eq!(proxy.calls("DescribeInstances"), 3);
}

/// Names are given at the same time, and one that can not be given holds up no other.
#[tokio::test]
async fn naming_holds_up_neither_the_listing_nor_itself() {
    let Some(account) = Account::new(8).await else {
        return;
    };
    let slow = Duration::from_secs(1);
    let (fleet, proxy, _booter) = counted(&account).await;
    let tags = Calls::Of("CreateTags");
    let refused = proxy.inject(tags, When::Next(1), Fault::UnauthorizedOperation);
    proxy.inject(tags, When::Always, Fault::Delay(slow));
    fleet.launch(Tier::Ec2, 8).await.unwrap();
    let begun = Instant::now();
    let named_once = async {
        while proxy.calls("CreateTags") == 0 {
            fleet.instances().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(conformance::LIMIT, named_once)
        .await
        .expect("it is listed");
    let (took, calls) = (begun.elapsed(), proxy.calls("CreateTags"));
    assert!(took < 4 * slow, "{took:?} for eight names of {slow:?}");
    assert_eq!((refused.hits(), calls), (1, 8));
    let there = account.instances().await;
    let names = there.values().filter(|seen| seen.slot.is_some()).count();
    assert_eq!(names, 7, "{there:?}");
    proxy.clear();
    named(&account, &fleet, 8).await;
}

/// EC2 takes ten names a second: a look that made more calls would be throttled, and hold everything up.
#[tokio::test]
async fn of_many_instances_some_are_named_in_each_look() {
    let Some(account) = Account::new(25).await else {
        return;
    };
    let (fleet, proxy, _booter) = counted(&account).await;
    fleet.launch(Tier::Ec2, 25).await.unwrap();
    let (mut looks, mut names) = (proxy.calls("DescribeInstances"), 0);
    let all_named = async {
        while names < 25 {
            fleet.instances().await.unwrap();
            let (looks_now, names_now) =
                (proxy.calls("DescribeInstances"), proxy.calls("CreateTags"));
            assert!(names_now - names <= 10 * (looks_now - looks), "{names_now}");
            (looks, names) = (looks_now, names_now);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(conformance::LIMIT, all_named)
        .await
        .expect("they are named");
    named(&account, &fleet, 25).await;
    assert_eq!(proxy.calls("CreateTags"), 25, "each once");
}

/// Waits until one instance is stopped and may be started.
async fn one_is_stopped(fleet: &impl Fleet) {
    let wait = async {
        while !fleet.instances().await.unwrap().is_empty() || fleet.stopped().await != 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(conformance::LIMIT, wait).await;
    waited.expect("one is stopped");
}

#[tokio::test]
async fn the_stopped_are_started_while_every_pool_is_held() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.stopped_instances = 1;
    let capacity = market(&account, "on-demand");
    account.server.set_capacity(&capacity, Some(1));
    let (fleet, _booter) = account.booted().await;
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    let one_runs = |i: &[_]| i.len() == 1 && all(InstanceState::Running)(i);
    let there = until(&*fleet, "one runs", one_runs).await;
    named(&account, &fleet, 1).await;
    assert_eq!(fleet.stopped().await, 0);
    let none = fleet.launch(Tier::Ec2, 1).await.unwrap_err();
    assert!(matches!(none, FleetError::NoCapacity { .. }), "{none:?}");
    fleet.drain(&ids(&there)).await.unwrap();
    one_is_stopped(&*fleet).await;
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    assert_eq!(fleet.stopped().await, 0);
    let again = until(&*fleet, "it runs again", one_runs).await;
    assert_eq!(ids(&again), ids(&there));
}

#[tokio::test]
async fn a_stopped_instance_of_an_older_launch_template_is_replaced_and_not_started() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.stopped_instances = 1;
    account.options.launch_template_version = "$Latest".to_owned();
    let (fleet, _booter) = account.booted().await;
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    let one_runs = |i: &[_]| i.len() == 1 && all(InstanceState::Running)(i);
    let old = until(&*fleet, "one runs", one_runs).await;
    assert_eq!(old[0].tier, Tier::Ec2);
    named(&account, &fleet, 1).await;
    fleet.drain(&ids(&old)).await.unwrap();
    one_is_stopped(&*fleet).await;
    account.new_template_version().await;
    fleet.launch(Tier::Stopped, 1).await.unwrap();
    let new = until(&*fleet, "another runs", one_runs).await;
    assert_ne!(ids(&new), ids(&old));
    let only_new = |there: &BTreeMap<String, FoundInstance>| {
        there.keys().eq([&new[0].id.0]) && there.values().all(|seen| seen.name.is_some())
    };
    let ended = async {
        while !only_new(&account.instances().await) {
            fleet.instances().await.unwrap();
        }
    };
    let ended = tokio::time::timeout(conformance::LIMIT, ended).await;
    assert!(
        ended.is_ok(),
        "the old one is ended, and the new one has its name"
    );

    fleet.drain(&ids(&new)).await.unwrap();
    until(&*fleet, "none is listed", <[_]>::is_empty).await;
    fleet.launch(Tier::Stopped, 1).await.unwrap();
    let again = until(&*fleet, "the new one runs again", one_runs).await;
    assert_eq!(ids(&again), ids(&new));
    assert_eq!(again[0].tier, Tier::Stopped);
}

/// EC2 asks for fewer calls for a while: the version that it said last counts, and where it has said none what
/// was at work is stopped and waits until it does.
#[tokio::test]
async fn a_throttled_look_at_the_launch_templates_version_ends_no_spare() {
    for from_the_start in [false, true] {
        let Some(mut account) = Account::new(3).await else {
            return;
        };
        account.options.stopped_instances = 1;
        account.options.launch_template_version = "$Latest".to_owned();
        let (fleet, proxy, _booter) = counted(&account).await;
        let throttle = || {
            let versions = Calls::Of("DescribeLaunchTemplateVersions");
            proxy.inject(versions, When::Always, Fault::Throttled)
        };
        let at_first = from_the_start.then(throttle);
        fleet.launch(Tier::Ec2, 1).await.unwrap();
        let one_runs = |i: &[_]| i.len() == 1 && all(InstanceState::Running)(i);
        let there = until(&*fleet, "one runs", one_runs).await;
        named(&account, &fleet, 1).await;
        let rule = at_first.unwrap_or_else(throttle);
        fleet.drain(&ids(&there)).await.unwrap();
        until(&*fleet, "none is listed", <[_]>::is_empty).await;
        if from_the_start {
            assert_eq!(fleet.stopped().await, 0, "it may be an older one");
            assert!(rule.hits() > 0);
            proxy.clear();
        }
        fleet.launch(Tier::Stopped, 1).await.unwrap();
        assert!(rule.hits() > 0);
        let again = until(&*fleet, "it runs again", one_runs).await;
        assert_eq!(ids(&again), ids(&there));
        assert_eq!(again[0].tier, Tier::Stopped);
    }
}

/// Without the right to see its version, what is stopped could be anything.
#[tokio::test]
async fn none_is_stopped_where_the_launch_templates_version_can_not_be_seen() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.stopped_instances = 1;
    let (fleet, proxy, _booter) = counted(&account).await;
    let versions = Calls::Of("DescribeLaunchTemplateVersions");
    proxy.inject(versions, When::Always, Fault::UnauthorizedOperation);
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    let one_runs = |i: &[_]| i.len() == 1 && all(InstanceState::Running)(i);
    let there = until(&*fleet, "one runs", one_runs).await;
    named(&account, &fleet, 1).await;
    fleet.drain(&ids(&there)).await.unwrap();
    until(&*fleet, "none is listed", <[_]>::is_empty).await;
    let left = account.instances().await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_is_missing_or_forbidden_is_named() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.launch_template = "no-such-template".to_owned();
    let (fleet, booter) = account.booted().await;
    let error = fleet.launch(Tier::Ec2, 1).await.unwrap_err();
    assert!(matches!(error, FleetError::NotFound { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "launch template no-such-template does not exist"
    );
    drop((fleet, booter));

    let (fleet, proxy, _booter) = counted(&account).await;
    let run = Calls::Of("RunInstances");
    let rule = proxy.inject(run, When::Always, Fault::UnauthorizedOperation);
    let error = fleet.launch(Tier::Ec2, 1).await.unwrap_err();
    assert_eq!(error.to_string(), "not permitted to launch instances");
    // It is not asked again at once, and what it was is still known.
    let again = fleet.launch(Tier::Ec2, 1).await.unwrap_err();
    assert!(
        again.to_string().contains("UnauthorizedOperation"),
        "{again}"
    );
    assert!(again.retry_after().is_some());
    assert_eq!(rule.hits(), 1);
}

#[tokio::test]
async fn a_listing_that_fails_is_no_empty_fleet() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    let proxy = FaultProxy::start(account.server.endpoint(), 1);
    let listing = Calls::Of("DescribeInstances");
    proxy.inject(listing, When::Always, Fault::Throttled);
    let (fleet, _lease) = account.fleet_at(proxy.endpoint()).await;
    let error = fleet.instances().await.unwrap_err();
    assert!(matches!(error, FleetError::Throttled { .. }), "{error:?}");
}

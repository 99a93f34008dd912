//! A controller that dies anywhere between the token and the names, and its successor.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_fleet::{Ec2Fleet, Fleet, FleetError, InstanceState, Tier};
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Rule, When};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::timeout;

use crate::account::{Account, Booter};
use crate::conformance::{LIMIT, all, until};

/// Lets a launch of three get as far as the fault lets it, until `reached` says that it has got
/// there, and drops it.
async fn dies(
    account: &Account,
    operation: &'static str,
    fault: Fault,
    reached: impl AsyncFn(&Rule) -> bool,
) {
    let proxy = FaultProxy::start(account.server.endpoint(), 1);
    let rule = proxy.inject(Calls::Of(operation), When::Always, fault);
    let (fleet, _lease) = account.fleet_at(proxy.endpoint()).await;
    let work = async {
        let _ = fleet.launch(Tier::Ec2, 3).await;
        loop {
            // Lists, and names what is listed.
            let _ = fleet.instances().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let watch = async {
        while !reached(&rule).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = work => {}
        reached = timeout(LIMIT, watch) => reached.expect("the fault is reached"),
    }
}

/// The call arrives, and nothing comes of it.
async fn dies_before(account: &Account, operation: &'static str) {
    let fault = Fault::Delay(2 * LIMIT);
    dies(account, operation, fault, async |rule| rule.hits() > 0).await;
}

/// Three are launched, and nobody is told.
async fn dies_after_the_launch(account: &Account) {
    let launched = async |_: &Rule| account.instances().await.len() == 3;
    let fault = Fault::DelayAfter(2 * LIMIT);
    dies(account, "RunInstances", fault, launched).await;
}

/// A successor that wants three, as the one before it did, has three, each with a slot of its own.
async fn succeeds(account: &Account) -> Arc<Ec2Fleet> {
    let (fleet, _booter) = account.successor().booted().await;
    let there = fleet.instances().await.unwrap().len() as u32;
    assert!(there <= 3, "{there} were found");
    fleet.launch(Tier::Ec2, 3 - there).await.unwrap();
    let running = |i: &[_]| i.len() == 3 && all(InstanceState::Running)(i);
    until(&*fleet, "three run", running).await;
    named(account, &fleet, 3).await;
    // None comes late.
    let full = fleet.launch(Tier::Ec2, 5).await;
    assert!(
        matches!(full, Err(FleetError::NoCapacity { missing: 3, .. })),
        "{full:?}"
    );
    named(account, &fleet, 5).await;
    fleet
}

/// Waits until EC2 shows `count` instances, with the slots from 1 on and the names that follow.
pub async fn named(account: &Account, fleet: &Ec2Fleet, count: u32) {
    let names = async {
        loop {
            fleet.instances().await.unwrap();
            let there = account.instances().await;
            assert!(there.len() <= count as usize, "{there:?}");
            let slots: BTreeSet<_> = there.values().filter_map(|seen| seen.slot).collect();
            let name = |n: u32| Some(format!("app-tier-instance-{n}"));
            let fits = there
                .values()
                .all(|seen| seen.slot.is_some_and(|n| seen.name == name(n)));
            if fits && slots == (1..=count).collect() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(
        timeout(LIMIT, names).await.is_ok(),
        "{:?}",
        account.instances().await
    );
}

#[tokio::test]
async fn before_the_token_is_written_down() {
    let Some(mut account) = Account::new(5).await else {
        return;
    };
    let slow = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
    let slow = Arc::new(slow);
    account.store = Arc::clone(&slow) as _;
    let (fleet, _lease) = account.fleet_at(account.server.endpoint()).await;
    fleet.instances().await.unwrap();
    slow.config_mut(|config| config.wait_put_per_call = LIMIT);
    assert!(
        timeout(Duration::from_millis(300), fleet.launch(Tier::Ec2, 3))
            .await
            .is_err()
    );
    assert!(
        account.instances().await.is_empty(),
        "nothing is launched without a record"
    );
    drop(fleet);
    slow.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_token_and_the_launch() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies_before(&account, "RunInstances").await;
    assert!(account.instances().await.is_empty());
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_launch_and_its_answer() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies_after_the_launch(&account).await;
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_launch_and_its_answer_while_the_listing_lags() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies_after_the_launch(&account).await;
    let proxy = FaultProxy::start(account.server.endpoint(), 1);
    let listing = Calls::Of("DescribeInstances");
    proxy.inject(listing, When::Always, Fault::EmptyListing);
    let (fleet, lease) = account.successor().fleet_at(proxy.endpoint()).await;
    let kept = Some(Arc::clone(&lease));
    let booter = Booter::new(account.clone(), Arc::clone(&fleet), kept);
    fleet.launch(Tier::Ec2, 3).await.unwrap();
    assert_eq!(fleet.instances().await.unwrap().len(), 3);
    assert_eq!(account.instances().await.len(), 3, "the same three");
    drop(booter);
    lease.release().await.unwrap();
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_answer_and_the_names() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies_before(&account, "CreateTags").await;
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_first_name_and_the_others() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let named = async |_: &Rule| {
        let there = account.instances().await;
        there.values().any(|seen| seen.slot.is_some())
    };
    let fault = Fault::DelayAfter(2 * LIMIT);
    dies(&account, "CreateTags", fault, named).await;
    succeeds(&account).await;
}

#[tokio::test]
async fn a_holder_that_slept_launches_nothing() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let account = account.successor();
    let (asleep, lease) = account.fleet_at(account.server.endpoint()).await;
    assert!(lease.held());
    asleep.instances().await.unwrap();
    let (fleet, _booter) = account.booted().await;
    assert!(!lease.held());
    let refused = asleep.launch(Tier::Ec2, 1).await;
    assert!(matches!(refused, Err(FleetError::LeaseLost)), "{refused:?}");
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    assert_eq!(account.instances().await.len(), 1);
}

#[tokio::test]
async fn a_launch_of_unknown_outcome_keeps_its_slots_until_it_is_known() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let (fleet, proxy, _booter) = counted(&account).await;
    let lags = Calls::Of("DescribeInstances");
    proxy.inject(lags, When::Always, Fault::EmptyListing);
    let run = Calls::Of("RunInstances");
    let lost = proxy.inject(run, When::Next(1), Fault::InternalErrorAfter);
    // Says nothing of what became of the launch before.
    let busy = proxy.inject(run, When::Next(1), Fault::Throttled);
    let failing = proxy.inject(run, When::Next(1), Fault::InternalError);
    let failed = fleet.launch(Tier::Ec2, 2).await;
    assert!(
        matches!(failed, Err(FleetError::Unavailable { .. })),
        "{failed:?}"
    );
    assert_eq!(account.instances().await.len(), 2);
    let again = fleet.launch(Tier::Ec2, 2).await;
    assert!(
        matches!(again, Err(FleetError::Throttled { .. })),
        "{again:?}"
    );
    let again = fleet.launch(Tier::Ec2, 2).await;
    assert!(
        matches!(again, Err(FleetError::Unavailable { .. })),
        "{again:?}"
    );
    assert_eq!([lost.hits(), busy.hits(), failing.hits()], [1; 3]);
    fleet.launch(Tier::Ec2, 2).await.unwrap();
    assert_eq!(fleet.instances().await.unwrap().len(), 2);
    assert_eq!(account.instances().await.len(), 2, "one launch, not two");
    proxy.clear();
    named(&account, &fleet, 2).await;
}

const RECORD: &str = "state/launches.json";

async fn record(account: &Account) -> serde_json::Value {
    let kept = account.store.get(&Path::from(RECORD)).await.unwrap();
    serde_json::from_slice(&kept.bytes().await.unwrap()).unwrap()
}

/// The launches that are written down.
pub async fn launches(account: &Account) -> Vec<serde_json::Value> {
    record(account).await["launches"]
        .as_array()
        .unwrap()
        .clone()
}

/// Makes every launch in the record older than EC2 is trusted to know its token.
async fn age_the_record(account: &Account) {
    const HOUR_MS: u64 = 60 * 60 * 1000;
    let mut record = record(account).await;
    let launches = record["launches"].as_array_mut().unwrap();
    assert!(!launches.is_empty());
    for launch in launches {
        let begun = launch["begun_at_ms"].as_u64().unwrap();
        launch["begun_at_ms"] = (begun - HOUR_MS).into();
    }
    let aged = PutPayload::from(record.to_string());
    let path = Path::from(RECORD);
    account.store.put(&path, aged).await.unwrap();
}

/// A fleet whose calls are counted, and whose lease is renewed.
pub async fn counted(account: &Account) -> (Arc<Ec2Fleet>, FaultProxy, Booter) {
    let proxy = FaultProxy::start(account.server.endpoint(), 1);
    let (fleet, lease) = account.successor().fleet_at(proxy.endpoint()).await;
    let booter = Booter::new(account.clone(), Arc::clone(&fleet), Some(lease));
    (fleet, proxy, booter)
}

#[tokio::test]
async fn a_launch_of_an_hour_ago_that_came_to_nothing_is_not_repeated() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    dies_before(&account, "RunInstances").await;
    age_the_record(&account).await;
    let (fleet, proxy, _booter) = counted(&account).await;
    assert!(fleet.instances().await.unwrap().is_empty());
    assert_eq!(proxy.calls("RunInstances"), 0);
    // Its slots are free again.
    fleet.launch(Tier::Ec2, 3).await.unwrap();
    assert_eq!(proxy.calls("RunInstances"), 1);
    named(&account, &fleet, 3).await;
}

#[tokio::test]
async fn what_a_launch_of_an_hour_ago_made_is_found_by_its_tag() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    dies_after_the_launch(&account).await;
    age_the_record(&account).await;
    let (fleet, proxy, _booter) = counted(&account).await;
    assert_eq!(fleet.instances().await.unwrap().len(), 3);
    named(&account, &fleet, 3).await;
    assert_eq!(proxy.calls("RunInstances"), 0);
}

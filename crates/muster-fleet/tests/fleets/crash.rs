//! A controller that dies anywhere between the token and the names, and its successor.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_fleet::{Ec2Fleet, Fleet, FleetError, InstanceState};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::time::timeout;

use crate::account::{Account, Booter};
use crate::conformance::{LIMIT, all, until};
use crate::proxy::{Fault, Proxy};

/// Lets a launch of three get as far as the proxy lets it, and drops it there.
async fn dies(account: &Account, action: &str, fault: Fault) {
    let proxy = Proxy::new(account.server.endpoint(), action, fault).await;
    let (fleet, _lease) = account.fleet_at(&proxy.endpoint).await;
    let work = async {
        let _ = fleet.launch(3).await;
        loop {
            // Lists, and names what is listed.
            let _ = fleet.instances().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = work => {}
        reached = timeout(LIMIT, proxy.reached.notified()) => reached.expect("the fault is reached"),
    }
}

/// A successor that wants three, as the one before it did, has three, each with a slot of its own.
async fn succeeds(account: &Account) -> Arc<Ec2Fleet> {
    let (fleet, _booter) = account.booted().await;
    let there = fleet.instances().await.unwrap().len() as u32;
    assert!(there <= 3, "{there} were found");
    fleet.launch(3 - there).await.unwrap();
    let running = |i: &[_]| i.len() == 3 && all(InstanceState::Running)(i);
    until(&*fleet, "three run", running).await;
    named(account, &fleet, 3).await;
    // None comes late.
    let full = fleet.launch(5).await;
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
        timeout(Duration::from_millis(300), fleet.launch(3))
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
    dies(&account, "RunInstances", Fault::LostBefore).await;
    assert!(account.instances().await.is_empty());
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_launch_and_its_answer() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies(&account, "RunInstances", Fault::LostAfter).await;
    assert_eq!(account.instances().await.len(), 3);
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_launch_and_its_answer_while_the_listing_lags() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies(&account, "RunInstances", Fault::LostAfter).await;
    let nothing = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
    let fault = Fault::Answer(200, nothing.to_owned());
    let proxy = Proxy::new(account.server.endpoint(), "DescribeInstances", fault).await;
    let (fleet, lease) = account.fleet_at(&proxy.endpoint).await;
    fleet.launch(3).await.unwrap();
    assert_eq!(fleet.instances().await.unwrap().len(), 3);
    assert_eq!(account.instances().await.len(), 3, "the same three");
    lease.release().await.unwrap();
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_answer_and_the_names() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies(&account, "CreateTags", Fault::LostBefore).await;
    succeeds(&account).await;
}

#[tokio::test]
async fn between_the_first_name_and_the_others() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    dies(&account, "CreateTags", Fault::LostAfter).await;
    succeeds(&account).await;
}

#[tokio::test]
async fn a_holder_that_slept_launches_nothing() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let (asleep, lease) = account.fleet_at(account.server.endpoint()).await;
    asleep.instances().await.unwrap();
    assert!(lease.held());
    let (fleet, _booter) = account.booted().await;
    assert!(!lease.held());
    let refused = asleep.launch(1).await;
    assert!(matches!(refused, Err(FleetError::LeaseLost)), "{refused:?}");
    fleet.launch(1).await.unwrap();
    assert_eq!(account.instances().await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_made_up_for_by_the_same_controller() {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let busy = "<Response><Errors><Error><Code>InternalError</Code><Message>no</Message></Error>\
                </Errors></Response>";
    let fault = Fault::Answer(500, busy.to_owned());
    let proxy = Proxy::new(account.server.endpoint(), "RunInstances", fault).await;
    let (fleet, lease) = account.fleet_at(&proxy.endpoint).await;
    let failed = fleet.launch(2).await;
    assert!(
        matches!(failed, Err(FleetError::Unavailable { .. })),
        "{failed:?}"
    );
    // Its slots stay taken: nobody knows.
    let again = fleet.launch(2).await;
    assert!(
        matches!(again, Err(FleetError::Unavailable { .. })),
        "{again:?}"
    );
    drop((fleet, proxy));
    lease.release().await.unwrap();
    let lease = account.lease(&Default::default()).await.unwrap();
    let fleet = account
        .fleet_under(account.server.endpoint(), Arc::clone(&lease))
        .await;
    let _booter = Booter::new(account.clone(), Arc::clone(&fleet), Some(lease));
    fleet.launch(2).await.unwrap();
    assert_eq!(account.instances().await.len(), 2, "one launch, not two");
}

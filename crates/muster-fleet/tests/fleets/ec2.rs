//! What EC2 needs beyond the conformance suite.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_ec2::types::InstanceStateName;
use muster_fleet::{Fleet, FleetError, InstanceState};
use muster_testbed::moto::Pool;

use crate::account::{Account, report};
use crate::conformance::{self, all, ids, until};
use crate::crash::named;
use crate::proxy::{Fault, Proxy};

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
    fleet.launch(2).await.unwrap();
    until(&*fleet, "both are ended", <[_]>::is_empty).await;
    assert_eq!(fleet.failed_starts(), 2);
}

#[tokio::test]
async fn a_stopped_instance_is_started_before_any_is_launched() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.stopped_instances = 1;
    let (fleet, booter) = account.booted().await;
    fleet.launch(2).await.unwrap();
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

    booter.reports.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(100)).await;
    fleet.launch(2).await.unwrap();
    for (id, seen) in &late {
        fleet.heard(&report(id, seen.launched_at_ms + 1));
    }
    let there = fleet.instances().await.unwrap();
    assert!(all(InstanceState::Pending)(&there), "{there:?}");
    assert_eq!(there.len(), 2);
    assert!(
        there.iter().any(|instance| instance.id.0 == id),
        "{there:?}"
    );
    booter.reports.store(true, Ordering::Relaxed);
    until(&*fleet, "two run again", running).await;
    assert_eq!(fleet.failed_starts(), 0);
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

#[tokio::test]
async fn a_batch_that_one_pool_has_in_part_goes_on_with_the_next() {
    let Some(mut account) = Account::new(6).await else {
        return;
    };
    account.options.subnets = subnets(&account).await;
    for (subnet, instances) in account.options.subnets.iter().zip([2, 1]) {
        let pool = Pool {
            subnet: Some(subnet.clone()),
            ..Pool::default()
        };
        account.server.set_capacity(&pool, Some(instances));
    }
    let (fleet, _booter) = account.booted().await;
    fleet.launch(3).await.unwrap();
    assert_eq!(fleet.instances().await.unwrap().len(), 3);
    let there = account.instances().await;
    let first = &account.options.subnets[0];
    let in_first = there
        .values()
        .filter(|seen| seen.subnet.as_ref() == Some(first));
    assert_eq!(in_first.count(), 2);
    let error = fleet.launch(2).await.unwrap_err();
    let FleetError::NoCapacity {
        missing: 2,
        retry_after,
        last,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(*retry_after > Duration::from_secs(10), "{retry_after:?}");
    assert!(last.contains("subnet-"), "{last}");
    assert_eq!(account.instances().await.len(), 3);
}

#[tokio::test]
async fn what_is_missing_or_forbidden_is_named() {
    let Some(mut account) = Account::new(3).await else {
        return;
    };
    account.options.launch_template = "no-such-template".to_owned();
    let (fleet, booter) = account.booted().await;
    let error = fleet.launch(1).await.unwrap_err();
    assert!(matches!(error, FleetError::NotFound { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "launch template no-such-template does not exist"
    );
    drop((fleet, booter));

    let refusal = "<Response><Errors><Error><Code>UnauthorizedOperation</Code>\
                   <Message>You are not authorized to perform: ec2:RunInstances</Message>\
                   </Error></Errors></Response>";
    let fault = Fault::Answer(403, refusal.to_owned());
    let proxy = Proxy::new(account.server.endpoint(), "RunInstances", fault).await;
    let (fleet, _lease) = account.fleet_at(&proxy.endpoint).await;
    let error = fleet.launch(1).await.unwrap_err();
    assert_eq!(error.to_string(), "not permitted to launch instances");
    // It is not asked again at once, and what it was is still known.
    let again = fleet.launch(1).await.unwrap_err();
    assert!(again.to_string().contains("ec2:RunInstances"), "{again}");
    assert!(again.retry_after().is_some());
}

#[tokio::test]
async fn a_listing_that_fails_is_no_empty_fleet() {
    let Some(account) = Account::new(3).await else {
        return;
    };
    let refusal = "<Response><Errors><Error><Code>RequestLimitExceeded</Code>\
                   <Message>slow down</Message></Error></Errors></Response>";
    let fault = Fault::Answer(503, refusal.to_owned());
    let proxy = Proxy::new(account.server.endpoint(), "DescribeInstances", fault).await;
    let (fleet, _lease) = account.fleet_at(&proxy.endpoint).await;
    let error = fleet.instances().await.unwrap_err();
    assert!(matches!(error, FleetError::Throttled { .. }), "{error:?}");
}

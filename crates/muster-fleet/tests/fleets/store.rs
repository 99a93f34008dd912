//! The lease and the launch record on S3's conditional writes, answered or not.

use std::sync::Arc;
use std::time::Duration;

use muster_fleet::{Fleet, FleetError, Lease, Tier};
use muster_testbed::proxy::{Calls, Fault, FaultProxy, When};
use muster_testbed::{REGION, moto};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::{Account, Booter};
use crate::conformance::LIMIT;

const TIME: Duration = Duration::from_secs(3);
const WRITES: Calls = Calls::Of("PutObject");

/// A bucket, the proxy before it, and the store behind that.
fn bucket(server: &moto::Server) -> (FaultProxy, Arc<dyn ObjectStore>) {
    let name = Uuid::now_v7().to_string();
    server.make_bucket(&name);
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let store = AmazonS3Builder::new()
        .with_bucket_name(name)
        .with_region(REGION)
        .with_endpoint(proxy.endpoint())
        .with_allow_http(true)
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build();
    (proxy, Arc::new(store.unwrap()))
}

async fn acquire(store: &Arc<dyn ObjectStore>, shutdown: &CancellationToken) -> Option<Arc<Lease>> {
    let path = Path::from("lease.json");
    let acquired = Lease::acquire(Arc::clone(store), path, "a test", TIME, shutdown);
    timeout(LIMIT, acquired).await.expect("in time").unwrap()
}

#[tokio::test]
async fn of_two_on_one_bucket_one_acts_and_lets_the_other() {
    let Some(server) = moto::server() else {
        return;
    };
    let (_proxy, store) = bucket(server);
    let never = CancellationToken::new();
    let first = acquire(&store, &never).await.unwrap();
    let waiting = acquire(&store, &never);
    tokio::pin!(waiting);
    tokio::select! {
        () = first.keep(&never) => panic!("the first has lost it"),
        _ = &mut waiting => panic!("two act"),
        () = tokio::time::sleep(2 * TIME) => {}
    }
    first.release().await.unwrap();
    let second = waiting.await.unwrap();
    assert_eq!(second.fence(), 2);
    assert!(!first.held());
}

/// Whatever becomes of the answers, the writes are the holder's own.
async fn is_kept_through(fault: Fault) {
    let Some(server) = moto::server() else {
        return;
    };
    let (proxy, store) = bucket(server);
    let never = CancellationToken::new();
    let rule = proxy.inject(WRITES, When::Next(1), fault);
    let lease = acquire(&store, &never).await.unwrap();
    assert_eq!((rule.hits(), lease.fence()), (1, 1));
    // A renewal whose answer comes makes up for the time that was lost before.
    for fault in [None, Some(fault)] {
        let rule = fault.map(|fault| proxy.inject(WRITES, When::Next(1), fault));
        let kept = timeout(TIME, lease.keep(&never)).await;
        assert!(kept.is_err(), "it is lost");
        assert!(lease.held());
        assert!(rule.is_none_or(|rule| rule.hits() == 1));
    }
    let rule = proxy.inject(WRITES, When::Next(1), fault);
    // It may be that nobody can be told.
    let _ = lease.release().await;
    assert_eq!(rule.hits(), 1);
    let next = acquire(&store, &never).await.unwrap();
    assert_eq!(next.fence(), 2);
}

#[tokio::test]
async fn a_lease_is_kept_although_connections_break() {
    is_kept_through(Fault::ResetAfter).await;
}

#[tokio::test]
async fn a_lease_is_kept_although_what_is_written_is_called_failed() {
    is_kept_through(Fault::InternalErrorAfter).await;
}

#[tokio::test]
async fn a_lease_is_kept_although_answers_are_late() {
    is_kept_through(Fault::DelayAfter(2 * TIME)).await;
}

/// A fleet whose record is written through the proxy, under a lease that is not.
async fn launches_two_through(fault: Fault) {
    let Some(account) = Account::new(5).await else {
        return;
    };
    let (proxy, store) = bucket(account.server);
    let lease = account.lease(&CancellationToken::new()).await.unwrap();
    let on_s3 = Account {
        store,
        ..account.clone()
    };
    let opening = proxy.inject(WRITES, When::Next(1), fault);
    let endpoint = account.server.endpoint();
    let fleet = on_s3.fleet_under(endpoint, Arc::clone(&lease)).await;
    let launching = proxy.inject(WRITES, When::Next(1), fault);
    fleet.launch(Tier::Ec2, 2).await.unwrap();
    assert_eq!([opening.hits(), launching.hits()], [1, 1]);
    assert_eq!(account.instances().await.len(), 2);
    // A successor finds the one launch, and shuts the holder before it out.
    let never = CancellationToken::new();
    let lease = account.successor().lease(&never).await.unwrap();
    let next = on_s3.fleet_under(endpoint, Arc::clone(&lease)).await;
    let _booter = Booter::new(on_s3, Arc::clone(&next), Some(lease));
    assert_eq!(next.instances().await.unwrap().len(), 2);
    let late = fleet.launch(Tier::Ec2, 1).await;
    assert!(matches!(late, Err(FleetError::LeaseLost)), "{late:?}");
    assert_eq!(account.instances().await.len(), 2);
}

#[tokio::test]
async fn a_launch_is_made_although_the_record_s_connection_breaks() {
    launches_two_through(Fault::ResetAfter).await;
}

#[tokio::test]
async fn a_launch_is_made_although_the_record_s_write_is_called_failed() {
    launches_two_through(Fault::InternalErrorAfter).await;
}

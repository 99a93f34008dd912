use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

const TIME: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(20);

fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn acquire(store: &Arc<dyn ObjectStore>, holder: &str) -> Arc<Lease> {
    acquire_for(store, holder, TIME).await
}

async fn acquire_for(store: &Arc<dyn ObjectStore>, holder: &str, time: Duration) -> Arc<Lease> {
    let path = Path::from("lease.json");
    let never = CancellationToken::new();
    let acquired = Lease::acquire(Arc::clone(store), path, holder, time, &never);
    let acquired = timeout(LIMIT, acquired).await.expect("in time");
    acquired.unwrap().expect("nothing shuts down")
}

fn slow_store() -> (Arc<ThrottledStore<InMemory>>, Arc<dyn ObjectStore>) {
    let slow = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
    let slow = Arc::new(slow);
    (Arc::clone(&slow), slow)
}

#[tokio::test]
async fn a_released_lease_is_taken_at_once_and_under_a_higher_fence() {
    let store = store();
    let first = acquire(&store, "a").await;
    assert!(first.held());
    assert_eq!(first.fence(), 1);
    first.release().await.unwrap();
    assert!(!first.held());
    let begun = Instant::now();
    let second = acquire(&store, "b").await;
    assert!(begun.elapsed() < TIME, "{:?}", begun.elapsed());
    assert_eq!(second.fence(), 2);
    // The first finds out, and does not take it back.
    first.release().await.unwrap();
    assert!(second.held());
}

#[tokio::test]
async fn a_standby_waits_for_as_long_as_the_holder_renews() {
    let store = store();
    let first = acquire(&store, "a").await;
    let stop = CancellationToken::new();
    let keeping = tokio::spawn({
        let (first, stop) = (Arc::clone(&first), stop.clone());
        async move { first.keep(&stop).await }
    });
    let give_up = CancellationToken::new();
    let path = Path::from("lease.json");
    let waiting = Lease::acquire(Arc::clone(&store), path, "b", TIME, &give_up);
    tokio::pin!(waiting);
    assert!(timeout(2 * TIME, &mut waiting).await.is_err());
    assert!(first.held());
    // Killed: nothing renews and nothing releases.
    stop.cancel();
    keeping.await.unwrap();
    let second = timeout(LIMIT, waiting).await.expect("takes over");
    let second = second.unwrap().expect("nothing shuts down");
    assert!(!first.held(), "the first has stopped by itself before");
    assert_eq!(second.fence(), 2);
    // The renewal of one that slept is refused and tells it.
    first.state().until = Instant::now() + LIMIT;
    first.renew(false, TIME).await.unwrap();
    assert!(!first.held());
    assert!(second.held());
}

#[tokio::test]
async fn of_many_that_start_together_one_acts() {
    let store = store();
    let mut contenders = tokio::task::JoinSet::new();
    let stop = CancellationToken::new();
    for n in 0..8 {
        let (store, stop) = (Arc::clone(&store), stop.clone());
        contenders.spawn(async move {
            let path = Path::from("lease.json");
            let lease = Lease::acquire(store, path, &n.to_string(), TIME, &stop).await;
            let lease = lease.unwrap()?;
            lease.keep(&stop).await;
            Some(lease.fence())
        });
    }
    tokio::time::sleep(2 * TIME).await;
    stop.cancel();
    let fences: Vec<_> = contenders.join_all().await.into_iter().flatten().collect();
    assert_eq!(fences, [1]);
}

#[tokio::test]
async fn what_is_not_a_lease_is_left_alone() {
    let store = store();
    let path = Path::from("lease.json");
    store.put(&path, "a photograph".into()).await.unwrap();
    let never = CancellationToken::new();
    let refused = Lease::acquire(Arc::clone(&store), path.clone(), "a", TIME, &never).await;
    assert!(matches!(refused, Err(LeaseError::Unreadable { .. })));
    let kept = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(kept.as_ref(), b"a photograph");
}

/// Three tenths of the lease time for each call: more than a renewal's share of it.
#[tokio::test]
async fn a_slow_store_does_not_cost_the_lease() {
    let time = Duration::from_secs(4);
    let (slow, store) = slow_store();
    let lease = acquire_for(&store, "a", time).await;
    slow.config_mut(|config| {
        config.wait_put_per_call = time.mul_f64(0.3);
        config.wait_get_per_call = time.mul_f64(0.3);
    });
    let never = CancellationToken::new();
    let kept = timeout(time.mul_f64(1.5), lease.keep(&never)).await;
    assert!(kept.is_err(), "it is lost");
    assert!(lease.held());
}

#[tokio::test]
async fn a_renewal_that_hangs_is_joined_by_another() {
    let time = Duration::from_secs(2);
    let (slow, store) = slow_store();
    let lease = acquire_for(&store, "a", time).await;
    slow.config_mut(|config| config.wait_put_per_call = LIMIT);
    let never = CancellationToken::new();
    let keep = lease.keep(&never);
    tokio::pin!(keep);
    // The first renewal is begun after a fifth of the time, the second after two fifths.
    let first = timeout(time.mul_f64(0.3), &mut keep).await;
    assert!(first.is_err(), "it is lost");
    slow.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    assert!(timeout(time, keep).await.is_err(), "it is lost");
    assert!(lease.held());
}

#[tokio::test]
async fn a_lease_that_its_holder_lost_is_regained_at_once() {
    let store = store();
    let lost = acquire(&store, "a").await;
    lost.state().until = Instant::now();
    let never = CancellationToken::new();
    timeout(LIMIT, lost.keep(&never)).await.expect("it is lost");
    let begun = Instant::now();
    let again = timeout(LIMIT, lost.regain(&never)).await.expect("in time");
    let again = again.unwrap().expect("nothing shuts down");
    assert!(begun.elapsed() < TIME / 2, "{:?}", begun.elapsed());
    assert!(again.held());
    assert!(!lost.held());
    assert_eq!(again.fence(), 2);
}

#[tokio::test]
async fn a_lease_that_another_has_taken_up_is_waited_for() {
    let store = store();
    let lost = acquire(&store, "a").await;
    lost.release().await.unwrap();
    let other = acquire(&store, "b").await;
    let stop = CancellationToken::new();
    let again = lost.regain(&stop);
    tokio::select! {
        () = other.keep(&stop) => panic!("the other has lost it"),
        _ = again => panic!("it is regained"),
        () = tokio::time::sleep(2 * TIME) => {}
    }
    assert!(other.held());
}

#[tokio::test]
async fn a_release_is_told_although_a_renewal_came_in_between() {
    let store = store();
    let lease = acquire(&store, "a").await;
    // One whose answer is lost.
    let before = lease.state().version.clone();
    lease.renew(false, TIME).await.unwrap();
    lease.state().version = before;
    lease.release().await.unwrap();
    let begun = Instant::now();
    let next = acquire(&store, "b").await;
    assert!(begun.elapsed() < TIME / 2, "{:?}", begun.elapsed());
    assert_eq!(next.fence(), 2);
}

//! What every fleet does.

use std::sync::Arc;
use std::time::Duration;

use muster_fleet::{Fleet, Instance, InstanceId, InstanceState, Tier};

/// Longest wait for anything that a test expects to happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the listing is as wanted.
pub async fn until(
    fleet: &impl Fleet,
    what: &str,
    holds: impl Fn(&[Instance]) -> bool,
) -> Vec<Instance> {
    let mut last = Vec::new();
    let wait = async {
        loop {
            last = fleet.instances().await.unwrap();
            if holds(&last) {
                return;
            }
            let short = Duration::from_millis(50);
            let _ = tokio::time::timeout(short, fleet.changed()).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, wait).await;
    assert!(waited.is_ok(), "{what}: {last:?}");
    last
}

pub fn ids(instances: &[Instance]) -> Vec<InstanceId> {
    instances
        .iter()
        .map(|instance| instance.id.clone())
        .collect()
}

pub fn all(state: InstanceState) -> impl Fn(&[Instance]) -> bool {
    move |instances| instances.iter().all(|instance| instance.state == state)
}

/// Instances go from pending to running to draining to gone; those that boot become ready.
pub async fn a_batch_lives_and_ends<F: Fleet>(fleet: Arc<F>) {
    assert!(fleet.instances().await.unwrap().is_empty());
    fleet.launch(Tier::Ec2, 0).await.unwrap();
    assert!(fleet.instances().await.unwrap().is_empty());

    fleet.launch(Tier::Ec2, 3).await.unwrap();
    let launched = fleet.instances().await.unwrap();
    assert_eq!(launched.len(), 3, "listed as soon as launched");
    assert!(launched.iter().all(|i| i.state != InstanceState::Draining));
    let running = until(&*fleet, "all take work", all(InstanceState::Running)).await;
    assert_eq!(ids(&running).len(), 3);
    assert!(running.is_sorted_by(|a, b| a.age >= b.age), "oldest first");

    let mut leaving = ids(&running)[..2].to_vec();
    leaving.push(InstanceId("i-0123456789abcdef0".to_owned()));
    leaving.push(leaving[0].clone());
    fleet.drain(&leaving).await.unwrap();
    let told = fleet.instances().await.unwrap();
    let others = told.iter().filter(|i| i.state != InstanceState::Draining);
    assert_eq!(others.count(), 1, "seen as soon as told: {told:?}");
    fleet.drain(&leaving).await.unwrap();
    let left = until(&*fleet, "the drained go", |left| left.len() == 1).await;
    assert_eq!(left[0].id, running[2].id);
    fleet.drain(&ids(&left)).await.unwrap();
    until(&*fleet, "nothing is left", <[_]>::is_empty).await;
    fleet.drain(&ids(&left)).await.unwrap();
    assert_eq!(fleet.failed_starts(Tier::Ec2), 0);
}

/// One that ends before it takes work is a failed start; one that was told to is none.
pub async fn a_start_that_fails_is_counted<F: Fleet>(
    fleet: Arc<F>,
    end_one: impl AsyncFnOnce(InstanceId),
) {
    fleet.launch(Tier::Ec2, 1).await.unwrap();
    // It may have ended by itself already.
    if let Some(instance) = fleet.instances().await.unwrap().pop() {
        end_one(instance.id).await;
    }
    until(&*fleet, "it is gone", <[_]>::is_empty).await;
    assert_eq!(fleet.failed_starts(Tier::Ec2), 1);
}

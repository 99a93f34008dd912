//! A fleet on EC2 with some workers on the controller's machine before it.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;

use crate::fleet::{Fleet, FleetError, Instance, InstanceId};
use crate::local::LocalFleet;
use crate::throttle::Throttle;
use crate::tier::Tier;

/// Instances of every tier: processes of this machine, and those of another fleet.
#[derive(Debug)]
pub struct TieredFleet<R> {
    local: LocalFleet,
    remote: Arc<R>,
    throttle: Mutex<Throttle>,
}

impl<R: Fleet> TieredFleet<R> {
    /// Puts this machine's workers before those of `remote`. No two of them may have one id.
    pub fn new(local: LocalFleet, remote: Arc<R>) -> Self {
        Self {
            local,
            remote,
            throttle: Mutex::default(),
        }
    }

    /// Drains this machine's workers, and returns when the last one is gone. The others stay.
    pub async fn shut_down(&self) {
        self.local.shut_down().await;
    }
}

#[async_trait]
impl<R: Fleet> Fleet for TieredFleet<R> {
    async fn instances(&self) -> Result<Vec<Instance>, FleetError> {
        let mut instances = self.remote.instances().await?;
        instances.extend(self.local.instances().await?);
        instances.sort_by_key(|instance| Reverse(instance.age));
        Ok(instances)
    }

    async fn launch(&self, tier: Tier, count: u32) -> Result<(), FleetError> {
        match tier {
            Tier::Local => self.local.launch(tier, count).await,
            Tier::Stopped | Tier::Ec2 => self.remote.launch(tier, count).await,
        }
    }

    async fn stopped(&self) -> u32 {
        self.remote.stopped().await
    }

    fn is_throttled(&self) -> bool {
        let throttle = self.throttle.lock();
        let mut throttle = throttle.expect("no code panics while it looks");
        throttle.look(Instant::now())
    }

    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError> {
        // Each leaves those of the other as they are.
        self.local.drain(ids).await?;
        self.remote.drain(ids).await
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.local.changed() => {}
            () = self.remote.changed() => {}
        }
    }

    fn failed_starts(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Local => self.local.failed_starts(tier),
            Tier::Stopped | Tier::Ec2 => self.remote.failed_starts(tier),
        }
    }
}

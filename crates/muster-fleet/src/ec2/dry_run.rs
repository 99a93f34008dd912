//! Dry runs of what a controller does on EC2: it answers whether each would have been allowed.

use std::fmt;

use aws_config::SdkConfig;

use super::calls::{Calls, Change};
use super::failure::{Failure, Refusal};
use super::options::Ec2FleetOptions;
use super::pools::{Pool, Pools};
use super::record::Launch;
use crate::fleet::{FleetError, InstanceId};

/// Where an instance would be launched: a type, a subnet and a market.
#[derive(Clone, Debug)]
pub struct CapacityPool(Pool);

impl fmt::Display for CapacityPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The calls of an [`Ec2Fleet`](super::fleet::Ec2Fleet), without their effects.
#[derive(Debug)]
pub struct Ec2DryRun {
    calls: Calls,
    options: Ec2FleetOptions,
}

impl Ec2DryRun {
    /// Timeouts and retries are set here, whatever `config` says.
    pub fn new(config: &SdkConfig, options: Ec2FleetOptions) -> Self {
        Self {
            calls: Calls::new(config, &options.deployment),
            options,
        }
    }

    /// The deployment's instances that are not terminated: the one call that is made for real.
    ///
    /// # Errors
    /// What EC2 said.
    pub async fn instances(&self) -> Result<Vec<InstanceId>, FleetError> {
        let listed = self.calls.list().await;
        let listed = listed.map_err(|failure| self.error(failure, "list the instances", None))?;
        Ok(listed.into_iter().map(|instance| instance.id).collect())
    }

    /// The number of the launch template's version that a launch would be of.
    ///
    /// # Errors
    /// What EC2 said.
    pub async fn template_version(&self) -> Result<u64, FleetError> {
        let Ec2FleetOptions {
            launch_template,
            launch_template_version,
            ..
        } = &self.options;
        let version = self
            .calls
            .template_version(launch_template, launch_template_version)
            .await;
        version.map_err(|failure| self.error(failure, "see the launch template's version", None))
    }

    /// Every subnet once and every type once, in the first of the markets: EC2 lets an account make
    /// five such calls at once, and then two in a second ("Request throttling for the Amazon EC2
    /// API").
    pub fn pools(&self) -> Vec<CapacityPool> {
        let Ec2FleetOptions {
            capacity,
            instance_types,
            subnets,
            ..
        } = &self.options;
        let all = Pools::new(*capacity, instance_types, subnets).into_pools();
        let Some(first) = all.first().cloned() else {
            return Vec::new();
        };
        all.into_iter()
            .filter(|pool| {
                pool.spot == first.spot
                    && (pool.subnet == first.subnet || pool.instance_type == first.instance_type)
            })
            .map(CapacityPool)
            .collect()
    }

    /// Asks whether an instance would be launched. A shortage there says nothing against it.
    ///
    /// # Errors
    /// Names the launch template or the subnet that does not exist, or says what else EC2 said.
    pub async fn launch(&self, pool: &CapacityPool) -> Result<(), FleetError> {
        let launch = Launch::new(&self.options, vec![0], pool.0.clone());
        match self.calls.may_run(&launch).await {
            Err(failure) if failure.refusal != Refusal::Capacity => {
                Err(self.error(failure, "launch an instance", pool.0.subnet.as_deref()))
            }
            _ => Ok(()),
        }
    }

    /// Asks whether an instance may be changed so.
    ///
    /// # Errors
    /// What EC2 said.
    pub async fn change(&self, id: &InstanceId, change: Change) -> Result<(), FleetError> {
        let asked = self.calls.may_change(id, change).await;
        asked.map_err(|failure| self.error(failure, change.action(), None))
    }

    fn error(&self, failure: Failure, action: &str, subnet: Option<&str>) -> FleetError {
        failure.into_error(action, &self.options.launch_template, subnet)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_config::BehaviorVersion;

    use super::*;
    use crate::ec2::options::Capacity;

    #[tokio::test]
    async fn every_type_and_every_subnet_is_tried_once() {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .build();
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let options = Ec2FleetOptions {
            deployment: "muster".to_owned(),
            launch_template: "worker".to_owned(),
            launch_template_version: "$Default".to_owned(),
            name_prefix: "worker-".to_owned(),
            instance_types: names(["c7i.large", "c6i.large"]),
            subnets: names(["subnet-1", "subnet-2"]),
            capacity: Capacity::SpotFirst,
            stopped_instances: 0,
            boot_timeout: Duration::from_secs(300),
            hung_timeout: Duration::from_secs(40),
            max_instances: 15,
        };
        let pools = Ec2DryRun::new(&config, options).pools();
        let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
        assert_eq!(
            pools,
            [
                "Spot c7i.large in subnet-1",
                "Spot c7i.large in subnet-2",
                "Spot c6i.large in subnet-1",
            ]
        );
    }
}

//! The calls to EC2, each as the fleet needs it.

use std::error::Error;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::StalledStreamProtectionConfig;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::create_tags::builders::CreateTagsFluentBuilder;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceInterruptionBehavior, InstanceLifecycleType,
    InstanceMarketOptionsRequest, InstanceStateName, InstanceType, LaunchTemplateSpecification,
    MarketType, ResourceType, SpotInstanceType, SpotMarketOptions, Tag, TagSpecification,
};

use super::failure::Failure;
use super::members::{Listed, Power};
use super::record::Launch;
use super::rehearsal::Change;
use crate::fleet::InstanceId;

/// How long one call may take. A launch of a batch takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Instances in one page of a listing. EC2: 5 to 1000.
const PAGE: i32 = 1000;

/// Tells this installation's instances from others'.
const DEPLOYMENT: &str = "muster:deployment";
/// The client token of the launch that an instance came from.
const LAUNCH: &str = "muster:launch";
/// An instance's number within the fleet.
const SLOT: &str = "muster:slot";

/// EC2, as one deployment sees it.
#[derive(Debug)]
pub(super) struct Calls {
    client: Client,
    deployment: String,
}

impl Calls {
    pub fn new(config: &SdkConfig, deployment: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = aws_sdk_ec2::config::Builder::from(config)
            .timeout_config(timeouts)
            // Shortages come with status 500: the pools and the controller know how long to wait.
            .retry_config(RetryConfig::disabled())
            // The timeout does the same.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self {
            client: Client::from_conf(config),
            deployment: deployment.to_owned(),
        }
    }

    /// Every instance of the deployment that is not terminated.
    pub async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let states = ["pending", "running", "stopping", "stopped", "shutting-down"];
        let there = filter("instance-state-name", &states);
        let found = self.describe(vec![there]).await?;
        Ok(found.into_iter().filter_map(listed).collect())
    }

    /// Every instance of a launch, those that have ended included.
    pub async fn launched(&self, token: &str) -> Result<Vec<Launched>, Failure> {
        let found = self
            .describe(vec![filter(&format!("tag:{LAUNCH}"), &[token])])
            .await?;
        Ok(found.into_iter().filter_map(launched).collect())
    }

    async fn describe(&self, mut filters: Vec<Filter>) -> Result<Vec<Instance>, Failure> {
        filters.push(filter(&format!("tag:{DEPLOYMENT}"), &[&self.deployment]));
        let mut pages = self
            .client
            .describe_instances()
            .set_filters(Some(filters))
            .into_paginator()
            .page_size(PAGE)
            .send();
        let mut instances = Vec::new();
        while let Some(page) = pages.next().await {
            let reservations = page?.reservations.unwrap_or_default();
            instances.extend(
                reservations
                    .into_iter()
                    .flat_map(|r| r.instances.unwrap_or_default()),
            );
        }
        Ok(instances)
    }

    /// Launches at least one instance and at most one for each slot. The same launch again gives
    /// the same instances.
    pub async fn run(&self, launch: &Launch) -> Result<Vec<Launched>, Failure> {
        let answer = self.run_call(launch).send().await?;
        let instances = answer.instances.unwrap_or_default();
        Ok(instances.into_iter().filter_map(launched).collect())
    }

    fn run_call(&self, launch: &Launch) -> RunInstancesFluentBuilder {
        let template = LaunchTemplateSpecification::builder().version(&launch.template_version);
        let template = if launch.template.starts_with("lt-") {
            template.launch_template_id(&launch.template)
        } else {
            template.launch_template_name(&launch.template)
        };
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Instance)
            .tags(tag(DEPLOYMENT, &self.deployment))
            .tags(tag(LAUNCH, &launch.token))
            .build();
        let spot = launch.pool.spot.then(|| {
            let once = SpotMarketOptions::builder()
                .spot_instance_type(SpotInstanceType::OneTime)
                .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate);
            InstanceMarketOptionsRequest::builder()
                .market_type(MarketType::Spot)
                .spot_options(once.build())
                .build()
        });
        let kind = launch.pool.instance_type.as_deref().map(InstanceType::from);
        self.client
            .run_instances()
            .client_token(&launch.token)
            .launch_template(template.build())
            .min_count(1)
            .max_count(i32::try_from(launch.slots.len()).unwrap_or(i32::MAX))
            .set_instance_type(kind)
            .set_subnet_id(launch.pool.subnet.clone())
            .set_instance_market_options(spot)
            .tag_specifications(tags)
    }

    /// Asks whether a launch would be allowed.
    pub async fn may_run(&self, launch: &Launch) -> Result<(), Failure> {
        allowed(self.run_call(launch).dry_run(true).send().await)
    }

    /// Asks whether an instance may be changed so.
    pub async fn may_change(&self, id: &InstanceId, change: Change) -> Result<(), Failure> {
        let client = &self.client;
        match change {
            Change::Name => {
                let call = self.name_call(id, "", 0).dry_run(true);
                allowed(call.send().await)
            }
            Change::Start => {
                let call = client.start_instances().instance_ids(&id.0).dry_run(true);
                allowed(call.send().await)
            }
            Change::Stop => {
                let call = client.stop_instances().instance_ids(&id.0).dry_run(true);
                allowed(call.send().await)
            }
            Change::Terminate => {
                let call = client.terminate_instances().instance_ids(&id.0);
                allowed(call.dry_run(true).send().await)
            }
        }
    }

    pub async fn start(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        let call = self.client.start_instances();
        call.set_instance_ids(Some(plain(ids))).send().await?;
        Ok(())
    }

    pub async fn stop(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        let call = self.client.stop_instances();
        call.set_instance_ids(Some(plain(ids))).send().await?;
        Ok(())
    }

    pub async fn terminate(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        let call = self.client.terminate_instances();
        call.set_instance_ids(Some(plain(ids))).send().await?;
        Ok(())
    }

    /// Gives an instance its slot and the name that follows from it.
    pub async fn name(&self, id: &InstanceId, prefix: &str, slot: u32) -> Result<(), Failure> {
        self.name_call(id, prefix, slot).send().await?;
        Ok(())
    }

    fn name_call(&self, id: &InstanceId, prefix: &str, slot: u32) -> CreateTagsFluentBuilder {
        self.client
            .create_tags()
            .resources(&id.0)
            .tags(tag("Name", &format!("{prefix}{slot}")))
            .tags(tag(SLOT, &slot.to_string()))
    }
}

/// What a dry run says: "If you have the required permissions, the error response is
/// DryRunOperation."
fn allowed<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<(), Failure>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match answer {
        Err(error) if error.code() != Some("DryRunOperation") => Err(error.into()),
        _ => Ok(()),
    }
}

/// One instance of a launch.
#[derive(Clone, Debug)]
pub(super) struct Launched {
    pub id: InstanceId,
    pub index: u32,
    pub ended: bool,
}

fn launched(instance: Instance) -> Option<Launched> {
    let state = instance.state.and_then(|state| state.name);
    Some(Launched {
        id: InstanceId(instance.instance_id?),
        index: instance.ami_launch_index.and_then(|n| n.try_into().ok())?,
        ended: state == Some(InstanceStateName::Terminated),
    })
}

fn listed(instance: Instance) -> Option<Listed> {
    let power = match instance.state?.name? {
        InstanceStateName::Pending => Power::Pending,
        InstanceStateName::Running => Power::Running,
        InstanceStateName::Stopping => Power::Stopping,
        InstanceStateName::Stopped => Power::Stopped,
        InstanceStateName::ShuttingDown => Power::ShuttingDown,
        _ => return None,
    };
    let tags = instance.tags.unwrap_or_default();
    let tag = |key: &str| {
        let found = tags.iter().find(|tag| tag.key.as_deref() == Some(key));
        found.and_then(|tag| tag.value.clone())
    };
    Some(Listed {
        id: InstanceId(instance.instance_id?),
        power,
        launched_at_ms: instance
            .launch_time
            .and_then(|time| time.to_millis().ok())
            .and_then(|ms| u64::try_from(ms).ok()),
        spot: instance.instance_lifecycle == Some(InstanceLifecycleType::Spot),
        slot: tag(SLOT).and_then(|slot| slot.parse().ok()),
        launch: tag(LAUNCH),
    })
}

fn plain(ids: &[InstanceId]) -> Vec<String> {
    ids.iter().map(|id| id.0.clone()).collect()
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(ToString::to_string).collect();
    Filter::builder()
        .name(name)
        .set_values(Some(values))
        .build()
}

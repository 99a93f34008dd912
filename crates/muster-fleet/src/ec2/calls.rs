//! The calls to EC2, each as the fleet needs it.

use aws_config::SdkConfig;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use super::client::{
    Acknowledged, Client, DescribeInstances, DescribeLaunchTemplateVersions, Instance, Query,
    RunInstances,
};
use super::failure::Failure;
use super::members::{ListedInstance, PowerState};
use super::record::Launch;
use crate::fleet::InstanceId;

/// Instances in one page of a listing. EC2: 5 to 1000.
const PAGE: &str = "1000";
/// Pages of one listing: a fleet has a few thousand instances at most.
const PAGES: usize = 100;

/// Tells this installation's instances from others'.
const DEPLOYMENT: &str = "muster:deployment";
/// The client token of the launch that an instance came from.
const LAUNCH: &str = "muster:launch";
/// An instance's number within the fleet.
const SLOT: &str = "muster:slot";

/// The number of the launch template's version that an instance was launched from; EC2 sets it itself
/// ("Amazon EC2 instances launched from a launch template").
const TEMPLATE_VERSION: &str = "aws:ec2launchtemplate:version";

/// A call that changes instances which are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gives an instance its name and slot (`ec2:CreateTags`).
    Name,
    /// Starts it.
    Start,
    /// Stops it.
    Stop,
    /// Terminates it.
    Terminate,
}

impl Change {
    /// What a failure says that it would have done.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::Name => "name an instance",
            Self::Start => "start an instance",
            Self::Stop => "stop an instance",
            Self::Terminate => "terminate an instance",
        }
    }
}

/// EC2, as one deployment sees it.
#[derive(Debug)]
pub(super) struct Calls {
    client: Client,
    deployment: String,
}

impl Calls {
    pub fn new(config: &SdkConfig, deployment: &str) -> Self {
        Self {
            client: Client::new(config),
            deployment: deployment.to_owned(),
        }
    }

    /// Every instance of the deployment that is not terminated.
    pub async fn list(&self) -> Result<Vec<ListedInstance>, Failure> {
        let states = ["pending", "running", "stopping", "stopped", "shutting-down"];
        let found = self.describe("instance-state-name", &states).await?;
        Ok(found.iter().filter_map(listed).collect())
    }

    /// Every instance of a launch, those that have ended included.
    pub async fn launched(&self, token: &str) -> Result<Vec<LaunchedInstance>, Failure> {
        let found = self.describe(&format!("tag:{LAUNCH}"), &[token]).await?;
        Ok(found.into_iter().filter_map(launched).collect())
    }

    /// The deployment's instances that one filter more lets through: all of them, or a failure.
    async fn describe(&self, name: &str, values: &[&str]) -> Result<Vec<Instance>, Failure> {
        let mut instances = Vec::new();
        let mut next = None;
        for _ in 0..PAGES {
            let query = Query::new("DescribeInstances")
                .with_filter(1, name, values)
                .with_filter(2, &format!("tag:{DEPLOYMENT}"), &[&self.deployment])
                .with("MaxResults", PAGE)
                .with_some("NextToken", next.as_deref());
            let page: DescribeInstances = self.client.call(query).await?;
            let (found, token) = page.into_parts();
            instances.extend(found);
            next = token;
            if next.is_none() {
                return Ok(instances);
            }
        }
        Err(Failure::unreadable(EndlessListing))
    }

    /// The number of a launch template's version, which may be given as `$Default` or `$Latest`.
    pub async fn template_version(&self, template: &str, version: &str) -> Result<u64, Failure> {
        if let Ok(number) = version.parse() {
            return Ok(number);
        }
        let (by_id, _) = template_parameters(template);
        let query = Query::new("DescribeLaunchTemplateVersions")
            .with(by_id, template)
            .with_list("LaunchTemplateVersion", [version]);
        let answer: DescribeLaunchTemplateVersions = self.client.call(query).await?;
        answer
            .number()
            .ok_or_else(|| Failure::unreadable(NoVersion))
    }

    /// Launches at least one instance and at most one for each slot. The same launch again gives
    /// the same instances.
    pub async fn run(&self, launch: &Launch) -> Result<Vec<LaunchedInstance>, Failure> {
        let answer: RunInstances = self.client.call(self.run_query(launch)).await?;
        let instances = answer.into_instances().into_iter();
        Ok(instances.filter_map(launched).collect())
    }

    fn run_query(&self, launch: &Launch) -> Query {
        let (_, template) = template_parameters(&launch.template);
        let query = Query::new("RunInstances")
            .with("ClientToken", &launch.token)
            .with(template, &launch.template)
            .with("LaunchTemplate.Version", &launch.template_version)
            .with("MinCount", "1")
            .with("MaxCount", &launch.slots.len().to_string())
            .with_some("InstanceType", launch.pool.instance_type.as_deref())
            .with_some("SubnetId", launch.pool.subnet.as_deref())
            .with("TagSpecification.1.ResourceType", "instance")
            .with_tags(
                "TagSpecification.1.",
                &[(DEPLOYMENT, &self.deployment), (LAUNCH, &launch.token)],
            );
        if !launch.pool.spot {
            return query;
        }
        let spot = "InstanceMarketOptions.SpotOptions";
        query
            .with("InstanceMarketOptions.MarketType", "spot")
            .with(&format!("{spot}.SpotInstanceType"), "one-time")
            .with(&format!("{spot}.InstanceInterruptionBehavior"), "terminate")
    }

    /// Asks whether a launch would be allowed.
    pub async fn may_run(&self, launch: &Launch) -> Result<(), Failure> {
        self.may(self.run_query(launch)).await
    }

    /// Asks whether an instance may be changed so.
    pub async fn may_change(&self, id: &InstanceId, change: Change) -> Result<(), Failure> {
        let ids = std::slice::from_ref(id);
        let query = match change {
            Change::Name => name_query(id, "", 0),
            Change::Start => instances_query(START, ids),
            Change::Stop => instances_query(STOP, ids),
            Change::Terminate => instances_query(TERMINATE, ids),
        };
        self.may(query).await
    }

    /// "If you have the required permissions, the error response is DryRunOperation."
    async fn may(&self, query: Query) -> Result<(), Failure> {
        match self.change(query.dry_run()).await {
            Err(failure) if failure.code == "DryRunOperation" => Ok(()),
            answer => answer,
        }
    }

    pub async fn start(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        self.change(instances_query(START, ids)).await
    }

    pub async fn stop(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        self.change(instances_query(STOP, ids)).await
    }

    pub async fn terminate(&self, ids: &[InstanceId]) -> Result<(), Failure> {
        self.change(instances_query(TERMINATE, ids)).await
    }

    /// Gives an instance its slot and the name that follows from it.
    pub async fn name(&self, id: &InstanceId, prefix: &str, slot: u32) -> Result<(), Failure> {
        self.change(name_query(id, prefix, slot)).await
    }

    async fn change(&self, query: Query) -> Result<(), Failure> {
        let _: Acknowledged = self.client.call(query).await?;
        Ok(())
    }
}

/// What a launch template is named by, alone and as a part of a launch: its name or its id.
fn template_parameters(template: &str) -> (&'static str, &'static str) {
    if template.starts_with("lt-") {
        ("LaunchTemplateId", "LaunchTemplate.LaunchTemplateId")
    } else {
        ("LaunchTemplateName", "LaunchTemplate.LaunchTemplateName")
    }
}

const START: &str = "StartInstances";
const STOP: &str = "StopInstances";
const TERMINATE: &str = "TerminateInstances";

fn instances_query(action: &'static str, ids: &[InstanceId]) -> Query {
    Query::new(action).with_list("InstanceId", ids.iter().map(|id| id.0.as_str()))
}

fn name_query(id: &InstanceId, prefix: &str, slot: u32) -> Query {
    let name = format!("{prefix}{slot}");
    let tags = [("Name", name.as_str()), (SLOT, &slot.to_string())];
    Query::new("CreateTags")
        .with_list("ResourceId", [id.0.as_str()])
        .with_tags("", &tags)
}

/// A listing that does not end.
#[derive(Debug, thiserror::Error)]
#[error("the listing does not end after {PAGES} pages")]
struct EndlessListing;

/// An answer about a version that has none.
#[derive(Debug, thiserror::Error)]
#[error("the answer names no version")]
struct NoVersion;

/// One instance of a launch.
#[derive(Clone, Debug)]
pub(super) struct LaunchedInstance {
    pub id: InstanceId,
    pub index: u32,
    pub ended: bool,
}

fn launched(instance: Instance) -> Option<LaunchedInstance> {
    Some(LaunchedInstance {
        index: instance.ami_launch_index?,
        ended: instance.instance_state.name == "terminated",
        id: InstanceId(instance.instance_id),
    })
}

fn listed(instance: &Instance) -> Option<ListedInstance> {
    let power = match instance.instance_state.name.as_str() {
        "pending" => PowerState::Pending,
        "running" => PowerState::Running,
        "stopping" => PowerState::Stopping,
        "stopped" => PowerState::Stopped,
        "shutting-down" => PowerState::ShuttingDown,
        _ => return None,
    };
    let launched_at = instance.launch_time.as_deref();
    let launched_at = launched_at.and_then(|at| DateTime::from_str(at, Format::DateTime).ok());
    Some(ListedInstance {
        id: InstanceId(instance.instance_id.clone()),
        power,
        launched_at_ms: launched_at
            .and_then(|at| at.to_millis().ok())
            .and_then(|ms| u64::try_from(ms).ok()),
        spot: instance.instance_lifecycle.as_deref() == Some("spot"),
        slot: instance.tag(SLOT).and_then(|slot| slot.parse().ok()),
        launch: instance.tag(LAUNCH).map(str::to_owned),
        template_version: instance
            .tag(TEMPLATE_VERSION)
            .and_then(|version| version.parse().ok()),
    })
}

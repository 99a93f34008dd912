//! A deployment of a test's own in moto's account, and instances that boot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, InstanceLifecycleType, InstanceStateName, RequestLaunchTemplateData,
};
use muster_fleet::{Capacity, Ec2Fleet, Ec2FleetOptions, Heartbeat, InstanceId, Lease, Phase};
use muster_testbed::{moto, sdk_config};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conformance::LIMIT;

/// How many launches a page of EC2's listing shows.
const PAGE: usize = 2;
/// How long a successor waits for the end of a lease.
const TAKEOVER: Duration = Duration::from_secs(2);

/// What a test's controllers share.
#[derive(Clone)]
pub struct Account {
    pub server: &'static moto::Server,
    pub client: Client,
    pub store: Arc<dyn ObjectStore>,
    pub options: Ec2FleetOptions,
    /// How long a lease lasts that nobody renews, and a contender for it waits.
    pub lease_time: Duration,
}

/// An instance as EC2 lists it.
#[derive(Clone, Debug)]
pub struct FoundInstance {
    pub state: InstanceStateName,
    pub name: Option<String>,
    pub slot: Option<u32>,
    pub launched_at_ms: u64,
    pub subnet: Option<String>,
    pub instance_type: String,
    pub spot: bool,
}

impl Account {
    /// `None` where there is no moto.
    pub async fn new(max_instances: u32) -> Option<Self> {
        let server = moto::server()?;
        server.set_page(PAGE);
        let client = Client::new(&sdk_config(server.endpoint()));
        let deployment = Uuid::now_v7().to_string();
        let template = RequestLaunchTemplateData::builder()
            .image_id("ami-12345678")
            .instance_type("m7i.large".into());
        client
            .create_launch_template()
            .launch_template_name(&deployment)
            .launch_template_data(template.build())
            .send()
            .await
            .unwrap();
        Some(Self {
            server,
            client,
            store: Arc::new(InMemory::new()),
            options: Ec2FleetOptions {
                launch_template: deployment.clone(),
                deployment,
                launch_template_version: "$Default".to_owned(),
                name_prefix: "app-tier-instance-".to_owned(),
                instance_types: Vec::new(),
                subnets: Vec::new(),
                capacity: Capacity::OnDemand,
                stopped_instances: 0,
                boot_timeout: Duration::from_secs(300),
                hung_timeout: Duration::from_secs(40),
                max_instances,
            },
            lease_time: LIMIT,
        })
    }

    /// Returns the account for a controller that is not the first.
    pub fn successor(&self) -> Self {
        Self {
            lease_time: TAKEOVER,
            ..self.clone()
        }
    }

    pub async fn lease(&self, shutdown: &CancellationToken) -> Option<Arc<Lease>> {
        let path = Path::from("state/lease.json");
        let store = Arc::clone(&self.store);
        Lease::acquire(store, path, "a test", self.lease_time, shutdown)
            .await
            .unwrap()
    }

    /// A fleet that talks to `endpoint`, under a lease of its own that nobody renews.
    pub async fn fleet_at(&self, endpoint: &str) -> (Arc<Ec2Fleet>, Arc<Lease>) {
        let lease = self.lease(&CancellationToken::new()).await.unwrap();
        let fleet = self.fleet_under(endpoint, Arc::clone(&lease)).await;
        (fleet, lease)
    }

    pub async fn fleet_under(&self, endpoint: &str, lease: Arc<Lease>) -> Arc<Ec2Fleet> {
        let (store, options) = (Arc::clone(&self.store), self.options.clone());
        let record = Path::from("state/launches.json");
        let config = sdk_config(endpoint);
        let fleet = Ec2Fleet::open(&config, options, store, record, lease).await;
        Arc::new(fleet.unwrap())
    }

    /// A fleet whose lease is renewed and whose instances boot, until it is dropped.
    pub async fn booted(&self) -> (Arc<Ec2Fleet>, Booter) {
        let (fleet, lease) = self.fleet_at(self.server.endpoint()).await;
        let booter = Booter::new(self.clone(), Arc::clone(&fleet), Some(lease));
        (fleet, booter)
    }

    /// Makes another version of the launch template, the same as before.
    pub async fn new_template_version(&self) {
        let template = &self.options.launch_template;
        let same = RequestLaunchTemplateData::builder()
            .image_id("ami-12345678")
            .instance_type("m7i.large".into());
        let made = self
            .client
            .create_launch_template_version()
            .launch_template_name(template)
            .launch_template_data(same.build());
        made.send().await.unwrap();
    }

    /// Every instance of the deployment that is not terminated.
    pub async fn instances(&self) -> BTreeMap<String, FoundInstance> {
        let deployment = Filter::builder()
            .name("tag:muster:deployment")
            .values(&self.options.deployment)
            .build();
        let listed = self.client.describe_instances().filters(deployment);
        let listed = listed.send().await.unwrap();
        let instances = listed.reservations().iter().flat_map(|r| r.instances());
        let seen = instances.map(|instance| {
            let tag = |key: &str| {
                let tag = instance.tags().iter().find(|tag| tag.key() == Some(key));
                tag.and_then(|tag| tag.value()).map(str::to_owned)
            };
            let launched = instance.launch_time().unwrap().to_millis().unwrap();
            let seen = FoundInstance {
                state: instance.state().unwrap().name().unwrap().clone(),
                name: tag("Name"),
                slot: tag("muster:slot").map(|slot| slot.parse().unwrap()),
                launched_at_ms: launched.try_into().unwrap(),
                subnet: instance.subnet_id().map(str::to_owned),
                instance_type: instance.instance_type().unwrap().to_string(),
                spot: instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot),
            };
            (instance.instance_id().unwrap().to_owned(), seen)
        });
        seen.filter(|(_, seen)| seen.state != InstanceStateName::Terminated)
            .collect()
    }

    /// Waits until EC2's listing is as wanted.
    pub async fn until(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, FoundInstance>) -> bool,
    ) {
        let mut last = BTreeMap::new();
        let wait = async {
            loop {
                last = self.instances().await;
                if holds(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        assert!(waited.is_ok(), "{what}: {last:?}");
    }
}

/// In the place of the instances: reports for whichever run, and renews the lease.
pub struct Booter {
    task: JoinHandle<()>,
    pub reports: Arc<AtomicBool>,
}

/// How long after it runs an instance reports.
const BOOT: Duration = Duration::from_millis(300);

impl Booter {
    pub fn new(account: Account, fleet: Arc<Ec2Fleet>, lease: Option<Arc<Lease>>) -> Self {
        let reports = Arc::new(AtomicBool::new(true));
        let on = Arc::clone(&reports);
        let boot = async move {
            let mut running = HashMap::new();
            loop {
                if on.load(Ordering::Relaxed) {
                    for (id, seen) in account.instances().await {
                        // None has booted before the call that started it was answered.
                        let run = (id.clone(), seen.launched_at_ms);
                        if seen.state == InstanceStateName::Running
                            && running.entry(run).or_insert_with(Instant::now).elapsed() >= BOOT
                        {
                            fleet.record_heartbeat(&report(&id, seen.launched_at_ms + 1));
                        }
                    }
                }
                fleet.record_receive();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let task = tokio::spawn(async move {
            let never = CancellationToken::new();
            match lease {
                None => boot.await,
                Some(lease) => tokio::select! {
                    () = boot => {}
                    () = lease.keep(&never) => {}
                },
            }
        });
        Self { task, reports }
    }
}

impl Drop for Booter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn report(id: &str, started_at_ms: u64) -> Heartbeat {
    Heartbeat {
        id: InstanceId(id.to_owned()),
        phase: Phase::Ready,
        busy: false,
        started_at_ms,
        answered: 0,
        every: Duration::from_secs(10),
    }
}

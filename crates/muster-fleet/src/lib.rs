//! The fleet of recognition workers and the controller that sizes it.
//!
//! `observe → plan → apply`: the controller observes the backlog and the fleet, [`plan()`] decides
//! (a pure function), and the [`Fleet`] does it. Knows nothing of faces or HTTP.

mod activity;
mod back_off;
mod backlog;
mod bill;
mod boots;
mod controller;
mod ec2;
mod fleet;
mod learn;
mod lease;
mod local;
mod observation;
mod plan;
mod policy;
mod report;
mod season;
pub mod simulate;
mod sizing;
mod staffing;
mod throttle;
mod tier;
mod tiered;

pub use activity::{Activity, BUCKET_BOUNDS_S, DurationHistogram, PlanCounts};
pub use bill::Cost;
pub use controller::{Controller, run};
pub use ec2::{
    Capacity, CapacityPool, Change, Ec2DryRun, Ec2Fleet, Ec2FleetOptions, Ec2Refusal, Heartbeat,
    Phase, aws_domain,
};
pub use fleet::{Answers, Fleet, FleetError, Instance, InstanceId, InstanceState, SourceError};
pub use learn::Learned;
pub use lease::{Lease, LeaseError};
pub use local::{LocalFleet, LocalFleetOptions, READY_LINE, alive_line};
pub use observation::{Observation, RequestTotals};
pub use plan::{Plan, plan};
pub use policy::{Budget, KeepAlive, LocalTier, MOST_INSTANCES, Policy, Scaling};
pub use report::{FleetReport, FleetStatus};
pub use throttle::withheld_since_start;
pub use tier::{Tier, TierCounts};
pub use tiered::TieredFleet;

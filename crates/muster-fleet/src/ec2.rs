//! A fleet of EC2 instances.

mod calls;
mod client;
mod dry_run;
mod failure;
mod fleet;
mod heartbeat;
mod members;
mod options;
mod pools;
mod record;

pub use self::calls::Change;
pub use self::client::aws_domain;
pub use self::dry_run::{CapacityPool, Ec2DryRun};
pub use self::failure::Ec2Refusal;
pub use self::fleet::Ec2Fleet;
pub use self::heartbeat::{Heartbeat, Phase};
pub use self::options::{Capacity, Ec2FleetOptions};

//! A fleet of EC2 instances.

mod calls;
mod client;
mod failure;
mod fleet;
mod heartbeat;
mod members;
mod options;
mod pools;
mod record;
mod rehearsal;

pub use self::calls::Change;
pub use self::failure::Ec2Refusal;
pub use self::fleet::Ec2Fleet;
pub use self::heartbeat::{Heartbeat, Phase};
pub use self::options::{Capacity, Ec2FleetOptions};
pub use self::rehearsal::{Ec2Rehearsal, Place};

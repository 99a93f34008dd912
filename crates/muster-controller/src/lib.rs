//! The controller role: sizes the fleet and says how it fares.

mod control;
mod ec2;
mod local;
mod replicas;
mod reports;
mod role;

pub use ec2::ec2_options;
pub use local::Claim;
pub use replicas::OwnWeb;
pub use role::run;

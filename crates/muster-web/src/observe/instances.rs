//! Workers as the API shows them.

use muster_api::status::{InstanceState, InstanceTier, InstanceView};

/// A worker, as the controller last saw it.
pub fn instance(instance: muster_fleet::Instance) -> InstanceView {
    InstanceView {
        id: instance.id.0,
        state: match instance.state {
            muster_fleet::InstanceState::Pending => InstanceState::Pending,
            muster_fleet::InstanceState::Running => InstanceState::Running,
            muster_fleet::InstanceState::Draining => InstanceState::Draining,
        },
        tier: match instance.tier {
            muster_fleet::Tier::Local => InstanceTier::Local,
            muster_fleet::Tier::Stopped => InstanceTier::Stopped,
            muster_fleet::Tier::Ec2 => InstanceTier::Ec2,
        },
        age_s: (instance.age.as_secs_f64() * 1e3).round() / 1e3,
        busy: instance.busy,
    }
}

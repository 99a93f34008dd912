//! What every role and command stands on: settings, stores and queues, AWS, API keys and the audit
//! log as they are stored, the live gallery, the catalogue of models, logs and traces.

pub mod api_keys;
pub mod audit;
pub mod aws;
pub mod backend;
pub mod backoff;
pub mod catalogue;
pub mod cpu;
pub mod descriptors;
mod error_chain;
pub mod fleet_status;
pub mod live_gallery;
pub mod local_token;
pub mod logging;
mod outage;
pub mod output;
pub mod settings;
pub mod signals;
pub mod traces;

pub use error_chain::ErrorChain;
pub use outage::{is_full, outage};

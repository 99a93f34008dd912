//! Who may call the API, and how often.

pub mod caller;
pub mod guard;
pub mod keyless;
mod keys;
pub mod rate;

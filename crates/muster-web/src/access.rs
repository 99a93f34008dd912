//! Who may call the API, and how often.

pub mod guard;
pub mod keyless;
pub mod rate;

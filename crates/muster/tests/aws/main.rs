//! The service on AWS: the real program against moto's server.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so does what it stands on"
)]

mod doctor;

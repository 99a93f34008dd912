//! The commands, a file each: what their arguments are, and what they do.

pub mod audit;
pub mod doctor;
pub mod enroll;
pub mod gallery;
pub mod keys;
pub mod models;
pub mod recognize;
pub mod status;
pub mod token;
pub mod verify;

//! Enrolment: the people that recognition can name, their faces, and what was said not to be them.

pub mod deletion;
pub mod denials;
mod edit;
pub mod enrolment;
pub mod faces;
pub mod listing;
pub mod person;
pub mod photographs;
mod rules;
mod views;

//! What the handlers have in common: errors, documentation, extractors, the gallery's failures.

pub mod affected;
pub mod extract;
pub mod gallery;
pub mod openapi;
pub mod problem;

//! Faces: decode a photograph, find every face, align, embed, and match against a gallery.
//!
//! Knows nothing of AWS, HTTP or queues.

pub mod align;
pub mod decode;
pub mod detect;
pub mod embed;
pub mod engine;
pub mod evaluate;
pub mod gallery;
pub mod models;
pub mod recognizer;
mod resample;
mod views;

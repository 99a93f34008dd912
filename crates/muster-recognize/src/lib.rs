//! Faces: decode a photograph, find every face, align, embed, and match against a gallery.
//!
//! Knows nothing of AWS, HTTP or queues.

pub mod align;
pub mod calibration;
pub mod decide;
pub mod decode;
pub mod detect;
pub mod embed;
pub mod engine;
pub mod evaluate;
pub mod gallery;
pub mod health;
pub mod identification;
pub mod models;
pub mod quality;
pub mod recognizer;
mod resample;
pub mod template;
mod views;

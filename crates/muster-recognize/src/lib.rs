//! Faces: decode a photograph, find every face, align and embed it.
//!
//! Knows nothing of people, AWS, HTTP or queues.

pub mod align;
pub mod analysis;
pub mod bounds;
pub mod decode;
pub mod detect;
pub mod detection;
pub mod embed;
pub mod engine;
mod feed;
mod look_again;
pub mod models;
pub mod quality;
pub mod recognizer;
mod resample;
mod retinaface;
pub mod turn;
mod views;

//! Muster's roles and commands.
//!
//! `cli` is the front door: each command is one arm there and one module here.

mod aws;
mod backend;
mod bench;
pub mod cli;
mod client;
mod config;
mod controller;
pub mod cpu;
mod doctor;
mod enroll;
mod eval;
mod live_gallery;
pub mod logging;
mod models;
mod photos;
mod profile;
mod progress;
mod recognize;
mod signals;
mod simulate;
mod status;
mod up;
mod web;
mod worker;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit code for what ended a command; where the trouble is with AWS, says what to do about it.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match aws::Trouble::of(error.as_ref()) {
        Some(trouble) => {
            eprintln!("muster: {}", trouble.remedy());
            ExitCode::from(trouble.exit_code())
        }
        None => ExitCode::FAILURE,
    }
}

/// Shows an error with its sources on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

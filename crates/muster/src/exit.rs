//! How a command that failed ends.

use std::process::ExitCode;

use muster_base::ErrorChain;
use muster_base::aws::Trouble;

/// Says on standard error what ended a command, and where the trouble is with AWS what to do about
/// it; the exit code tells the kinds of trouble apart.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("muster: {}", ErrorChain(error.as_ref()));
    match Trouble::of(error.as_ref()) {
        Some(trouble) => {
            eprintln!("muster: {}", trouble.remedy());
            ExitCode::from(trouble.exit_code())
        }
        None => ExitCode::FAILURE,
    }
}

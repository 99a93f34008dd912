//! How a command that failed ends: what it says, and the exit code, which tells the kinds of failure
//! apart as `sysexits.h` has them.

use std::process::ExitCode;

use muster_api::client::ClientError;
use muster_base::aws::Trouble;
use muster_base::backend::FolderGone;
use muster_base::output::OutputError;
use muster_base::{ErrorChain, print_error_line};

/// A failure that has no code of its own.
const FAILURE: u8 = 1;
/// What was sent is not what is wanted: a photograph that shows no face, say.
const REFUSED: u8 = 65;
/// A file can not be read.
pub const NO_INPUT: u8 = 66;
/// The service can not be reached, has too much to do, or failed.
const UNAVAILABLE: u8 = 69;
/// A failure, where 1 is an answer.
pub const SOFTWARE: u8 = 70;
/// Nobody controls this worker's EC2 instance: its unit powers it off.
pub const ORPHANED: u8 = 80;
/// The API key is missing, unknown, or not for this.
const DENIED: u8 = 77;

/// Says on standard error what ended a command, and where the trouble is with AWS what to do about
/// it. A command whose output nobody reads any more ends quietly.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    failed_or(error, FAILURE)
}

/// As [`failed`], with the exit code of a failure that has none of its own.
pub fn failed_or(error: &anyhow::Error, otherwise: u8) -> ExitCode {
    let mut chain = error.chain();
    if chain.any(|error| matches!(error.downcast_ref(), Some(OutputError::Closed))) {
        return ExitCode::SUCCESS;
    }
    // Whatever was done in it, that is what there is to know.
    match error
        .chain()
        .find_map(|error| error.downcast_ref::<FolderGone>())
    {
        Some(gone) => print_error_line!("muster: {gone}"),
        None => print_error_line!("muster: {}", ErrorChain(error.as_ref())),
    }
    if let Some(error) = error.downcast_ref() {
        return ExitCode::from(of_service(error));
    }
    match Trouble::of(error.as_ref()) {
        Some(trouble) => {
            print_error_line!("muster: {}", trouble.remedy());
            ExitCode::from(trouble.exit_code())
        }
        None => ExitCode::from(otherwise),
    }
}

/// The exit code of what a service did not answer.
pub fn of_service(error: &ClientError) -> u8 {
    match error {
        ClientError::Problem { problem, .. } => match problem.status {
            401 | 403 => DENIED,
            408 | 429 | 500.. => UNAVAILABLE,
            _ => REFUSED,
        },
        _ => UNAVAILABLE,
    }
}

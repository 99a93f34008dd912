//! `muster verify`: whether two photographs show the same person.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use muster_api::client::{ClientError, ServiceArgs};
use muster_api::files::file_name;
use muster_api::problem::Problem;
use muster_api::recognition::Verification;
use muster_base::{output, print_error_line, print_line};

use crate::exit;

/// Arguments of `muster verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Two photographs; the largest face of each is compared
    #[arg(required = true, num_args = 2, value_names = ["FILE", "FILE"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Compares two photographs; the exit code says whether they show the same person, or why that is
/// not known.
///
/// # Errors
/// Never for what it finds or for what keeps it from that: 1 is an answer.
pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let compared = compare(args).await;
    Ok(compared.unwrap_or_else(|error| exit::failed_or(&error, exit::SOFTWARE)))
}

async fn compare(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let client = args.service.client()?;
    let mut photos = Vec::new();
    for file in &args.files {
        match std::fs::read(file) {
            Ok(bytes) => photos.push((file_name(file), Bytes::from(bytes))),
            Err(error) => {
                let path = file.display();
                print_error_line!("muster: the photograph {path} can not be read: {error}");
                return Ok(ExitCode::from(exit::NO_INPUT));
            }
        }
    }
    let photos: Result<[_; 2], _> = photos.try_into();
    let photos = photos.map_err(|_| anyhow::anyhow!("two photographs are compared: name two"))?;
    let (code, printed) = match client.verify(photos).await {
        Ok(verified) => (
            u8::from(!verified.same),
            match args.json {
                true => print_line!("{}", json!(verified)),
                false => print_line!("{}", sentence(&verified)),
            },
        ),
        Err(error) => {
            let code = exit::of_service(&error);
            let ClientError::Problem { problem, .. } = error else {
                return Err(error.into());
            };
            let Problem {
                code: why, detail, ..
            } = *problem;
            let printed = match args.json {
                true => print_line!("{}", json!({ "code": why, "detail": detail })),
                false => print_line!("refused: {detail}"),
            };
            (code, printed)
        }
    };
    // The code is an answer by itself.
    output::even_if_closed(printed)?;
    Ok(ExitCode::from(code))
}

fn sentence(verified: &Verification) -> String {
    let verdict = match verified.same {
        true => "the same person",
        false => "not the same person",
    };
    format!(
        "{verdict}: similarity {:.3}, cutoff {:.3}",
        verified.similarity, verified.cutoff
    )
}

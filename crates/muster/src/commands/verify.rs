//! `muster verify`: whether two photographs show the same person.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use muster_api::client::{ClientError, ServiceArgs};
use muster_api::files::file_name;
use muster_api::recognition::Verification;

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

/// Compares two photographs; the exit code says whether they show the same person.
///
/// # Errors
/// When a photograph can not be read or the service can not be reached.
pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let client = args.service.client()?;
    let read = |file: &PathBuf| {
        let bytes = std::fs::read(file)
            .with_context(|| format!("read the photograph {}", file.display()))?;
        anyhow::Ok((file_name(file), Bytes::from(bytes)))
    };
    let [first, second] = &args.files[..] else {
        anyhow::bail!("two photographs are compared: name two files");
    };
    let answer = client.verify([read(first)?, read(second)?]).await;
    let same = matches!(&answer, Ok(verified) if verified.same);
    match answer {
        Ok(verified) if args.json => println!("{}", json!(verified)),
        Ok(verified) => println!("{}", sentence(&verified)),
        Err(ClientError::Problem { problem, .. }) if args.json => {
            println!(
                "{}",
                json!({ "code": problem.code, "detail": problem.detail })
            );
        }
        Err(ClientError::Problem { problem, .. }) => println!("refused: {}", problem.detail),
        Err(error) => return Err(error.into()),
    }
    Ok(if same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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

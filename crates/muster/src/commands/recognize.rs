//! `muster recognize`: names for photographs, one line each.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use muster_jobs::{Decision, FaceReport, Recognition};
use serde_json::json;

use muster_api::client::{ClientError, ServiceArgs};
use muster_api::files::file_name;

/// Arguments of `muster recognize`.
#[derive(Debug, Args)]
pub struct RecognizeArgs {
    /// Photographs
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Print one JSON document a photograph
    #[arg(long)]
    json: bool,
}

/// Recognises each photograph; the exit code says whether all were.
///
/// # Errors
/// When a photograph can not be read or the service can not be reached.
pub async fn run(args: RecognizeArgs) -> anyhow::Result<ExitCode> {
    let client = args.service.client()?;
    let width = args
        .files
        .iter()
        .map(|file| file_name(file).chars().count())
        .max()
        .unwrap_or(0);
    let mut all = true;
    for file in &args.files {
        let bytes = std::fs::read(file)
            .with_context(|| format!("read the photograph {}", file.display()))?;
        let name = file_name(file);
        let answer = client.recognize(&name, &Bytes::from(bytes)).await;
        all &= answer.is_ok();
        match answer {
            Ok(recognition) if args.json => {
                println!("{}", json!({ "file": name, "result": recognition }));
            }
            Err(ClientError::Problem { problem, .. }) if args.json => {
                println!(
                    "{}",
                    json!({ "file": name, "code": problem.code, "detail": problem.detail })
                );
            }
            Ok(recognition) => println!("{name:width$}  {}", sentence(&recognition)),
            Err(ClientError::Problem { problem, .. }) => {
                println!("{name:width$}  refused: {}", problem.detail);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sentence(recognition: &Recognition) -> String {
    let names: Vec<String> = recognition.faces.iter().map(face).collect();
    format!(
        "{}  ({:.0} ms)",
        names.join(", "),
        recognition.timing_ms.total
    )
}

fn face(face: &FaceReport) -> String {
    match (face.decision, &face.person, face.similarity) {
        (Decision::Match, Some(person), Some(similarity)) => {
            format!("{} {similarity:.2}", person.name)
        }
        (Decision::Ambiguous, _, Some(similarity)) => format!("ambiguous {similarity:.2}"),
        (_, _, Some(similarity)) => format!("unknown {similarity:.2}"),
        _ => "unknown".to_owned(),
    }
}

//! `muster recognize`: names for photographs, one line each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use muster_jobs::{Decision, FaceReport, Printable, Recognition, UNKNOWN};
use serde_json::{Value, json};

use muster_api::client::{Client, ClientError, ServiceArgs};
use muster_api::files::file_name;
use muster_base::{print_error_line, print_line};

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

/// Recognises each photograph, and says at the end how many were not; so does the exit code.
///
/// # Errors
/// When the service can not be reached.
pub async fn run(args: RecognizeArgs) -> anyhow::Result<ExitCode> {
    let client = args.service.client()?;
    let names = args.files.iter().map(|file| shown(file).chars().count());
    let width = names.max().unwrap_or(0);
    let mut failed = 0;
    for file in &args.files {
        let name = shown(file);
        let (code, detail) = match recognize(&client, file).await? {
            Ok(recognition) if args.json => {
                print_line!("{}", json!({ "file": name, "result": recognition }))?;
                continue;
            }
            Ok(recognition) => {
                print_line!("{name:width$}  {}", sentence(&recognition))?;
                continue;
            }
            Err(why) => why,
        };
        failed += 1;
        match args.json {
            true => print_line!(
                "{}",
                json!({ "file": name, "code": code, "detail": detail })
            )?,
            false => print_line!("{name:width$}  refused: {detail}")?,
        }
    }
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let all = args.files.len();
    print_error_line!("muster: {failed} of {all} photographs were not recognised");
    Ok(ExitCode::FAILURE)
}

/// A file's name as it is printed, however it is padded.
fn shown(file: &Path) -> String {
    Printable(&file_name(file)).to_string()
}

/// What a photograph shows, or the code of what is wrong with it and a sentence.
async fn recognize(
    client: &Client,
    file: &Path,
) -> Result<Result<Recognition, (Value, String)>, ClientError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => {
            let detail = format!("the file can not be read: {error}");
            return Ok(Err((json!("file.unreadable"), detail)));
        }
    };
    match client.recognize(&file_name(file), &bytes).await {
        Ok(recognition) => Ok(Ok(recognition)),
        Err(ClientError::Problem { problem, .. }) => Ok(Err((json!(problem.code), problem.detail))),
        Err(error) => Err(error),
    }
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
        (_, _, Some(similarity)) => format!("{UNKNOWN} {similarity:.2}"),
        _ => UNKNOWN.to_owned(),
    }
}

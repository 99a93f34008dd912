//! `muster gallery`: how well the people of a running service are told apart, and what is likely
//! wrong with their faces.

use anyhow::Context;
use clap::{Args, Subcommand};
use muster_gallery::FaceId;
use muster_gallery::calibration::{Basis, Rate, Report};
use muster_gallery::health::{Health, Named, Pair};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use muster_api::client::{Client, ServiceArgs};
use muster_api::gallery::{ModelView, NextModel};
use muster_base::output::OutputError;
use muster_base::print_line;

/// The path of the gallery's model.
const MODEL: &str = "/v1/gallery/model";

/// Arguments of `muster gallery`.
#[derive(Debug, Args)]
pub struct GalleryArgs {
    #[command(subcommand)]
    command: GalleryCommand,
}

#[derive(Debug, Subcommand)]
enum GalleryCommand {
    /// Show the cutoff, and the error rates measured on the gallery itself
    Calibration(AskArgs),
    /// List faces that are likely mislabelled or weak, people enrolled twice, and the most alike
    Health(AskArgs),
    /// Show the model that faces are matched by, and how a change of it proceeds
    Model(AskArgs),
    /// Embed every face by another model, while recognition goes on, and then match by that
    Reembed {
        /// The model, or a profile of `muster models list`; the one that is used ends a change
        #[arg(long, value_name = "MODEL")]
        to: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Delete every embedding of a model that is not used any more
    ForgetModel {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        #[command(flatten)]
        ask: AskArgs,
    },
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Print the service's own JSON
    #[arg(long)]
    json: bool,
}

/// Asks the service and prints what it answers.
///
/// # Errors
/// When the service can not be reached.
pub async fn run(args: GalleryArgs) -> anyhow::Result<()> {
    match args.command {
        GalleryCommand::Calibration(ask) => {
            let client = ask.service.client()?;
            print(
                client.get("/v1/calibration").await?,
                ask.json,
                show_calibration,
            )
        }
        GalleryCommand::Health(ask) => {
            let health = health(&ask.service.client()?).await?;
            print(health, ask.json, show_health)
        }
        GalleryCommand::Model(ask) => {
            let model = ask.service.client()?.get(MODEL).await?;
            print(model, ask.json, show_model)
        }
        GalleryCommand::Reembed { to, ask } => {
            let client = ask.service.client()?;
            let model = client.post(MODEL, &NextModel { model: to }).await?;
            print(model, ask.json, show_model)
        }
        GalleryCommand::ForgetModel { model, ask } => {
            let forgotten = ask.service.client()?.forget_model(&model).await?;
            match ask.json {
                true => print_line!("{}", json!(forgotten))?,
                false => print_line!(
                    "the embeddings of {} people by {} are gone",
                    forgotten.people,
                    forgotten.model
                )?,
            }
            Ok(())
        }
    }
}

/// Prints the service's own JSON, or shows what it says.
fn print<T: DeserializeOwned>(
    answer: Value,
    as_json: bool,
    show: impl Fn(T) -> Result<(), OutputError>,
) -> anyhow::Result<()> {
    if as_json {
        print_line!("{answer}")?;
    } else {
        show(serde_json::from_value(answer).context("read the service's answer")?)?;
    }
    Ok(())
}

/// The gallery's health, all parts of it joined.
async fn health(client: &Client) -> anyhow::Result<Value> {
    const PATH: &str = "/v1/gallery/health";
    let mut health: Value = client.get(PATH).await?;
    while let Some(next) = health["next"].as_str() {
        let part = client.get(&format!("{PATH}?after={next}")).await?;
        join(&mut health, part).context("read the gallery's health")?;
    }
    Ok(health)
}

/// Adds what the next part of a large gallery has.
fn join(all: &mut Value, part: Value) -> Option<()> {
    for (member, value) in part.as_object()? {
        match (all.get_mut(member)?, value) {
            (Value::Array(all), Value::Array(more)) => all.extend(more.iter().cloned()),
            (all, more) if member == "examined" => *all = (all.as_u64()? + more.as_u64()?).into(),
            (all, more) => *all = more.clone(),
        }
    }
    Some(())
}

fn show_model(model: ModelView) -> Result<(), OutputError> {
    print_line!("model    {}", model.model)?;
    print_line!("kept     {}", model.kept.join(", "))?;
    if let Some(change) = model.change {
        print_line!(
            "change   to {}: {} faces embedded, {} left",
            change.to,
            change.embedded,
            change.left
        )?;
        if let Some(problem) = change.problem {
            print_line!("         {problem}")?;
        }
    }
    for face in model.not_embedded {
        print_line!(
            "without  person {}, face {}: {}",
            face.person_id,
            face.id,
            face.reason
        )?;
    }
    Ok(())
}

fn show_calibration(report: Report) -> Result<(), OutputError> {
    print_line!(
        "{} people with {} faces, version {}",
        report.people,
        report.faces,
        report.version
    )?;
    print_line!("target FPIR  {:.3} %", 100.0 * report.target_fpir)?;
    print_line!(
        "cutoff       {:.3} (by {})",
        report.cutoff,
        match report.basis {
            Basis::Set => "the setting",
            Basis::Shipped => "what is shipped with the model",
            Basis::Blended => "what is shipped with the model and the gallery's own faces",
            Basis::Own => "the gallery's own faces",
        }
    )?;
    for (name, rate) in [
        ("FPIR", report.fpir),
        ("FNIR", report.fnir),
        ("rank 1", report.rank1),
    ] {
        print_line!("{name:<12} {}", with_interval(&rate))?;
    }
    for note in report.notes {
        print_line!("note: {note}")?;
    }
    print_line!("cutoff      FPIR %    FNIR %")?;
    for at in report.table {
        let share = |rate: &Rate| match rate.estimate {
            Some(share) => format!("{:8.3}", 100.0 * share),
            None => format!("{:>8}", "-"),
        };
        print_line!(
            "  {:.3}   {}  {}",
            at.cutoff,
            share(&at.fpir),
            share(&at.fnir)
        )?;
    }
    Ok(())
}

fn with_interval(rate: &Rate) -> String {
    match rate.estimate {
        None => "not known".to_owned(),
        Some(estimate) => format!(
            "{:.3} % ({} of {}; 95 %: {:.3} to {:.3} %)",
            100.0 * estimate,
            rate.happened,
            rate.of,
            100.0 * rate.low,
            100.0 * rate.high
        ),
    }
}

fn show_health(health: Health) -> Result<(), OutputError> {
    print_line!(
        "{} people with {} faces, {} of them examined",
        health.people,
        health.faces,
        health.examined
    )?;
    print_line!("")?;
    print_line!("likely under the wrong name: {}", health.mislabelled.len())?;
    for found in &health.mislabelled {
        print_line!(
            "  {} looks like {}: {:.3} to their faces, {:.3} to the others of its own",
            face(&found.file, &found.person, found.face),
            found.looks_like.name,
            found.to_other,
            found.to_own
        )?;
    }
    print_line!("")?;
    print_line!("likely one person: {}", health.duplicates.len())?;
    health.duplicates.iter().try_for_each(show_pair)?;
    print_line!("")?;
    print_line!("most alike of the others:")?;
    health.confusable.iter().try_for_each(show_pair)?;
    print_line!("")?;
    print_line!("weak faces: {}", health.weak.len())?;
    for weak in &health.weak {
        for reason in &weak.reasons {
            print_line!("  {}: {reason}", face(&weak.file, &weak.person, weak.face))?;
        }
    }
    Ok(())
}

fn face(file: &str, person: &Named, id: FaceId) -> String {
    format!("{file} of {} (face {id})", person.name)
}

fn show_pair(pair: &Pair) -> Result<(), OutputError> {
    print_line!(
        "  {} and {}: {:.3} on average, {:.3} at most",
        pair.first.name,
        pair.second.name,
        pair.score,
        pair.nearest
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_a_health_report_are_joined() {
        let mut all = json!({"examined": 2, "next": "a", "weak": [1], "version": 4});
        let part = json!({"examined": 3, "next": null, "weak": [2, 3], "version": 4});
        join(&mut all, part).unwrap();
        let joined = json!({"examined": 5, "next": null, "weak": [1, 2, 3], "version": 4});
        assert_eq!(all, joined);
    }
}

//! `muster gallery`: how well the people of a running service are told apart, and what is likely
//! wrong with their faces.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use muster_api::client::{Client, ServiceArgs};

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
            let report = client.get("/v1/calibration").await?;
            print(&report, ask.json, show_calibration);
        }
        GalleryCommand::Health(ask) => {
            let health = health(&ask.service.client()?).await?;
            print(&health, ask.json, show_health);
        }
        GalleryCommand::Model(ask) => {
            let model = ask.service.client()?.get(MODEL).await?;
            print(&model, ask.json, show_model);
        }
        GalleryCommand::Reembed { to, ask } => {
            let client = ask.service.client()?;
            let model = client.post(MODEL, &json!({ "model": to })).await?;
            print(&model, ask.json, show_model);
        }
        GalleryCommand::ForgetModel { model, ask } => {
            let forgotten = ask.service.client()?.forget_model(&model).await?;
            print(&forgotten, ask.json, |forgotten| {
                let people = &forgotten["people"];
                println!("the embeddings of {people} people by {model} are gone");
            });
        }
    }
    Ok(())
}

fn print(answer: &Value, as_json: bool, show: impl Fn(&Value)) {
    match as_json {
        true => println!("{answer}"),
        false => show(answer),
    }
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

fn show_model(model: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kept = model["kept"].as_array().into_iter().flatten();
    let kept: Vec<String> = kept.map(text).collect();
    println!("model    {}", text(&model["model"]));
    println!("kept     {}", kept.join(", "));
    let change = &model["change"];
    if change.is_object() {
        println!(
            "change   to {}: {} faces embedded, {} left",
            text(&change["to"]),
            change["embedded"],
            change["left"]
        );
        if let Some(problem) = change["problem"].as_str() {
            println!("         {problem}");
        }
    }
    for face in model["not_embedded"].as_array().into_iter().flatten() {
        println!(
            "without  person {}, face {}: {}",
            text(&face["person_id"]),
            text(&face["id"]),
            text(&face["reason"])
        );
    }
}

fn show_calibration(report: &Value) {
    let number = |member: &str| report[member].as_f64().unwrap_or(0.0);
    println!(
        "{} people with {} faces, version {}",
        report["people"], report["faces"], report["version"]
    );
    println!("target FPIR  {:.3} %", 100.0 * number("target_fpir"));
    println!(
        "cutoff       {:.3} (by {})",
        number("cutoff"),
        match report["basis"].as_str().unwrap_or_default() {
            "set" => "the setting",
            "shipped" => "what is shipped with the model",
            "blended" => "what is shipped with the model and the gallery's own faces",
            _ => "the gallery's own faces",
        }
    );
    for (name, member) in [("FPIR", "fpir"), ("FNIR", "fnir"), ("rank 1", "rank1")] {
        println!("{name:<12} {}", rate(&report[member]));
    }
    for note in report["notes"].as_array().into_iter().flatten() {
        println!("note: {}", note.as_str().unwrap_or_default());
    }
    println!("cutoff      FPIR %    FNIR %");
    for at in report["table"].as_array().into_iter().flatten() {
        let share = |rate: &Value| match rate["estimate"].as_f64() {
            Some(share) => format!("{:8.3}", 100.0 * share),
            None => format!("{:>8}", "-"),
        };
        println!(
            "  {:.3}   {}  {}",
            at["cutoff"].as_f64().unwrap_or(0.0),
            share(&at["fpir"]),
            share(&at["fnir"])
        );
    }
}

fn rate(rate: &Value) -> String {
    let percent = |member: &str| 100.0 * rate[member].as_f64().unwrap_or(0.0);
    match rate["estimate"].is_null() {
        true => "not known".to_owned(),
        false => format!(
            "{:.3} % ({} of {}; 95 %: {:.3} to {:.3} %)",
            percent("estimate"),
            rate["happened"],
            rate["of"],
            percent("low"),
            percent("high")
        ),
    }
}

fn show_health(health: &Value) {
    println!(
        "{} people with {} faces, {} of them examined",
        health["people"], health["faces"], health["examined"]
    );
    let list = |member: &str| health[member].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let face = |found: &Value| {
        let (file, name) = (text(&found["file"]), text(&found["person"]["name"]));
        format!("{file} of {name} (face {})", text(&found["face"]))
    };
    let similarity = |value: &Value| value.as_f64().unwrap_or(0.0);
    println!(
        "\nlikely under the wrong name: {}",
        list("mislabelled").len()
    );
    for found in list("mislabelled") {
        println!(
            "  {} looks like {}: {:.3} to their faces, {:.3} to the others of its own",
            face(&found),
            text(&found["looks_like"]["name"]),
            similarity(&found["to_other"]),
            similarity(&found["to_own"])
        );
    }
    println!("\nlikely one person: {}", list("duplicates").len());
    let pair = |pair: &Value| {
        println!(
            "  {} and {}: {:.3} on average, {:.3} at most",
            text(&pair["first"]["name"]),
            text(&pair["second"]["name"]),
            similarity(&pair["score"]),
            similarity(&pair["nearest"])
        );
    };
    list("duplicates").iter().for_each(pair);
    println!("\nmost alike of the others:");
    list("confusable").iter().for_each(pair);
    println!("\nweak faces: {}", list("weak").len());
    for found in list("weak") {
        for reason in found["reasons"].as_array().into_iter().flatten() {
            println!("  {}: {}", face(&found), text(reason));
        }
    }
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

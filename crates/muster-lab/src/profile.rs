//! `muster profile`: the worker's pipeline in this process, on one thread, stage by stage.

mod disturbance;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use muster_gallery::{Embeddings, EnrolledFace, Gallery, Judge, Person};
use muster_jobs::Embedding;
use muster_recognize::decode::DecodeLimits;
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Options, Recognizer};
use serde_json::json;

use disturbance::{Disturbance, Moment};

use crate::photos::{Variation, open, photos_in, square_jpeg};
use muster_api::progress;
use muster_base::catalogue::Catalogue;
use muster_base::print_line;
use muster_base::settings::Settings;

/// Photographs that are run before the measured ones.
const WARM_UP: usize = 5;
/// People in the gallery that is matched against, one synthetic face each.
const GALLERY_PEOPLE: usize = 1000;

/// Arguments of `muster profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Folder of photographs [default: the installed sample photographs]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Photographs are cut and resized to this many pixels square first; 0 leaves them as they are
    #[arg(long, default_value_t = 512, value_name = "PIXELS")]
    size: u32,
    /// Photographs measured
    #[arg(long, default_value_t = 200, value_name = "N")]
    count: usize,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Runs and prints the profile: medians over the photographs, in milliseconds.
///
/// Each photograph goes through the whole pipeline, and at once afterwards the same model runs are
/// repeated on ready tensors; `ratio` is the median of the two's ratio, photograph by photograph, and
/// its quartiles tell whether something else was at work meanwhile. `not_running` is the share of each
/// half's time in which this thread did not run, and `cpu_ratio` the ratio of what it ran; where the halves
/// were disturbed so differently that the ratio is wrong by more than 2 %, that is said.
///
/// # Errors
/// When the models or photographs can not be read.
pub fn run(args: ProfileArgs, settings: &Settings) -> anyhow::Result<()> {
    let installation = settings.models.installation()?;
    installation.verify_models()?;
    let photos = gather(&args, &installation)?;
    let options = Options {
        limits: DecodeLimits::default(),
        ..Options::default()
    };
    let mut recognizer = Recognizer::load(&installation.model_files(), options)?;
    let embedder = installation.embedder();
    let gallery = synthetic_gallery(&embedder.name, embedder.dimensions);
    let shipped = Catalogue::open(&settings.models)?.shipped_of(&gallery);
    let judge = Judge::new(settings.decisions.judge_options());

    let mut totals = Vec::new();
    let mut raws = Vec::new();
    let mut ratios = Vec::new();
    let mut disturbance = Disturbance::default();
    let mut stages: [Vec<f64>; 5] = Default::default();
    let mut faces = 0;
    let bar = progress::bar(args.count, "profiling");
    for n in 0..args.count + WARM_UP {
        let bytes = &photos[n % photos.len()];
        let begun = Moment::now();
        let analysis = recognizer.analyze(bytes)?;
        let matching = Instant::now();
        std::hint::black_box(judge.decide(&analysis.faces, &gallery, &shipped));
        let matched = matching.elapsed();
        let pipeline = begun.spent();
        let total = pipeline.wall;
        let begun = Moment::now();
        let raw = recognizer.run_models_alone(&analysis)?;
        let models = begun.spent();
        if n < WARM_UP {
            continue;
        }
        bar.inc(1);
        faces += analysis.faces.len();
        totals.push(millis(total));
        raws.push(millis(raw));
        ratios.push(total.as_secs_f64() / raw.as_secs_f64());
        disturbance.add(pipeline, models);
        let timing = &analysis.timing;
        let spent = [
            timing.decode,
            timing.detect,
            timing.align,
            timing.embed,
            matched,
        ];
        for (stage, spent) in stages.iter_mut().zip(spent) {
            stage.push(millis(spent));
        }
    }
    bar.finish_and_clear();
    let [decode, detect, align, embed, match_] = stages.map(median);
    let (total, raw) = (median(totals), median(raws));
    let [low, ratio, high] = quartiles(ratios);
    let (not_running, differs) = (disturbance.not_running(), disturbance.differs());
    let cpu_ratio = not_running.map(|_| median(disturbance.cpu_ratios()));
    let faces_per_photo = faces as f64 / args.count as f64;
    if args.json {
        let figures = json!({
            "stages_ms": {
                "decode": decode, "detect": detect, "align": align, "embed": embed, "match": match_,
            },
            "total_ms": total,
            "raw_model_ms": raw,
            "ratio": ratio,
            "ratio_quartiles": [low, high],
            "not_running": not_running.map(|[pipeline, models]| json!({
                "pipeline": round(pipeline), "models": round(models),
            })),
            "cpu_ratio": cpu_ratio,
            "disturbed_differently": not_running.map(|_| differs),
            "photos": args.count,
            "faces_per_photo": faces_per_photo,
            "size": args.size,
        });
        print_line!("{figures}")?;
        return Ok(());
    }
    print_line!(
        "{} photographs, {faces_per_photo:.2} faces each, medians:",
        args.count
    )?;
    for (stage, ms) in [
        ("decode", decode),
        ("detect", detect),
        ("align", align),
        ("embed", embed),
        ("match", match_),
    ] {
        print_line!("  {stage:<10} {ms:8.3} ms")?;
    }
    print_line!("  {:<10} {total:8.3} ms", "total")?;
    print_line!(
        "  {:<10} {raw:8.3} ms   (the two models alone, on ready tensors)",
        "models"
    )?;
    print_line!(
        "  {:<10} {ratio:8.3} times the models   (half of the photographs: {low:.3} to {high:.3} times)",
        "ratio"
    )?;
    let (Some([pipeline, models]), Some(cpu_ratio)) = (not_running, cpu_ratio) else {
        return Ok(());
    };
    print_line!(
        "not running: {:.1} % of the pipeline's time, {:.1} % of the models'",
        100.0 * pipeline,
        100.0 * models
    )?;
    if differs {
        print_line!(
            "the two halves were disturbed differently, by which the ratio may be wrong by more than 2 %: of \
             processor time it is {cpu_ratio:.3} times; measure again while nothing else runs"
        )?;
    }
    Ok(())
}

fn gather(args: &ProfileArgs, installation: &Installation) -> anyhow::Result<Vec<Vec<u8>>> {
    anyhow::ensure!(
        args.count > 0,
        "--count is 0: measure at least one photograph"
    );
    let mut files = match &args.images {
        Some(folder) => photos_in(folder)?,
        None => installation
            .samples()
            .people
            .into_iter()
            .flat_map(|(_, files)| files)
            .collect(),
    };
    anyhow::ensure!(
        !files.is_empty(),
        "there are no photographs to measure: name a --images DIR"
    );
    // Evenly over the folder, so that a part of it is like the whole.
    let step = files.len().div_ceil(args.count).max(1);
    files = files.into_iter().step_by(step).collect();
    let bar = progress::bar(files.len(), "preparing");
    files
        .iter()
        .map(|file| {
            bar.inc(1);
            if args.size == 0 {
                return std::fs::read(file)
                    .with_context(|| format!("read the photograph {}", file.display()));
            }
            Ok(square_jpeg(&open(file)?, args.size, Variation::default())?.to_vec())
        })
        .collect()
}

fn synthetic_gallery(model: &str, dimensions: usize) -> Gallery {
    let people = (0..GALLERY_PEOPLE)
        .map(|n| {
            let values: Vec<f32> = (0..dimensions)
                .map(|d| ((n * 31 + d * 17) as f32).sin())
                .collect();
            let embedding = Embedding::normalise(&values).expect("a sine is not all zero");
            let embeddings = Embeddings::of(model, embedding);
            let face = EnrolledFace::new(String::new(), embeddings, 0);
            Person::new(n.to_string(), vec![face], 0)
        })
        .collect();
    Gallery::of(model, people)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The middle value, rounded to a thousandth; 0 of nothing.
fn median(values: Vec<f64>) -> f64 {
    let [_, middle, _] = quartiles(values);
    middle
}

/// The values a quarter, half and three quarters of the way through, rounded likewise.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let value = values.get(values.len() * quarter / 4);
        round(value.copied().unwrap_or(0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_values_in_order() {
        assert_eq!(quartiles(Vec::new()), [0.0; 3]);
        assert_eq!(quartiles(vec![2.0]), [2.0; 3]);
        let values = [7.0, 1.0, 3.0, 2.0, 8.0, 5.0, 4.0, 6.0];
        assert_eq!(quartiles(values.to_vec()), [3.0, 5.0, 7.0]);
        assert_eq!(median(values.to_vec()), 5.0);
    }
}

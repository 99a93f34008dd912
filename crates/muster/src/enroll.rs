//! `muster enroll`: people from folders or from NAME=FILE pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use muster_jobs::FileName;
use muster_recognize::decode::ACCEPTED;
use serde_json::json;

use crate::client::{Client, Enrolled, Service, file_name};
use crate::photos::photos_to_enrol_in;
use crate::progress;

/// Arguments of `muster enroll`.
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// A folder with one folder of photographs for each person, or NAME=FILE pairs
    #[arg(required = true, value_name = "DIR | NAME=FILE")]
    sources: Vec<String>,
    #[command(flatten)]
    service: Service,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What became of one person.
#[derive(Debug)]
enum Fate {
    Enrolled { faces: usize },
    AlreadyEnrolled,
    Refused { reason: String },
}

/// Enrols everyone; people who are enrolled already are left as they are.
///
/// The exit code says whether every person is enrolled now and no photograph was refused.
///
/// # Errors
/// When a source can not be read or the service can not be reached.
pub async fn run(args: EnrollArgs) -> anyhow::Result<ExitCode> {
    let people = gather(&args.sources)?;
    let client = Client::new(&args.service.url)?;
    let known: Vec<String> = client
        .people()
        .await?
        .into_iter()
        .map(|person| person.name)
        .collect();
    let bar = progress::bar(people.len(), "enrolling");
    let mut fates = Vec::new();
    let mut refused_photos = Vec::new();
    for (name, files) in people {
        let fate = if known.contains(&name) {
            Fate::AlreadyEnrolled
        } else {
            enroll_one(&client, &name, &files, &mut refused_photos).await?
        };
        fates.push((name, fate));
        bar.inc(1);
    }
    bar.finish_and_clear();
    report(&args, &fates, &refused_photos);
    let complete = refused_photos.is_empty()
        && !fates
            .iter()
            .any(|(_, fate)| matches!(fate, Fate::Refused { .. }));
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Enrols with what photographs are fit; those that are not are added to `refused`.
async fn enroll_one(
    client: &Client,
    name: &str,
    files: &[PathBuf],
    refused: &mut Vec<(String, String)>,
) -> anyhow::Result<Fate> {
    let mut photos = Vec::new();
    for file in files {
        let bytes = std::fs::read(file)
            .with_context(|| format!("read the photograph {}", file.display()))?;
        // As the service will name it in a refusal, and unlike the others.
        let mut name = FileName::from_client(&file_name(file)).as_str().to_owned();
        if photos.iter().any(|(other, _)| *other == name) {
            name = format!("{}-{name}", photos.len());
        }
        photos.push((name, Bytes::from(bytes)));
    }
    loop {
        let problem = match client.enroll(name, &photos).await? {
            Ok(Enrolled { faces, .. }) => return Ok(Fate::Enrolled { faces: faces.len() }),
            Err(problem) => problem,
        };
        let before = photos.len();
        photos.retain(|(file, _)| !problem.refused.iter().any(|refusal| refusal.file == *file));
        let unfit = before - photos.len();
        if unfit == 0 {
            return Ok(Fate::Refused {
                reason: problem.detail,
            });
        }
        refused.extend(
            problem
                .refused
                .into_iter()
                .map(|r| (format!("{name}/{}", r.file), r.detail)),
        );
        if photos.is_empty() {
            return Ok(Fate::Refused {
                reason: "no photograph is fit for enrolment".to_owned(),
            });
        }
    }
}

fn report(args: &EnrollArgs, fates: &[(String, Fate)], refused: &[(String, String)]) {
    if args.json {
        let people: Vec<_> = fates
            .iter()
            .map(|(name, fate)| match fate {
                Fate::Enrolled { faces } => {
                    json!({ "name": name, "state": "enrolled", "faces": faces })
                }
                Fate::AlreadyEnrolled => json!({ "name": name, "state": "already_enrolled" }),
                Fate::Refused { reason } => {
                    json!({ "name": name, "state": "refused", "reason": reason })
                }
            })
            .collect();
        let refused: Vec<_> = refused
            .iter()
            .map(|(file, reason)| json!({ "file": file, "reason": reason }))
            .collect();
        println!("{}", json!({ "people": people, "refused_photos": refused }));
        return;
    }
    for (name, fate) in fates {
        match fate {
            Fate::Enrolled { faces: 1 } => println!("{name}: enrolled with 1 face"),
            Fate::Enrolled { faces } => println!("{name}: enrolled with {faces} faces"),
            Fate::AlreadyEnrolled => println!("{name}: already enrolled, left as it is"),
            Fate::Refused { reason } => println!("{name}: refused: {reason}"),
        }
    }
    for (file, reason) in refused {
        println!("{file}: refused: {reason}");
    }
}

/// People by name, each with their photographs in order.
fn gather(sources: &[String]) -> anyhow::Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut people: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for source in sources {
        if Path::new(source).is_dir() {
            let folder = Path::new(source);
            let before = people.len();
            let entries = std::fs::read_dir(folder)
                .with_context(|| format!("read the folder {}", folder.display()))?;
            for entry in entries {
                let path = entry
                    .with_context(|| format!("read the folder {source}"))?
                    .path();
                if path.is_dir() {
                    let photos = photos_to_enrol_in(&path)?;
                    anyhow::ensure!(
                        !photos.is_empty(),
                        "{} has no photographs: put {ACCEPTED} files there",
                        path.display()
                    );
                    people.entry(file_name(&path)).or_default().extend(photos);
                }
            }
            anyhow::ensure!(
                people.len() > before,
                "{source} has no folders: make one for each person, named like the person"
            );
        } else if let Some((name, file)) = source.split_once('=') {
            let path = PathBuf::from(file);
            anyhow::ensure!(path.is_file(), "{file} is not there, to enrol as {name}");
            people.entry(name.to_owned()).or_default().push(path);
        } else {
            anyhow::bail!("{source} is neither a folder nor NAME=FILE");
        }
    }
    Ok(people)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_pairs_make_people() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "Anna/2.jpg",
            "Anna/1.png",
            "Anna/notes.txt",
            "Ben/x.webp",
            "Ben/y.HEIC",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let pair = format!("Carl={}", folder.path().join("Ben/x.webp").display());
        let people = gather(&[folder.path().display().to_string(), pair]).unwrap();
        let sizes: Vec<_> = people.iter().map(|(n, f)| (n.as_str(), f.len())).collect();
        assert_eq!(sizes, [("Anna", 2), ("Ben", 2), ("Carl", 1)]);
        assert!(people["Anna"][0].ends_with("1.png"));
        assert!(
            gather(&["nowhere".into()])
                .unwrap_err()
                .to_string()
                .contains("nowhere")
        );
        assert!(gather(&["X=/no/such.jpg".into()]).is_err());
    }
}

//! `muster enroll`: people from folders or from NAME=FILE pairs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use muster_jobs::{FileName, name_key};
use muster_recognize::decode::{ACCEPTED, EXTENSIONS};
use serde_json::{Value, json};

use muster_api::client::{Client, ClientError, ServiceArgs};
use muster_api::files::{file_name, files_in, is_hidden};
use muster_api::people::PersonView;
use muster_api::problem::Code;
use muster_api::progress;
use muster_base::output::OutputError;
use muster_base::{ErrorChain, backoff, print_line};

/// Photographs of a person in one form.
const PHOTOS_A_FORM: usize = 10;
/// People enrolled at one time.
const AT_ONCE: usize = 4;
/// How long a form is sent again while the service is busy or away.
const PATIENCE: Duration = Duration::from_secs(300);

/// Every photograph below a folder.
fn photos_to_enrol_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files_in(folder, |extension| EXTENSIONS.contains(&extension))
}

/// Arguments of `muster enroll`.
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// A folder with one folder of photographs for each person, or NAME=FILE pairs
    #[arg(required = true, value_name = "DIR | NAME=FILE")]
    sources: Vec<String>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Enrol faces also where the photograph is too poor; they are marked in `muster gallery health`
    #[arg(long)]
    accept_unfit: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What became of one person.
#[derive(Debug)]
struct Report {
    name: String,
    fate: Fate,
    refused: Vec<RefusedPhoto>,
}

#[derive(Debug)]
enum Fate {
    /// Enrolled now, with so many faces.
    Enrolled(usize),
    /// Enrolled before; so many faces were added.
    Extended(usize),
    /// Enrolled before, and every photograph that is fit is one of their faces.
    AlreadyEnrolled,
    /// Not enrolled, or no longer added to.
    Refused(String),
}

#[derive(Debug)]
struct RefusedPhoto {
    file: String,
    reason: String,
}

/// Enrols everyone. Photographs that are a person's faces already, by their file names, are left out,
/// so that an enrolment that was cut off goes on where it stopped when it is run again.
///
/// The exit code says whether every person is enrolled now and no photograph was refused.
///
/// # Errors
/// When a source can not be read or the service can not be reached.
pub async fn run(args: EnrollArgs) -> anyhow::Result<ExitCode> {
    let people = gather(&args.sources)?;
    let client = args.service.client()?;
    let mut known: HashMap<String, PersonView> = client
        .people()
        .await?
        .into_iter()
        .map(|person| (name_key(&person.name), person))
        .collect();
    let photos = people.values().map(|person| person.files.len());
    let bar = progress::bar(photos.sum(), "enrolling");
    let (client, bar, accept_unfit) = (&client, &bar, args.accept_unfit);
    let enrolments = people.into_iter().map(|(key, person)| {
        let known = known.remove(&key);
        async move { enroll_person(client, accept_unfit, person, known, bar).await }
    });
    let mut enrolments = stream::iter(enrolments).buffer_unordered(AT_ONCE);
    let mut reports = Vec::new();
    let mut cut_off = None;
    while let Some(report) = enrolments.next().await {
        match report {
            Ok(report) => reports.push(report),
            Err(error) => {
                cut_off = Some(error);
                break;
            }
        }
    }
    bar.finish_and_clear();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    let printed = print(&reports, args.json);
    if let Some(error) = cut_off {
        return Err(error.context("enrolment stopped: run it again, and it goes on from here"));
    }
    printed?;
    let complete =
        |report: &Report| report.refused.is_empty() && !matches!(report.fate, Fate::Refused { .. });
    Ok(if reports.iter().all(complete) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Enrols with what photographs are fit, those that are not being reported.
async fn enroll_person(
    client: &Client,
    accept_unfit: bool,
    Wanted {
        name,
        files,
        trouble,
    }: Wanted,
    known: Option<PersonView>,
    bar: &ProgressBar,
) -> anyhow::Result<Report> {
    let before = known.is_some();
    let mut enrolment = Enrolment {
        client,
        accept_unfit,
        name,
        known,
        added: 0,
        refused: Vec::new(),
    };
    let mut refusal = None;
    for form in named(&files).chunks(PHOTOS_A_FORM) {
        let photos = enrolment.read(form).await;
        refusal = enrolment.send_fit(photos).await?;
        if refusal.is_some() {
            break;
        }
        bar.inc(form.len() as u64);
    }
    let fate = match (refusal.or(trouble), before, enrolment.added) {
        (Some(reason), ..) => Fate::Refused(reason),
        (None, false, 0) if enrolment.known.is_none() => {
            Fate::Refused("no photograph is fit for enrolment".to_owned())
        }
        (None, _, 0) => Fate::AlreadyEnrolled,
        (None, true, faces) => Fate::Extended(faces),
        (None, false, faces) => Fate::Enrolled(faces),
    };
    Ok(Report {
        name: enrolment.name,
        fate,
        refused: enrolment.refused,
    })
}

/// The enrolment of one person, form by form.
struct Enrolment<'a> {
    client: &'a Client,
    accept_unfit: bool,
    name: String,
    /// The person, once enrolled.
    known: Option<PersonView>,
    /// Faces that were added.
    added: usize,
    refused: Vec<RefusedPhoto>,
}

impl Enrolment<'_> {
    /// Reads the photographs that are no faces of the person yet.
    async fn read(&mut self, form: &[(String, &Path)]) -> Vec<(String, Bytes)> {
        let mut photos = Vec::new();
        for (file, path) in form {
            if is_face_of(self.known.as_ref(), file) {
                continue;
            }
            match tokio::fs::read(path).await {
                Ok(bytes) => photos.push((file.clone(), Bytes::from(bytes))),
                Err(error) => self.refused.push(RefusedPhoto {
                    file: file.clone(),
                    reason: format!("{} can not be read: {error}", path.display()),
                }),
            }
        }
        photos
    }

    /// Sends the photographs without those that are refused; why the person is, where that is so.
    async fn send_fit(
        &mut self,
        mut photos: Vec<(String, Bytes)>,
    ) -> Result<Option<String>, ClientError> {
        while !photos.is_empty() {
            let problem = match self.send(&photos).await {
                Ok(person) => {
                    self.added += photos.len();
                    self.known = Some(person);
                    break;
                }
                Err(ClientError::Problem { problem, .. }) => problem,
                Err(error) => return Err(error),
            };
            let left = photos.len();
            if problem.code == Code::PersonExists && self.known.is_none() {
                // Another wrote at the same time, or the answer to an attempt was lost.
                self.known = self.client.person_named(&self.name).await?;
                photos.retain(|(file, _)| !is_face_of(self.known.as_ref(), file));
                if self.known.is_some() {
                    continue;
                }
            }
            let refused = problem.members.refused.unwrap_or_default();
            photos.retain(|(file, _)| !refused.iter().any(|photo| photo.file == *file));
            if photos.len() == left {
                return Ok(Some(problem.detail));
            }
            self.refused
                .extend(refused.into_iter().map(|photo| RefusedPhoto {
                    file: photo.file,
                    reason: photo.detail,
                }));
        }
        Ok(None)
    }

    /// Sends one form, again and again while the service is busy or away for a moment.
    async fn send(&self, photos: &[(String, Bytes)]) -> Result<PersonView, ClientError> {
        let (client, accept_unfit) = (self.client, self.accept_unfit);
        let begun = Instant::now();
        let mut failures = 0;
        loop {
            let answer = match &self.known {
                None => client.enroll(&self.name, photos, accept_unfit).await,
                Some(person) => client.add_faces(person.id, photos, accept_unfit).await,
            };
            let error = match answer {
                Ok(person) => return Ok(person),
                Err(error) => error,
            };
            // After a lost answer the faces may be there already.
            let (wait, may_be_there) = match &error {
                ClientError::Problem {
                    problem,
                    retry_after,
                } => match problem.code {
                    _ if problem.status == 429 => (*retry_after, false),
                    Code::GalleryChanged => (None, true),
                    // A photograph that workers failed on is named.
                    _ if problem.status >= 500 && problem.members.refused.is_none() => (None, true),
                    _ => return Err(error),
                },
                _ => (None, true),
            };
            failures += 1;
            let wait = wait.unwrap_or_else(|| backoff::after(failures));
            if begun.elapsed() + wait > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            if may_be_there
                && let Some(person) = client.person_named(&self.name).await.unwrap_or(None)
            {
                let sent = |(file, _): &(String, Bytes)| is_face_of(Some(&person), file);
                if photos.iter().all(sent) {
                    return Ok(person);
                }
            }
        }
    }
}

fn is_face_of(person: Option<&PersonView>, file: &str) -> bool {
    person.is_some_and(|person| person.faces.iter().any(|face| face.file == file))
}

/// Photographs with the names that the service will know them by, each one's own.
fn named(files: &[PathBuf]) -> Vec<(String, &Path)> {
    let mut named: Vec<(String, &Path)> = Vec::new();
    for path in files {
        let mut name = FileName::from_client(&file_name(path)).as_str().to_owned();
        if named.iter().any(|(other, _)| *other == name) {
            name = format!("{}-{name}", named.len());
        }
        named.push((name, path));
    }
    named
}

fn print(reports: &[Report], as_json: bool) -> Result<(), OutputError> {
    if as_json {
        let people: Vec<_> = reports.iter().map(in_json).collect();
        let refused = reports.iter().flat_map(|report| {
            report.refused.iter().map(|photo| {
                let file = format!("{}/{}", report.name, photo.file);
                json!({ "file": file, "reason": photo.reason })
            })
        });
        let refused: Vec<_> = refused.collect();
        print_line!("{}", json!({ "people": people, "refused_photos": refused }))?;
        return Ok(());
    }
    for Report { name, fate, .. } in reports {
        match fate {
            Fate::Enrolled(1) => print_line!("{name}: enrolled with 1 face")?,
            Fate::Enrolled(faces) => print_line!("{name}: enrolled with {faces} faces")?,
            Fate::Extended(1) => print_line!("{name}: 1 face added")?,
            Fate::Extended(faces) => print_line!("{name}: {faces} faces added")?,
            Fate::AlreadyEnrolled => print_line!("{name}: already enrolled, left as it is")?,
            Fate::Refused(reason) => print_line!("{name}: refused: {reason}")?,
        }
    }
    for Report { name, refused, .. } in reports {
        for RefusedPhoto { file, reason } in refused {
            print_line!("{name}/{file}: refused: {reason}")?;
        }
    }
    Ok(())
}

fn in_json(Report { name, fate, .. }: &Report) -> Value {
    match fate {
        Fate::Enrolled(faces) => json!({ "name": name, "state": "enrolled", "faces": faces }),
        Fate::Extended(faces) => json!({ "name": name, "state": "extended", "faces": faces }),
        Fate::AlreadyEnrolled => json!({ "name": name, "state": "already_enrolled" }),
        Fate::Refused(reason) => json!({ "name": name, "state": "refused", "reason": reason }),
    }
}

/// A person to enrol.
#[derive(Debug)]
struct Wanted {
    name: String,
    /// Their photographs, in order.
    files: Vec<PathBuf>,
    /// Why a folder of theirs gives none, where that is so.
    trouble: Option<String>,
}

/// The people whom the sources name, by the key of their names. Hidden files and folders, those that
/// begin with a dot, are none.
fn gather(sources: &[String]) -> anyhow::Result<BTreeMap<String, Wanted>> {
    let mut people = BTreeMap::new();
    let mut add = |name: &str, photos: Result<Vec<PathBuf>, String>| {
        let person = people.entry(name_key(name)).or_insert_with(|| Wanted {
            name: name.to_owned(),
            files: Vec::new(),
            trouble: None,
        });
        match photos {
            Ok(photos) => person.files.extend(photos),
            Err(trouble) => person.trouble = Some(trouble),
        }
    };
    for source in sources {
        if Path::new(source).is_dir() {
            let reading = || format!("read the folder {source}");
            let mut any = false;
            for entry in std::fs::read_dir(source).with_context(reading)? {
                let path = entry.with_context(reading)?.path();
                if path.is_dir() && !is_hidden(&path) {
                    any = true;
                    add(&file_name(&path), photos_of_person(&path));
                }
            }
            anyhow::ensure!(
                any,
                "{source} has no folders: make one for each person, named like the person"
            );
        } else if let Some((name, file)) = source.split_once('=') {
            let path = PathBuf::from(file);
            anyhow::ensure!(
                !name_key(name).is_empty(),
                "{source} names nobody: write NAME=FILE, as in Anna={file}"
            );
            anyhow::ensure!(path.is_file(), "{file} is not there, to enrol as {name}");
            add(name, Ok(vec![path]));
        } else {
            anyhow::bail!("{source} is neither a folder nor NAME=FILE");
        }
    }
    Ok(people)
}

/// The photographs in a person's folder, or why there are none.
fn photos_of_person(folder: &Path) -> Result<Vec<PathBuf>, String> {
    match photos_to_enrol_in(folder) {
        Ok(photos) if photos.is_empty() => Err(format!(
            "{} has no photographs: put {ACCEPTED} files there",
            folder.display()
        )),
        Ok(photos) => Ok(photos),
        Err(error) => Err(ErrorChain(error.as_ref()).to_string()),
    }
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
            "Ben/._x.jpg",
            "Ben/.thumbs/z.jpg",
            ".trash/1.jpg",
            "Zoe/notes.txt",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let pair = format!("Carl={}", folder.path().join("Ben/x.webp").display());
        let people = gather(&[folder.path().display().to_string(), pair]).unwrap();
        let sizes: Vec<_> = people.values().map(|p| (&*p.name, p.files.len())).collect();
        assert_eq!(sizes, [("Anna", 2), ("Ben", 2), ("Carl", 1), ("Zoe", 0)]);
        assert!(people["anna"].files[0].ends_with("1.png"));
        let trouble = people["zoe"].trouble.as_deref().unwrap();
        assert!(trouble.contains("has no photographs"), "{trouble}");
        assert!(
            gather(&["nowhere".into()])
                .unwrap_err()
                .to_string()
                .contains("nowhere")
        );
        assert!(gather(&["X=/no/such.jpg".into()]).is_err());
    }
}

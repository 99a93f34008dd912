//! The thread that runs the models, and nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use muster_jobs::Failure;
use muster_recognize::analysis::Analysis;
use muster_recognize::decode::{DecodeLimits, ImageError};
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Care, Options, RecognizeError, Recognizer};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::slot::Slot;
use super::steps::Steps;
use muster_base::ErrorChain;
use muster_base::cpu;

/// How long a model that was missing is not looked for.
const MISSING_FOR: Duration = Duration::from_secs(60);

struct Job {
    photo: Bytes,
    models: Vec<String>,
    care: Care,
    reply: oneshot::Sender<Result<Analyzed, AnalysisError>>,
}

/// What a photograph shows, and who embedded its faces.
pub struct Analyzed {
    pub analysis: Analysis,
    /// The models, in the order of the faces' embeddings; the first is the first that was asked.
    pub models: Vec<String>,
    /// When that ended.
    pub ended: Instant,
}

/// Why the inference thread analysed no photograph.
#[derive(Debug, thiserror::Error)]
enum AnalysisError {
    /// The photograph is at fault.
    #[error("the photograph can not be decoded")]
    Photograph(#[source] ImageError),
    /// The model that the request is to be answered by can not be loaded.
    #[error("the model of the gallery can not be loaded")]
    Model(#[source] anyhow::Error),
    /// The models failed on it.
    #[error("the models failed")]
    Models(#[source] RecognizeError),
}

impl From<RecognizeError> for AnalysisError {
    fn from(error: RecognizeError) -> Self {
        match error {
            RecognizeError::Image(error) => Self::Photograph(error),
            error => Self::Models(error),
        }
    }
}

/// A handle to the inference thread.
pub struct Inference {
    /// Held by whoever the models work for, so that `limit` is the models' time and not that of a
    /// wait for them; `None` only while this is dropped.
    turn: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
    ready: Mutex<Option<oneshot::Receiver<anyhow::Result<()>>>>,
}

impl Inference {
    /// Starts the thread, which verifies and loads the models at once.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        installation: Installation,
        limits: DecodeLimits,
        max_tiles: u32,
        data_dir: &Path,
    ) -> anyhow::Result<Self> {
        let (jobs, receiver) = mpsc::channel(1);
        let (loaded, ready) = oneshot::channel();
        let options = Options {
            cache_dir: Some(compiled_models(&installation, data_dir)),
            limits,
            max_tiles,
            ..Options::default()
        };
        let thread = std::thread::Builder::new()
            .name("inference".into())
            .spawn(move || serve(&installation, options, loaded, receiver))
            .context("start the inference thread")?;
        Ok(Self {
            turn: Mutex::new(Some(jobs)),
            thread: Some(thread),
            ready: Mutex::new(Some(ready)),
        })
    }

    /// Waits until the models are verified and loaded.
    ///
    /// # Errors
    /// When a model is missing, damaged or can not be loaded.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = self
            .ready
            .lock()
            .await
            .take()
            .context("the models were already waited for")?;
        ready
            .await
            .context("the inference thread ended while it loaded the models")?
    }

    /// Analyses one photograph when it is its turn, with the embedders of these names.
    ///
    /// Those that are not loaded are loaded first. Without the first the process ends, since it could
    /// answer nobody; others that are not installed are left out.
    ///
    /// A photograph that the models work on for longer than `limit` ends the process: the thread
    /// can not be interrupted, and the queue hands the request to another worker.
    ///
    /// # Errors
    /// When the photograph is at fault: the client's answer.
    pub async fn analyze(
        &self,
        photo: Bytes,
        models: &[String],
        care: Care,
        limit: Duration,
        steps: &Steps,
        slot: &Arc<Slot>,
    ) -> Result<Analyzed, Failure> {
        let turn = self.turn.lock().await;
        let _occupied = slot.at_models();
        let jobs = turn.as_ref().expect("it is not dropped while it is used");
        let (reply, answer) = oneshot::channel();
        let models = models.to_vec();
        let job = Job {
            photo,
            models,
            care,
            reply,
        };
        if jobs.send(job).await.is_err() {
            fatal("the inference thread is gone");
        }
        let answer = match steps.during(tokio::time::timeout(limit, answer)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => fatal("the inference thread ended over a photograph"),
            Err(_) => fatal(&format!("a photograph took longer than {limit:?}")),
        };
        match answer {
            Ok(analyzed) => Ok(analyzed),
            Err(AnalysisError::Photograph(error)) => Err(Failure::from(&error)),
            Err(error) => fatal(&ErrorChain(&error).to_string()),
        }
    }
}

impl Drop for Inference {
    /// Waits for the thread: a process that ends while its models are loaded or unloaded crashes in
    /// the runtime's own clean-up.
    fn drop(&mut self) {
        self.turn.get_mut().take();
        if self
            .thread
            .take()
            .map(JoinHandle::join)
            .is_some_and(|ended| ended.is_err())
        {
            tracing::error!("the inference thread panicked");
        }
    }
}

/// Where compiled models are kept: with the models, or with the data where those belong to someone
/// else.
fn compiled_models(installation: &Installation, data_dir: &Path) -> PathBuf {
    let beside = installation.compiled();
    if tempfile::tempfile_in(&beside).is_ok() {
        beside
    } else {
        data_dir.join("model-cache")
    }
}

/// Ends the process: its requests return to the queue and the fleet replaces it.
fn fatal(reason: &str) -> ! {
    tracing::error!("{reason}; the worker ends and its requests go to another");
    std::process::exit(70)
}

fn serve(
    installation: &Installation,
    options: Options,
    loaded: oneshot::Sender<anyhow::Result<()>>,
    mut jobs: mpsc::Receiver<Job>,
) {
    cpu::this_thread_runs_models();
    let mut recognizer = match load(installation, options) {
        Ok(recognizer) => recognizer,
        Err(error) => {
            // The other end is gone only when the worker is ending already.
            let _ = loaded.send(Err(error));
            return;
        }
    };
    let _ = loaded.send(Ok(()));
    let mut missing = HashMap::new();
    while let Some(Job {
        photo,
        models,
        care,
        reply,
    }) = jobs.blocking_recv()
    {
        let now = Instant::now();
        let models = with_models(&mut recognizer, installation, models, &mut missing, now);
        let analyzed = models.map_err(AnalysisError::Model).and_then(|models| {
            let analysis = recognizer.analyze_by(&photo, &models, care)?;
            Ok(Analyzed {
                analysis,
                models,
                ended: Instant::now(),
            })
        });
        // Nobody waits for it any more where its limit has passed.
        let _ = reply.send(analyzed);
    }
}

/// Loads what is asked for; of the others than the first, those that are not here are left out, said
/// and looked for again after a while. `missing` has when that was last found.
fn with_models(
    recognizer: &mut Recognizer,
    installation: &Installation,
    models: Vec<String>,
    missing: &mut HashMap<String, Instant>,
    now: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut there = Vec::with_capacity(models.len());
    for (place, model) in models.into_iter().enumerate() {
        let since = missing.get(&model);
        if place > 0 && since.is_some_and(|since| now.duration_since(*since) < MISSING_FOR) {
            continue;
        }
        let mut load = || -> anyhow::Result<()> {
            if !recognizer.knows(&model) {
                recognizer.add_embedder(&installation.other_embedder(&model)?)?;
            }
            Ok(())
        };
        match load() {
            Ok(()) => there.push(model),
            Err(error) if place == 0 => return Err(error),
            Err(error) => {
                tracing::error!(
                    model,
                    error = %ErrorChain(error.as_ref()),
                    "a model that the gallery is to change to can not be loaded here"
                );
                missing.insert(model, now);
            }
        }
    }
    Ok(there)
}

/// Verifies the models beside loading them, and gives them out only if both succeed.
fn load(installation: &Installation, options: Options) -> anyhow::Result<Recognizer> {
    std::thread::scope(|scope| {
        let verified = scope.spawn(|| installation.verify_models());
        let recognizer = Recognizer::load(&installation.model_files(), options);
        verified.join().expect("verification does not panic")?;
        Ok(recognizer?)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use muster_recognize::models::default_root;

    use super::*;

    #[test]
    fn a_model_that_is_installed_later_is_found() {
        let root = std::env::var_os("MUSTER_MODELS_DIR").map(PathBuf::from);
        let root = root.or_else(default_root).expect("a home folder");
        let everything = Installation::open(&root).and_then(|found| found.with_profile("fast"));
        let everything = match everything {
            Ok(installation) => installation,
            Err(error) => {
                assert!(!muster_testbed::in_ci(), "{error}");
                eprintln!("SKIPPED: run `muster models install --all` ({error})");
                return;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let put = |part: &Path| {
            let name = part.file_name().expect("a part has a name");
            symlink(part, folder.path().join(name)).unwrap();
        };
        put(everything.folder());
        let installation = Installation::open(folder.path()).unwrap();
        let mut recognizer =
            Recognizer::load(&installation.model_files(), Options::default()).unwrap();
        let asked = ["sface".to_owned(), "fr_feature".to_owned()];
        let (mut missing, start) = (HashMap::new(), Instant::now());
        let mut there = |after: Duration| {
            let (models, now) = (asked.to_vec(), start + after);
            let there = with_models(&mut recognizer, &installation, models, &mut missing, now);
            there.unwrap()
        };
        assert_eq!(there(Duration::ZERO), ["sface"]);
        let embedder = everything.embedder_file();
        put(embedder.ancestors().nth(2).expect("the part's folder"));
        assert_eq!(there(MISSING_FOR / 2), ["sface"]);
        assert_eq!(there(MISSING_FOR), asked);
    }
}

//! Doorbells: how a send in one process wakes a receiver in another.
//!
//! Each queue has a small file in a folder beside the database. A sender writes one byte to it
//! after its commit; who waits watches that file. One watcher serves all queues of one
//! [`SqliteQueues`](crate::SqliteQueues), and only queues somebody waits on are watched.
//!
//! Invariant: a bell carries no information but "look again". It may ring for nothing, and a
//! waiter that never hears it still looks again after [`Ears::recheck`].

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{OnceCell, watch};

use super::store::QueueId;

/// How often a waiter looks again where bells are heard; they can be lost on a queue overflow.
const RECHECK_HEARD: Duration = Duration::from_secs(1);

/// How often a waiter looks again where the system cannot watch files.
const RECHECK_DEAF: Duration = Duration::from_millis(50);

type Rings = watch::Sender<u64>;

/// The bells of one database file.
pub(super) struct Bells {
    folder: PathBuf,
    bells: Mutex<HashMap<QueueId, Weak<Bell>>>,
    /// By file, for the watcher's thread. It never holds a [`Bell`], whose drop talks to it.
    watched: Arc<Mutex<HashMap<PathBuf, Arc<Rings>>>>,
    watcher: OnceLock<Option<Mutex<RecommendedWatcher>>>,
}

impl Bells {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut folder = OsString::from(database);
        folder.push("-bells");
        let folder = PathBuf::from(folder);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            bells: Mutex::default(),
            watched: Arc::default(),
            watcher: OnceLock::new(),
        })
    }

    /// Lists the queues that have a bell.
    pub(super) fn present(&self) -> io::Result<Vec<QueueId>> {
        let mut queues = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            queues.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<QueueId>().ok()),
            );
        }
        Ok(queues)
    }

    /// Returns the bell of a queue, the same one for all handles.
    pub(super) fn get(self: &Arc<Self>, queue: QueueId) -> Arc<Bell> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(&queue).and_then(Weak::upgrade) {
            return bell;
        }
        let bell = Arc::new(Bell {
            queue,
            path: self.folder.join(queue.to_string()),
            bells: Arc::clone(self),
            file: Mutex::new(None),
            rings: Arc::new(watch::Sender::new(0)),
            heard: OnceCell::new(),
        });
        bells.retain(|_, bell| bell.strong_count() > 0);
        bells.insert(queue, Arc::downgrade(&bell));
        bell
    }

    /// Removes a bell file left behind.
    pub(super) fn discard(&self, queue: QueueId) {
        // Another process may have been faster.
        let _ = fs::remove_file(self.folder.join(queue.to_string()));
    }

    fn start_watcher(&self) -> Option<Mutex<RecommendedWatcher>> {
        let watched = Arc::clone(&self.watched);
        notify::recommended_watcher(move |event| hear(&watched, event))
            .inspect_err(|error| {
                tracing::warn!(%error, "files cannot be watched here: queues are polled");
            })
            .ok()
            .map(Mutex::new)
    }

    /// Locks the watcher, which decides between a bell that comes and one of its queue that goes.
    fn watcher(&self) -> Option<MutexGuard<'_, RecommendedWatcher>> {
        let watcher = self.watcher.get_or_init(|| self.start_watcher());
        watcher
            .as_ref()
            .map(|watcher| watcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Rings>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, bell: &Bell) -> bool {
        let Some(mut watcher) = self.watcher() else {
            return false;
        };
        self.watched()
            .insert(bell.path.clone(), Arc::clone(&bell.rings));
        let watched = open_bell(&bell.path)
            .map_err(notify::Error::io)
            .and_then(|_| watcher.watch(&bell.path, RecursiveMode::NonRecursive));
        if let Err(error) = &watched {
            tracing::warn!(%error, queue.id = bell.queue, "a queue cannot be watched: it is polled");
        }
        watched.is_ok()
    }

    fn forget(&self, bell: &Bell) {
        if bell.heard.get().is_none() {
            return;
        }
        let Some(mut watcher) = self.watcher() else {
            return;
        };
        let mut watched = self.watched();
        if watched
            .get(&bell.path)
            .is_some_and(|rings| Arc::ptr_eq(rings, &bell.rings))
        {
            watched.remove(&bell.path);
            // The watcher's thread may want this lock before it answers.
            drop(watched);
            // The watch is gone already where the file is.
            let _ = watcher.unwatch(&bell.path);
        }
    }
}

impl std::fmt::Debug for Bells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bells")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

fn hear(watched: &Mutex<HashMap<PathBuf, Arc<Rings>>>, event: notify::Result<notify::Event>) {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    let ring = |rings: &Arc<Rings>| rings.send_modify(|count| *count += 1);
    match event {
        Ok(event) if event.need_rescan() => watched.values().for_each(ring),
        Ok(event) if matches!(event.kind, EventKind::Access(_) | EventKind::Create(_)) => {}
        Ok(event) => event
            .paths
            .iter()
            .filter_map(|path| watched.get(path))
            .for_each(ring),
        Err(_) => watched.values().for_each(ring),
    }
}

fn open_bell(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// The bell of one queue.
#[derive(Debug)]
pub(super) struct Bell {
    pub(super) queue: QueueId,
    path: PathBuf,
    bells: Arc<Bells>,
    file: Mutex<Option<File>>,
    rings: Arc<Rings>,
    /// Whether the watcher hears it. Unset until somebody waits.
    heard: OnceCell<bool>,
}

impl Bell {
    /// Wakes everybody who waits on the queue, in every process.
    pub(super) fn ring(&self) {
        if self.heard.get() != Some(&true) {
            self.rings.send_modify(|count| *count += 1);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let rung = match &mut *file {
            Some(file) => strike(file),
            none => open_bell(&self.path).and_then(|opened| strike(none.insert(opened))),
        };
        if let Err(error) = rung {
            tracing::warn!(%error, queue.id = self.queue, "a bell cannot be rung: receivers are late");
        }
    }

    /// Wakes everybody who waits on a queue that is gone, and removes the bell.
    pub(super) fn remove(&self) {
        self.rings.send_modify(|count| *count += 1);
        self.bells.discard(self.queue);
    }

    /// Listens if that costs nothing, because somebody has listened before.
    pub(super) fn ears(&self) -> Option<Ears> {
        self.heard.get().map(|&heard| self.ears_that(heard))
    }

    fn ears_that(&self, heard: bool) -> Ears {
        let recheck = if heard { RECHECK_HEARD } else { RECHECK_DEAF };
        Ears {
            rings: self.rings.subscribe(),
            recheck,
        }
    }

    /// Begins to listen: rings after this are heard.
    pub(super) async fn listen(self: &Arc<Self>) -> Ears {
        let watch = || async {
            let bell = Arc::clone(self);
            let watched = tokio::task::spawn_blocking(move || bell.bells.watch(&bell));
            watched.await.unwrap_or(false)
        };
        self.ears_that(*self.heard.get_or_init(watch).await)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.bells.forget(self);
    }
}

fn strike(file: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"!")
}

/// One listener of a bell.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) rings: watch::Receiver<u64>,
    /// How long to trust silence.
    pub(super) recheck: Duration,
}

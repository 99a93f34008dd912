//! Notifications: how a send in one process wakes a receiver in another.
//!
//! Each queue has a small file in a folder beside the database. A sender writes one byte to it
//! after its commit, and receivers that wait watch it. One watcher serves all queues of one
//! [`SqliteQueues`](crate::SqliteQueues), and only queues that somebody waits on are watched.
//!
//! Invariant: a notification says no more than "look again". It may come without a reason, and a
//! listener that misses one looks again after [`Listener::recheck`] all the same.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{OnceCell, watch};

use super::store::QueueId;

/// What follows the database's path in that of the folder of notification files. Programs of
/// every version that share the database look there.
const FOLDER_SUFFIX: &str = "-bells";

/// How often a listener looks again where files are watched: the system drops events when too many
/// come at once.
const RECHECK_WATCHED: Duration = Duration::from_secs(1);

/// How often a listener looks again where the system cannot watch files.
const RECHECK_UNWATCHED: Duration = Duration::from_millis(50);

/// Counts the notifications of one queue, and wakes this process's listeners.
type Counter = watch::Sender<u64>;

/// The notifiers of one database file.
pub(super) struct Notifiers {
    folder: PathBuf,
    notifiers: Mutex<HashMap<QueueId, Weak<Notifier>>>,
    /// By file, for the watcher's thread, which never holds a [`Notifier`]: dropping one waits for
    /// that thread.
    watched: Arc<Mutex<HashMap<PathBuf, Arc<Counter>>>>,
    watcher: OnceLock<Option<Mutex<RecommendedWatcher>>>,
}

impl Notifiers {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut folder = OsString::from(database);
        folder.push(FOLDER_SUFFIX);
        let folder = PathBuf::from(folder);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            notifiers: Mutex::default(),
            watched: Arc::default(),
            watcher: OnceLock::new(),
        })
    }

    /// Lists the queues that have a notification file.
    pub(super) fn list(&self) -> io::Result<Vec<QueueId>> {
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

    /// Returns the notifier of a queue, which all its handles share.
    pub(super) fn get(self: &Arc<Self>, queue: QueueId) -> Arc<Notifier> {
        let mut notifiers = self
            .notifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(notifier) = notifiers.get(&queue).and_then(Weak::upgrade) {
            return notifier;
        }
        let notifier = Arc::new(Notifier {
            queue,
            path: self.folder.join(queue.to_string()),
            notifiers: Arc::clone(self),
            file: Mutex::new(None),
            counter: Arc::new(watch::Sender::new(0)),
            is_watched: OnceCell::new(),
        });
        notifiers.retain(|_, notifier| notifier.strong_count() > 0);
        notifiers.insert(queue, Arc::downgrade(&notifier));
        notifier
    }

    /// Removes the notification file of a queue that is gone.
    pub(super) fn remove_file(&self, queue: QueueId) {
        // Another process may have been faster.
        let _ = fs::remove_file(self.folder.join(queue.to_string()));
    }

    fn start_watcher(&self) -> Option<Mutex<RecommendedWatcher>> {
        let watched = Arc::clone(&self.watched);
        notify::recommended_watcher(move |event| on_file_event(&watched, event))
            .inspect_err(|error| {
                tracing::warn!(%error, "files cannot be watched here: queues are polled");
            })
            .ok()
            .map(Mutex::new)
    }

    /// Locks the watcher, so that the watching of a new notifier and the unwatching of an old one of
    /// the queue do not mix.
    fn watcher(&self) -> Option<MutexGuard<'_, RecommendedWatcher>> {
        let watcher = self.watcher.get_or_init(|| self.start_watcher());
        watcher
            .as_ref()
            .map(|watcher| watcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Counter>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, notifier: &Notifier) -> bool {
        let Some(mut watcher) = self.watcher() else {
            return false;
        };
        self.watched()
            .insert(notifier.path.clone(), Arc::clone(&notifier.counter));
        let watched = open_file(&notifier.path)
            .map_err(notify::Error::io)
            .and_then(|_| watcher.watch(&notifier.path, RecursiveMode::NonRecursive));
        if let Err(error) = &watched {
            tracing::warn!(%error, queue.id = notifier.queue, "a queue cannot be watched: it is polled");
        }
        watched.is_ok()
    }

    fn unwatch(&self, notifier: &Notifier) {
        if notifier.is_watched.get().is_none() {
            return;
        }
        let Some(mut watcher) = self.watcher() else {
            return;
        };
        let mut watched = self.watched();
        if watched
            .get(&notifier.path)
            .is_some_and(|counter| Arc::ptr_eq(counter, &notifier.counter))
        {
            watched.remove(&notifier.path);
            // The watcher's thread may want this lock before it answers.
            drop(watched);
            // The watch is gone already where the file is.
            let _ = watcher.unwatch(&notifier.path);
        }
    }
}

impl std::fmt::Debug for Notifiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifiers")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Notifies the listeners of the files that an event is about, or all where that is not known.
fn on_file_event(
    watched: &Mutex<HashMap<PathBuf, Arc<Counter>>>,
    event: notify::Result<notify::Event>,
) {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    let notify = |counter: &Arc<Counter>| counter.send_modify(|count| *count += 1);
    match event {
        Ok(event) if event.need_rescan() => watched.values().for_each(notify),
        Ok(event) if matches!(event.kind, EventKind::Access(_) | EventKind::Create(_)) => {}
        Ok(event) => event
            .paths
            .iter()
            .filter_map(|path| watched.get(path))
            .for_each(notify),
        Err(_) => watched.values().for_each(notify),
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        // A link may lead to a file of somebody else's, whose first byte this would overwrite.
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Notifies the listeners of one queue.
#[derive(Debug)]
pub(super) struct Notifier {
    pub(super) queue: QueueId,
    path: PathBuf,
    notifiers: Arc<Notifiers>,
    file: Mutex<Option<File>>,
    counter: Arc<Counter>,
    /// Whether its file is watched. Unset until somebody listens.
    is_watched: OnceCell<bool>,
}

impl Notifier {
    /// Wakes everybody who waits on the queue, in every process.
    pub(super) fn notify(&self) {
        if self.is_watched.get() != Some(&true) {
            self.counter.send_modify(|count| *count += 1);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *file {
            Some(file) => write_byte(file),
            none => open_file(&self.path).and_then(|opened| write_byte(none.insert(opened))),
        };
        if let Err(error) = written {
            tracing::warn!(%error, queue.id = self.queue, "receivers cannot be notified: they are late");
        }
    }

    /// Wakes everybody who waits on a queue that is gone, and removes its notification file.
    pub(super) fn remove(&self) {
        self.counter.send_modify(|count| *count += 1);
        self.notifiers.remove_file(self.queue);
    }

    /// Listens where somebody has listened before, so that it costs nothing.
    pub(super) fn try_listen(&self) -> Option<Listener> {
        let is_watched = self.is_watched.get()?;
        Some(self.listener(*is_watched))
    }

    /// Begins to listen: notifications after this wake the listener.
    pub(super) async fn listen(self: &Arc<Self>) -> Listener {
        let watch = || async {
            let notifier = Arc::clone(self);
            let watched = tokio::task::spawn_blocking(move || notifier.notifiers.watch(&notifier));
            watched.await.unwrap_or(false)
        };
        self.listener(*self.is_watched.get_or_init(watch).await)
    }

    fn listener(&self, is_watched: bool) -> Listener {
        let recheck = if is_watched {
            RECHECK_WATCHED
        } else {
            RECHECK_UNWATCHED
        };
        Listener {
            notifications: self.counter.subscribe(),
            recheck,
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.notifiers.unwatch(self);
    }
}

fn write_byte(file: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"!")
}

/// Waits for the notifications of one queue.
#[derive(Debug)]
pub(super) struct Listener {
    /// How many there were.
    pub(super) notifications: watch::Receiver<u64>,
    /// How long to wait for a notification before looking again without one.
    pub(super) recheck: Duration,
}

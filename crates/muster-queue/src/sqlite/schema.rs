//! The file: how it is opened and what is in it.
//!
//! Invariant: any number of processes may open, create and use the same file at the same time.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use super::failure::is_busy;
use crate::error::QueueError;

/// How long a writer waits for the writers of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What makes each version of the file of the one before, from nothing to the present one.
///
/// `user_version` counts those that were run, so none may ever change. What older programs read
/// and write stays: they may have the file open while a newer one opens it.
const STEPS: [&str; VERSION as usize] = [TABLES, ATTRIBUTES];

/// The version of the file that this program makes.
const VERSION: u32 = 2;

/// `depth` is kept by triggers, so that counting 100,000 messages costs the same as counting one.
/// Ids are never used twice (`AUTOINCREMENT`): an old receipt cannot fit a new message.
const TABLES: &str = "
CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    depth INTEGER NOT NULL DEFAULT 0,
    visibility_ms INTEGER NOT NULL,
    retention_ms INTEGER NOT NULL,
    dead_letter INTEGER,
    max_receives INTEGER
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    receive_count INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX messages_by_visibility ON messages (queue, visible_at);
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    UPDATE queues SET depth = depth + 1 WHERE id = NEW.queue;
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    UPDATE queues SET depth = depth - 1 WHERE id = OLD.queue;
END;
CREATE TRIGGER message_moved AFTER UPDATE OF queue ON messages BEGIN
    UPDATE queues SET depth = depth - 1 WHERE id = OLD.queue;
    UPDATE queues SET depth = depth + 1 WHERE id = NEW.queue;
END;
";

/// A JSON object of strings; NULL for none.
const ATTRIBUTES: &str = "ALTER TABLE messages ADD COLUMN attributes TEXT;";

/// Marks, as the file's `application_id`, that no page of it was freed without being overwritten.
const OVERWRITES: i32 = i32::from_be_bytes(*b"MSTR");

/// Opens the connection that writes, and creates the file if absent.
pub(super) fn open_writer(path: &Path) -> Result<Connection, QueueError> {
    let mut db = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    use_wal(&db)?;
    let before = upgrade(&mut db)?;
    if let Err(error) = overwrite_freed(&db, before == 0) {
        tracing::warn!(
            %error,
            "what was deleted from the queue's file before Muster overwrote it is left there; it is \
             tried again at the next start"
        );
    }
    Ok(db)
}

/// Opens a connection that only reads: in WAL mode it never waits for writers.
pub(super) fn open_reader(path: &Path) -> Result<Connection, QueueError> {
    Ok(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let mut db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_handler(Some(wait_for_lock))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    // Messages name people and carry embeddings: what is deleted is overwritten.
    db.pragma_update(None, "secure_delete", "ON")?;
    // Else every statement is planned again for every new time that is bound to it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Moves the write-ahead log into the file and empties it, so that no message stays in it that is
/// deleted, and overwritten, in the file.
pub(super) fn truncate_log(db: &Connection) -> rusqlite::Result<()> {
    let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let why = "another process is in the middle of reading it";
        return Err(rusqlite::Error::SqliteFailure(code, Some(why.to_owned())));
    }
    Ok(())
}

/// Waits for another process's transaction, which takes tens of microseconds.
///
/// SQLite's own handler sleeps a millisecond first and 100 ms later on: far too long here.
fn wait_for_lock(attempt: i32) -> bool {
    const SHORT: Duration = Duration::from_micros(100);
    const LONG: Duration = Duration::from_millis(2);
    const SHORT_ATTEMPTS: i32 = 50;
    thread::sleep(if attempt < SHORT_ATTEMPTS {
        SHORT
    } else {
        LONG
    });
    LONG * u32::try_from(attempt).unwrap_or(0) < BUSY_TIMEOUT
}

/// Moves the write-ahead log into the file and cuts it to nothing, unless others are in the midst of it
/// for longer than `wait`; says whether that is done.
pub(super) fn empty_log(db: &mut Connection, wait: Duration) -> rusqlite::Result<bool> {
    db.busy_timeout(wait)?;
    let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, bool>(0)
    });
    db.busy_handler(Some(wait_for_lock))?;
    Ok(!busy?)
}

/// Turns on the write-ahead log, which SQLite refuses while another process is doing the same.
fn use_wal(db: &Connection) -> Result<(), QueueError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))
        {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let source = format!("the file system allows no write-ahead log, only {mode}");
                return Err(QueueError::Refused {
                    source: source.into(),
                });
            }
            Err(error) if !is_busy(&error) || Instant::now() >= deadline => {
                return Err(error.into());
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Writes the file anew, once, if it is of a program that did not overwrite what it deleted.
fn overwrite_freed(db: &Connection, is_new: bool) -> rusqlite::Result<()> {
    let mark: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if mark == OVERWRITES {
        return Ok(());
    }
    if !is_new {
        db.execute_batch("VACUUM")?;
        truncate_log(db)?;
    }
    db.pragma_update(None, "application_id", OVERWRITES)
}

/// Brings the file to the present version, unless a newer program has made it; says of which it was.
fn upgrade(db: &mut Connection) -> Result<u32, QueueError> {
    let version =
        |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    if version(db)? == VERSION {
        return Ok(VERSION);
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    let Some(steps) = STEPS.get(found as usize..) else {
        let source = format!("the file has format {found}, this program knows {VERSION}");
        return Err(QueueError::Refused {
            source: source.into(),
        });
    };
    for step in steps {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_newer_program_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("queues.db");
        let db = open_writer(&path).expect("make the file");
        db.pragma_update(None, "user_version", VERSION + 1)
            .expect("make it newer");
        let refused = open_writer(&path).expect_err("a newer file");
        assert!(matches!(refused, QueueError::Refused { .. }), "{refused:?}");
        let version: u32 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .expect("read the version");
        assert_eq!(version, VERSION + 1);
    }

    #[test]
    fn what_an_older_program_freed_is_overwritten_once() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("queues.db");
        let db = open_writer(&path).expect("make the file");
        db.pragma_update(None, "application_id", 0).expect("unmark");
        db.pragma_update(None, "secure_delete", "OFF").expect("set");
        let body = "Anna Secret ".repeat(400);
        for _ in 0..20 {
            let sql = "INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
                       VALUES (1, 1, 1, 0, ?1)";
            db.execute(sql, [&body]).expect("insert");
        }
        db.execute("DELETE FROM messages", []).expect("delete");
        truncate_log(&db).expect("empty the log");
        drop(db);
        let holds = || {
            let files = std::fs::read_dir(folder.path()).expect("list").flatten();
            let mut all = files.filter_map(|file| std::fs::read(file.path()).ok());
            all.any(|bytes| bytes.windows(11).any(|part| part == b"Anna Secret"))
        };
        assert!(holds());
        let db = open_writer(&path).expect("open the file again");
        assert!(!holds());
        let mark: i32 = db
            .query_row("PRAGMA application_id", [], |row| row.get(0))
            .expect("read the mark");
        assert_eq!(mark, OVERWRITES);
    }
}

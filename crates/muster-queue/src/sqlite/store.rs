//! The queue in SQL: every function runs inside the caller's transaction, at the time it is told.
//!
//! Invariant: a message is in the table until it is deleted by the holder of its last delivery,
//! by retention, by a purge or with its queue. `None` always means that the queue does not exist.
//! One that was never received is visible, even if the clock was set back since it was sent, and so is
//! one that would be hidden for longer than any message may be.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{Connection, OptionalExtension, params, types::Type};

use crate::{
    limits::{MAX_RETENTION, MAX_VISIBILITY},
    message::{MessageId, Outgoing, Receipt, Received},
    queue::QueueOptions,
};

/// Names a queue within the file. Never used twice.
pub(super) type QueueId = i64;

/// Milliseconds since 1970 by the wall clock, which all processes of the machine share.
pub(super) type Millis = i64;

/// Visibility of a dead-letter queue until somebody opens it with options of its own.
const DEAD_LETTER_VISIBILITY_MS: Millis = 30_000;

/// Messages that one receive moves to the dead-letter queue or deletes as expired before it answers.
const MAX_DISCARDS: usize = 100;

/// What is hidden beyond this time was hidden by a clock that has been set back since.
fn longest_hidden(now: Millis) -> Millis {
    now + millis(MAX_VISIBILITY)
}

/// Names one delivery of a message; a receipt is its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeliveryId {
    message: i64,
    /// The message's receive count at this delivery.
    receive_count: i64,
}

impl DeliveryId {
    pub(super) fn parse(receipt: &Receipt) -> Option<Self> {
        let (message, receive_count) = receipt.0.split_once('.')?;
        Some(Self {
            message: message.parse().ok()?,
            receive_count: receive_count.parse().ok()?,
        })
    }

    fn receipt(self) -> Receipt {
        Receipt(format!("{}.{}", self.message, self.receive_count))
    }
}

/// What a receive found.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) messages: Vec<Received>,
    /// The dead-letter queue, if messages went there.
    pub(super) moved_to: Option<QueueId>,
    /// When the next message becomes visible; in the past if there are more now.
    pub(super) next_visible_at: Option<Millis>,
}

/// What an extend did.
#[derive(Debug)]
pub(super) struct Extended {
    /// Whether each delivery was still held.
    pub(super) held: Vec<bool>,
    /// Whether a message becomes visible earlier than it would have.
    pub(super) sooner: bool,
}

struct Rules {
    visibility_ms: Millis,
    retention_ms: Millis,
    redrive: Option<(QueueId, i64)>,
}

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

/// Makes the queue, or gives an existing one these options.
pub(super) fn create(
    db: &Connection,
    name: &str,
    options: &QueueOptions,
) -> rusqlite::Result<QueueId> {
    let dead_letter = match &options.redrive {
        None => None,
        Some(redrive) => {
            db.prepare_cached(
                "INSERT INTO queues (name, visibility_ms, retention_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO NOTHING",
            )?
            .execute(params![
                redrive.dead_letter,
                DEAD_LETTER_VISIBILITY_MS,
                millis(MAX_RETENTION)
            ])?;
            find(db, &redrive.dead_letter)?
        }
    };
    db.prepare_cached(
        "INSERT INTO queues (name, visibility_ms, retention_ms, dead_letter, max_receives)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET visibility_ms = excluded.visibility_ms,
             retention_ms = excluded.retention_ms, dead_letter = excluded.dead_letter,
             max_receives = excluded.max_receives
         RETURNING id",
    )?
    .query_row(
        params![
            name,
            millis(options.visibility_timeout),
            millis(options.retention),
            dead_letter,
            options.redrive.as_ref().map(|redrive| redrive.max_receives),
        ],
        |row| row.get(0),
    )
}

pub(super) fn find(db: &Connection, name: &str) -> rusqlite::Result<Option<QueueId>> {
    db.prepare_cached("SELECT id FROM queues WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn names(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(
        "SELECT name FROM queues WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?
    .query_map([prefix], |row| row.get(0))?
    .collect()
}

pub(super) fn ids(db: &Connection) -> rusqlite::Result<Vec<QueueId>> {
    db.prepare("SELECT id FROM queues")?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn rules(db: &Connection, queue: QueueId) -> rusqlite::Result<Option<Rules>> {
    db.prepare_cached(
        "SELECT visibility_ms, retention_ms, dead_letter, max_receives FROM queues WHERE id = ?1",
    )?
    .query_row([queue], |row| {
        Ok(Rules {
            visibility_ms: row.get(0)?,
            retention_ms: row.get(1)?,
            redrive: row.get::<_, Option<_>>(2)?.zip(row.get(3)?),
        })
    })
    .optional()
}

fn exists(db: &Connection, queue: QueueId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM queues WHERE id = ?1")?
        .exists([queue])
}

/// Writes attributes as a JSON object; none as NULL, which takes no byte of the row.
fn attributes_to_json(attributes: &BTreeMap<String, String>) -> Option<String> {
    (!attributes.is_empty()).then(|| serde_json::json!(attributes).to_string())
}

fn attributes_from_json(attributes: Option<String>) -> rusqlite::Result<BTreeMap<String, String>> {
    let Some(attributes) = attributes else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(&attributes)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(4, Type::Text, error.into()))
}

pub(super) fn send(
    db: &Connection,
    queue: QueueId,
    messages: &[Outgoing],
    now: Millis,
) -> rusqlite::Result<Option<Vec<MessageId>>> {
    if !exists(db, queue)? {
        return Ok(None);
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO messages (queue, visible_at, sent_at, receive_count, body, attributes)
         VALUES (?1, ?2, ?2, 0, ?3, ?4)",
    )?;
    messages
        .iter()
        .map(|message| {
            let attributes = attributes_to_json(&message.attributes);
            let id = insert.insert(params![queue, now, message.body, attributes])?;
            Ok(MessageId(id.to_string()))
        })
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// Returns when the next message becomes visible; in the past if one is visible now.
#[expect(
    clippy::option_option,
    reason = "the queue may be missing, and it may be empty"
)]
pub(super) fn next_visible_at(
    db: &Connection,
    queue: QueueId,
    now: Millis,
) -> rusqlite::Result<Option<Option<Millis>>> {
    db.prepare_cached(
        "SELECT coalesce(
             (SELECT min(visible_at, ?2) FROM messages
              WHERE queue = queues.id
                  AND (visible_at <= ?2 OR receive_count = 0 OR visible_at > ?3)
              ORDER BY visible_at LIMIT 1),
             (SELECT min(visible_at) FROM messages WHERE queue = queues.id))
         FROM queues WHERE id = ?1",
    )?
    .query_row([queue, now, longest_hidden(now)], |row| row.get(0))
    .optional()
}

pub(super) fn receive(
    db: &Connection,
    queue: QueueId,
    max: usize,
    now: Millis,
) -> rusqlite::Result<Option<Delivered>> {
    let Some(rules) = rules(db, queue)? else {
        return Ok(None);
    };
    let mut oldest = db.prepare_cached(
        "SELECT id, sent_at, receive_count, body, attributes FROM messages
         WHERE queue = ?1 AND (visible_at <= ?2 OR receive_count = 0 OR visible_at > ?3)
         ORDER BY visible_at, id LIMIT 1",
    )?;
    let mut hide = db.prepare_cached(
        "UPDATE messages SET visible_at = ?2, receive_count = receive_count + 1 WHERE id = ?1",
    )?;
    // With a timeout of zero a message would be found again in this very loop.
    let visible_at = now + rules.visibility_ms.max(1);
    let mut delivered = Delivered::default();
    let mut discards = 0;
    while delivered.messages.len() < max && discards < MAX_DISCARDS {
        let candidate = oldest
            .query_row([queue, now, longest_hidden(now)], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Millis>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, String>(3)?,
                    attributes_from_json(row.get(4)?)?,
                ))
            })
            .optional()?;
        let Some((message, sent_at, receives, body, attributes)) = candidate else {
            break;
        };
        if sent_at + rules.retention_ms <= now {
            db.prepare_cached("DELETE FROM messages WHERE id = ?1")?
                .execute([message])?;
            discards += 1;
        } else if let Some((dead_letter, max_receives)) = rules.redrive
            && receives >= max_receives
        {
            db.prepare_cached("UPDATE messages SET queue = ?2, visible_at = ?3 WHERE id = ?1")?
                .execute([message, dead_letter, now])?;
            delivered.moved_to = Some(dead_letter);
            discards += 1;
        } else {
            hide.execute([message, visible_at])?;
            let delivery = DeliveryId {
                message,
                receive_count: receives + 1,
            };
            delivered.messages.push(Received {
                id: MessageId(message.to_string()),
                receipt: delivery.receipt(),
                body,
                attributes,
                receive_count: u32::try_from(delivery.receive_count).unwrap_or(u32::MAX),
            });
        }
    }
    if delivered.messages.is_empty() {
        delivered.next_visible_at = next_visible_at(db, queue, now)?.flatten();
    }
    Ok(Some(delivered))
}

/// Undoes deliveries whose messages nobody has worked on: their receive counts too are as before.
/// Says for each whether it was held.
pub(super) fn undo_receive(
    db: &Connection,
    queue: QueueId,
    deliveries: &[Option<DeliveryId>],
    now: Millis,
) -> rusqlite::Result<Option<Vec<bool>>> {
    if !exists(db, queue)? {
        return Ok(None);
    }
    let mut restore = db.prepare_cached(
        "UPDATE messages SET visible_at = ?4, receive_count = receive_count - 1
         WHERE id = ?2 AND queue = ?1 AND receive_count = ?3",
    )?;
    deliveries
        .iter()
        .map(|delivery| match delivery {
            None => Ok(false),
            Some(delivery) => {
                let held = [queue, delivery.message, delivery.receive_count, now];
                Ok(restore.execute(held)? == 1)
            }
        })
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// Says for each delivery whether it was held and its message is now deleted.
pub(super) fn delete(
    db: &Connection,
    queue: QueueId,
    deliveries: &[Option<DeliveryId>],
) -> rusqlite::Result<Option<Vec<bool>>> {
    if !exists(db, queue)? {
        return Ok(None);
    }
    let mut delete = db.prepare_cached(
        "DELETE FROM messages WHERE id = ?2 AND queue = ?1 AND receive_count = ?3",
    )?;
    deliveries
        .iter()
        .map(|delivery| match delivery {
            None => Ok(false),
            Some(delivery) => {
                Ok(delete.execute([queue, delivery.message, delivery.receive_count])? == 1)
            }
        })
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

pub(super) fn extend(
    db: &Connection,
    queue: QueueId,
    deliveries: &[Option<DeliveryId>],
    visibility_ms: Millis,
    now: Millis,
) -> rusqlite::Result<Option<Extended>> {
    if !exists(db, queue)? {
        return Ok(None);
    }
    let mut find = db.prepare_cached(
        "SELECT visible_at FROM messages
         WHERE id = ?2 AND queue = ?1 AND receive_count = ?3 AND visible_at > ?4",
    )?;
    let mut hide = db.prepare_cached("UPDATE messages SET visible_at = ?2 WHERE id = ?1")?;
    let until = now + visibility_ms;
    let mut extended = Extended {
        held: Vec::with_capacity(deliveries.len()),
        sooner: false,
    };
    for delivery in deliveries {
        let before = match delivery {
            None => None,
            Some(delivery) => find
                .query_row(
                    [queue, delivery.message, delivery.receive_count, now],
                    |row| Ok((delivery.message, row.get::<_, Millis>(0)?)),
                )
                .optional()?,
        };
        if let Some((message, visible_at)) = before {
            hide.execute([message, until])?;
            extended.sooner |= until < visible_at;
        }
        extended.held.push(before.is_some());
    }
    Ok(Some(extended))
}

/// Returns the highest message id ever given, the bound of a purge.
pub(super) fn last_message(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'")?
        .query_row([], |row| row.get(0))
}

/// Deletes up to `limit` messages with ids up to `last`, and returns how many.
pub(super) fn purge(
    db: &Connection,
    queue: QueueId,
    last: i64,
    limit: u32,
) -> rusqlite::Result<Option<usize>> {
    if !exists(db, queue)? {
        return Ok(None);
    }
    db.prepare_cached(
        "DELETE FROM messages WHERE id IN
             (SELECT id FROM messages WHERE queue = ?1 AND id <= ?2 LIMIT ?3)",
    )?
    .execute(params![queue, last, limit])
    .map(Some)
}

/// Counts visible messages and those in flight.
///
/// Only the messages in flight and those past their retention are walked.
pub(super) fn counts(
    db: &Connection,
    queue: QueueId,
    now: Millis,
) -> rusqlite::Result<Option<(u64, u64)>> {
    db.prepare_cached(
        "SELECT depth,
             (SELECT count(*) FROM messages
              WHERE queue = queues.id AND visible_at > ?2 AND visible_at <= ?3
                  AND receive_count > 0),
             (SELECT count(*) FROM messages
              WHERE queue = queues.id AND visible_at <= ?2 - queues.retention_ms)
         FROM queues WHERE id = ?1",
    )?
    .query_row([queue, now, longest_hidden(now)], |row| {
        let (depth, in_flight, expired): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let count = |count| u64::try_from(count).unwrap_or(0);
        Ok((count(depth - in_flight - expired), count(in_flight)))
    })
    .optional()
}

/// Whether a message became visible after `since`, and when the next one will.
pub(super) fn arrivals(
    db: &Connection,
    queue: QueueId,
    since: Millis,
    now: Millis,
) -> rusqlite::Result<Option<(bool, Option<Millis>)>> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM messages
                        WHERE queue = queues.id AND visible_at > ?2 AND visible_at <= ?3),
                (SELECT min(visible_at) FROM messages
                 WHERE queue = queues.id AND visible_at > ?3)
         FROM queues WHERE id = ?1",
    )?
    .query_row([queue, since, now], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
}

/// Deletes up to `limit` messages past their retention, of any queue.
///
/// A message is never visible before it is sent, so the visibility index finds them.
pub(super) fn sweep(db: &Connection, now: Millis, limit: u32) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "DELETE FROM messages WHERE id IN
             (SELECT messages.id FROM queues JOIN messages ON messages.queue = queues.id
                  AND messages.visible_at <= ?1 - queues.retention_ms
              LIMIT ?2)",
    )?
    .execute(params![now, limit])
}

/// Removes the queue and its messages, and says whether it was there.
pub(super) fn remove(db: &Connection, queue: QueueId) -> rusqlite::Result<bool> {
    db.prepare_cached("DELETE FROM messages WHERE queue = ?1")?
        .execute([queue])?;
    db.prepare_cached("UPDATE queues SET dead_letter = NULL WHERE dead_letter = ?1")?
        .execute([queue])?;
    Ok(db
        .prepare_cached("DELETE FROM queues WHERE id = ?1")?
        .execute([queue])?
        == 1)
}

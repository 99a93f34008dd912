//! The store against a model of a queue that fits on a page, under any order of operations.

use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    schema,
    store::{self, DeliveryId, Millis, QueueId},
};
use crate::{
    limits::{MAX_RETENTION, MAX_VISIBILITY},
    message::{Outgoing, Received},
    queue::{QueueOptions, Redrive},
};

const VISIBILITY: Millis = 1_000;
const RETENTION: Millis = 60_000;
const MAX_RECEIVES: u32 = 3;
const DAY: Millis = 24 * 3_600_000;

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Receive(usize),
    /// Deletes by the nth receipt ever given.
    Delete(prop::sample::Index),
    Extend(prop::sample::Index, Millis),
    Undo,
    Pass(Millis),
    /// Sets the clock back.
    SetBack(Millis),
    Sweep,
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..5).prop_map(Step::Send),
        6 => (1_usize..5).prop_map(Step::Receive),
        4 => any::<prop::sample::Index>().prop_map(Step::Delete),
        3 => (any::<prop::sample::Index>(), 0_i64..3_000).prop_map(|(n, ms)| Step::Extend(n, ms)),
        1 => Just(Step::Undo),
        6 => prop_oneof![0_i64..800, 20_000_i64..30_000].prop_map(Step::Pass),
        1 => prop_oneof![0_i64..800, 0_i64..90_000, Just(DAY)].prop_map(Step::SetBack),
        1 => Just(Step::Sweep),
        1 => Just(Step::Purge),
    ]
}

#[derive(Debug, Clone)]
struct Message {
    body: String,
    sent_at: Millis,
    visible_at: Millis,
    receives: u32,
}

impl Message {
    fn is_visible(&self, now: Millis) -> bool {
        is_due(self.visible_at, now) || self.receives == 0
    }
}

/// Nothing is hidden for longer than a message may be.
fn is_due(visible_at: Millis, now: Millis) -> bool {
    visible_at <= now || visible_at > now + store::millis(MAX_VISIBILITY)
}

/// What should be in the queue and in its dead-letter queue.
#[derive(Debug, Default)]
struct Model {
    live: Vec<Message>,
    /// When each was set aside.
    dead: Vec<Millis>,
}

impl Model {
    fn receive(&mut self, max: usize, now: Millis) -> Vec<(String, u32)> {
        let mut received = Vec::new();
        // Bodies are numbered in the order of sending.
        self.live
            .sort_by(|a, b| (a.visible_at, &a.body).cmp(&(b.visible_at, &b.body)));
        let mut kept = Vec::new();
        for mut message in std::mem::take(&mut self.live) {
            if !message.is_visible(now) || received.len() == max {
                kept.push(message);
            } else if message.sent_at + RETENTION <= now {
                continue;
            } else if message.receives == MAX_RECEIVES {
                self.dead.push(now);
            } else {
                message.receives += 1;
                message.visible_at = now + VISIBILITY;
                received.push((message.body.clone(), message.receives));
                kept.push(message);
            }
        }
        self.live = kept;
        received.sort();
        received
    }

    /// The message a receipt still stands for.
    fn held(&mut self, receipt: &Received) -> Option<usize> {
        self.live.iter().position(|message| {
            message.body == receipt.body && message.receives == receipt.receive_count
        })
    }
}

struct World {
    db: Connection,
    queue: QueueId,
    dead: QueueId,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("make a folder");
    let db = schema::open_writer(&folder.path().join("queues.db")).expect("open the file");
    let redrive = Redrive {
        dead_letter: "dead".to_owned(),
        max_receives: MAX_RECEIVES,
    };
    let ms = |ms| Duration::from_millis(u64::try_from(ms).expect("positive"));
    let options = QueueOptions {
        visibility_timeout: ms(VISIBILITY),
        redrive: Some(redrive),
        retention: ms(RETENTION),
    };
    let queue = store::create(&db, "live", &options).expect("make the queue");
    let dead = store::find(&db, "dead")
        .expect("look")
        .expect("the dead-letter queue");
    World {
        db,
        queue,
        dead,
        _folder: folder,
    }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let World {
        db,
        queue,
        dead,
        _folder,
    } = world();
    let mut model = Model::default();
    let mut receipts: Vec<Received> = Vec::new();
    let mut last: Vec<Received> = Vec::new();
    let mut now = 1_000_000_000;
    let mut serial = 0;
    for step in steps {
        match step {
            Step::Send(count) => {
                let bodies: Vec<_> = (serial..serial + count)
                    .map(|n| format!("{n:06}"))
                    .collect();
                serial += count;
                let messages: Vec<_> = bodies.iter().cloned().map(Outgoing::from).collect();
                store::send(&db, queue, &messages, now)
                    .expect("send")
                    .expect("a queue");
                model.live.extend(bodies.into_iter().map(|body| Message {
                    body,
                    sent_at: now,
                    visible_at: now,
                    receives: 0,
                }));
            }
            Step::Receive(max) => {
                let delivered = store::receive(&db, queue, max, now).expect("receive");
                last = delivered.expect("a queue").messages;
                let mut seen: Vec<_> = last
                    .iter()
                    .map(|m| (m.body.clone(), m.receive_count))
                    .collect();
                seen.sort();
                prop_assert_eq!(seen, model.receive(max, now));
                receipts.extend(last.iter().cloned());
            }
            Step::Delete(_) | Step::Extend(..) if receipts.is_empty() => {}
            Step::Delete(index) => {
                let receipt = index.get(&receipts);
                let delivery = [DeliveryId::parse(&receipt.receipt)];
                let deleted = store::delete(&db, queue, &delivery).expect("delete");
                let held = model.held(receipt);
                prop_assert_eq!(deleted.expect("a queue"), [held.is_some()]);
                held.map(|at| model.live.remove(at));
            }
            Step::Extend(index, ms) => {
                let receipt = index.get(&receipts);
                let delivery = [DeliveryId::parse(&receipt.receipt)];
                let extended = store::extend(&db, queue, &delivery, ms, now).expect("extend");
                let held = model
                    .held(receipt)
                    .filter(|&at| model.live[at].visible_at > now);
                prop_assert_eq!(extended.expect("a queue").held, [held.is_some()]);
                if let Some(at) = held {
                    model.live[at].visible_at = now + ms;
                }
            }
            Step::Undo => {
                // Nobody has seen these receipts, so they are no longer known to anybody.
                receipts.truncate(receipts.len() - last.len());
                let deliveries: Vec<_> = last
                    .iter()
                    .map(|message| DeliveryId::parse(&message.receipt))
                    .collect();
                let held = store::undo_receive(&db, queue, &deliveries, now).expect("undo");
                for (message, held) in last.drain(..).zip(held.expect("a queue")) {
                    let at = model.held(&message);
                    prop_assert_eq!(held, at.is_some());
                    if let Some(at) = at {
                        model.live[at].receives -= 1;
                        model.live[at].visible_at = now;
                    }
                }
            }
            Step::Pass(ms) => now += ms,
            Step::SetBack(ms) => now -= ms,
            Step::Sweep => {
                store::sweep(&db, now, 1_000).expect("sweep");
                model
                    .live
                    .retain(|message| message.visible_at > now - RETENTION);
            }
            Step::Purge => {
                let newest = store::last_message(&db).expect("look");
                store::purge(&db, queue, newest, 1_000).expect("purge");
                model.live.clear();
            }
        }
        let expired = now - RETENTION;
        let visible = model
            .live
            .iter()
            .filter(|m| m.is_visible(now) && m.visible_at > expired);
        let in_flight = model.live.iter().filter(|m| !m.is_visible(now));
        let expected = (visible.count() as u64, in_flight.count() as u64);
        prop_assert_eq!(
            store::counts(&db, queue, now).expect("count"),
            Some(expected)
        );
        let is_ready = |at: &&Millis| is_due(**at, now);
        let ready = model.dead.iter().filter(is_ready).count();
        let expected = (ready as u64, (model.dead.len() - ready) as u64);
        let dead_letters = store::counts(&db, dead, now).expect("count");
        prop_assert_eq!(dead_letters, Some(expected));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        run(steps)?;
    }
}

#[test]
fn a_clock_that_is_set_back_hides_nothing_that_was_never_received() {
    let World {
        db, queue, _folder, ..
    } = world();
    let sent_at = 1_000_000_000;
    store::send(&db, queue, &["held".to_owned().into()], sent_at).expect("send");
    store::receive(&db, queue, 1, sent_at).expect("receive");
    store::send(&db, queue, &["new".to_owned().into()], sent_at).expect("send");
    let now = sent_at - 3_600_000;
    assert_eq!(store::counts(&db, queue, now).expect("count"), Some((1, 1)));
    let next = store::next_visible_at(&db, queue, now).expect("look");
    assert_eq!(next, Some(Some(now)));
    let delivered = store::receive(&db, queue, 10, now)
        .expect("receive")
        .expect("a queue");
    let bodies: Vec<_> = delivered.messages.iter().map(|m| &m.body).collect();
    assert_eq!(bodies, ["new"]);
    assert_eq!(store::counts(&db, queue, now).expect("count"), Some((0, 2)));
    let next = store::next_visible_at(&db, queue, now).expect("look");
    assert_eq!(next, Some(Some(now + VISIBILITY)));
}

#[test]
fn a_clock_that_was_a_day_ahead_hides_nothing() {
    let World {
        db, queue, _folder, ..
    } = world();
    let now = 1_000_000_000;
    store::send(&db, queue, &["held".to_owned().into()], now + DAY).expect("send");
    store::receive(&db, queue, 1, now + DAY).expect("receive");
    assert_eq!(store::counts(&db, queue, now).expect("count"), Some((1, 0)));
    let next = store::next_visible_at(&db, queue, now).expect("look");
    assert_eq!(next, Some(Some(now)));
    let delivered = store::receive(&db, queue, 10, now).expect("receive");
    assert_eq!(delivered.expect("a queue").messages.len(), 1);
}

#[test]
fn a_message_past_its_retention_is_never_delivered() {
    let World {
        db, queue, _folder, ..
    } = world();
    let sent_at = 1_000_000;
    store::send(&db, queue, &["old".to_owned().into()], sent_at).expect("send");
    let late = sent_at + RETENTION;
    assert_eq!(
        store::counts(&db, queue, late - 1).expect("count"),
        Some((1, 0))
    );
    assert_eq!(
        store::counts(&db, queue, late).expect("count"),
        Some((0, 0))
    );
    let delivered = store::receive(&db, queue, 10, late)
        .expect("receive")
        .expect("a queue");
    assert!(delivered.messages.is_empty());
    assert_eq!(
        store::sweep(&db, late, 10).expect("sweep"),
        0,
        "the receive has deleted it"
    );
}

#[test]
fn a_sweep_is_bounded_and_spares_what_is_young() {
    let World {
        db,
        queue,
        dead,
        _folder,
    } = world();
    let old = vec![Outgoing::from("old".to_owned()); 30];
    store::send(&db, queue, &old, 1_000_000).expect("send");
    // The dead-letter queue keeps its messages longer.
    store::send(&db, dead, &old, 1_000_000).expect("send");
    store::send(&db, queue, &["young".to_owned().into()], 1_000_001).expect("send");
    let now = 1_000_000 + RETENTION;
    assert_eq!(store::sweep(&db, now, 20).expect("sweep"), 20);
    assert_eq!(store::sweep(&db, now, 20).expect("sweep"), 10);
    assert_eq!(store::counts(&db, queue, now).expect("count"), Some((1, 0)));
    assert_eq!(store::counts(&db, dead, now).expect("count"), Some((30, 0)));
    assert!(now < 1_000_000 + store::millis(MAX_RETENTION));
}

//! Outboxes and deleters on a queue that fails by script.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::prelude::*;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::{Counts, Received};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const IN_FLIGHT: usize = 3;

const OPTIONS: OutboxOptions = OutboxOptions {
    linger: Duration::from_millis(1),
    in_flight: IN_FLIGHT,
};

/// Brief pauses, and no giving up within a test.
const PERSISTENT: Retries = Retries {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(3),
    give_up_after: Duration::from_secs(600),
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Throttled,
    /// Unavailable before anything happened.
    Lost,
    /// Unavailable after all happened.
    Unheard,
    Refused,
}

#[derive(Debug, Clone)]
enum Script {
    Whole(Fault),
    /// Too large, unless it is one entry.
    TooLarge,
    /// The nth entry fares like the nth of these, and those beyond them well.
    Entries(Vec<Fault>),
}

/// What happened to one body or receipt.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    done: usize,
    unavailable: usize,
    refused: usize,
}

/// Does what its script says, one line a call, and works when it is through.
#[derive(Debug)]
struct Faulty {
    script: Mutex<VecDeque<Script>>,
    calls: Mutex<Vec<Vec<String>>>,
    fates: Mutex<BTreeMap<String, Fate>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    /// While it is shut, whatever contains "held" is throttled.
    open: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

fn error(fault: Fault) -> Option<QueueError> {
    let source = "as the script says".into();
    match fault {
        Fault::None => None,
        Fault::Throttled => Some(QueueError::Throttled { source }),
        Fault::Lost | Fault::Unheard => Some(QueueError::Unavailable { source }),
        Fault::Refused => Some(QueueError::Refused { source }),
    }
}

impl Faulty {
    fn new(script: Vec<Script>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into()),
            calls: Mutex::default(),
            fates: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        })
    }

    /// Does `act` for each name that the script lets pass, once a call like a real service.
    async fn play<A>(
        &self,
        names: Vec<String>,
        act: impl Fn(&str, usize) -> Result<A, QueueError>,
    ) -> Result<Vec<Result<A, QueueError>>, QueueError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_micros(200)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        lock(&self.calls).push(names.clone());
        let script = lock(&self.script).pop_front();
        let faults = match script.unwrap_or(Script::Whole(Fault::None)) {
            Script::TooLarge if names.len() > 1 => {
                return Err(QueueError::TooLarge {
                    bytes: names.len(),
                    limit: 1,
                });
            }
            Script::TooLarge => Vec::new(),
            Script::Entries(faults) => faults,
            Script::Whole(fault) => vec![fault; names.len()],
        };
        let whole = faults.first().copied().filter(|first| {
            faults.len() == names.len() && faults.iter().all(|fault| fault == first)
        });
        let mut fates = lock(&self.fates);
        let outcomes = names.iter().enumerate().map(|(index, name)| {
            let mut fault = faults.get(index).copied().unwrap_or(Fault::None);
            if name.contains("held") && !*self.open.borrow() {
                fault = Fault::Throttled;
            }
            let fate = fates.entry(name.clone()).or_default();
            let mut outcome = None;
            if matches!(fault, Fault::None | Fault::Unheard) {
                outcome = Some(act(name, fate.done));
                fate.done += 1;
            }
            fate.unavailable += usize::from(matches!(fault, Fault::Lost | Fault::Unheard));
            fate.refused += usize::from(fault == Fault::Refused);
            match (error(fault), outcome) {
                (None, Some(outcome)) => outcome,
                (Some(error), _) => Err(error),
                (None, None) => unreachable!("what has no fault was done"),
            }
        });
        let outcomes: Vec<_> = outcomes.collect();
        match whole.and_then(error) {
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    fn fate(&self, name: &str) -> Fate {
        lock(&self.fates).get(name).copied().unwrap_or_default()
    }

    fn calls(&self) -> Vec<Vec<String>> {
        lock(&self.calls).clone()
    }
}

#[async_trait]
impl Queue for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }

    async fn send(
        &self,
        messages: &[Outgoing],
    ) -> Result<Vec<Result<MessageId, QueueError>>, QueueError> {
        check_messages(messages).expect("batches are within the limits");
        let names = messages.iter().map(|message| message.body.clone());
        self.play(names.collect(), |name, _| Ok(MessageId(name.to_owned())))
            .await
    }

    async fn delete(
        &self,
        receipts: &[Receipt],
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        crate::queue::check_entries(receipts.len()).expect("batches are within the limits");
        let names = receipts.iter().map(|receipt| receipt.0.clone());
        self.play(names.collect(), |name, done| {
            if done > 0 || name.contains("expired") {
                Err(QueueError::ReceiptExpired)
            } else {
                Ok(())
            }
        })
        .await
    }

    async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Received>, QueueError> {
        unreachable!("nobody receives")
    }

    async fn extend(
        &self,
        _: &[Receipt],
        _: Duration,
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        unreachable!("nobody extends")
    }

    async fn purge(&self) -> Result<(), QueueError> {
        unreachable!("nobody purges")
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        unreachable!("nobody counts")
    }

    async fn wait_for_send(&self, _: Duration) -> Result<(), QueueError> {
        unreachable!("nobody waits")
    }

    async fn remove(&self) -> Result<(), QueueError> {
        unreachable!("nobody removes")
    }
}

/// A batcher at work, which must end by itself.
struct Bench<O: Operation> {
    queue: Arc<Faulty>,
    entrance: Entrance<O>,
    run: tokio::task::JoinHandle<()>,
}

impl<O: Operation> Bench<O> {
    fn new(script: Vec<Script>, options: OutboxOptions, retries: Retries) -> Self {
        let queue = Faulty::new(script);
        let shared: Arc<dyn Queue> = Arc::<Faulty>::clone(&queue);
        let (entrance, run) = start(shared, options, retries);
        Self {
            queue,
            entrance,
            run: tokio::spawn(run),
        }
    }

    /// Hands everything in at the same time, and returns how each fared.
    async fn all(&self, items: Vec<O::Item>) -> Vec<Result<O::Answer, QueueError>> {
        let mut tasks: Vec<_> = items.into_iter().map(|item| self.one(item)).collect();
        let mut outcomes = Vec::new();
        for task in tasks.drain(..) {
            outcomes.push(settled(task).await);
        }
        outcomes
    }

    fn one(&self, item: O::Item) -> tokio::task::JoinHandle<Result<O::Answer, QueueError>> {
        let entrance = self.entrance.clone();
        tokio::spawn(async move { entrance.hand_in(item).await })
    }

    /// Drops the last handle and waits for the end.
    async fn finish(self) -> Arc<Faulty> {
        drop(self.entrance);
        timeout(PATIENCE, self.run)
            .await
            .expect("the work ends")
            .expect("join");
        self.queue
    }
}

async fn settled<T>(task: tokio::task::JoinHandle<T>) -> T {
    timeout(PATIENCE, task)
        .await
        .expect("the entry is settled")
        .expect("join")
}

fn message(body: impl Into<String>) -> Outgoing {
    Outgoing::from(body.into())
}

fn receipt(name: impl Into<String>) -> Receipt {
    Receipt(name.into())
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        3 => Just(Fault::Throttled),
        1 => Just(Fault::Lost),
        1 => Just(Fault::Unheard),
        1 => Just(Fault::Refused),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    prop_oneof![
        3 => fault().prop_map(Script::Whole),
        1 => Just(Script::TooLarge),
        4 => prop::collection::vec(fault(), 1..=MAX_BATCH).prop_map(Script::Entries),
    ]
}

fn options() -> impl Strategy<Value = OutboxOptions> {
    (0_u64..3, 0_usize..4).prop_map(|(linger_ms, in_flight)| OutboxOptions {
        linger: Duration::from_millis(linger_ms),
        in_flight,
    })
}

fn on_a_runtime(
    test: impl Future<Output = Result<(), TestCaseError>>,
) -> Result<(), TestCaseError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("make a runtime")
        .block_on(test)
}

async fn sends(
    script: Vec<Script>,
    options: OutboxOptions,
    sizes: Vec<usize>,
) -> Result<(), TestCaseError> {
    let bench = Bench::<Sends>::new(script, options, PERSISTENT);
    let bodies: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(n, &size)| format!("{n}{}", "x".repeat(size)))
        .collect();
    let outcomes = bench.all(bodies.iter().map(message).collect()).await;
    let queue = bench.finish().await;
    prop_assert!(queue.most_running.load(Ordering::SeqCst) <= options.in_flight.max(1));
    for (body, outcome) in bodies.iter().zip(outcomes) {
        let fate = queue.fate(body);
        match outcome {
            Ok(id) => prop_assert_eq!(&id.0, body, "each hears of its own message"),
            Err(QueueError::Refused { .. }) => {
                prop_assert_eq!(fate.refused, 1, "a refusal is final");
            }
            Err(other) => prop_assert!(false, "{:?} was to be tried again", other),
        }
        // Nothing is lost, and nothing doubled but what was unavailable.
        prop_assert!(fate.done + fate.refused >= 1, "{:?}", fate);
        prop_assert!(
            fate.done + fate.refused <= 1 + fate.unavailable,
            "{:?}",
            fate
        );
    }
    Ok(())
}

async fn deletes(
    script: Vec<Script>,
    options: OutboxOptions,
    count: usize,
) -> Result<(), TestCaseError> {
    let bench = Bench::<Deletes>::new(script, options, PERSISTENT);
    let names: Vec<_> = (0..count)
        .map(|n| format!("{n}{}", if n % 5 == 0 { " expired" } else { "" }))
        .collect();
    let outcomes = bench.all(names.iter().map(receipt).collect()).await;
    let queue = bench.finish().await;
    for (name, outcome) in names.iter().zip(outcomes) {
        let fate = queue.fate(name);
        match outcome {
            Ok(()) => prop_assert!(fate.done == 1 && !name.contains("expired")),
            Err(QueueError::ReceiptExpired) => {
                prop_assert!(
                    name.contains("expired") || fate.unavailable > 0,
                    "{:?}",
                    fate
                );
            }
            Err(QueueError::Refused { .. }) => prop_assert_eq!(fate.refused, 1),
            Err(other) => prop_assert!(false, "{:?} was to be tried again", other),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn sends_are_neither_lost_nor_doubled(
        script in prop::collection::vec(script(), 0..12),
        options in options(),
        sizes in prop::collection::vec(prop_oneof![9 => Just(0), 1 => Just(400_000_usize)], 1..45),
    ) {
        on_a_runtime(sends(script, options, sizes))?;
    }

    #[test]
    fn deletes_concern_their_own_callers(
        script in prop::collection::vec(script(), 0..12),
        options in options(),
        count in 1_usize..45,
    ) {
        on_a_runtime(deletes(script, options, count))?;
    }
}

#[tokio::test]
async fn what_failed_goes_again_alone_and_the_others_do_not_wait() {
    let options = OutboxOptions {
        linger: PATIENCE,
        in_flight: 1,
    };
    let bench = Bench::<Sends>::new(Vec::new(), options, PERSISTENT);
    bench.queue.open.send_replace(false);
    let held = bench.one(message("held"));
    let others: Vec<_> = (1..MAX_BATCH).map(|n| n.to_string()).collect();
    for outcome in bench.all(others.iter().map(message).collect()).await {
        outcome.expect("sent");
    }
    assert!(!held.is_finished());
    bench.queue.open.send_replace(true);
    // The last handle hurries what lingers.
    let queue = bench.finish().await;
    settled(held).await.expect("sent");
    let calls = queue.calls();
    assert_eq!(calls[0].len(), MAX_BATCH, "a full batch does not linger");
    assert!(calls.len() > 1);
    assert!(calls[1..].iter().all(|call| call == &["held"]), "{calls:?}");
    assert!(others.iter().all(|other| queue.fate(other).done == 1));
}

#[tokio::test]
async fn entries_gather_while_they_linger() {
    let options = OutboxOptions {
        linger: Duration::from_millis(200),
        in_flight: 8,
    };
    let bench = Bench::<Deletes>::new(Vec::new(), options, PERSISTENT);
    let outcomes = bench.all((0..4).map(|n| receipt(n.to_string())).collect());
    assert!(outcomes.await.iter().all(Result::is_ok));
    assert_eq!(bench.finish().await.calls().len(), 1);
}

#[tokio::test]
async fn the_last_failure_is_told_when_the_time_is_over() {
    let hasty = Retries {
        give_up_after: Duration::from_millis(50),
        ..PERSISTENT
    };
    let bench = Bench::<Sends>::new(Vec::new(), OPTIONS, hasty);
    bench.queue.open.send_replace(false);
    let outcomes = bench.all(vec![message("held"), message("other")]).await;
    assert!(matches!(outcomes[0], Err(QueueError::Throttled { .. })));
    assert!(outcomes[1].is_ok());
    let queue = bench.finish().await;
    assert!(queue.calls().len() > 2);
    assert_eq!(queue.fate("held").done, 0);
}

#[tokio::test]
async fn a_refused_batch_is_everybodys_and_is_not_tried_again() {
    let options = OutboxOptions {
        linger: PATIENCE,
        in_flight: 1,
    };
    let refusal = Script::Whole(Fault::Refused);
    let bench = Bench::<Sends>::new(vec![refusal], options, PERSISTENT);
    let bodies = (0..MAX_BATCH).map(|n| message(n.to_string()));
    for outcome in bench.all(bodies.collect()).await {
        assert!(matches!(outcome, Err(QueueError::Refused { .. })));
    }
    assert_eq!(bench.finish().await.calls().len(), 1);
}

#[tokio::test]
async fn a_batch_that_the_service_finds_too_large_is_halved() {
    let options = OutboxOptions {
        linger: PATIENCE,
        in_flight: 1,
    };
    let bench = Bench::<Sends>::new(vec![Script::TooLarge; 20], options, PERSISTENT);
    let bodies: BTreeSet<_> = (0..MAX_BATCH).map(|n| n.to_string()).collect();
    for outcome in bench.all(bodies.iter().map(message).collect()).await {
        outcome.expect("sent");
    }
    let queue = bench.finish().await;
    assert!(bodies.iter().all(|body| queue.fate(body).done == 1));
}

#[tokio::test]
async fn a_message_that_can_not_be_carried_disturbs_nobody() {
    let queue = Faulty::new(Vec::new());
    let (outbox, run) = Outbox::new(Arc::<Faulty>::clone(&queue), OPTIONS);
    let run = tokio::spawn(run);
    let (good, bad) = tokio::join!(outbox.send(message("good")), outbox.send(message("\0")));
    assert_eq!(good.expect("sent").as_str(), "good");
    assert!(matches!(bad, Err(QueueError::InvalidBody { index: 0 })));
    drop(outbox);
    settled(run).await;
    assert_eq!(queue.calls(), [["good"]]);
}

#[tokio::test]
async fn more_than_is_held_waits_to_be_handed_in() {
    let bench = Bench::<Sends>::new(Vec::new(), OPTIONS, PERSISTENT);
    bench.queue.open.send_replace(false);
    let large = || message(format!("held{}", "x".repeat(MAX_BODY_BYTES - 10)));
    let room = Arc::clone(&bench.entrance.room);
    let tasks: Vec<_> = (0..20).map(|_| bench.one(large())).collect();
    timeout(PATIENCE, async {
        while room.available_permits() >= MAX_BODY_BYTES + ENTRY_BYTES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("there is no more room");
    assert!(tasks.iter().all(|task| !task.is_finished()));
    bench.queue.open.send_replace(true);
    for task in tasks {
        settled(task).await.expect("sent");
    }
    bench.finish().await;
    assert_eq!(room.available_permits(), HELD_BYTES);
}

#[tokio::test]
async fn a_caller_of_work_that_was_dropped_hears_of_it() {
    let queue = Faulty::new(Vec::new());
    queue.open.send_replace(false);
    let (outbox, run) = Outbox::new(Arc::<Faulty>::clone(&queue), OPTIONS);
    let run = tokio::spawn(run);
    let waiting = {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.send(message("held")).await })
    };
    timeout(PATIENCE, async {
        while queue.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the first call was made");
    run.abort();
    assert!(matches!(
        settled(waiting).await,
        Err(QueueError::Unavailable { .. })
    ));
    let late = outbox.send(message("late")).await;
    assert!(matches!(late, Err(QueueError::Unavailable { .. })));
}

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
use crate::{limits::check_entries, message::Received, queue::Counts};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

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
    /// Unavailable, and nothing has happened.
    RequestLost,
    /// Unavailable, and everything has happened.
    AnswerLost,
    Refused,
}

#[derive(Debug, Clone)]
enum Script {
    Whole(Fault),
    /// Too large, unless it is one entry.
    TooLarge,
    /// One for each entry in order; entries beyond them have none.
    Entries(Vec<Fault>),
}

/// How often each thing happened to one body or receipt.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    done: usize,
    unavailable: usize,
    refused: usize,
}

/// Answers each call by the next step of its script, and without faults when that has ended.
#[derive(Debug)]
struct ScriptedQueue {
    script: Mutex<VecDeque<Script>>,
    calls: Mutex<Vec<Vec<String>>>,
    histories: Mutex<BTreeMap<String, History>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    /// While this is false, whatever contains "held" is throttled.
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
        Fault::RequestLost | Fault::AnswerLost => Some(QueueError::Unavailable { source }),
        Fault::Refused => Some(QueueError::Refused { source }),
    }
}

impl ScriptedQueue {
    fn new(script: Vec<Script>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into()),
            calls: Mutex::default(),
            histories: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        })
    }

    /// Does `act` for each name that the script lets pass, as a service does it in one call.
    async fn run_script<A>(
        &self,
        names: Vec<String>,
        act: impl Fn(&str, usize) -> Result<A, QueueError>,
    ) -> BatchResult<A> {
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
        let mut histories = lock(&self.histories);
        let outcomes = names.iter().enumerate().map(|(index, name)| {
            let mut fault = faults.get(index).copied().unwrap_or(Fault::None);
            if name.contains("held") && !*self.open.borrow() {
                fault = Fault::Throttled;
            }
            let history = histories.entry(name.clone()).or_default();
            let mut outcome = None;
            if matches!(fault, Fault::None | Fault::AnswerLost) {
                outcome = Some(act(name, history.done));
                history.done += 1;
            }
            history.unavailable +=
                usize::from(matches!(fault, Fault::RequestLost | Fault::AnswerLost));
            history.refused += usize::from(fault == Fault::Refused);
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

    fn history(&self, name: &str) -> History {
        lock(&self.histories).get(name).copied().unwrap_or_default()
    }

    fn calls(&self) -> Vec<Vec<String>> {
        lock(&self.calls).clone()
    }
}

#[async_trait]
impl Queue for ScriptedQueue {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn message_limit(&self) -> Result<usize, QueueError> {
        unreachable!("nobody asks")
    }

    async fn send(&self, messages: &[Outgoing]) -> BatchResult<MessageId> {
        check_messages(messages).expect("batches are within the limits");
        let names = messages.iter().map(|message| message.body.clone());
        self.run_script(names.collect(), |name, _| Ok(MessageId(name.to_owned())))
            .await
    }

    async fn delete(&self, receipts: &[Receipt]) -> BatchResult<()> {
        check_entries(receipts.len()).expect("batches are within the limits");
        let names = receipts.iter().map(|receipt| receipt.0.clone());
        self.run_script(names.collect(), |name, done| {
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

    async fn extend(&self, _: &[Receipt], _: Duration) -> BatchResult<()> {
        unreachable!("nobody extends")
    }

    async fn hand_back(&self, _: &[Received]) -> BatchResult<()> {
        unreachable!("nobody hands back")
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

/// A running batcher, which must end by itself.
struct Running<O: BatchOperation> {
    queue: Arc<ScriptedQueue>,
    submitter: Submitter<O>,
    run: tokio::task::JoinHandle<()>,
}

impl<O: BatchOperation> Running<O> {
    fn new(script: Vec<Script>, options: OutboxOptions, retries: Retries) -> Self {
        let queue = ScriptedQueue::new(script);
        let shared: Arc<dyn Queue> = Arc::<ScriptedQueue>::clone(&queue);
        let (submitter, run) = start(shared, options, retries);
        Self {
            queue,
            submitter,
            run: tokio::spawn(run),
        }
    }

    /// Submits everything at the same time, and returns the answers.
    async fn submit_all(&self, items: Vec<O::Item>) -> Vec<Result<O::Answer, QueueError>> {
        let mut tasks: Vec<_> = items
            .into_iter()
            .map(|item| self.spawn_submit(item))
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks.drain(..) {
            outcomes.push(joined(task).await);
        }
        outcomes
    }

    fn spawn_submit(
        &self,
        item: O::Item,
    ) -> tokio::task::JoinHandle<Result<O::Answer, QueueError>> {
        let submitter = self.submitter.clone();
        tokio::spawn(async move { submitter.submit(item).await })
    }

    /// Drops the last handle and waits for the end.
    async fn finish(self) -> Arc<ScriptedQueue> {
        drop(self.submitter);
        timeout(LIMIT, self.run)
            .await
            .expect("the work ends")
            .expect("join");
        self.queue
    }
}

async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    timeout(LIMIT, task)
        .await
        .expect("the entry is answered")
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
        1 => Just(Fault::RequestLost),
        1 => Just(Fault::AnswerLost),
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
    let running = Running::<SendBatch>::new(script, options, PERSISTENT);
    let bodies: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(n, &size)| format!("{n}{}", "x".repeat(size)))
        .collect();
    let outcomes = running
        .submit_all(bodies.iter().map(message).collect())
        .await;
    let queue = running.finish().await;
    prop_assert!(queue.most_running.load(Ordering::SeqCst) <= options.in_flight.max(1));
    for (body, outcome) in bodies.iter().zip(outcomes) {
        let history = queue.history(body);
        match outcome {
            Ok(id) => prop_assert_eq!(
                &id.0,
                body,
                "each caller gets the answer to its own message"
            ),
            Err(QueueError::Refused { .. }) => {
                prop_assert_eq!(history.refused, 1, "a refusal is final");
            }
            Err(other) => prop_assert!(false, "{:?} should have been retried", other),
        }
        // Nothing is lost, and nothing doubled but what was unavailable.
        prop_assert!(history.done + history.refused >= 1, "{:?}", history);
        prop_assert!(
            history.done + history.refused <= 1 + history.unavailable,
            "{:?}",
            history
        );
    }
    Ok(())
}

async fn deletes(
    script: Vec<Script>,
    options: OutboxOptions,
    count: usize,
) -> Result<(), TestCaseError> {
    let running = Running::<DeleteBatch>::new(script, options, PERSISTENT);
    let names: Vec<_> = (0..count)
        .map(|n| format!("{n}{}", if n % 5 == 0 { " expired" } else { "" }))
        .collect();
    let outcomes = running
        .submit_all(names.iter().map(receipt).collect())
        .await;
    let queue = running.finish().await;
    for (name, outcome) in names.iter().zip(outcomes) {
        let history = queue.history(name);
        match outcome {
            Ok(()) => prop_assert!(history.done == 1 && !name.contains("expired")),
            Err(QueueError::ReceiptExpired) => {
                prop_assert!(
                    name.contains("expired") || history.unavailable > 0,
                    "{:?}",
                    history
                );
            }
            Err(QueueError::Refused { .. }) => prop_assert_eq!(history.refused, 1),
            Err(other) => prop_assert!(false, "{:?} should have been retried", other),
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
async fn failed_entries_are_retried_alone_and_the_others_do_not_wait() {
    let options = OutboxOptions {
        linger: LIMIT,
        in_flight: 1,
    };
    let running = Running::<SendBatch>::new(Vec::new(), options, PERSISTENT);
    running.queue.open.send_replace(false);
    let held = running.spawn_submit(message("held"));
    let others: Vec<_> = (1..MAX_BATCH).map(|n| n.to_string()).collect();
    for outcome in running
        .submit_all(others.iter().map(message).collect())
        .await
    {
        outcome.expect("sent");
    }
    assert!(!held.is_finished());
    running.queue.open.send_replace(true);
    // The last handle hurries what lingers.
    let queue = running.finish().await;
    joined(held).await.expect("sent");
    let calls = queue.calls();
    assert_eq!(calls[0].len(), MAX_BATCH, "a full batch does not linger");
    assert!(calls.len() > 1);
    assert!(calls[1..].iter().all(|call| call == &["held"]), "{calls:?}");
    assert!(others.iter().all(|other| queue.history(other).done == 1));
}

#[tokio::test]
async fn entries_gather_while_they_linger() {
    let options = OutboxOptions {
        linger: Duration::from_millis(200),
        in_flight: 8,
    };
    let running = Running::<DeleteBatch>::new(Vec::new(), options, PERSISTENT);
    let outcomes = running.submit_all((0..4).map(|n| receipt(n.to_string())).collect());
    assert!(outcomes.await.iter().all(Result::is_ok));
    assert_eq!(running.finish().await.calls().len(), 1);
}

#[tokio::test]
async fn the_last_failure_is_returned_when_the_time_is_over() {
    let hasty = Retries {
        give_up_after: Duration::from_millis(50),
        ..PERSISTENT
    };
    let running = Running::<SendBatch>::new(Vec::new(), OPTIONS, hasty);
    running.queue.open.send_replace(false);
    let outcomes = running
        .submit_all(vec![message("held"), message("other")])
        .await;
    assert!(matches!(outcomes[0], Err(QueueError::Throttled { .. })));
    assert!(outcomes[1].is_ok());
    let queue = running.finish().await;
    assert!(queue.calls().len() > 2);
    assert_eq!(queue.history("held").done, 0);
}

#[tokio::test]
async fn a_refused_batch_is_refused_to_every_caller_and_not_retried() {
    let options = OutboxOptions {
        linger: LIMIT,
        in_flight: 1,
    };
    let refusal = Script::Whole(Fault::Refused);
    let running = Running::<SendBatch>::new(vec![refusal], options, PERSISTENT);
    let bodies = (0..MAX_BATCH).map(|n| message(n.to_string()));
    for outcome in running.submit_all(bodies.collect()).await {
        assert!(matches!(outcome, Err(QueueError::Refused { .. })));
    }
    assert_eq!(running.finish().await.calls().len(), 1);
}

#[tokio::test]
async fn a_batch_that_the_service_finds_too_large_is_halved() {
    let options = OutboxOptions {
        linger: LIMIT,
        in_flight: 1,
    };
    let running = Running::<SendBatch>::new(vec![Script::TooLarge; 20], options, PERSISTENT);
    let bodies: BTreeSet<_> = (0..MAX_BATCH).map(|n| n.to_string()).collect();
    for outcome in running
        .submit_all(bodies.iter().map(message).collect())
        .await
    {
        outcome.expect("sent");
    }
    let queue = running.finish().await;
    assert!(bodies.iter().all(|body| queue.history(body).done == 1));
}

#[tokio::test]
async fn an_invalid_message_disturbs_nobody() {
    let queue = ScriptedQueue::new(Vec::new());
    let (outbox, run) = Outbox::new(Arc::<ScriptedQueue>::clone(&queue), OPTIONS);
    let run = tokio::spawn(run);
    let (good, bad) = tokio::join!(outbox.send(message("good")), outbox.send(message("\0")));
    assert_eq!(good.expect("sent").as_str(), "good");
    assert!(matches!(bad, Err(QueueError::InvalidBody { index: 0 })));
    drop(outbox);
    joined(run).await;
    assert_eq!(queue.calls(), [["good"]]);
}

#[tokio::test]
async fn callers_wait_while_too_many_bytes_are_pending() {
    let running = Running::<SendBatch>::new(Vec::new(), OPTIONS, PERSISTENT);
    running.queue.open.send_replace(false);
    let large = || message(format!("held{}", "x".repeat(MAX_BODY_BYTES - 10)));
    let memory = Arc::clone(&running.submitter.memory);
    let tasks: Vec<_> = (0..20).map(|_| running.spawn_submit(large())).collect();
    timeout(LIMIT, async {
        while memory.available_permits() >= MAX_BODY_BYTES + ENTRY_OVERHEAD_BYTES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("there is no more memory");
    assert!(tasks.iter().all(|task| !task.is_finished()));
    running.queue.open.send_replace(true);
    for task in tasks {
        joined(task).await.expect("sent");
    }
    running.finish().await;
    assert_eq!(memory.available_permits(), MAX_PENDING_BYTES);
}

#[tokio::test]
async fn a_caller_whose_batcher_was_dropped_is_told() {
    let queue = ScriptedQueue::new(Vec::new());
    queue.open.send_replace(false);
    let (outbox, run) = Outbox::new(Arc::<ScriptedQueue>::clone(&queue), OPTIONS);
    let run = tokio::spawn(run);
    let waiting = {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.send(message("held")).await })
    };
    timeout(LIMIT, async {
        while queue.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the first call was made");
    run.abort();
    assert!(matches!(
        joined(waiting).await,
        Err(QueueError::Unavailable { .. })
    ));
    let late = outbox.send(message("late")).await;
    assert!(matches!(late, Err(QueueError::Unavailable { .. })));
}

//! Measures what a queue costs: `cargo run --release -p muster-queue --example figures`.
//!
//! With the argument `sqs` it measures the client of SQS, against the server that `MUSTER_MOTO`
//! names; without, the queue in SQLite.
//!
//! CPU is that of the whole process, all threads, user and system, from `/proc/self/stat` (a tick
//! is 10 ms, so each measurement is long).

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio, exit},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use muster_queue::{
    Deleter, MAX_BATCH, MAX_RETENTION, MAX_WAIT, Outbox, OutboxOptions, Outgoing, Queue,
    QueueError, QueueOptions, Receipt, Received, SqliteQueue, SqliteQueues, SqsQueues,
};
use muster_testbed::{moto, sdk_config};
use tokio::task::JoinSet;

const BODY_BYTES: usize = 400;
const SQS_MESSAGES: usize = 500;
const SQS_SENDERS: usize = 50;

fn cpu(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn receipts(received: &[Received]) -> Vec<Receipt> {
    received
        .iter()
        .map(|message| message.receipt.clone())
        .collect()
}

fn options() -> QueueOptions {
    QueueOptions {
        visibility_timeout: Duration::from_secs(600),
        redrive: None,
        retention: MAX_RETENTION,
    }
}

fn report(what: &str, operations: u32, wall: Duration, cpu: Duration) {
    println!(
        "{what}: {:.1} us CPU and {:.1} us wall an operation, {:.0} operations/s",
        cpu.as_secs_f64() * 1e6 / f64::from(operations),
        wall.as_secs_f64() * 1e6 / f64::from(operations),
        f64::from(operations) / wall.as_secs_f64(),
    );
}

/// Sends, receives and deletes one message after another: three operations a round.
async fn one_by_one(queue: &SqliteQueue, rounds: u32) -> Result<(), QueueError> {
    let body = ["x".repeat(BODY_BYTES).into()];
    for _ in 0..rounds {
        queue.send(&body).await?;
        let received = queue.receive(1, MAX_WAIT).await?;
        queue.delete(&receipts(&received)).await?;
    }
    Ok(())
}

/// Measures the operations on a queue with many messages.
async fn with_backlog(queue: &SqliteQueue) -> Result<(), QueueError> {
    const MESSAGES: usize = 100_000;
    let batch = vec![Outgoing::from("x".repeat(BODY_BYTES)); MAX_BATCH];
    let (begun, before) = (Instant::now(), cpu("self"));
    for _ in 0..MESSAGES / MAX_BATCH {
        queue.send(&batch).await?;
    }
    let sends = u32::try_from(MESSAGES / MAX_BATCH).unwrap_or(u32::MAX);
    report(
        "send 10 (100,000 messages)",
        sends,
        begun.elapsed(),
        cpu("self") - before,
    );

    let (begun, before) = (Instant::now(), cpu("self"));
    for _ in 0..10_000 {
        queue.counts().await?;
    }
    report(
        "counts with 100,000 waiting",
        10_000,
        begun.elapsed(),
        cpu("self") - before,
    );

    let (begun, before) = (Instant::now(), cpu("self"));
    for _ in 0..10_000 {
        queue.receive(1, MAX_WAIT).await?;
    }
    report(
        "receive 1 with 100,000 waiting",
        10_000,
        begun.elapsed(),
        cpu("self") - before,
    );

    let begun = Instant::now();
    queue.purge().await?;
    println!(
        "purge of 100,000: {:.0} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

fn start_peer(role: &str, path: &Path) -> std::io::Result<(Child, String)> {
    let mut peer = Command::new(env::current_exe()?)
        .arg(role)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    if let Some(stdout) = peer.stdout.take() {
        BufReader::new(stdout).read_line(&mut ready)?;
    }
    let id = peer.id().to_string();
    Ok((peer, id))
}

/// Runs as the other process: answers every request, or only waits.
async fn run_peer(role: &str, path: &Path) -> Result<(), QueueError> {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    let queues = SqliteQueues::open(path)?;
    let requests = queues.existing("requests").await?;
    let replies = queues.existing("replies").await?;
    println!("ready");
    let _ = std::io::stdout().flush();
    loop {
        let received = requests.receive(1, MAX_WAIT).await?;
        if role == "echo" && !received.is_empty() {
            replies.send(&[received[0].body.clone().into()]).await?;
            requests.delete(&receipts(&received)).await?;
        }
    }
}

/// Measures the time from one process to another, and what an idle receiver costs.
async fn across_processes(queues: &SqliteQueues) -> Result<(), Box<dyn std::error::Error>> {
    const ROUNDS: u32 = 2_000;
    let requests = queues.queue("requests", &options()).await?;
    let replies = queues.queue("replies", &options()).await?;
    let (mut echo, id) = start_peer("echo", queues.path())?;
    let (before, before_peer) = (cpu("self"), cpu(&id));
    let mut rounds = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let body = ["x".repeat(BODY_BYTES).into()];
    for _ in 0..ROUNDS {
        pace.tick().await;
        let begun = Instant::now();
        requests.send(&body).await?;
        let reply = replies.receive(1, MAX_WAIT).await?;
        rounds.push(begun.elapsed() / 2);
        replies.delete(&receipts(&reply)).await?;
    }
    let spent = [cpu("self") - before, cpu(&id) - before_peer];
    rounds.sort_unstable();
    let at = |share: usize| rounds[rounds.len() * share / 1000].as_secs_f64() * 1e6;
    println!(
        "one way between processes at 100/s (half a round trip): p50 {:.0} us, p99 {:.0} us, max {:.0} us",
        at(500),
        at(990),
        at(999),
    );
    let [asking, answering] = spent.map(|cpu| cpu.as_secs_f64() * 1e6 / f64::from(ROUNDS * 3));
    println!(
        "CPU of the two processes, 3 operations a round each: {asking:.1} us (with the pacing) and \
         {answering:.1} us an operation"
    );
    echo.kill()?;
    echo.wait()?;

    let (mut idle, id) = start_peer("idle", queues.path())?;
    let window = Duration::from_secs(30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = cpu(&id);
    tokio::time::sleep(window).await;
    let share = (cpu(&id) - before).as_secs_f64() / window.as_secs_f64() * 100.0;
    println!("an idle receiver: {share:.3} % of a core over {window:?} (a tick is 0.033 %)");
    idle.kill()?;
    idle.wait()?;
    Ok(())
}

async fn drain(queue: &dyn Queue, deleter: Option<&Deleter>) -> Result<(), QueueError> {
    let mut left = SQS_MESSAGES;
    while left > 0 {
        let received = queue.receive(MAX_BATCH, MAX_WAIT).await?;
        left -= received.len();
        match deleter {
            None => {
                for receipt in receipts(&received) {
                    queue.delete(&[receipt]).await?;
                }
            }
            Some(deleter) => {
                let mut deletes = JoinSet::new();
                for receipt in receipts(&received) {
                    let deleter = deleter.clone();
                    deletes.spawn(async move { deleter.delete(receipt).await });
                }
                deletes
                    .join_all()
                    .await
                    .into_iter()
                    .collect::<Result<(), _>>()?;
            }
        }
    }
    Ok(())
}

/// CPU of the client alone: the server is another process, and too slow for its times to matter.
async fn over_sqs() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = moto::endpoint().ok_or("MUSTER_MOTO names no moto_server")?;
    let queues = SqsQueues::new(&sdk_config(endpoint), "");
    let queue: Arc<dyn Queue> = Arc::new(queues.queue("figures", &options()).await?);
    let per_message = |what: &str, spent: Duration, calls: usize| {
        println!(
            "{what}: {:.2} ms CPU a message, {:.2} ms a call",
            spent.as_secs_f64() * 1e3 / SQS_MESSAGES as f64,
            spent.as_secs_f64() * 1e3 / calls as f64,
        );
    };
    let message = || Outgoing {
        body: "x".repeat(BODY_BYTES),
        attributes: [("traceparent".to_owned(), "x".repeat(55))].into(),
    };
    queue.send(&[message()]).await?;
    queue
        .delete(&receipts(&queue.receive(1, MAX_WAIT).await?))
        .await?;

    let before = cpu("self");
    for _ in 0..SQS_MESSAGES {
        queue.send(&[message()]).await?;
    }
    per_message("send 1", cpu("self") - before, SQS_MESSAGES);
    let before = cpu("self");
    drain(&*queue, None).await?;
    let calls = SQS_MESSAGES + SQS_MESSAGES / MAX_BATCH;
    per_message("receive 10, delete 1", cpu("self") - before, calls);

    let batching = OutboxOptions {
        linger: Duration::from_millis(5),
        in_flight: 4,
    };
    let (outbox, sending) = Outbox::new(Arc::clone(&queue), batching);
    let (deleter, deleting) = Deleter::new(Arc::clone(&queue), batching);
    let mut batchers = JoinSet::new();
    batchers.spawn(sending);
    batchers.spawn(deleting);
    let before = cpu("self");
    let mut senders = JoinSet::new();
    for _ in 0..SQS_SENDERS {
        let outbox = outbox.clone();
        senders.spawn(async move {
            for _ in 0..SQS_MESSAGES / SQS_SENDERS {
                outbox.send(message()).await?;
            }
            Ok::<_, QueueError>(())
        });
    }
    senders
        .join_all()
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    let calls = SQS_MESSAGES / MAX_BATCH;
    per_message(
        "send through an outbox, full batches",
        cpu("self") - before,
        calls,
    );
    let before = cpu("self");
    drain(&*queue, Some(&deleter)).await?;
    per_message(
        "receive 10, delete through a deleter",
        cpu("self") - before,
        2 * calls,
    );
    drop((outbox, deleter));
    batchers.join_all().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if arguments == ["sqs"] {
        return over_sqs().await;
    }
    if let [role, path] = &arguments[..] {
        return Ok(run_peer(role, Path::new(path)).await?);
    }
    let folder = tempfile::tempdir()?;
    let queues = SqliteQueues::open(&folder.path().join("queues.db"))?;
    let queue = Arc::new(queues.queue("work", &options()).await?);

    one_by_one(&queue, 1_000).await?;
    let (begun, before) = (Instant::now(), cpu("self"));
    one_by_one(&queue, 10_000).await?;
    report(
        "one task, 1 message a call",
        30_000,
        begun.elapsed(),
        cpu("self") - before,
    );

    let (begun, before) = (Instant::now(), cpu("self"));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { one_by_one(&queue, 1_000).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    report(
        "32 tasks, 1 message a call",
        96_000,
        begun.elapsed(),
        cpu("self") - before,
    );

    with_backlog(&queue).await?;
    across_processes(&queues).await
}

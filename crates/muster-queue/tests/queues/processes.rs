//! Several processes on one SQLite file: waking each other, and being killed.
//!
//! The other processes are this test binary again, running only [`peer`].

use std::{
    collections::HashSet,
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio, exit},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use muster_queue::{Queue, SqliteQueue, SqliteQueues};
use tempfile::TempDir;

use crate::conformance::{LIMIT, counted, delete, messages, options, receive, send};

const VISIBILITY: Duration = Duration::from_secs(1);
const FILE: &str = "queues.db";

/// Another process on the file, killed when dropped.
struct Peer {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Peer {
    fn start(role: &str, folder: &Path) -> Self {
        let mut process = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "processes::peer", "--ignored", "--nocapture"])
            .env("MUSTER_QUEUE_ROLE", role)
            .env("MUSTER_QUEUE_FOLDER", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start a peer");
        let stdout = process.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || read_lines(stdout, &sender));
        Self { process, lines }
    }

    fn next_line(&self) -> String {
        self.lines
            .recv_timeout(LIMIT)
            .expect("the peer prints a line")
    }

    /// Kills it (`SIGKILL`) and returns the lines that it had still printed.
    fn kill(&mut self) -> Vec<String> {
        self.process.kill().expect("kill the peer");
        self.process.wait().expect("wait for the peer");
        self.lines.iter().collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Passes on the whole lines of a peer, without those of the test harness it runs under.
fn read_lines(stdout: ChildStdout, lines: &mpsc::Sender<String>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if let Some((_, printed)) = line.split_once('@')
            && let Some(printed) = printed.strip_suffix('\n')
        {
            let _ = lines.send(printed.to_owned());
        }
        line.clear();
    }
}

fn print_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("@{line}\n").as_bytes())
        .expect("print a line");
    stdout.flush().expect("print a line");
}

/// Not a test: what the peers run. Alone it does nothing.
#[tokio::test]
#[ignore = "is run by the other tests"]
async fn peer() {
    let (Ok(role), Some(folder)) = (
        env::var("MUSTER_QUEUE_ROLE"),
        env::var_os("MUSTER_QUEUE_FOLDER"),
    ) else {
        return;
    };
    // A peer does not outlive the test, however that ends.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    let queues = SqliteQueues::open(&Path::new(&folder).join(FILE)).expect("open the file");
    let requests = queues
        .existing("requests")
        .await
        .expect("open the requests");
    print_line("ready");
    match role.as_str() {
        "echo" => {
            let replies = queues.existing("replies").await.expect("open the replies");
            loop {
                for request in requests.receive(1, LIMIT).await.expect("receive") {
                    send(&replies, &[&request.body]).await;
                    delete(&requests, &[request]).await;
                }
            }
        }
        "holder" => {
            let held = receive(&requests, 10).await;
            print_line(&held.len().to_string());
            thread::sleep(Duration::from_secs(600));
        }
        "producer" => {
            for n in 0_u64.. {
                send(&requests, &[&format!("{}-{n}", std::process::id())]).await;
                print_line(&format!("{}-{n}", std::process::id()));
            }
        }
        "consumer" => loop {
            for request in requests.receive(10, LIMIT).await.expect("receive") {
                print_line(&request.body);
                delete(&requests, &[request]).await;
            }
        },
        other => panic!("no role is called {other}"),
    }
}

async fn open() -> (SqliteQueues, SqliteQueue, TempDir) {
    let folder = tempfile::tempdir().expect("make a folder");
    let queues = SqliteQueues::open(&folder.path().join(FILE)).expect("open the file");
    let requests = queues
        .queue("requests", &options(VISIBILITY))
        .await
        .expect("make the queue");
    (queues, requests, folder)
}

fn assert_sound(queues: &SqliteQueues) {
    let db = rusqlite::Connection::open(queues.path()).expect("open the file");
    let verdict: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("check the file");
    assert_eq!(verdict, "ok");
    let wrong: i64 = db
        .query_row(
            "SELECT count(*) FROM queues WHERE depth <>
                 (SELECT count(*) FROM messages WHERE queue = queues.id)",
            [],
            |row| row.get(0),
        )
        .expect("compare the depths");
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn a_send_wakes_a_receiver_in_another_process() {
    const ROUNDS: u32 = 30;
    let (queues, requests, folder) = open().await;
    let replies = queues
        .queue("replies", &options(VISIBILITY))
        .await
        .expect("make the queue");
    let echo = Peer::start("echo", folder.path());
    assert_eq!(echo.next_line(), "ready");
    let begun = Instant::now();
    for round in 0..ROUNDS {
        send(&requests, &[&round.to_string()]).await;
        let reply = receive(&replies, 1).await;
        assert_eq!(reply[0].body, round.to_string());
        delete(&replies, &reply).await;
    }
    // By the re-checks alone each round would take a second.
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(500) * ROUNDS,
        "{ROUNDS} rounds took {took:?}"
    );
}

#[tokio::test]
async fn a_killed_consumer_loses_nothing_it_held() {
    let (queues, requests, folder) = open().await;
    let bodies: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    requests.send(&messages(&bodies)).await.expect("send");
    let mut holder = Peer::start("holder", folder.path());
    assert_eq!([holder.next_line(), holder.next_line()], ["ready", "10"]);
    holder.kill();
    let received = receive(&requests, bodies.len()).await;
    let back: HashSet<_> = received
        .iter()
        .map(|message| message.body.clone())
        .collect();
    assert_eq!(back, bodies.into_iter().collect());
    assert!(
        received.iter().all(|message| message.receive_count >= 2),
        "{received:?}"
    );
    assert_sound(&queues);
}

#[tokio::test]
async fn a_killed_producer_loses_nothing_acknowledged() {
    let (queues, requests, folder) = open().await;
    let mut acknowledged = HashSet::new();
    for _ in 0..3 {
        let mut producer = Peer::start("producer", folder.path());
        assert_eq!(producer.next_line(), "ready");
        acknowledged.extend((0..100).map(|_| producer.next_line()));
        acknowledged.extend(producer.kill());
    }
    let mut there = HashSet::new();
    while there.len() < acknowledged.len() {
        let received = receive(&requests, 1).await;
        delete(&requests, &received).await;
        there.extend(received.into_iter().map(|message| message.body));
    }
    // At most the one send that the kill interrupted is there without having been acknowledged.
    while let Some(message) = requests
        .receive(1, Duration::ZERO)
        .await
        .expect("receive")
        .pop()
    {
        there.insert(message.body);
    }
    assert!(there.is_superset(&acknowledged));
    assert!(
        there.len() <= acknowledged.len() + 3,
        "{} of {}",
        there.len(),
        acknowledged.len()
    );
    assert_sound(&queues);
}

#[tokio::test]
async fn producers_and_consumers_killed_together_lose_nothing() {
    let (queues, requests, folder) = open().await;
    let mut sent = HashSet::new();
    let mut consumed = HashSet::new();
    for _ in 0..3 {
        let mut producers = [0, 1].map(|_| Peer::start("producer", folder.path()));
        let mut consumers = [0, 1].map(|_| Peer::start("consumer", folder.path()));
        for consumer in &consumers {
            assert_eq!(consumer.next_line(), "ready");
            consumed.extend((0..50).map(|_| consumer.next_line()));
        }
        consumers
            .iter_mut()
            .for_each(|consumer| consumed.extend(consumer.kill()));
        for producer in &mut producers {
            assert_eq!(producer.next_line(), "ready");
            sent.extend(producer.kill());
        }
    }
    // What the killed consumers held comes back after the timeout, and then nothing is left.
    while !sent.is_subset(&consumed) {
        let received = receive(&requests, 1).await;
        delete(&requests, &received).await;
        consumed.extend(received.into_iter().map(|message| message.body));
    }
    let interrupted = consumed.difference(&sent).count();
    assert!(interrupted <= 6, "{interrupted} messages nobody sent");
    let left = requests.counts().await.expect("count");
    assert!(left.visible + left.in_flight <= 6 + 2 * 3 * 10, "{left:?}");
    requests.purge().await.expect("purge");
    counted(&requests, 0, 0).await;
    assert_sound(&queues);
}

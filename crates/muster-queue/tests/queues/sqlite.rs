//! The conformance suite on SQLite, and what only SQLite promises.

use std::{
    fs,
    future::{Future, poll_fn},
    path::PathBuf,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use muster_queue::{Outgoing, Queue, QueueError, Queues, SqliteQueue, SqliteQueues};
use tempfile::TempDir;

use crate::conformance::{
    self, Backend, LIMIT, counted, delete, messages, options, receipts, receive, send, suite,
};

suite!(backend);

const LONG: Duration = Duration::from_secs(600);

async fn backend() -> Option<Backend> {
    let (queues, folder) = open();
    Some(Backend {
        queues: Arc::new(queues),
        _folder: Some(folder),
    })
}

fn open() -> (SqliteQueues, TempDir) {
    let folder = tempfile::tempdir().expect("make a folder");
    let queues = SqliteQueues::open(&folder.path().join("queues.db")).expect("open the file");
    (queues, folder)
}

async fn queue(queues: &SqliteQueues, visibility_timeout: Duration) -> SqliteQueue {
    let name = conformance::unique("sqlite");
    queues
        .queue(&name, &options(visibility_timeout))
        .await
        .expect("make the queue")
}

fn notification_files(queues: &SqliteQueues) -> usize {
    let mut folder = queues.path().as_os_str().to_owned();
    folder.push("-bells");
    fs::read_dir(PathBuf::from(folder))
        .expect("list the notification files")
        .count()
}

#[tokio::test]
async fn a_stale_receipt_takes_nothing_from_its_new_holder() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    send(&queue, &["work"]).await;
    let stale = receive(&queue, 1).await;
    queue
        .extend(&receipts(&stale), Duration::ZERO)
        .await
        .expect("hand back");
    let held = receive(&queue, 1).await;
    let expired = |outcomes: Vec<_>| matches!(outcomes[..], [Err(QueueError::ReceiptExpired)]);
    assert!(expired(
        queue.delete(&receipts(&stale)).await.expect("delete")
    ));
    assert!(expired(
        queue
            .extend(&receipts(&stale), Duration::ZERO)
            .await
            .expect("extend")
    ));
    counted(&queue, 0, 1).await;
    delete(&queue, &held).await;
    assert!(expired(
        queue.delete(&receipts(&held)).await.expect("delete twice")
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_without_duplicates_while_messages_come_in() {
    const MESSAGES: usize = 200;
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    let mut consumers = Vec::new();
    for _ in 0..4 {
        let other = SqliteQueues::open(queues.path()).expect("open the file again");
        let other: Arc<dyn Queue> =
            Arc::new(other.existing(queue.name()).await.expect("open the queue"));
        consumers.push(tokio::spawn(conformance::consume(other)));
    }
    let bodies: Vec<_> = (0..MESSAGES).map(|n| format!("{n:03}")).collect();
    for batch in bodies.chunks(3) {
        queue.send(&messages(batch)).await.expect("send");
    }
    let mut seen = Vec::new();
    for consumer in consumers {
        seen.extend(consumer.await.expect("join"));
    }
    seen.sort();
    assert_eq!(seen, bodies);
    counted(&queue, 0, 0).await;
}

#[tokio::test]
async fn a_receiver_wakes_when_a_timeout_ends() {
    let (queues, _folder) = open();
    let queue = queue(&queues, Duration::from_millis(300)).await;
    send(&queue, &["work"]).await;
    receive(&queue, 1).await;
    // The re-check comes only after a second.
    let begun = Instant::now();
    assert_eq!(receive(&queue, 1).await[0].receive_count, 2);
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "after {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_delivery_nobody_takes_is_handed_back() {
    let (queues, _folder) = open();
    let queue = Arc::new(queue(&queues, LONG).await);
    send(&*queue, &["work"]).await;
    let receiver = Arc::clone(&queue);
    let mut poll = Box::pin(async move { receiver.receive(1, LIMIT).await });
    // Polled once, which hands the job to the thread, and never again.
    assert!(poll_fn(|cx| Poll::Ready(poll.as_mut().poll(cx).is_pending())).await);
    counted(&*queue, 0, 1).await;
    drop(poll);
    let received = receive(&*queue, 1).await;
    assert_eq!(received[0].receive_count, 1);
    delete(&*queue, &received).await;
}

#[tokio::test]
async fn receivers_that_give_up_lose_nothing() {
    const MESSAGES: usize = 100;
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    let mut received = Vec::new();
    for n in 0..MESSAGES {
        send(&queue, &[&n.to_string()]).await;
        let patience = Duration::from_micros(u64::try_from(n).expect("small") * 5);
        if let Ok(some) = tokio::time::timeout(patience, queue.receive(1, LIMIT)).await {
            received.extend(some.expect("receive"));
        }
    }
    let left = MESSAGES - received.len();
    received.extend(receive(&queue, left).await);
    assert!(
        received.iter().all(|message| message.receive_count == 1),
        "{received:?}"
    );
    counted(&queue, 0, u64::try_from(MESSAGES).expect("small")).await;
}

#[tokio::test]
async fn a_send_before_the_wait_ends_it_at_once() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    for round in 0..5 {
        assert_eq!(queue.counts().await.expect("count").visible, round);
        // Between the counting and the wait.
        send(&queue, &["wake"]).await;
        let begun = Instant::now();
        queue.wait_for_send(LIMIT).await.expect("wait");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_send_by_another_handle_ends_the_wait_even_if_it_came_before() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    let other = SqliteQueues::open(queues.path()).expect("open the file again");
    let other = other.existing(queue.name()).await.expect("open the queue");
    for _ in 0..5 {
        send(&other, &["wake"]).await;
        let begun = Instant::now();
        queue.wait_for_send(LIMIT).await.expect("wait");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_wait_with_nothing_sent_lasts() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    send(&queue, &["before"]).await;
    let lasting = Duration::from_millis(1500);
    // Every wait within the send's millisecond may end by it, and one after it; not two.
    let mut waits = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        queue.wait_for_send(lasting).await.expect("wait");
        waits.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(waits[0] < lasting, "{waits:?}");
    assert!(waits[2] >= lasting, "{waits:?}");
}

#[tokio::test]
async fn a_wait_ends_when_a_message_comes_back() {
    let (queues, _folder) = open();
    let queue = queue(&queues, Duration::from_millis(400)).await;
    send(&queue, &["work"]).await;
    queue.wait_for_send(LIMIT).await.expect("wait for the send");
    let received = receive(&queue, 1).await;
    queue
        .wait_for_send(LIMIT)
        .await
        .expect("wait for the time-out");
    counted(&queue, 1, 0).await;
    let again = receive(&queue, 1).await;
    assert_eq!(again[0].id, received[0].id);
    queue
        .extend(&receipts(&again), Duration::ZERO)
        .await
        .expect("hand back");
    queue
        .wait_for_send(LIMIT)
        .await
        .expect("wait for the handing back");
    counted(&queue, 1, 0).await;
}

#[tokio::test]
async fn removing_ends_waits_and_leaves_no_notification_file() {
    let (queues, _folder) = open();
    let queue = Arc::new(queue(&queues, LONG).await);
    let name = queue.name().to_owned();
    let receiver = Arc::clone(&queue);
    let poll = tokio::spawn(async move { receiver.receive(1, LIMIT).await });
    // The file is there once the receiver listens.
    let deadline = Instant::now() + LIMIT;
    while notification_files(&queues) == 0 {
        assert!(
            Instant::now() < deadline,
            "the receiver makes no notification file"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    queue.remove().await.expect("remove");
    assert_eq!(notification_files(&queues), 0);
    let gone = poll.await.expect("join");
    assert!(matches!(gone, Err(QueueError::NotFound { .. })), "{gone:?}");
    assert!(matches!(
        queue.remove().await,
        Err(QueueError::NotFound { .. })
    ));
    // The old handle does not become one of the new queue.
    let new = queues
        .queue(&name, &options(LONG))
        .await
        .expect("make it again");
    assert!(matches!(
        queue.counts().await,
        Err(QueueError::NotFound { .. })
    ));
    counted(&new, 0, 0).await;
}

#[tokio::test]
async fn a_notification_file_without_a_queue_is_removed_when_the_file_is_opened() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    send(&queue, &["notifies"]).await;
    let mut stray = queues.path().as_os_str().to_owned();
    stray.push("-bells/999");
    fs::write(PathBuf::from(stray), "").expect("leave a file");
    assert_eq!(notification_files(&queues), 2);
    let again = SqliteQueues::open(queues.path()).expect("open the file again");
    assert_eq!(notification_files(&again), 1);
}

#[tokio::test]
async fn a_purge_in_steps_empties_a_deep_queue() {
    let (queues, _folder) = open();
    let queue = queue(&queues, LONG).await;
    let batch = messages(&["x"; 10]);
    for _ in 0..500 {
        queue.send(&batch).await.expect("send");
    }
    counted(&queue, 5_000, 0).await;
    queue.purge().await.expect("purge");
    counted(&queue, 0, 0).await;
}

#[tokio::test]
async fn many_handles_create_the_file_together() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("queues.db");
    let opened: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteQueues::open(&path))
        })
        .collect();
    for opened in opened {
        let queues = opened.join().expect("join").expect("open the file");
        let queue = Queues::queue(&queues, "one", &options(LONG))
            .await
            .expect("make the queue");
        send(&*queue, &["from each"]).await;
    }
    let queues = SqliteQueues::open(&path).expect("open the file");
    counted(&queues.existing("one").await.expect("open the queue"), 8, 0).await;
}

#[tokio::test]
async fn a_file_that_is_something_else_is_refused() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("notes.txt");
    fs::write(
        &path,
        "no database at all, but long enough to look like one ".repeat(40),
    )
    .expect("write the file");
    assert!(matches!(
        SqliteQueues::open(&path),
        Err(QueueError::Refused { .. })
    ));
}

#[tokio::test]
async fn a_file_without_attributes_is_taken_over_with_its_messages() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("queues.db");
    let db = rusqlite::Connection::open(&path).expect("make the file");
    db.execute_batch(include_str!("version1.sql"))
        .expect("fill the file as version 1 did");

    let queues = SqliteQueues::open(&path).expect("open the file");
    let queue = queues.existing("work").await.expect("open the queue");
    // A program of version 1 may still have the file open.
    db.execute(
        "INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
         SELECT id, ?1, ?1, 0, 'sent later' FROM queues WHERE name = 'work'",
        [1_700_000_000_002_i64],
    )
    .expect("send as version 1 does");
    let attributes = [("trace".to_owned(), "context".to_owned())].into();
    let new = Outgoing {
        body: "new".to_owned(),
        attributes,
    };
    queue.send(&[new]).await.expect("send the batch");

    let received = receive(&queue, 4).await;
    let seen: Vec<_> = received
        .iter()
        .map(|m| (m.body.as_str(), m.receive_count, m.attributes.len()))
        .collect();
    assert_eq!(
        seen,
        [
            ("waiting", 1, 0),
            ("returned", 3, 0),
            ("sent later", 1, 0),
            ("new", 1, 1)
        ]
    );
    delete(&queue, &received).await;
    counted(&queue, 0, 0).await;
    drop(db);
    // Nothing is left to do the second time.
    let again = SqliteQueues::open(&path).expect("open the file again");
    assert_eq!(again.names("").await.expect("list"), ["dead", "work"]);
}

/// Messages of every length, among others that stay, so that rows move from page to page.
#[tokio::test]
async fn nothing_of_a_deleted_message_stays_in_the_files() {
    let (queues, folder) = open();
    let [gone, stays] = [queue(&queues, LONG).await, queue(&queues, LONG).await];
    let body = |who: &str, n: usize| format!("{n} {}", who.repeat(1 + n * 37 % 900));
    for n in 0..120 {
        send(&gone, &[&body("Anna Secret", n)]).await;
        send(&stays, &[&body("Ben Stays", n)]).await;
        if n % 3 == 0 {
            let received = receive(&gone, 1).await;
            delete(&gone, &received).await;
        }
    }
    let held = |what: &str| {
        let files = fs::read_dir(folder.path()).expect("list the folder");
        let files = files.map(|file| file.expect("list the folder").path());
        let bytes = files
            .filter(|path| path.is_file())
            .map(|path| fs::read(path).expect("read"));
        let bytes: Vec<u8> = bytes.flatten().collect();
        bytes
            .windows(what.len())
            .any(|part| part == what.as_bytes())
    };
    assert!(held("Anna Secret"));
    while gone.counts().await.expect("count").visible > 0 {
        let received = receive(&gone, 1).await;
        delete(&gone, &received).await;
    }
    queues
        .erase_deleted()
        .await
        .expect("erase what was deleted");
    assert!(!held("Anna Secret"));
    assert!(held("Ben Stays"));
}

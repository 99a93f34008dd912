//! What every queue promises, as tests that any implementation runs.
//!
//! Each test makes queues of its own names, so that all run at the same time on one server.

mod attributes;
mod outbox;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use muster_queue::{
    Counts, LEAST_MESSAGE_BYTES, MAX_BATCH, MAX_BODY_BYTES, MAX_RETENTION, Outgoing, Queue,
    QueueError, QueueOptions, Queues, Receipt, Received, Redrive,
};
use uuid::Uuid;

pub use self::{attributes::*, outbox::*};

/// Longer than any test waits for something that happens.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Longer than any test runs: a message with this timeout does not come back by itself.
const LONG: Duration = Duration::from_secs(600);

/// Runs every test of the suite on the backend that `$backend` returns, `None` to skip.
macro_rules! suite {
    ($backend:path: $($test:ident)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                if let Some(backend) = $backend().await {
                    conformance::$test(&*backend.queues).await;
                }
            }
        )*
    };
    ($backend:path) => {
        suite! { $backend:
            a_message_is_received_once_and_deleted
            a_queue_says_how_long_a_message_may_be
            a_batch_of_ten_passes_and_eleven_are_refused
            nothing_is_delivered_twice_while_it_is_invisible
            a_long_poll_ends_when_a_message_is_sent
            a_long_poll_ends_empty_after_its_wait
            a_message_comes_back_after_its_visibility_timeout
            extending_keeps_a_message_invisible
            a_message_handed_back_is_there_at_once
            what_nobody_worked_on_is_handed_back_without_losing_a_receive
            a_message_received_too_often_goes_to_the_dead_letter_queue
            purging_empties_the_queue
            counts_tell_visible_from_in_flight
            two_consumers_share_all_messages
            bodies_arrive_as_they_were_sent
            attributes_arrive_as_they_were_sent
            attributes_that_cannot_be_carried_are_refused
            attributes_go_with_their_message_to_the_dead_letter_queue
            what_tasks_send_through_an_outbox_arrives
            a_deleter_tells_only_the_caller_of_a_bad_receipt
            bodies_too_large_are_refused_whole
            bodies_that_cannot_be_carried_are_refused
            one_bad_receipt_does_not_spoil_the_batch
            names_are_checked_and_queues_are_separate
            only_existing_queues_are_opened_as_such
            queues_are_listed_by_prefix
            opening_again_changes_the_options
            a_removed_queue_is_gone
            waiting_for_a_send_ends_by_itself
        }
    };
}

pub(crate) use suite;

/// An implementation under test.
pub struct Backend {
    pub queues: Arc<dyn Queues>,
    /// Keeps the folder of a file until the test ends.
    pub _folder: Option<tempfile::TempDir>,
}

pub fn unique(name: &str) -> String {
    format!("{name}-{}", Uuid::now_v7().simple())
}

pub fn options(visibility_timeout: Duration) -> QueueOptions {
    QueueOptions {
        visibility_timeout,
        redrive: None,
        retention: MAX_RETENTION,
    }
}

async fn queue(queues: &dyn Queues, visibility_timeout: Duration) -> Arc<dyn Queue> {
    let name = unique("conformance");
    queues
        .queue(&name, &options(visibility_timeout))
        .await
        .expect("make the queue")
}

pub fn messages<B: ToString>(bodies: &[B]) -> Vec<Outgoing> {
    bodies.iter().map(|body| body.to_string().into()).collect()
}

pub async fn send(queue: &dyn Queue, bodies: &[&str]) {
    for sent in queue.send(&messages(bodies)).await.expect("send the batch") {
        sent.expect("send the message");
    }
}

pub async fn delete(queue: &dyn Queue, received: &[Received]) {
    for deleted in queue
        .delete(&receipts(received))
        .await
        .expect("delete the batch")
    {
        deleted.expect("delete the message");
    }
}

pub fn receipts(received: &[Received]) -> Vec<Receipt> {
    received
        .iter()
        .map(|message| message.receipt.clone())
        .collect()
}

/// Receives until there are `count`, and fails rather than wait for ever.
pub async fn receive(queue: &dyn Queue, count: usize) -> Vec<Received> {
    let deadline = Instant::now() + LIMIT;
    let mut received = Vec::new();
    while received.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} messages came",
            received.len()
        );
        let some = queue
            .receive(count - received.len(), Duration::from_secs(2))
            .await;
        received.extend(some.expect("receive"));
    }
    received
}

async fn assert_empty(queue: &dyn Queue, wait: Duration) {
    let received = queue.receive(MAX_BATCH, wait).await.expect("receive");
    assert!(received.is_empty(), "{received:?} should not be there");
}

/// Waits until the counts, approximate as they are, say so.
pub async fn counted(queue: &dyn Queue, visible: u64, in_flight: u64) {
    let deadline = Instant::now() + LIMIT;
    let expected = Counts { visible, in_flight };
    loop {
        let counts = queue.counts().await.expect("count");
        if counts == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{counts:?} should become {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn a_message_is_received_once_and_deleted(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let sent = queue.send(&messages(&["hello"])).await.expect("send");
    let id = sent[0].as_ref().expect("send the message");
    let received = receive(&*queue, 1).await;
    assert_eq!(received[0].body, "hello");
    assert_eq!(&received[0].id, id);
    assert_eq!(received[0].receive_count, 1);
    assert_empty(&*queue, Duration::ZERO).await;
    delete(&*queue, &received).await;
    counted(&*queue, 0, 0).await;
}

pub async fn a_queue_says_how_long_a_message_may_be(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let limit = queue.message_limit().await.expect("ask");
    assert!((LEAST_MESSAGE_BYTES..=MAX_BODY_BYTES).contains(&limit));
    let longest = "x".repeat(limit);
    send(&*queue, &[&longest]).await;
    let received = receive(&*queue, 1).await;
    assert_eq!(received[0].body, longest);
    delete(&*queue, &received).await;
}

pub async fn a_batch_of_ten_passes_and_eleven_are_refused(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let eleven: Vec<_> = (0..=MAX_BATCH).collect();
    let eleven = messages(&eleven);
    let refused = |error| {
        matches!(
            error,
            Some(QueueError::BatchTooLong {
                entries: 11,
                limit: MAX_BATCH
            })
        )
    };
    assert!(refused(queue.send(&eleven).await.err()));
    assert_eq!(
        queue
            .send(&eleven[..MAX_BATCH])
            .await
            .expect("send ten")
            .len(),
        MAX_BATCH
    );
    let received = receive(&*queue, MAX_BATCH).await;
    let mut eleven = receipts(&received);
    eleven.push(eleven[0].clone());
    assert!(refused(queue.delete(&eleven).await.err()));
    assert!(refused(queue.extend(&eleven, LONG).await.err()));
    delete(&*queue, &received).await;
    assert!(queue.send(&[]).await.expect("send none").is_empty());
    assert!(queue.delete(&[]).await.expect("delete none").is_empty());
    assert!(
        queue
            .extend(&[], LONG)
            .await
            .expect("extend none")
            .is_empty()
    );
    assert!(
        queue
            .receive(0, LIMIT)
            .await
            .expect("receive none")
            .is_empty()
    );
}

pub async fn nothing_is_delivered_twice_while_it_is_invisible(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let bodies: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    for batch in bodies.chunks(MAX_BATCH) {
        queue.send(&messages(batch)).await.expect("send");
    }
    let received = receive(&*queue, bodies.len()).await;
    let distinct: HashSet<_> = received
        .iter()
        .map(|message| message.body.clone())
        .collect();
    assert_eq!(distinct, bodies.into_iter().collect());
    let ids: HashSet<_> = received.iter().map(|message| &message.id).collect();
    assert_eq!(ids.len(), received.len());
    assert_empty(&*queue, Duration::from_secs(1)).await;
}

pub async fn a_long_poll_ends_when_a_message_is_sent(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let receiver = Arc::clone(&queue);
    let begun = Instant::now();
    let poll = tokio::spawn(async move { receiver.receive(1, Duration::from_secs(20)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!poll.is_finished());
    send(&*queue, &["wake"]).await;
    let received = poll.await.expect("join").expect("receive");
    assert_eq!(received[0].body, "wake");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "after {:?}",
        begun.elapsed()
    );
}

pub async fn a_long_poll_ends_empty_after_its_wait(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let begun = Instant::now();
    assert_empty(&*queue, Duration::from_secs(1)).await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(900), "after {waited:?}");
    assert!(waited < Duration::from_secs(10), "after {waited:?}");
}

pub async fn a_message_comes_back_after_its_visibility_timeout(queues: &dyn Queues) {
    let queue = queue(queues, Duration::from_secs(1)).await;
    send(&*queue, &["again"]).await;
    let first = receive(&*queue, 1).await;
    let second = receive(&*queue, 1).await;
    assert_eq!(first[0].id, second[0].id);
    assert_eq!(second[0].body, "again");
    assert_eq!((first[0].receive_count, second[0].receive_count), (1, 2));
    delete(&*queue, &second).await;
    counted(&*queue, 0, 0).await;
}

pub async fn extending_keeps_a_message_invisible(queues: &dyn Queues) {
    let queue = queue(queues, Duration::from_secs(2)).await;
    send(&*queue, &["work"]).await;
    let received = receive(&*queue, 1).await;
    for extended in queue
        .extend(&receipts(&received), LONG)
        .await
        .expect("extend")
    {
        extended.expect("extend the message");
    }
    assert_empty(&*queue, Duration::from_secs(3)).await;
    delete(&*queue, &received).await;
    counted(&*queue, 0, 0).await;
}

pub async fn a_message_handed_back_is_there_at_once(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    send(&*queue, &["no", "thanks"]).await;
    let received = receive(&*queue, 2).await;
    for back in queue
        .extend(&receipts(&received), Duration::ZERO)
        .await
        .expect("hand back")
    {
        back.expect("hand the message back");
    }
    let again = receive(&*queue, 2).await;
    assert!(
        again.iter().all(|message| message.receive_count == 2),
        "{again:?}"
    );
    delete(&*queue, &again).await;
}

pub async fn what_nobody_worked_on_is_handed_back_without_losing_a_receive(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let attributes = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let sent = Outgoing {
        body: "later".to_owned(),
        attributes: attributes.clone(),
    };
    queue.send(&[sent]).await.expect("send");
    for (count, unseen) in [(1, true), (1, true), (1, false), (2, true), (2, true)] {
        let seen = receive(&*queue, 1).await;
        assert_eq!(seen[0].receive_count, count);
        assert_eq!(seen[0].body, "later");
        assert_eq!(seen[0].attributes, attributes);
        let handed = if unseen {
            queue.hand_back(&seen).await
        } else {
            queue.extend(&receipts(&seen), Duration::ZERO).await
        };
        for back in handed.expect("hand back") {
            back.expect("hand the message back");
        }
    }
    let seen = receive(&*queue, 1).await;
    assert_eq!(seen[0].receive_count, 2);
    delete(&*queue, &seen).await;
    assert_empty(&*queue, Duration::ZERO).await;
}

pub async fn a_message_received_too_often_goes_to_the_dead_letter_queue(queues: &dyn Queues) {
    let dead_letter = unique("dead");
    let redrive = Redrive {
        dead_letter: dead_letter.clone(),
        max_receives: 2,
    };
    let options = QueueOptions {
        redrive: Some(redrive),
        ..options(LONG)
    };
    let queue = queues
        .queue(&unique("redrive"), &options)
        .await
        .expect("make the queue");
    let dead_letter = queues
        .existing(&dead_letter)
        .await
        .expect("open the dead-letter queue");
    send(&*queue, &["poison"]).await;
    for delivery in 1..=2 {
        let received = receive(&*queue, 1).await;
        assert_eq!(received[0].receive_count, delivery);
        queue
            .extend(&receipts(&received), Duration::ZERO)
            .await
            .expect("hand back");
    }
    assert_empty(&*queue, Duration::from_secs(1)).await;
    counted(&*queue, 0, 0).await;
    let dead = receive(&*dead_letter, 1).await;
    assert_eq!(dead[0].body, "poison");
    delete(&*dead_letter, &dead).await;
    counted(&*dead_letter, 0, 0).await;
}

pub async fn purging_empties_the_queue(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let other = queues
        .queue(&unique("other"), &options(LONG))
        .await
        .expect("make the other");
    send(&*other, &["stays"]).await;
    send(&*queue, &["a", "b", "c"]).await;
    receive(&*queue, 1).await;
    queue.purge().await.expect("purge");
    counted(&*queue, 0, 0).await;
    counted(&*other, 1, 0).await;
    send(&*queue, &["later"]).await;
    assert_eq!(receive(&*queue, 1).await[0].body, "later");
}

pub async fn counts_tell_visible_from_in_flight(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    counted(&*queue, 0, 0).await;
    send(&*queue, &["a", "b", "c", "d"]).await;
    counted(&*queue, 4, 0).await;
    let received = receive(&*queue, 3).await;
    counted(&*queue, 1, 3).await;
    delete(&*queue, &received[..1]).await;
    counted(&*queue, 1, 2).await;
    queue
        .extend(&receipts(&received[1..2]), Duration::ZERO)
        .await
        .expect("hand back");
    counted(&*queue, 2, 1).await;
}

/// Receives and deletes until nothing comes any more, and returns the bodies.
pub async fn consume(queue: Arc<dyn Queue>) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let received = queue
            .receive(3, Duration::from_secs(2))
            .await
            .expect("receive");
        if received.is_empty() {
            return bodies;
        }
        delete(&*queue, &received).await;
        bodies.extend(received.into_iter().map(|message| message.body));
    }
}

/// SQS promises at least once: that it is no more than once is asserted on SQLite alone.
pub async fn two_consumers_share_all_messages(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let bodies: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    for batch in bodies.chunks(MAX_BATCH) {
        queue.send(&messages(batch)).await.expect("send");
    }
    let (one, two) = tokio::join!(consume(Arc::clone(&queue)), consume(Arc::clone(&queue)));
    let seen: HashSet<_> = one.into_iter().chain(two).collect();
    assert_eq!(seen, bodies.into_iter().collect());
}

pub async fn bodies_arrive_as_they_were_sent(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let odd = "{\"name\":\"Zoë 漢字 🙂 \u{202e}\"}\t<a href='x'>&amp;</a>\r\n\\".to_owned();
    let large = "é".repeat(MAX_BODY_BYTES / 2);
    for body in [&odd, &large] {
        send(&*queue, &[body]).await;
        let received = receive(&*queue, 1).await;
        assert!(
            &received[0].body == body,
            "a body of {} bytes changed",
            body.len()
        );
        delete(&*queue, &received).await;
    }
}

pub async fn bodies_too_large_are_refused_whole(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let one = messages(&["x".repeat(MAX_BODY_BYTES + 1)]);
    let together = messages(&[
        "x".repeat(MAX_BODY_BYTES / 2),
        "x".repeat(MAX_BODY_BYTES / 2 + 1),
    ]);
    for bodies in [one, together] {
        let refused = queue.send(&bodies).await;
        assert!(matches!(
            refused,
            Err(QueueError::TooLarge { bytes, limit: MAX_BODY_BYTES }) if bytes == MAX_BODY_BYTES + 1
        ));
    }
    counted(&*queue, 0, 0).await;
}

pub async fn bodies_that_cannot_be_carried_are_refused(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    for bad in ["", "\0", "\u{1b}[0m"] {
        let refused = queue.send(&messages(&["good", bad])).await;
        assert!(
            matches!(refused, Err(QueueError::InvalidBody { index: 1 })),
            "{bad:?}"
        );
    }
    counted(&*queue, 0, 0).await;
}

pub async fn one_bad_receipt_does_not_spoil_the_batch(queues: &dyn Queues) {
    let first = queue(queues, LONG).await;
    let second = queue(queues, LONG).await;
    send(&*first, &["mine"]).await;
    send(&*second, &["foreign"]).await;
    let mine = receive(&*first, 1).await;
    let foreign = receive(&*second, 1).await;
    let batch = [foreign[0].receipt.clone(), mine[0].receipt.clone()];
    let extended = first.extend(&batch, LONG).await.expect("extend the batch");
    assert!(
        matches!(extended[..], [Err(QueueError::ReceiptExpired), Ok(())]),
        "{extended:?}"
    );
    let deleted = first.delete(&batch).await.expect("delete the batch");
    assert!(
        matches!(deleted[..], [Err(QueueError::ReceiptExpired), Ok(())]),
        "{deleted:?}"
    );
    counted(&*first, 0, 0).await;
    counted(&*second, 0, 1).await;
}

pub async fn names_are_checked_and_queues_are_separate(queues: &dyn Queues) {
    for bad in ["", "a/b", "../x", "a b", "é", &"x".repeat(81)] {
        let refused = queues.queue(bad, &options(LONG)).await;
        assert!(
            matches!(refused, Err(QueueError::InvalidName { .. })),
            "{bad:?}"
        );
        let refused = queues.existing(bad).await;
        assert!(
            matches!(refused, Err(QueueError::InvalidName { .. })),
            "{bad:?}"
        );
    }
    let (a, b) = (queue(queues, LONG).await, queue(queues, LONG).await);
    send(&*a, &["for a"]).await;
    assert_empty(&*b, Duration::ZERO).await;
    assert_eq!(receive(&*a, 1).await[0].body, "for a");
}

pub async fn only_existing_queues_are_opened_as_such(queues: &dyn Queues) {
    let name = unique("existing");
    let missing = queues.existing(&name).await;
    assert!(matches!(missing, Err(QueueError::NotFound { queue, .. }) if queue == name));
    let made = queues
        .queue(&name, &options(LONG))
        .await
        .expect("make the queue");
    let found = queues.existing(&name).await.expect("open the queue");
    assert_eq!(found.name(), name);
    send(&*found, &["through another handle"]).await;
    assert_eq!(receive(&*made, 1).await[0].body, "through another handle");
}

pub async fn queues_are_listed_by_prefix(queues: &dyn Queues) {
    let prefix = unique("list");
    let names = ["", "-a", "_b"].map(|suffix| format!("{prefix}{suffix}"));
    for name in &names {
        queues
            .queue(name, &options(LONG))
            .await
            .expect("make the queue");
    }
    assert_eq!(queues.names(&prefix).await.expect("list"), names);
    assert_eq!(
        queues.names(&format!("{prefix}-")).await.expect("list"),
        names[1..2]
    );
    assert!(queues.names(&prefix[1..]).await.expect("list").is_empty());
}

pub async fn opening_again_changes_the_options(queues: &dyn Queues) {
    let name = unique("options");
    let redrive = Redrive {
        dead_letter: unique("dead"),
        max_receives: 1,
    };
    let strict = QueueOptions {
        redrive: Some(redrive),
        ..options(LONG)
    };
    let queue = queues.queue(&name, &strict).await.expect("make the queue");
    send(&*queue, &["stays"]).await;
    let received = receive(&*queue, 1).await;
    queues
        .queue(&name, &options(Duration::from_secs(1)))
        .await
        .expect("open it again");
    queue
        .extend(&receipts(&received), Duration::ZERO)
        .await
        .expect("hand back");
    // Neither redriven after one receive nor hidden for long any more.
    assert_eq!(receive(&*queue, 1).await[0].receive_count, 2);
    assert_eq!(receive(&*queue, 1).await[0].receive_count, 3);
}

pub async fn a_removed_queue_is_gone(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    send(&*queue, &["lost"]).await;
    queue.remove().await.expect("remove");
    let gone = |error| matches!(error, Some(QueueError::NotFound { .. }));
    assert!(gone(queues.existing(queue.name()).await.err()));
    assert!(gone(queue.send(&messages(&["late"])).await.err()));
    assert!(gone(queue.receive(1, LIMIT).await.err()));
    assert!(gone(queue.counts().await.err()));
}

pub async fn waiting_for_a_send_ends_by_itself(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let begun = Instant::now();
    queue
        .wait_for_send(Duration::from_millis(200))
        .await
        .expect("wait");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

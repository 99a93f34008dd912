//! Batches of what tasks send and delete one by one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use muster_queue::{Deleter, Outbox, OutboxOptions, QueueError, Queues};
use tokio::{task::JoinSet, time::timeout};

use super::{LIMIT, LONG, counted, queue, receive, send};

const OPTIONS: OutboxOptions = OutboxOptions {
    linger: Duration::from_millis(5),
    in_flight: 3,
};

pub async fn what_tasks_send_through_an_outbox_arrives(queues: &dyn Queues) {
    const MESSAGES: usize = 45;
    let queue = queue(queues, LONG).await;
    let (outbox, run) = Outbox::new(Arc::clone(&queue), OPTIONS);
    let run = tokio::spawn(run);
    let mut tasks = JoinSet::new();
    for n in 0..MESSAGES {
        let outbox = outbox.clone();
        tasks.spawn(async move {
            let body = n.to_string();
            let sent = outbox.send(body.clone().into()).await;
            (sent.expect("send the message"), body)
        });
    }
    let sent: BTreeMap<_, _> = tasks.join_all().await.into_iter().collect();
    drop(outbox);
    timeout(LIMIT, run)
        .await
        .expect("the outbox ends with its last handle")
        .expect("join");
    let received: BTreeMap<_, _> = receive(&*queue, MESSAGES)
        .await
        .into_iter()
        .map(|message| (message.id, message.body))
        .collect();
    assert_eq!(received, sent);
}

pub async fn a_deleter_tells_only_the_caller_of_a_bad_receipt(queues: &dyn Queues) {
    let first = queue(queues, LONG).await;
    let second = queue(queues, LONG).await;
    send(&*first, &["a", "b", "c"]).await;
    send(&*second, &["foreign"]).await;
    let mut received = receive(&*first, 3).await;
    received.extend(receive(&*second, 1).await);
    let (deleter, run) = Deleter::new(Arc::clone(&first), OPTIONS);
    let run = tokio::spawn(run);
    let mut tasks = JoinSet::new();
    for message in received {
        let deleter = deleter.clone();
        tasks.spawn(async move { (deleter.delete(message.receipt).await, message.body) });
    }
    drop(deleter);
    for (deleted, body) in tasks.join_all().await {
        match &*body {
            "foreign" => assert!(matches!(deleted, Err(QueueError::ReceiptExpired))),
            _ => deleted.expect("delete the message"),
        }
    }
    timeout(LIMIT, run)
        .await
        .expect("the deleter ends with its last handle")
        .expect("join");
    counted(&*first, 0, 0).await;
    counted(&*second, 0, 1).await;
}

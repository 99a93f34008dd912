//! The conformance suite on SQS, as moto's server plays it.

use std::{error::Error, iter::successors, sync::Arc, time::Duration};

use muster_queue::{
    MAX_BATCH, Outbox, OutboxOptions, Queue, QueueError, QueueOptions, Redrive, SqsQueues,
};
use muster_testbed::{
    moto,
    proxy::{Calls, Fault, FaultProxy, Service, When},
    sdk_config as config,
};
use tokio::{task::JoinSet, time::timeout};

use crate::conformance::{
    self, Backend, LIMIT, messages, options, receipts, receive, send, suite, unique,
};

/// What AWS answers to a role without the permission.
const DENIED: Fault = Fault::Error {
    status: 403,
    code: "AccessDenied",
};

suite!(backend);

async fn backend() -> Option<Backend> {
    let endpoint = moto::endpoint()?;
    let queues = SqsQueues::new(&config(endpoint), "muster-");
    Some(Backend {
        queues: Arc::new(queues),
        _folder: None,
    })
}

#[tokio::test]
async fn prefixes_keep_installations_apart() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let name = conformance::unique("same");
    let [one, two] = ["one-", "two-"].map(|prefix| SqsQueues::new(&config(endpoint), prefix));
    let queue = one
        .queue(&name, &options(conformance::LIMIT))
        .await
        .expect("make the queue");
    assert!(queue.url().ends_with(&format!("/one-{name}")));
    assert!(matches!(
        two.existing(&name).await,
        Err(QueueError::NotFound { .. })
    ));
    assert_eq!(one.names(&name).await.expect("list"), [name]);
}

/// The error and all that caused it, in one line.
fn chain(error: &QueueError) -> String {
    let first: &(dyn Error + 'static) = error;
    successors(Some(first), |&error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let queues = SqsQueues::new(&config(&format!("http://{address}")), "");
    let error = queues.existing("any").await.expect_err("nobody listens");
    assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient());
    let chain = chain(&error);
    assert!(chain.contains(&address.to_string()), "{chain}");
    assert!(chain.contains("refused"), "{chain}");
}

#[tokio::test]
async fn errors_of_aws_stand_in_the_source_chain() {
    type Expected = fn(&QueueError) -> bool;
    let refused: Expected = |error| matches!(error, QueueError::Refused { .. });
    let cases: [(u16, &str, Expected); 10] = [
        (403, "AccessDenied", refused),
        (403, "ExpiredToken", refused),
        (403, "InvalidClientTokenId", refused),
        (403, "SignatureDoesNotMatch", refused),
        (403, "RequestExpired", refused),
        (403, "RequestTimeTooSkewed", refused),
        (400, "InvalidAddress", refused),
        (400, "AWS.SimpleQueueService.UnsupportedOperation", refused),
        (400, "AWS.SimpleQueueService.NonExistentQueue", |error| {
            matches!(error, QueueError::NotFound { .. })
        }),
        (400, "RequestThrottled", |error| {
            matches!(error, QueueError::Throttled { .. })
        }),
    ];
    for (status, code, expected) in cases {
        let proxy = FaultProxy::start("http://127.0.0.1:1", 1);
        let fault = Fault::Error { status, code };
        proxy.inject(Calls::To(Service::Sqs), When::Always, fault);
        let queues = SqsQueues::new(&config(proxy.endpoint()), "");
        let error = queues.existing("any").await.expect_err("refused");
        assert!(expected(&error), "{code}: {error:?}");
        let chain = chain(&error);
        let (message, request) = ("The testbed answers", "request-of-the-testbed");
        for part in [code, message, &status.to_string(), request] {
            assert!(chain.contains(part), "{part} is missing: {chain}");
        }
    }
}

#[tokio::test]
async fn a_role_that_may_not_change_queues_opens_those_that_are_as_they_should_be() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let name = unique("as-wanted");
    let wanted = QueueOptions {
        redrive: Some(Redrive {
            dead_letter: unique("dead"),
            max_receives: 3,
        }),
        ..options(Duration::from_secs(30))
    };
    let owner = SqsQueues::new(&config(endpoint), "");
    owner.queue(&name, &wanted).await.expect("make the queue");

    let proxy = FaultProxy::start(endpoint, 1);
    for change in ["CreateQueue", "SetQueueAttributes"] {
        proxy.inject(Calls::Of(change), When::Always, DENIED);
    }
    let looking = SqsQueues::new(&config(proxy.endpoint()), "");
    let queue = looking.queue(&name, &wanted).await.expect("open the queue");
    send(&queue, &["works"]).await;
    let other = options(Duration::from_secs(31));
    let error = looking
        .queue(&name, &other)
        .await
        .expect_err("it would have to be changed");
    assert!(matches!(error, QueueError::Refused { .. }), "{error:?}");
    assert!(chain(&error).contains("AccessDenied"), "{error:?}");

    let proxy = FaultProxy::start(endpoint, 1);
    let allowed = &["GetQueueUrl", "ReceiveMessage", "DeleteMessageBatch"];
    proxy.inject(Calls::Except(allowed), When::Always, DENIED);
    let working = SqsQueues::new(&config(proxy.endpoint()), "");
    let queue = working.existing(&name).await.expect("open the queue");
    let received = receive(&queue, 1).await;
    conformance::delete(&queue, &received).await;
}

#[tokio::test]
async fn a_queue_is_made_with_its_options_in_one_call() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    proxy.inject(Calls::Of("SetQueueAttributes"), When::Always, DENIED);
    let queues = SqsQueues::new(&config(proxy.endpoint()), "");
    let dead_letter = unique("dead");
    let strict = QueueOptions {
        redrive: Some(Redrive {
            dead_letter: dead_letter.clone(),
            max_receives: 1,
        }),
        ..options(Duration::from_secs(600))
    };
    let queue = queues
        .queue(&unique("made"), &strict)
        .await
        .expect("make the queue");
    send(&queue, &["poison"]).await;
    let received = receive(&queue, 1).await;
    queue
        .extend(&receipts(&received), Duration::ZERO)
        .await
        .expect("hand back");
    let more = queue.receive(1, Duration::from_secs(1)).await;
    assert!(more.expect("receive").is_empty());
    let dead_letter = queues
        .existing(&dead_letter)
        .await
        .expect("open the dead-letter queue");
    assert_eq!(receive(&dead_letter, 1).await[0].body, "poison");
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let queues = SqsQueues::new(&config(proxy.endpoint()), "");
    let queue = queues
        .queue(&unique("reuse"), &options(LIMIT))
        .await
        .expect("make the queue");
    for n in 0..20 {
        send(&queue, &[&n.to_string()]).await;
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn an_outbox_outlasts_a_service_that_is_down() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    // More than the SDK itself retries.
    let proxy = FaultProxy::start(endpoint, 1);
    let down = proxy.inject(
        Calls::Of("SendMessageBatch"),
        When::Next(8),
        Fault::Unavailable,
    );
    let queues = SqsQueues::new(&config(proxy.endpoint()), "");
    let queue: Arc<dyn Queue> = Arc::new(
        queues
            .queue(&unique("down"), &options(Duration::from_secs(600)))
            .await
            .expect("make the queue"),
    );
    let first = queue.send(&messages(&["alone"])).await;
    assert!(matches!(first, Err(QueueError::Unavailable { .. })));
    let batching = OutboxOptions {
        linger: Duration::from_millis(5),
        in_flight: 2,
    };
    let (outbox, run) = Outbox::new(Arc::clone(&queue), batching);
    let run = tokio::spawn(run);
    let mut tasks = JoinSet::new();
    for n in 0..MAX_BATCH {
        let outbox = outbox.clone();
        tasks.spawn(async move { outbox.send(n.to_string().into()).await });
    }
    drop(outbox);
    let sent = timeout(LIMIT, tasks.join_all()).await.expect("settled");
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    timeout(LIMIT, run).await.expect("ends").expect("join");
    assert_eq!(down.hits(), 8);
    // Nothing was taken while the service was down, so nothing is doubled.
    receive(&*queue, MAX_BATCH).await;
    conformance::counted(&*queue, 0, MAX_BATCH as u64).await;
}

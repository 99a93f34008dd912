//! The conformance suite on SQS, as moto's server plays it.

use std::sync::Arc;

use muster_queue::{QueueError, SqsQueues};

use muster_testbed::{moto, sdk_config as config};

use crate::conformance::{self, Place, options, suite};

suite!(place);

async fn place() -> Option<Place> {
    let endpoint = moto::endpoint()?;
    let queues = SqsQueues::new(&config(endpoint), "muster-");
    Some(Place {
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
        .queue(&name, &options(conformance::PATIENCE))
        .await
        .expect("make the queue");
    assert!(queue.url().ends_with(&format!("/one-{name}")));
    assert!(matches!(
        two.existing(&name).await,
        Err(QueueError::NotFound { .. })
    ));
    assert_eq!(one.names(&name).await.expect("list"), [name]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let queues = SqsQueues::new(&config(&format!("http://{address}")), "");
    let error = queues.existing("any").await.expect_err("nobody listens");
    assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient());
}

//! What goes beside the body.

use std::{collections::BTreeMap, time::Duration};

use muster_queue::{
    MAX_ATTRIBUTES, MAX_BODY_BYTES, Outgoing, QueueError, QueueOptions, Queues, Redrive,
};

use super::{LONG, assert_empty, counted, options, queue, receipts, receive, unique};

fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub async fn attributes_arrive_as_they_were_sent(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    let odd = attributes(&[
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("reply.to_it-1", "{\"Zoë\": '漢字 🙂'}\t<&amp;>\\"),
    ]);
    let most: BTreeMap<_, _> = (0..MAX_ATTRIBUTES)
        .map(|n| (format!("a{n}"), n.to_string()))
        .collect();
    let sent: Vec<_> = [odd, most, BTreeMap::new()]
        .into_iter()
        .enumerate()
        .map(|(n, attributes)| Outgoing {
            body: n.to_string(),
            attributes,
        })
        .collect();
    for outcome in queue.send(&sent).await.expect("send the batch") {
        outcome.expect("send the message");
    }
    let mut received = receive(&*queue, sent.len()).await;
    received.sort_by(|a, b| a.body.cmp(&b.body));
    for (message, sent) in received.iter().zip(&sent) {
        assert_eq!(message.attributes, sent.attributes);
    }
}

pub async fn attributes_that_cannot_be_carried_are_refused(queues: &dyn Queues) {
    let queue = queue(queues, LONG).await;
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("AWS.a", "x"),
        ("a..b", "x"),
        ("a", ""),
    ] {
        let bad = Outgoing {
            body: "bad".to_owned(),
            attributes: attributes(&[(name, value)]),
        };
        let refused = queue.send(&["good".to_owned().into(), bad]).await;
        assert!(
            matches!(refused, Err(QueueError::InvalidAttributes { index: 1, .. })),
            "{name:?}: {value:?}"
        );
    }
    let heavy = Outgoing {
        body: "x".repeat(MAX_BODY_BYTES - "aStringx".len()),
        attributes: attributes(&[("a", "xx")]),
    };
    let refused = queue.send(&[heavy]).await;
    assert!(matches!(refused, Err(QueueError::TooLarge { .. })));
    counted(&*queue, 0, 0).await;
}

pub async fn attributes_go_with_their_message_to_the_dead_letter_queue(queues: &dyn Queues) {
    let redrive = Redrive {
        dead_letter: unique("dead"),
        max_receives: 1,
    };
    let dead_letter = redrive.dead_letter.clone();
    let options = QueueOptions {
        redrive: Some(redrive),
        ..options(LONG)
    };
    let queue = queues
        .queue(&unique("redrive"), &options)
        .await
        .expect("make the queue");
    let poison = Outgoing {
        body: "poison".to_owned(),
        attributes: attributes(&[("reply_to", "somewhere")]),
    };
    queue.send(&[poison]).await.expect("send the batch");
    let received = receive(&*queue, 1).await;
    queue
        .extend(&receipts(&received), Duration::ZERO)
        .await
        .expect("hand back");
    assert_empty(&*queue, Duration::from_secs(1)).await;
    let dead_letter = queues
        .existing(&dead_letter)
        .await
        .expect("open the dead-letter queue");
    let dead = receive(&*dead_letter, 1).await;
    assert_eq!(dead[0].attributes, received[0].attributes);
    assert_eq!(dead[0].attributes["reply_to"], "somewhere");
}

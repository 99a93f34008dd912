use bytes::Bytes;
use muster_base::backend::Role;
use muster_base::settings::{ReplyQueues, Settings};
use muster_jobs::keys::ObjectKeys;
use muster_jobs::{Failure, FailureCode, FileName, Request};
use object_store::PutPayload;
use tempfile::TempDir;

use super::*;
use crate::forms::memory::UploadMemory;

const LIMIT: Duration = Duration::from_secs(20);

struct Tier {
    dispatcher: Dispatcher,
    backend: Backend,
    totals: watch::Receiver<muster_fleet::RequestTotals>,
    _folder: Arc<TempDir>,
}

impl Tier {
    async fn start(timeout: Duration) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(folder, ReplyQueues::Replica, timeout).await
    }

    async fn start_in(folder: Arc<TempDir>, replies: ReplyQueues, timeout: Duration) -> Self {
        let mut settings = Settings::default();
        settings.storage.data_dir = folder.path().join("data");
        settings.queues.reply_queues = replies;
        let backend = Backend::open(&settings, Role::Web).await.unwrap();
        let (backlog, totals) = watch::channel(muster_fleet::RequestTotals::default());
        let dependencies = Dependencies {
            gallery: LiveGallery::load(backend.gallery.clone()).await.unwrap(),
            catalogue: Catalogue::open(&settings.models).unwrap(),
            replies: backend.replies("test").await.unwrap(),
            backend: backend.clone(),
            timeout,
            max_waiting: 2,
            max_instances: 1,
            backlog,
            quota: Arc::new(Quota::new(None)),
            traces: Traces::default(),
            metrics: Metrics::new(None),
        };
        let stop = CancellationToken::new();
        let dispatcher = Dispatcher::start(dependencies, &TaskTracker::new(), &stop);
        Self {
            dispatcher,
            backend,
            totals,
            _folder: folder,
        }
    }

    async fn run(&self) -> Result<Outcome, ApiError> {
        let photo = Photo {
            file: FileName::from_client("a.jpg"),
            bytes: Bytes::from_static(b"a photograph"),
            memory: Arc::new(UploadMemory::new(1 << 20).reserve()),
        };
        let trace = TraceParent::new();
        self.dispatcher.recognize(photo, "own", trace).await
    }

    /// Receives the one request that is queued.
    async fn received(&self) -> Request {
        let received = self.backend.requests.receive(1, LIMIT).await.unwrap();
        let [message] = &received[..] else {
            panic!("{} requests", received.len())
        };
        Request::from_message(&message.body, &message.attributes).unwrap()
    }

    async fn answer(&self, request: &Request) {
        let failure = Failure {
            code: FailureCode::FaceNone,
            detail: String::new(),
        };
        let reply = Reply::new(request.id, request.file.clone(), Outcome::Failed(failure));
        let queue = self
            .backend
            .queues
            .existing(&request.reply_to)
            .await
            .unwrap();
        queue.send(&[reply.to_json().into()]).await.unwrap();
    }

    /// `(waiting, accepted, answered, failed)`, and what the controller knows: `(submitted,
    /// answered)`.
    fn counts(&self) -> ((usize, u64, u64, u64), (u64, u64)) {
        let counts = self.dispatcher.counts();
        let [accepted, answered, failed] = [&counts.accepted, &counts.answered, &counts.failed]
            .map(|count| count.load(Ordering::Relaxed));
        let totals = *self.totals.borrow();
        (
            (self.dispatcher.waiting(), accepted, answered, failed),
            (totals.submitted, totals.answered),
        )
    }

    async fn until_no_reply_is_left(&self) {
        let queue = self.backend.queues.existing("resp-queue").await.unwrap();
        let begun = Instant::now();
        loop {
            let counts = queue.counts().await.unwrap();
            if counts.visible + counts.in_flight == 0 {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{counts:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_answered(&self, answered: u64) {
        let mut totals = self.totals.clone();
        let known = totals.wait_for(|totals| totals.answered == answered);
        tokio::time::timeout(LIMIT, known).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_answer_ends_the_wait_and_the_backlog_and_one_too_many_counts_for_nothing() {
    let tier = Tier::start(LIMIT).await;
    let worker = async {
        let request = tier.received().await;
        assert_eq!(tier.counts(), ((1, 1, 0, 0), (1, 0)));
        tier.answer(&request).await;
        tier.answer(&request).await;
    };
    let (outcome, ()) = tokio::join!(tier.run(), worker);
    assert!(matches!(outcome, Ok(Outcome::Failed(_))));
    let (next, ()) = tokio::join!(tier.run(), async {
        tier.answer(&tier.received().await).await;
    });
    assert!(next.is_ok());
    assert_eq!(tier.counts(), ((0, 2, 2, 0), (2, 2)));
}

/// Its photograph is worked on all the same, so a worker is needed until then.
#[tokio::test]
async fn a_client_that_hangs_up_fails_at_once_and_stays_in_the_backlog_until_its_answer() {
    let tier = Tier::start(LIMIT).await;
    let request = tokio::select! {
        _ = tier.run() => panic!("nobody answered"),
        request = tier.received() => request,
    };
    assert_eq!(tier.counts(), ((0, 1, 0, 1), (1, 0)));
    tier.answer(&request).await;
    tier.until_answered(1).await;
    assert_eq!(tier.counts(), ((0, 1, 0, 1), (1, 1)));
}

#[tokio::test]
async fn the_controller_knows_since_when_the_oldest_waits_whoever_waits_for_it() {
    let tier = Tier::start(LIMIT).await;
    let oldest = || tier.totals.borrow().oldest;
    let given_up = tokio::select! {
        _ = tier.run() => panic!("nobody answered"),
        request = tier.received() => request,
    };
    let worker = async {
        let waited_for = tier.received().await;
        assert_eq!(oldest(), given_up.id.submitted_at());
        tier.answer(&given_up).await;
        tier.until_answered(1).await;
        assert_eq!(oldest(), waited_for.id.submitted_at());
        tier.answer(&waited_for).await;
    };
    let (answered, ()) = tokio::join!(tier.run(), worker);
    assert!(answered.is_ok());
    assert_eq!(oldest(), None);
}

#[tokio::test]
async fn a_client_whose_time_is_over_is_counted_like_one_that_hangs_up() {
    let tier = Tier::start(Duration::from_millis(100)).await;
    assert!(tier.run().await.is_err());
    assert_eq!(tier.counts(), ((0, 1, 0, 1), (1, 0)));
    tier.answer(&tier.received().await).await;
    tier.until_answered(1).await;
}

/// Nobody has to know its id to find it again, and no age deletes its photograph.
#[tokio::test]
async fn a_photograph_whose_client_waited_in_vain_is_a_job() {
    let tier = Tier::start(Duration::from_millis(100)).await;
    let late = tier.run().await.unwrap_err().into_problem();
    let request = tier.received().await;
    assert_eq!(late.members.job, Some(format!("/v1/jobs/{}", request.id)));
    let entry = Backend::job_key(request.id, "own", &request.file);
    assert!(tier.backend.input.head(&entry).await.is_ok());
}

/// Somebody removes the reply queue, and a worker finds none before it is made anew.
#[tokio::test]
async fn a_result_whose_reply_was_lost_with_the_queue_is_answered() {
    let tier = Tier::start(LIMIT).await;
    let worker = async {
        let request = tier.received().await;
        let failure = Failure {
            code: FailureCode::FaceNone,
            detail: String::new(),
        };
        let body = serde_json::to_vec(&failure).unwrap();
        let key = Path::from(ObjectKeys::Request.output(request.id, &request.file));
        let put = tier.backend.output.put(&key, PutPayload::from(body));
        put.await.unwrap();
        let queue = tier.backend.queues.existing(&request.reply_to).await;
        queue.unwrap().remove().await.unwrap();
    };
    let begun = Instant::now();
    let (outcome, ()) = tokio::join!(tier.run(), worker);
    assert!(matches!(outcome, Ok(Outcome::Failed(_))), "{outcome:?}");
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn what_was_never_queued_leaves_no_backlog() {
    let tier = Tier::start(LIMIT).await;
    tier.backend.requests.remove().await.unwrap();
    assert!(tier.run().await.is_err());
    assert_eq!(tier.counts(), ((0, 1, 0, 1), (1, 1)));
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let tier = Tier::start(LIMIT).await;
    let third = async {
        while tier.dispatcher.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        tier.run().await
    };
    tokio::select! {
        _ = tier.run() => panic!("nobody answered"),
        _ = tier.run() => panic!("nobody answered"),
        refused = third => assert!(refused.is_err()),
    }
    let ((waiting, accepted, ..), (submitted, _)) = tier.counts();
    assert_eq!((waiting, accepted, submitted), (0, 2, 2));
}

/// While one replaces the other, or by mistake: none is to eat the other's answers.
#[tokio::test]
async fn replicas_on_one_reply_queue_leave_each_other_their_replies() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = || Tier::start_in(Arc::clone(&folder), ReplyQueues::Shared, LIMIT);
    let (one, two) = (start().await, start().await);
    let worker = async {
        for _ in 0..4 {
            let request = one.received().await;
            assert_eq!(request.reply_to, "resp-queue");
            one.answer(&request).await;
        }
    };
    let both = async |tier: &Tier| {
        let (first, second) = tokio::join!(tier.run(), tier.run());
        assert!(first.is_ok() && second.is_ok());
    };
    tokio::join!(worker, both(&one), both(&two));
    for tier in [&one, &two] {
        assert_eq!(tier.counts(), ((0, 2, 2, 0), (2, 2)));
    }
    one.until_no_reply_is_left().await;
}

#[tokio::test]
async fn replies_from_before_a_restart_are_dropped_once_nobody_can_wait_for_them() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let patience = Duration::from_millis(500);
    let after = Tier::start_in(folder, ReplyQueues::Shared, patience).await;
    let old: RequestId = "01900000-0000-7000-8000-000000000000".parse().unwrap();
    let file = FileName::from_client("a.jpg");
    let [old, late] =
        [old, RequestId::new()].map(|id| Reply::new(id, file.clone(), Outcome::Stored));
    let carried = Backend::carried_key(late.id);
    let output = &after.backend.output;
    output.put(&carried, "an outcome".into()).await.unwrap();
    let queue = after.backend.replies("test").await.unwrap();
    let replies = [late.to_json().into(), old.to_json().into()];
    queue.send(&replies).await.unwrap();
    after.until_no_reply_is_left().await;
    // With what was on its way to the client.
    let begun = Instant::now();
    while output.head(&carried).await.is_ok() {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

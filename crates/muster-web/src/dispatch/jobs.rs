//! The submission of jobs: requests that nobody waits for from the beginning.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use muster_api::problem::Code;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::settings::EXPECTED_SERVICE;
use muster_fleet::RequestTotals;
use muster_jobs::keys::ObjectKeys;
use muster_jobs::{FileName, Purpose, RequestId, TraceParent};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::api::problem::ApiError;
use crate::dispatch::dispatcher::{Dispatcher, Inner, Submission};
use crate::forms::upload::Photo;

/// How long a client that waited in vain waits for its photograph to be listed as a job.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// A job on its way to the queue, counted until its reply comes; at an end at once where it
/// does not get there.
struct QueuedJob<'a> {
    inner: &'a Inner,
    id: RequestId,
    /// Whether the request is on the queue.
    queued: bool,
}

impl<'a> QueuedJob<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let id = inner.issue();
        // Before it is sent: its reply may be quicker than this.
        inner.unawaited.submit(id);
        inner.counts.accepted.fetch_add(1, Ordering::Relaxed);
        inner.count(|totals| totals.submitted += 1);
        Self {
            inner,
            id,
            queued: false,
        }
    }
}

impl Drop for QueuedJob<'_> {
    fn drop(&mut self) {
        if !self.queued && self.inner.unawaited.remove(self.id).is_some() {
            self.inner.counts.failed.fetch_add(1, Ordering::Relaxed);
            self.inner.count(|totals| totals.answered += 1);
        }
    }
}

impl Dispatcher {
    /// Jobs that were submitted here and not answered, as far as is known.
    pub fn unawaited_jobs(&self) -> usize {
        self.inner.unawaited.jobs()
    }

    /// How long a whole fleet takes for so many requests, by what requests took of late.
    pub fn time_to_answer(&self, requests: usize) -> Duration {
        let totals = *self.inner.backlog.borrow();
        time_to_answer(requests, &totals, self.inner.max_instances)
    }

    /// Submits photographs that nobody waits for, as jobs of that owner: all are stored and on the
    /// queue when this returns, or none is a job.
    ///
    /// # Errors
    /// 504 after the timeout, 500 where the store or the queue fails.
    pub async fn accept(
        &self,
        photos: Vec<Photo>,
        owner: &str,
        trace: TraceParent,
    ) -> Result<Vec<(RequestId, FileName)>, ApiError> {
        let inner = &*self.inner;
        let deadline = tokio::time::Instant::now() + inner.timeout;
        let submitted = photos.into_iter().map(async |photo| {
            let mut job = QueuedJob::begin(inner);
            let (id, file) = (job.id, photo.file.clone());
            let queued = self
                .submit(id, photo, Submission::job(), trace, deadline)
                .await;
            job.queued = queued.is_ok();
            (id, file, queued)
        });
        let submitted = join_all(submitted).await;
        let listed = submitted.iter().map(async |(id, file, queued)| {
            // After the message: what is listed as a job is sure to be worked on.
            if queued.is_ok() {
                let key = Backend::job_key(*id, owner, file);
                let put = inner.backend.input.put(&key, PutPayload::default());
                tokio::time::timeout_at(deadline, put).await??;
            }
            anyhow::Ok(())
        });
        let listed = join_all(listed).await;
        let mut accepted = Vec::new();
        let mut refusal = None;
        for ((id, file, queued), listed) in submitted.into_iter().zip(listed) {
            let listed =
                listed.map_err(|error| ApiError::internal("a job was not listed", error.as_ref()));
            if let Err(error) = queued.and(listed) {
                refusal = Some(error);
            }
            accepted.push((id, file));
        }
        match refusal {
            None => Ok(accepted),
            Some(refusal) => {
                for (id, file) in &accepted {
                    self.take_back(*id, owner, file).await;
                }
                Err(refusal)
            }
        }
    }

    /// Lists a photograph whose client waited in vain among the jobs, so that it is kept until it is
    /// answered; says where. Those whose results are known by a file's name alone are no jobs.
    pub(super) async fn becomes_job(
        &self,
        id: RequestId,
        owner: &str,
        file: &FileName,
    ) -> ApiError {
        let backend = &self.inner.backend;
        if backend.keys == ObjectKeys::Filename {
            return self.timed_out("send it again later");
        }
        let key = Backend::job_key(id, owner, file);
        let put = backend.input.put(&key, PutPayload::default());
        match tokio::time::timeout(LISTED_WITHIN, put).await {
            Ok(Ok(_)) => {
                let job = format!("/v1/jobs/{id}");
                self.timed_out(&format!(
                    "the photograph is still queued, and a job now: ask {job} later"
                ))
                .with(|members| members.job = Some(job))
            }
            failed => {
                if let Ok(Err(error)) = failed {
                    aws::failed("a photograph was not listed as a job", &error);
                }
                self.timed_out("send it again later")
            }
        }
    }

    /// The error for a client that waited in vain, and what to do.
    pub(super) fn timed_out(&self, rest: &str) -> ApiError {
        let waited = self.inner.timeout.as_secs_f64();
        ApiError::new(
            Code::Timeout,
            format!("no answer within {waited:.0} s; {rest}"),
        )
    }

    /// Deletes the photograph of a job that was not accepted, so that no worker works on it.
    async fn take_back(&self, id: RequestId, owner: &str, file: &FileName) {
        let backend = &self.inner.backend;
        let layout = backend.layout(Purpose::Recognize);
        for key in [
            Path::from(layout.input(id, file)),
            Backend::job_key(id, owner, file),
        ] {
            self.inner.delete_upload(id, &key).await;
        }
    }
}

fn time_to_answer(requests: usize, totals: &RequestTotals, instances: u32) -> Duration {
    let each = match totals.timed {
        0 => EXPECTED_SERVICE,
        timed => totals.worked.div_f64(timed as f64),
    };
    each.mul_f64(requests as f64 / f64::from(instances.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_answer_is_what_requests_took_shared_by_the_fleet() {
        let none = RequestTotals::default();
        assert_eq!(time_to_answer(0, &none, 4), Duration::ZERO);
        assert_eq!(time_to_answer(40, &none, 4), EXPECTED_SERVICE * 10);
        let some = RequestTotals {
            submitted: 30,
            answered: 25,
            timed: 20,
            worked: Duration::from_secs(10),
            oldest: None,
        };
        assert_eq!(time_to_answer(7, &some, 1), Duration::from_millis(3500));
        assert_eq!(time_to_answer(8, &some, 2), Duration::from_secs(2));
    }
}

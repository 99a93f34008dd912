//! How long an answer occupied its worker's slot, for the controller.

use std::time::Duration;

use muster_fleet::RequestTotals;
use muster_jobs::{Outcome, Reply};

/// Counts an answer, with how long its worker's slot was occupied.
pub fn answered(totals: &mut RequestTotals, worked: Option<Duration>) {
    totals.answered += 1;
    if let Some(worked) = worked {
        totals.timed += 1;
        totals.worked = totals.worked.saturating_add(worked);
    }
}

/// How long a reply says that requests occupied its worker's slot; workers of an older build only say
/// what the models took.
pub fn slot_time(reply: &Reply) -> Option<Duration> {
    match (reply.slot_ms, &reply.outcome) {
        (Some(slot_ms), _) => Duration::try_from_secs_f64(slot_ms / 1e3).ok(),
        (None, Outcome::Recognized(recognition)) => Some(recognition.timing_ms.inference()),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::{
        Failure, FailureCode, FileName, ImageSize, Recognition, RequestId, TimingMs,
    };

    use super::*;

    #[test]
    fn all_that_an_answer_took_of_the_slot_counts_and_of_an_older_worker_what_it_says() {
        let timing_ms = TimingMs {
            decode: 1.0,
            detect: 4.0,
            embed: 15.0,
            store: 400.0,
            ..TimingMs::default()
        };
        let recognized = Outcome::Recognized(Box::new(Recognition {
            request_id: RequestId::new(),
            image: ImageSize {
                width: 1,
                height: 1,
                turned_deg: 0,
                frame: 0,
                repaired: vec![],
            },
            faces: Vec::new(),
            model: "sface".to_owned(),
            timing_ms,
        }));
        let failed = Outcome::Failed(Failure {
            code: FailureCode::FaceNone,
            detail: String::new(),
        });
        let mut totals = RequestTotals::default();
        for (slot_ms, outcome, worked_ms) in [
            (Some(90.5), recognized.clone(), 90.5),
            (Some(9.5), failed.clone(), 100.0),
            (None, recognized, 120.0),
            (None, failed, 120.0),
        ] {
            let mut reply = Reply::new(RequestId::new(), FileName::from_client("a.jpg"), outcome);
            reply.slot_ms = slot_ms;
            answered(&mut totals, slot_time(&reply));
            let counted = totals.worked.as_secs_f64() * 1e3;
            assert!((counted - worked_ms).abs() < 1e-6, "{counted}");
        }
        assert_eq!((totals.answered, totals.timed), (4, 3));
    }
}

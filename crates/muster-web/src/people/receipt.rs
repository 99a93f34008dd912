//! The receipt of a deletion.

use muster_api::people::Receipt;
use muster_gallery::{Gallery, Person, Source};
use muster_jobs::now_ms;
use uuid::Uuid;

use crate::api::gallery;
use crate::api::problem::ApiError;
use crate::people::photographs;
use crate::retention::Retention;
use muster_base::backend::Backend;
use muster_base::live_gallery::{LiveGallery, RELEASED_WITHIN};

/// Deletes the kept photographs of what was just taken out of the gallery, and says so.
pub async fn receipt(
    backend: &Backend,
    gallery: &LiveGallery,
    retention: &Retention,
    person: &Person,
    sources: impl IntoIterator<Item = Source>,
) -> Result<Receipt, ApiError> {
    let sources: Vec<Source> = sources.into_iter().collect();
    let embeddings = sources.len();
    let deleted = photographs::delete(&*backend.enrolled, sources).await;
    Ok(Receipt {
        id: Uuid::now_v7(),
        person_id: person.id.into(),
        deleted_at_ms: now_ms(),
        gallery_version: gallery::read(gallery, Gallery::version).await?,
        embeddings,
        photographs: deleted,
        photographs_pending: embeddings - deleted,
        other_machines_within_s: RELEASED_WITHIN.as_secs(),
        uploads_kept_s: (!retention.input_is_bucket).then_some(retention.period.as_secs()),
    })
}

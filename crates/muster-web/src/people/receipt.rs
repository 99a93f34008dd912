//! What was deleted, said so that it can be filed.

use muster_gallery::{Gallery, Person, PersonId, Source};
use muster_jobs::now_ms;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::gallery;
use crate::api::problem::ApiError;
use crate::people::kept;
use crate::retention::Retention;
use muster_base::backend::Backend;
use muster_base::live_gallery::{LET_GO_WITHIN, LiveGallery};

/// The receipt of a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    id: Uuid,
    #[schema(value_type = uuid::Uuid)]
    person_id: PersonId,
    deleted_at_ms: u64,
    /// The first version of the gallery without what was deleted; what later requests are matched
    /// against has it or a newer one.
    gallery_version: u64,
    /// Embeddings deleted from the gallery: its changes, its segments and their copies on this
    /// machine.
    embeddings: usize,
    /// Kept photographs deleted.
    photographs: usize,
    /// Kept photographs that the store did not delete when asked; the sweep deletes them.
    photographs_pending: usize,
    /// Within this time other machines with a running web tier or worker delete their copies of the
    /// segments that had them.
    other_machines_within_s: u64,
    /// Photographs that were sent for recognition are deleted when they are this old, whoever they
    /// show; `null` where they are in a bucket, whose own expiry rule says when.
    uploads_kept_s: Option<u64>,
}

impl Receipt {
    /// Deletes the kept photographs of what was just taken out of the gallery, and says so.
    pub async fn of(
        backend: &Backend,
        gallery: &LiveGallery,
        retention: &Retention,
        person: &Person,
        sources: impl IntoIterator<Item = Source>,
    ) -> Result<Self, ApiError> {
        let sources: Vec<Source> = sources.into_iter().collect();
        let embeddings = sources.len();
        let deleted = kept::delete(&*backend.enrolled, sources).await;
        Ok(Self {
            id: Uuid::now_v7(),
            person_id: person.id,
            deleted_at_ms: now_ms(),
            gallery_version: gallery::read(gallery, Gallery::version).await?,
            embeddings,
            photographs: deleted,
            photographs_pending: embeddings - deleted,
            other_machines_within_s: LET_GO_WITHIN.as_secs(),
            uploads_kept_s: (!retention.input_is_bucket).then_some(retention.period.as_secs()),
        })
    }
}

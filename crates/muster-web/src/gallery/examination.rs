//! How well the gallery tells its people apart, and what is likely wrong in it:
//! `/v1/calibration`, `/v1/gallery/health`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_gallery::calibration::{self, Cutoff, Report};
use muster_gallery::health::{self, Extent, Health};
use muster_gallery::{Gallery, PersonId};
use muster_jobs::Requirements;
use serde::Deserialize;
use tokio::sync::Mutex;
use utoipa::IntoParams;

use crate::api::extract::Query;
use crate::api::gallery;
use crate::api::openapi::problem_responses;
use crate::api::problem::ApiError;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::settings::DecisionSettings;

/// The settings of examinations, and the last report. Cheap to clone.
#[derive(Clone)]
pub struct Examiner {
    catalogue: Catalogue,
    target_fpir: f64,
    cutoff: Option<f32>,
    /// What is required of a face at enrolment.
    required: Requirements,
    /// The last report, while nobody works on another: one examination runs at a time, since each
    /// takes a core for up to seconds.
    last: Arc<Mutex<Option<Report>>>,
}

impl Examiner {
    /// Examines by these settings what the gallery's model sees.
    pub fn new(settings: &DecisionSettings, catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            target_fpir: settings.target_fpir,
            cutoff: settings.cutoff,
            required: settings.quality.enrolment,
            last: Arc::default(),
        }
    }
}

/// Show the cutoff, and the error rates measured on the gallery itself
#[utoipa::path(
    get,
    path = "/v1/calibration",
    tag = "gallery",
    responses((status = 200, description = "What is known of the error rates.", body = Report))
)]
pub async fn calibration(
    State(live): State<LiveGallery>,
    State(examiner): State<Examiner>,
) -> Result<Json<Report>, ApiError> {
    let mut last = Arc::clone(&examiner.last).lock_owned().await;
    let copy = gallery::read(&live, Gallery::clone).await?;
    if let Some(report) = &*last
        && report.version == copy.version()
    {
        return Ok(Json(report.clone()));
    }
    let shipped = examiner.catalogue.shipped_of(&copy);
    let (target_fpir, cutoff) = (examiner.target_fpir, examiner.cutoff);
    // The turn ends with the work, which goes on where the client hangs up.
    gallery::look(&live, copy, move |copy| {
        let examine = |copy: &Gallery| calibration::report(copy, &shipped, target_fpir, cutoff);
        // What was not whole is not kept.
        let report = copy.look(examine).ok()?;
        Some(Json(last.insert(report).clone()))
    })
    .await
    .map(|report| report.expect("the look was whole"))
}

problem_responses! {
    /// The query is not as expected.
    BadQuery: RequestInvalid;
}

/// Which part of the gallery is examined.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HealthQuery {
    /// The `next` of the part before.
    #[param(value_type = Option<uuid::Uuid>)]
    after: Option<PersonId>,
}

/// List the faces and people that are likely wrong
///
/// A large gallery is examined part by part.
#[utoipa::path(
    get,
    path = "/v1/gallery/health",
    operation_id = "gallery_health",
    tag = "gallery",
    params(HealthQuery),
    responses((status = 200, description = "What was found.", body = Health), BadQuery)
)]
pub async fn health(
    State(live): State<LiveGallery>,
    State(examiner): State<Examiner>,
    Query(query): Query<HealthQuery>,
) -> Result<Json<Health>, ApiError> {
    let turn = Arc::clone(&examiner.last).lock_owned().await;
    let copy = gallery::read(&live, Gallery::clone).await?;
    let shipped = examiner.catalogue.shipped_of(&copy);
    let (target_fpir, cutoff) = (examiner.target_fpir, examiner.cutoff);
    let required = examiner.required;
    let health = gallery::look(&live, copy, move |copy| {
        let _held = &turn;
        let cutoff =
            cutoff.unwrap_or_else(|| Cutoff::for_target(copy, &shipped, target_fpir).value);
        let extent = Extent {
            after: query.after,
            ..Extent::default()
        };
        health::examine(copy, cutoff, &required, extent)
    });
    Ok(Json(health.await?))
}

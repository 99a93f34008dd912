//! What the handlers share: each takes only the parts that it uses.

use std::sync::Arc;

use axum::extract::FromRef;
use muster_base::backend::Backend;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_jobs::QualityLimits;

use crate::access::guard::Access;
use crate::dispatch::dispatcher::Dispatcher;
use crate::document::Document;
use crate::forms::uploads::Uploads;
use crate::gallery::examination::Examiner;
use crate::gallery::model_change::ModelChanges;
use crate::jobs::JobRules;
use crate::metrics::Metrics;
use crate::observe::events::Events;
use crate::observe::observer::Observer;
use crate::page::Samples;
use crate::people::deletion::Deletions;
use crate::people::enrolment::Enroller;
use crate::retention::Retention;
use crate::verify::Cutoff;

/// The router's state. Each layer clones it for each request, which copies none of its parts.
#[derive(Clone)]
pub struct App(pub Arc<Parts>);

/// Defines [`Parts`] and how each is taken out of [`App`].
macro_rules! app {
    ($($(#[$doc:meta])+ $part:ident: $type:ty,)+) => {
        /// What the router's state is made of.
        pub struct Parts {
            $($(#[$doc])+ pub $part: $type,)+
        }

        $(
            impl FromRef<App> for $type {
                fn from_ref(app: &App) -> Self {
                    app.0.$part.clone()
                }
            }
        )+
    };
}

app! {
    /// Who may call.
    access: Access,
    /// Stores and queues.
    backend: Backend,
    /// The known models.
    catalogue: Catalogue,
    /// The cutoff of a verification.
    cutoff: Cutoff,
    /// The deletions of people, faces and denials.
    deletions: Deletions,
    /// The way of a photograph to a worker and back.
    dispatcher: Dispatcher,
    /// `/openapi.json`.
    document: Document,
    /// The enrolment of faces.
    enroller: Enroller,
    /// The live events.
    events: Events,
    /// Examinations of the gallery.
    examiner: Examiner,
    /// The enrolled people.
    gallery: LiveGallery,
    /// The rules of jobs.
    jobs: JobRules,
    /// What this replica measures.
    metrics: Metrics,
    /// Changes of the gallery's model.
    model_changes: ModelChanges,
    /// How the service fares.
    observer: Observer,
    /// What faces need to be enrolled and named.
    quality: QualityLimits,
    /// How long uploads and results are kept.
    retention: Retention,
    /// The sample photographs.
    samples: Samples,
    /// The reading of request bodies.
    uploads: Uploads,
}

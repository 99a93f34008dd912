//! The deployment as it is at one moment.

use std::time::Instant;

use muster_base::backend::Backend;
use muster_base::catalogue::Catalogue;
use muster_base::fleet_status;
use muster_base::live_gallery::LiveGallery;
use muster_fleet::FleetStatus;
use muster_gallery::{Gallery, GalleryError};
use muster_jobs::QualityLimits;
use muster_queue::{Counts, QueueError};

use crate::dispatch::dispatcher::Dispatcher;

/// The reader of everything that tells how the service fares. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    /// Stores and queues.
    pub backend: Backend,
    /// The enrolled people.
    pub gallery: LiveGallery,
    /// The known models.
    pub catalogue: Catalogue,
    /// This replica's counts.
    pub dispatcher: Dispatcher,
    /// When this replica started.
    pub started: Instant,
    /// What faces need to be enrolled and named.
    pub quality: QualityLimits,
}

/// What was seen of the whole deployment at one moment.
pub struct Observation {
    /// The request queue.
    pub requests: Result<Counts, QueueError>,
    /// The dead-letter queue.
    pub dead: Result<Counts, QueueError>,
    /// What the controller last published.
    pub fleet: anyhow::Result<FleetStatus>,
    /// People, faces, version, and the model that faces are matched by.
    pub gallery: Result<(usize, usize, u64, String), GalleryError>,
}

impl Observer {
    /// Reads queues, fleet and gallery at the same time.
    pub async fn observe(&self) -> Observation {
        let sizes = |gallery: &Gallery| {
            let (people, faces) = (gallery.people_count(), gallery.faces());
            (
                people,
                faces,
                gallery.version(),
                self.catalogue.model_of(gallery),
            )
        };
        let (requests, dead, fleet, gallery) = tokio::join!(
            self.backend.requests.counts(),
            self.backend.dead_letters.counts(),
            fleet_status::read(&*self.backend.state),
            self.gallery.newest(sizes)
        );
        Observation {
            requests,
            dead,
            fleet,
            gallery,
        }
    }
}

//! Changes of one enrolled person.

use muster_base::live_gallery::LiveGallery;
use muster_gallery::{Change, Gallery, Person};
use muster_jobs::now_ms;

use crate::api::gallery;
use crate::api::problem::ApiError;
use crate::people::rules::{no_such_person, person_id};

/// Changes one person, as they are at the gallery's newest version.
pub async fn edit(
    live: &LiveGallery,
    id: &str,
    mut change: impl FnMut(&Gallery, &mut Person) -> Result<(), ApiError>,
) -> Result<Person, ApiError> {
    let person = person_id(id)?;
    let mut changed = None;
    gallery::change(live, |gallery| {
        let found = gallery.person(person).ok_or_else(|| no_such_person(id))?;
        let mut person = found.into_owned();
        change(gallery, &mut person)?;
        person.changed_at_ms = now_ms();
        changed = Some(person.clone());
        Ok(Change::Put(person))
    })
    .await?;
    changed.ok_or_else(|| no_such_person(id))
}

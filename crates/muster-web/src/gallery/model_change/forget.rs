//! The deletion of a former model's embeddings.

use muster_gallery::{Change, Embeddings, GalleryError, Person, WriteError};

use muster_base::live_gallery::LiveGallery;

/// People of whose faces a model is forgotten between two compactions: each writes segments anew, and
/// each change lists those since the last.
const FORGET_PAGE: usize = 64;

/// Deletes a model's embeddings of everybody, and says of how many people; `None` where the gallery is
/// matched by it.
///
/// What a call that was cut off had left, the next one does.
pub async fn everywhere(gallery: &LiveGallery, model: &str) -> Result<Option<usize>, GalleryError> {
    let (mut people, mut before, mut after) = (0, 0, None);
    loop {
        let (holding, last) = gallery
            .newest(|gallery| {
                let page = gallery.page(after, FORGET_PAGE);
                let last = page.last().map(|person| person.id);
                let holding = page.iter().filter(|person| holds(person, model));
                (holding.map(|person| person.id).collect::<Vec<_>>(), last)
            })
            .await?;
        for id in &holding {
            let written = gallery.write(|gallery| {
                if gallery.model() == Some(model) {
                    return Err(Unchanged::InUse);
                }
                let found = gallery.person(*id).filter(|person| holds(person, model));
                let mut person = found.ok_or(Unchanged::Gone)?.into_owned();
                for (_, made) in person.embeddings_mut() {
                    *made = made.clone().without(model);
                }
                Ok(Change::Put(person))
            });
            match written.await {
                Ok(_) => people += 1,
                Err(WriteError::Refused(Unchanged::Gone)) => {}
                Err(WriteError::Refused(Unchanged::InUse)) => return Ok(None),
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        // At the end also for a call that was cut off before this.
        if !holding.is_empty() || last.is_none() {
            gallery.compact().await?;
        }
        match last {
            Some(last) => after = Some(last),
            // Once more: someone may have got a face meanwhile.
            None if people > before => (before, after) = (people, None),
            None => return Ok(Some(people)),
        }
    }
}

/// Why nothing of a person was forgotten.
enum Unchanged {
    /// The gallery is matched by the model.
    InUse,
    /// The person or the embeddings are gone.
    Gone,
}

fn holds(person: &Person, model: &str) -> bool {
    let mut faces = person.faces.iter().map(|face| &face.embeddings);
    let mut denials = person.denials.iter().map(|denial| &denial.embeddings);
    let by = |made: &Embeddings| made.by(model).is_some();
    faces.any(by) || denials.any(by)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::TryStreamExt;
    use muster_gallery::{EnrolledFace, Gallery, GalleryStore};
    use muster_jobs::Embedding;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::*;

    /// A face by two models, of which the gallery is matched by the first.
    fn person(n: usize) -> Person {
        let mut values = [0.0_f32; 8];
        values[n % 8] = 1.0;
        let made = Embedding::normalise(&values).unwrap();
        let made = Embeddings::of("current", made.clone()).with("former", made);
        let face = EnrolledFace::new(format!("{n}.jpg"), made, 0);
        Person::new(format!("Person {n}"), vec![face], 0)
    }

    fn without_former(mut person: Person) -> Person {
        for (_, made) in person.embeddings_mut() {
            *made = made.clone().without("former");
        }
        person
    }

    async fn write(live: &LiveGallery, person: &Person) {
        let written = live.write(|_| Ok::<_, ()>(Change::Put(person.clone())));
        let _due = written.await.unwrap();
    }

    async fn any_object_names(objects: &InMemory, model: &str) -> bool {
        let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
        for meta in listed {
            let found = objects.get(&meta.location).await.unwrap();
            let bytes = found.bytes().await.unwrap();
            let mut parts = bytes.windows(model.len());
            if parts.any(|part| part == model.as_bytes()) {
                return true;
            }
        }
        false
    }

    #[tokio::test]
    async fn a_model_is_forgotten_of_everybody_also_after_a_call_that_was_cut_off() {
        let objects = Arc::new(InMemory::new());
        let store = GalleryStore::new(objects.clone(), "gallery");
        let live = LiveGallery::load(store).await.unwrap();
        let people: Vec<Person> = (0..FORGET_PAGE + 10).map(person).collect();
        for person in &people {
            write(&live, person).await;
        }
        live.compact().await.unwrap();
        assert!(any_object_names(&objects, "former").await);
        let in_use = everywhere(&live, "current").await.unwrap();
        assert_eq!(in_use, None);

        // The call before was cut off after the first person.
        write(&live, &without_former(people[0].clone())).await;
        let forgotten = everywhere(&live, "former").await.unwrap();
        assert_eq!(forgotten, Some(people.len() - 1));
        assert!(!any_object_names(&objects, "former").await);
        let kept = live.held(Gallery::people_count).await.unwrap();
        assert_eq!(kept, people.len());

        // The call before was cut off after the last person.
        write(&live, &people[0]).await;
        live.compact().await.unwrap();
        write(&live, &without_former(people[0].clone())).await;
        assert!(any_object_names(&objects, "former").await);
        let forgotten = everywhere(&live, "former").await.unwrap();
        assert_eq!(forgotten, Some(0));
        assert!(!any_object_names(&objects, "former").await);
    }
}

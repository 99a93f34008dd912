use muster_recognize::embed::Embedding;
use muster_recognize::gallery::{EnrolledFace, GalleryStore};
use object_store::ObjectStore;
use object_store::memory::InMemory;

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
    written.await.unwrap().unwrap();
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
    let in_use = forget_everywhere(&live, "current").await.unwrap();
    assert_eq!(in_use, None);

    // The call before was cut off after the first person.
    write(&live, &without_former(people[0].clone())).await;
    let forgotten = forget_everywhere(&live, "former").await.unwrap();
    assert_eq!(forgotten, Some(people.len() - 1));
    assert!(!any_object_names(&objects, "former").await);
    let kept = live.held(|gallery| gallery.people_count()).await;
    assert_eq!(kept, people.len());

    // The call before was cut off after the last person.
    write(&live, &people[0]).await;
    live.compact().await.unwrap();
    write(&live, &without_former(people[0].clone())).await;
    assert!(any_object_names(&objects, "former").await);
    let forgotten = forget_everywhere(&live, "former").await.unwrap();
    assert_eq!(forgotten, Some(0));
    assert!(!any_object_names(&objects, "former").await);
}

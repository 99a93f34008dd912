use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_jobs::Embedding;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::objects::CHANGES_KEPT_EMPTY;
use super::*;
use crate::{Denial, DenialId, Embeddings, EnrolledFace, Person, PersonId, SegmentError};

fn person(name: &str, direction: usize) -> Person {
    let mut values = vec![0.0; 8];
    values[direction % 8] = 1.0;
    let embeddings = Embeddings::of("sface", Embedding::normalise(&values).unwrap());
    let face = EnrolledFace::new(format!("{name}.jpg"), embeddings, 1);
    Person::new(name.to_owned(), vec![face], 1)
}

/// Makes a change, and compacts where that is due.
async fn append(store: &GalleryStore, gallery: &mut Gallery, change: Change) {
    let decide = |_: &Gallery| Ok::<_, ()>(change.clone());
    if store.write(gallery, decide).await.unwrap() == Written::CompactionDue {
        store.compact(gallery).await.unwrap();
        store.sync(gallery).await.unwrap();
    }
}

async fn put(store: &GalleryStore, gallery: &mut Gallery, person: Person) {
    append(store, gallery, Change::Put(person)).await;
}

fn stores() -> Vec<(Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    vec![
        (Arc::new(local), Some(folder)),
        (Arc::new(InMemory::new()), None),
    ]
}

async fn names(store: &GalleryStore) -> Vec<String> {
    let mut fresh = Gallery::default();
    store.sync(&mut fresh).await.unwrap();
    let mut names: Vec<_> = fresh.people().map(|person| person.name.clone()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_appended_is_seen_by_every_reader() {
    for (objects, _folder) in stores() {
        let store = GalleryStore::new(objects, "gallery");
        let (mut writer, mut reader) = (Gallery::default(), Gallery::default());
        // Past one snapshot, with a reader that stays behind and catches up across it.
        for n in 0..CHANGES_PER_MANIFEST + 3 {
            put(&store, &mut writer, person(&format!("p{n:03}"), n as usize)).await;
            if n % 10 == 0 {
                store.sync(&mut reader).await.unwrap();
                assert_eq!(reader, writer);
            }
        }
        store.sync(&mut reader).await.unwrap();
        assert_eq!(reader, writer);
        assert_eq!(names(&store).await.len(), CHANGES_PER_MANIFEST as usize + 3);
    }
}

#[tokio::test]
async fn concurrent_writers_lose_nothing() {
    for (objects, _folder) in stores() {
        let store = GalleryStore::new(objects, "gallery");
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut gallery = Gallery::default();
                    for n in 0..25 {
                        put(&store, &mut gallery, person(&format!("w{w}-{n:02}"), n)).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(names(&store).await.len(), 100);
    }
}

#[tokio::test]
async fn a_removed_person_is_gone_from_the_store() {
    for (objects, _folder) in stores() {
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        let mut gallery = Gallery::default();
        let (anna, ben) = (person("Anna", 0), person("Ben", 1));
        put(&store, &mut gallery, anna.clone()).await;
        put(&store, &mut gallery, ben.clone()).await;
        remove(&store, &mut gallery, anna.id).await;
        assert_eq!(names(&store).await, ["Ben"]);
        let left = objects_with(&objects, b"Anna").await;
        assert!(!left.is_empty());
        assert!(left.iter().all(|(_, has)| !has), "{left:?}");
    }
}

#[tokio::test]
async fn nothing_that_was_removed_leaves_an_embedding() {
    for (objects, _folder) in stores() {
        let folder = tempfile::tempdir().unwrap();
        let cache = SegmentCache::open(folder.path()).unwrap();
        let store = GalleryStore::new(Arc::clone(&objects), "gallery").cached(cache);
        let made = |n: u8| Embedding::normalise(&[1.0, f32::from(n), 0.3]).unwrap();
        let face = |n| EnrolledFace::new(String::new(), Embeddings::of("sface", made(n)), 1);
        let mut anna = Person::new("Anna".to_owned(), vec![face(1), face(2)], 1);
        anna.denials.push(Denial {
            id: DenialId::new(),
            request_id: String::new(),
            face: 0,
            embeddings: Embeddings::of("sface", made(3)),
            at_ms: 1,
        });
        let left = async || {
            let mut left = Vec::new();
            for n in 1..=4 {
                let vector = made(n).to_bytes();
                let text = STANDARD.encode(&vector).into_bytes();
                let files = std::fs::read_dir(folder.path()).unwrap();
                let here = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
                let here: Vec<u8> = here.flatten().collect();
                for trace in [&*vector, &text] {
                    let stored = objects_with(&objects, trace).await;
                    if stored.iter().any(|(_, has)| *has)
                        || here.windows(trace.len()).any(|window| window == trace)
                    {
                        left.push(n);
                    }
                }
            }
            left.dedup();
            left
        };
        let mut gallery = Gallery::default();
        put(&store, &mut gallery, anna.clone()).await;
        let ben = Person::new("Ben".to_owned(), vec![face(4)], 1);
        put(&store, &mut gallery, ben).await;
        store.compact(&gallery).await.unwrap();
        store.sync(&mut gallery).await.unwrap();
        assert_eq!(left().await, [1, 2, 3, 4]);
        anna.denials.clear();
        put(&store, &mut gallery, anna.clone()).await;
        assert_eq!(left().await, [1, 2, 4]);
        anna.faces.remove(0);
        put(&store, &mut gallery, anna.clone()).await;
        assert_eq!(left().await, [2, 4]);
        remove(&store, &mut gallery, anna.id).await;
        assert_eq!(left().await, [4]);
        assert_eq!(names(&store).await, ["Ben"]);
    }
}

/// Keys of all objects, and whether anything in them is the text.
async fn objects_with(objects: &Arc<dyn ObjectStore>, text: &[u8]) -> Vec<(String, bool)> {
    let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let mut found = Vec::new();
    for meta in all {
        let bytes = objects
            .get(&meta.location)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let has = bytes.windows(text.len()).any(|window| window == text);
        found.push((meta.location.to_string(), has));
    }
    found
}

async fn remove(store: &GalleryStore, gallery: &mut Gallery, id: PersonId) {
    append(store, gallery, Change::Remove(id)).await;
}

#[tokio::test]
async fn a_crash_after_any_step_of_a_compaction_changes_nothing() {
    for steps in 0..3 {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        let mut gallery = Gallery::default();
        for n in 0..5 {
            put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
        }
        store.compact(&gallery).await.unwrap();
        store.sync(&mut gallery).await.unwrap();
        put(&store, &mut gallery, person("p5", 5)).await;
        let gone = gallery.named("p0").next().unwrap().into_owned();
        let mut late = gallery.clone();
        let change = Change::Remove(gone.id);
        let decide = |_: &Gallery| Ok::<_, ()>(change.clone());
        let written = store.write(&mut gallery, decide).await.unwrap();
        assert_eq!(written, Written::CompactionDue);

        // Segments, then the manifest, then its announcement; what follows is the crash.
        let manifest = store.write_segments(&gallery).await.unwrap();
        if steps > 0 {
            assert!(store.objects.create_manifest(&manifest).await.unwrap());
        }
        if steps > 1 {
            store.objects.announce(&manifest).await.unwrap();
        }
        let expected = ["p1", "p2", "p3", "p4", "p5"];
        assert_eq!(names(&store).await, expected, "after {steps} steps");
        store.sync(&mut late).await.unwrap();
        assert_eq!(late, gallery);

        // Another process goes on, and completes it.
        put(&store, &mut late, person("p6", 6)).await;
        store.compact(&late).await.unwrap();
        assert_eq!(names(&store).await.len(), 6);
        let left = objects_with(&objects, b"\"p0\"").await;
        assert!(left.iter().all(|(_, has)| !has), "{left:?}");
        let manifests = left
            .iter()
            .filter(|(key, _)| key.ends_with(".manifest.json"));
        assert_eq!(manifests.count(), 1);
        store.sync(&mut late).await.unwrap();
        let named = late.snapshot().segments.len();
        let segments = left.iter().filter(|(key, _)| key.ends_with(".segment"));
        assert_eq!(segments.count(), named, "{left:?}");
    }
}

#[tokio::test]
async fn compactions_at_the_same_time_lose_nothing() {
    for (objects, _folder) in stores() {
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        let workers: Vec<_> = (0..4)
            .map(|w| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut gallery = Gallery::default();
                    for n in 0..12 {
                        let person = person(&format!("w{w}-{n:02}"), n);
                        let id = person.id;
                        put(&store, &mut gallery, person).await;
                        if n % 3 == 0 {
                            remove(&store, &mut gallery, id).await;
                        } else if n % 3 == 1 {
                            store.compact(&gallery).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let names = names(&store).await;
        assert_eq!(names.len(), 4 * 8, "{names:?}");
        let left = objects_with(&objects, b"w1-03").await;
        assert!(left.iter().all(|(_, has)| !has), "{left:?}");
    }
}

#[tokio::test]
async fn a_writer_who_looked_away_meanwhile_does_not_write_into_the_past() {
    let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
    let mut gallery = Gallery::default();
    put(&store, &mut gallery, person("first", 0)).await;
    let behind = gallery.version();
    for n in 0..5 {
        put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
    }
    store.compact(&gallery).await.unwrap();
    let lost = Change::Put(person("lost", 1));
    let created = store
        .objects
        .create_change(behind + 1, &lost)
        .await
        .unwrap();
    assert!(!created, "change {} is covered by a manifest", behind + 1);
}

/// Whoever sent a create that took so long that its key was free again.
#[tokio::test]
async fn a_change_that_comes_after_its_version_was_compacted_away_is_written_again() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = GalleryStore::new(objects, "gallery");
    let mut gallery = Gallery::default();
    put(&store, &mut gallery, person("first", 0)).await;
    let late = person("late", 1);
    let mut meanwhile = Some(store.clone());
    let decide = |_: &Gallery| {
        if let Some(store) = meanwhile.take() {
            // Others go on while this one thinks its change over.
            let others = std::thread::spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut gallery = Gallery::default();
                    for n in 0..CHANGES_KEPT_EMPTY as usize + 8 {
                        put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
                    }
                    store.compact(&gallery).await.unwrap();
                });
            });
            others.join().unwrap();
        }
        Ok::<_, ()>(Change::Put(late.clone()))
    };
    let written = store.write(&mut gallery, decide).await.unwrap();
    assert_eq!(written, Written::Settled);
    let names = names(&store).await;
    assert_eq!(names.len(), CHANGES_KEPT_EMPTY as usize + 10, "{names:?}");
    assert!(names.contains(&"late".to_owned()));
    assert_eq!(gallery.people_count(), names.len());
}

#[tokio::test]
async fn updates_removals_and_compactions_in_any_order_answer_like_a_gallery_in_memory() {
    let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
    let (mut gallery, mut follower) = (Gallery::default(), Gallery::default());
    let mut expected: BTreeMap<PersonId, Person> = BTreeMap::new();
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for step in 0..300 {
        let some = expected
            .values()
            .nth(random(expected.len().max(1)))
            .cloned();
        match (random(10), some) {
            (0, Some(someone)) => {
                expected.remove(&someone.id);
                remove(&store, &mut gallery, someone.id).await;
            }
            (1..4, Some(mut someone)) => {
                someone.name = format!("renamed-{step}");
                someone.external_id = (step % 2 == 0).then(|| format!("key-{step}"));
                someone.faces.extend(person("more", random(8)).faces);
                expected.insert(someone.id, someone.clone());
                put(&store, &mut gallery, someone).await;
            }
            (4, _) => store.compact(&gallery).await.unwrap(),
            _ => {
                let new = person(&format!("p{step}"), random(8));
                expected.insert(new.id, new.clone());
                put(&store, &mut gallery, new).await;
            }
        }
        if random(4) == 0 {
            store.catch_up(&mut follower).await.unwrap();
            assert_eq!(follower, gallery);
        }
    }
    store.catch_up(&mut follower).await.unwrap();
    let mut fresh = Gallery::default();
    store.sync(&mut fresh).await.unwrap();
    assert!(fresh.snapshot().segments.len() > 1 && fresh.snapshot().sequence > 10);
    for gallery in [&gallery, &follower, &fresh] {
        assert!(
            gallery
                .people()
                .map(|p| p.into_owned())
                .eq(expected.values().cloned())
        );
        assert_eq!(gallery.people_count(), expected.len());
        let faces: usize = expected.values().map(|person| person.faces.len()).sum();
        assert_eq!(gallery.faces(), faces);
        for person in expected.values() {
            assert!(
                gallery
                    .named(&person.name)
                    .map(Cow::into_owned)
                    .eq([person.clone()])
            );
            assert_eq!(gallery.person(person.id).as_deref(), Some(person));
            if let Some(key) = &person.external_id {
                assert_eq!(gallery.external(key).as_deref(), Some(person));
            }
        }
        assert_eq!(gallery.named("renamed-0").count(), 0);
        let in_memory = Gallery::of("sface", expected.values().cloned().collect());
        let probe = Embedding::normalise(&[0.1, 0.9, 0.3, 0.0, 0.2, 0.0, 0.5, 0.4]).unwrap();
        let similarities = |gallery: &Gallery| {
            let nearest = gallery.nearest(&probe, 30).into_iter();
            nearest.map(|c| c.similarity).collect::<Vec<_>>()
        };
        assert_eq!(similarities(gallery), similarities(&in_memory));
        let page = gallery.page(expected.keys().nth(10).copied(), 5);
        let ids: Vec<_> = page.iter().map(|person| person.id).collect();
        assert!(expected.keys().skip(11).take(5).eq(&ids));
    }
}

#[tokio::test]
async fn the_folder_of_a_machine_holds_what_the_gallery_needs_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let cache = || SegmentCache::open(folder.path()).unwrap();
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = GalleryStore::new(Arc::clone(&objects), "gallery").cached(cache());
    let mut gallery = Gallery::default();
    for n in 0..6 {
        put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
    }
    store.compact(&gallery).await.unwrap();
    store.sync(&mut gallery).await.unwrap();
    let gone = gallery.named("p0").next().unwrap().into_owned();
    let files = || {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect::<Vec<_>>()
    };
    let has = |bytes: &Vec<u8>| bytes.windows(4).any(|window| window == b"\"p0\"");
    assert!(files().len() == 1 && files().iter().all(has));
    // Another process, which only reads.
    let mut reader = Gallery::default();
    store.sync(&mut reader).await.unwrap();
    remove(&store, &mut gallery, gone.id).await;
    assert!(files().len() == 1 && !files().iter().any(has));
    assert!(
        reader.person(gone.id).is_some(),
        "it has not looked yet, and still can"
    );
    store.sync(&mut reader).await.unwrap();
    assert_eq!(reader, gallery);

    // A machine that is left alone keeps nothing, and whoever is on it still can look.
    store.leave_machine().unwrap();
    assert!(files().is_empty());
    assert_eq!(reader.people_count(), 5);
    assert_eq!(names(&store).await.len(), 5);
    assert_eq!(files().len(), 1);

    // What was damaged on this machine is fetched again; what is damaged in the store is named.
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(names(&store).await.len(), 5);
    std::fs::remove_file(&file).unwrap();
    let id = SegmentId::parse(file.file_name().unwrap().to_str().unwrap()).unwrap();
    let key = store.objects.segment_key(&id);
    let mut bytes = objects
        .get(&key)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    objects.put(&key, PutPayload::from(bytes)).await.unwrap();
    let error = store.sync(&mut Gallery::default()).await.unwrap_err();
    assert!(error.to_string().contains(key.as_ref()), "{error}");
}

#[tokio::test]
async fn a_change_of_the_model_writes_the_segments_anew() {
    let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
    let mut gallery = Gallery::default();
    let made = |values: &[f32]| Embedding::normalise(values).unwrap();
    for (name, direction, other) in [("Anna", 0, [0.0, 1.0]), ("Ben", 1, [1.0, 0.0])] {
        let mut person = person(name, direction);
        person.faces[0].embeddings.put("other", made(&other));
        put(&store, &mut gallery, person).await;
    }
    store.compact(&gallery).await.unwrap();
    for (model, probe) in [("other", made(&[0.1, 1.0])), ("sface", made(&[1.0; 8]))] {
        append(&store, &mut gallery, Change::UseModel(model.to_owned())).await;
        let mut fresh = Gallery::default();
        store.sync(&mut fresh).await.unwrap();
        assert_eq!(fresh, gallery);
        assert_eq!(fresh.model(), Some(model));
        let segments = fresh
            .snapshot()
            .segments
            .iter()
            .map(|live| live.segment.model());
        assert!(segments.eq([model]));
        let nearest = fresh.nearest(&probe, 2);
        assert_eq!((nearest.len(), &*nearest[0].person.name), (2, "Anna"));
    }
}

#[tokio::test]
async fn damage_is_named_not_guessed_around() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = GalleryStore::new(Arc::clone(&objects), "gallery");
    for (body, expected) in [
        ("{", "can not be read"),
        (r#"{"format":9,"content":0}"#, "format 9"),
    ] {
        let key = store.objects.change_key(1);
        objects
            .put(&key, PutPayload::from(body.to_owned()))
            .await
            .unwrap();
        let error = store
            .sync(&mut Gallery::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected) && error.contains(key.as_ref()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for what in ["change", "announcement", "segment"] {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        let mut gallery = Gallery::default();
        for n in 0..3 {
            put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
        }
        let key = if what == "change" {
            store.objects.change_key(2)
        } else {
            store.compact(&gallery).await.unwrap();
            store.sync(&mut gallery).await.unwrap();
            let id = gallery.snapshot().segments[0].id.clone().unwrap();
            match what {
                "segment" => store.objects.segment_key(&id),
                _ => store.objects.announcement_key(3, 1),
            }
        };
        objects.delete(&key).await.unwrap();
        let error = store.sync(&mut Gallery::default()).await.unwrap_err();
        let said = error.to_string();
        // Without its announcement, a manifest's changes are what is looked for.
        let named = match what {
            "announcement" => store.objects.change_key(1),
            _ => key,
        };
        assert!(
            said.contains(named.as_ref()) && said.contains("is missing"),
            "{said}"
        );
    }
}

/// By something else than Muster, between any two reads: there is no moment at which it ends the process.
#[tokio::test]
async fn a_file_that_is_written_to_while_in_use_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SegmentCache::open(folder.path()).unwrap();
    let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery").cached(cache);
    let mut gallery = Gallery::default();
    for n in 0..3 {
        put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
    }
    store.compact(&gallery).await.unwrap();
    let probe = person("p0", 0).faces[0].embeddings.by("sface").cloned();
    let probe = probe.unwrap();
    type Look = fn(&Gallery, &Embedding) -> usize;
    let looks: [(&str, Look); 3] = [
        ("nearest", |gallery, probe| gallery.nearest(probe, 5).len()),
        ("people", |gallery, _| gallery.people().count()),
        ("embeddings", |gallery, _| gallery.sample(1000).len()),
    ];
    for (what, look) in looks {
        for damage in ["emptied", "cut", "flipped"] {
            let mut reader = Gallery::default();
            store.sync(&mut reader).await.unwrap();
            let mut files = std::fs::read_dir(folder.path()).unwrap();
            let path = files.next().unwrap().unwrap().path();
            let whole = std::fs::read(&path).unwrap();
            let kept = reader.snapshot().segments[0].segment.as_slice().len();
            let written = match damage {
                "emptied" => Vec::new(),
                "cut" => whole[..kept].to_vec(),
                // What is read once, when the file is opened, is left as it is.
                _ => {
                    let rest = whole[kept..].iter().map(|byte| byte ^ 1);
                    whole[..kept].iter().copied().chain(rest).collect()
                }
            };
            std::fs::write(&path, &written).unwrap();
            // Whatever is in memory goes on, as do those who changed since.
            assert_eq!((reader.people_count(), reader.faces()), (3, 3));
            let seen = reader.look(|gallery| look(gallery, &probe));
            assert_eq!(seen, Err(SegmentError::Damaged), "{what} {damage}");
            // Who writes reads it anew, and so does whoever looks.
            let mut writer = reader.clone();
            let again = person("again", 4);
            put(&store, &mut writer, again.clone()).await;
            remove(&store, &mut writer, again.id).await;
            store.catch_up(&mut reader).await.unwrap();
            let seen = reader.look(|gallery| look(gallery, &probe));
            assert_eq!(seen, Ok(3), "{what} {damage}");
        }
    }
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_the_nearest_come_first() {
    let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
    let mut gallery = Gallery::default();
    put(&store, &mut gallery, person("Anna", 0)).await;
    put(&store, &mut gallery, person("Ben", 1)).await;
    let refused = store.write(&mut gallery, |_| Err("taken")).await;
    assert!(matches!(refused, Err(WriteError::Refused("taken"))));
    assert_eq!(gallery.version(), 2);
    let probe = Embedding::normalise(&[0.1, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let nearest: Vec<_> = gallery
        .nearest(&probe, 5)
        .iter()
        .map(|c| c.person.name.clone())
        .collect();
    assert_eq!(nearest, ["Ben", "Anna"]);
}

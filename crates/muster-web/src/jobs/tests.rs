use object_store::PutPayload;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_jobs_key_says_which_job_it_is_and_of_which_file(raw in ".{0,40}") {
        let (id, file) = (RequestId::new(), FileName::from_client(&raw));
        let key = Backend::job_key(id, "k-7", &file);
        let owner = Some("k-7".to_owned());
        let job = ListedJob { id, owner, file: file.clone() };
        prop_assert_eq!(ListedJob::of(&key), Some(job));
        let of_before = Key::from_iter(["jobs", &id.to_string(), file.as_str()]);
        let job = ListedJob { id, owner: None, file: file.clone() };
        prop_assert_eq!(ListedJob::of(&of_before), Some(job));
        let key = Key::from(ObjectKeys::Request.input(id, &file));
        prop_assert_eq!(Backend::file_of(&key), Some(file));
        prop_assert!(key < Backend::after_job(id));
    }
}

/// Walks all pages of that length.
async fn pages(store: &dyn ObjectStore, sorted: bool, most: usize) -> Vec<Vec<RequestId>> {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let own = |job: &ListedJob| job.owner.as_deref() == Some("own");
        let (page, more) = first_jobs(store, sorted, after, most, own).await.unwrap();
        let page: Vec<_> = page.into_iter().map(|job| job.id).collect();
        after = page.last().copied();
        pages.push(page);
        if !more {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_hold_every_job_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let memory = InMemory::new();
    let ids: Vec<_> = (0..7).map(|_| RequestId::new()).collect();
    for (store, sorted) in [(&local as &dyn ObjectStore, false), (&memory, true)] {
        assert_eq!(pages(store, sorted, 3).await, [Vec::<RequestId>::new()]);
        for id in ids.iter().rev() {
            let file = FileName::from_client("zażółć #1.jpg");
            let key = Backend::job_key(*id, "own", &file);
            store.put(&key, PutPayload::default()).await.unwrap();
            let key = Backend::job_key(RequestId::new(), "another", &file);
            store.put(&key, PutPayload::default()).await.unwrap();
        }
        for (most, lengths) in [(3, vec![3, 3, 1]), (7, vec![7]), (6, vec![6, 1])] {
            let pages = pages(store, sorted, most).await;
            let found: Vec<_> = pages.iter().map(Vec::len).collect();
            assert_eq!(found, lengths, "{store:?}");
            assert_eq!(pages.concat(), ids);
        }
    }
}

#[test]
fn a_job_ends_with_what_recognition_would_have_answered() {
    let state = |found, expired| {
        let ended = outcome(found, "a.jpg", expired);
        ended.map(|ended| ended.map_err(|problem| problem.code().text()))
    };
    assert_eq!(state(StoredJob::Photograph, false), None);
    let failed = |code: &'static str| Some(Err(code));
    assert_eq!(
        state(StoredJob::Photograph, true),
        failed("recognition.failed")
    );
    assert_eq!(state(StoredJob::Nothing, false), failed("input.missing"));
    let stored =
        |text: &str| StoredJob::Outcome(serde_json::from_str(text).unwrap(), Duration::ZERO);
    let refusal = r#"{"code": "image.unreadable", "detail": "cut off: send it again"}"#;
    assert_eq!(state(stored(refusal), false), failed("image.unreadable"));
    assert_eq!(
        state(stored(r#"{"faces": []}"#), false),
        failed("face.none")
    );
    let done = state(stored(r#"{"faces": [{"decision": "unknown"}]}"#), true);
    assert_eq!(done.unwrap().unwrap()["faces"][0]["decision"], "unknown");
}

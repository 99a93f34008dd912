//! People and their faces: everything that an operator does with them, on a real service.

use crate::support::{Answer, Service, jpeg, read, samples, until};
use reqwest::Method;
use reqwest::multipart::Form;
use serde_json::{Value, json};

impl Service {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, self.at(path));
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Files below a part of the data folder's objects.
    fn objects(&self, part: &str) -> Vec<std::path::PathBuf> {
        self.files(&format!("objects/{part}"))
    }

    fn files(&self, part: &str) -> Vec<std::path::PathBuf> {
        fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                } else {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.data.join(part), &mut found);
        found
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (
        answer.status,
        answer.json()["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[tokio::test]
async fn people_are_listed_found_renamed_and_described() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    let photo = read(&samples.people[0].1[0]);
    let mut ids = Vec::new();
    for (n, name) in ["Anna", "Ben", "Anna Maria"].iter().enumerate() {
        let form = Form::new()
            .text("name", (*name).to_owned())
            .text("external_id", format!("key-{n}"))
            .text("metadata", r#"{"team": "blue"}"#)
            .part("image", jpeg("a.jpg", &photo));
        let made = service.post("/v1/people", form).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.json()["metadata"]["team"], "blue");
        ids.push(made.json()["id"].as_str().unwrap().to_owned());
    }
    let names = |page: &Value| -> Vec<String> {
        let people = page["people"].as_array().unwrap().iter();
        people
            .map(|person| person["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = service.get("/v1/people?limit=2").await;
    assert_eq!(names(&first), ["Anna", "Ben"]);
    assert_eq!(
        (&first["total"], &first["next"]),
        (&json!(3), &json!(ids[1]))
    );
    let second = service
        .get(&format!("/v1/people?limit=2&after={}", ids[1]))
        .await;
    assert_eq!(names(&second), ["Anna Maria"]);
    assert!(second["next"].is_null());
    assert_eq!(
        names(&service.get("/v1/people?name=anna").await),
        ["Anna", "Anna Maria"]
    );
    assert_eq!(
        names(&service.get("/v1/people?external_id=key-1").await),
        ["Ben"]
    );
    for wrong in ["limit=0", "limit=x", "limits=3", "after=nobody"] {
        let answer = service
            .call(Method::GET, &format!("/v1/people?{wrong}"), None)
            .await;
        assert_eq!(
            code(&answer),
            (400, "request.invalid".to_owned()),
            "{wrong}"
        );
    }

    let path = format!("/v1/people/{}", ids[1]);
    let patch = json!({ "name": " Benjamin ", "external_id": null, "metadata": { "team": null, "age": "7" } });
    let changed = service.call(Method::PATCH, &path, Some(patch)).await.json();
    assert_eq!(changed["name"], "Benjamin");
    assert!(changed["external_id"].is_null());
    assert_eq!(changed["metadata"], json!({ "age": "7" }));
    assert_eq!(service.get(&path).await, changed);
    assert_eq!(
        names(&service.get("/v1/people?external_id=key-1").await),
        [""; 0]
    );
    for (patch, expected) in [
        (json!({ "name": "Anna" }), (409, "person.exists")),
        (json!({ "external_id": "key-0" }), (409, "person.exists")),
        (json!({ "name": "" }), (400, "request.invalid")),
        (json!({ "nam": "x" }), (400, "request.invalid")),
        (json!([1]), (400, "request.invalid")),
    ] {
        let answer = service
            .call(Method::PATCH, &path, Some(patch.clone()))
            .await;
        assert_eq!(
            code(&answer),
            (expected.0, expected.1.to_owned()),
            "{patch}"
        );
    }
    assert_eq!(
        service.get(&path).await,
        changed,
        "a refusal changes nothing"
    );
}

#[tokio::test]
async fn faces_come_and_go_and_a_deletion_leaves_nothing() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    let photos: Vec<Vec<u8>> = samples.people[0].1.iter().map(|path| read(path)).collect();
    let made = service.enroll("Anna", &[&photos[0]]).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let faces_path = format!("/v1/people/{id}/faces");

    // A second face, from an answer that was given before.
    let answer = service.recognize(&photos[1]).await.json();
    let form = Form::new()
        .text(
            "request_id",
            answer["request_id"].as_str().unwrap().to_owned(),
        )
        .text("face", "0");
    let added = service.post(&faces_path, form).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let faces = service.get(&faces_path).await;
    let face_ids: Vec<&str> = faces["faces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|face| face["id"].as_str().unwrap())
        .collect();
    assert_eq!(face_ids.len(), 2);
    let photo = service
        .call(
            Method::GET,
            &format!("{faces_path}/{}/photo", face_ids[1]),
            None,
        )
        .await;
    assert_eq!(photo.headers["content-type"], "image/jpeg");
    assert_eq!(photo.body, photos[1]);
    assert_eq!(service.objects("enrolled").len(), 2);

    for (form, expected) in [
        (Form::new(), (400, "request.invalid")),
        (
            Form::new().text("request_id", "nonsense"),
            (410, "input.missing"),
        ),
        (
            Form::new()
                .text(
                    "request_id",
                    answer["request_id"].as_str().unwrap().to_owned(),
                )
                .text("face", "7"),
            (422, "face.none"),
        ),
    ] {
        let refused = service.post(&faces_path, form).await;
        assert_eq!(
            code(&refused),
            (expected.0, expected.1.to_owned()),
            "{}",
            refused.text()
        );
    }

    let removed = service
        .call(
            Method::DELETE,
            &format!("{faces_path}/{}", face_ids[0]),
            None,
        )
        .await
        .json();
    assert_eq!(removed["deleted"]["id"], face_ids[0]);
    assert_eq!(removed["receipt"]["embeddings"], 1);
    assert_eq!(removed["receipt"]["photographs"], 1);
    assert_eq!(service.objects("enrolled").len(), 1);
    let last = service
        .call(
            Method::DELETE,
            &format!("{faces_path}/{}", face_ids[1]),
            None,
        )
        .await;
    assert_eq!(code(&last), (409, "face.last".to_owned()));
    let unknown = format!("{faces_path}/{}", face_ids[0]);
    let unknown = service.call(Method::DELETE, &unknown, None).await;
    assert_eq!(code(&unknown), (404, "not_found".to_owned()));

    let deleted = service
        .call(Method::DELETE, &format!("/v1/people/{id}"), None)
        .await
        .json();
    assert_eq!(
        deleted["deleted"],
        json!({ "id": id, "name": "Anna", "faces": 1 })
    );
    let receipt = &deleted["receipt"];
    assert_eq!(
        (&receipt["embeddings"], &receipt["photographs"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(receipt["photographs_pending"], 0);
    assert_eq!(receipt["uploads_kept_s"], 3600);
    assert_eq!(
        service.objects("enrolled"),
        [""; 0].map(std::path::PathBuf::from)
    );
    let mut kept = service.objects("gallery");
    kept.extend(service.objects("gallery-segments"));
    kept.extend(service.files("gallery-cache"));
    for file in kept {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        for trace in [&id, "Anna", face_ids[0], face_ids[1]] {
            // The removal itself names the person's id and nothing else.
            let names_id = text.contains("\"remove\"") && *trace == id;
            assert!(
                names_id || !text.contains(trace),
                "{} has {trace}",
                file.display()
            );
        }
    }
    assert_eq!(service.recognize(&photos[1]).await.name(), "unknown");
}

#[tokio::test]
async fn two_entries_become_one_person() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    let (_, photos) = &samples.people[0];
    let anna = service.enroll("Anna", &[&read(&photos[0])]).await.json();
    let double = service
        .enroll("A. Double", &[&read(&photos[1])])
        .await
        .json();
    let path = format!("/v1/people/{}", anna["id"].as_str().unwrap());
    let merge = json!({ "from": double["id"] });
    let merged = service
        .call(Method::POST, &format!("{path}/merge"), Some(merge.clone()))
        .await;
    assert_eq!(merged.status, 200, "{}", merged.text());
    assert_eq!(merged.json()["faces"].as_array().unwrap().len(), 2);
    assert_eq!(service.get("/v1/people").await["total"], 1);
    assert_eq!(
        service.objects("enrolled").len(),
        2,
        "photographs stay with their faces"
    );
    let again = service
        .call(Method::POST, &format!("{path}/merge"), Some(merge))
        .await;
    assert_eq!(again.status, 404);
    // What would be more than is kept is refused whole.
    let full = |first: usize| -> Value {
        let keys = (first..first + 50).map(|n| (n.to_string(), "é".repeat(1000).into()));
        Value::Object(keys.collect())
    };
    let patch = json!({ "metadata": full(0) });
    let patched = service.call(Method::PATCH, &path, Some(patch)).await;
    assert_eq!(patched.status, 200, "{}", patched.text());
    let form = Form::new()
        .text("name", "Full")
        .text("metadata", full(50).to_string())
        .part("image", jpeg("a.jpg", &read(&photos[1])));
    let other = service.post("/v1/people", form).await;
    assert_eq!(other.status, 201, "{}", other.text());
    let merge = json!({ "from": other.json()["id"] });
    let refused = service
        .call(Method::POST, &format!("{path}/merge"), Some(merge))
        .await;
    assert_eq!(code(&refused), (400, "request.invalid".to_owned()));
    assert_eq!(service.get("/v1/people").await["total"], 2);
    let own = json!({ "from": anna["id"] });
    let own = service
        .call(Method::POST, &format!("{path}/merge"), Some(own))
        .await;
    assert_eq!(own.status, 400);
}

#[tokio::test]
async fn an_enrolment_leaves_no_upload_behind() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    let group = service.enroll("Group", &[&read(&samples.group)]).await;
    assert_eq!(code(&group), (422, "face.multiple".to_owned()));
    let made = service
        .enroll("Anna", &[&read(&samples.people[0].1[0])])
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    until("the uploads of enrolments are gone", async || {
        service.objects("input").is_empty()
    })
    .await;
    assert_eq!(
        service.objects("enrolled").len(),
        1,
        "only what is enrolled is kept"
    );
}

#[tokio::test]
async fn a_wrong_answer_is_not_given_again() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    let (_, photos) = &samples.people[0];
    let anna = service.enroll("Anna", &[&read(&photos[0])]).await.json();
    let answer = service.recognize(&read(&photos[1])).await;
    assert_eq!(answer.name(), "Anna");
    let request = &answer.json()["request_id"];
    let path = format!("/v1/people/{}/denials", anna["id"].as_str().unwrap());
    let wrong = json!({ "request_id": request, "face": 0 });
    let denied = service.call(Method::POST, &path, Some(wrong.clone())).await;
    assert_eq!(denied.status, 201, "{}", denied.text());

    let again = service.recognize(&read(&photos[1])).await;
    assert_eq!(again.name(), "unknown");
    let reason = again.json()["faces"][0]["reasons"][0].to_string();
    assert!(reason.contains("said not to be Anna"), "{reason}");
    let own = service.recognize(&read(&photos[0])).await;
    assert_eq!(own.name(), "Anna", "her own photograph is still hers");

    let same = service.call(Method::POST, &path, Some(wrong)).await.json();
    assert_eq!(same["id"], denied.json()["id"], "said twice is said once");
    assert_eq!(service.objects("enrolled").len(), 2);
    for (wrong, expected) in [
        (json!({ "request_id": request, "face": 7 }), 404),
        (json!({ "request_id": "nonsense" }), 410),
        (json!({ "face": 0 }), 400),
    ] {
        let refused = service.call(Method::POST, &path, Some(wrong.clone())).await;
        assert_eq!(refused.status, expected, "{wrong}: {}", refused.text());
    }
    let listed = service.get(&path).await;
    assert_eq!(listed["denials"].as_array().unwrap().len(), 1);

    let one = format!("{path}/{}", denied.json()["id"].as_str().unwrap());
    let removed = service.call(Method::DELETE, &one, None).await.json();
    assert_eq!(removed["receipt"]["photographs"], 1);
    assert_eq!(service.objects("enrolled").len(), 1);
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), "Anna");
}

#[tokio::test]
async fn a_name_of_any_characters_is_answered() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let (_, photos) = &samples.people[0];
    let name = "A\u{fffe}nna \u{ffff}\u{1f642}";
    let enrolled = service.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let file = format!("{name}.jpg");
    let form = Form::new().part("image", jpeg(&file, &read(&photos[1])));
    let answer = service.post("/v1/recognize", form).await;
    assert_eq!(answer.name(), name);
    // Not by way of a reply that the queue would not take.
    assert_eq!(service.status().await["queue"]["dead_letter"], 0);
}

#[tokio::test]
async fn a_face_of_an_earlier_answer_is_enrolled_with_its_files_name() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    let form = Form::new().part("image", jpeg("Jürgen 1.jpg", &photo));
    let answer = service.post("/v1/recognize", form).await.json();
    let id = answer["request_id"].as_str().unwrap().to_owned();
    let form = Form::new().text("name", "Jürgen").text("request_id", id);
    let enrolled = service.post("/v1/people", form).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    assert_eq!(enrolled.json()["faces"][0]["file"], "Jürgen 1.jpg");
}

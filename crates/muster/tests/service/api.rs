//! The API beside recognition: ids of requests, the document, keys, limits.

use crate::support::{Answer, Service};
use serde_json::Value;

async fn get(service: &Service, path: &str, id: Option<&str>) -> Answer {
    let mut request = service.http.get(service.at(path));
    if let Some(id) = id {
        request = request.header("x-request-id", id);
    }
    Answer::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn every_answer_says_which_request_it_is_of() {
    let service = Service::up("max_instances = 1").await;
    for path in [
        "/healthz",
        "/v1/status",
        "/nowhere",
        "/v1/people/x",
        "/v1/people/%ff",
    ] {
        let answer = get(&service, path, Some("mine-7")).await;
        assert_eq!(answer.headers["x-request-id"], "mine-7", "{path}");
        let made = get(&service, path, None).await;
        let made_id = made.headers["x-request-id"].to_str().unwrap().to_owned();
        let uuid: uuid::Uuid = made_id.parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7, "{path}");
        let forged = get(&service, path, Some("two words")).await;
        assert_ne!(forged.headers["x-request-id"], "two words", "{path}");
        if made.status != 200 {
            assert_eq!(made.status, 404);
            assert_eq!(made.headers["content-type"], "application/problem+json");
            assert_eq!(made.json()["request_id"], made_id);
        }
    }
    let put = service.http.put(service.at("/v1/status"));
    let put = Answer::read(put.send().await.unwrap()).await;
    assert_eq!(put.status, 405);
    assert!(put.headers.contains_key("x-request-id"));
    assert_eq!(
        put.json()["request_id"],
        *put.headers["x-request-id"].to_str().unwrap()
    );
}

/// The page's types are made of these schemas.
#[tokio::test]
async fn the_page_has_the_schemas_of_the_document() {
    let service = Service::up("max_instances = 1").await;
    let document = get(&service, "/openapi.json", None).await.json();
    let kept = include_str!("../../../../page/schema/schemas.json");
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert!(
        document["components"]["schemas"] == kept,
        "page/schema/schemas.json is not what /openapi.json has: run `muster up`, and beside it \
         `npm --prefix page run schema http://127.0.0.1:8000`"
    );
}

#[tokio::test]
async fn the_api_describes_itself() {
    let service = Service::up("max_instances = 1").await;
    let document = get(&service, "/openapi.json", None).await;
    assert_eq!(document.headers["content-type"], "application/json");
    let document = document.json();
    assert_eq!(document["openapi"], "3.1.0");
    let plain = &document["paths"]["/"]["post"]["responses"];
    assert!(plain["200"]["content"]["text/plain"].is_object());
    assert!(plain["422"]["content"]["text/plain"].is_object());
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array();
    assert!(codes.unwrap().contains(&Value::from("face.none")));
    let problem = &document["paths"]["/v1/recognize"]["post"]["responses"]["413"];
    assert!(problem["content"]["application/problem+json"].is_object());
    // Whatever is behind a key may find the store or the disk away or full.
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"].is_array() {
                let away = &operation["responses"]["503"];
                assert!(
                    away["headers"]["Retry-After"].is_object(),
                    "{method} {path}: {away}"
                );
            }
        }
    }
    let page = get(&service, "/docs", None).await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text();
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "asks nobody else"
    );
    assert!(page.contains("fetch(\"openapi.json\")"));
}

//! A client of Muster's own HTTP contract, for the commands.

mod error;
mod events;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use muster_base::local_token;
use muster_jobs::{FileName, Recognition, name_key};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::gallery::Forgotten;
use crate::people::{People, PersonView};
use crate::problem::Problem;
use crate::recognition::Verification;

pub use error::ClientError;
pub use events::{Event, EventError, EventStream};

/// Longest time for one answer, beyond any timeout of the service itself.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time for what has no end.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Arguments that say which service to talk to.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// The service's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// An API key of the service, where it wants one
    #[arg(
        long,
        value_name = "KEY",
        env = "MUSTER_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,
}

impl ServiceArgs {
    /// A client of that service.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.url, self.api_key.as_deref())
    }
}

/// A connection pool to one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// A client of the service at `url`. Without a key it sends the local token of a service that this
    /// account runs on this machine, and to that service only.
    ///
    /// # Errors
    /// When the address is not a URL, the key no key, or the token can not be read.
    pub fn new(url: &str, api_key: Option<&str>) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&url)
            .with_context(|| format!("{url} is not a URL: write it as http://HOST:PORT"))?;
        anyhow::ensure!(
            matches!(parsed.scheme(), "http" | "https"),
            "{url} is no address of a Muster: write it as http://HOST:PORT"
        );
        let own = match api_key {
            Some(_) => None,
            None => local_token::find(&parsed)?,
        };
        let mut http = reqwest::Client::builder();
        if let (Some(own), Some(host)) = (&own, parsed.host_str()) {
            // `localhost` may lead to what another account runs, and a proxy anywhere.
            http = http.no_proxy().resolve(host, own.address);
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key.or(own.as_ref().map(|own| &*own.token)) {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
                .context("the API key has characters that no key has: copy it again")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let http = http
            .default_headers(headers)
            .timeout(TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { http, url })
    }

    /// The underlying pool, for callers that build their own requests.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The full URL of a path.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Reads one JSON document.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.http.get(self.at(path))).await
    }

    /// Posts one JSON document.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(self.http.post(self.at(path)).json(body)).await
    }

    /// Deletes every embedding of a model that is not used any more.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn forget_model(&self, model: &str) -> Result<Forgotten, ClientError> {
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let path = format!("/v1/gallery/model/{model}");
        self.ask(self.http.delete(self.at(&path))).await
    }

    /// The events that the service tells of itself from now on.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let request = self.http.get(self.at("/v1/events")).timeout(FOREVER);
        let response = self.send(request).await?;
        Ok(EventStream::new(response))
    }

    /// Everyone enrolled, page by page.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn people(&self) -> Result<Vec<PersonView>, ClientError> {
        let mut people = Vec::new();
        let mut path = "/v1/people?limit=1000".to_owned();
        loop {
            let page: People = self.get(&path).await?;
            people.extend(page.people);
            match page.next {
                Some(next) => path = format!("/v1/people?limit=1000&after={next}"),
                None => return Ok(people),
            }
        }
    }

    /// The person of that name, as names are compared, if there is one.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn person_named(&self, name: &str) -> Result<Option<PersonView>, ClientError> {
        let encoded = utf8_percent_encode(name.trim(), NON_ALPHANUMERIC);
        let path = format!("/v1/people?limit=1000&name={encoded}");
        let page: People = self.get(&path).await?;
        let key = name_key(name);
        let is_it = |person: &PersonView| name_key(&person.name) == key;
        Ok(page.people.into_iter().find(is_it))
    }

    /// Enrols a person; whatever the quality of the faces, where unfit ones are accepted.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn enroll(
        &self,
        name: &str,
        photos: &[(String, Bytes)],
        accept_unfit: bool,
    ) -> Result<PersonView, ClientError> {
        let form = accepting(accept_unfit).text("name", name.to_owned());
        self.post_form("/v1/people", with_photos(form, photos))
            .await
    }

    /// Adds faces to a person who is enrolled; whatever their quality, where unfit ones are accepted.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn add_faces(
        &self,
        person: Uuid,
        photos: &[(String, Bytes)],
        accept_unfit: bool,
    ) -> Result<PersonView, ClientError> {
        let path = format!("/v1/people/{person}/faces");
        self.post_form(&path, with_photos(accepting(accept_unfit), photos))
            .await
    }

    /// Recognises one photograph.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn recognize(&self, file: &str, photo: &Bytes) -> Result<Recognition, ClientError> {
        self.post_form(
            "/v1/recognize",
            Form::new().part("image", part(file, photo)),
        )
        .await
    }

    /// Compares the largest faces of two photographs.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn verify(&self, photos: [(String, Bytes); 2]) -> Result<Verification, ClientError> {
        self.post_form("/v1/verify", with_photos(Form::new(), &photos))
            .await
    }

    async fn post_form<T: DeserializeOwned>(
        &self,
        path: &str,
        form: Form,
    ) -> Result<T, ClientError> {
        self.ask(self.http.post(self.at(path)).multipart(form))
            .await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(ClientError::Broken)?;
        serde_json::from_slice(&body).map_err(ClientError::Json)
    }

    /// Sends a request, and answers what came where that is a success.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            url: self.url.clone(),
            source,
        };
        let response = request.send().await.map_err(unreachable)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }
}

fn part(file: &str, bytes: &Bytes) -> Part {
    // As the service would name it: a header can carry no line breaks.
    let name = FileName::from_client(file).as_str().to_owned();
    Part::stream(reqwest::Body::from(bytes.clone())).file_name(name)
}

/// An enrolment's form.
fn accepting(unfit: bool) -> Form {
    match unfit {
        true => Form::new().text("accept_unfit", "true"),
        false => Form::new(),
    }
}

fn with_photos(form: Form, photos: &[(String, Bytes)]) -> Form {
    photos.iter().fold(form, |form, (file, bytes)| {
        form.part("image", part(file, bytes))
    })
}

/// Reads why the service did not do what was asked.
async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(error) => return ClientError::Broken(error),
    };
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => ClientError::Problem {
            problem: Box::new(problem),
            retry_after,
        },
        Err(_) if status == StatusCode::NOT_FOUND => ClientError::NotMuster,
        Err(_) => ClientError::Unexplained(status),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use axum::extract::Query;
    use axum::routing::get;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_person_is_looked_up_however_the_address_is_written() {
        let people = get(|Query(asked): Query<HashMap<String, String>>| async move {
            let person = PersonView {
                id: Uuid::nil(),
                name: asked["name"].clone(),
                external_id: None,
                metadata: BTreeMap::new(),
                faces: Vec::new(),
                denials: 0,
                enrolled_at_ms: 0,
                changed_at_ms: 0,
            };
            Json(People {
                people: vec![person],
                next: None,
                total: 1,
                version: 1,
            })
        });
        let router = Router::new().route("/proxied/v1/people", people);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        // As 127.0.0.1 and with the port's own digits they are shorter or longer.
        for host in [
            format!("127.0.0.1:{port}"),
            format!("127.1:{port}"),
            format!("127.0.0.1:0{port}"),
        ] {
            let client = Client::new(&format!("http://{host}/proxied/"), None).unwrap();
            let name = "Zoë & Söhne + 100 %";
            let found = client.person_named(&format!(" {name} ")).await.unwrap();
            assert_eq!(found.expect("the person").name, name, "{host}");
        }
        serving.abort();
    }
}

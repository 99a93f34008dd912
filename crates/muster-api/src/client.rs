//! A client of Muster's own HTTP contract, for the commands.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use muster_jobs::Recognition;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::multipart::{Form, Part};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest time for one answer, beyond any timeout of the service itself.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time for what has no end.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Longest event that is taken: five minutes of history have some hundred kilobytes.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// Which service to talk to.
#[derive(Clone, Debug, Args)]
pub struct Service {
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

impl Service {
    /// A client of it.
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

/// An enrolled person, as the service lists them.
#[derive(Clone, Debug, Deserialize)]
pub struct Enrolled {
    /// The person's id.
    pub id: String,
    /// The person's name.
    pub name: String,
    /// The person's faces.
    pub faces: Vec<EnrolledFace>,
}

/// One face of an enrolled person.
#[derive(Clone, Debug, Deserialize)]
pub struct EnrolledFace {
    /// Name of the photograph that it is from.
    pub file: String,
}

#[derive(Deserialize)]
struct PeoplePage {
    people: Vec<Enrolled>,
    next: Option<String>,
}

/// A problem that the service answered with.
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
    /// Photographs of an enrolment that are at fault.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// After which time to try again, where the service said so.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// A photograph that can not be enrolled.
#[derive(Clone, Debug, Deserialize)]
pub struct Refused {
    /// Its file name.
    pub file: String,
    /// Why not.
    pub detail: String,
}

/// What a service answers: what was asked for, or a problem.
pub type Answer<T> = Result<T, Problem>;

impl Client {
    /// A client of the service at `url`.
    ///
    /// # Errors
    /// When the address is not a URL, or the key no key.
    pub fn new(url: &str, api_key: Option<&str>) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&url)
            .with_context(|| format!("{url} is not a URL: write it as http://HOST:PORT"))?;
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
                .context("the API key has characters that no key has: copy it again")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let http = reqwest::Client::builder()
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

    fn unreachable(&self) -> String {
        format!(
            "reach Muster at {}: start it with `muster up`, or give its --url",
            self.url
        )
    }

    /// Reads one JSON document.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self.ask(path).await? {
            Ok(value) => Ok(value),
            Err(problem) => bail!("{}", problem.detail),
        }
    }

    /// Reads one JSON document, or the problem that the service answers with.
    ///
    /// # Errors
    /// When the service can not be reached, or what answers is not Muster.
    pub async fn ask(&self, path: &str) -> anyhow::Result<Answer<Value>> {
        let response = self
            .http
            .get(self.at(path))
            .send()
            .await
            .with_context(|| self.unreachable())?;
        answer(response).await
    }

    /// Sends one JSON document.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn send(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let sent = self.http.post(self.at(path)).json(body).send().await;
        match answer(sent.with_context(|| self.unreachable())?).await? {
            Ok(value) => Ok(value),
            Err(problem) => bail!("{}", problem.detail),
        }
    }

    /// Deletes what is at a path.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        let sent = self.http.delete(self.at(path)).send().await;
        match answer(sent.with_context(|| self.unreachable())?).await? {
            Ok(value) => Ok(value),
            Err(problem) => bail!("{}", problem.detail),
        }
    }

    /// What the service tells of itself from now on.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn events(&self) -> anyhow::Result<EventStream> {
        let request = self.http.get(self.at("/v1/events")).timeout(FOREVER);
        let response = request.send().await.with_context(|| self.unreachable())?;
        if !response.status().is_success() {
            match answer::<Value>(response).await? {
                Err(problem) => bail!("{}", problem.detail),
                Ok(_) => bail!("the service tells nothing"),
            }
        }
        Ok(EventStream {
            response,
            received: Vec::new(),
        })
    }

    /// Everyone enrolled, page by page.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn people(&self) -> anyhow::Result<Vec<Enrolled>> {
        let mut people = Vec::new();
        let mut path = "/v1/people?limit=1000".to_owned();
        loop {
            let page = self.get(&path).await?;
            let page: PeoplePage =
                serde_json::from_value(page).context("read the list of people")?;
            people.extend(page.people);
            match page.next {
                Some(next) => path = format!("/v1/people?limit=1000&after={next}"),
                None => return Ok(people),
            }
        }
    }

    /// The person of that name, if there is one.
    ///
    /// # Errors
    /// When the service can not be reached or answers with a problem.
    pub async fn person_named(&self, name: &str) -> anyhow::Result<Option<Enrolled>> {
        let name = name.trim();
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let path = format!("/v1/people?limit=1000&name={encoded}");
        let page = self.get(&path).await?;
        let page: PeoplePage = serde_json::from_value(page).context("read the list of people")?;
        let is_it = |person: &Enrolled| person.name == name;
        Ok(page.people.into_iter().find(is_it))
    }

    /// Enrols a person.
    ///
    /// # Errors
    /// When the service can not be reached.
    pub async fn enroll(
        &self,
        name: &str,
        photos: &[(String, Bytes)],
    ) -> anyhow::Result<Answer<Enrolled>> {
        let form = Form::new().text("name", name.to_owned());
        self.post("/v1/people", with_photos(form, photos)).await
    }

    /// Adds faces to a person who is enrolled.
    ///
    /// # Errors
    /// When the service can not be reached.
    pub async fn add_faces(
        &self,
        person: &str,
        photos: &[(String, Bytes)],
    ) -> anyhow::Result<Answer<Enrolled>> {
        let path = format!("/v1/people/{person}/faces");
        self.post(&path, with_photos(Form::new(), photos)).await
    }

    /// Recognises one photograph.
    ///
    /// # Errors
    /// When the service can not be reached.
    pub async fn recognize(
        &self,
        file: &str,
        photo: &Bytes,
    ) -> anyhow::Result<Answer<Recognition>> {
        self.post(
            "/v1/recognize",
            Form::new().part("image", part(file, photo)),
        )
        .await
    }

    /// Compares the largest faces of two photographs.
    ///
    /// # Errors
    /// When the service can not be reached.
    pub async fn verify(&self, photos: [(String, Bytes); 2]) -> anyhow::Result<Answer<Value>> {
        self.post("/v1/verify", with_photos(Form::new(), &photos))
            .await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: Form) -> anyhow::Result<Answer<T>> {
        let response = self
            .http
            .post(self.at(path))
            .multipart(form)
            .send()
            .await
            .with_context(|| self.unreachable())?;
        answer(response).await
    }
}

/// What a service tells, event by event.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    received: Vec<u8>,
}

impl EventStream {
    /// The next event's name and data; `None` once the service has stopped.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no event of JSON.
    pub async fn next(&mut self) -> anyhow::Result<Option<(String, Value)>> {
        loop {
            let end = self.received.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let event: Vec<u8> = self.received.drain(..end + 2).collect();
                let event = String::from_utf8(event).context("read an event")?;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let (name, data) = field("event: ")
                    .zip(field("data: "))
                    .context("read an event")?;
                let data = serde_json::from_str(data).context("read an event")?;
                return Ok(Some((name.to_owned(), data)));
            }
            if self.received.len() > MAX_EVENT_BYTES {
                bail!("an event has more than {MAX_EVENT_BYTES} bytes: this is not Muster");
            }
            match self
                .response
                .chunk()
                .await
                .context("the connection broke")?
            {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn part(file: &str, bytes: &Bytes) -> Part {
    Part::stream(reqwest::Body::from(bytes.clone())).file_name(file.to_owned())
}

fn with_photos(form: Form, photos: &[(String, Bytes)]) -> Form {
    photos.iter().fold(form, |form, (file, bytes)| {
        form.part("image", part(file, bytes))
    })
}

async fn answer<T: DeserializeOwned>(response: Response) -> anyhow::Result<Answer<T>> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.bytes().await.context("read the answer")?;
    if status.is_success() {
        return Ok(Ok(
            serde_json::from_slice(&body).context("read the answer's JSON")?
        ));
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Ok(Err(Problem {
            retry_after,
            ..problem
        })),
        Err(_) if status == StatusCode::NOT_FOUND => bail!("this is not a Muster service (404)"),
        Err(_) => bail!("the service answered {status} without saying why"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::extract::Query;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_person_is_looked_up_however_the_address_is_written() {
        let people = get(|Query(asked): Query<HashMap<String, String>>| async move {
            let person = json!({ "id": "1", "name": asked["name"], "faces": [] });
            Json(json!({ "people": [person], "next": null }))
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

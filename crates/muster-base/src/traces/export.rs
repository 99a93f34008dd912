//! Spans on their way to a collector: OTLP in protobuf over HTTP.
//!
//! A collector that is away costs spans and nothing else: what is traced waits in a bounded queue
//! for a thread of its own, and what finds no place there is dropped.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::Url;
use tokio::runtime::Handle;

use crate::settings::TraceSettings;

/// What a collector takes traces at, below its endpoint.
const PATH: &str = "v1/traces";
/// What is said that only one protocol is spoken.
const PROTOCOL: &str = "http/protobuf";
/// How long one export may take where OpenTelemetry's variables do not say. Its specification: 10 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is said at most that a collector is away.
const REMIND: Duration = Duration::from_secs(600);

/// What exports to the configured endpoint; `None` where none is.
///
/// # Errors
/// Names the setting or the variable that can not be used.
pub fn exporter(settings: &TraceSettings) -> anyhow::Result<Option<impl SpanExporter + 'static>> {
    let set = |name: &str| std::env::var(name).ok();
    let Some(endpoint) = endpoint(settings.otlp_endpoint.as_deref(), set)? else {
        return Ok(None);
    };
    let http = reqwest::Client::builder()
        .timeout(timeout(set)?)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("make the client that exports traces")?;
    let collector = Arc::new(Collector {
        http,
        runtime: Handle::current(),
        trouble: Mutex::default(),
    });
    let otlp = Otlp::builder()
        .with_http()
        .with_shared_http_client(collector.clone())
        .with_endpoint(endpoint.as_str())
        .build()
        .context("prepare the export of traces")?;
    tracing::info!(
        collector = endpoint.origin().ascii_serialization(),
        "traces are exported"
    );
    Ok(Some(Watched {
        otlp,
        collector,
        notices: Mutex::default(),
    }))
}

/// Where traces are sent, if anywhere: by the setting, or by OpenTelemetry's own variables.
fn endpoint(
    setting: Option<&str>,
    set: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Url>> {
    let said = |name: &'static str| {
        let value = set(name).filter(|value| !value.is_empty());
        value.map(|value| (name, value))
    };
    let is = |name, value: &str| said(name).is_some_and(|(_, v)| v.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let below = |(name, base): (&'static str, String)| {
        (name, format!("{}/{PATH}", base.trim_end_matches('/')))
    };
    let found = setting
        .map(|base| below(("otlp_endpoint", base.to_owned())))
        .or_else(|| said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        .or_else(|| said("OTEL_EXPORTER_OTLP_ENDPOINT").map(below));
    let Some((name, url)) = found else {
        return Ok(None);
    };
    let protocol =
        said("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| said("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some((name, protocol)) = protocol {
        anyhow::ensure!(
            protocol == PROTOCOL,
            "{name} is {protocol}: Muster speaks {PROTOCOL} alone; set it to that, and the endpoint \
             to the collector's port for it, which is 4318 as a rule"
        );
    }
    let web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let parsed = Url::parse(&url).ok().filter(web);
    parsed
        .map(Some)
        .with_context(|| format!("{name} is no address: write it as http://127.0.0.1:4318"))
}

/// How long one export may take.
fn timeout(set: impl Fn(&str) -> Option<String>) -> anyhow::Result<Duration> {
    let said =
        set("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| set("OTEL_EXPORTER_OTLP_TIMEOUT"));
    match said.filter(|said| !said.is_empty()) {
        None => Ok(TIMEOUT),
        Some(said) => said
            .parse()
            .map(Duration::from_millis)
            .with_context(|| format!("OTEL_EXPORTER_OTLP_TIMEOUT is {said}: give milliseconds")),
    }
}

/// Sends on the process's runtime what the exporter's own thread, which has none, hands it.
#[derive(Debug)]
struct Collector {
    http: reqwest::Client,
    runtime: Handle,
    /// What went wrong last: the exporter does not say.
    trouble: Mutex<Option<String>>,
}

impl Collector {
    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble
            .lock()
            .expect("no code panics while it holds this")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, reqwest::Error>(response)
        });
        let sent: Result<_, HttpError> = match sending.await {
            Ok(sent) => sent.map_err(Into::into),
            Err(ended) => Err(ended.into()),
        };
        *self.trouble() = match &sent {
            Err(error) => Some(crate::ErrorChain(&**error).to_string()),
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
        };
        sent
    }
}

/// An exporter whose failures are said, but not each of them.
#[derive(Debug)]
struct Watched {
    otlp: Otlp,
    collector: Arc<Collector>,
    notices: Mutex<Notices>,
}

/// What was said of failures.
#[derive(Debug, Default)]
struct Notices {
    last: Option<Instant>,
    /// Whether the present failure was said.
    failing: bool,
    /// Spans lost since the start.
    lost: usize,
}

impl Watched {
    fn note(&self, exported: &OTelSdkResult, spans: usize) {
        let mut notices = self
            .notices
            .lock()
            .expect("no code panics while it holds this");
        let Err(error) = exported else {
            if std::mem::take(&mut notices.failing) {
                tracing::info!(lost = notices.lost, "traces are exported again");
            }
            return;
        };
        notices.lost += spans;
        if notices.last.is_some_and(|last| last.elapsed() < REMIND) {
            return;
        }
        notices.last = Some(Instant::now());
        notices.failing = true;
        let trouble = self.collector.trouble().take();
        tracing::warn!(
            error = trouble.unwrap_or_else(|| error.to_string()),
            lost = notices.lost,
            "traces can not be exported and are lost meanwhile; requests are answered all the same"
        );
    }
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.otlp.export(batch).await;
        self.note(&exported, spans);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// The endpoint by a setting and by variables.
    fn found(setting: Option<&str>, variables: &[(&str, &str)]) -> anyhow::Result<Option<String>> {
        let set = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Ok(endpoint(setting, set)?.map(String::from))
    }

    #[test]
    fn traces_go_where_the_setting_or_the_variables_say() {
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        for (setting, variables, expected) in [
            (None, vec![], None),
            (None, vec![(BASE, "")], None),
            (
                None,
                vec![(BASE, "http://c:4318/")],
                Some("http://c:4318/v1/traces"),
            ),
            (
                None,
                vec![(BASE, "http://c"), (own, "http://d/x")],
                Some("http://d/x"),
            ),
            (
                Some("https://e"),
                vec![(BASE, "http://c")],
                Some("https://e/v1/traces"),
            ),
            (Some("http://e"), vec![("OTEL_SDK_DISABLED", "true")], None),
            (
                Some("http://e"),
                vec![("OTEL_TRACES_EXPORTER", "none")],
                None,
            ),
        ] {
            let found = found(setting, &variables).unwrap();
            assert_eq!(found.as_deref(), expected, "{setting:?} {variables:?}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        for (variables, named) in [
            (vec![(BASE, "collector")], BASE),
            (vec![(BASE, "localhost:4318")], BASE),
            (
                vec![(BASE, "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                "OTEL_EXPORTER_OTLP_PROTOCOL is grpc",
            ),
        ] {
            let error = found(None, &variables).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(timeout(|_| None).unwrap(), TIMEOUT);
        assert_eq!(timeout(|_| Some("250".into())).unwrap().as_millis(), 250);
        assert!(timeout(|_| Some("1s".into())).is_err());
    }
}

//! The API's own description: `/openapi.json`, made from the routes, and a page that shows it.

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use muster_base::settings::{KeyRule, PhotographSettings, WebSettings};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, RefOr, Server};
use utoipa_axum::router::OpenApiRouter;

use crate::api::openapi::{BEARER, HEADER, PLAIN_PATH, PROBLEM_JSON, operations, text};
use crate::forms::json::MAX_JSON_BYTES;
use crate::forms::upload::MAX_TEXT_BYTES;
use muster_api::events::{History, Sample, Trouble};
use muster_api::problem::{Problem, ProblemMembers, Refused};

/// The finished description as JSON.
#[derive(Clone)]
pub struct Document(pub Bytes);

/// The document without its paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Muster",
        description = "Elastic face recognition: a photograph in, a name out.\n\nEvery answer \
                       carries `X-Request-Id`: the client's own where it sent one of up to 128 \
                       letters, digits and `-_.~:/+=@`, and a fresh one elsewhere. W3C's \
                       `traceparent` is continued. Errors are RFC 9457 problems with a stable \
                       `code`."
    ),
    components(schemas(Problem, ProblemMembers, Refused, History, Sample, Trouble)),
    modifiers(&Keys)
)]
struct Description;

/// The ways to send a key.
struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A key that `muster keys create` printed, or the local token.",
            ))
            .build();
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
        let header = ApiKeyValue::with_description(
            "x-api-key",
            "An API key, as in `Authorization: Bearer`.",
        );
        components.add_security_scheme(HEADER, SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// A router without routes, whose document says what Muster is.
pub fn document<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::with_openapi(<Description as utoipa::OpenApi>::openapi())
}

/// Adds what every operation shares, and the limits that the settings say.
pub fn finish(document: &mut OpenApi, web: &WebSettings, photographs: &PhotographSettings) {
    let description = document.info.description.get_or_insert_default();
    description.push_str(&limits(web, photographs));
    if !web.base_path.as_str().is_empty() {
        document.servers = Some(vec![Server::new(web.base_path.as_str())]);
    }
    let rule = web.key_rule();
    let no_key = SecurityRequirement::default();
    for (path, _, operation) in operations(document) {
        if let Some(security) = &mut operation.security {
            let without = security.contains(&no_key);
            match rule {
                KeyRule::Always => security.retain(|by| *by != no_key),
                KeyRule::Never if !without => security.push(no_key.clone()),
                KeyRule::UnlessLocal | KeyRule::Never => {}
            }
        }
        for response in operation.responses.responses.values_mut() {
            let RefOr::T(response) = response else {
                continue;
            };
            let id = text("The exchange's id.");
            response
                .headers
                .insert("X-Request-Id".to_owned(), RefOr::T(id));
            if path == PLAIN_PATH && response.content.shift_remove(PROBLEM_JSON).is_some() {
                let line = ObjectBuilder::new().schema_type(Type::String).build();
                let content = ContentBuilder::new().schema(Some(line)).build();
                response
                    .content
                    .insert("text/plain".to_owned(), RefOr::T(content));
            }
        }
    }
}

/// What this service takes, in words.
fn limits(web: &WebSettings, photographs: &PhotographSettings) -> String {
    let keys = match web.key_rule() {
        KeyRule::Always => {
            "Every call needs an API key with its scope, except those marked open. The scope \
                 admin includes the others."
        }
        KeyRule::UnlessLocal => {
            "Programs on the machine of this service may recognise and verify without an API key. Every \
             other call needs a key with its scope, except those marked open. The local token, which \
             `muster token` prints, counts as a key with the scope admin."
        }
        KeyRule::Never => "This service needs no API key. A key that is sent is checked.",
    };
    format!(
        "\n\n{keys}\n\nLimits of this service: photographs of up to {} bytes and {} pixels, {} in a \
         form and {} bytes together; JSON, in bodies and fields, of up to {} bytes, fields of text of up \
         to {}, and headers of up to {}. An upload, and the wait for its answer, take {} s at most each. {} \
         photographs may wait at one time, on {} connections.",
        photographs.max_bytes,
        photographs.max_pixels,
        photographs.max_in_request,
        web.max_upload_memory_bytes,
        MAX_JSON_BYTES,
        MAX_TEXT_BYTES,
        web.max_header_bytes,
        web.request_timeout.as_secs_f64(),
        web.max_waiting,
        web.max_connections,
    )
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "service",
    responses((status = 200, description = "The API's description.", body = Object))
)]
pub async fn openapi(State(document): State<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.0).into_response()
}

/// This document as a page, which asks no other server for anything.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "service",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html"))
)]
pub async fn docs() -> Response {
    // The page and what it asks for come from here, and nothing else does.
    const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                          style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let page = Html(include_str!("docs.html"));
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response()
}

//! The API's own description: `/openapi.json`, made from the routes, and a page that shows it.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, HttpMethod, OpenApi, Ref, RefOr};
use utoipa_axum::router::OpenApiRouter;

use super::problem::{Code, Problem, ProblemMembers, Refused};
use super::{App, AppState, upload};
use muster_base::settings::{PhotographSettings, WebSettings};

/// A response by its status, as `utoipa` has them.
pub type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

const PROBLEM_JSON: &str = "application/problem+json";
/// The one path whose errors are plain text.
pub const PLAIN_PATH: &str = "/";

/// The names of the ways to send a key.
pub const BEARER: &str = "bearer";
pub const HEADER: &str = "header";

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
    components(schemas(Problem, ProblemMembers, Refused)),
    modifiers(&Keys)
)]
struct Document;

/// The ways to send a key.
struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key that `muster keys create` printed."))
            .build();
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
        let header = ApiKeyValue::with_description("x-api-key", "The same key.");
        components.add_security_scheme(HEADER, SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// A router without routes, whose document says what Muster is.
pub fn document() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(<Document as utoipa::OpenApi>::openapi())
}

/// Defines groups of codes for `responses(…)` of `#[utoipa::path]`.
macro_rules! problem_responses {
    ($($(#[$doc:meta])+ $name:ident: $($code:ident)+;)+) => {
        $(
            $(#[$doc])+
            pub struct $name;

            impl utoipa::IntoResponses for $name {
                fn responses() -> $crate::openapi::Responses {
                    use $crate::problem::Code;
                    $crate::openapi::problems(&[$(Code::$code),+])
                }
            }
        )+
    };
}
pub(super) use problem_responses;

problem_responses! {
    /// What a form with photographs is refused with.
    FormProblems: RequestInvalid RequestTimeout RequestTooLarge ImageTooLarge ImageTooMany
        ImageUnreadable ImageUnsupported Overloaded;
    /// What a photograph that went to a worker comes back with.
    WorkProblems: FaceNone InputReplaced InputMissing RecognitionFailed Timeout Stopping;
    /// What a JSON body is refused with.
    BodyProblems: RequestInvalid RequestTimeout RequestTooLarge RequestUnsupported;
    /// What is asked for is not there.
    NotThere: NotFound;
}

/// The responses for these codes, those of one status together.
pub fn problems(codes: &[Code]) -> Responses {
    let mut responses = Responses::new();
    for code in codes {
        add_problem(&mut responses, *code);
    }
    responses
}

fn add_problem(responses: &mut Responses, code: Code) {
    let line = format!("`{}`: {}", code.text(), code.meaning());
    let status = code.status().as_u16().to_string();
    let described = responses.entry(status).or_insert_with(|| {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut response = ResponseBuilder::new().content(PROBLEM_JSON, content);
        if code.status() == StatusCode::TOO_MANY_REQUESTS {
            response = response.header("Retry-After", seconds("When to try again."));
        }
        if code.status() == StatusCode::UNAUTHORIZED {
            response = response.header("WWW-Authenticate", text("How to send a key."));
        }
        RefOr::T(response.build())
    });
    let RefOr::T(described) = described else {
        return;
    };
    if !described.description.contains(&line) {
        if !described.description.is_empty() {
            described.description.push_str("\n\n");
        }
        described.description.push_str(&line);
    }
}

fn seconds(what: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .schema(Some(
            ObjectBuilder::new().schema_type(Type::Integer).build(),
        ))
        .description(Some(what))
        .build()
}

fn text(what: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .description(Some(what))
        .build()
}

/// Documents that every operation of these routes may also answer with those codes.
pub fn also(mut routes: OpenApiRouter<App>, codes: &[Code]) -> OpenApiRouter<App> {
    for (_, _, operation) in operations(routes.get_openapi_mut()) {
        for (status, response) in problems(codes) {
            let responses = &mut operation.responses.responses;
            match responses.get_mut(&status) {
                Some(RefOr::T(known)) => {
                    let RefOr::T(more) = response else { continue };
                    known.description = format!("{}\n\n{}", known.description, more.description);
                    known.headers.extend(more.headers);
                }
                _ => {
                    responses.insert(status, response);
                }
            }
        }
    }
    routes
}

/// What is the same of every operation, and what the settings say, added once all routes are there.
pub fn finish(document: &mut OpenApi, web: &WebSettings, photographs: &PhotographSettings) {
    let description = document.info.description.get_or_insert_default();
    description.push_str(&limits(web, photographs));
    let required = web.require_keys();
    for (path, _, operation) in operations(document) {
        if let (Some(security), false) = (&mut operation.security, required) {
            security.push(SecurityRequirement::default());
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
    let keys = match web.require_keys() {
        true => {
            "Every call but those marked open wants an API key with its scope; admin is every \
                 scope."
        }
        false => {
            "This service listens for its own machine and wants no API key; one that is sent \
                  is checked."
        }
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
        upload::MAX_JSON_BYTES,
        upload::MAX_TEXT_BYTES,
        web.max_header_bytes,
        web.request_timeout.as_secs_f64(),
        web.max_waiting,
        web.max_connections,
    )
}

/// Every operation, with its path and method.
pub fn operations(
    document: &mut OpenApi,
) -> impl Iterator<Item = (&str, HttpMethod, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem {
            get,
            put,
            post,
            delete,
            patch,
            ..
        } = item;
        [
            (HttpMethod::Get, get),
            (HttpMethod::Put, put),
            (HttpMethod::Post, post),
            (HttpMethod::Delete, delete),
            (HttpMethod::Patch, patch),
        ]
        .into_iter()
        .filter_map(|(method, operation)| Some((&**path, method, operation.as_mut()?)))
    })
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "service",
    responses((status = 200, description = "The API's description.", body = Object))
)]
pub async fn openapi(axum::extract::State(app): AppState) -> Response {
    let body = app.document.clone();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
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

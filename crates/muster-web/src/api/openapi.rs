//! What the routes are described with: problems by their codes, and what all operations share.

use std::collections::BTreeMap;

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, HttpMethod, OpenApi, Ref, RefOr};
use utoipa_axum::router::OpenApiRouter;

use muster_api::problem::Code;

/// A response by its status, as `utoipa` has them.
pub type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The one path whose errors are plain text.
pub const PLAIN_PATH: &str = "/";

/// The names of the ways to send a key.
pub const BEARER: &str = "bearer";
pub const HEADER: &str = "header";

/// Defines groups of codes for `responses(…)` of `#[utoipa::path]`.
macro_rules! problem_responses {
    ($($(#[$doc:meta])+ $name:ident: $($code:ident)+;)+) => {
        $(
            $(#[$doc])+
            pub struct $name;

            impl utoipa::IntoResponses for $name {
                fn responses() -> $crate::api::openapi::Responses {
                    use muster_api::problem::Code;
                    $crate::api::openapi::problems(&[$(Code::$code),+])
                }
            }
        )+
    };
}
pub(crate) use problem_responses;

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
    let status = code.status().to_string();
    let described = responses.entry(status).or_insert_with(|| {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut response = ResponseBuilder::new().content(PROBLEM_JSON, content);
        if code.status() == 429 || code == Code::NotReady {
            response = response.header("Retry-After", seconds("When to try again."));
        }
        if code == Code::Unauthorized {
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

/// A response header that is text.
pub fn text(what: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .description(Some(what))
        .build()
}

/// Documents that every operation of these routes may also answer with those codes.
pub fn with_problems<S>(mut routes: OpenApiRouter<S>, codes: &[Code]) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
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

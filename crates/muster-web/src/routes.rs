//! The one table of routes: each with its scope, audited or open.

use std::time::Duration;

use axum::extract::OriginalUri;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use muster_base::api_keys::Scope;
use muster_base::settings::{Origin, PhotographSettings, WebSettings};
use muster_base::traces::Traces;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::guard::{self, Access, guarded, open_locally};
use crate::api::problem::ApiError;
use crate::app::App;
use crate::document::{self, Document};
use crate::forms::printable::printable;
use crate::observe::audit::{Auditor, audited};
use crate::{exchange, gallery, jobs, metrics, observe, page, people, proxy, recognize, verify};
use muster_api::problem::Code;

/// How long a browser may keep what it was told of another origin's calls.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// What is asked with a photograph, and for its answer.
fn recognize_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(recognize::plain))
        .routes(routes!(recognize::json))
        .routes(routes!(verify::verify))
        .routes(routes!(jobs::submit))
        .routes(routes!(jobs::show, jobs::remove))
}

/// What was asked by all of them.
fn list_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(jobs::list))
}

/// The people, read and written.
fn enroll_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(people::listing::list, people::person::create))
        .routes(routes!(
            people::person::show,
            people::person::change,
            people::person::remove
        ))
        .routes(routes!(people::person::merge))
        .routes(routes!(people::faces::list, people::faces::add))
        .routes(routes!(people::faces::remove))
        .routes(routes!(people::faces::photo))
        .routes(routes!(people::denials::list, people::denials::add))
        .routes(routes!(people::denials::remove))
}

/// The operator's own.
fn admin_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(observe::status::status))
        .routes(routes!(observe::prometheus::metrics))
        .routes(routes!(gallery::examination::calibration))
        .routes(routes!(gallery::examination::health))
        .routes(routes!(
            gallery::model_change::show,
            gallery::model_change::begin
        ))
        .routes(routes!(gallery::model_change::forget))
        .routes(routes!(observe::events::events))
}

/// What anybody may ask.
fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(observe::status::healthz))
        .routes(routes!(observe::status::readyz))
        .routes(routes!(document::openapi))
        .routes(routes!(document::docs))
        .routes(routes!(page::index))
        .routes(routes!(page::asset))
        .routes(routes!(page::samples))
        .routes(routes!(page::sample))
}

/// Every route with its description: the router and the document are both made of this, so a route
/// that is not described can not be served.
fn routes(access: &Access, auditor: &Auditor) -> OpenApiRouter<App> {
    document::document()
        .merge(open_locally(access, Scope::Recognize, recognize_routes()))
        .merge(guarded(access, Scope::Recognize, list_routes()))
        .merge(guarded(
            access,
            Scope::Enroll,
            audited(auditor, enroll_routes()),
        ))
        .merge(guarded(
            access,
            Scope::Admin,
            audited(auditor, admin_routes()),
        ))
        .merge(open_routes())
}

/// The routes, and the document as JSON.
pub fn table(
    access: &Access,
    auditor: &Auditor,
    web: &WebSettings,
    photographs: &PhotographSettings,
) -> (Router<App>, Document) {
    let (router, mut document) = routes(access, auditor).split_for_parts();
    document::finish(&mut document, web, photographs);
    let json = serde_json::to_vec(&document).expect("a document has only string keys");
    (router, Document(json.into()))
}

/// The router of these routes, with everything around them.
pub fn router(routes: Router<App>, app: App, traces: Traces, web: &WebSettings) -> Router {
    let router = routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method);
    let router = match &web.cors_origins[..] {
        [] => router,
        origins => router.layer(cors(origins)),
    };
    router
        .layer(middleware::from_fn_with_state(
            app.0.metrics.clone(),
            metrics::count,
        ))
        .layer(middleware::from_fn_with_state(
            web.base_path.clone(),
            proxy::behind,
        ))
        .layer(middleware::from_fn_with_state(traces, exchange::identify))
        .with_state(app)
}

/// Pages of these origins may call the API, with a key that they have: cookies play no part.
fn cors(origins: &[Origin]) -> CorsLayer {
    let origins = origins.iter().map(|origin| origin.header().clone());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            guard::API_KEY,
            exchange::REQUEST_ID,
            exchange::TRACE,
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, exchange::REQUEST_ID])
        .max_age(PREFLIGHT)
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> Response {
    ApiError::not_found(format!("there is nothing at {}", printable(uri.path()))).into_response()
}

async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{method} is not taken at {}", printable(uri.path())),
    )
    .into_response()
}

//! The web page: its files, which are part of the binary, and the sample photographs.

use std::path::PathBuf;

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_api::samples::{SamplePhotograph, SamplePhotographs};
use muster_recognize::models::{Installation, ModelError};

use crate::api::extract::Path;
use crate::api::openapi::NotThere;
use crate::api::problem::ApiError;

/// What `make` built of `page/`; empty where the binary was built without.
const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page.rs"));
/// The file that `GET /` answers.
const INDEX: &str = "index.html";
/// Files below it have a hash of their content in their names.
const HASHED: &str = "assets/";

/// Only what this server sends may run, and only this server may be asked; pictures are also what the
/// browser has made of a photograph, and the camera's.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; font-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SAFETY: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(), geolocation=()",
    ),
];

const WITHOUT: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>Muster, without its page</title>
<h1>This Muster was built without its page</h1>
<p>The service works: POST a photograph to <code>/v1/recognize</code>. To have the page as well, install Node.js (20.19 or
newer, with npm) and build Muster with <code>make</code>; or build the page with <code>npm --prefix page ci</code> and
<code>npm --prefix page run build</code>, and then the binary with <code>cargo build --release</code>.</p>
</html>
";

/// A file of the page.
struct File {
    /// Its path, from `/`.
    name: &'static str,
    /// Changes with its content; in quotation marks.
    etag: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

impl File {
    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let keep = if self.name.starts_with(HASHED) {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let headers = [
            (header::CONTENT_TYPE, self.media_type()),
            (header::CACHE_CONTROL, keep),
            (header::ETAG, self.etag),
            (header::VARY, "accept-encoding"),
        ];
        if names(asked, header::IF_NONE_MATCH, self.etag) {
            return (StatusCode::NOT_MODIFIED, SAFETY, headers).into_response();
        }
        match self.gzip {
            Some(gzip) if names(asked, header::ACCEPT_ENCODING, "gzip") => {
                let encoding = [(header::CONTENT_ENCODING, "gzip")];
                (SAFETY, headers, encoding, gzip).into_response()
            }
            _ => (SAFETY, headers, self.plain).into_response(),
        }
    }
}

/// Whether a header that holds a list has this entry, and does not refuse it.
fn names(headers: &HeaderMap, header: HeaderName, entry: &str) -> bool {
    let lists = headers.get_all(header);
    let mut entries = lists
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    entries.any(|listed| {
        let (name, weight) = listed.split_once(';').unwrap_or((listed, ""));
        let name = name.trim();
        let refused = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.strip_prefix("W/").unwrap_or(name) == entry && !refused
    })
}

fn find(files: &'static [File], name: &str) -> Option<&'static File> {
    files.iter().find(|file| file.name == name)
}

/// Show the page
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    tag = "page",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        (
            status = 404,
            description = "This Muster was built without it.",
            body = String,
            content_type = "text/html",
        ),
    )
)]
pub async fn index(headers: HeaderMap) -> Response {
    page(FILES, &headers)
}

fn page(files: &'static [File], headers: &HeaderMap) -> Response {
    match find(files, INDEX) {
        Some(file) => file.answer(headers),
        None => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (StatusCode::NOT_FOUND, SAFETY, kind, WITHOUT).into_response()
        }
    }
}

/// Send what the page is made of
#[utoipa::path(
    get,
    path = "/assets/{file}",
    operation_id = "page_asset",
    tag = "page",
    params(("file" = String, Path, description = "A name that the page gives.")),
    responses(
        (status = 200, description = "The file.", content_type = "*/*"),
        NotThere,
    )
)]
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    match find(FILES, &format!("{HASHED}{name}")) {
        Some(file) => Ok(file.answer(&headers)),
        None => Err(ApiError::not_found(
            "the page has no such file: load it again, Muster may be a newer one now",
        )),
    }
}

/// The folder of the sample photographs, if there is such a place.
#[derive(Clone)]
pub struct Samples(pub Option<PathBuf>);

/// The sample photographs with their files; nothing where `muster models install` has not put them on this
/// machine, as where only the web tier runs.
async fn installed(root: Option<PathBuf>) -> Result<Vec<(SamplePhotograph, PathBuf)>, ApiError> {
    let Some(root) = root else {
        return Ok(Vec::new());
    };
    let found = tokio::task::spawn_blocking(move || Installation::open(&root))
        .await
        .context("look for the samples")
        .map_err(|error| ApiError::internal("the samples could not be listed", error.as_ref()))?;
    let samples = match found {
        Ok(installation) => installation.samples(),
        Err(ModelError::NotInstalled { .. } | ModelError::Altered { .. }) => return Ok(Vec::new()),
        Err(error) => {
            return Err(ApiError::internal(
                "the samples could not be listed",
                &error,
            ));
        }
    };
    let people = samples.people.into_iter().flat_map(|(person, files)| {
        let person = Some(person);
        files.into_iter().map(move |path| (person.clone(), path))
    });
    let all = people.chain([(None, samples.group)]);
    Ok(all
        .filter_map(|(person, path)| {
            let file = path.file_name()?.to_str()?.to_owned();
            Some((SamplePhotograph { person, file }, path))
        })
        .collect())
}

/// List the sample photographs
#[utoipa::path(
    get,
    path = "/samples",
    tag = "page",
    responses((status = 200, description = "None where they are not installed.", body = SamplePhotographs))
)]
pub async fn samples(State(folder): State<Samples>) -> Result<Json<SamplePhotographs>, ApiError> {
    let found = installed(folder.0).await?;
    let samples = found.into_iter().map(|(sample, _)| sample).collect();
    Ok(Json(SamplePhotographs { samples }))
}

/// Send a sample photograph
#[utoipa::path(
    get,
    path = "/samples/{file}",
    tag = "page",
    params(("file" = String, Path, description = "Its name, as the list has it.")),
    responses(
        (status = 200, description = "The photograph.", content_type = "image/jpeg"),
        NotThere,
    )
)]
pub async fn sample(
    State(folder): State<Samples>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let found = installed(folder.0).await?;
    let Some((_, path)) = found.into_iter().find(|(sample, _)| sample.file == name) else {
        return Err(ApiError::not_found(
            "there is no such sample photograph: GET /samples lists them",
        ));
    };
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|error| ApiError::internal("a sample could not be read", &error))?;
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    Ok((headers, bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &[File] = &[
        File {
            name: "assets/a-1.js",
            etag: "\"2\"",
            plain: b"plain",
            gzip: Some(b"gzip"),
        },
        File {
            name: "index.html",
            etag: "\"1\"",
            plain: b"index",
            gzip: None,
        },
    ];

    fn asked(header: HeaderName, value: &str) -> HeaderMap {
        [(header, value.parse().unwrap())].into_iter().collect()
    }

    fn header(response: &Response, name: HeaderName) -> Option<&str> {
        response.headers().get(name)?.to_str().ok()
    }

    #[test]
    fn a_page_is_checked_for_and_its_parts_are_kept() {
        let index = page(PAGE, &HeaderMap::new());
        assert_eq!(index.status(), StatusCode::OK);
        assert_eq!(header(&index, header::CACHE_CONTROL), Some("no-cache"));
        let policy = header(&index, header::CONTENT_SECURITY_POLICY).unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
        let part = find(PAGE, "assets/a-1.js").unwrap();
        let part = part.answer(&HeaderMap::new());
        assert!(
            header(&part, header::CACHE_CONTROL).is_some_and(|kept| kept.contains("immutable"))
        );
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        for (etag, status) in [
            ("\"1\"", 304),
            ("W/\"1\"", 304),
            ("\"0\", \"1\"", 304),
            ("\"0\"", 200),
        ] {
            let again = page(PAGE, &asked(header::IF_NONE_MATCH, etag));
            assert_eq!(again.status().as_u16(), status, "{etag}");
        }
    }

    #[test]
    fn only_who_reads_gzip_gets_it() {
        let part = find(PAGE, "assets/a-1.js").unwrap();
        for (accepts, encoding) in [
            ("gzip, deflate, br", Some("gzip")),
            ("br;q=1.0, gzip;q=0.8", Some("gzip")),
            ("br", None),
            ("gzip;q=0", None),
        ] {
            let answer = part.answer(&asked(header::ACCEPT_ENCODING, accepts));
            assert_eq!(
                header(&answer, header::CONTENT_ENCODING),
                encoding,
                "{accepts}"
            );
        }
    }

    #[test]
    fn without_the_page_it_says_how_to_build_it() {
        let answer = page(&[], &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert!(WITHOUT.contains("npm --prefix page ci"));
    }
}

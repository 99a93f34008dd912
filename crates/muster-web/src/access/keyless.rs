//! Calls without an API key, where none is required: from programs, and from Muster's own pages.
//!
//! Other pages in a browser on the same machine must not call it: a page can have the browser post a
//! form to any address (cross-site request forgery), and can reach this machine under the page's own
//! domain name (DNS rebinding). Both show in the headers that the browser adds.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::api::problem::ApiError;
use muster_api::problem::Code;
use muster_base::settings::Origin;

/// From where a browser says that a request comes (Fetch Metadata, W3C).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules of calls without a key.
#[derive(Clone, Debug)]
pub struct Keyless {
    /// Whether the listener is on a loopback address, where a browser uses one of the machine's names.
    pub loopback: bool,
    /// Other origins whose pages may call.
    pub origins: Vec<Origin>,
}

impl Keyless {
    /// Refuses a call that a page of another origin made.
    ///
    /// # Errors
    /// 403, with the remedy.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST);
        if self.loopback
            && let Some(host) = host
            && !is_of_this_machine(host)
            && !self.origins.iter().any(|origin| is_at(origin.text(), host))
        {
            return Err(refusal("is asked for by the name of another machine"));
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(());
        };
        // Which a page can not say of itself: its own, although a proxy has changed the host.
        if text(FETCH_SITE) == Some("same-origin") {
            return Ok(());
        }
        let named = self.origins.iter().any(|named| named.header() == origin);
        let own = text(header::ORIGIN).zip(host);
        if named || own.is_some_and(|(origin, host)| is_at(origin, host)) {
            return Ok(());
        }
        Err(refusal("is asked by a page that is not its own"))
    }
}

/// Whether an origin is the one at a host and port.
fn is_at(origin: &str, host: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(_, at)| at.eq_ignore_ascii_case(host))
}

/// Whether a host, perhaps with a port, is a name or an address of the machine itself.
fn is_of_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn refusal(what: &str) -> ApiError {
    ApiError::new(
        Code::Forbidden,
        format!(
            "this Muster wants no API key, and {what}: use it at localhost, name the page's origin \
             in cors_origins, or set require_keys = true"
        ),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allowed(keyless: &Keyless, method: Method, host: &str, origin: Option<&str>) -> bool {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let mut headers = HeaderMap::from_iter([(header::HOST, value(host))]);
        headers.extend(origin.map(|origin| (header::ORIGIN, value(origin))));
        keyless.check(&method, &headers).is_ok()
    }

    #[test]
    fn only_its_own_pages_and_programs_are_obeyed() {
        let keyless = Keyless {
            loopback: true,
            origins: vec!["https://app.example.org".to_owned().try_into().unwrap()],
        };
        for (method, host, origin, may) in [
            (Method::POST, "127.0.0.1:8000", None, true),
            (Method::POST, "127.1.2.3", None, true),
            (Method::GET, "[::1]:8000", None, true),
            (Method::GET, "LocalHost:8000", None, true),
            (Method::GET, "muster.localhost", None, true),
            (
                Method::POST,
                "localhost:8000",
                Some("http://localhost:8000"),
                true,
            ),
            (
                Method::GET,
                "localhost:8000",
                Some("http://evil.example"),
                true,
            ),
            (
                Method::POST,
                "localhost:8000",
                Some("https://app.example.org"),
                true,
            ),
            (Method::GET, "app.example.org", None, true),
            // A form of another page.
            (
                Method::POST,
                "localhost:8000",
                Some("http://evil.example"),
                false,
            ),
            (
                Method::DELETE,
                "localhost:8000",
                Some("http://localhost:9000"),
                false,
            ),
            (Method::POST, "localhost:8000", Some("null"), false),
            // Another's name that was pointed here.
            (Method::GET, "evil.example:8000", None, false),
            (
                Method::POST,
                "evil.example",
                Some("http://evil.example"),
                false,
            ),
            (Method::GET, "127.0.0.1.evil.example", None, false),
            (Method::GET, "192.0.2.7:8000", None, false),
            (Method::GET, "", None, false),
        ] {
            let is = allowed(&keyless, method.clone(), host, origin);
            assert_eq!(is, may, "{method} {host:?} {origin:?}");
        }
        let open = Keyless {
            loopback: false,
            ..keyless
        };
        assert!(allowed(&open, Method::POST, "muster.lan:8000", None));
        let own = Some("http://muster.lan:8000");
        assert!(allowed(&open, Method::POST, "muster.lan:8000", own));
        assert!(!allowed(
            &open,
            Method::POST,
            "muster.lan:8000",
            Some("http://evil.example")
        ));
        assert!(open.check(&Method::POST, &HeaderMap::new()).is_ok());
        for (site, may) in [
            ("same-origin", true),
            ("same-site", false),
            ("cross-site", false),
        ] {
            let headers = HeaderMap::from_iter([
                (header::HOST, HeaderValue::from_static("10.0.0.7:8000")),
                (
                    header::ORIGIN,
                    HeaderValue::from_static("https://muster.example.org"),
                ),
                (FETCH_SITE, HeaderValue::from_static(site)),
            ]);
            assert_eq!(open.check(&Method::POST, &headers).is_ok(), may, "{site}");
        }
    }
}

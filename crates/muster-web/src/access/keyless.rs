//! Calls without an API key, where not all of them need one.
//!
//! Whoever is behind a proxy on this machine arrives from loopback too. So of calls without a key only those
//! that come straight from this machine are answered, and of them, without the local token, only those that
//! show nothing of the people but the name of whoever is in the photograph that is sent.
//!
//! Other pages in a browser on the same machine must not call: a page can have the browser post a
//! form to any address (cross-site request forgery), and can reach this machine under the page's own
//! domain name (DNS rebinding). Both show in the headers that the browser adds.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::access::caller::Caller;
use crate::api::problem::ApiError;
use muster_api::problem::Code;
use muster_base::api_keys::{ApiKey, Token};
use muster_base::audit::Who;
use muster_base::local_token::is_loopback;
use muster_base::settings::Origin;

/// From where a browser says that a request comes (Fetch Metadata, W3C).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What proxies add, besides everything that [`is_forwarding`] knows by a part of its name.
const FORWARDING: [HeaderName; 4] = [
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("x-envoy-external-address"),
];

/// Which calls need no API key.
#[derive(Clone, Debug)]
pub enum Keyless {
    /// None.
    Nothing,
    /// Those that come straight from this machine: with the local token, which is this key, all of
    /// them, without it some.
    Local(ApiKey),
    /// All, which the operator has said.
    Everything {
        /// Whether the listener is on a loopback address, where a browser uses one of the machine's
        /// names.
        loopback: bool,
        /// Other origins whose pages may call.
        origins: Vec<Origin>,
    },
}

impl Keyless {
    /// Admits a call without a key, or refuses it; `open_locally` says whether one from this machine
    /// needs no local token.
    ///
    /// # Errors
    /// 401 where a key is needed and 403 where another page asks, with the remedy.
    pub fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        open_locally: bool,
    ) -> Result<Caller, ApiError> {
        match self {
            Self::Nothing => Err(unauthorized(
                "this Muster wants an API key: send Authorization: Bearer with the key that \
                 `muster keys create` printed",
            )),
            Self::Local(_) if !is_local(headers) => Err(not_local()),
            Self::Local(_) if !is_own_page(headers, &[]) => Err(foreign(
                "is asked without an API key by a page that is not its own: send Authorization: Bearer \
                 with a key",
            )),
            Self::Local(_) if !open_locally => Err(unauthorized(
                "this wants an API key or the local token: send Authorization: Bearer with what `muster \
                 token` prints, or open the page by the link that `muster up` prints",
            )),
            Self::Local(_) => Ok(Caller {
                who: Who::Anybody,
                is_admin: false,
            }),
            Self::Everything { loopback, origins } => {
                check_page(*loopback, origins, method, headers)?;
                Ok(Caller {
                    who: Who::Anybody,
                    is_admin: true,
                })
            }
        }
    }

    /// Admits a call with the local token; `None` where the token is none.
    ///
    /// # Errors
    /// 401 where the call does not come straight from this machine.
    pub fn admit_token(
        &self,
        token: &Token,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, ApiError> {
        match self {
            Self::Local(key) if key.accepts(token) => match is_local(headers) {
                true => Ok(Some(Caller {
                    who: Who::LocalToken,
                    is_admin: true,
                })),
                false => Err(not_local()),
            },
            _ => Ok(None),
        }
    }
}

/// Whether a call comes straight from this machine, by all that its headers say: no proxy has passed it
/// on, and it asks for this machine by a name or an address of its own.
fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter().peekable();
    hosts.peek().is_some()
        && hosts.all(|host| host.to_str().is_ok_and(is_of_this_machine))
        && !headers.keys().any(is_forwarding)
}

/// Whether a proxy has added a header of that name.
fn is_forwarding(name: &HeaderName) -> bool {
    let text = name.as_str();
    FORWARDING.contains(name)
        || text.contains("forwarded")
        || text.ends_with("client-ip")
        || text.contains("connecting-ip")
}

/// Refuses a call that a page of another origin made, or sent to another machine's name.
fn check_page(
    loopback: bool,
    origins: &[Origin],
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let remedy = "use it at localhost, name the page's origin in cors_origins, or send an API key";
    if loopback
        && let Some(host) = text(headers, header::HOST)
        && !is_of_this_machine(host)
        && !origins.iter().any(|origin| is_at(origin.text(), host))
    {
        return Err(foreign(&format!(
            "is asked without an API key by the name of another machine: {remedy}"
        )));
    }
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if safe || is_own_page(headers, origins) {
        return Ok(());
    }
    Err(foreign(&format!(
        "is asked without an API key by a page that is not its own: {remedy}"
    )))
}

/// Whether a call is a program's, or of a page of this Muster's or of one of these origins.
fn is_own_page(headers: &HeaderMap, origins: &[Origin]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    // Which a page can not say of itself: its own, although a proxy has changed the host.
    let same = text(headers, FETCH_SITE) == Some("same-origin");
    let named = || origins.iter().any(|named| named.header() == origin);
    let own = || {
        let host = text(headers, header::HOST);
        let own = text(headers, header::ORIGIN).zip(host);
        own.is_some_and(|(origin, host)| is_at(origin, host))
    };
    same || named() || own()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
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
    // Nothing else: no user before it, and no port that is no number.
    let port = host.strip_prefix(authority.host());
    let port = port.map(|rest| rest.is_empty() || authority.port_u16().is_some());
    port == Some(true) && is_loopback(authority.host())
}

fn not_local() -> ApiError {
    unauthorized(
        "this call came through a proxy, or asks for another host than localhost: it needs an API key, \
         which `muster keys create` makes; send it as Authorization: Bearer",
    )
}

fn unauthorized(sentence: &str) -> ApiError {
    ApiError::new(Code::Unauthorized, sentence)
}

fn foreign(what: &str) -> ApiError {
    ApiError::new(Code::Forbidden, format!("this Muster {what}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use muster_base::api_keys::Scope;

    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let named =
            |(name, text): &(&'static str, &str)| (HeaderName::from_static(name), value(text));
        of.iter().map(named).collect()
    }

    /// The status that a call is refused with; 200 where it is admitted.
    fn status(keyless: &Keyless, method: Method, headers: &HeaderMap, open_locally: bool) -> u16 {
        let admitted = keyless.admit(&method, headers, open_locally);
        admitted.map_or_else(|refusal| refusal.code().status(), |_| 200)
    }

    fn local() -> (Keyless, Token) {
        let token = Token::fresh().unwrap();
        let key = ApiKey {
            id: token.id.clone(),
            name: "local-token".into(),
            secret_sha256: token.hash(),
            scopes: vec![Scope::Admin],
            rate_per_s: None,
            burst: None,
            created_at_ms: 0,
            expires_at_ms: None,
        };
        (Keyless::Local(key), token)
    }

    #[test]
    fn only_what_comes_straight_from_this_machine_needs_no_key() {
        let (keyless, token) = local();
        let own = [
            "127.0.0.1:8000",
            "127.1.2.3",
            "[::1]:8000",
            "LocalHost:8000",
            "muster.localhost",
            "localhost.",
        ];
        for host in own {
            let headers = headers(&[("host", host)]);
            assert_eq!(
                status(&keyless, Method::POST, &headers, true),
                200,
                "{host}"
            );
            assert_eq!(
                status(&keyless, Method::GET, &headers, false),
                401,
                "{host}"
            );
            let admitted = keyless.admit_token(&token, &headers).unwrap().unwrap();
            assert!(
                admitted.is_admin && admitted.who == Who::LocalToken,
                "{host}"
            );
            let other = Token::fresh().unwrap();
            assert_eq!(keyless.admit_token(&other, &headers).unwrap(), None);
        }
        let host = ("host", "localhost:8000");
        let foreign = [
            headers(&[]),
            headers(&[("host", "")]),
            headers(&[("host", "evil.example:8000")]),
            headers(&[("host", "127.0.0.1.evil.example")]),
            headers(&[("host", "192.0.2.7:8000")]),
            headers(&[host, ("x-forwarded-for", "192.0.2.7")]),
            headers(&[host, ("x-forwarded-proto", "https")]),
            headers(&[host, ("x-real-ip", "192.0.2.7")]),
            headers(&[host, ("forwarded", "for=192.0.2.7")]),
            headers(&[host, ("via", "1.1 proxy")]),
            headers(&[host, ("true-client-ip", "192.0.2.7")]),
            headers(&[host, ("x-client-ip", "192.0.2.7")]),
            headers(&[host, ("x-cluster-client-ip", "192.0.2.7")]),
            headers(&[host, ("cf-connecting-ip", "192.0.2.7")]),
            headers(&[host, ("x-original-forwarded-for", "192.0.2.7")]),
            headers(&[("host", "evil@127.0.0.1")]),
            headers(&[("host", "evil@localhost:8000")]),
            headers(&[("host", "127.0.0.1:evil")]),
            headers(&[("host", "127.0.0.1:99999")]),
            headers(&[("host", "localhost:")]),
            [host, ("host", "evil.example")].into_iter().fold(
                HeaderMap::new(),
                |mut all, (name, value)| {
                    all.append(name, HeaderValue::from_static(value));
                    all
                },
            ),
        ];
        for headers in foreign {
            let refused = status(&keyless, Method::POST, &headers, true);
            assert_eq!(refused, 401, "{headers:?}");
            let refused = keyless.admit_token(&token, &headers);
            assert_eq!(
                refused.unwrap_err().code(),
                Code::Unauthorized,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_on_this_machine() {
        let (keyless, _) = local();
        for (origin, expected) in [
            ("http://localhost:8000", 200),
            ("http://evil.example", 403),
            ("http://localhost:9000", 403),
            ("null", 403),
        ] {
            let headers = headers(&[("host", "localhost:8000"), ("origin", origin)]);
            for method in [Method::GET, Method::POST] {
                assert_eq!(
                    status(&keyless, method, &headers, true),
                    expected,
                    "{origin}"
                );
            }
        }
    }

    #[test]
    fn without_any_keys_only_its_own_pages_and_programs_are_obeyed() {
        let open = |loopback| Keyless::Everything {
            loopback,
            origins: vec!["https://app.example.org".to_owned().try_into().unwrap()],
        };
        let here = Some("http://localhost:8000");
        let evil = Some("http://evil.example");
        let app = Some("https://app.example.org");
        for (loopback, method, host, origin, expected) in [
            (true, Method::POST, "127.0.0.1:8000", None, 200),
            (true, Method::POST, "localhost:8000", here, 200),
            (true, Method::GET, "localhost:8000", evil, 200),
            (true, Method::POST, "localhost:8000", app, 200),
            (true, Method::GET, "app.example.org", None, 200),
            // A form of another page.
            (true, Method::POST, "localhost:8000", evil, 403),
            (true, Method::DELETE, "localhost:9000", here, 403),
            (true, Method::POST, "localhost:8000", Some("null"), 403),
            // Another's name that was pointed here.
            (true, Method::GET, "evil.example:8000", None, 403),
            (true, Method::POST, "evil.example", evil, 403),
            (true, Method::GET, "", None, 403),
            (false, Method::POST, "muster.lan:8000", None, 200),
            (false, Method::POST, "muster.lan:8000", evil, 403),
            (
                false,
                Method::POST,
                "muster.lan:8000",
                Some("http://muster.lan:8000"),
                200,
            ),
        ] {
            let mut headers = headers(&[("host", host)]);
            headers.extend(origin.map(|o| (header::ORIGIN, HeaderValue::from_static(o))));
            let found = status(&open(loopback), method.clone(), &headers, false);
            assert_eq!(found, expected, "{method} {host:?} {origin:?}");
        }
        for (site, expected) in [
            ("same-origin", 200),
            ("same-site", 403),
            ("cross-site", 403),
        ] {
            let headers = headers(&[
                ("host", "10.0.0.7:8000"),
                ("origin", "https://muster.example.org"),
                ("sec-fetch-site", site),
            ]);
            let found = status(&open(false), Method::POST, &headers, false);
            assert_eq!(found, expected, "{site}");
        }
    }
}

//! Access control: each route's scope, the keys that have it, and how often they may ask.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::OpenApiRouter;

use crate::access::caller::Caller;
use crate::access::keyless::Keyless;
use crate::access::keys::Keys;
use crate::access::rate::Bucket;
use crate::api::openapi::{self, PLAIN_PATH};
use crate::api::problem::ApiError;
use muster_api::problem::Code;
use muster_base::api_keys::{KeyStore, Scope, Token};
use muster_base::audit::Who;

/// The scheme of `Authorization` that a key is sent by.
const BEARER: &[u8] = b"bearer";
/// The header for a key beside `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The check of API keys and their rates. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

/// What routes ask of their callers.
#[derive(Clone, Copy, Debug)]
struct Door {
    /// What a key has to allow.
    scope: Scope,
    /// Whether this machine's own calls need no local token either.
    open_locally: bool,
}

struct Inner {
    /// Calls that need no key.
    keyless: Keyless,
    keys: Keys,
}

impl Access {
    /// Admits callers with a key of the store; without a key those that `keyless` allows.
    pub fn new(store: KeyStore, keyless: Keyless) -> Self {
        let keys = Keys::new(store);
        Self {
            inner: Arc::new(Inner { keyless, keys }),
        }
    }

    /// Decides on a request that goes through a door; says who sent it.
    async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        door: Door,
    ) -> Result<Caller, ApiError> {
        let scope = door.scope;
        let Some(presented) = presented_key(headers) else {
            return (self.inner.keyless).admit(method, headers, door.open_locally);
        };
        let unknown = || {
            ApiError::new(
                Code::Unauthorized,
                "the API key is not known here, was revoked or has expired: `muster keys list` \
                 shows which there are, and `muster token` the local token, which is another after \
                 each start",
            )
        };
        let token: Token = presented
            .and_then(|key| key.parse().ok())
            .ok_or_else(unknown)?;
        if let Some(caller) = self.inner.keyless.admit_token(&token, headers)? {
            return Ok(caller);
        }
        let keys = &self.inner.keys;
        let known = keys.find(&token.id).await?.ok_or_else(unknown)?;
        let mut state = keys.read(&token.id, &known).await?;
        let key = state.key();
        let key = key.filter(|key| key.accepts(&token)).ok_or_else(unknown)?;
        if !key.allows(scope) {
            return Err(ApiError::new(
                Code::Forbidden,
                format!(
                    "the API key {} lacks the scope {}: send one that has it",
                    key.id,
                    scope.text()
                ),
            ));
        }
        let caller = Caller {
            who: Who::from(&*key),
            is_admin: key.allows(Scope::Admin),
        };
        let Some(rate) = key.rate_per_s else {
            return Ok(caller);
        };
        let now = Instant::now();
        let bucket = match &mut state.bucket {
            Some(bucket) if bucket.is_of(rate, key.burst()) => bucket,
            other => other.insert(Bucket::new(rate, key.burst(), now)),
        };
        bucket.take(now).map_err(|wait| {
            ApiError::rate_limited(
                format!("the API key {} may ask {rate} times a second: wait", key.id),
                wait,
            )
        })?;
        Ok(caller)
    }

    /// Whether a call with these headers would still be admitted: for answers without an end.
    pub async fn still_admits(&self, headers: &HeaderMap, scope: Scope) -> bool {
        let door = Door {
            scope,
            open_locally: false,
        };
        match self.admit(&Method::GET, headers, door).await {
            Ok(_) => true,
            // Of what failed or has to wait nothing follows.
            Err(refusal) => !matches!(refusal.code(), Code::Unauthorized | Code::Forbidden),
        }
    }
}

/// The key that a request carries; the inner `None` where it is no text. Other schemes than `Bearer` are not
/// Muster's: a proxy asks for passwords by `Basic`, say, and passes them on.
fn presented_key(headers: &HeaderMap) -> Option<Option<&str>> {
    let bearer = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .find_map(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(BEARER.len())?;
            let is_it = scheme.eq_ignore_ascii_case(BEARER)
                && !matches!(key, [first, ..] if *first != b' ');
            is_it.then(|| std::str::from_utf8(key).ok().map(str::trim))
        });
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.to_str().ok()))
}

/// Admits only calls with the scope, and documents that.
pub fn guarded<S>(access: &Access, scope: Scope, routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let door = Door {
        scope,
        open_locally: false,
    };
    behind(access, door, routes)
}

/// Admits calls with the scope and, where this machine's own need no key, those as well.
pub fn open_locally<S>(access: &Access, scope: Scope, routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let door = Door {
        scope,
        open_locally: true,
    };
    behind(access, door, routes)
}

fn behind<S>(access: &Access, door: Door, routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let codes = [
        Code::Unauthorized,
        Code::Forbidden,
        Code::RateLimited,
        Code::Internal,
        // Whatever a route needs may be full or away.
        Code::NotReady,
    ];
    let mut routes = openapi::with_problems(routes, &codes);
    for (_, _, operation) in openapi::operations(routes.get_openapi_mut()) {
        let by = |scheme| SecurityRequirement::new(scheme, [door.scope.text()]);
        let mut ways = vec![by(openapi::BEARER), by(openapi::HEADER)];
        // Taken back where every call wants a key, see [`crate::document`].
        ways.extend(door.open_locally.then(SecurityRequirement::default));
        operation.security = Some(ways);
    }
    routes.route_layer(middleware::from_fn_with_state(
        access.clone(),
        move |State(access): State<Access>, mut request: Request, next: Next| async move {
            let admitted = access.admit(request.method(), request.headers(), door);
            match admitted.await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    next.run(request).await
                }
                Err(refusal) if request.uri().path() == PLAIN_PATH => refusal.into_plain(),
                Err(refusal) => refusal.into_response(),
            }
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderValue;
    use muster_base::api_keys::ApiKey;

    use super::*;

    #[test]
    fn a_key_is_found_in_either_header() {
        let headers = |name: HeaderName, value: &str| {
            HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
        };
        assert_eq!(presented_key(&HeaderMap::new()), None);
        for value in ["Bearer k", "bearer k", "BEARER  k "] {
            let headers = headers(header::AUTHORIZATION, value);
            assert_eq!(presented_key(&headers), Some(Some("k")), "{value}");
        }
        assert_eq!(presented_key(&headers(API_KEY, "k")), Some(Some("k")));
        assert_eq!(
            presented_key(&headers(header::AUTHORIZATION, "Bearer")),
            Some(Some(""))
        );
        // What is not Muster's, alone and beside a key.
        for value in ["Basic k", "Digest k", "Bearerk", "Bear", ""] {
            let mut headers = headers(header::AUTHORIZATION, value);
            assert_eq!(presented_key(&headers), None, "{value}");
            headers.insert(API_KEY, HeaderValue::from_static("own"));
            assert_eq!(presented_key(&headers), Some(Some("own")), "{value}");
            headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer k"));
            assert_eq!(presented_key(&headers), Some(Some("k")), "{value}");
        }
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[tokio::test]
    async fn guesses_are_refused_together_and_cost_no_key_its_answer() {
        let store = KeyStore::new(Arc::new(object_store::memory::InMemory::new()));
        let genuine = Token::fresh().unwrap();
        let key = |token: &Token| ApiKey {
            id: token.id.clone(),
            name: "genuine".into(),
            secret_sha256: token.hash(),
            scopes: vec![Scope::Recognize],
            rate_per_s: None,
            burst: None,
            created_at_ms: 0,
            expires_at_ms: None,
        };
        store.create(&key(&genuine)).await.unwrap();
        let access = Access::new(store.clone(), Keyless::Nothing);
        let door = Door {
            scope: Scope::Recognize,
            open_locally: false,
        };
        let ask = async |token: String| {
            let admitted = access.admit(&Method::GET, &bearer(&token), door).await;
            admitted.map_err(|refusal| refusal.code())
        };
        let guesses = futures::future::join_all((0..5000).map(|n| {
            let (id, secret) = (format!("{n:016x}"), "0".repeat(64));
            ask(format!("muster_{id}_{secret}"))
        }));
        // One that was made after the replica listed them all.
        let late = Token::fresh().unwrap();
        let genuine_calls = async {
            for _ in 0..200 {
                assert!(ask(genuine.reveal()).await.is_ok());
                tokio::task::yield_now().await;
            }
            store.create(&key(&late)).await.unwrap();
            assert!(ask(late.reveal()).await.is_ok());
        };
        // One list a second does for all: with a list for each they would take more than an hour.
        let both = async { tokio::join!(guesses, genuine_calls) };
        let (guesses, ()) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("guesses share the lists");
        assert!(
            guesses
                .iter()
                .all(|answer| *answer == Err(Code::Unauthorized))
        );
        let secret = format!("muster_{}_{}", genuine.id, "0".repeat(64));
        assert_eq!(ask(secret).await, Err(Code::Unauthorized));
    }
}

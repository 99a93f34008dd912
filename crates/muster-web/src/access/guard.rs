//! Access control: each route's scope, the keys that have it, and how often they may ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::OpenApiRouter;

use crate::access::keyless::Keyless;
use crate::access::rate::Bucket;
use crate::api::openapi::{self, PLAIN_PATH};
use crate::api::problem::ApiError;
use muster_api::problem::Code;
use muster_base::api_keys::{ApiKey, KeyId, KeyStore, Scope, Token};
use muster_base::audit::Who;

/// The header for a key beside `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How long the store's answer on a key is cached: how long a revocation may take to be noticed.
const FRESH: Duration = Duration::from_secs(3);
/// Keys cached at one time.
const MAX_CACHED: usize = 4096;
/// Look-ups a second of keys that are not cached, and at once: who guesses keys has the store
/// read no more often than that.
const LOOKUPS_PER_S: f64 = 50.0;
const LOOKUPS_BURST: f64 = 200.0;
/// How much of a refused body is read, and for how long, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

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
    store: KeyStore,
    cached: Mutex<HashMap<KeyId, Arc<CachedKey>>>,
    lookups: Mutex<Bucket>,
}

/// One key in the cache. The lock is held while the store is asked, so that it is asked once.
#[derive(Default)]
struct CachedKey {
    state: tokio::sync::Mutex<KeyState>,
}

/// What the store had of a key, and its rate.
#[derive(Default)]
struct KeyState {
    /// When the store was asked, and what it had.
    read: Option<(Instant, Option<Arc<ApiKey>>)>,
    bucket: Option<Bucket>,
}

impl KeyState {
    fn fresh(&self) -> Option<Option<Arc<ApiKey>>> {
        let (at, key) = self.read.as_ref()?;
        (at.elapsed() < FRESH).then(|| key.clone())
    }
}

impl Access {
    /// Admits callers with a key of the store; without a key those that `keyless` allows.
    pub fn new(store: KeyStore, keyless: Keyless) -> Self {
        let lookups = Bucket::new(LOOKUPS_PER_S, LOOKUPS_BURST, Instant::now());
        Self {
            inner: Arc::new(Inner {
                keyless,
                store,
                cached: Mutex::default(),
                lookups: Mutex::new(lookups),
            }),
        }
    }

    /// Decides on a request that goes through a door; says who sent it.
    async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        door: Door,
    ) -> Result<Who, ApiError> {
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
        if let Some(who) = self.inner.keyless.admit_token(&token, headers)? {
            return Ok(who);
        }
        let cached = self.cached(&token.id);
        let mut state = cached.state.lock().await;
        let key = match state.fresh() {
            Some(key) => key,
            None => {
                let never_there = !matches!(&state.read, Some((_, Some(_))));
                if never_there {
                    self.count_lookup()?;
                }
                let found = self.inner.store.get(&token.id).await.map_err(|error| {
                    ApiError::internal("an API key could not be read", error.as_ref())
                })?;
                let found = found.map(Arc::new);
                state.read = Some((Instant::now(), found.clone()));
                found
            }
        };
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
        let who = Who::from(&*key);
        let Some(rate) = key.rate_per_s else {
            return Ok(who);
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
        Ok(who)
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

    fn cached(&self, id: &KeyId) -> Arc<CachedKey> {
        let mut all = self
            .inner
            .cached
            .lock()
            .expect("no code panics while it holds these");
        if let Some(state) = all.get(id) {
            return Arc::clone(state);
        }
        if all.len() >= MAX_CACHED {
            // Keys that were guessed go first; of those that are real, the buckets would be lost.
            all.retain(|_, cached| match cached.state.try_lock() {
                Ok(state) => matches!(&state.read, Some((_, Some(_)))),
                Err(_) => true,
            });
            if all.len() >= MAX_CACHED {
                all.clear();
            }
        }
        Arc::clone(all.entry(id.clone()).or_default())
    }

    fn count_lookup(&self) -> Result<(), ApiError> {
        let mut lookups = self
            .inner
            .lookups
            .lock()
            .expect("no code panics while it holds these");
        lookups.take(Instant::now()).map_err(|wait| {
            ApiError::rate_limited("too many unknown API keys are being tried: wait", wait)
        })
    }
}

/// The key that a request carries; the inner `None` where it is no text.
fn presented_key(headers: &HeaderMap) -> Option<Option<&str>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        return Some(bearer);
    }
    headers.get(API_KEY).map(|value| value.to_str().ok())
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
                Ok(who) => {
                    request.extensions_mut().insert(who);
                    next.run(request).await
                }
                Err(refusal) => refuse(request, refusal).await,
            }
        },
    ))
}

async fn refuse(request: Request, refusal: ApiError) -> Response {
    let plain = request.uri().path() == PLAIN_PATH;
    // Who waits to be told to continue has sent nothing yet, and reading would tell.
    if !request.headers().contains_key(header::EXPECT) {
        let mut body = request.into_body().into_data_stream();
        let draining = async {
            let mut drained = 0;
            while let Some(Ok(chunk)) = body.next().await {
                drained += chunk.len();
                if drained > MAX_DRAINED_BYTES {
                    break;
                }
            }
        };
        // Whether it ends in time or not, the answer is the same.
        let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
    }
    if plain {
        refusal.into_plain()
    } else {
        refusal.into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

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
        assert_eq!(
            presented_key(&headers(header::AUTHORIZATION, "Basic k")),
            Some(None)
        );
        assert_eq!(presented_key(&headers(API_KEY, "k")), Some(Some("k")));
    }

    #[tokio::test]
    async fn guessed_keys_fill_neither_memory_nor_the_stores_bill() {
        let access = Access::new(
            KeyStore::new(Arc::new(object_store::memory::InMemory::new())),
            Keyless::Nothing,
        );
        let door = Door {
            scope: Scope::Recognize,
            open_locally: false,
        };
        let mut refused = HashMap::new();
        for n in 0..2 * MAX_CACHED {
            let key = format!("Bearer muster_{n:016x}_{n:064x}");
            let headers = HeaderMap::from_iter([(
                header::AUTHORIZATION,
                HeaderValue::from_str(&key).unwrap(),
            )]);
            let admitted = access.admit(&Method::GET, &headers, door).await;
            let refusal = admitted.unwrap_err();
            *refused.entry(refusal.code().text()).or_insert(0) += 1;
        }
        assert!(access.inner.cached.lock().unwrap().len() <= MAX_CACHED);
        let looked_up = refused["unauthorized"];
        assert!(looked_up >= LOOKUPS_BURST as usize, "{refused:?}");
        assert!(refused["rate_limited"] > MAX_CACHED, "{refused:?}");
    }
}

//! The metadata service of one instance, version 2.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_sdk_ec2::primitives::{DateTime, DateTimeFormat};
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode};

use crate::{
    http_server::{AnyBody, HttpServer, boxed},
    sdk::REGION,
};

/// The header that says how long a token is to be valid.
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The header that a token is shown in.
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// "Use the Instance Metadata Service": six hours at most.
const MAX_TTL_S: u64 = 21_600;

/// "Spot Instance interruption notices": two minutes before it happens.
const INTERRUPTION_NOTICE: Duration = Duration::from_secs(120);

/// How long the credentials of the instance's role are valid.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// The role that the instance has.
const ROLE: &str = "instance";

/// The metadata service of one instance, which ends with this value.
#[derive(Debug)]
pub struct Imds {
    instance: Arc<Instance>,
    server: HttpServer,
}

#[derive(Debug)]
struct Instance {
    id: String,
    user_data: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each token that was given out expires.
    tokens: HashMap<String, Instant>,
    interruption: Option<SystemTime>,
}

impl Imds {
    /// Starts the service of an instance on a free port.
    pub fn start(instance_id: &str, user_data: &str) -> Imds {
        let instance = Arc::new(Instance {
            id: instance_id.to_owned(),
            user_data: user_data.to_owned(),
            state: Mutex::default(),
        });
        let handle = {
            let instance = Arc::clone(&instance);
            move |request: Request<_>| {
                let answer = instance.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            }
        };
        Imds {
            instance,
            server: HttpServer::start("imds", handle),
        }
    }

    /// Returns the value of `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn endpoint(&self) -> &str {
        self.server.endpoint()
    }

    /// Gives notice that Spot takes the instance back in two minutes.
    pub fn interrupt(&self) {
        let at = SystemTime::now() + INTERRUPTION_NOTICE;
        self.instance.state.lock().unwrap().interruption = Some(at);
    }
}

impl Instance {
    fn answer<B>(&self, request: &Request<B>) -> Response<AnyBody> {
        let header = |name| request.headers().get(name)?.to_str().ok();
        let path = request.uri().path();
        let mut state = self.state.lock().unwrap();
        if path == "/latest/api/token" && request.method() == Method::PUT {
            let ttl_s = header(TTL_HEADER).and_then(|ttl| ttl.parse().ok());
            let Some(ttl_s) = ttl_s.filter(|ttl_s| (1..=MAX_TTL_S).contains(ttl_s)) else {
                return status(StatusCode::BAD_REQUEST);
            };
            let token = format!("{}-{}", self.id, state.tokens.len());
            let expires = Instant::now() + Duration::from_secs(ttl_s);
            state.tokens.insert(token.clone(), expires);
            return Response::builder()
                .header(TTL_HEADER, ttl_s)
                .body(boxed(Full::from(token)))
                .unwrap();
        }
        if request.method() != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let expires = header(TOKEN_HEADER).and_then(|token| state.tokens.get(token));
        if expires.is_none_or(|&expires| expires <= Instant::now()) {
            return status(StatusCode::UNAUTHORIZED);
        }
        match self.value(path, state.interruption) {
            Some(value) => Response::new(boxed(Full::from(value))),
            None => status(StatusCode::NOT_FOUND),
        }
    }

    fn value(&self, path: &str, interruption: Option<SystemTime>) -> Option<String> {
        let value = match path {
            "/latest/user-data" if self.user_data.is_empty() => return None,
            "/latest/user-data" => self.user_data.clone(),
            "/latest/meta-data/instance-id" => self.id.clone(),
            "/latest/meta-data/placement/region" => REGION.to_owned(),
            "/latest/meta-data/placement/availability-zone" => format!("{REGION}a"),
            "/latest/meta-data/iam/security-credentials/" => ROLE.to_owned(),
            "/latest/dynamic/instance-identity/document" => serde_json::json!({
                "instanceId": self.id,
                "region": REGION,
                "availabilityZone": format!("{REGION}a"),
            })
            .to_string(),
            "/latest/meta-data/spot/instance-action" => serde_json::json!({
                "action": "terminate",
                "time": rfc3339(interruption?),
            })
            .to_string(),
            _ if path.strip_prefix("/latest/meta-data/iam/security-credentials/") == Some(ROLE) => {
                let now = SystemTime::now();
                serde_json::json!({
                    "Code": "Success",
                    "Type": "AWS-HMAC",
                    "LastUpdated": rfc3339(now),
                    "Expiration": rfc3339(now + CREDENTIALS_LIFETIME),
                    "AccessKeyId": "test",
                    "SecretAccessKey": "test",
                    "Token": "test",
                })
                .to_string()
            }
            _ => return None,
        };
        Some(value)
    }
}

fn status(status: StatusCode) -> Response<AnyBody> {
    let mut answer = Response::new(boxed(Full::default()));
    *answer.status_mut() = status;
    answer
}

/// Writes a time as the metadata service does, in whole seconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let time = DateTime::from_secs(since.as_secs().try_into().unwrap());
    time.fmt(DateTimeFormat::DateTime).unwrap()
}

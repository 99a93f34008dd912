//! A reverse proxy that makes calls to AWS fail as they do on bad days.
//!
//! It stands before the server, counts the calls, and injects the faults of the test's rules.

mod call;
mod fault;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, Incoming},
    header::{CONNECTION, DATE, HeaderValue, IF_MATCH, IF_NONE_MATCH},
    http::{
        request,
        uri::{Authority, Scheme},
    },
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::http_server::{AnyBody, BoxError, HttpServer, boxed};
pub use call::Service;
use call::{Call, named_operation, s3_operation, service};
pub use fault::Fault;

/// The largest body that is passed on, beyond the largest photograph that Muster takes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The calls that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Every call to a service.
    To(Service),
    /// Every call of an operation, such as `RunInstances`.
    Of(&'static str),
    /// Every call, to whichever service, but those of these operations.
    Except(&'static [&'static str]),
}

/// Which of these calls a fault is injected into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Every one.
    Always,
    /// So many, from now on.
    Next(usize),
    /// Each with this probability, from the generator that the proxy was seeded with.
    Probability(f64),
}

/// A rule that was given to the proxy.
#[derive(Debug, Clone)]
pub struct Rule(Arc<AtomicUsize>);

impl Rule {
    /// Returns how many calls had the fault: a test that injects one should see that there were some.
    pub fn hits(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reverse proxy before a server, which ends with this value.
#[derive(Debug)]
pub struct FaultProxy {
    rules: Arc<Rules>,
    server: HttpServer,
}

impl FaultProxy {
    /// Starts a proxy on a free port before the server at `upstream`.
    pub fn start(upstream: &str, seed: u64) -> FaultProxy {
        let upstream: Uri = upstream.parse().unwrap();
        let rules = Arc::new(Rules(Mutex::new(State {
            rules: Vec::new(),
            calls: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        })));
        let proxy = Proxy {
            upstream: upstream.authority().unwrap().clone(),
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            rules: Arc::clone(&rules),
        };
        let server = HttpServer::start("fault-proxy", move |request| {
            let proxy = proxy.clone();
            async move { proxy.handle(request).await }
        });
        FaultProxy { rules, server }
    }

    /// Returns the URL to give to the SDKs; S3 is addressed by path.
    pub fn endpoint(&self) -> &str {
        self.server.endpoint()
    }

    /// Adds a rule; of those that are about a call, the first that applies to it counts.
    ///
    /// # Panics
    ///
    /// If deletions are to be lost of anything but messages, or listings empty of anything but
    /// instances.
    pub fn inject(&self, calls: Calls, when: When, fault: Fault) -> Rule {
        let deletions = [Calls::Of("DeleteMessage"), Calls::Of("DeleteMessageBatch")];
        assert!(
            fault != Fault::DeletionLost || deletions.contains(&calls),
            "only deletions of messages can be lost"
        );
        assert!(
            fault != Fault::EmptyListing || calls == Calls::Of("DescribeInstances"),
            "only listings of instances can be empty"
        );
        let hits = Arc::new(AtomicUsize::new(0));
        self.rules.lock().rules.push(ActiveRule {
            calls,
            when,
            fault,
            hits: Arc::clone(&hits),
        });
        Rule(hits)
    }

    /// Returns how many connections were made to the proxy.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Drops every rule.
    pub fn clear(&self) {
        self.rules.lock().rules.clear();
    }

    /// Returns how many calls of an operation arrived, those with a fault included.
    pub fn calls(&self, operation: &str) -> usize {
        self.times(operation).len()
    }

    /// Returns when the calls of an operation arrived, in order.
    pub fn times(&self, operation: &str) -> Vec<Instant> {
        let state = self.rules.lock();
        let calls = state.calls.iter().filter(|(it, _)| it == operation);
        calls.map(|&(_, time)| time).collect()
    }
}

#[derive(Debug)]
struct ActiveRule {
    calls: Calls,
    when: When,
    fault: Fault,
    hits: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct State {
    rules: Vec<ActiveRule>,
    calls: Vec<(String, Instant)>,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Rules(Mutex<State>);

impl Rules {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a call and returns the fault that is injected into it.
    fn arrived(&self, call: &Call) -> Option<Fault> {
        let mut state = self.lock();
        let State {
            rules,
            calls,
            random,
        } = &mut *state;
        calls.push((call.operation.clone(), Instant::now()));
        let service = call.service?;
        let about = rules.iter_mut().filter(|rule| match rule.calls {
            Calls::To(to) => to == service,
            Calls::Of(operation) => operation == call.operation,
            Calls::Except(operations) => !operations.contains(&&*call.operation),
        });
        for rule in about {
            let applies = match &mut rule.when {
                When::Always => true,
                When::Next(0) => false,
                When::Next(left) => {
                    *left -= 1;
                    true
                }
                When::Probability(probability) => random.f64() < *probability,
            };
            if applies {
                rule.hits.fetch_add(1, Ordering::Relaxed);
                return Some(rule.fault);
            }
        }
        None
    }
}

/// Why a connection is reset.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("a rule of the test asked for it")]
    ByRule,
    #[error("a body broke off")]
    Body(#[source] BoxError),
    #[error("the server did not answer")]
    Server(#[source] hyper_util::client::legacy::Error),
}

#[derive(Clone)]
struct Proxy {
    upstream: Authority,
    client: Client<HttpConnector, AnyBody>,
    rules: Arc<Rules>,
}

impl Proxy {
    /// Answers a request; an error resets the connection that it came by.
    async fn handle(self, request: Request<Incoming>) -> Result<Response<AnyBody>, Broken> {
        let (head, body) = request.into_parts();
        let mut body = BoxBody::new(Limited::new(body, MAX_BODY_BYTES));
        let service = service(&head.headers);
        let operation = if service == Some(Service::S3) {
            s3_operation(&head.method, &head.uri, &head.headers).to_owned()
        } else {
            let bytes = read(body).await?;
            let operation = named_operation(&head.headers, &bytes);
            body = whole(bytes);
            operation
        };
        let call = Call { service, operation };
        let (Some(fault), Some(service)) = (self.rules.arrived(&call), service) else {
            return self.forward(head, body).await;
        };
        if let Some((status, code)) = fault.answer(service) {
            // A client that is still sending would see its connection break instead.
            read(body).await?;
            return Ok(fault::error(service, status, code).map(boxed));
        }
        match fault {
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.forward(head, body).await
            }
            Fault::Date(date) => {
                let mut answer = self.forward(head, body).await?;
                let date = HeaderValue::from_static(date);
                answer.headers_mut().insert(DATE, date);
                Ok(answer)
            }
            Fault::Unconditional => {
                let mut head = head;
                head.headers.remove(IF_MATCH);
                head.headers.remove(IF_NONE_MATCH);
                self.forward(head, body).await
            }
            Fault::DelayAfter(delay) => {
                let (head, body) = self.forward(head, body).await?.into_parts();
                let body = whole(read(body).await?);
                tokio::time::sleep(delay).await;
                Ok(Response::from_parts(head, body))
            }
            Fault::ResetAfter => {
                let answer = self.forward(head, body).await?;
                read(answer.into_body()).await?;
                Err(Broken::ByRule)
            }
            Fault::InternalErrorAfter => {
                let answer = self.forward(head, body).await?;
                read(answer.into_body()).await?;
                let before = Fault::InternalError.answer(service);
                let (status, code) = before.expect("it is an answer");
                Ok(fault::error(service, status, code).map(boxed))
            }
            Fault::TruncatedBody => {
                let (head, body) = self.forward(head, body).await?.into_parts();
                let mut half = read(body).await?;
                half.truncate(half.len() / 2);
                let body = BoxBody::new(TruncatedBody(Some(half)));
                Ok(Response::from_parts(head, body))
            }
            Fault::Repeated => {
                let bytes = read(body).await?;
                let first = self.forward(head.clone(), whole(bytes.clone())).await?;
                read(first.into_body()).await?;
                self.forward(head, whole(bytes)).await
            }
            Fault::DeletionLost => {
                let bytes = read(body).await?;
                Ok(fault::deleted(&bytes).map(boxed))
            }
            Fault::EmptyListing => {
                read(body).await?;
                Ok(fault::empty_listing().map(boxed))
            }
            _ => Err(Broken::ByRule),
        }
    }

    /// Passes a request on as it is: the server makes its URLs from the client's `Host`.
    async fn forward(
        &self,
        mut head: request::Parts,
        body: AnyBody,
    ) -> Result<Response<AnyBody>, Broken> {
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.clone());
        head.uri = Uri::from_parts(uri).unwrap();
        let request = Request::from_parts(head, body);
        let answer = self.client.request(request).await.map_err(Broken::Server)?;
        let mut answer = answer.map(|body| BoxBody::new(Limited::new(body, MAX_BODY_BYTES)));
        // The server closes its connections; the client's stays.
        answer.headers_mut().remove(CONNECTION);
        Ok(answer)
    }
}

async fn read(body: AnyBody) -> Result<Bytes, Broken> {
    let collected = body.collect().await.map_err(Broken::Body)?;
    Ok(collected.to_bytes())
}

fn whole(bytes: Bytes) -> AnyBody {
    boxed(Full::from(bytes))
}

/// A body that breaks off.
struct TruncatedBody(Option<Bytes>);

impl Body for TruncatedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.0.take().map(Frame::data);
        Poll::Ready(Some(frame.ok_or_else(|| Broken::ByRule.into())))
    }
}

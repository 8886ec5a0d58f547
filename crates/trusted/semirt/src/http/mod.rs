//! What the outside speaks to SeMIRT: OpenWhisk's action contract (`/init`, `/run`), and a raw endpoint that takes and gives
//! COSE bytes as they are (`/v1/infer`). On both, a message may also name an object that holds the sealed request. Nothing here
//! is opened; all of it is ciphertext, codes and times.

mod exchange;
mod whisk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use sesemi_process::http::{
    Answer, Budget, Content, Handler, HttpBounds, Received, Room, Unread, answer, json,
    operator_page, text,
};
use sesemi_protocol::limits::MAX_ENVELOPE;
use sesemi_protocol::reference::{MEDIA_TYPE as REFERENCE, Reference, Stored};
use sesemi_protocol::{Refusal, RefusalCode};
use sesemi_traces::{Key, Kind, Span, TraceContext, context};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::runtime::{Runtime, outcome};
pub use exchange::Exchange;

/// Media type of sealed requests and responses (RFC 9052, section 2).
const COSE: &str = "application/cose";
/// How long a request may take if nobody says otherwise, and at most.
const LONGEST: Duration = Duration::from_secs(300);
const DEFAULT: Duration = Duration::from_secs(60);
/// Milliseconds that a request has.
const DEADLINE: &str = "sesemi-deadline-ms";

/// Longest body. Base64 in JSON needs a third more than the envelope itself.
pub const LONGEST_BODY: usize = MAX_ENVELOPE / 3 * 4 + 64 * 1024;

/// Bounds of a server whose bodies and answers take `memory` bytes at once.
#[must_use]
pub fn bounds(memory: usize) -> HttpBounds {
    HttpBounds {
        connections: 512,
        head: Duration::from_secs(120),
        body: Duration::from_secs(60),
        body_bytes: LONGEST_BODY,
        memory,
        answer: Duration::from_secs(300),
        streams: 128,
    }
}

/// Answers the platform, the gateway and the operator.
#[derive(Debug)]
pub struct Endpoints {
    runtime: Arc<Runtime>,
    exchange: Option<Exchange>,
    initialised: AtomicBool,
    stopping: watch::Receiver<bool>,
}

/// Why a request by reference is refused.
enum Trouble {
    /// The runtime says so, and has counted it.
    Counted(Refusal),
    New(Refusal),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::New(refusal)
    }
}

/// What goes back.
enum Reply {
    Sealed(Vec<u8>),
    Stored(Vec<u8>),
}

impl Reply {
    fn into_parts(self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Sealed(bytes) => (COSE, bytes),
            Self::Stored(bytes) => (REFERENCE, bytes),
        }
    }
}

impl Endpoints {
    /// Endpoints of a runtime; not ready once `stopping` is true. Without an `exchange`, requests by reference are refused.
    #[must_use]
    pub fn new(
        runtime: Arc<Runtime>,
        exchange: Option<Exchange>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            runtime,
            exchange,
            initialised: AtomicBool::new(false),
            stopping,
        }
    }

    /// The model and the keys come with the first request, so there is nothing to initialise; the contract wants it answered.
    fn init(&self) -> Answer {
        if self.initialised.swap(true, Ordering::Relaxed) {
            let error = serde_json::json!({"error": "the action is initialised already"});
            return json(StatusCode::FORBIDDEN, &error);
        }
        json(StatusCode::OK, &serde_json::json!({"ok": true}))
    }

    /// Always 200: any other status makes the platform throw the container away, and a refused request is no reason to.
    async fn run(&self, request: Received) -> Answer {
        let mut span = begin(&request, Route::Run);
        let came = request.into_body();
        let arrived = came.arrived();
        let (body, room) = came.into_parts();
        let served = match whisk::message(body) {
            None => Err(self.refuse(RefusalCode::Malformed.into(), &mut span)),
            Some((message, left)) => {
                let deadline = deadline(arrived, left.unwrap_or(DEFAULT));
                self.serve(message, room, deadline, &mut span).await
            }
        };
        let answer = match served {
            Ok(reply) => run_answer(whisk::answer(&reply.into_parts().1)),
            Err(refusal) => Route::Run.refused(&refusal),
        };
        span.set(Key::HttpStatus, 200_u64);
        answer
    }

    async fn infer(&self, request: Received) -> Answer {
        let mut span = begin(&request, Route::Infer);
        let left = time_left(request.headers());
        let came = request.into_body();
        let deadline = deadline(came.arrived(), left);
        let (message, room) = Content::into_parts(came);
        let answer = match self.serve(message, room, deadline, &mut span).await {
            Ok(reply) => {
                let (media_type, bytes) = reply.into_parts();
                answer(StatusCode::OK, media_type, bytes)
            }
            Err(refusal) => Route::Infer.refused(&refusal),
        };
        span.set(Key::HttpStatus, u64::from(answer.status().as_u16()));
        answer
    }

    /// Serves a message, which is a sealed request or a reference to one. `room` is held for as long as what takes it.
    async fn serve(
        &self,
        message: Vec<u8>,
        room: Room,
        deadline: Instant,
        span: &mut Span,
    ) -> Result<Reply, Refusal> {
        if !Reference::is_one(&message) {
            let sealed = self.runtime.serve(message, deadline, span).await;
            drop(room);
            return sealed.map(Reply::Sealed);
        }
        let reference = Reference::decode(&message);
        let budget = room.budget().clone();
        drop((message, room));
        let outcome = match reference {
            Err(_) => Err(Trouble::New(RefusalCode::Malformed.into())),
            Ok(reference) => {
                let serving = self.serve_reference(reference, &budget, deadline, span);
                // The runtime ends by itself; this is for the store, and for room.
                let served = timeout_at(deadline, serving).await;
                served.unwrap_or(Err(Trouble::New(RefusalCode::DeadlineExceeded.into())))
            }
        };
        outcome.map_err(|trouble| match trouble {
            Trouble::Counted(refusal) => refusal,
            Trouble::New(refusal) => self.refuse(refusal, span),
        })
    }

    async fn serve_reference(
        &self,
        reference: Reference,
        budget: &Budget,
        deadline: Instant,
        span: &mut Span,
    ) -> Result<Reply, Trouble> {
        let off = || {
            Refusal::new(
                RefusalCode::NotPermitted,
                "this instance takes no requests by reference (--exchange)",
            )
        };
        let exchange = self.exchange.as_ref().ok_or_else(off)?;
        let Reference { request, response } = reference;
        exchange.is_free(&response).await?;
        let (message, room) = exchange.fetch(&request, budget).await?;
        let put = |sealed: Vec<u8>| async move {
            drop(room);
            let length = sealed.len() as u64;
            exchange.put(&response, sealed).await?;
            let stored = Stored { response, length }.encode();
            let stored = stored.map_err(|_| Refusal::from(RefusalCode::Internal))?;
            Ok(Reply::Stored(stored.to_vec()))
        };
        let served = self.runtime.serve_into(message, deadline, span, put).await;
        served.map_err(Trouble::Counted)
    }

    /// Counts a refusal that the runtime knows nothing of.
    fn refuse(&self, refusal: Refusal, span: &mut Span) -> Refusal {
        span.end(outcome(refusal.code));
        self.runtime.count_refusal(refusal.code);
        refusal
    }
}

impl Handler for Endpoints {
    async fn answer(&self, request: Received) -> Answer {
        let stopping = *self.stopping.borrow();
        match (request.method(), request.uri().path()) {
            (&Method::POST, INFER) => self.infer(request).await,
            (&Method::POST, RUN) => self.run(request).await,
            (&Method::POST, "/init") => self.init(),
            (&Method::GET, path) => {
                operator_page(path, stopping, || self.runtime.metrics()).unwrap_or_else(not_found)
            }
            _ => not_found(),
        }
    }

    fn patience(&self, headers: &HeaderMap) -> Duration {
        time_left(headers)
    }

    /// In the form of the protocol that was spoken, as any other refusal.
    fn unread(&self, head: Parts, why: Unread) -> Answer {
        let route = match (&head.method, head.uri.path()) {
            (&Method::POST, INFER) => Route::Infer,
            (&Method::POST, RUN) => Route::Run,
            _ => return text(StatusCode::BAD_REQUEST, "this path takes no body\n"),
        };
        let refusal = match why {
            Unread::TooLong => Refusal::new(RefusalCode::Malformed, "the body is too long"),
            Unread::Broken => Refusal::new(RefusalCode::Malformed, "the body broke off"),
            Unread::TooSlow => RefusalCode::DeadlineExceeded.into(),
            Unread::NoRoom => Refusal::new(RefusalCode::Busy, "no memory for the body in time"),
        };
        self.runtime.count_refusal(refusal.code);
        let mut answer = route.refused(&refusal);
        if matches!((route, why), (Route::Infer, Unread::TooLong)) {
            *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        }
        answer
    }
}

const INFER: &str = "/v1/infer";
const RUN: &str = "/run";

/// The two ways to ask, each with its own form of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Infer,
    Run,
}

impl Route {
    fn refused(self, refusal: &Refusal) -> Answer {
        match self {
            Self::Infer => refused(refusal),
            Self::Run => {
                let body = serde_json::json!({
                    "error": {"code": refusal.code.as_str(), "message": refusal.to_string()}
                });
                run_answer(body.to_string())
            }
        }
    }
}

/// An activation's answer, after the marks that its logs are complete.
fn run_answer(body: String) -> Answer {
    whisk::end_activation();
    answer(StatusCode::OK, "application/json", body)
}

/// What the caller allows. Text that is no number counts as if nothing were said.
fn time_left(headers: &HeaderMap) -> Duration {
    let said = headers.get(DEADLINE);
    let said = said.and_then(|value| value.to_str().ok()?.parse().ok());
    said.map_or(DEFAULT, Duration::from_millis)
}

/// The end of a request's time, which began when its head had come.
fn deadline(arrived: Instant, left: Duration) -> Instant {
    arrived.checked_add(left.min(LONGEST)).unwrap_or(arrived)
}

/// The span of a request, below that of whoever called, if they said so.
fn begin(request: &Received, route: Route) -> Span {
    let (name, route) = match route {
        Route::Infer => ("POST /v1/infer", INFER),
        Route::Run => ("POST /run", RUN),
    };
    let headers = request.headers().get_all(context::HEADER);
    let caller = TraceContext::from_headers(headers.iter().map(|value| value.as_bytes()));
    let mut span = Span::of(name, Kind::Server, caller);
    span.set(Key::HttpMethod, "POST");
    span.set(Key::HttpRoute, route);
    span
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "no such page\n")
}

/// A refusal in the clear: `{"error": sentence, "code": code}`. Never 503, which would mean that this instance drains.
fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal.code {
        RefusalCode::Malformed | RefusalCode::InvalidInput => StatusCode::BAD_REQUEST,
        RefusalCode::NotAuthentic => StatusCode::UNAUTHORIZED,
        RefusalCode::UnknownPrincipal
        | RefusalCode::NotGranted
        | RefusalCode::NoRequestKey
        | RefusalCode::NotAttested
        | RefusalCode::NotPermitted
        | RefusalCode::CodeNotDelegated => StatusCode::FORBIDDEN,
        RefusalCode::UnknownModel | RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::Replayed
        | RefusalCode::AlreadyExists
        | RefusalCode::StaleState
        | RefusalCode::WrongService => StatusCode::CONFLICT,
        RefusalCode::Busy | RefusalCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
        RefusalCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // KeyService's own trouble.
        RefusalCode::KeyServiceUnavailable
        | RefusalCode::ModelUnavailable
        | RefusalCode::Unwritable
        | RefusalCode::Locked
        | RefusalCode::HandedOver
        | RefusalCode::ClockSkew => StatusCode::BAD_GATEWAY,
        RefusalCode::EngineFailed | RefusalCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::json!({
        "error": refusal.to_string(),
        "code": refusal.code.as_str(),
    });
    json(status, &body)
}

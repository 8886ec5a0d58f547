//! What the outside speaks to SeMIRT: OpenWhisk's action contract (`/init`, `/run`), and a raw endpoint that takes and gives
//! COSE bytes as they are (`/v1/infer`). Nothing here is opened; all of it is ciphertext, codes and times.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use sesemi_process::http::{
    Answer, Handler, HttpBounds, Received, answer, json, operator_page, text,
};
use sesemi_protocol::limits::MAX_ENVELOPE;
use sesemi_protocol::{Refusal, RefusalCode};
use sesemi_traces::{Key, Kind, Outcome, Span, TraceContext, context};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::runtime::Runtime;

/// Media type of sealed requests and responses (RFC 9052, section 2).
const COSE: &str = "application/cose";
/// How long a request may take if nobody says otherwise, and at most.
const LONGEST: Duration = Duration::from_secs(300);
const DEFAULT: Duration = Duration::from_secs(60);
/// OpenWhisk's end-of-activation marker, on both output streams.
const END_OF_ACTIVATION: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";

/// Bounds of the server. Base64 in JSON needs a third more than the envelope itself.
pub const BOUNDS: HttpBounds = HttpBounds {
    connections: 512,
    head: Duration::from_secs(120),
    body: Duration::from_secs(60),
    body_bytes: MAX_ENVELOPE / 3 * 4 + 64 * 1024,
};

/// Answers the platform, the gateway and the operator.
#[derive(Debug)]
pub struct Endpoints {
    runtime: Arc<Runtime>,
    initialised: AtomicBool,
    stopping: watch::Receiver<bool>,
}

/// `/run`'s body, as far as it concerns us.
#[derive(Deserialize)]
struct Run {
    value: Value,
    #[serde(default)]
    deadline: Option<Deadline>,
}

#[derive(Deserialize)]
struct Value {
    request: String,
}

/// Milliseconds since 1970: the documentation says a number, the platform sends a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Deadline {
    Number(u64),
    Text(String),
}

impl Endpoints {
    /// Endpoints of a runtime; not ready once `stopping` is true.
    #[must_use]
    pub fn new(runtime: Arc<Runtime>, stopping: watch::Receiver<bool>) -> Self {
        Self {
            runtime,
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
        let mut span = begin(&request, "POST /run", "/run");
        let body = request.body();
        let served = match serde_json::from_slice::<Run>(body) {
            Err(_) => Err(malformed(&mut span)),
            Ok(run) => match BASE64.decode(run.value.request) {
                Err(_) => Err(malformed(&mut span)),
                Ok(message) => {
                    let left = run.deadline.and_then(time_left).unwrap_or(DEFAULT);
                    self.serve(message, left, &mut span).await
                }
            },
        };
        let body = match served {
            Ok(sealed) => serde_json::json!({"response": BASE64.encode(sealed)}),
            Err(refusal) => serde_json::json!({
                "error": {"code": refusal.code.as_str(), "message": refusal.to_string()}
            }),
        };
        span.set(Key::HttpStatus, 200_u64);
        end_activation();
        json(StatusCode::OK, &body)
    }

    async fn infer(&self, request: Received) -> Answer {
        let mut span = begin(&request, "POST /v1/infer", "/v1/infer");
        let left = request
            .headers()
            .get("sesemi-deadline-ms")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map_or(DEFAULT, Duration::from_millis);
        // The body is ours alone, so this copies nothing.
        let message = Vec::from(request.into_body());
        let answer = match self.serve(message, left, &mut span).await {
            Ok(sealed) => answer(StatusCode::OK, COSE, sealed),
            Err(refusal) => refused(&refusal),
        };
        span.set(Key::HttpStatus, u64::from(answer.status().as_u16()));
        answer
    }

    async fn serve(
        &self,
        message: Vec<u8>,
        left: Duration,
        span: &mut Span,
    ) -> Result<Vec<u8>, Refusal> {
        let now = Instant::now();
        let deadline = now.checked_add(left.min(LONGEST)).unwrap_or(now);
        self.runtime.serve(message, deadline, span).await
    }
}

impl Handler for Endpoints {
    async fn answer(&self, request: Received) -> Answer {
        let stopping = *self.stopping.borrow();
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/infer") => self.infer(request).await,
            (&Method::POST, "/run") => self.run(request).await,
            (&Method::POST, "/init") => self.init(),
            (&Method::GET, path) => {
                operator_page(path, stopping, || self.runtime.metrics()).unwrap_or_else(not_found)
            }
            _ => not_found(),
        }
    }
}

/// The span of a request, below that of whoever called, if they said so.
fn begin(request: &Received, name: &'static str, route: &'static str) -> Span {
    let headers = request.headers().get_all(context::HEADER);
    let caller = TraceContext::from_headers(headers.iter().map(|value| value.as_bytes()));
    let mut span = Span::of(name, Kind::Server, caller);
    span.set(Key::HttpMethod, "POST");
    span.set(Key::HttpRoute, route);
    span
}

/// A body that is not even a request.
fn malformed(span: &mut Span) -> Refusal {
    span.end(Outcome::Refused(RefusalCode::Malformed.as_str()));
    RefusalCode::Malformed.into()
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

/// The host's clock is not trusted; this deadline only saves work that nobody waits for.
fn time_left(deadline: Deadline) -> Option<Duration> {
    let millis = match deadline {
        Deadline::Number(millis) => millis,
        Deadline::Text(text) => text.parse().ok()?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_millis(millis).saturating_sub(now))
}

fn end_activation() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{END_OF_ACTIVATION}").and_then(|()| out.flush());
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{END_OF_ACTIVATION}").and_then(|()| err.flush());
}

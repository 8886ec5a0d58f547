//! One inference request: read it whole, wait for a slot, pass it on, pass the answer back. The body is never looked at.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use sesemi_platform::http::{self, BodyError};
use sesemi_platform::{Activation, Form, Invocation, Platform, PlatformError};
use sesemi_traces::{Key, Kind, Outcome, Span, TraceContext, context};
use tokio::time::timeout_at;
use tracing::{Instrument, field};

use super::Shared;
use super::failure::Failure;
use super::routes::Answer;
use crate::metrics::Metrics;
use crate::packing::queue::User;
use crate::{HttpConfig, ModelKey};

const MODEL: &str = "sesemi-model";
const TIMEOUT_MS: &str = "sesemi-timeout-ms";
const ACTIVATION: &str = "sesemi-activation";
const WAIT_MS: &str = "sesemi-wait-ms";
const INIT_MS: &str = "sesemi-init-ms";

/// Counts how a request ended, also if its client left and nobody answers any more.
struct Tally<'a> {
    metrics: &'a Metrics,
    outcome: &'static str,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.metrics.ended(self.outcome);
    }
}

pub(super) async fn answer<P: Platform>(
    shared: &Shared<P>,
    from: IpAddr,
    request: Request<Incoming>,
) -> Answer {
    let traceparent = request.headers().get_all(context::HEADER).iter();
    let caller = TraceContext::from_headers(traceparent.map(HeaderValue::as_bytes));
    let mut trace = Span::of("POST /v1/infer", Kind::Server, caller);
    trace.set(Key::HttpMethod, "POST");
    trace.set(Key::HttpRoute, "/v1/infer");
    // Log lines and spans are found by each other.
    let span = tracing::info_span!("infer", trace_id = field::Empty, parent_id = field::Empty);
    if let Some(context) = trace.context() {
        span.record("trace_id", context.trace_id());
    }
    if let Some(caller) = caller {
        span.record("parent_id", caller.span_id());
    }
    let mut tally = Tally {
        metrics: &shared.metrics,
        outcome: "abandoned",
    };
    async {
        // Counted before the look at the flag: a drain that was announced waits for whoever did not see it.
        let _counted = shared.requests.token();
        let began = Instant::now();
        let outcome = infer(shared, from, request, began, &mut trace).await;
        let answer = match outcome {
            Ok(answer) => {
                tally.outcome = "answered";
                trace.end(ended(answer.status().as_u16(), "instance_status"));
                tracing::info!(status = answer.status().as_u16(), took = ?began.elapsed(), "answered");
                answer
            }
            Err(failure) => {
                tally.outcome = failure.code();
                tracing::info!(code = failure.code(), error = %failure, took = ?began.elapsed(), "failed");
                let answer = failure.answer();
                trace.end(ended(answer.status().as_u16(), failure.code()));
                answer
            }
        };
        trace.set(Key::HttpStatus, u64::from(answer.status().as_u16()));
        drop(trace);
        drop(tally);
        answer
    }
    .instrument(span)
    .await
}

async fn infer<P: Platform>(
    shared: &Shared<P>,
    from: IpAddr,
    request: Request<Incoming>,
    began: Instant,
    trace: &mut Span,
) -> Result<Answer, Failure> {
    if shared.draining.load(Ordering::SeqCst) {
        return Err(Failure::ShuttingDown);
    }
    let model = model(request.headers())?;
    let deadline = began + patience(request.headers(), &shared.http)?;
    let body = read(request.into_body(), shared.http.max_body_bytes, deadline).await?;
    let arrived = Instant::now();
    trace.step("receive", began, arrived);
    let mut queued = trace.child("queue", Kind::Internal);
    let reservation = shared.pool.reserve(&model, &user(from), deadline).await;
    queued.end(match &reservation {
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Refused("no_slot"),
    });
    drop(queued);
    let reservation = reservation?;
    let waited = arrived.elapsed();
    let mut invoking = trace.child("invoke", Kind::Client);
    let invocation = Invocation {
        body,
        form: Form::Sealed,
        deadline,
        trace: invoking.context(),
    };
    let invoked = shared
        .platform
        .invoke(reservation.action(), invocation)
        .await;
    record(&mut invoking, &invoked);
    drop(invoking);
    let activation = match invoked {
        Ok(activation) => activation,
        Err(error) => {
            if matches!(
                error,
                PlatformError::InstanceFailed { .. }
                    | PlatformError::StartFailed { .. }
                    | PlatformError::ActivationFailed { .. }
            ) {
                reservation.instance_lost();
            }
            return Err(error.into());
        }
    };
    // Only a request that was really served tells how long requests take.
    if (200..300).contains(&activation.status) {
        reservation.served(activation.init_time);
    } else {
        reservation.answered();
    }
    shared
        .metrics
        .answered(began.elapsed(), activation.init_time.is_some());
    pass_back(activation, waited)
}

/// A request that the client is to blame for is no error of the server's, by the conventions for HTTP.
fn ended(status: u16, code: &'static str) -> Outcome {
    match status {
        200..400 => Outcome::Done,
        400..500 => Outcome::Refused(code),
        _ => Outcome::Failed(code),
    }
}

/// What the platform says of an invocation: for how long it had to wait, and whether an instance was started for it.
fn record(span: &mut Span, invoked: &Result<Activation, PlatformError>) {
    match invoked {
        Ok(activation) => {
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            span.set(Key::HttpStatus, u64::from(activation.status));
            span.set(Key::WaitMillis, millis(activation.wait_time));
            if let Some(init_time) = activation.init_time {
                span.set(Key::InitMillis, millis(init_time));
            }
            // For a client's span, any such status is an error.
            span.end(match activation.status {
                400.. => Outcome::Failed("instance_status"),
                _ => Outcome::Done,
            });
        }
        Err(error) => span.end(Outcome::Failed(error.code())),
    }
}

fn pass_back(activation: Activation, waited: Duration) -> Result<Answer, Failure> {
    let status = StatusCode::from_u16(activation.status)
        .ok()
        .filter(|status| !status.is_informational());
    let mut answer = Response::new(Full::new(activation.body));
    *answer.status_mut() = status.ok_or(Failure::BadStatus)?;
    let headers = answer.headers_mut();
    let content_type = activation
        .content_type
        .and_then(|text| HeaderValue::try_from(text).ok());
    headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));
    let id = HeaderValue::try_from(activation.id.to_string()).ok();
    headers.extend(id.map(|id| (hyper::header::HeaderName::from_static(ACTIVATION), id)));
    headers.insert(WAIT_MS, millis(waited + activation.wait_time));
    if let Some(init_time) = activation.init_time {
        headers.insert(INIT_MS, millis(init_time));
    }
    Ok(answer)
}

fn millis(time: Duration) -> HeaderValue {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

/// The value of a header that is given once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(()),
    }
}

/// Whoever asks from one address shares its turns.
fn user(from: IpAddr) -> User {
    match from {
        IpAddr::V4(from) => User::new(&from.octets()),
        IpAddr::V6(from) => User::new(&from.octets()),
    }
}

fn model(headers: &HeaderMap) -> Result<ModelKey, Failure> {
    let value = single(headers, MODEL)
        .ok()
        .flatten()
        .ok_or(Failure::BadModel)?;
    ModelKey::new(value.as_bytes()).map_err(|_| Failure::BadModel)
}

fn patience(headers: &HeaderMap, http: &HttpConfig) -> Result<Duration, Failure> {
    let Some(value) = single(headers, TIMEOUT_MS).map_err(|()| Failure::BadTimeout)? else {
        return Ok(http.default_timeout);
    };
    let digits = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
    let millis = digits
        .and_then(|text| text.parse().ok())
        .filter(|millis| *millis > 0);
    Ok(Duration::from_millis(millis.ok_or(Failure::BadTimeout)?).min(http.max_timeout))
}

/// Reads a body of at most `limit` bytes until the deadline.
async fn read(body: Incoming, limit: usize, deadline: Instant) -> Result<Bytes, Failure> {
    match timeout_at(deadline.into(), http::read(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::TooLarge(limit))) => Err(Failure::BodyTooLarge(limit)),
        Ok(Err(BodyError::Broken(_))) => Err(Failure::BodyBroken),
        Err(_) => Err(Failure::BodyTooSlow),
    }
}

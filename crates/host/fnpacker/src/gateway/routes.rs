//! Which path does what, and the small answers. Every answer is complete in memory, with a content length.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json as value};
use sesemi_platform::{ActionStatus, Platform};

use super::failure::Failure;
use super::{Shared, inference};
use crate::metrics;

pub(super) use sesemi_platform::http::Answer;

/// Answers any request; there is nothing it fails on.
pub(super) async fn answer<P: Platform>(
    shared: Arc<Shared<P>>,
    from: IpAddr,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path();
    let allowed = if path == "/v1/infer" {
        Method::POST
    } else {
        Method::GET
    };
    let wrong_method = request.method() != allowed;
    let method_not_allowed = Failure::MethodNotAllowed(if allowed == Method::POST {
        "POST"
    } else {
        "GET"
    });
    match path {
        "/v1/infer" | "/v1/status" | "/health/live" | "/health/ready" | "/metrics"
            if wrong_method =>
        {
            method_not_allowed.answer()
        }
        "/v1/infer" => inference::answer(&shared, from, request).await,
        "/v1/status" => status(&shared)
            .await
            .unwrap_or_else(|failure| failure.answer()),
        "/health/live" => json(200, &value!({"status": "live"})),
        "/health/ready" if shared.draining.load(Ordering::SeqCst) => Failure::ShuttingDown.answer(),
        "/health/ready" => json(200, &value!({"status": "ready"})),
        "/metrics" => match shared.metrics.encode(&shared.pool.status()) {
            Ok(text) => with_type(200, metrics::CONTENT_TYPE, text.into()),
            Err(error) => Failure::from(error).answer(),
        },
        _ => Failure::NotFound.answer(),
    }
}

/// Endpoints with their instances, and the queue. Says that an endpoint has a model, not which.
async fn status<P: Platform>(shared: &Shared<P>) -> Result<Answer, Failure> {
    let pool = shared.pool.status();
    let actions = shared.platform.list().await?;
    let limits = shared.platform.limits();
    let endpoints = shared
        .pool
        .actions()
        .iter()
        .zip(&pool.endpoints)
        .map(|(name, endpoint)| {
            let instances = actions
                .iter()
                .find(|action| action.name == *name)
                .map(instances);
            value!({
                "name": name.as_str(),
                "slots": endpoint.slots,
                "in_flight": endpoint.in_flight,
                "models": endpoint.models,
                "broken": endpoint.broken,
                "instances": instances.unwrap_or_default(),
            })
        });
    let body = value!({
        "draining": shared.draining.load(Ordering::SeqCst),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "queue": {"length": pool.waiting, "capacity": pool.queue_capacity},
        "platform": {"user_memory_mib": limits.user_memory_mib},
    });
    Ok(json(200, &body))
}

fn instances(action: &ActionStatus) -> Vec<Value> {
    let instance = |it: &sesemi_platform::InstanceStatus| {
        value!({
            "id": it.id.as_u64(),
            "phase": it.phase.as_str(),
            "in_flight": it.in_flight,
            "memory_mib": action.memory_mib,
        })
    };
    action.instances.iter().map(instance).collect()
}

pub(super) fn json(status: u16, body: &Value) -> Answer {
    with_type(status, "application/json", body.to_string().into())
}

fn with_type(status: u16, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

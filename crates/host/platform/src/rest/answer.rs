//! Answers in JSON, complete in memory.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::ActivationId;
use crate::http::Answer;

/// Which activation an answer is about.
const ACTIVATION: HeaderName = HeaderName::from_static("x-openwhisk-activation-id");

pub(super) fn json(status: StatusCode, body: &(impl Serialize + ?Sized)) -> Answer {
    // What is written here are texts, numbers and JSON that was read before: nothing of it can fail.
    let (status, body) = match serde_json::to_vec(body) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer about an activation.
pub(super) fn about(
    id: ActivationId,
    status: StatusCode,
    body: &(impl Serialize + ?Sized),
) -> Answer {
    let mut answer = json(status, body);
    let id = HeaderValue::try_from(id.to_string()).ok();
    answer.headers_mut().extend(id.map(|id| (ACTIVATION, id)));
    answer
}

//! The HTTP side of one instance: `/init` once, `/v1/infer` or `/run` for each invocation, over connections that are kept. Bodies
//! pass through as they are, in both directions (`/run` wraps them up and does not look into them); the response is counted while it is read, so that an instance cannot make
//! the host take more than it allows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::json;
use sesemi_traces::{TraceContext, context};

use crate::http::{BodyError, innermost, read};
use crate::{ActivationId, Entity, Form};

/// Milliseconds that the instance has for its answer.
const DEADLINE_HEADER: &str = "sesemi-deadline-ms";
/// The answer to `/init` is of no interest; more of it than this is not read.
const MAX_INIT_ANSWER: usize = 64 << 10;
/// How long a connection without a request is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// What an instance answered, in full.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn content_type(&self) -> Option<String> {
        self.headers
            .get(CONTENT_TYPE)?
            .to_str()
            .ok()
            .map(str::to_owned)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("the connection broke off: {0}")]
    Broken(String),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// OpenWhisk takes such an answer for none.
    #[error("the answer to /run has no content-length")]
    NoLength,
}

impl From<BodyError> for CallError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => Self::TooLarge(limit),
            BodyError::Broken(cause) => Self::Broken(cause),
        }
    }
}

/// A client of one instance. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub(super) struct InstanceClient {
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    max_response_bytes: usize,
}

impl InstanceClient {
    pub(super) fn new(address: SocketAddr, connections: u32, max_response_bytes: usize) -> Self {
        let mut connector = HttpConnector::new();
        // Without it, the last small segment of a request may wait for an acknowledgement.
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(connections as usize)
            .build(connector);
        Self {
            http,
            address,
            max_response_bytes,
        }
    }

    /// Initialises the instance as OpenWhisk would; returns the status.
    pub(super) async fn init(
        &self,
        action: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<u16, CallError> {
        let value = json!({"name": action, "main": "main", "binary": true, "code": "", "env": env});
        let body = Bytes::from(json!({ "value": value }).to_string());
        let request = self.request("/init", "application/json", body)?;
        Ok(self.call(request, MAX_INIT_ANSWER).await?.status)
    }

    /// The request of an invocation that may take `left` from now on.
    pub(super) fn infer_request(
        &self,
        body: Bytes,
        left: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Request<Bytes>, CallError> {
        let mut request = self.request("/v1/infer", "application/cose", body)?;
        let headers = request.headers_mut();
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(DEADLINE_HEADER, HeaderValue::from(millis));
        let trace = trace.and_then(|trace| HeaderValue::try_from(trace.to_string()).ok());
        headers.extend(trace.map(|it| (HeaderName::from_static(context::HEADER), it)));
        Ok(request)
    }

    /// OpenWhisk's request of an invocation that may take `left` from now on.
    pub(super) fn run_request(
        &self,
        action: &Entity,
        id: ActivationId,
        value: &[u8],
        left: Duration,
    ) -> Result<Request<Bytes>, CallError> {
        let deadline = SystemTime::now().checked_add(left);
        let deadline = deadline.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let deadline_ms = deadline.map_or(0, |since| since.as_millis());
        self.request(
            "/run",
            "application/json",
            run_body(action, id, value, deadline_ms),
        )
    }

    /// Sends the request of an invocation and reads the whole answer.
    pub(super) async fn invoke(
        &self,
        request: Request<Bytes>,
        form: Form,
    ) -> Result<Answer, CallError> {
        let answer = self.call(request, self.max_response_bytes).await?;
        if form == Form::Whisk && !answer.headers.contains_key(CONTENT_LENGTH) {
            return Err(CallError::NoLength);
        }
        Ok(answer)
    }

    fn request(
        &self,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Request<Bytes>, CallError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.address.to_string())
            .path_and_query(path);
        let uri = uri
            .build()
            .map_err(|error| CallError::Broken(error.to_string()))?;
        Request::post(uri)
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|error| CallError::Broken(error.to_string()))
    }

    async fn call(&self, request: Request<Bytes>, limit: usize) -> Result<Answer, CallError> {
        let response = self
            .http
            .request(request.map(Full::new))
            .await
            .map_err(|error| CallError::Broken(innermost(&error)))?;
        let (head, body) = Response::into_parts(response);
        let body = read(body, limit).await?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }
}

/// The body of `/run`, around a value that is JSON already and is not read again.
fn run_body(action: &Entity, id: ActivationId, value: &[u8], deadline_ms: u128) -> Bytes {
    let id = id.to_string();
    let rest = json!({
        "namespace": action.namespace,
        "action_name": action.path(),
        "action_version": action.version,
        "activation_id": id,
        "transaction_id": id,
        // As text: that is what OpenWhisk sends, whatever its documentation says.
        "deadline": deadline_ms.to_string(),
    })
    .to_string();
    let mut body = Vec::with_capacity(value.len() + rest.len() + 16);
    body.extend_from_slice(b"{\"value\":");
    body.extend_from_slice(value);
    body.push(b',');
    body.extend(rest.bytes().skip(1));
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_run_is_json_around_the_value() {
        let action = Entity {
            namespace: "guest".to_owned(),
            name: "a \"b\"".to_owned(),
            version: "0.0.2".to_owned(),
        };
        let body = run_body(&action, ActivationId::from_u128(7), b"{\"x\":[1]}", 5);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["value"], json!({"x": [1]}));
        assert_eq!(body["action_name"], "/guest/a \"b\"");
        assert_eq!(body["activation_id"].as_str().unwrap().len(), 32);
        assert_eq!(body["deadline"], "5");
    }
}

//! The HTTP side of one instance: `/init` once, `/v1/infer` for each invocation, over connections that are kept. Bodies
//! pass through as they are, in both directions; the response is counted while it is read, so that an instance cannot make
//! the host take more than it allows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::json;
use sesemi_traces::{TraceContext, context};

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
        let mut request = self.request("/init", body)?;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self.call(request, MAX_INIT_ANSWER).await?.status)
    }

    /// The request of an invocation that may take `left` from now on.
    pub(super) fn infer_request(
        &self,
        body: Bytes,
        left: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = self.request("/v1/infer", body)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cose"));
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(DEADLINE_HEADER, HeaderValue::from(millis));
        let trace = trace.and_then(|trace| HeaderValue::try_from(trace.to_string()).ok());
        headers.extend(trace.map(|it| (HeaderName::from_static(context::HEADER), it)));
        Ok(request)
    }

    /// Sends the request of an invocation and reads the whole answer.
    pub(super) async fn infer(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        self.call(request, self.max_response_bytes).await
    }

    fn request(&self, path: &'static str, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.address.to_string())
            .path_and_query(path);
        let uri = uri
            .build()
            .map_err(|error| CallError::Broken(error.to_string()))?;
        Request::post(uri)
            .body(Full::new(body))
            .map_err(|error| CallError::Broken(error.to_string()))
    }

    async fn call(&self, request: Request<Full<Bytes>>, limit: usize) -> Result<Answer, CallError> {
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| broken(&error))?;
        let (head, body) = Response::into_parts(response);
        let body = read(body, limit).await?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, CallError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(CallError::TooLarge(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge(limit)),
        Err(error) => Err(broken(error.as_ref())),
    }
}

/// The innermost cause says what happened ("connection refused"), the outer ones only where.
fn broken(error: &dyn std::error::Error) -> CallError {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    CallError::Broken(innermost.to_string())
}

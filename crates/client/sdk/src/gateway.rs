//! The gateway's HTTP interface: sealed bytes in, sealed bytes out. The gateway is not trusted, so neither is its answer: it
//! is a response only if it opens.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sesemi_protocol::ModelTarget;
use sesemi_protocol::limits::MAX_ENVELOPE;
use tokio::time::timeout;

use crate::error::Error;

/// A gateway's HTTP client, which keeps its connections.
#[derive(Debug, Clone)]
pub struct Gateway {
    client: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Default for Gateway {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: HttpClient::builder(TokioExecutor::new()).build(connector),
        }
    }
}

impl Gateway {
    /// Sends a sealed request for `model` to the gateway at `address` (`http://HOST:PORT`) and gives back what it answered.
    ///
    /// # Errors
    /// [`Error::Gateway`], [`Error::TimedOut`], or [`Error::GatewayAnswer`] if it is not a success.
    pub async fn send(
        &self,
        address: &str,
        model: &ModelTarget,
        sealed: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, Error> {
        let bad_address = || Error::GatewayAddress(address.to_owned());
        let uri: Uri = format!("{}/v1/infer", address.trim_end_matches('/'))
            .parse()
            .map_err(|_| bad_address())?;
        if uri.scheme_str() != Some("http") {
            return Err(bad_address());
        }
        let request = Request::post(uri)
            .header("content-type", "application/cose")
            .header("sesemi-model", model.to_string())
            .header("sesemi-timeout-ms", limit.as_millis().to_string())
            .body(Full::new(Bytes::from(sealed)))
            .map_err(|_| bad_address())?;
        let (status, body) = timeout(limit, self.exchange(request))
            .await
            .map_err(|_| Error::TimedOut(limit.as_secs()))??;
        if status == StatusCode::OK {
            return Ok(Vec::from(body));
        }
        Err(refusal(status, &body))
    }

    /// What the gateway says of its endpoints and instances: JSON, for people and dashboards.
    ///
    /// # Errors
    /// As [`Gateway::send`].
    pub async fn status(&self, address: &str, limit: Duration) -> Result<String, Error> {
        let bad_address = || Error::GatewayAddress(address.to_owned());
        let request = Request::get(format!("{}/v1/status", address.trim_end_matches('/')))
            .body(Full::default())
            .map_err(|_| bad_address())?;
        let (status, body) = timeout(limit, self.exchange(request))
            .await
            .map_err(|_| Error::TimedOut(limit.as_secs()))??;
        match status {
            StatusCode::OK => Ok(String::from_utf8_lossy(&body).into_owned()),
            _ => Err(refusal(status, &body)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let response = self
            .client
            .request(request)
            .await
            .map_err(|e| Error::Gateway(Box::new(e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ENVELOPE)
            .collect()
            .await
            .map_err(Error::Gateway)?
            .to_bytes();
        Ok((status, body))
    }
}

/// Text of an untrusted party, without the control characters that would let it write all over a terminal.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).collect()
}

/// Reads `{"error": sentence, "code": code}`. Whoever stands between may have written it: it explains, it proves nothing.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let body = body.get(..body.len().min(2048)).unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| {
        parsed
            .get(name)
            .and_then(|value| value.as_str())
            .map(printable)
    };
    Error::GatewayAnswer {
        status: status.as_u16(),
        code: field("code"),
        message: field("error").unwrap_or_else(|| printable(&String::from_utf8_lossy(body))),
    }
}

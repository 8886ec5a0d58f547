//! HTTP to a controller: one base address, credentials with every request, answers of bounded size. No redirect is followed, because
//! it would take the credentials elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::answer;
use crate::http::{innermost, read};
use crate::{ActionName, Credentials, PlatformError};

/// Longest answer that is read, in bytes: a record with the largest result, or a page of a list.
const MAX_ANSWER: usize = 16 << 20;
/// How long a connection without a request is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// A namespace at a controller.
#[derive(Debug)]
pub(super) struct Controller {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The address as it was given, for people.
    address: String,
    /// What every path is below.
    base: String,
    authorization: HeaderValue,
}

/// What a controller answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
    retry_after: Option<Duration>,
}

impl Reply {
    /// What it says of an error, or its beginning.
    pub(super) fn said(&self) -> String {
        answer::said(&self.body)
    }
}

impl Controller {
    pub(super) fn new(
        address: &str,
        namespace: &str,
        credentials: &Credentials,
    ) -> Result<Self, PlatformError> {
        let trimmed = address.trim_end_matches('/');
        let wrong = || PlatformError::Setup {
            problem: format!(
                "{address:?} is no address of a controller: http://HOST[:PORT] or https://HOST[:PORT] is needed"
            ),
        };
        let uri: Uri = trimmed.parse().map_err(|_| wrong())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let named = uri.host().is_some_and(|host| !host.is_empty());
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !is_http || !named || !bare || trimmed.contains(['@', '#']) {
            return Err(wrong());
        }
        Ok(Self {
            http: client(uri.scheme_str() == Some("https"))?,
            address: trimmed.to_owned(),
            base: format!("{trimmed}/api/v1/namespaces/{namespace}"),
            authorization: credentials.header(),
        })
    }

    /// Sends a request and reads the whole answer, whatever it is.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, PlatformError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreachable(error.to_string()))?;
        let response = self.http.request(request).await;
        let response = response.map_err(|error| self.unreachable(innermost(&error)))?;
        let (head, body) = response.into_parts();
        let body = read(body, MAX_ANSWER).await;
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|it| {
            let seconds: u32 = it.to_str().ok()?.parse().ok()?;
            Some(Duration::from_secs(seconds.into()))
        });
        Ok(Reply {
            status: head.status.as_u16(),
            body: body.map_err(|error| self.unreachable(error.to_string()))?,
            retry_after,
        })
    }

    /// What an answer means that is not the one that was hoped for.
    pub(super) fn refused(&self, reply: &Reply, action: Option<&ActionName>) -> PlatformError {
        let (address, said) = (self.address.clone(), reply.said());
        match (reply.status, action) {
            (401 | 403, _) => PlatformError::Unauthorized { address, said },
            (404, Some(action)) => PlatformError::UnknownAction {
                action: action.clone(),
            },
            (429, _) => PlatformError::Throttled {
                said,
                retry_after: reply.retry_after,
            },
            (413, Some(_)) => PlatformError::PayloadRefused { said },
            (status, _) => PlatformError::Unexpected {
                address,
                status,
                said,
            },
        }
    }

    pub(super) fn unreachable(&self, cause: String) -> PlatformError {
        PlatformError::Unreachable {
            address: self.address.clone(),
            cause,
        }
    }
}

fn client(
    https: bool,
) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, PlatformError> {
    let setup = |problem: String| PlatformError::Setup { problem };
    let roots = if https {
        authorities().map_err(setup)?
    } else {
        RootCertStore::empty()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .build(connector))
}

/// The authorities that this machine trusts: a cluster often has a certificate that only its operator's machines know.
fn authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})"));
    Err(format!(
        "this machine trusts no authority that could vouch for an https address{}; SSL_CERT_FILE names a file with one",
        why.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(address: &str) -> Result<Controller, PlatformError> {
        Controller::new(address, "_", &"user:key".parse().unwrap())
    }

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply {
            status,
            body: Bytes::from_static(body.as_bytes()),
            retry_after: None,
        }
    }

    #[test]
    fn an_address_is_a_scheme_and_a_host_and_nothing_else() {
        let good = controller("http://[::1]:3233/").unwrap();
        assert_eq!(good.base, "http://[::1]:3233/api/v1/namespaces/_");
        for bad in [
            "",
            "127.0.0.1:3233",
            "ftp://host",
            "http://",
            "http://user:key@host",
            "http://host/path",
            "http://host?query",
            "http://host#part",
        ] {
            assert!(controller(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_refusal_has_a_meaning_of_its_own() {
        let controller = controller("http://host").unwrap();
        let action = ActionName::new("a").unwrap();
        let of = |status, action: Option<&ActionName>| {
            controller.refused(&reply(status, r#"{"error":"why","code":"1"}"#), action)
        };
        for (status, code) in [
            (401, "platform_unauthorized"),
            (403, "platform_unauthorized"),
            (404, "unknown_action"),
            (413, "request_too_large"),
            (429, "throttled"),
            (409, "platform_failed"),
            (302, "platform_failed"),
            (503, "platform_failed"),
        ] {
            let error = of(status, Some(&action));
            assert_eq!(error.code(), code, "{status}");
            assert!(
                status == 404 || error.to_string().contains("why"),
                "{error}"
            );
        }
        assert_eq!(of(404, None).code(), "platform_failed");
    }

    #[test]
    fn nothing_that_is_printed_has_the_key_in_it() {
        let shown = format!("{:?}", controller("http://host").unwrap());
        assert!(
            !shown.contains("key") && !shown.contains("dXNlcjprZXk="),
            "{shown}"
        );
    }
}

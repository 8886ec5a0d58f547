//! Bounded requests to a service that nobody has to trust: what it gives is signed by others. What has no bound there (size, time,
//! where it sends to) has one here.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::ProgressBar;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore};

use super::EndorsementsError;

/// Longest answer that is read, in bytes. Real ones have at most some 30 kB.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest head of an answer, in bytes. Chains of certificates travel in it, some 4 kB.
const MAX_HEAD: usize = 64 * 1024;
/// Most of what a service says about a refusal that is shown, in characters.
const MAX_SAID: usize = 200;

/// A service, by its address.
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    limit: Duration,
    progress: ProgressBar,
}

impl Service {
    /// The service at an address, of which each of `endings` may be a part or not.
    pub(super) fn new(
        address: &str,
        endings: &[&str],
        limit: Duration,
        progress: ProgressBar,
    ) -> Result<Self, EndorsementsError> {
        let mut base = address.trim_end_matches('/');
        for ending in endings {
            base = base.strip_suffix(ending).unwrap_or(base);
        }
        let wrong = || EndorsementsError::Address(address.to_owned());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let named = uri.host().is_some_and(|host| !host.is_empty());
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !named || !is_http || uri.query().is_some() || base.contains(['@', '#']) {
            return Err(wrong());
        }
        Ok(Self {
            client: client(uri.scheme_str() == Some("https"))?,
            base: base.to_owned(),
            limit,
            progress,
        })
    }

    /// The host's name, in lower case.
    pub(super) fn host(&self) -> String {
        let uri = self.base.parse::<Uri>().ok();
        let host = uri.and_then(|uri| uri.host().map(str::to_ascii_lowercase));
        host.unwrap_or_default()
    }

    /// Its address.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Gets what is under this path of the service.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, EndorsementsError> {
        self.get_url(format!("{}{path}", self.base)).await
    }

    /// Gets an address in full.
    pub(super) async fn get_url(&self, url: String) -> Result<Answer, EndorsementsError> {
        self.progress.set_message(format!("fetching {url}"));
        match tokio::time::timeout(self.limit, self.exchange(&url)).await {
            Ok(answer) => answer,
            Err(_) => Err(EndorsementsError::TimedOut {
                url,
                seconds: self.limit.as_secs(),
            }),
        }
    }

    async fn exchange(&self, url: &str) -> Result<Answer, EndorsementsError> {
        let request = Request::get(url)
            .header(USER_AGENT, concat!("sesemi/", env!("CARGO_PKG_VERSION")))
            .body(Full::default())
            .map_err(|_| EndorsementsError::Address(url.to_owned()))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|source| EndorsementsError::Unreachable {
            url: url.to_owned(),
            source: source.into(),
        })?;
        read(url, response).await
    }
}

fn client(
    https: bool,
) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, EndorsementsError> {
    let roots = if https {
        authorities()?
    } else {
        RootCertStore::empty()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(EndorsementsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    // A service that was named with https is never asked in the clear: no redirect is followed.
    let connector = builder.https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new())
        .http1_max_buf_size(MAX_HEAD)
        .build(connector))
}

/// The authorities that this machine trusts: a PCCS often has a certificate that only its operator's machines know.
fn authorities() -> Result<RootCertStore, EndorsementsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})"));
    Err(EndorsementsError::NoAuthorities(why.unwrap_or_default()))
}

async fn read(
    url: &str,
    response: Response<hyper::body::Incoming>,
) -> Result<Answer, EndorsementsError> {
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        let to = head.headers.get(LOCATION).map(|to| to.as_bytes());
        let to = printable(&String::from_utf8_lossy(to.unwrap_or_default()));
        let url = url.to_owned();
        return Err(EndorsementsError::Elsewhere { url, to });
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|source| {
        let url = url.to_owned();
        if source.is::<LengthLimitError>() {
            let limit = MAX_ANSWER;
            return EndorsementsError::TooLong { url, limit };
        }
        EndorsementsError::Unreachable { url, source }
    })?;
    let body = body.to_bytes();
    if head.status == StatusCode::OK {
        return Ok(Answer {
            url: url.to_owned(),
            headers: head.headers,
            body,
        });
    }
    let said = printable(&String::from_utf8_lossy(&body));
    Err(EndorsementsError::Status {
        url: url.to_owned(),
        status: head.status.as_u16(),
        said: if said.is_empty() {
            said
        } else {
            format!(": {said}")
        },
        hint: hint(head.status),
    })
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "; does the service know this platform, and is the address right?",
        StatusCode::TOO_MANY_REQUESTS => "; wait a little before you ask again",
        status if status.is_server_error() => "; try again later, or ask another service",
        _ => "",
    }
}

/// The beginning of a text of an untrusted party, without the control characters that would let it write all over a terminal.
fn printable(text: &str) -> String {
    let visible = text.trim().chars().filter(|c| !c.is_control());
    visible.take(MAX_SAID).collect()
}

/// What was answered, with success.
#[derive(Debug)]
pub(super) struct Answer {
    url: String,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Says that this is not what was expected.
    pub(super) fn wrong(&self, expected: &'static str, why: impl ToString) -> EndorsementsError {
        EndorsementsError::Answer {
            url: self.url.clone(),
            expected,
            why: printable(&why.to_string()),
        }
    }

    /// The chain of certificates (PEM, percent-encoded) in the first of these headers that is there.
    pub(super) fn chain(&self, names: &[&str]) -> Result<String, EndorsementsError> {
        const EXPECTED: &str = "what a provisioning certification service gives";
        let header = names.iter().find_map(|name| self.headers.get(*name));
        let missing = || {
            let names = names.join(" or ");
            self.wrong(EXPECTED, format!("the header {names} is missing"))
        };
        let malformed = || self.wrong(EXPECTED, "the issuer's chain in its header is malformed");
        let value = header
            .ok_or_else(missing)?
            .to_str()
            .map_err(|_| malformed())?;
        let chain = percent_decode_str(value).decode_utf8();
        let chain = chain.map_err(|_| malformed())?.into_owned();
        let mut certificates = 0_u32;
        for pem in x509_parser::pem::Pem::iter_from_buffer(chain.as_bytes()) {
            let pem = pem.map_err(|_| malformed())?;
            pem.parse_x509().map_err(|_| malformed())?;
            certificates += 1;
        }
        if certificates == 0 {
            return Err(malformed());
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str) -> Result<Service, EndorsementsError> {
        let endings = ["/sgx/certification/v4"];
        Service::new(
            address,
            &endings,
            Duration::from_secs(1),
            ProgressBar::hidden(),
        )
    }

    #[test]
    fn an_address_is_taken_with_and_without_what_services_document() {
        for address in [
            "http://a:1",
            "http://a:1/",
            "http://a:1/sgx/certification/v4/",
        ] {
            assert_eq!(service(address).unwrap().base(), "http://a:1");
        }
        assert_eq!(service("http://A/cache").unwrap().host(), "a");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in [
            "",
            "a:1",
            "/x",
            "ftp://a",
            "http://",
            "http://a?b",
            "http://u@a",
            "http://a#b",
        ] {
            assert!(service(address).is_err(), "{address}");
        }
    }

    #[test]
    fn what_a_service_says_cannot_write_over_a_terminal() {
        assert_eq!(printable("\x1b[2Jgone\r\n"), "[2Jgone");
        assert_eq!(printable(&"x".repeat(1000)).len(), MAX_SAID);
    }
}

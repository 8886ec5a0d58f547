//! The provisioning certification service: the collateral over HTTP, as DCAP tools ask for it.
//!
//! The paths, headers and encodings are those of Intel's provisioning certification service, version 4 of its API, as a
//! caching service (PCCS) serves them to verifiers
//! (<https://api.portal.trustedservices.intel.com/content/documentation.html>):
//!
//! | request | body | header with the issuer's chain |
//! |---|---|---|
//! | `/sgx/certification/v4/pckcrl?ca=platform&encoding=der` | revocation list in DER; in PEM without `encoding` | `SGX-PCK-CRL-Issuer-Chain` |
//! | `/sgx/certification/v4/tcb?fmspc=…`, `/tdx/…` | `{"tcbInfo": …, "signature": …}` | `TCB-Info-Issuer-Chain` |
//! | `/sgx/certification/v4/qe/identity`, `/tdx/…` | `{"enclaveIdentity": …, "signature": …}` | `SGX-Enclave-Identity-Issuer-Chain` |
//! | `/sgx/certification/v4/rootcacrl` | the root's revocation list in DER, in hexadecimal | none |
//!
//! A chain is PEM, percent-encoded. Signed texts are put into the body byte by byte as they were signed.

use bytes::Bytes;
use dcap_qvl::QuoteCollateralV3;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};

use crate::{FMSPC, Machine, TCB_EVALUATION_DATA_NUMBER, Tee};

/// A response of the service.
pub(crate) type Answer = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const CRL_DER: &str = "application/pkix-crl";
const CRL_PEM: &str = "application/x-pem-file";
const TEXT: &str = "text/plain; charset=utf-8";

const PCK_CRL_CHAIN: HeaderName = HeaderName::from_static("sgx-pck-crl-issuer-chain");
const TCB_INFO_CHAIN: HeaderName = HeaderName::from_static("tcb-info-issuer-chain");
const QE_IDENTITY_CHAIN: HeaderName = HeaderName::from_static("sgx-enclave-identity-issuer-chain");

/// Answers one request from what this machine publishes.
pub(crate) fn answer(machine: &Machine, method: &Method, uri: &Uri) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
    }
    let query = Query(uri.query().unwrap_or_default());
    let path = uri.path();
    let (tee, resource) = if let Some(resource) = path.strip_prefix("/sgx/certification/v4/") {
        (Tee::Sgx, resource)
    } else if let Some(resource) = path.strip_prefix("/tdx/certification/v4/") {
        (Tee::Tdx, resource)
    } else {
        return refusal(StatusCode::NOT_FOUND, "there is no such resource\n");
    };
    let collateral = machine.collateral_for(tee);
    match (tee, resource) {
        (Tee::Sgx, "pckcrl") => pck_crl(collateral, &query),
        (Tee::Sgx, "rootcacrl") => content(CRL_DER, hex::encode(&collateral.root_ca_crl), None),
        (_, "tcb") => tcb(collateral, &query),
        (_, "qe/identity") => qe_identity(collateral, &query),
        _ => refusal(StatusCode::NOT_FOUND, "there is no such resource\n"),
    }
}

/// A refusal in one line.
pub(crate) fn refusal(status: StatusCode, reason: impl Into<Bytes>) -> Answer {
    let mut response = content(TEXT, reason, None);
    *response.status_mut() = status;
    response
}

fn pck_crl(collateral: &QuoteCollateralV3, query: &Query<'_>) -> Answer {
    match query.get("ca") {
        Some("platform") => {}
        Some(_) => {
            return refusal(
                StatusCode::NOT_FOUND,
                "a simulated machine has a platform CA alone: ask with ca=platform\n",
            );
        }
        None => return refusal(StatusCode::BAD_REQUEST, "ca is missing: ca=platform\n"),
    }
    let chain = Some((PCK_CRL_CHAIN, collateral.pck_crl_issuer_chain.as_str()));
    match query.get("encoding") {
        Some("der") => content(CRL_DER, collateral.pck_crl.clone(), chain),
        Some("pem") | None => content(CRL_PEM, pem_crl(&collateral.pck_crl), chain),
        Some(_) => refusal(StatusCode::BAD_REQUEST, "encoding is der or pem\n"),
    }
}

fn tcb(collateral: &QuoteCollateralV3, query: &Query<'_>) -> Answer {
    match query.get("fmspc") {
        // What is served may be for another model; then that is the fault which a verifier is to notice.
        Some(fmspc) if fmspc.eq_ignore_ascii_case(&hex::encode(FMSPC)) => {}
        Some(_) => return refusal(StatusCode::NOT_FOUND, "no TCB info for this FMSPC\n"),
        None => return refusal(StatusCode::BAD_REQUEST, "fmspc is missing\n"),
    }
    if let Err(refused) = query.right_evaluation_data_number() {
        return *refused;
    }
    let body = signed(
        "tcbInfo",
        &collateral.tcb_info,
        &collateral.tcb_info_signature,
    );
    let chain = (TCB_INFO_CHAIN, collateral.tcb_info_issuer_chain.as_str());
    content(JSON, body, Some(chain))
}

fn qe_identity(collateral: &QuoteCollateralV3, query: &Query<'_>) -> Answer {
    if let Err(refused) = query.right_evaluation_data_number() {
        return *refused;
    }
    let signature = &collateral.qe_identity_signature;
    let body = signed("enclaveIdentity", &collateral.qe_identity, signature);
    let chain = (
        QE_IDENTITY_CHAIN,
        collateral.qe_identity_issuer_chain.as_str(),
    );
    content(JSON, body, Some(chain))
}

/// The text goes in as it is: parsed and written again it might be other bytes than those that were signed.
fn signed(name: &str, text: &str, signature: &[u8]) -> String {
    format!(
        r#"{{"{name}":{text},"signature":"{}"}}"#,
        hex::encode(signature)
    )
}

fn pem_crl(der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new("X509 CRL", der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

fn content(
    media_type: &'static str,
    body: impl Into<Bytes>,
    chain: Option<(HeaderName, &str)>,
) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Percent-encoded text is a valid header in any case.
    if let Some((name, pem)) = chain
        && let Ok(value) = HeaderValue::try_from(percent_encoded(pem))
    {
        headers.insert(name, value);
    }
    response
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len().saturating_mul(2));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// The query of a request. Its values here are words and hexadecimal numbers, so nothing is percent-decoded.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(found, value)| (found == name).then_some(value))
    }

    /// There is one set of TCB evaluation data, the current one; `update` may ask for it by any name.
    fn right_evaluation_data_number(&self) -> Result<(), Box<Answer>> {
        match self.get("tcbEvaluationDataNumber") {
            None => Ok(()),
            Some(number) if number.parse() == Ok(TCB_EVALUATION_DATA_NUMBER) => Ok(()),
            Some(_) => Err(Box::new(refusal(
                StatusCode::NOT_FOUND,
                "no such set of TCB evaluation data\n",
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_in_a_header_is_percent_encoded() {
        assert_eq!(percent_encoded("A-b+/=\n z~"), "A-b%2B%2F%3D%0A%20z~");
    }

    #[test]
    fn a_query_is_read_by_name() {
        let query = Query("ca=platform&encoding=der&x");
        assert_eq!(query.get("ca"), Some("platform"));
        assert_eq!(query.get("encoding"), Some("der"));
        assert_eq!(query.get("x"), None);
        assert_eq!(query.get("c"), None);
    }
}

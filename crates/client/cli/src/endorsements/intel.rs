//! SGX and TDX: collateral from Intel's provisioning certification service (PCS) or a cache of it (PCCS), version 4 of its API
//! (<https://api.portal.trustedservices.intel.com/content/documentation.html>).

use std::path::Path;

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::intel::{quote_ca, quote_fmspc};
use dcap_qvl::quote::Quote;
use serde::Deserialize;
use serde_json::value::RawValue;
use sesemi::TeeKind;
use sesemi_attest::Evidence;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::EndorsementsError;
use super::args::{DcapTee, EndorsementsArgs, PckAuthority};
use super::fetch::{Answer, Service};
use super::report::{Fetched, Of};
use super::revocation::Revocation;

/// Intel's own service, which alone has no list of the root's: that one is at [`ROOT_CRL`].
const INTEL: &str = "api.trustedservices.intel.com";
/// Where Intel publishes the root's list; its root certificate names the address.
const ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";
/// What people copy from documentation into addresses.
pub(super) const ENDINGS: [&str; 2] = ["/sgx/certification/v4", "/tdx/certification/v4"];

/// Which collateral is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    tee: DcapTee,
    /// Lower-case hex.
    fmspc: String,
    ca: PckAuthority,
}

impl Wanted {
    pub(super) fn from_args(args: &EndorsementsArgs) -> Result<Self, EndorsementsError> {
        match (&args.evidence, args.tee, &args.fmspc) {
            (Some(path), ..) => Self::from_quote(path, &super::evidence(path)?),
            (None, Some(tee), Some(fmspc)) => Ok(Self {
                tee,
                fmspc: fmspc.clone(),
                ca: args.ca.unwrap_or(PckAuthority::Platform),
            }),
            _ => Err(EndorsementsError::WhichPlatform),
        }
    }

    fn from_quote(path: &Path, evidence: &Evidence) -> Result<Self, EndorsementsError> {
        let wrong = |why: String| EndorsementsError::Evidence {
            path: path.to_owned(),
            why,
        };
        let tee = match evidence.tee() {
            TeeKind::Sgx => DcapTee::Sgx,
            TeeKind::Tdx => DcapTee::Tdx,
            TeeKind::Snp => {
                return Err(wrong("it is an SEV-SNP report, which --amd is for".into()));
            }
        };
        let parsed = Quote::parse(evidence.as_bytes());
        let quote = parsed.map_err(|e| wrong(format!("the quote is malformed: {e:#}")))?;
        let unnamed = |e| {
            wrong(format!(
                "the quote carries no certificate of its processor ({e:#}); give --tee, --fmspc and --ca instead"
            ))
        };
        Ok(Self {
            tee,
            fmspc: hex::encode(quote_fmspc(&quote).map_err(unnamed)?),
            ca: match quote_ca(&quote).map_err(unnamed)? {
                dcap_qvl::config::PckCa::Platform => PckAuthority::Platform,
                dcap_qvl::config::PckCa::Processor => PckAuthority::Processor,
            },
        })
    }
}

/// What is read of signed JSON before its signature is checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    id: String,
    fmspc: Option<String>,
    tcb_evaluation_data_number: u64,
    issue_date: String,
    next_update: String,
}

/// A signed text, byte for byte, and its signature.
struct Signed {
    text: String,
    signature: Vec<u8>,
    head: Head,
    issued: OffsetDateTime,
    next_update: OffsetDateTime,
}

/// Fetches the collateral for one model of processor and one kind of TEE.
pub(super) async fn fetch(
    service: &Service,
    wanted: &Wanted,
) -> Result<(QuoteCollateralV3, Fetched), EndorsementsError> {
    let tee = wanted.tee.as_str();
    let ca = wanted.ca.as_str();
    let pck = service
        .get(&format!(
            "/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
        ))
        .await?;
    let pck_crl = revocation(&pck)?;
    // Caches compare the FMSPC as text, in upper case.
    let fmspc = wanted.fmspc.to_ascii_uppercase();
    let tcb = service
        .get(&format!("/{tee}/certification/v4/tcb?fmspc={fmspc}"))
        .await?;
    let tcb_info = tcb_info(&tcb, wanted)?;
    let qe = service
        .get(&format!("/{tee}/certification/v4/qe/identity"))
        .await?;
    let qe_identity = qe_identity(&qe, wanted.tee)?;
    let root_crl = revocation(&root_crl(service).await?)?;
    let ends = [
        ("TCB info", tcb_info.next_update),
        ("identity of the quoting enclave", qe_identity.next_update),
        ("revocation list of the PCK authority", pck_crl.next_update),
        ("revocation list of the root", root_crl.next_update),
    ];
    let fetched = Fetched::new(
        Of::Dcap {
            tee: wanted.tee,
            fmspc: wanted.fmspc.clone(),
            ca: wanted.ca,
        },
        service.base(),
        tcb_info.head.tcb_evaluation_data_number,
        tcb_info.issued,
        ends,
    );
    let collateral = QuoteCollateralV3 {
        pck_crl_issuer_chain: pck.chain(&["SGX-PCK-CRL-Issuer-Chain"])?,
        root_ca_crl: root_crl.der,
        pck_crl: pck_crl.der,
        tcb_info_issuer_chain: tcb
            .chain(&["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"])?,
        tcb_info: tcb_info.text,
        tcb_info_signature: tcb_info.signature,
        qe_identity_issuer_chain: qe.chain(&["SGX-Enclave-Identity-Issuer-Chain"])?,
        qe_identity: qe_identity.text,
        qe_identity_signature: qe_identity.signature,
        pck_certificate_chain: None,
    };
    Ok((collateral, fetched))
}

async fn root_crl(service: &Service) -> Result<Answer, EndorsementsError> {
    if service.host() == INTEL {
        service.get_url(ROOT_CRL.to_owned()).await
    } else {
        service.get("/sgx/certification/v4/rootcacrl").await
    }
}

fn revocation(answer: &Answer) -> Result<Revocation, EndorsementsError> {
    Revocation::read(&answer.body).map_err(|why| answer.wrong("a revocation list", why))
}

fn tcb_info(answer: &Answer, wanted: &Wanted) -> Result<Signed, EndorsementsError> {
    const EXPECTED: &str = "TCB info";
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "tcbInfo")]
        signed: Box<RawValue>,
        signature: String,
    }
    let body: Body = serde_json::from_slice(&answer.body).map_err(|e| answer.wrong(EXPECTED, e))?;
    let info = signed(answer, EXPECTED, &body.signed, &body.signature)?;
    let fmspc = info.head.fmspc.as_deref().unwrap_or_default();
    if !fmspc.eq_ignore_ascii_case(&wanted.fmspc) {
        let why = format!("it is for FMSPC '{fmspc}'; was {} asked for?", wanted.fmspc);
        return Err(answer.wrong(EXPECTED, why));
    }
    if !info.head.id.eq_ignore_ascii_case(wanted.tee.as_str()) {
        let why = format!(
            "it is for '{}', not for {}",
            info.head.id,
            wanted.tee.as_str()
        );
        return Err(answer.wrong(EXPECTED, why));
    }
    Ok(info)
}

fn qe_identity(answer: &Answer, tee: DcapTee) -> Result<Signed, EndorsementsError> {
    const EXPECTED: &str = "the identity of a quoting enclave";
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "enclaveIdentity")]
        signed: Box<RawValue>,
        signature: String,
    }
    let body: Body = serde_json::from_slice(&answer.body).map_err(|e| answer.wrong(EXPECTED, e))?;
    let identity = signed(answer, EXPECTED, &body.signed, &body.signature)?;
    let name = match tee {
        DcapTee::Sgx => "QE",
        DcapTee::Tdx => "TD_QE",
    };
    if identity.head.id != name {
        let why = format!("it is for '{}', not for {name}", identity.head.id);
        return Err(answer.wrong(EXPECTED, why));
    }
    Ok(identity)
}

/// The signature is over the bytes as they came: parsed and written again they might be others.
fn signed(
    answer: &Answer,
    expected: &'static str,
    text: &RawValue,
    signature: &str,
) -> Result<Signed, EndorsementsError> {
    let head: Head = serde_json::from_str(text.get()).map_err(|e| answer.wrong(expected, e))?;
    let signature = hex::decode(signature).unwrap_or_default();
    if signature.len() != 64 {
        return Err(answer.wrong(expected, "its signature is not 64 bytes in hexadecimal"));
    }
    let date = |text: &str| {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| answer.wrong(expected, format!("'{text}' is no date")))
    };
    Ok(Signed {
        text: text.get().to_owned(),
        signature,
        issued: date(&head.issue_date)?,
        next_update: date(&head.next_update)?,
        head,
    })
}

//! SGX and TDX: quotes in DCAP format. The library verifies the chain from root to quote; what must never be somebody
//! else's alone, the debug bit, is checked here again.

use std::sync::Arc;

use dcap_qvl::QuoteClaims;
use dcap_qvl::intel::quote_fmspc;
use dcap_qvl::policy::QuotePolicy;
use dcap_qvl::quote::{EnclaveReport, Quote, Report, TDReport10};
use dcap_qvl::verify::QuoteVerifier;

use super::anchor::DcapRoot;
use super::endorsements::{Endorsements, issued};
use super::known_platform::{KnownPlatforms, Parts};
use super::{Unverified, VerifyError};
use crate::code_identity::{CodeIdentity, SgxMeasurement, TdxMeasurement, TeeKind, TrustDomain};
use crate::evidence::Evidence;
use crate::freshness::{Growing, Level};

/// Bit 1 of ATTRIBUTES.FLAGS (Intel SDM, volume 3D, SECS.ATTRIBUTES): the enclave may be debugged.
const SGX_DEBUG: u8 = 0x02;
/// Bits 4, 5 and 7: the enclave may use the provisioning key or the launch key, or was configured at launch (KSS) by fields
/// that a code identity does not hold. None of our programs needs them.
const SGX_UNWANTED: [(u8, &str); 3] = [
    (0x10, "PROVISIONKEY"),
    (0x20, "EINITTOKENKEY"),
    (0x80, "KSS"),
];
/// The kind of certification data that is a chain of certificates (Intel SGX ECDSA quote library API, table 9).
const PCK_CHAIN: u16 = 5;
/// Bits 7 to 0 of TDATTRIBUTES (Intel TDX module ABI, TUD): any of them makes the domain readable by its host.
const TD_UNDER_DEBUG: usize = 0;

/// A quote whose chain holds.
#[derive(Debug, Clone)]
pub(super) struct VerifiedQuote {
    pub(super) claims: QuoteClaims,
    /// The numbers and dates of its endorsements, which may only grow.
    pub(super) levels: [Level; 4],
}

/// Reads a quote without verifying anything of it.
pub(super) fn peek(evidence: &Evidence, domain: TrustDomain) -> Result<Unverified, VerifyError> {
    let quote = parse(evidence)?;
    Ok(Unverified {
        report_data: *report_data(&quote.report),
        identity: identity(domain, &quote.report)?,
    })
}

/// Verifies a quote: the chain to the root, collateral, revocation and dates. The claims say what state the platform is in;
/// the policy decides whether that will do. Their report data is that of the quote that was verified in whole.
pub(super) fn verify(
    evidence: &Evidence,
    root: &DcapRoot,
    endorsements: &Arc<Endorsements>,
    known: &KnownPlatforms,
    now: u64,
) -> Result<(VerifiedQuote, CodeIdentity), VerifyError> {
    let quote = parse(evidence)?;
    let parts = Parts::of(evidence.as_bytes(), &quote);
    let recalled = parts
        .as_ref()
        .and_then(|parts| known.recall(parts, endorsements, now));
    let verified = match recalled {
        Some(verified) => verified,
        None => {
            let verified = verify_whole(evidence, &quote, root, endorsements, now)?;
            if let Some(parts) = &parts {
                known.remember(parts, endorsements, now, &verified);
            }
            verified
        }
    };
    let identity = identity(root.domain, &verified.claims.report)?;
    Ok((verified, identity))
}

fn verify_whole(
    evidence: &Evidence,
    quote: &Quote,
    root: &DcapRoot,
    endorsements: &Endorsements,
    now: u64,
) -> Result<VerifiedQuote, VerifyError> {
    let set = endorsements
        .dcap(evidence.tee(), || quote_fmspc(quote).ok())
        .ok_or(VerifyError::NoEndorsements(evidence.tee()))?;
    let mut collateral = set.collateral.clone();
    if quote.inner_cert_type() == PCK_CHAIN {
        // Tools put the chain of the machine they asked for into collateral that serves all machines of its model, and the
        // library would take that one.
        collateral.pck_certificate_chain = None;
    }
    let lists = [issued(&collateral.root_ca_crl), issued(&collateral.pck_crl)];
    let claims = QuoteVerifier::new(root.der.clone())
        .verify_with_policy(
            evidence.as_bytes(),
            collateral,
            now,
            &QuotePolicy::claims_only(now),
        )
        .map_err(|e| VerifyError::Evidence(format!("{e:#}")))?;
    let levels = levels(&claims, lists, evidence.tee(), root.domain);
    Ok(VerifiedQuote { claims, levels })
}

/// The numbers and dates of a verified quote's endorsements, which may only grow.
fn levels(
    claims: &QuoteClaims,
    [root_crl, pck_crl]: [u64; 2],
    tee: TeeKind,
    domain: TrustDomain,
) -> [Level; 4] {
    let level = |what, at_least| Level { what, at_least };
    let domain = domain.0;
    let evaluation = Growing::EvaluationNumber {
        domain,
        tee,
        fmspc: claims.platform.pck.fmspc,
    };
    // Only certificates of the platform authority carry a platform instance id.
    let pck = Growing::PckCrl {
        domain,
        platform_ca: claims.platform.pck.platform_instance_id.is_some(),
    };
    [
        level(Growing::SignedDate, claims.latest_issue_date),
        level(evaluation, u64::from(claims.tcb.eval_data_number)),
        level(Growing::RootCrl { domain }, root_crl),
        level(pck, pck_crl),
    ]
}

fn parse(evidence: &Evidence) -> Result<Quote, VerifyError> {
    Quote::parse(evidence.as_bytes()).map_err(|e| VerifyError::Evidence(format!("quote: {e:#}")))
}

fn report_data(report: &Report) -> &[u8; 64] {
    match report {
        Report::SgxEnclave(report) => &report.report_data,
        Report::TD10(report) => &report.report_data,
        Report::TD15(report) => &report.base.report_data,
        Report::TD15Ex(report) => &report.base.base.report_data,
    }
}

fn identity(domain: TrustDomain, report: &Report) -> Result<CodeIdentity, VerifyError> {
    match report {
        Report::SgxEnclave(report) => sgx(domain, report),
        Report::TD10(report) => tdx(domain, report),
        Report::TD15(report) => tdx(domain, &report.base),
        Report::TD15Ex(report) => tdx(domain, &report.base.base),
    }
}

fn sgx(domain: TrustDomain, report: &EnclaveReport) -> Result<CodeIdentity, VerifyError> {
    let [flags, ..] = report.attributes;
    if flags & SGX_DEBUG != 0 {
        return Err(VerifyError::Debug);
    }
    let unwanted = SGX_UNWANTED.iter().find(|(bit, _)| flags & bit != 0);
    if let Some((_, name)) = unwanted {
        return Err(VerifyError::Attribute(name));
    }
    // CONFIGID stands at offset 192 of the report body, 32 bytes into what the library calls reserved3.
    let config_id = report
        .reserved3
        .last_chunk::<64>()
        .ok_or_else(|| VerifyError::Evidence("report body".into()))?;
    Ok(CodeIdentity::sgx(
        domain,
        &SgxMeasurement {
            mr_enclave: report.mr_enclave,
            mr_signer: report.mr_signer,
            isv_prod_id: report.isv_prod_id,
            isv_svn: report.isv_svn,
            config_id: *config_id,
        },
    ))
}

fn tdx(domain: TrustDomain, report: &TDReport10) -> Result<CodeIdentity, VerifyError> {
    if report.td_attributes.get(TD_UNDER_DEBUG) != Some(&0) {
        return Err(VerifyError::Debug);
    }
    Ok(CodeIdentity::tdx(
        domain,
        &TdxMeasurement {
            mr_td: report.mr_td,
            rt_mr: [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3],
            mr_owner: report.mr_owner,
            mr_config_id: report.mr_config_id,
            mr_owner_config: report.mr_owner_config,
            td_attributes: report.td_attributes,
            xfam: report.xfam,
        },
    ))
}

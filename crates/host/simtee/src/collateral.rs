//! Collateral: what the provisioning service publishes so that quotes can be verified without asking it.
//!
//! TCB info says which security versions are current, QE identity says which quoting enclave is genuine. Both are JSON
//! texts, signed as they stand; a verifier checks the signature over the text before it reads it.

use dcap_qvl::QuoteCollateralV3;
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use serde_json::json;

use crate::SimteeError;
use crate::pki::{Certificates, RevocationLists, Secrets};
use crate::processor::{CPU_SVN, FMSPC, PCE_ID, PCE_SVN};
use crate::quote::{QE_ISV_PROD_ID, QE_ISV_SVN, qe_mr_signer};
use crate::validity::{TCB_EVALUATION_DATA_NUMBER, Validity, rfc3339};

/// When the current levels became current. In the past of any clock that is set at all.
const TCB_DATE: &str = "2025-01-01T00:00:00Z";
/// When the levels that are out of date were current.
const OLD_TCB_DATE: &str = "2020-01-01T00:00:00Z";

/// Issues TCB info, QE identity and revocation lists, all valid for the same time.
pub(crate) fn issue(
    secrets: &Secrets,
    certificates: &Certificates,
    validity: &Validity,
    number: u32,
    random: &SystemRandom,
) -> Result<QuoteCollateralV3, SimteeError> {
    let signer = secrets.tcb_signer(random)?;
    let lists = RevocationLists::issue(secrets, validity, number)?;
    let (tcb_info, qe_identity) = (tcb_info(validity)?, qe_identity(validity)?);
    Ok(QuoteCollateralV3 {
        pck_crl_issuer_chain: certificates.pck_ca_chain(),
        root_ca_crl: lists.root,
        pck_crl: lists.pck,
        tcb_info_issuer_chain: certificates.tcb_signing_chain(),
        tcb_info_signature: sign(&signer, tcb_info.as_bytes(), random)?,
        tcb_info,
        qe_identity_issuer_chain: certificates.tcb_signing_chain(),
        qe_identity_signature: sign(&signer, qe_identity.as_bytes(), random)?,
        qe_identity,
        // Absent, so that a verifier uses the chain in the quote, which is what it would do with the real service.
        pck_certificate_chain: None,
    })
}

fn tcb_info(validity: &Validity) -> Result<String, SimteeError> {
    let components = |svns: [u8; 16]| svns.map(|svn| json!({ "svn": svn }));
    let level = |svns, pce_svn, date: &str, status: &str| {
        json!({
            "tcb": { "sgxtcbcomponents": components(svns), "pcesvn": pce_svn },
            "tcbDate": date,
            "tcbStatus": status,
        })
    };
    let info = json!({
        "id": "SGX",
        "version": 3,
        "issueDate": rfc3339(validity.not_before()?)?,
        "nextUpdate": rfc3339(validity.not_after()?)?,
        "fmspc": hex::encode_upper(FMSPC),
        "pceId": hex::encode_upper(PCE_ID),
        "tcbType": 0,
        "tcbEvaluationDataNumber": TCB_EVALUATION_DATA_NUMBER,
        "tcbLevels": [
            level(CPU_SVN, PCE_SVN, TCB_DATE, "UpToDate"),
            level([0; 16], 0, OLD_TCB_DATE, "OutOfDate"),
        ],
    });
    Ok(info.to_string())
}

fn qe_identity(validity: &Validity) -> Result<String, SimteeError> {
    let level = |svn: u16, date: &str, status: &str| json!({ "tcb": { "isvsvn": svn }, "tcbDate": date, "tcbStatus": status });
    let identity = json!({
        "id": "QE",
        "version": 2,
        "issueDate": rfc3339(validity.not_before()?)?,
        "nextUpdate": rfc3339(validity.not_after()?)?,
        "tcbEvaluationDataNumber": TCB_EVALUATION_DATA_NUMBER,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        // As Intel's: initialised and allowed to provision, debug off; XFRM and MODE64BIT are not compared.
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(qe_mr_signer()),
        "isvprodid": QE_ISV_PROD_ID,
        "tcbLevels": [
            level(QE_ISV_SVN, TCB_DATE, "UpToDate"),
            level(1, OLD_TCB_DATE, "OutOfDate"),
        ],
    });
    Ok(identity.to_string())
}

fn sign(signer: &EcdsaKeyPair, text: &[u8], random: &SystemRandom) -> Result<Vec<u8>, SimteeError> {
    signer
        .sign(random, text)
        .map(|signature| signature.as_ref().to_vec())
        .map_err(|_| SimteeError::Signing {
            signer: "provisioning service",
        })
}

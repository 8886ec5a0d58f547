//! Collateral: what the provisioning service publishes so that quotes can be verified without asking it.
//!
//! TCB info says which security versions are current, QE identity says which quoting enclave is genuine. Both are JSON
//! texts, signed as they stand; a verifier checks the signature over the text before it reads it. SGX and TDX have each
//! their own; the revocation lists are the same. The texts have the shape of Intel's provisioning certification service,
//! version 4 of its API.

use dcap_qvl::QuoteCollateralV3;
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::{Fault, Faults};
use crate::pki::{Certificates, RevocationLists, Secrets};
use crate::processor::{CPU_SVN, FMSPC, LOWEST_PCE_SVN, PCE_ID, PCE_SVN, TEE_TCB_SVN};
use crate::validity::{Validity, rfc3339};
use crate::{SimteeError, Tee};

/// When the current levels became current. In the past of any clock that is set at all.
const TCB_DATE: &str = "2025-01-01T00:00:00Z";
/// When the levels that are out of date were current.
const OLD_TCB_DATE: &str = "2020-01-01T00:00:00Z";
/// How much earlier stale collateral was issued: little, so that it is still valid.
const STALE_SECONDS: i64 = 24 * 60 * 60;
/// The FMSPC of TCB info that is for another processor.
const OTHER_FMSPC: [u8; 6] = *b"\0Other";

/// The collateral of one machine for both kinds of TEE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Collaterals {
    pub(crate) sgx: QuoteCollateralV3,
    pub(crate) tdx: QuoteCollateralV3,
}

impl Collaterals {
    /// That of one kind of TEE.
    pub(crate) fn of(&self, tee: Tee) -> &QuoteCollateralV3 {
        match tee {
            Tee::Sgx => &self.sgx,
            Tee::Tdx => &self.tdx,
        }
    }
}

/// One issue of collateral.
pub(crate) struct Issue<'a> {
    validity: Validity,
    number: u32,
    faults: &'a Faults,
}

impl<'a> Issue<'a> {
    /// The issue with this number, valid for so long, and what these faults make of both.
    pub(crate) fn under(faults: &'a Faults, validity: Validity, number: u32) -> Self {
        let stale = faults.has(&Fault::StaleCollateral);
        let age = if stale { STALE_SECONDS } else { 0 };
        Self {
            validity: validity.shifted(faults.clock_offset().saturating_sub(age)),
            number: number.saturating_sub(stale.into()),
            faults,
        }
    }

    /// For how long the collateral is valid.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues TCB info, QE identity and revocation lists, all valid for the same time.
    pub(crate) fn collaterals(
        &self,
        secrets: &Secrets,
        certificates: &Certificates,
        random: &SystemRandom,
    ) -> Result<Collaterals, SimteeError> {
        let signer = secrets.tcb_signer(random)?;
        let lists = RevocationLists::issue(
            secrets,
            certificates,
            &self.validity,
            self.number,
            self.faults,
        )?;
        let of = |tee| {
            let (tcb_info, tcb_info_signature) = signed(
                self.tcb_info(tee)?,
                &signer,
                self.faults.has(&Fault::ForgedTcbInfo),
                random,
            )?;
            let (qe_identity, qe_identity_signature) = signed(
                self.qe_identity(tee)?,
                &signer,
                self.faults.has(&Fault::ForgedQeIdentity),
                random,
            )?;
            Ok(QuoteCollateralV3 {
                pck_crl_issuer_chain: certificates.pck_ca_chain(),
                root_ca_crl: lists.root.clone(),
                pck_crl: lists.pck.clone(),
                tcb_info_issuer_chain: certificates.tcb_signing_chain(),
                tcb_info,
                tcb_info_signature,
                qe_identity_issuer_chain: certificates.tcb_signing_chain(),
                qe_identity,
                qe_identity_signature,
                // Absent, so that a verifier uses the chain in the quote, which is what it would do with the real service.
                pck_certificate_chain: None,
            })
        };
        Ok(Collaterals {
            sgx: of(Tee::Sgx)?,
            tdx: of(Tee::Tdx)?,
        })
    }

    fn tcb_info(&self, tee: Tee) -> Result<Value, SimteeError> {
        let fmspc = if self.faults.has(&Fault::FmspcMismatch) {
            OTHER_FMSPC
        } else {
            FMSPC
        };
        let mut info = json!({
            "id": match tee { Tee::Sgx => "SGX", Tee::Tdx => "TDX" },
            "version": 3,
            "issueDate": rfc3339(self.validity.not_before()?)?,
            "nextUpdate": rfc3339(self.validity.not_after()?)?,
            "fmspc": hex::encode_upper(fmspc),
            "pceId": hex::encode_upper(PCE_ID),
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.faults.evaluation_data_number(),
        });
        if tee == Tee::Tdx {
            set(&mut info, "tdxModule", tdx_module());
            set(
                &mut info,
                "tdxModuleIdentities",
                json!([self.tdx_module_identity()]),
            );
        }
        set(&mut info, "tcbLevels", self.tcb_levels(tee));
        Ok(info)
    }

    /// The level of the platform, and one that nobody is on unless it is old.
    fn tcb_levels(&self, tee: Tee) -> Value {
        let components = |svns: [u8; 16]| svns.map(|svn| json!({ "svn": svn }));
        let level = |cpu_svn, tee_tcb_svn, pce_svn, date: &str, status: &str| {
            let mut tcb = json!({ "sgxtcbcomponents": components(cpu_svn), "pcesvn": pce_svn });
            if tee == Tee::Tdx {
                set(&mut tcb, "tdxtcbcomponents", json!(components(tee_tcb_svn)));
            }
            json!({ "tcb": tcb, "tcbDate": date, "tcbStatus": status })
        };
        let status = self.faults.platform_status();
        let mut current = level(CPU_SVN, TEE_TCB_SVN, PCE_SVN, TCB_DATE, status);
        let advisories = self.faults.advisories();
        if !advisories.is_empty() {
            set(&mut current, "advisoryIDs", json!(advisories));
        }
        let old = level([0; 16], [0; 16], LOWEST_PCE_SVN, OLD_TCB_DATE, "OutOfDate");
        json!([current, old])
    }

    /// The identity that the module version in a TD report names, and the levels of its security version.
    fn tdx_module_identity(&self) -> Value {
        let [isv_svn, version, ..] = TEE_TCB_SVN;
        let newer = self.faults.has(&Fault::TdxModuleOutOfDate);
        let mut identity = tdx_module();
        set(&mut identity, "id", json!(format!("TDX_{version:02X}")));
        set(&mut identity, "tcbLevels", levels(isv_svn.into(), newer, 1));
        identity
    }

    fn qe_identity(&self, tee: Tee) -> Result<Value, SimteeError> {
        let profile = tee.quoting_enclave();
        let newer = self.faults.has(&Fault::QeOutOfDate);
        Ok(json!({
            "id": profile.identity,
            "version": 2,
            "issueDate": rfc3339(self.validity.not_before()?)?,
            "nextUpdate": rfc3339(self.validity.not_after()?)?,
            "tcbEvaluationDataNumber": self.faults.evaluation_data_number(),
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            // As Intel's: initialised and allowed to provision, debug off; XFRM and MODE64BIT are not compared.
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex::encode_upper(profile.mr_signer()),
            "isvprodid": profile.isv_prod_id,
            "tcbLevels": levels(profile.isv_svn, newer, 1),
        }))
    }
}

/// The levels of something with one security version: the current one, which is above `svn` if there is a newer, and the
/// lowest, which is out of date.
fn levels(svn: u16, newer: bool, lowest: u16) -> Value {
    let level = |svn: u16, date: &str, status: &str| json!({ "tcb": { "isvsvn": svn }, "tcbDate": date, "tcbStatus": status });
    let current = svn.saturating_add(newer.into());
    json!([
        level(current, TCB_DATE, "UpToDate"),
        level(lowest, OLD_TCB_DATE, "OutOfDate")
    ])
}

/// What Intel's TCB info says of modules that Intel signed.
fn tdx_module() -> Value {
    json!({
        "mrsigner": "0".repeat(96),
        "attributes": "0".repeat(16),
        "attributesMask": "F".repeat(16),
    })
}

/// Adds a field to an object, or replaces it.
fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// The text and its signature. Of a forged text the signature is that of the original; the forgery is what somebody with
/// old collateral would write to pass for current.
fn signed(
    mut content: Value,
    signer: &EcdsaKeyPair,
    forged: bool,
    random: &SystemRandom,
) -> Result<(String, Vec<u8>), SimteeError> {
    let text = content.to_string();
    let signature = signer
        .sign(random, text.as_bytes())
        .map_err(|_| SimteeError::Signing {
            signer: "provisioning service",
        })?;
    let signature = signature.as_ref().to_vec();
    if !forged {
        return Ok((text, signature));
    }
    set(
        &mut content,
        "tcbEvaluationDataNumber",
        json!(crate::TCB_EVALUATION_DATA_NUMBER.saturating_add(1)),
    );
    Ok((content.to_string(), signature))
}

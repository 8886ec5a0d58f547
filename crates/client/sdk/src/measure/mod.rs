//! Code identities before anything runs: what an owner or user computes for themselves, and then approves.
//!
//! Three sources, none of which is a running enclave: a SIGSTRUCT that an SGX signing tool wrote ([`sigstruct`], with the
//! Gramine manifest beside it in [`gramine`]), reference values from a file ([`mod@reference`]), and a program for the
//! simulated TEE, which `simtee measure` measures ([`simulated`]). Each ends in a [`Measurement`]; together with a trust anchor that is a
//! [`CodeIdentity`]. Evidence is no source: it says what runs, not what should.

mod digits;
pub mod gramine;
pub mod reference;
pub mod sigstruct;
pub mod simulated;

use sesemi_attest::code_identity::{SgxMeasurement, SnpMeasurement, TdxMeasurement};
use sesemi_attest::snp::Product;
use sesemi_attest::{CodeIdentity, TeeKind, TrustAnchor};

/// What a TEE measures of code, with the kind of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    /// Of an SGX enclave.
    Sgx(SgxMeasurement),
    /// Of a TDX domain.
    Tdx(TdxMeasurement),
    /// Of an SEV-SNP virtual machine on processors of this product line, each of which has a root of its own.
    Snp(Product, SnpMeasurement),
}

/// The anchor has no root for evidence of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this trust anchor has no root for SEV-SNP on {product}: only AMD's own roots do, never a simulator's"
)]
pub struct NoRoot {
    /// The product line, as AMD calls it.
    pub product: &'static str,
}

impl Measurement {
    /// The kind of TEE.
    #[must_use]
    pub fn tee(&self) -> TeeKind {
        match self {
            Self::Sgx(_) => TeeKind::Sgx,
            Self::Tdx(_) => TeeKind::Tdx,
            Self::Snp(..) => TeeKind::Snp,
        }
    }

    /// The identity of this code for evidence that rests on a root of `anchor`.
    ///
    /// # Errors
    /// [`NoRoot`] if the anchor has no such root.
    pub fn identity(&self, anchor: &TrustAnchor) -> Result<CodeIdentity, NoRoot> {
        match self {
            Self::Sgx(measured) => Ok(CodeIdentity::sgx(anchor.domain(), measured)),
            Self::Tdx(measured) => Ok(CodeIdentity::tdx(anchor.domain(), measured)),
            Self::Snp(product, measured) => {
                let product_name = product.as_str();
                let domain = anchor.amd_domain(*product).ok_or(NoRoot {
                    product: product_name,
                })?;
                Ok(CodeIdentity::snp(domain, measured))
            }
        }
    }

    /// Every field by its name in reference files, in hexadecimal or decimal digits.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Sgx(m) => vec![
                ("mr-enclave", hex::encode(m.mr_enclave)),
                ("mr-signer", hex::encode(m.mr_signer)),
                ("isv-prod-id", m.isv_prod_id.to_string()),
                ("isv-svn", m.isv_svn.to_string()),
                ("config-id", hex::encode(m.config_id)),
            ],
            Self::Tdx(m) => {
                let [rt_mr0, rt_mr1, rt_mr2, rt_mr3] = m.rt_mr.map(hex::encode);
                vec![
                    ("mr-td", hex::encode(m.mr_td)),
                    ("rt-mr-0", rt_mr0),
                    ("rt-mr-1", rt_mr1),
                    ("rt-mr-2", rt_mr2),
                    ("rt-mr-3", rt_mr3),
                    ("mr-owner", hex::encode(m.mr_owner)),
                    ("mr-config-id", hex::encode(m.mr_config_id)),
                    ("mr-owner-config", hex::encode(m.mr_owner_config)),
                    ("td-attributes", hex::encode(m.td_attributes)),
                    ("xfam", hex::encode(m.xfam)),
                ]
            }
            Self::Snp(product, m) => vec![
                ("product", product.as_str().to_ascii_lowercase()),
                ("measurement", hex::encode(m.measurement)),
                ("id-key-digest", hex::encode(m.id_key_digest)),
                ("author-key-digest", hex::encode(m.author_key_digest)),
                ("guest-svn", m.guest_svn.to_string()),
                ("family-id", hex::encode(m.family_id)),
                ("image-id", hex::encode(m.image_id)),
                ("host-data", hex::encode(m.host_data)),
                ("policy", format!("{:#x}", m.policy)),
            ],
        }
    }
}

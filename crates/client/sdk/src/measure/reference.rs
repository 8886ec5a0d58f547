//! Reference values from a TOML file: what the builder of an image, a reproducible build or a measuring tool says that a
//! TEE will measure. This is how code in TDX and SEV-SNP is approved, whose measurements cover a whole virtual machine and
//! are computed by the tools that build it.
//!
//! ```toml
//! kind = "tdx"
//! # 48 bytes each, as hexadecimal digits; rt-mr are RTMR 0 to 3.
//! mr-td = "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
//! rt-mr = [
//!   "0c7a4bb5d1f6a96fd1b2d21d5d8e5a4a3c2b1a09f8e7d6c5b4a392817060504f3e2d1c0b0a09080706050403020100ff",
//!   "1c7a4bb5d1f6a96fd1b2d21d5d8e5a4a3c2b1a09f8e7d6c5b4a392817060504f3e2d1c0b0a09080706050403020100ff",
//!   "2c7a4bb5d1f6a96fd1b2d21d5d8e5a4a3c2b1a09f8e7d6c5b4a392817060504f3e2d1c0b0a09080706050403020100ff",
//!   "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
//! ]
//! td-attributes = "0000001000000000"        # 8 bytes in the order of the quote
//! xfam = "e702060000000000"                 # 8 bytes in the order of the quote
//! # Zero if left out: mr-owner, mr-config-id, mr-owner-config (48 bytes each).
//! ```
//!
//! ```toml
//! kind = "snp"
//! product = "milan"                         # or genoa, turin: each has a root of its own
//! measurement = "5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f98189887920ab2fa0096903a0c23fca1"
//! policy = 0x30000
//! # Zero if left out: id-key-digest, author-key-digest (48 bytes), guest-svn (a number), family-id, image-id (16 bytes),
//! # host-data (32 bytes).
//! ```
//!
//! ```toml
//! kind = "sgx"
//! mr-enclave = "a5defe07508c951cac5b89856c6d0298eb0bfb1fc61505fd140e7d6d877d4c7a"
//! mr-signer = "dd80654ff55d8660c227688ef719d1845cd76a80460e0fee97c70aa8dc958754"
//! isv-prod-id = 1
//! isv-svn = 2
//! # Zero if left out: config-id (64 bytes).
//! ```
//!
//! What says which code it is has no default, and whatever the schema does not know is an error: a misspelt field must not
//! become a zero in what somebody approves. The values above are made up, except for the last.

use serde::Deserialize;
use sesemi_attest::code_identity::{SgxMeasurement, SnpMeasurement, TdxMeasurement};
use sesemi_attest::snp::Product;

use super::Measurement;
use super::digits::Hex;

/// Longest file that is read, in bytes.
pub const MAX_REFERENCE: usize = 64 * 1024;

/// TDATTRIBUTES.TUD: a domain with one of these bits is under debug (Intel TDX module ABI, *TD attributes*).
const TD_UNDER_DEBUG: u8 = 0xff;
/// Guest policy (AMD 56860, *Guest policy*): a bit that is always set, and what no verifier accepts.
const SNP_ALWAYS: u64 = 1 << 17;
const SNP_MIGRATE: u64 = 1 << 18;
const SNP_DEBUG: u64 = 1 << 19;

/// Why a file of reference values cannot be used. The text shows the line at fault, or names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reference values cannot be used: {0}")]
pub struct ReferenceError(String);

/// Reference values, and what whoever approves them should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What the TEE will measure.
    pub measurement: Measurement,
    /// What these values leave open, in sentences.
    pub cautions: Vec<&'static str>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Kinds,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kinds {
    Sgx,
    Tdx,
    Snp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sgx {
    #[serde(rename = "kind")]
    _kind: String,
    mr_enclave: Hex<32>,
    mr_signer: Hex<32>,
    isv_prod_id: u16,
    isv_svn: u16,
    #[serde(default)]
    config_id: Hex<64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Tdx {
    #[serde(rename = "kind")]
    _kind: String,
    mr_td: Hex<48>,
    rt_mr: [Hex<48>; 4],
    td_attributes: Hex<8>,
    xfam: Hex<8>,
    #[serde(default)]
    mr_owner: Hex<48>,
    #[serde(default)]
    mr_config_id: Hex<48>,
    #[serde(default)]
    mr_owner_config: Hex<48>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Snp {
    #[serde(rename = "kind")]
    _kind: String,
    product: Line,
    measurement: Hex<48>,
    policy: u64,
    #[serde(default)]
    id_key_digest: Hex<48>,
    #[serde(default)]
    author_key_digest: Hex<48>,
    #[serde(default)]
    guest_svn: u32,
    #[serde(default)]
    family_id: Hex<16>,
    #[serde(default)]
    image_id: Hex<16>,
    #[serde(default)]
    host_data: Hex<32>,
}

/// A product line by its name in lower case.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Milan,
    Genoa,
    Turin,
}

impl From<Line> for Product {
    fn from(line: Line) -> Self {
        match line {
            Line::Milan => Self::Milan,
            Line::Genoa => Self::Genoa,
            Line::Turin => Self::Turin,
        }
    }
}

impl Reference {
    /// Reads reference values from TOML.
    ///
    /// # Errors
    /// [`ReferenceError`], which shows the line at fault or names the field.
    pub fn from_toml(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE {
            let text = format!("the file is longer than {MAX_REFERENCE} bytes");
            return Err(ReferenceError(text));
        }
        // Twice, because one pass over a tagged enum would lose the lines of its fields.
        match read::<Kind>(text)?.kind {
            Kinds::Sgx => read::<Sgx>(text)?.reference(),
            Kinds::Tdx => read::<Tdx>(text)?.reference(),
            Kinds::Snp => read::<Snp>(text)?.reference(),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, ReferenceError> {
    toml::from_str(text).map_err(|e| ReferenceError(e.to_string()))
}

fn refused<T>(text: &str) -> Result<T, ReferenceError> {
    Err(ReferenceError(text.into()))
}

/// Zeros where a hash of code must be are a form that nobody filled in.
fn filled(field: &'static str, bytes: &[u8]) -> Result<(), ReferenceError> {
    if bytes.iter().all(|byte| *byte == 0) {
        let text = format!("{field}: all zero is the hash of no code; fill in the value");
        return Err(ReferenceError(text));
    }
    Ok(())
}

impl Sgx {
    fn reference(self) -> Result<Reference, ReferenceError> {
        filled("mr-enclave", &self.mr_enclave.0)?;
        Ok(Reference {
            measurement: Measurement::Sgx(SgxMeasurement {
                mr_enclave: self.mr_enclave.0,
                mr_signer: self.mr_signer.0,
                isv_prod_id: self.isv_prod_id,
                isv_svn: self.isv_svn,
                config_id: self.config_id.0,
            }),
            cautions: Vec::new(),
        })
    }
}

impl Tdx {
    fn reference(self) -> Result<Reference, ReferenceError> {
        filled("mr-td", &self.mr_td.0)?;
        let [flags, ..] = self.td_attributes.0;
        if flags & TD_UNDER_DEBUG != 0 {
            return refused(
                "td-attributes: its first byte says that the domain is under debug, which no verifier accepts",
            );
        }
        let rt_mr = self.rt_mr.map(|register| register.0);
        let [_, kernel, command_line, _] = rt_mr;
        let mut cautions = Vec::new();
        if kernel == [0; 48] || command_line == [0; 48] {
            cautions.push(
                "rt-mr 1 or 2 is zero: then the firmware measured no kernel or no command line there, and this identity \
                 covers them only if they are within mr-td",
            );
        }
        Ok(Reference {
            measurement: Measurement::Tdx(TdxMeasurement {
                mr_td: self.mr_td.0,
                rt_mr,
                mr_owner: self.mr_owner.0,
                mr_config_id: self.mr_config_id.0,
                mr_owner_config: self.mr_owner_config.0,
                td_attributes: self.td_attributes.0,
                xfam: self.xfam.0,
            }),
            cautions,
        })
    }
}

impl Snp {
    fn reference(self) -> Result<Reference, ReferenceError> {
        filled("measurement", &self.measurement.0)?;
        if self.policy & SNP_ALWAYS == 0 {
            return refused(
                "policy: bit 17 is always set in a guest policy; 0x30000 is the usual one",
            );
        }
        if self.policy & SNP_DEBUG != 0 {
            return refused(
                "policy: bit 19 lets the host debug the guest, which no verifier accepts",
            );
        }
        if self.policy & SNP_MIGRATE != 0 {
            return refused(
                "policy: bit 18 lets a migration agent copy the guest, which no verifier accepts",
            );
        }
        Ok(Reference {
            measurement: Measurement::Snp(
                self.product.into(),
                SnpMeasurement {
                    measurement: self.measurement.0,
                    id_key_digest: self.id_key_digest.0,
                    author_key_digest: self.author_key_digest.0,
                    guest_svn: self.guest_svn,
                    family_id: self.family_id.0,
                    image_id: self.image_id.0,
                    host_data: self.host_data.0,
                    policy: self.policy,
                },
            ),
            cautions: Vec::new(),
        })
    }
}

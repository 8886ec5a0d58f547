//! SIGSTRUCT: what the signer of an SGX enclave says about it, in a file that signing tools write (`gramine-sgx-sign`:
//! `NAME.sig`). The processor starts the enclave only if its pages hash to the value in here, so this file says before the
//! start what a quote will say afterwards.
//!
//! Layout and checks: Intel SDM, volume 3D, 38.13 (*Enclave Signature Structure*). All numbers are little-endian, also those
//! of 384 bytes. The signature is RSA-3072 with exponent 3, PKCS #1 v1.5 and SHA-256, over bytes 0 to 127 and 900 to 1027.
//! Q1 and Q2 follow from signature and modulus; the processor needs and checks them, nothing here depends on them.

use ring::digest::{SHA256, digest};
use ring::rsa::PublicKeyComponents;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use sesemi_attest::code_identity::SgxMeasurement;

/// Length of a SIGSTRUCT, in bytes.
pub const SIGSTRUCT_LEN: usize = 1808;

/// HEADER: type 6, length 0xE1 words, version 1.0.
const HEADER: [u8; 16] = [6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
/// HEADER2: sizes of key, modulus and exponent, in words.
const HEADER2: [u8; 16] = [1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0];
/// VENDOR: nobody's, or Intel's own enclaves.
const VENDORS: [u32; 2] = [0, 0x8086];
/// The one exponent that SGX knows.
const EXPONENT: u32 = 3;
/// ATTRIBUTES.DEBUG.
const DEBUG: u64 = 1 << 1;
/// ATTRIBUTES.KSS: key separation and sharing; with it the launcher chooses CONFIGID and CONFIGSVN.
const KSS: u64 = 1 << 7;

/// Why bytes are not the SIGSTRUCT of an enclave that may be approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigstructError {
    /// Another length.
    #[error(
        "a SIGSTRUCT has {SIGSTRUCT_LEN} bytes, this file has {found}; give the .sig file that gramine-sgx-sign wrote"
    )]
    Length {
        /// What there is.
        found: u64,
    },
    /// A constant is not what it must be.
    #[error(
        "{field} at byte {at} is not what every SIGSTRUCT has there: this is another file, or a damaged one"
    )]
    Constant {
        /// Which field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// The signature does not verify.
    #[error("SIGNATURE does not verify under MODULUS: the file was changed after signing")]
    Signature,
    /// A debug enclave.
    #[error(
        "ATTRIBUTES says DEBUG: the host reads all memory of such an enclave, and no verifier accepts it; \
         set sgx.debug = false in the manifest and sign again"
    )]
    Debug,
    /// An enclave that somebody configures at launch.
    #[error(
        "ATTRIBUTES says KSS: the launcher chooses CONFIGID, so this file does not tell the code identity; \
         build without key separation and sharing, or write the values into a file for --reference"
    )]
    Configurable,
}

/// What a SIGSTRUCT says whose signature verified, about an enclave that is neither debuggable nor configured at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sigstruct {
    /// What a quote of the enclave will say. MRSIGNER is the SHA-256 of MODULUS, CONFIGID is zero.
    pub measurement: SgxMeasurement,
    /// DATE, as `0xYYYYMMDD`: the day of signing, as the signer says.
    pub date: u32,
}

impl Sigstruct {
    /// Reads a SIGSTRUCT and verifies its signature. The signer can be anybody: whether MRSIGNER is the right one is for
    /// whoever approves the identity to say.
    ///
    /// # Errors
    /// [`SigstructError`], which names the field.
    pub fn verify(bytes: &[u8]) -> Result<Self, SigstructError> {
        let whole: &[u8; SIGSTRUCT_LEN] = bytes.try_into().map_err(|_| SigstructError::Length {
            found: bytes.len() as u64,
        })?;
        let mut fields = Fields { rest: whole, at: 0 };
        fields.constant("HEADER", HEADER)?;
        let vendor = fields.number("VENDOR")?;
        if !VENDORS.contains(&vendor) {
            return Err(SigstructError::Constant {
                field: "VENDOR",
                at: 16,
            });
        }
        let date = fields.number("DATE")?;
        fields.constant("HEADER2", HEADER2)?;
        fields.take::<4>("SWDEFINED")?;
        fields.constant("reserved space", [0; 84])?;
        let modulus: [u8; 384] = fields.take("MODULUS")?;
        fields.constant("EXPONENT", EXPONENT.to_le_bytes())?;
        let signature: [u8; 384] = fields.take("SIGNATURE")?;
        // MISCSELECT and MISCMASK, CET_ATTRIBUTES and its mask.
        fields.take::<{ 8 + 2 }>("MISCSELECT")?;
        fields.constant("reserved space", [0; 2])?;
        fields.take::<16>("ISVFAMILYID")?;
        let attributes = u64::from_le_bytes(fields.take("ATTRIBUTES")?);
        fields.take::<{ 8 + 16 }>("ATTRIBUTEMASK")?;
        let mr_enclave = fields.take("ENCLAVEHASH")?;
        fields.constant("reserved space", [0; 16])?;
        fields.take::<16>("ISVEXTPRODID")?;
        let isv_prod_id = u16::from_le_bytes(fields.take("ISVPRODID")?);
        let isv_svn = u16::from_le_bytes(fields.take("ISVSVN")?);
        fields.constant("reserved space", [0; 12])?;

        verify_signature(whole, modulus, signature)?;
        if attributes & DEBUG != 0 {
            return Err(SigstructError::Debug);
        }
        if attributes & KSS != 0 {
            return Err(SigstructError::Configurable);
        }
        Ok(Self {
            measurement: SgxMeasurement {
                mr_enclave,
                mr_signer: sha256(&modulus),
                isv_prod_id,
                isv_svn,
                config_id: [0; 64],
            },
            date,
        })
    }
}

/// Big-endian, as RSA elsewhere has it.
fn big_endian(mut number: [u8; 384]) -> [u8; 384] {
    number.reverse();
    number
}

fn verify_signature(
    whole: &[u8; SIGSTRUCT_LEN],
    modulus: [u8; 384],
    signature: [u8; 384],
) -> Result<(), SigstructError> {
    let parts = [whole.get(..128), whole.get(900..1028)];
    let signed = parts.map(Option::unwrap_or_default).concat();
    let modulus = big_endian(modulus);
    let key = PublicKeyComponents {
        n: modulus.as_slice(),
        e: &[3],
    };
    // A modulus with leading zeros, which would be a shorter key, is refused there too.
    key.verify(&RSA_PKCS1_2048_8192_SHA256, &signed, &big_endian(signature))
        .map_err(|_| SigstructError::Signature)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

/// The fields that are left, and where the next one begins.
struct Fields<'a> {
    rest: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], SigstructError> {
        let ended = SigstructError::Constant { field, at: self.at };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ended)?;
        self.rest = rest;
        self.at = self.at.saturating_add(N);
        Ok(*taken)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, SigstructError> {
        Ok(u32::from_le_bytes(self.take(field)?))
    }

    fn constant<const N: usize>(
        &mut self,
        field: &'static str,
        expected: [u8; N],
    ) -> Result<(), SigstructError> {
        let at = self.at;
        if self.take(field)? == expected {
            Ok(())
        } else {
            Err(SigstructError::Constant { field, at })
        }
    }
}

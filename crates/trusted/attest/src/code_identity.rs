//! What owners and users approve: exactly which code, in which kind of TEE, vouched for by whose root.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::{CodeIdentityDigest, Digest};

/// A kind of TEE. The numbers are part of the format and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TeeKind {
    /// Intel SGX: an enclave in a process.
    #[n(1)]
    Sgx,
}

impl TeeKind {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
        }
    }
}

/// Whose word the evidence rests on: SHA-256 of the root certificate's SubjectPublicKeyInfo. The verifier takes it from
/// the root that the evidence verified under, never from a message. Simulated platforms each have a root of their own, so
/// approving code there approves nothing anywhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TrustDomain(pub Digest);

/// Code in a TEE (the paper's enclave identity).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CodeIdentity {
    /// Kind of TEE.
    #[n(1)]
    pub tee: TeeKind,
    /// The trust domain's digest.
    #[n(2)]
    pub trust_domain: Digest,
    /// The TEE's measurements, in its own order; for SGX MRENCLAVE alone.
    #[n(3)]
    pub measurements: Vec<ByteVec>,
    /// Who signed the code; for SGX MRSIGNER.
    #[n(4)]
    pub signer: ByteVec,
    /// Product number; for SGX ISVPRODID.
    #[n(5)]
    pub product: u32,
    /// Security version; for SGX ISVSVN.
    #[n(6)]
    pub security_version: u32,
    /// Digest of the configuration that the TEE itself measured; for SGX CONFIGID, 64 bytes.
    #[n(7)]
    pub configuration: ByteVec,
    /// Always false: evidence of a debuggable enclave is refused before this is made.
    #[n(8)]
    debug: bool,
}

/// What SGX measures of an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SgxMeasurement {
    /// Hash of the enclave's code and data.
    pub mr_enclave: [u8; 32],
    /// Hash of its signer's public key.
    pub mr_signer: [u8; 32],
    /// Product number.
    pub isv_prod_id: u16,
    /// Security version.
    pub isv_svn: u16,
    /// Configuration that the launcher fixed.
    pub config_id: [u8; 64],
}

impl CodeIdentity {
    /// The identity of an SGX enclave whose evidence rests on `trust_domain`.
    #[must_use]
    pub fn sgx(trust_domain: TrustDomain, measured: &SgxMeasurement) -> Self {
        Self {
            tee: TeeKind::Sgx,
            trust_domain: trust_domain.0,
            measurements: vec![measured.mr_enclave.to_vec().into()],
            signer: measured.mr_signer.to_vec().into(),
            product: u32::from(measured.isv_prod_id),
            security_version: u32::from(measured.isv_svn),
            configuration: measured.config_id.to_vec().into(),
            debug: false,
        }
    }

    /// SHA-256 of the canonical CBOR: what owners and users approve.
    ///
    /// # Errors
    /// [`CborError`] never in practice: every field has an encoding.
    pub fn digest(&self) -> Result<CodeIdentityDigest, CborError> {
        Ok(CodeIdentityDigest(Digest::of(&cbor::encode(self)?).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> SgxMeasurement {
        SgxMeasurement {
            mr_enclave: [1; 32],
            mr_signer: [2; 32],
            isv_prod_id: 1,
            isv_svn: 1,
            config_id: [0; 64],
        }
    }

    fn digest(domain: u8, measured: SgxMeasurement) -> CodeIdentityDigest {
        let domain = TrustDomain(Digest([domain; 32]));
        CodeIdentity::sgx(domain, &measured).digest().unwrap()
    }

    #[test]
    fn every_part_of_an_identity_changes_its_digest() {
        let base = digest(1, measured());
        let others = [
            digest(2, measured()),
            digest(
                1,
                SgxMeasurement {
                    mr_enclave: [9; 32],
                    ..measured()
                },
            ),
            digest(
                1,
                SgxMeasurement {
                    mr_signer: [9; 32],
                    ..measured()
                },
            ),
            digest(
                1,
                SgxMeasurement {
                    isv_prod_id: 9,
                    ..measured()
                },
            ),
            digest(
                1,
                SgxMeasurement {
                    isv_svn: 9,
                    ..measured()
                },
            ),
            digest(
                1,
                SgxMeasurement {
                    config_id: [9; 64],
                    ..measured()
                },
            ),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn the_canonical_form_of_an_identity_never_changes() {
        // Approvals are stored by this digest: changing the form would void them all. Given in spec/ as well.
        assert_eq!(
            digest(1, measured()).to_string(),
            "5d01a61cc539ecd0c655757fed92e91a26980e00f779d682630c2fb55b97bdae"
        );
    }
}

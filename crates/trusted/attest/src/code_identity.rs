//! What owners and users approve: exactly which code, in which kind of TEE, vouched for by whose root.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::{CodeIdentityDigest, Digest};

/// A kind of TEE. The numbers are part of the format and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TeeKind {
    /// Intel SGX: an enclave in a process.
    #[n(1)]
    Sgx,
    /// Intel TDX: a confidential virtual machine.
    #[n(2)]
    Tdx,
    /// AMD SEV-SNP: a confidential virtual machine.
    #[n(3)]
    Snp,
}

impl TeeKind {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
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
    /// The TEE's measurements, in its own order: see [`SgxMeasurement`], [`TdxMeasurement`], [`SnpMeasurement`].
    #[n(3)]
    pub measurements: Vec<ByteVec>,
    /// Who signed the code; empty bytes never occur, a TEE that was not told has zeros.
    #[n(4)]
    pub signer: ByteVec,
    /// Product number; 0 where the TEE has none.
    #[n(5)]
    pub product: u32,
    /// Security version; 0 where the TEE has none.
    #[n(6)]
    pub security_version: u32,
    /// Configuration that the TEE itself measured.
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

/// What TDX measures of a trust domain (Intel TDX module ABI, TDREPORT; the quote's TD report body).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxMeasurement {
    /// MRTD: what the domain was built from, which is its virtual firmware.
    pub mr_td: [u8; 48],
    /// RTMR 0 to 3: what was measured while it started (firmware configuration; kernel; command line and initrd; what the
    /// workload itself extends).
    pub rt_mr: [[u8; 48]; 4],
    /// MROWNER: who owns it, as the host said at launch.
    pub mr_owner: [u8; 48],
    /// MRCONFIGID: configuration, as the host said at launch.
    pub mr_config_id: [u8; 48],
    /// MROWNERCONFIG: the owner's configuration, as the host said at launch.
    pub mr_owner_config: [u8; 48],
    /// TDATTRIBUTES: features that weaken or strengthen it.
    pub td_attributes: [u8; 8],
    /// XFAM: extended processor features that it may use.
    pub xfam: [u8; 8],
}

/// What SEV-SNP measures of a virtual machine (AMD 56860, ATTESTATION_REPORT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnpMeasurement {
    /// MEASUREMENT: the launch digest.
    pub measurement: [u8; 48],
    /// ID_KEY_DIGEST: who signed the identity block; zeros if there was none.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST: who vouched for that key; zeros if nobody.
    pub author_key_digest: [u8; 48],
    /// GUEST_SVN: security version from the identity block.
    pub guest_svn: u32,
    /// FAMILY_ID from the identity block.
    pub family_id: [u8; 16],
    /// IMAGE_ID from the identity block.
    pub image_id: [u8; 16],
    /// HOST_DATA: what the host said at launch, 32 bytes.
    pub host_data: [u8; 32],
    /// POLICY: what the host may do to it, for example whether other hardware threads run beside it.
    pub policy: u64,
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

    /// The identity of a TDX domain: measurements are MRTD and RTMR 0 to 3, the signer is MROWNER, the configuration is
    /// MRCONFIGID, MROWNERCONFIG, TDATTRIBUTES and XFAM one after the other (112 bytes).
    #[must_use]
    pub fn tdx(trust_domain: TrustDomain, measured: &TdxMeasurement) -> Self {
        let measurements = core::iter::once(&measured.mr_td).chain(&measured.rt_mr);
        let configuration = [
            measured.mr_config_id.as_slice(),
            &measured.mr_owner_config,
            &measured.td_attributes,
            &measured.xfam,
        ];
        Self {
            tee: TeeKind::Tdx,
            trust_domain: trust_domain.0,
            measurements: measurements.map(|mr| mr.to_vec().into()).collect(),
            signer: measured.mr_owner.to_vec().into(),
            product: 0,
            security_version: 0,
            configuration: configuration.concat().into(),
            debug: false,
        }
    }

    /// The identity of an SEV-SNP virtual machine: one measurement; the signer is the identity key's digest, then the
    /// author key's (96 bytes); the configuration is HOST_DATA, FAMILY_ID, IMAGE_ID and POLICY, little-endian, one after
    /// the other (72 bytes).
    #[must_use]
    pub fn snp(trust_domain: TrustDomain, measured: &SnpMeasurement) -> Self {
        let policy = measured.policy.to_le_bytes();
        let signer = [measured.id_key_digest, measured.author_key_digest];
        let configuration = [
            measured.host_data.as_slice(),
            &measured.family_id,
            &measured.image_id,
            &policy,
        ];
        Self {
            tee: TeeKind::Snp,
            trust_domain: trust_domain.0,
            measurements: vec![measured.measurement.to_vec().into()],
            signer: signer.concat().into(),
            product: 0,
            security_version: measured.guest_svn,
            configuration: configuration.concat().into(),
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

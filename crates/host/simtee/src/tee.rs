//! The two kinds of TEE that the simulator plays, and what their quoting enclaves are.

use crate::measurement::sha256;

/// A kind of trusted execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum)]
pub enum Tee {
    /// An SGX enclave: quotes of version 3, sealing keys.
    #[default]
    Sgx,
    /// A TDX trust domain: quotes of version 4, no sealing key.
    Tdx,
}

/// What QE identity says about a quoting enclave, and what its report says.
pub(crate) struct QuotingEnclaveProfile {
    /// The name of its QE identity.
    pub(crate) identity: &'static str,
    /// ISVPRODID, as that of Intel's.
    pub(crate) isv_prod_id: u16,
    /// ISVSVN: the level that QE identity calls up to date.
    pub(crate) isv_svn: u16,
    /// The quoting enclave's bytes do not exist, so its measurement is the SHA-256 of a name.
    measurement_label: &'static [u8],
    signer_label: &'static [u8],
}

static SGX_QE: QuotingEnclaveProfile = QuotingEnclaveProfile {
    identity: "QE",
    isv_prod_id: 1,
    isv_svn: 8,
    measurement_label: b"sesemi simulated quoting enclave v1",
    signer_label: b"sesemi simulated quoting enclave signer v1",
};

static TD_QE: QuotingEnclaveProfile = QuotingEnclaveProfile {
    identity: "TD_QE",
    isv_prod_id: 2,
    isv_svn: 4,
    measurement_label: b"sesemi simulated TD quoting enclave v1",
    signer_label: b"sesemi simulated TD quoting enclave signer v1",
};

impl Tee {
    /// The quoting enclave that vouches for this kind.
    pub(crate) fn quoting_enclave(self) -> &'static QuotingEnclaveProfile {
        match self {
            Self::Sgx => &SGX_QE,
            Self::Tdx => &TD_QE,
        }
    }

    /// The file in `public/` that holds the collateral of this kind.
    pub fn collateral_file(self) -> &'static str {
        match self {
            Self::Sgx => "collateral.json",
            Self::Tdx => "collateral-tdx.json",
        }
    }
}

impl QuotingEnclaveProfile {
    pub(crate) fn mr_enclave(&self) -> [u8; 32] {
        sha256(self.measurement_label)
    }

    pub(crate) fn mr_signer(&self) -> [u8; 32] {
        sha256(self.signer_label)
    }
}

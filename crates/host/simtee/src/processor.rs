//! What a simulated processor says about itself: the SGX extension of its PCK certificate.
//!
//! Model, security versions and platform flags are constants, so that two simulated machines differ only in what
//! differs between two real ones: their identifiers and keys. The values describe a multi-package platform because
//! its certificate carries every field that a verifier may read.

use crate::{SimteeError, der};

/// The FMSPC (family, model, stepping, platform) of every simulated processor: `"\0SimTE"` in ASCII. No real
/// processor has it, so that a simulated platform is recognised at a glance.
pub const FMSPC: [u8; 6] = *b"\0SimTE";

/// The security versions of the processor's components.
pub(crate) const CPU_SVN: [u8; 16] = [11, 11, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
/// The security version of the provisioning certification enclave.
pub(crate) const PCE_SVN: u16 = 13;
/// The identity of the provisioning certification enclave.
pub(crate) const PCE_ID: [u8; 2] = [0, 0];

/// 1.2.840.113741.1.13.1 as arcs, for the certificate library.
pub(crate) const SGX_EXTENSION_OID: [u64; 7] = [1, 2, 840, 113_741, 1, 13, 1];
/// The same in DER, to which the extension's own fields append one or two arcs.
const SGX_ARCS: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

const PPID: u8 = 1;
const TCB: u8 = 2;
const PCEID: u8 = 3;
const FMSPC_FIELD: u8 = 4;
const SGX_TYPE: u8 = 5;
const PLATFORM_INSTANCE_ID: u8 = 6;
const CONFIGURATION: u8 = 7;

const TCB_PCE_SVN: u8 = 17;
const TCB_CPU_SVN: u8 = 18;
/// "Scalable": the type of the processors that have a platform CA.
const SGX_TYPE_SCALABLE: u8 = 1;

/// The identifiers by which one machine is told from another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The platform provisioning id, which allow-lists of machines name.
    #[serde(with = "hex::serde")]
    pub(crate) ppid: [u8; 16],
    /// The id of this instance of the platform's keys.
    #[serde(with = "hex::serde")]
    pub(crate) platform_instance_id: [u8; 16],
    /// The id of the quoting enclave, in the header of each quote.
    #[serde(with = "hex::serde")]
    pub(crate) qe_id: [u8; 16],
}

impl Identity {
    /// A new machine's identifiers.
    pub(crate) fn random(random: &ring::rand::SystemRandom) -> Result<Self, SimteeError> {
        fn id(random: &ring::rand::SystemRandom) -> Result<[u8; 16], SimteeError> {
            ring::rand::generate(random)
                .map(ring::rand::Random::expose)
                .map_err(|_| SimteeError::Randomness)
        }
        Ok(Self {
            ppid: id(random)?,
            platform_instance_id: id(random)?,
            qe_id: id(random)?,
        })
    }

    /// The content of extension 1.2.840.113741.1.13.1.
    pub(crate) fn sgx_extension(&self) -> Vec<u8> {
        der::sequence([
            field(&[PPID], der::octet_string(&self.ppid)),
            field(&[TCB], tcb()),
            field(&[PCEID], der::octet_string(&PCE_ID)),
            field(&[FMSPC_FIELD], der::octet_string(&FMSPC)),
            field(&[SGX_TYPE], der::enumerated(SGX_TYPE_SCALABLE)),
            field(
                &[PLATFORM_INSTANCE_ID],
                der::octet_string(&self.platform_instance_id),
            ),
            field(&[CONFIGURATION], configuration()),
        ])
    }
}

fn tcb() -> Vec<u8> {
    let components = (1u8..)
        .zip(CPU_SVN)
        .map(|(n, svn)| field(&[TCB, n], der::integer(svn.into())));
    let totals = [
        field(&[TCB, TCB_PCE_SVN], der::integer(PCE_SVN)),
        field(&[TCB, TCB_CPU_SVN], der::octet_string(&CPU_SVN)),
    ];
    der::sequence(components.chain(totals))
}

/// Dynamic platform, cached keys and SMT, all off: strict verifiers refuse a platform that has any of them.
fn configuration() -> Vec<u8> {
    der::sequence((1..=3).map(|flag| field(&[CONFIGURATION, flag], der::boolean(false))))
}

fn field(arcs: &[u8], value: Vec<u8>) -> Vec<u8> {
    der::sequence([
        der::object_identifier(&[SGX_ARCS.as_slice(), arcs].concat()),
        value,
    ])
}

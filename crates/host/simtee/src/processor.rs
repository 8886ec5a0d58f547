//! What a simulated processor says about itself: the SGX extension of its PCK certificate.
//!
//! Model, security versions and platform flags are constants, so that two healthy simulated machines differ only in
//! what differs between two real ones: their identifiers and keys. The values describe a multi-package platform because
//! its certificate carries every field that a verifier may read.

use crate::fault::{Fault, Faults};
use crate::{SimteeError, der};

/// The FMSPC (family, model, stepping, platform) of every simulated processor: `"\0SimTE"` in ASCII. No real
/// processor has it, so that a simulated platform is recognised at a glance.
pub const FMSPC: [u8; 6] = *b"\0SimTE";

/// The security versions of the processor's components.
pub(crate) const CPU_SVN: [u8; 16] = [11, 11, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
/// The security version of the provisioning certification enclave.
pub(crate) const PCE_SVN: u16 = 13;
/// The lowest version of that enclave that any level of TCB info lists.
pub(crate) const LOWEST_PCE_SVN: u16 = 5;
/// The security versions of the TDX module and what it depends on: the module's own version and its major version, then
/// the microcode's.
pub(crate) const TEE_TCB_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
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
    pub(crate) fn sgx_extension(&self, platform: &Platform) -> Vec<u8> {
        der::sequence([
            field(&[PPID], der::octet_string(&self.ppid)),
            field(&[TCB], tcb(platform.pce_svn)),
            field(&[PCEID], der::octet_string(&PCE_ID)),
            field(&[FMSPC_FIELD], der::octet_string(&FMSPC)),
            field(&[SGX_TYPE], der::enumerated(SGX_TYPE_SCALABLE)),
            field(
                &[PLATFORM_INSTANCE_ID],
                der::octet_string(&self.platform_instance_id),
            ),
            field(&[CONFIGURATION], configuration(platform.flags)),
        ])
    }
}

/// What a fault can change about the platform, and its PCK certificate then says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Platform {
    /// The security version of the provisioning certification enclave.
    pub(crate) pce_svn: u16,
    /// Dynamic platform, cached keys and SMT. A strict verifier refuses each.
    flags: [bool; 3],
}

impl Platform {
    /// A platform without faults.
    pub(crate) const HEALTHY: Self = Self {
        pce_svn: PCE_SVN,
        flags: [false; 3],
    };

    /// The platform under these faults.
    pub(crate) fn under(faults: &Faults) -> Self {
        Self {
            pce_svn: if faults.has(&Fault::PceSvnBelowLevels) {
                LOWEST_PCE_SVN.saturating_sub(1)
            } else {
                PCE_SVN
            },
            flags: [Fault::DynamicPlatform, Fault::CachedKeys, Fault::Smt]
                .map(|flag| faults.has(&flag)),
        }
    }
}

fn tcb(pce_svn: u16) -> Vec<u8> {
    let components = (1u8..)
        .zip(CPU_SVN)
        .map(|(n, svn)| field(&[TCB, n], der::integer(svn.into())));
    let totals = [
        field(&[TCB, TCB_PCE_SVN], der::integer(pce_svn)),
        field(&[TCB, TCB_CPU_SVN], der::octet_string(&CPU_SVN)),
    ];
    der::sequence(components.chain(totals))
}

fn configuration(flags: [bool; 3]) -> Vec<u8> {
    der::sequence(
        (1..)
            .zip(flags)
            .map(|(n, flag)| field(&[CONFIGURATION, n], der::boolean(flag))),
    )
}

fn field(arcs: &[u8], value: Vec<u8>) -> Vec<u8> {
    der::sequence([
        der::object_identifier(&[SGX_ARCS.as_slice(), arcs].concat()),
        value,
    ])
}

//! What the simulated TEE will measure of a program, as `simtee measure --json` says. The simulator alone defines it: the
//! hash of the file, and fixed values for everything else.

use serde::Deserialize;
use sesemi_attest::code_identity::{SgxMeasurement, TdxMeasurement};

use super::Measurement;
use super::digits::Hex;

/// A kind of TEE that the simulator plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedKind {
    /// An SGX enclave.
    Sgx,
    /// A TDX domain.
    Tdx,
}

#[derive(Deserialize)]
struct Sgx {
    mr_enclave: Hex<32>,
    mr_signer: Hex<32>,
    isv_prod_id: u16,
    isv_svn: u16,
    config_id: Hex<64>,
}

#[derive(Deserialize)]
struct Tdx {
    mr_td: Hex<48>,
    rt_mr: [Hex<48>; 4],
    mr_owner: Hex<48>,
    mr_config_id: Hex<48>,
    mr_owner_config: Hex<48>,
    td_attributes: Hex<8>,
    xfam: Hex<8>,
}

/// The measurement that `simtee measure --tee KIND --json` wrote.
///
/// # Errors
/// [`serde_json::Error`] if it wrote something else.
pub fn from_json(kind: SimulatedKind, json: &[u8]) -> Result<Measurement, serde_json::Error> {
    Ok(match kind {
        SimulatedKind::Sgx => {
            let said: Sgx = serde_json::from_slice(json)?;
            Measurement::Sgx(SgxMeasurement {
                mr_enclave: said.mr_enclave.0,
                mr_signer: said.mr_signer.0,
                isv_prod_id: said.isv_prod_id,
                isv_svn: said.isv_svn,
                config_id: said.config_id.0,
            })
        }
        SimulatedKind::Tdx => {
            let said: Tdx = serde_json::from_slice(json)?;
            Measurement::Tdx(TdxMeasurement {
                mr_td: said.mr_td.0,
                rt_mr: said.rt_mr.map(|register| register.0),
                mr_owner: said.mr_owner.0,
                mr_config_id: said.mr_config_id.0,
                mr_owner_config: said.mr_owner_config.0,
                td_attributes: said.td_attributes.0,
                xfam: said.xfam.0,
            })
        }
    })
}

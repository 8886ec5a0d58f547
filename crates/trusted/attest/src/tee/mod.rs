//! The TEEs that this code can run in. Which one it is, is found out from what the machine offers, never from a flag or an
//! environment variable of the host; and if the host fakes one, no verifier believes the evidence. Hardware that is there
//! but cannot be used is an error: nothing falls back to the simulator.
//!
//! [`gramine`] is SGX. [`configfs`] is what Linux has for every confidential virtual machine, and [`tdx`] and [`snp`] are
//! what differs between them. [`simulated`] protects nothing. [`files`] is the device files' interface, which tests play.
//!
//! Whatever a TEE gives as evidence is compared with what was asked before it is handed on: evidence about somebody else's
//! report data would be refused by the other side, where the cause no longer shows.

pub mod certificate_table;
pub mod configfs;
mod device;
pub mod files;
pub mod gramine;
pub mod simulated;
pub mod snp;
mod snp_firmware;
pub mod tdx;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use sesemi_protocol::{SecretKey, kdf};

use self::files::{Files, SystemFiles};
use crate::attester::{Attester, AttesterError};

/// Salt of every sealing key that is stretched from a key of the hardware.
const STRETCH: &[u8] = b"sesemi/v1/tee-key";
/// The devices of the guest drivers of confidential virtual machines, and the names of their TEEs.
const GUEST_DEVICES: [(&str, &str); 2] = [("tdx_guest", "tdx"), ("sev-guest", "snp")];

/// Where a machine shows which TEEs it has.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// The folder of devices: `/dev`.
    pub dev: &'a Path,
    /// The folder of attestation reports in configfs: `/sys/kernel/config/tsm/report`.
    pub tsm: &'a Path,
    /// Where the simulator's socket would be: standard input.
    pub input: BorrowedFd<'a>,
}

/// The TEE that this process runs in. Call it before the asynchronous runtime starts: it waits for the hardware.
///
/// # Errors
/// [`AttesterError::NoTee`] if there is none; another [`AttesterError`] if there is one that cannot be used.
pub fn detect() -> Result<Arc<dyn Attester>, AttesterError> {
    let input = std::io::stdin();
    detect_in(&Roots {
        dev: Path::new("/dev"),
        tsm: Path::new("/sys/kernel/config/tsm/report"),
        input: input.as_fd(),
    })
}

/// Like [`detect`], on a machine whose devices are elsewhere.
///
/// # Errors
/// As [`detect`].
pub fn detect_in(roots: &Roots<'_>) -> Result<Arc<dyn Attester>, AttesterError> {
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    let attestation = roots.dev.join("attestation");
    if attestation.try_exists()? {
        let gramine = gramine::Gramine::open(&attestation, files, gramine::DEADLINE)?;
        return Ok(Arc::new(gramine));
    }
    if roots.tsm.try_exists()? {
        let limits = configfs::Limits::default();
        let keys = Arc::new(snp_firmware::Firmware);
        if let Some(tee) = configfs::open(roots.tsm, files, limits, keys)? {
            return Ok(tee);
        }
    }
    for (device, tee) in GUEST_DEVICES {
        if roots.dev.join(device).try_exists()? {
            return Err(AttesterError::Unusable {
                tee,
                hint: "Linux offers no report for it: mount configfs at /sys/kernel/config and let this program write to tsm/report in it (Linux 6.7 or later)",
            });
        }
    }
    match simulated::SimulatedTee::detect(roots.input)? {
        Some(tee) => Ok(Arc::new(tee)),
        None => Err(AttesterError::NoTee),
    }
}

/// A sealing key from a key of the hardware, which has another length, or is used by others too, or for other purposes.
fn stretch(key: &[u8], purpose: &str) -> Result<SecretKey, AttesterError> {
    if key.iter().all(|byte| *byte == 0) {
        return Err(AttesterError::Contract("its key is all zeros"));
    }
    Ok(kdf::derive(key, STRETCH, purpose.as_bytes())?)
}

/// Evidence that is about other report data than was asked for goes nowhere.
fn require_report_data(found: Option<&[u8]>, asked: &[u8; 64]) -> Result<(), AttesterError> {
    match found {
        Some(found) if found == asked => Ok(()),
        Some(_) => Err(AttesterError::Contract(
            "its evidence is about other report data than was asked for",
        )),
        None => Err(AttesterError::Contract(
            "its evidence is too short to hold report data",
        )),
    }
}

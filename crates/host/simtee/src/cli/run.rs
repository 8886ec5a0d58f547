//! `simtee run`: a program as an enclave or a trust domain.
//!
//! The main thread starts it and waits for it, because the kernel kills it when the thread that started it ends; another
//! thread forwards signals.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::SystemTime;

use sesemi_simtee::{Enclave, Machine, Signaller, StopSignal, Tee};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::machine::{load, warn_if_dynamic};
use super::{Outcome, die_with_parent, output};

pub(crate) fn run(
    state: &Path,
    tee: Tee,
    isv_svn: Option<u16>,
    libraries: &[PathBuf],
    with_parent: bool,
    command: &[OsString],
) -> Outcome {
    die_with_parent(with_parent)?;
    let (binary, arguments) = command.split_first().ok_or("no program was given")?;
    let machine = Machine::load(state)?;
    warn_of_faults(&machine);
    let image = load(Path::new(binary), libraries)?;
    let image = match (tee, isv_svn) {
        (_, None) => image,
        (Tee::Sgx, Some(isv_svn)) => image.with_isv_svn(isv_svn),
        (Tee::Tdx, Some(_)) => {
            return Err("--isv-svn is for SGX: a trust domain has no security version".into());
        }
    };
    warn_if_dynamic(&image, Path::new(binary));
    // From here on a signal waits until there is an enclave to forward it to.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let mut enclave = image.launch_in(tee, Arc::new(machine), arguments)?;
    forward(signals, enclave.signaller()?)?;
    let status = enclave.wait()?;
    report_device_failure(&mut enclave);
    Ok(exit_code(status))
}

/// Faults are there on purpose, but perhaps not on the purpose of whoever starts a program now.
fn warn_of_faults(machine: &Machine) {
    if !machine.faults().is_empty() {
        output::warn(
            "this machine misbehaves on purpose; `simtee fault --state DIR list` shows how, and `clear` instead of `list` ends it",
        );
    } else if machine.collateral_expires() < SystemTime::now() {
        output::warn(
            "the collateral has expired and verifiers will refuse this machine's quotes; run `simtee init` to renew it",
        );
    }
}

fn forward(mut signals: Signals, signaller: Signaller) -> std::io::Result<()> {
    let forwarder = std::thread::Builder::new().name("simtee-signals".to_owned());
    forwarder.spawn(move || {
        for signal in signals.forever() {
            let stop = if signal == SIGINT {
                StopSignal::Interrupt
            } else {
                StopSignal::Terminate
            };
            if let Err(error) = signaller.send(stop) {
                output::report(&error);
            }
        }
    })?;
    Ok(())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

fn report_device_failure(enclave: &mut Enclave) {
    if let Some(failure) = enclave.device_failure() {
        output::report(&failure);
    }
}

//! `sesemi doctor`: what this machine offers, TEE by TEE and measure by measure.
//!
//! It reads files that the kernel shows and changes nothing. What it finds helps whoever sets a machine up; it proves
//! nothing to anybody else, because a host can show its guests whatever it likes. Only verified evidence proves.

mod machine;
mod report;
mod tee;

use crate::args::DoctorArgs;
use crate::error::{CliError, file};
use crate::up;

pub use machine::Machine;
pub use report::{Fact, Report, Section, State};

/// `sesemi doctor`.
///
/// # Errors
/// [`CliError::File`] if the kernel's own description of the machine cannot be read.
pub fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let binaries = up::binaries(args.bin_dir.clone())?;
    let mut report = examine(&Machine::this(), &binaries)?;
    report.sections.push(hardening());
    if args.json {
        anstream::println!("{}", report.as_json());
    } else {
        anstream::print!("{report}");
    }
    Ok(())
}

/// What a machine offers, with the binaries in this folder.
///
/// # Errors
/// [`CliError::File`] if its processor and kernel cannot be told.
pub fn examine(machine: &Machine, binaries: &std::path::Path) -> Result<Report, CliError> {
    let processor = machine.processor().map_err(file("/proc/cpuinfo"))?;
    let release = machine.text("proc/sys/kernel/osrelease");
    let kernel = release.map_err(file("/proc/sys/kernel/osrelease"))?;
    Ok(tee::examine(machine, &processor, &kernel, binaries))
}

/// The measures of the operating system that the trusted services take, and that keys of clients rest on.
fn hardening() -> Section {
    use sesemi_hardening::sandbox::{State as Offer, probe};
    let fact = |measure: sesemi_hardening::sandbox::Measure| {
        let state = match measure.state {
            Offer::Enforced | Offer::Offered => State::Ready,
            Offer::Weak => State::Weak,
            Offer::NotOffered => State::Absent,
            Offer::LeftToLibraryOs => State::Info,
        };
        Fact::new(measure.name, state, measure.detail)
    };
    Section {
        name: "hardening",
        about: "measures of the operating system, besides any TEE",
        facts: probe().into_iter().map(fact).collect(),
    }
}

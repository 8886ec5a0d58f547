//! What the subcommands do, one file for each part, and how they print.

pub(crate) mod fault;
pub(crate) mod machine;
pub(crate) mod output;
pub(crate) mod run;
pub(crate) mod serve;

use std::error::Error;
use std::process::ExitCode;

/// The end of a subcommand.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Asks the kernel for SIGTERM when the process that started this one ends.
pub(crate) fn die_with_parent(wanted: bool) -> std::io::Result<()> {
    if wanted {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    Ok(())
}

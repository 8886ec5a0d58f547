//! `simtee fault`: makes a machine misbehave, says how it does, and heals it.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::json;
use sesemi_simtee::{Fault, Machine};

use super::{Outcome, output};

/// A fault to apply, or what to do with those that are there.
#[derive(Subcommand)]
pub(crate) enum FaultCommand {
    /// Remove all faults.
    Clear,
    /// Print the faults that are in effect and change nothing.
    List,
    #[command(flatten)]
    Apply(Fault),
}

pub(crate) fn fault(state: &Path, json: bool, command: FaultCommand) -> Outcome {
    let mut machine = Machine::load(state)?;
    match command {
        FaultCommand::List => {}
        FaultCommand::Apply(fault) => machine.apply(fault)?,
        FaultCommand::Clear => {
            machine.heal()?;
            let now = SystemTime::now();
            if machine.needs_renewal(now) {
                machine.renew_collateral(now)?;
            }
        }
    }
    let faults = machine.faults();
    if json {
        output::print(
            &json!({ "state": state.to_string_lossy(), "faults": faults, "simulated": true })
                .to_string(),
        )?;
    } else if faults.is_empty() {
        output::print("no faults")?;
    } else {
        for fault in faults {
            output::print(&serde_json::to_string(fault)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! `cargo xtask crash`: kills a service at random instants. `crates/crash` does it; here what it found becomes a result.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::binaries::{CRASH, KEYSERVICE, SIMTEE};
use crate::measurement::{self, Figure, Measurement};
use crate::{Outcome, build, output};

/// What `sesemi-crash` prints.
#[derive(Deserialize)]
struct Findings {
    seed: u64,
    rounds: u64,
    kills: Kills,
    sent: u64,
    acknowledged: u64,
    repeated: u64,
    entries: u64,
    compared: u64,
    restarts: u64,
    recovered: u64,
    seconds: f64,
    lost: u64,
    phantom: u64,
    chain_breaks: u64,
}

/// Kills by the moment into which they fell.
#[derive(Deserialize)]
struct Kills {
    load: u64,
    snapshot: u64,
    backup: u64,
    start: u64,
    recovery: u64,
}

impl Kills {
    fn total(&self) -> u64 {
        self.load + self.snapshot + self.backup + self.start + self.recovery
    }
}

/// The command `cargo xtask crash keyservice`.
pub(crate) fn keyservice(kills: u32, seed: Option<u64>, json: Option<&Path>) -> Outcome<()> {
    let (machine, commit) = (measurement::machine()?, measurement::commit()?);
    let keyservice = build::build_one(KEYSERVICE)?;
    build::build_one(SIMTEE)?;
    let program = build::build_tool(&CRASH)?;
    let folder = keyservice.parent().ok_or("the binaries are in no folder")?;
    let mut command = Command::new(program);
    command.arg("--bin-dir").arg(folder);
    command.args(["--kills", &kills.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    let findings = run(&mut command)?;
    let measurement = Measurement {
        machine,
        commit,
        tee: "simulated".into(),
        engines: Vec::new(),
        threads: None,
        command: format!(
            "cargo xtask crash keyservice --kills {kills} --seed {} --json FILE",
            findings.seed
        ),
        figures: figures(&findings, kills)?,
    };
    if let Some(file) = json {
        output::write_json(file, &measurement)?;
    }
    output::print(&in_words(&measurement))?;
    verdict(&findings)
}

/// Runs it. What it tells people goes to this terminal. It fails if it found something, and says what all the same.
fn run(command: &mut Command) -> Outcome<Findings> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", CRASH.name))?;
    serde_json::from_slice(&done.stdout).map_err(|_| {
        format!(
            "{} came to no result ({}), see above",
            CRASH.name, done.status
        )
    })
}

fn figures(found: &Findings, kills: u32) -> Outcome<Vec<Figure>> {
    let figure = |name: &str, unit: &str, value: f64| {
        Figure::of(&format!("crash.{name}"), unit, &[value])
            .ok_or_else(|| format!("there is no {name}"))
    };
    let count = |name: &str, unit: &str, value: u64| figure(name, unit, value as f64);
    let none = |name: &str, value: u64| {
        count(name, name, value).map(|figure| figure.with_aim_at_most(0.0))
    };
    let total = found.kills.total();
    Ok(vec![
        count("kills", "kills", total)?.with_aim_at_least(f64::from(kills)),
        none("lost", found.lost)?,
        none("phantom", found.phantom)?,
        none("chain_breaks", found.chain_breaks)?,
        count("acknowledged", "commands", found.acknowledged)?,
        count("sent", "commands", found.sent)?,
        count("repeated", "commands", found.repeated)?,
        count("entries_verified", "entries", found.entries)?,
        count("lists_compared", "lists", found.compared)?,
        count("services", "services", found.rounds)?,
        count("restarts", "starts", found.restarts)?,
        count("recovered", "recoveries", found.recovered)?,
        count("kills_under_load", "kills", found.kills.load)?,
        count("kills_in_snapshot", "kills", found.kills.snapshot)?,
        count("kills_in_backup", "kills", found.kills.backup)?,
        count("kills_in_start", "kills", found.kills.start)?,
        count("kills_in_recovery", "kills", found.kills.recovery)?,
        figure("seconds", "s", found.seconds)?,
    ])
}

fn in_words(measurement: &Measurement) -> String {
    let rows = measurement.figures.iter().map(|figure| {
        let name = figure.name.trim_start_matches("crash.");
        format!("{name:<20} {:>12}\n", figure.value)
    });
    let head = format!(
        "{}, TEE: {}, commit {}\n",
        measurement.machine, measurement.tee, measurement.commit
    );
    core::iter::once(head).chain(rows).collect()
}

fn verdict(found: &Findings) -> Outcome<()> {
    if (found.lost, found.phantom, found.chain_breaks) == (0, 0, 0) {
        return Ok(());
    }
    Err(format!(
        "{} lost, {} that nobody sent, {} chain breaks, see above; the seed is {}",
        found.lost, found.phantom, found.chain_breaks, found.seed
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(lost: u64) -> Findings {
        let json = r#"{"seed": 7, "rounds": 1, "kills": {"load": 5, "snapshot": 1, "backup": 1, "start": 2, "recovery": 1},
            "sent": 100, "acknowledged": 90, "refused": 5, "repeated": 5, "entries": 91, "compared": 8, "restarts": 8,
            "recovered": 1, "seconds": 3.5, "lost": 0, "phantom": 0, "chain_breaks": 0, "told": []}"#;
        Findings {
            lost,
            ..serde_json::from_str(json).unwrap()
        }
    }

    #[test]
    fn kills_of_all_moments_are_counted_together() {
        let figures = figures(&findings(0), 10).unwrap();
        let kills = figures.iter().find(|it| it.name == "crash.kills").unwrap();
        assert_eq!((kills.value, kills.met), (10.0, Some(true)));
    }

    #[test]
    fn what_is_lost_fails_the_run_and_its_aim() {
        assert_eq!(verdict(&findings(0)), Ok(()));
        assert!(verdict(&findings(1)).unwrap_err().contains("seed is 7"));
        let figures = figures(&findings(1), 10).unwrap();
        let lost = figures.iter().find(|it| it.name == "crash.lost").unwrap();
        assert_eq!((lost.value, lost.met), (1.0, Some(false)));
    }
}

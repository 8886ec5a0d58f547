//! Kills KeyService with SIGKILL at random instants, starts it again, and compares its state with what its clients hold: every
//! receipt must be good, and nothing may be there that nobody sent.
//!
//! The service is the real program in the simulated TEE, on a real disk. Its clients speak the protocol themselves. A kill of
//! the process loses what the process had not given to the kernel, not what the kernel had not given to the disk: for
//! that the log's own tests have a disk that forgets.
//!
//! - [`run`]: round after round until there were enough kills; [`round`]: one service, from its founding on;
//! - [`commands`]: what clients may say next; [`client`]: how they say it;
//! - [`book`]: what was sent and acknowledged, compared with the log; [`expected`], [`lists`]: with the state;
//! - [`full_disk`]: a service that can no longer write;
//! - [`lab`], [`process`]: machine and process; [`backup`]: an operator.

#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects)]

use std::time::Instant;

use crate::error::CrashError;
use crate::findings::Findings;
use crate::lab::Programs;
use crate::random::Random;
use crate::round::Round;

pub mod backup;
pub mod book;
pub mod client;
pub mod commands;
pub mod error;
pub mod expected;
pub mod findings;
pub mod full_disk;
pub mod lab;
pub mod lists;
pub mod process;
pub mod random;
pub mod round;

/// Kills in one round, at most: then a new service is founded.
const ROUND: u64 = 50;

/// Kills the service so many times; `progress` is told after every round, and what it found so far.
///
/// # Errors
/// [`CrashError`] if the run could not go on.
pub async fn run(
    programs: &Programs,
    kills: u64,
    seed: u64,
    mut progress: impl FnMut(&Findings),
) -> Result<Findings, CrashError> {
    let started = Instant::now();
    let mut random = Random::new(seed);
    let mut findings = Findings {
        seed,
        ..Findings::default()
    };
    while findings.kills.total() < kills && findings.clean() {
        findings.rounds += 1;
        // Every other service has custodians, and is moved to other machines.
        let custodians = findings.rounds % 2 == 1;
        let left = (kills - findings.kills.total()).min(ROUND);
        let round = Round::new(programs, findings, random.fork(), custodians, left)?;
        findings = round.play().await?;
        findings.seconds = started.elapsed().as_secs_f64();
        progress(&findings);
    }
    Ok(findings)
}

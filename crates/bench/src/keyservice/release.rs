//! Releases on the kept connection of a simulated enclave, each for another user and model, with many grants and with few, in turns.
//!
//! Both services, their servers and the enclaves are in this process on one core, in a runtime of one thread, as in the other
//! measurements of releases. The services record releases meanwhile, as they always do.

use std::time::Duration;

use sesemi_attest::session::KeyServiceSession;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::{ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{ModelVersion, VersionSelector};

use super::build::{Shape, State, user};
use super::p50_p99;
use crate::enclave::Lab;
use crate::error::BenchError;
use crate::figures::Samples;
use crate::service::{ANSWER, Running};
use crate::stay_on_this_core;
use crate::stopwatch::Stopwatch;

/// Releases in a round, with many grants and with few.
const RELEASES: usize = 2_000;
/// A break between rounds, in which records are written: otherwise they would pile up.
const BREAK: Duration = Duration::from_millis(500);

/// One service and an enclave's connection to it.
struct Side<'a> {
    running: Running,
    session: KeyServiceSession,
    shape: &'a Shape,
    /// How many requests were made: it says who asks for what next.
    made: usize,
}

pub(super) fn measure(
    lab: &Lab,
    few: &State,
    many: &State,
    rounds: usize,
) -> Result<Vec<Samples>, BenchError> {
    stay_on_this_core()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut few = Side::start(lab, few).await?;
        let mut many = Side::start(lab, many).await?;
        let samples = rounds_of(&mut few, &mut many, rounds).await;
        few.running.stop().await?;
        many.running.stop().await?;
        samples
    })
}

async fn rounds_of(
    few: &mut Side<'_>,
    many: &mut Side<'_>,
    rounds: usize,
) -> Result<Vec<Samples>, BenchError> {
    let (mut p50, mut p99, mut growth, mut cpu) = (vec![], vec![], vec![], vec![]);
    // One more to warm up.
    for round in 0..=rounds {
        let (mut of_few, mut of_many, mut cpu_of_many) = (vec![], vec![], vec![]);
        for _ in 0..RELEASES {
            of_few.push(few.release().await?.0);
            let (wall, cpu) = many.release().await?;
            of_many.push(wall);
            cpu_of_many.push(cpu);
        }
        tokio::time::sleep(BREAK).await;
        if round == 0 {
            continue;
        }
        let none = || BenchError::Unexpected("there are no samples");
        let (middle, most) = p50_p99(&mut of_many).ok_or_else(none)?;
        let (middle_of_few, _) = p50_p99(&mut of_few).ok_or_else(none)?;
        p50.push(middle);
        p99.push(most);
        growth.push(middle / middle_of_few);
        cpu.push(p50_p99(&mut cpu_of_many).ok_or_else(none)?.0);
    }
    Ok(vec![
        Samples::new("keyservice.release_ms_p50", "ms", p50).at_most(0.3),
        Samples::new("keyservice.release_ms_p99", "ms", p99).at_most(2.0),
        Samples::new("keyservice.release_growth", "times 1000 grants", growth).at_most(1.5),
        Samples::new("keyservice.release_cpu_ms_p50", "ms", cpu),
    ])
}

impl<'a> Side<'a> {
    async fn start(lab: &Lab, state: &'a State) -> Result<Self, BenchError> {
        let running = Running::start(lab, state.folder.path()).await?;
        let session = running.session(lab)?;
        Ok(Self {
            running,
            session,
            shape: &state.shape,
            made: 0,
        })
    }

    /// One release, as far from the last as possible; wall clock and CPU time in milliseconds.
    async fn release(&mut self) -> Result<(f64, f64), BenchError> {
        // Both factors are prime, so that all users and models get their turn.
        let number = self.made.wrapping_mul(7919) % self.shape.users;
        let grant = self.made.wrapping_mul(31);
        self.made += 1;
        let model = self.shape.granted(number, grant)?;
        let request = ReleaseRequest {
            model: sesemi_protocol::ModelTarget {
                model,
                version: VersionSelector::Exact(ModelVersion::new(1)?),
            },
            user: user(number)?.public().principal_id(),
            key: RequestKeyName::all_models(1),
            seen: Point::START,
        };
        let call = CallBody::Release(vec![request]);
        let watch = Stopwatch::start();
        let reply = self.session.call(call, ANSWER).await?;
        let lap = watch.stop();
        match reply {
            ReplyBody::Released(outcomes)
                if matches!(outcomes.as_slice(), [ReleaseOutcome::Lease(_)]) =>
            {
                Ok((lap.wall.as_secs_f64() * 1e3, lap.cpu.as_secs_f64() * 1e3))
            }
            _ => Err(BenchError::Unexpected("KeyService gave no lease")),
        }
    }
}

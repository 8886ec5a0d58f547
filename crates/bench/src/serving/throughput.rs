//! What four callers get served a second by one instance with as many slots, next to the engine called by four threads, in turns.

use super::callers::at_once;
use super::model::Prepared;
use super::{Alone, CALLERS, ENOUGH_MIB, Plan, Stage, WARM_UP, load};
use crate::error::BenchError;
use crate::figures::Samples;

/// About how long one side of a round is, in seconds.
const WINDOW: f64 = 2.0;
/// Most requests of each caller in a round.
const MOST: f64 = 4_000.0;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Samples>, BenchError> {
    plan.each_model(|stage, prepared| measure_model(plan, stage, prepared))
}

fn measure_model(
    plan: &Plan,
    stage: &mut Stage,
    prepared: &Prepared,
) -> Result<Vec<Samples>, BenchError> {
    let Stage {
        local,
        site,
        launcher,
    } = stage;
    let pushed = site.push(prepared, 1)?;
    let users = (0..CALLERS).map(|_| site.user(std::slice::from_ref(&pushed), launcher.code));
    let mut users = users.collect::<Result<Vec<_>, _>>()?;
    let loaded = load(local, prepared)?;
    let alone = (0..CALLERS).map(|_| Alone::of(&*loaded, prepared));
    let mut alone = alone.collect::<Result<Vec<_>, _>>()?;
    let instance = launcher.launch(&site.arguments(&plan.chosen, CALLERS, ENOUGH_MIB))?;
    let serve = |users, each: usize| {
        at_once(users, |user: &mut super::site::Caller| {
            for _ in 0..each {
                user.call(&instance.gateway, &pushed, prepared)?;
            }
            Ok(())
        })
    };
    let run = |alone, each: usize| {
        at_once(alone, |one: &mut Alone<'_>| {
            for _ in 0..each {
                one.run()?;
            }
            Ok(())
        })
    };
    (_, users) = serve(users, WARM_UP)?;
    let (took, warm) = run(alone, WARM_UP)?;
    alone = warm;
    let each = WINDOW * WARM_UP as f64 / took.as_secs_f64();
    let each = each.clamp(2.0, MOST) as usize;

    let (mut ratio, mut served, mut engine) = (vec![], vec![], vec![]);
    let a_second = |took: std::time::Duration| (each * CALLERS) as f64 / took.as_secs_f64();
    for round in plan.rounds("throughput", prepared.model, plan.runs) {
        let (of_users, of_alone);
        if round % 2 == 0 {
            (of_users, users) = serve(users, each)?;
            (of_alone, alone) = run(alone, each)?;
        } else {
            (of_alone, alone) = run(alone, each)?;
            (of_users, users) = serve(users, each)?;
        }
        ratio.push(of_alone.as_secs_f64() / of_users.as_secs_f64());
        served.push(a_second(of_users));
        engine.push(a_second(of_alone));
    }
    launcher.stop_all()?;
    let name = |what: &str| plan.chosen.figure(what, prepared.model);
    Ok(vec![
        Samples::new(name("throughput.ratio"), "times the engine", ratio).at_least(0.95),
        Samples::new(name("throughput.served"), "requests/s", served),
        Samples::new(name("throughput.engine"), "runs/s", engine),
    ])
}

//! A hot request next to a run of the engine in this process, in turns, on one loaded copy each.

use sesemi::Path;

use super::bound::ms;
use super::model::{Model, Prepared};
use super::steps::Steps;
use super::{Alone, ENOUGH_MIB, Plan, Stage, WARM_UP, load};
use crate::error::BenchError;
use crate::figures::Samples;

/// How much oftener the tiny model is measured: its requests take less than a millisecond.
const TINY: usize = 50;

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
    let (chosen, model) = (&plan.chosen, prepared.model);
    let pushed = site.push(prepared, 1)?;
    let caller = site.user(std::slice::from_ref(&pushed), launcher.code)?;
    let loaded = load(local, prepared)?;
    let mut alone = Alone::of(&*loaded, prepared)?;
    let instance = launcher.launch(&site.arguments(chosen, 1, ENOUGH_MIB))?;
    let call = || caller.call(&instance.gateway, &pushed, prepared);
    for _ in 0..WARM_UP {
        alone.run()?;
        call()?;
    }

    let runs = plan.runs * if model == Model::Tiny { TINY } else { 1 };
    let (mut ratio, mut added, mut engine) = (vec![], vec![], vec![]);
    let mut steps = Steps::default();
    for round in plan.rounds("hot", model, runs) {
        // Whoever comes second may find the caches warmer.
        let (served, run) = if round % 2 == 0 {
            let served = call()?;
            (served, alone.run()?)
        } else {
            let run = alone.run()?;
            (call()?, run)
        };
        let (took, inference) = served;
        if inference.report.path != Path::Hot {
            return Err(BenchError::Unexpected("a request was not hot"));
        }
        ratio.push(took.as_secs_f64() / run.as_secs_f64());
        added.push(ms(took) - ms(run));
        engine.push(ms(run));
        steps.add(ms(took), inference.report);
    }
    launcher.stop_all()?;
    Ok(figures(plan, model, ratio, added, engine, &steps))
}

fn figures(
    plan: &Plan,
    model: Model,
    ratio: Vec<f64>,
    added: Vec<f64>,
    engine: Vec<f64>,
    steps: &Steps,
) -> Vec<Samples> {
    let name = |what: &str| plan.chosen.figure(what, model);
    if model == Model::Tiny {
        let name = format!("hot.tiny_ms.{}", plan.chosen.name.as_str());
        let mut all = vec![Samples::new(name.clone(), "ms", steps.total().to_vec()).at_most(0.4)];
        all.extend(steps.samples(&name));
        return all;
    }
    let overhead = name("hot.overhead_ratio");
    let ratio = Samples::new(overhead.clone(), "times the engine", ratio);
    let ratio = if plan.chosen.is_onnxruntime() {
        ratio.at_most(1.05)
    } else {
        ratio
    };
    let mut all = vec![
        ratio,
        Samples::new(name("hot.added_ms"), "ms", added).at_most(0.5),
        Samples::new(name("hot.engine_ms"), "ms", engine),
        Samples::new(name("hot.outside_run_ms"), "ms", steps.outside_run()),
    ];
    all.extend(steps.samples(&name("hot.added_ms")));
    all
}

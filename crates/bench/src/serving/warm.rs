//! A request for a model that a live instance does not hold, next to decrypting, loading and running it first in this process, in
//! turns. The instance has room for one model, and two versions are asked for alternately: each switch drops one and loads the other.

use sesemi::{ModelRef, Path};

use super::bound::{Pieces, Sealed, first_output, ms};
use super::model::{Model, Prepared};
use super::steps::{Steps, of_bound};
use super::{Plan, Stage, room_for_one_mib};
use crate::error::BenchError;
use crate::figures::Samples;

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
    if prepared.model == Model::Tiny {
        return Err(BenchError::Unexpected(
            "an instance has room for many tiny models, so that there is no switch",
        ));
    }
    let versions = [site.push(prepared, 1)?, site.push(prepared, 2)?];
    let caller = site.user(&versions, launcher.code)?;
    let sealed = Sealed::of(prepared)?;
    let arguments = site.arguments(&plan.chosen, 1, room_for_one_mib(prepared));
    let instance = launcher.launch(&arguments)?;
    let call = |model: &ModelRef| caller.call(&instance.gateway, model, prepared);
    // Both keys are there from then on.
    for version in &versions {
        call(version)?;
    }

    let (mut ratio, mut pieces, mut steps) = (vec![], vec![], Steps::default());
    let alone = || {
        let copy = sealed.bytes.clone();
        let (pieces, _model) =
            first_output(local.engine(), copy, &sealed.manifest, &prepared.inputs)?;
        Ok::<Pieces, BenchError>(pieces)
    };
    alone()?;
    let rounds = plan.rounds("warm", prepared.model, plan.runs);
    for (round, version) in rounds.zip(versions.iter().cycle()) {
        let ((took, inference), run) = if round % 4 < 2 {
            let served = call(version)?;
            (served, alone()?)
        } else {
            let run = alone()?;
            (call(version)?, run)
        };
        if inference.report.path != Path::Warm {
            return Err(BenchError::Unexpected(
                "a switch of models was not warm: the instance held both",
            ));
        }
        ratio.push(ms(took) / run.sum());
        pieces.push(run);
        steps.add(ms(took), inference.report);
    }
    launcher.stop_all()?;
    let name = plan.chosen.figure("warm.bound_ratio", prepared.model);
    let mut all = vec![Samples::new(name.clone(), "times the bound", ratio).at_most(1.15)];
    all.extend(steps.samples(&name));
    all.extend(of_bound(&name, &pieces));
    Ok(all)
}

//! From the start of an instance to its first answer, next to the bound ([`super::bound()`]), in turns.

use std::path::Path as FilePath;
use std::time::Instant;

use sesemi::{ModelRef, Path};

use super::bound::{Pieces, Sealed, in_a_new_process, ms};
use super::instance::Launcher;
use super::model::Prepared;
use super::site::{Caller, Site};
use super::steps::{Steps, explaining, of_bound};
use super::{ENOUGH_MIB, Plan, Stage};
use crate::error::BenchError;
use crate::figures::Samples;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Samples>, BenchError> {
    let folder = tempfile::tempdir()?;
    plan.each_model(|stage, prepared| {
        let Stage { site, launcher, .. } = stage;
        let mut cold = Cold::new(plan, prepared, site, launcher, folder.path())?;
        // The user's list of keys and the files are in memory from then on.
        cold.serve(launcher)?;
        cold.forget();
        for round in plan.rounds("cold", prepared.model, plan.runs) {
            cold.round(launcher, round % 2 == 0)?;
        }
        Ok(cold.figures())
    })
}

/// The measurement of one model.
struct Cold<'p> {
    plan: &'p Plan,
    prepared: &'p Prepared,
    pushed: ModelRef,
    caller: Caller,
    arguments: Vec<String>,
    package: std::path::PathBuf,
    sealed: Sealed,
    ratio: Vec<f64>,
    listening: Vec<f64>,
    pieces: Vec<Pieces>,
    steps: Steps,
}

impl<'p> Cold<'p> {
    fn new(
        plan: &'p Plan,
        prepared: &'p Prepared,
        site: &mut Site,
        launcher: &Launcher,
        folder: &FilePath,
    ) -> Result<Self, BenchError> {
        let pushed = site.push(prepared, 1)?;
        let mut sealed = Sealed::of(prepared)?;
        let package = folder.join(prepared.model.as_str());
        std::fs::write(&package, std::mem::take(&mut sealed.bytes))?;
        Ok(Self {
            plan,
            prepared,
            caller: site.user(std::slice::from_ref(&pushed), launcher.code)?,
            arguments: site.arguments(&plan.chosen, 1, ENOUGH_MIB),
            pushed,
            package,
            sealed,
            ratio: Vec::new(),
            listening: Vec::new(),
            pieces: Vec::new(),
            steps: Steps::default(),
        })
    }

    fn round(&mut self, launcher: &mut Launcher, served_first: bool) -> Result<(), BenchError> {
        let bound =
            |cold: &Self| in_a_new_process(&cold.plan.chosen, &cold.package, &cold.sealed.manifest);
        let (served, pieces) = if served_first {
            let served = self.serve(launcher)?;
            (served, bound(self)?)
        } else {
            let pieces = bound(self)?;
            (self.serve(launcher)?, pieces)
        };
        self.ratio.push(served / pieces.sum());
        self.pieces.push(pieces);
        Ok(())
    }

    /// One start, in milliseconds from the order to start to the opened answer.
    fn serve(&mut self, launcher: &mut Launcher) -> Result<f64, BenchError> {
        let started = Instant::now();
        let instance = launcher.launch(&self.arguments)?;
        let listening = ms(started.elapsed());
        let call = self
            .caller
            .call(&instance.gateway, &self.pushed, self.prepared);
        let (_, inference) = call?;
        let took = ms(started.elapsed());
        launcher.stop_all()?;
        if inference.report.path != Path::Cold {
            return Err(BenchError::Unexpected("a first request was not cold"));
        }
        self.listening.push(listening);
        self.steps.add(took, inference.report);
        Ok(took)
    }

    fn forget(&mut self) {
        self.listening.clear();
        self.steps = Steps::default();
    }

    fn figures(self) -> Vec<Samples> {
        let name = self
            .plan
            .chosen
            .figure("cold.bound_ratio", self.prepared.model);
        let ratio = Samples::new(name.clone(), "times the bound", self.ratio).at_most(1.3);
        let mut all = vec![ratio];
        all.extend(self.steps.samples(&name));
        all.push(explaining(&name, "until_it_listens", self.listening));
        all.extend(of_bound(&name, &self.pieces));
        all
    }
}

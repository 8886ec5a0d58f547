//! How fast SeMIRT serves, and in how much memory, next to its engine alone.
//!
//! The product's side is real: the release program as a simulated enclave ([`instance`]), KeyService behind its attested channel, a
//! folder of encrypted packages, requests that the SDK seals and sends over loopback ([`site`]). The other side is the same engine in
//! this process, with the same threads, form and inputs. Both are measured in turns, so that what else the machine does meets
//! both; a ratio's sample is of one turn.
//!
//! - [`hot`], [`cold`], [`warm`]: one request, by what it finds;
//! - [`memory`], [`throughput`]: four at once;
//! - [`soak`]: very many.

mod bound;
mod callers;
mod cold;
mod engine;
mod hot;
mod instance;
mod memory;
mod model;
mod site;
mod soak;
mod steps;
mod throughput;
mod warm;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::{Execution, LoadedModel};

use crate::error::BenchError;
use crate::figures::{Report, Samples};
use engine::{Chosen, EngineName, Local};
use instance::Launcher;
use model::{Model, Prepared};
use site::Site;

/// Callers at once, where there are several.
const CALLERS: usize = 4;
/// Requests before anything is measured.
const WARM_UP: usize = 3;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Serving {
    /// A request that finds all that it needs.
    Hot(Setting),
    /// The first request of an instance.
    Cold(Setting),
    /// A request for a model that the instance does not hold.
    Warm(Setting),
    /// Four requests at once, and four instances.
    Memory(Setting),
    /// Requests of four callers a second.
    Throughput(Setting),
    /// Very many requests.
    Soak {
        #[command(flatten)]
        setting: Setting,
        /// How many.
        #[arg(long, value_name = "N")]
        requests: u32,
    },
}

/// With which engine, which models, and how often.
#[derive(Debug, Args)]
pub(crate) struct Setting {
    #[arg(long, value_name = "NAME")]
    engine: EngineName,
    /// The SeMIRT program with this engine.
    #[arg(long, value_name = "FILE")]
    semirt: PathBuf,
    /// The engine's library [default: the installed one].
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Threads of the engine.
    #[arg(long, value_name = "N")]
    threads: usize,
    /// The models [default: all that the figure is about].
    #[arg(long, value_name = "NAME")]
    model: Vec<Model>,
    /// How often each is measured.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    /// For each model, no round begins after so many seconds; one is always measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
}

/// A start of the engine in a process that does nothing else; used by `cold`.
#[derive(Debug, Args)]
pub(crate) struct BoundArgs {
    #[arg(long)]
    engine: EngineName,
    #[arg(long)]
    library: Option<PathBuf>,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    package: PathBuf,
    #[arg(long)]
    manifest: sesemi_protocol::Digest,
}

/// The process that launches instances.
#[derive(Debug, Args)]
pub(crate) struct LauncherArgs {
    #[arg(long)]
    machine: PathBuf,
    #[arg(long)]
    semirt: PathBuf,
    #[arg(long)]
    library: Option<PathBuf>,
}

/// The plan of one measurement.
struct Plan {
    chosen: Chosen,
    models: Vec<Model>,
    runs: usize,
    limit: Duration,
}

/// How something is measured.
type Measure = fn(&Plan) -> Result<Vec<Samples>, BenchError>;

pub(crate) fn run(what: Serving) -> Result<Report, BenchError> {
    let paper: &[Model] = &Model::OF_THE_PAPER;
    let (setting, about, measure): (Setting, &[Model], Measure) = match what {
        Serving::Hot(setting) => (setting, &Model::ALL, hot::measure),
        Serving::Cold(setting) => (setting, paper, cold::measure),
        Serving::Warm(setting) => (setting, paper, warm::measure),
        Serving::Memory(setting) => (setting, &[Model::ResNet101], memory::measure),
        Serving::Throughput(setting) => (setting, paper, throughput::measure),
        Serving::Soak { setting, requests } => {
            let plan = setting.plan(&[Model::Tiny])?;
            return Ok(plan.report(soak::measure(&plan, requests as usize)?));
        }
    };
    let plan = setting.plan(about)?;
    let metrics = measure(&plan)?;
    Ok(plan.report(metrics))
}

/// The child that measures a bound.
pub(crate) fn bound(args: &BoundArgs) -> Result<impl serde::Serialize + use<>, BenchError> {
    bound::child(
        args.engine,
        args.library.as_deref(),
        args.threads,
        &args.package,
        &args.manifest,
    )
}

/// The child that launches.
pub(crate) fn launcher(args: &LauncherArgs) -> Result<(), BenchError> {
    instance::launcher(&args.machine, &args.semirt, args.library.as_deref())
}

/// The library of ONNX Runtime, if it is installed.
pub(crate) fn library() -> Result<Option<PathBuf>, BenchError> {
    let folder = sesemi_engines::default_folder()?;
    Ok(sesemi_engines::ONNXRUNTIME.installed(&folder)?)
}

impl Setting {
    fn plan(self, about: &[Model]) -> Result<Plan, BenchError> {
        let library = match (self.engine, self.library) {
            (EngineName::Rten, _) => None,
            (EngineName::Onnxruntime, Some(library)) => Some(library),
            (EngineName::Onnxruntime, None) => library()?,
        };
        Ok(Plan {
            chosen: Chosen {
                name: self.engine,
                semirt: self.semirt,
                library,
                threads: self.threads,
            },
            models: if self.model.is_empty() {
                about.to_vec()
            } else {
                self.model
            },
            runs: self.runs as usize,
            limit: Duration::from_secs(self.limit),
        })
    }
}

/// Both sides, once they are there.
struct Stage {
    local: Local,
    site: Site,
    launcher: Launcher,
}

impl Plan {
    /// Measures one model after the other.
    fn each_model(
        &self,
        mut measure: impl FnMut(&mut Stage, &Prepared) -> Result<Vec<Samples>, BenchError>,
    ) -> Result<Vec<Samples>, BenchError> {
        let local = self.chosen.start()?;
        let site = Site::new()?;
        let launcher = Launcher::start(&self.chosen, &site.lab.machine)?;
        let mut stage = Stage {
            local,
            site,
            launcher,
        };
        let mut all = Vec::new();
        for model in &self.models {
            let prepared = model.prepare(&stage.local)?;
            all.extend(measure(&mut stage, &prepared)?);
        }
        Ok(all)
    }

    /// The rounds of one model, with a bar on a terminal.
    fn rounds(&self, what: &str, model: Model, runs: usize) -> impl Iterator<Item = usize> {
        let bar = bar(
            &format!("{what} {} {}", model.as_str(), self.chosen.name.as_str()),
            runs,
        );
        let (begun, limit) = (Instant::now(), self.limit);
        (0..runs).take_while(move |round| {
            let goes_on = *round == 0 || begun.elapsed() < limit;
            bar.set_position(*round as u64);
            goes_on
        })
    }

    fn report(&self, metrics: Vec<Samples>) -> Report {
        Report {
            tee: sesemi_testkit::enclave::NAME,
            engine: Some(self.chosen.name.described()),
            threads: Some(self.chosen.threads),
            metrics,
        }
    }
}

/// Shown on a terminal only.
fn bar(what: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}, {eta} left");
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what.to_owned())
}

/// An execution of the engine alone.
struct Alone<'p> {
    execution: Box<dyn Execution>,
    prepared: &'p Prepared,
}

impl<'p> Alone<'p> {
    fn of(model: &dyn LoadedModel, prepared: &'p Prepared) -> Result<Self, BenchError> {
        Ok(Self {
            execution: model.execution()?,
            prepared,
        })
    }

    fn run(&mut self) -> Result<Duration, BenchError> {
        let started = Instant::now();
        let inputs = &self.prepared.inputs;
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        let outputs = self.execution.run(&views, &[])?;
        let took = started.elapsed();
        self.prepared.must_be(&outputs)?;
        Ok(took)
    }
}

/// The engine alone, with a model loaded.
fn load(local: &Local, prepared: &Prepared) -> Result<Box<dyn LoadedModel>, BenchError> {
    let form = prepared.manifest.forms.first();
    let form = form.ok_or(BenchError::Unexpected("the model has no form"))?;
    let parts = prepared.form.parts.clone();
    Ok(local.engine().load(&prepared.manifest, form, parts)?)
}

/// Memory for all models that are measured at once, in MiB.
const ENOUGH_MIB: u64 = 512;

/// Memory for one model of this size and its load, but not for two, in MiB.
fn room_for_one_mib(prepared: &Prepared) -> u64 {
    // A package's head is read beside the model that is there.
    const HEAD_MIB: u64 = 4;
    let bytes = prepared.bytes() as u64;
    HEAD_MIB + (bytes + bytes / 2).div_ceil(1 << 20)
}

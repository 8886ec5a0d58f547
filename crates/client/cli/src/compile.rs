//! `sesemi model compile`: forms of a model, each made and checked by `sesemi-compile` in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sesemi::{Form, InstructionSet, Manifest, Memory, ModelFormat, in_one_line};
use sesemi_compile::{
    Choices, CompiledForm, Description, Done, EngineReport, FileDigest, Job, JobForm, Said,
    part_names, specs,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::args::{CompileArgs, CompileEngine, EngineArg};
use crate::engines::chosen;
use crate::error::{CliError, file};
use crate::inspect::{described, described_json};
use crate::stack::StackEngine;
use crate::up::binaries;

/// The program that does one step.
const PROGRAM: &str = "sesemi-compile";
/// Longest that a step may take: an engine may hang on a model.
const STEP: Duration = Duration::from_secs(1800);
/// Longest model file, in bytes: the limit of protobuf, which ONNX keeps.
const MAX_MODEL: u64 = i32::MAX as u64;
/// Runs must get this much faster for weights to be laid out once more, which costs memory and time at each start.
const WORTH_IT: f64 = 0.9;

/// One engine's form, as its process left it.
struct Made {
    form: CompiledForm,
    report: EngineReport,
}

/// A step that made a form, which lies in its folder.
struct Tried {
    done: Done,
    prepack: bool,
    folder: PathBuf,
}

/// What all steps have in common.
struct Steps<'a> {
    args: &'a CompileArgs,
    program: PathBuf,
    library: Option<PathBuf>,
    working: TempDir,
    bar: ProgressBar,
}

/// `sesemi model compile`.
///
/// # Errors
/// [`CliError::Input`] if it is no model, no engine runs it, a form computes something else, or it needs more memory than it may.
pub async fn compile(args: CompileArgs) -> Result<(), CliError> {
    let onnx = read_model(&args.file)?;
    let (inputs, outputs) = specs(&onnx).map_err(|e| CliError::Input(in_one_line(e)))?;
    if args.out.exists() {
        let there = args.out.display();
        return Err(CliError::Input(format!(
            "{there} is there already; name another folder, or remove it"
        )));
    }
    if args.batch.is_some() && !Manifest::have_rows(&inputs, &outputs) {
        return Err(CliError::Input(
            "there is no input, or an input or output has no first dimension or one of a fixed extent, so it is no batch (`sesemi model inspect` shows \
             them); export the model with a dynamic batch, or leave --batch out"
                .into(),
        ));
    }
    let steps = Steps::new(&args)?;
    let (forms, reports) = steps.all().await?;
    steps.bar.finish_and_clear();
    let name = args.file.file_name().unwrap_or_default();
    let source = FileDigest::of(name.to_string_lossy().into_owned(), &onnx);
    let mut description = Description::new(source, (&inputs, &outputs), reports);
    description.batch = args.batch;
    let description = description.write(&args.out, &forms)?;
    if args.json {
        anstream::println!("{}", described_json(&description)?);
    } else {
        anstream::println!("{}\n{}", args.out.display(), described(&description));
    }
    Ok(())
}

/// An ONNX file, if it is not too large to be one.
///
/// # Errors
/// [`CliError::File`] or [`CliError::Input`].
pub fn read_model(path: &Path) -> Result<Vec<u8>, CliError> {
    let length = std::fs::metadata(path).map_err(file(path))?.len();
    if length > MAX_MODEL {
        return Err(CliError::Input(format!(
            "{} is larger than 2 GiB, which no ONNX file is",
            path.display()
        )));
    }
    std::fs::read(path).map_err(file(path))
}

impl<'a> Steps<'a> {
    fn new(args: &'a CompileArgs) -> Result<Self, CliError> {
        let library = match (args.engine, chosen(EngineArg::Onnxruntime)) {
            (CompileEngine::Rten, _) => None,
            (_, Ok(StackEngine::OnnxRuntime { library })) => Some(library),
            (CompileEngine::Onnxruntime, Err(error)) => return Err(error),
            (_, Err(CliError::Input(_)) | Ok(StackEngine::Rten)) => None,
            // Another library lies in its place: that is not passed over in silence.
            (_, Err(error)) => return Err(error),
        };
        let program = binaries(args.bin_dir.clone())?.join(PROGRAM);
        if !program.is_file() {
            return Err(crate::stack::StackError::NoBinary(program).into());
        }
        let working = tempfile::tempdir().map_err(file(std::env::temp_dir()))?;
        let count = match (args.engine, &library) {
            (CompileEngine::Rten, _) | (_, None) => 1,
            (CompileEngine::Onnxruntime, _) => 2,
            (CompileEngine::All, _) => 3,
        };
        let count = count * args.prepack.choices().len() as u64;
        Ok(Self {
            args,
            program,
            library,
            working,
            // Only a terminal sees it.
            bar: progress(count),
        })
    }

    /// The forms, the preferred one first, and what engines said.
    async fn all(&self) -> Result<(Vec<CompiledForm>, Vec<EngineReport>), CliError> {
        let (mut forms, mut reports) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        let mut portable = None;
        let mut take = |made: Result<Made, EngineReport>| match made {
            Ok(made) => {
                reports.push(made.report);
                Some(made.form)
            }
            Err(report) => {
                refused.push(format!(
                    "{}: {}",
                    report.engine,
                    report.refused.as_deref().unwrap_or_default()
                ));
                reports.push(report);
                None
            }
        };
        if let Some(library) = &self.library {
            if let Some(form) = take(self.best(JobForm::Compiled, Some(library)).await?) {
                forms.push(form);
            }
            portable = take(self.best(JobForm::Portable, Some(library)).await?);
        } else if self.args.engine == CompileEngine::All {
            self.note("ONNX Runtime is not installed (`sesemi engines install`): only the portable form is made");
        }
        if self.args.engine != CompileEngine::Onnxruntime {
            // What it takes in RTen, where it runs there: the other engine has its own form.
            let in_rten = take(self.best(JobForm::Portable, None).await?);
            portable = in_rten.or(portable);
        }
        forms.extend(portable);
        if forms.is_empty() || (self.args.engine != CompileEngine::All && !refused.is_empty()) {
            let why = refused.join("\n  ");
            return Err(CliError::Input(format!("the model is refused:\n  {why}")));
        }
        for reason in &refused {
            self.note(&format!("without {reason}"));
        }
        if forms
            .iter()
            .all(|form| form.format != ModelFormat::OnnxWithWeights)
        {
            self.note("no engine runs the portable form here: there is none for processors unlike this one");
        }
        self.within_budget(&forms)?;
        self.believed(&forms)?;
        Ok((forms, reports))
    }

    fn within_budget(&self, forms: &[CompiledForm]) -> Result<(), CliError> {
        let Some(budget) = self.args.budget_mib else {
            return Ok(());
        };
        let needs = |form: &CompiledForm| form.memory.loaded.saturating_add(form.memory.run);
        let over = forms.iter().find(|form| needs(form) > budget << 20);
        match over {
            Some(form) => Err(CliError::Input(format!(
                "the form {} needs {} MiB, loaded and for one run, and the budget is {budget} MiB",
                form.format.as_str(),
                needs(form) >> 20
            ))),
            None => Ok(()),
        }
    }

    /// What instances would not believe is told now: they would reserve less for a run than it takes.
    fn believed(&self, forms: &[CompiledForm]) -> Result<(), CliError> {
        let most = |form: &CompiledForm| {
            let parts = form.parts();
            let form = form.content(&parts);
            let manifest = Manifest::describing(vec![], vec![], &[form]);
            manifest.forms.first().map_or(0, Form::most_memory)
        };
        for form in forms {
            let (run, most) = (form.memory.run, most(form));
            if run <= most {
                continue;
            }
            let over = format!(
                "a run of the form {} takes {} MiB, and instances believe at most {} MiB of a model of this size",
                form.format.as_str(),
                run >> 20,
                most >> 20
            );
            if self.args.batch.is_some() {
                return Err(CliError::Input(format!("{over}; give --batch fewer rows")));
            }
            self.note(&over);
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        if !self.args.json {
            self.bar.suspend(|| anstream::eprintln!("note: {text}"));
        }
    }

    /// Makes a form, with or without weights laid out once more, whichever is better.
    async fn best(
        &self,
        form: JobForm,
        onnxruntime: Option<&Path>,
    ) -> Result<Result<Made, EngineReport>, CliError> {
        let engine = match onnxruntime {
            Some(_) => "onnxruntime",
            None => "rten",
        };
        let name = format!("{engine}-{form:?}");
        let mut best: Option<Tried> = None;
        for prepack in self.args.prepack.choices().iter().copied() {
            self.bar.set_message(name.clone());
            // Each has a folder of its own: one that fails halfway leaves nothing in that of the other.
            let folder = self.working.path().join(format!("{name}-{prepack}"));
            std::fs::create_dir(&folder).map_err(file(&folder))?;
            let said = self.step(form, onnxruntime, prepack, &folder).await?;
            self.bar.inc(1);
            let done = match (said, &best) {
                (Ok(done), _) => done,
                // What runs without is not given up because laying out its weights fails, or computes something else.
                (Err(refused), Some(_)) => {
                    self.note(&format!(
                        "{engine}: weights are not laid out once more, for with that the form fails: {}",
                        refused.why
                    ));
                    continue;
                }
                (Err(refused), None) if refused.differs => {
                    return Err(CliError::Input(format!(
                        "{engine}: {}; give samples that are like real inputs (--shape, --range), a greater --tolerance, or \
                         leave the engine out (--engine)",
                        refused.why
                    )));
                }
                (Err(refused), None) => return Ok(Err(refused_by(engine, refused.why))),
            };
            let tried = Tried {
                done,
                prepack,
                folder,
            };
            let is_better = |it: &Tried| tried.done.run_ms <= WORTH_IT * it.done.run_ms;
            if best.as_ref().is_none_or(is_better) {
                best = Some(tried);
            }
        }
        let best = best.ok_or_else(|| CliError::Input("nothing was tried".into()))?;
        let form = read_form(form, &best)?;
        let done = best.done;
        let report = EngineReport {
            engine: engine.into(),
            form: Some(form.format.as_str().into()),
            refused: None,
            difference: Some(done.difference),
            load_ms: Some(done.load_ms),
            run_ms: Some(done.run_ms),
            memory_bytes: Some(done.loaded_bytes.saturating_add(done.run_bytes)),
        };
        Ok(Ok(Made { form, report }))
    }

    /// One step in a process of its own. What ends the process is the model's fault, and said.
    async fn step(
        &self,
        form: JobForm,
        onnxruntime: Option<&Path>,
        prepack: bool,
        folder: &Path,
    ) -> Result<Said, CliError> {
        let job = Job {
            model: std::path::absolute(&self.args.file).map_err(file(&self.args.file))?,
            folder: folder.to_owned(),
            form,
            onnxruntime: onnxruntime.map(Path::to_owned),
            reference: self.library.clone(),
            prepack,
            choices: Choices {
                shapes: self.args.shapes.clone(),
                ranges: self.args.ranges.clone(),
                texts: self.args.texts.clone(),
            },
            samples: self.args.samples,
            batch: self.args.batch,
            tolerance: self.args.tolerance,
            threads: self.args.threads.into(),
        };
        let failed = |source| CliError::Process(PROGRAM, source);
        let job = serde_json::to_vec(&job).map_err(|e| CliError::Input(e.to_string()))?;
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // If it is gone already, its status says so.
            let _ = input.write_all(&job).await;
        }
        let Ok(output) = tokio::time::timeout(STEP, child.wait_with_output()).await else {
            let seconds = STEP.as_secs();
            return Ok(Err(format!("it did not end within {seconds} s").into()));
        };
        let output = output.map_err(failed)?;
        let said = serde_json::from_slice(&output.stdout);
        let down = || format!("it took its process down ({})", output.status);
        Ok(said.unwrap_or_else(|_| Err(down().into())))
    }
}

/// What is said of an engine that does not run a form.
fn refused_by(engine: &str, why: String) -> EngineReport {
    EngineReport {
        engine: engine.into(),
        form: None,
        refused: Some(why),
        difference: None,
        load_ms: None,
        run_ms: None,
        memory_bytes: None,
    }
}

fn read_form(made: JobForm, tried: &Tried) -> Result<CompiledForm, CliError> {
    let done = &tried.done;
    let format = match made {
        JobForm::Portable => ModelFormat::OnnxWithWeights,
        JobForm::Compiled => ModelFormat::OnnxRuntimeCompiled,
    };
    let mut sets = InstructionSet::ALL.into_iter();
    let set = sets.find(|set| set.as_str() == done.instruction_set);
    let part = |name: &&str| {
        let path = tried.folder.join(name);
        std::fs::read(&path).map_err(file(path))
    };
    Ok(CompiledForm {
        format,
        instruction_set: set
            .ok_or_else(|| CliError::Input(format!("{PROGRAM} is of another version")))?,
        parts: part_names(format)
            .iter()
            .map(part)
            .collect::<Result<_, _>>()?,
        memory: Memory {
            loaded: done.loaded_bytes,
            run: done.run_bytes,
        },
        prepack: tried.prepack,
    })
}

fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let bar = match ProgressStyle::with_template("{spinner} {pos}/{len} {wide_bar} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

//! What an owner and a user do with a model, on a stack for each engine.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use sesemi::{
    Client, CodeIdentityDigest, Error, FormContent, Grant, Identity, Isolation, KeyScope, Manifest,
    ModelRef, ObjectStore, RefusalCode, Tensor, in_one_line,
};
use sesemi_cli::demo::trust;
use sesemi_cli::manifest::pushed;
use sesemi_cli::stack::{Facts, Stack, StackEngine, StackOptions};
use sesemi_compile::{
    Choices, CompiledForm, Description, EngineReport, Tolerance, compare, sample_inputs_of, specs,
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Outcome;
use crate::models::RealModel;
use crate::plain::Plain;
use crate::report::{Row, State};

/// Requests for each model.
const SAMPLES: u64 = 3;
/// As `sesemi model compile` names them.
const ENGINES: [&str; 2] = ["rten", "onnxruntime"];

/// A stack with one engine, an owner and a user.
struct Party {
    engine: &'static str,
    stack: Stack,
    owner: Client,
    user: Client,
    _state: TempDir,
}

/// Both stacks.
pub(crate) struct Trial {
    parties: Vec<Party>,
    binaries: PathBuf,
    engines: PathBuf,
    working: TempDir,
}

impl Trial {
    pub(crate) async fn start(binaries: &Path, library: &Path, engines: &Path) -> Outcome<Self> {
        let mut parties = Vec::new();
        for engine in ENGINES {
            eprintln!("starting a stack with {engine}");
            parties.push(Party::start(engine, binaries, library).await?);
        }
        Ok(Self {
            parties,
            binaries: binaries.to_owned(),
            engines: engines.to_owned(),
            working: tempfile::tempdir().map_err(in_one_line)?,
        })
    }

    pub(crate) async fn stop(self) {
        for party in self.parties {
            if let Err(error) = party.stack.stop().await {
                eprintln!("note: {error}");
            }
        }
    }

    /// One model on every engine.
    pub(crate) async fn model(
        &mut self,
        model: &RealModel,
        file: &Path,
        plain: &Plain,
    ) -> Vec<Row> {
        eprintln!("compiling {}", model.name);
        let prepared = self.prepare(model, file, plain).await;
        let mut rows = Vec::new();
        for party in &mut self.parties {
            eprintln!("{} on {}", model.name, party.engine);
            let row = match &prepared {
                Ok(prepared) => party.row(model, prepared).await,
                Err(why) => Row::failed(model, party.engine, why.clone()),
            };
            rows.push(row);
        }
        rows
    }

    async fn prepare(&self, model: &RealModel, file: &Path, plain: &Plain) -> Outcome<Prepared> {
        let onnx = std::fs::read(file).map_err(in_one_line)?;
        let (inputs, _) = specs(&onnx).map_err(in_one_line)?;
        let choices = Choices {
            shapes: model
                .shapes
                .iter()
                .map(|(name, shape)| ((*name).into(), shape.to_vec()))
                .collect(),
            ranges: model
                .ranges
                .iter()
                .map(|(name, range)| ((*name).into(), range.clone()))
                .collect(),
            ..Choices::default()
        };
        let sample = |seed| sample_inputs_of(&inputs, &choices, seed).map_err(in_one_line);
        // Others than those that the compiler tried.
        let samples: Vec<_> = (100..100 + SAMPLES).map(sample).collect::<Result<_, _>>()?;
        let expected = plain.run(&onnx, &samples)?;
        let folder = self.working.path().join(model.name);
        let description = self.compile(model, file, &folder).await?;
        Ok(Prepared {
            folder,
            description,
            samples,
            expected,
        })
    }

    /// The command, as an owner gives it.
    async fn compile(&self, model: &RealModel, file: &Path, folder: &Path) -> Outcome<Description> {
        let mut command = Command::new(self.binaries.join("sesemi"));
        command
            .args(["model", "compile", "--json", "--tolerance"])
            .arg(model.tolerance.to_string())
            .arg(file)
            .arg("--out")
            .arg(folder)
            .arg("--bin-dir")
            .arg(&self.binaries)
            .env("SESEMI_ENGINES", &self.engines)
            .stdin(Stdio::null());
        for (name, range) in model.ranges {
            command
                .arg("--range")
                .arg(format!("{name}={}..{}", range.start, range.end));
        }
        for (name, shape) in model.shapes {
            let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
            command
                .arg("--shape")
                .arg(format!("{name}={}", extents.join("x")));
        }
        let done = command.output().await.map_err(in_one_line)?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
        }
        serde_json::from_slice(&done.stdout).map_err(in_one_line)
    }
}

/// A model, ready for every engine.
struct Prepared {
    folder: PathBuf,
    description: Description,
    samples: Vec<Vec<Tensor>>,
    expected: Vec<Vec<Tensor>>,
}

impl Prepared {
    /// What the compiler said of an engine: of the form that it will take, which is the first that it runs.
    fn report(&self, engine: &str) -> Outcome<&EngineReport> {
        let mut reports = self.description.engines.iter();
        let report = reports.find(|it| it.engine == engine);
        report.ok_or_else(|| format!("the compiler says nothing of {engine}"))
    }
}

impl Party {
    async fn start(engine: &'static str, binaries: &Path, library: &Path) -> Outcome<Self> {
        let state = tempfile::tempdir().map_err(in_one_line)?;
        let options = StackOptions {
            engine: match engine {
                "rten" => StackEngine::Rten,
                _ => StackEngine::OnnxRuntime {
                    library: library.to_owned(),
                },
            },
            ..StackOptions::new(binaries.to_owned(), state.path().join("state"))
        };
        let stack = Stack::start(options, |_| {}).await.map_err(in_one_line)?;
        let (owner, user) = (join(&stack.facts).await?, join(&stack.facts).await?);
        Ok(Self {
            engine,
            stack,
            owner,
            user,
            _state: state,
        })
    }

    async fn row(&mut self, model: &RealModel, prepared: &Prepared) -> Row {
        let engine = self.engine;
        match self.tried(model, prepared).await {
            Ok(row) => row,
            Err(why) => Row::failed(model, engine, why),
        }
    }

    async fn tried(&mut self, model: &RealModel, prepared: &Prepared) -> Outcome<Row> {
        let engine = self.engine;
        let report = prepared.report(engine)?;
        let pushed = self.push(model, &prepared.folder).await?;
        let answers = self.ask(&pushed, &prepared.samples).await;
        let form = report.form.clone();
        if let Some(at_compile) = &report.refused {
            return match answers {
                Ok(_) => Err(format!("refused at compile ({at_compile}), and served")),
                Err(error) if !is_no_load(&error) => Err(format!(
                    "refused at compile ({at_compile}), and then not for that: {}",
                    in_one_line(&error)
                )),
                Err(at_load) => Ok(Row {
                    reason: Some(format!("at compile: {at_compile}; at load: {at_load}")),
                    ..Row::new(model, engine, State::Refused)
                }),
            };
        }
        let tolerance = Tolerance {
            absolute: model.tolerance,
            relative: model.tolerance,
        };
        let mut largest = 0f64;
        let answers = answers.map_err(in_one_line)?;
        for (expected, answer) in prepared.expected.iter().zip(&answers) {
            let difference = compare(expected, answer, tolerance).map_err(in_one_line)?;
            largest = largest.max(difference);
        }
        Ok(Row {
            form,
            largest_difference: Some(largest),
            ..Row::new(model, engine, State::Agrees)
        })
    }

    /// Pushes a compiled folder and lets the user have it.
    async fn push(&mut self, model: &RealModel, folder: &Path) -> Outcome<ModelRef> {
        let pushed = pushed(folder).map_err(in_one_line)?;
        let parts: Vec<Vec<&[u8]>> = pushed.forms.iter().map(CompiledForm::parts).collect();
        let forms = pushed.forms.iter().zip(&parts);
        let forms: Vec<FormContent<'_>> = forms.map(|(form, parts)| form.content(parts)).collect();
        let manifest = Manifest::describing(pushed.inputs, pushed.outputs, &forms);
        let facts = &self.stack.facts;
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(&facts.store).map_err(in_one_line)?);
        let isolation = Isolation::default();
        let pushed = self
            .owner
            .push_model(&store, model.name, 1, &manifest, &forms, isolation)
            .await
            .map_err(in_one_line)?;
        let semirt: CodeIdentityDigest = facts.semirt_code.parse().map_err(in_one_line)?;
        let grant = Grant::of(&pushed, self.user.id(), semirt);
        self.owner.grant(grant).await.map_err(in_one_line)?;
        let scope = KeyScope::Model(pushed.model.clone());
        let deposited = self.user.deposit_key(&scope, [semirt], isolation.into());
        deposited.await.map_err(in_one_line)?;
        Ok(pushed)
    }

    async fn ask(
        &self,
        model: &ModelRef,
        samples: &[Vec<Tensor>],
    ) -> Result<Vec<Vec<Tensor>>, Error> {
        let mut answers = Vec::with_capacity(samples.len());
        for inputs in samples {
            let gateway = &self.stack.facts.gateway;
            let inference = self.user.infer(gateway, model.clone(), inputs).await;
            answers.push(inference?.outputs);
        }
        Ok(answers)
    }
}

/// Whether SeMIRT refused because the model does not load. That it was busy, or late, or not there says nothing of the model.
fn is_no_load(error: &Error) -> bool {
    error.refusal() == Some(RefusalCode::ModelUnavailable.as_str())
}

async fn join(facts: &Facts) -> Outcome<Client> {
    let identity = Identity::generate().map_err(in_one_line)?;
    let address = facts.keyservice.parse().map_err(in_one_line)?;
    let trust = trust(facts).map_err(in_one_line)?;
    let joined = Client::connect(identity, address, trust).await;
    joined.map_err(in_one_line)
}

#[cfg(test)]
mod tests {
    use sesemi::Error;
    use sesemi_protocol::{Refusal, RefusalCode};

    use super::is_no_load;

    #[test]
    fn only_a_model_that_does_not_load_is_refused_again() {
        let refused = |code: RefusalCode| Error::Refused(Refusal::from(code));
        assert!(is_no_load(&refused(RefusalCode::ModelUnavailable)));
        for other in [
            RefusalCode::Busy,
            RefusalCode::DeadlineExceeded,
            RefusalCode::NotGranted,
            RefusalCode::EngineFailed,
            RefusalCode::Internal,
        ] {
            assert!(!is_no_load(&refused(other)), "{}", other.as_str());
        }
        assert!(!is_no_load(&Error::TimedOut(60)));
        assert!(!is_no_load(&Error::GatewayAnswer {
            status: 502,
            code: None,
            message: "no endpoint".to_owned(),
        }));
    }
}

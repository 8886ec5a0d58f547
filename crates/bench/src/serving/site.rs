//! All that serves, but SeMIRT itself: a simulated machine, KeyService on it, a folder of encrypted models, their owner and users.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::local::LocalFileSystem;
use sesemi::{Client, Grant, Identity, Inference, IsolationChange, KeyScope, ObjectStore, Trust};
use sesemi_attest::AppraisalPolicy;
use sesemi_protocol::{CodeIdentityDigest, Isolation, ModelRef};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::engine::Chosen;
use super::model::Prepared;
use crate::enclave::Lab;
use crate::error::BenchError;
use crate::service::Running;

/// What is there before an instance starts.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    keyservice: Running,
    trust: Trust,
    owner: Client,
    store: Arc<dyn ObjectStore>,
    folder: TempDir,
    _state: TempDir,
    /// What KeyService and the owner run on. Dropped last: they end with it.
    services: Runtime,
}

/// A user on one thread, with connections of its own.
pub(crate) struct Caller {
    client: Client,
    runtime: Runtime,
}

impl Site {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let lab = Lab::new()?;
        let (state, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        // One thread: it has little to do, and the cores are for what is measured.
        let services = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let keyservice = services.block_on(Running::start(&lab, state.path()))?;
        let trust = Trust {
            verifier: lab.verifier(),
            policy: lab.keyservice_policy()?,
            service_policy: AppraisalPolicy::per_release().digest()?,
            service: Some(keyservice.id()),
            custodians: None,
        };
        let owner = Client::connect(Identity::generate()?, keyservice.address, trust.clone());
        let owner = services.block_on(owner)?;
        let store = LocalFileSystem::new_with_prefix(folder.path())?;
        Ok(Self {
            lab,
            keyservice,
            trust,
            owner,
            store: Arc::new(store),
            folder,
            _state: state,
            services,
        })
    }

    /// Pushes a version of a model.
    pub(crate) fn push(
        &mut self,
        prepared: &Prepared,
        version: u32,
    ) -> Result<ModelRef, BenchError> {
        let parts = prepared.form.parts();
        let forms = [prepared.form.content(&parts)];
        let push = self.owner.push_model(
            &self.store,
            prepared.model.as_str(),
            version,
            &prepared.manifest,
            &forms,
            Isolation::default(),
        );
        Ok(self.services.block_on(push)?)
    }

    /// A new user who may use these models in this code.
    pub(crate) fn user(
        &mut self,
        models: &[ModelRef],
        code: CodeIdentityDigest,
    ) -> Result<Caller, BenchError> {
        let (address, trust) = (self.keyservice.address, self.trust.clone());
        let client = self.services.block_on(async {
            let mut client = Client::connect(Identity::generate()?, address, trust).await?;
            for model in models {
                let grant = Grant::of(model, client.id(), code);
                self.owner.grant(grant).await?;
            }
            let scope = KeyScope::AllModels;
            let isolation = IsolationChange::default();
            client.deposit_key(&scope, [code], isolation).await?;
            Ok::<_, BenchError>(client)
        })?;
        // Both ends of a call's HTTP connection in this process are on the thread that waits for it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Caller { client, runtime })
    }

    /// SeMIRT's command line.
    pub(crate) fn arguments(&self, chosen: &Chosen, slots: usize, memory_mib: u64) -> Vec<String> {
        let public = self.lab.machine.join("public");
        let path = |path: PathBuf| path.display().to_string();
        let set = [
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--keyservice", self.keyservice.address.to_string()),
            ("--keyservice-id", self.keyservice.id().to_string()),
            ("--keyservice-code", self.lab.keyservice.code().to_string()),
            ("--store", path(self.folder.path().to_owned())),
            ("--slots", slots.to_string()),
            ("--engine-threads", chosen.threads.to_string()),
            ("--model-memory-mib", memory_mib.to_string()),
            ("--simulated-root", path(public.join("root.der"))),
            ("--endorsements", path(public.join("collateral.json"))),
        ];
        let set = set.into_iter();
        let set = set.flat_map(|(name, value)| [name.to_owned(), value]);
        core::iter::once("serve".to_owned()).chain(set).collect()
    }
}

impl Caller {
    /// One sealed request over loopback, and how long it took: from the inputs to the opened outputs.
    pub(crate) fn call(
        &self,
        gateway: &str,
        model: &ModelRef,
        prepared: &Prepared,
    ) -> Result<(Duration, Inference), BenchError> {
        let started = Instant::now();
        let call = self.client.infer(gateway, model.clone(), &prepared.inputs);
        let inference = self.runtime.block_on(call)?;
        let took = started.elapsed();
        prepared.must_be(&inference.outputs)?;
        Ok((took, inference))
    }
}

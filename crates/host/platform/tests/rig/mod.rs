//! A local platform with a few actions, for tests.

#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sesemi_platform::{
    ActionName, ActionSpec, Activation, Form, Image, InstanceId, InstanceStatus, Invocation,
    LocalConfig, LocalPlatform, Platform, PlatformError, Program,
};
use tokio::task::JoinHandle;

use crate::instance;

pub type Outcome = Result<Activation, PlatformError>;

pub struct Rig {
    pub platform: Arc<LocalPlatform>,
    pub directory: tempfile::TempDir,
}

pub fn name(text: &str) -> ActionName {
    ActionName::new(text).unwrap()
}

pub fn spec(action: &str, mode: &str, memory_mib: u32, concurrency: u32) -> ActionSpec {
    let (binary, args) = instance::command();
    let image = Program {
        binary,
        args,
        env: instance::environment(mode),
    };
    ActionSpec {
        name: name(action),
        image: Image::Program(image),
        memory_mib,
        concurrency,
        timeout: Duration::from_secs(60),
        entity: None,
    }
}

impl Rig {
    pub fn new(adjust: impl FnOnce(&mut LocalConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = LocalConfig::new(directory.path().join("logs"));
        adjust(&mut config);
        Self {
            platform: Arc::new(LocalPlatform::new(config).unwrap()),
            directory,
        }
    }

    pub async fn with(self, action: &str, mode: &str, memory_mib: u32, concurrency: u32) -> Self {
        self.platform
            .deploy(spec(action, mode, memory_mib, concurrency))
            .await
            .unwrap();
        self
    }

    pub async fn invoke(&self, action: &str, body: &str) -> Outcome {
        self.invoke_for(action, body, Duration::from_secs(60)).await
    }

    pub async fn invoke_for(&self, action: &str, body: &str, patience: Duration) -> Outcome {
        self.spawn_for(action, Bytes::copy_from_slice(body.as_bytes()), patience)
            .await
            .unwrap()
    }

    pub fn spawn(&self, action: &str, body: Bytes) -> JoinHandle<Outcome> {
        self.spawn_for(action, body, Duration::from_secs(60))
    }

    pub fn spawn_for(&self, action: &str, body: Bytes, patience: Duration) -> JoinHandle<Outcome> {
        let (platform, action) = (self.platform.clone(), name(action));
        let invocation = Invocation {
            body,
            form: Form::Sealed,
            deadline: Instant::now() + patience,
            trace: None,
        };
        tokio::spawn(async move { platform.invoke(&action, invocation).await })
    }

    pub async fn instances(&self) -> Vec<(ActionName, InstanceStatus)> {
        let actions = self.platform.list().await.unwrap();
        let of = |name: ActionName, all: Vec<InstanceStatus>| {
            all.into_iter().map(move |it| (name.clone(), it))
        };
        actions
            .into_iter()
            .flat_map(|action| of(action.name, action.instances))
            .collect()
    }

    pub async fn waiting(&self) -> usize {
        self.platform
            .list()
            .await
            .unwrap()
            .iter()
            .map(|action| action.waiting)
            .sum()
    }

    pub async fn pid_of(&self, id: Option<InstanceId>) -> Option<u32> {
        let id = id?;
        self.instances()
            .await
            .into_iter()
            .find(|(_, instance)| instance.id == id)?
            .1
            .pid
    }
}

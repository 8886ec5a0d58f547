//! A whole SeSeMI on this machine, with a simulated TEE: the platform's state, KeyService, and FnPacker with the embedded
//! serverless platform, which starts SeMIRT instances on demand.
//!
//! For development, tests and the demo. Everything listens on loopback and lives in one state folder.

mod child;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sesemi::measure::Measurement;
use sesemi::measure::simulated::{self, SimulatedKind};
use sesemi::{CodeIdentity, CodeIdentityDigest, TrustAnchor};
use tokio::process::Command;

pub use child::{Child, StackError};

/// Longest that a part may take to start.
const START: Duration = Duration::from_secs(60);
/// Longest that a part may take to drain.
const STOP: Duration = Duration::from_secs(20);

/// What OpenWhisk's clients call SeMIRT.
pub const IMAGE: &str = "semirt";

/// How to run a stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Where the binaries are.
    pub binaries: PathBuf,
    /// Where all state lives.
    pub state: PathBuf,
    /// Port of KeyService; 0 picks a free one.
    pub keyservice_port: u16,
    /// Port of KeyService's health and metrics; 0 picks a free one.
    pub admin_port: u16,
    /// Port of the gateway; 0 picks a free one.
    pub gateway_port: u16,
    /// Function endpoints of the gateway's pool.
    pub endpoints: u16,
    /// Memory of the embedded platform, in MiB.
    pub user_memory_mib: u32,
    /// Idle instances end after this many seconds.
    pub idle_timeout_secs: u32,
    /// How long a request waits for others to be run with, in milliseconds; 0 for not at all.
    pub batch_window_ms: u16,
    /// Whether the gateway writes down everything that the host sees of requests.
    pub tap: bool,
    /// KeyService's appraisal policy; the strictest without one.
    pub policy: Option<PathBuf>,
    /// Folder in which each process makes a file for its traces.
    pub traces: Option<PathBuf>,
    /// Where OpenWhisk's REST interface listens, and the file with its key, if there is to be one.
    pub openwhisk: Option<(SocketAddr, PathBuf)>,
    /// What runs the models.
    pub engine: StackEngine,
}

/// The engine of a stack's SeMIRT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StackEngine {
    /// RTen, which is in the program.
    #[default]
    Rten,
    /// ONNX Runtime, whose library is given to the program and measured with it.
    OnnxRuntime {
        /// The library's file.
        library: PathBuf,
    },
}

impl StackEngine {
    /// The program with this engine.
    #[must_use]
    pub fn program(&self) -> &'static str {
        match self {
            Self::Rten => "sesemi-semirt",
            Self::OnnxRuntime { .. } => "sesemi-semirt-onnxruntime",
        }
    }

    /// The libraries that the program is given.
    #[must_use]
    pub fn libraries(&self) -> &[PathBuf] {
        match self {
            Self::Rten => &[],
            Self::OnnxRuntime { library } => std::slice::from_ref(library),
        }
    }
}

impl StackOptions {
    /// Two endpoints on free ports.
    #[must_use]
    pub fn new(binaries: PathBuf, state: PathBuf) -> Self {
        Self {
            binaries,
            state,
            keyservice_port: 0,
            admin_port: 0,
            gateway_port: 0,
            endpoints: 2,
            user_memory_mib: 2048,
            idle_timeout_secs: 180,
            batch_window_ms: 0,
            tap: false,
            policy: None,
            traces: None,
            openwhisk: None,
            engine: StackEngine::default(),
        }
    }
}

/// What clients of a stack need to know. `sesemi up` writes it to `stack.toml`; all other commands read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Address of KeyService.
    pub keyservice: String,
    /// Its service id.
    pub keyservice_id: String,
    /// Its code identity.
    pub keyservice_code: String,
    /// Code identity of SeMIRT.
    pub semirt_code: String,
    /// Address of the gateway.
    pub gateway: String,
    /// Folder of the object store.
    pub store: PathBuf,
    /// KeyService's health and metrics.
    pub admin: String,
    /// Root certificate of the simulated platform.
    pub simulated_root: PathBuf,
    /// Endorsements of the simulated platform.
    pub endorsements: PathBuf,
    /// KeyService's appraisal policy, if it is not the default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<PathBuf>,
    /// OpenWhisk's REST interface, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub openwhisk: Option<String>,
    /// The file with its key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub openwhisk_auth: Option<PathBuf>,
}

/// A running stack. Dropping it kills its processes; [`Stack::stop`] drains them.
#[derive(Debug)]
pub struct Stack {
    /// What clients need to know.
    pub facts: Facts,
    options: StackOptions,
    keyservice: Child,
    gateway: Child,
}

/// Folders within the state folder.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn platform(&self) -> PathBuf {
        self.0.join("platform")
    }
    fn root(&self) -> PathBuf {
        self.platform().join("public/root.der")
    }
    fn endorsements(&self) -> PathBuf {
        self.platform().join("public/collateral.json")
    }
    fn keys(&self) -> PathBuf {
        self.0.join("keyservice")
    }
    fn store(&self) -> PathBuf {
        self.0.join("store")
    }
    fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
    fn tap(&self) -> PathBuf {
        self.0.join("tap")
    }
}

/// What the simulated TEE will measure of a binary and the libraries that it is given, without starting it.
///
/// # Errors
/// [`StackError`] if `simtee` cannot be used or refuses the binary.
pub async fn measurement(
    simtee: &Path,
    binary: &Path,
    libraries: &[PathBuf],
    kind: SimulatedKind,
) -> Result<Measurement, StackError> {
    let mut command = Command::new(simtee);
    command.arg("measure");
    for library in libraries {
        command.arg("--library").arg(library);
    }
    command.arg(binary).arg("--json");
    if kind == SimulatedKind::Tdx {
        command.args(["--tee", "tdx"]);
    }
    let output = child::output(&mut command).await?;
    simulated::from_json(kind, &output).map_err(|_| StackError::Answer("simtee measure"))
}

/// The code identity of a binary as an enclave on the simulated platform with this root certificate, without starting it.
///
/// # Errors
/// [`StackError`] if `simtee` or the root cannot be used.
pub async fn measure(
    simtee: &Path,
    binary: &Path,
    libraries: &[PathBuf],
    root: &Path,
) -> Result<(CodeIdentity, CodeIdentityDigest), StackError> {
    let measured = measurement(simtee, binary, libraries, SimulatedKind::Sgx).await?;
    let wrong = |_| StackError::Answer("simtee measure");
    let identity = measured.identity(&anchor(root)?).map_err(wrong)?;
    let digest = identity
        .digest()
        .map_err(|_| StackError::Answer("simtee measure"))?;
    Ok((identity, digest))
}

/// The trust anchor of the simulated platform with this root certificate.
///
/// # Errors
/// [`StackError`] if the file is no certificate.
pub fn anchor(root: &Path) -> Result<TrustAnchor, StackError> {
    let der = std::fs::read(root).map_err(|e| StackError::File(root.to_owned(), e))?;
    TrustAnchor::simulated(der).map_err(|_| StackError::Answer("simtee init"))
}

impl Stack {
    /// Whether KeyService started without a key to its state, which its custodians have to bring.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.keyservice
            .text("state")
            .is_ok_and(|state| state == "locked")
    }

    /// Starts a stack; `progress` is told what is being done.
    ///
    /// # Errors
    /// [`StackError`], which names the part that did not start and where its log is.
    pub async fn start(
        options: StackOptions,
        mut progress: impl FnMut(&str),
    ) -> Result<Self, StackError> {
        let layout = Layout(&options.state);
        let folders = [layout.keys(), layout.store(), layout.logs()];
        for folder in folders.into_iter().chain(options.traces.clone()) {
            std::fs::create_dir_all(&folder).map_err(|e| StackError::File(folder, e))?;
        }
        let simtee = options.binary("simtee")?;
        progress("making a simulated TEE platform");
        let init = Command::new(&simtee)
            .arg("init")
            .arg("--state")
            .arg(layout.platform())
            .output();
        child::check(init.await, "simtee init")?;

        progress("measuring the trusted binaries");
        let (keyservice_binary, semirt_binary) = (
            options.binary("sesemi-keyservice")?,
            options.binary(options.engine.program())?,
        );
        let root = layout.root();
        let (_, keyservice_code) = measure(&simtee, &keyservice_binary, &[], &root).await?;
        let libraries = options.engine.libraries();
        let (_, semirt_code) = measure(&simtee, &semirt_binary, libraries, &root).await?;

        progress("starting KeyService");
        let keyservice = options
            .start_keyservice(options.keyservice_port, options.admin_port)
            .await?;
        let facts = Facts {
            keyservice: keyservice.text("address")?,
            keyservice_id: keyservice.text("service")?,
            keyservice_code: keyservice_code.to_string(),
            semirt_code: semirt_code.to_string(),
            gateway: String::new(),
            store: layout.store(),
            admin: format!("http://{}", keyservice.text("admin")?),
            simulated_root: root,
            endorsements: layout.endorsements(),
            policy: options.policy.clone(),
            openwhisk: None,
            openwhisk_auth: None,
        };
        progress("starting FnPacker and the embedded serverless platform");
        let gateway = options.start_gateway(&facts, &semirt_binary).await?;
        let (openwhisk, openwhisk_auth) = match &options.openwhisk {
            Some((_, auth)) => {
                let address = format!("http://{}", gateway.text("openwhisk")?);
                (Some(address), Some(auth.clone()))
            }
            None => (None, None),
        };
        let facts = Facts {
            gateway: format!("http://{}", gateway.text("address")?),
            openwhisk,
            openwhisk_auth,
            ..facts
        };
        Ok(Self {
            facts,
            options,
            keyservice,
            gateway,
        })
    }

    /// Kills KeyService at once, as a crash would, and starts it again on the same state and ports.
    ///
    /// # Errors
    /// [`StackError`] if it does not start again.
    pub async fn crash_keyservice(&mut self) -> Result<(), StackError> {
        self.crash_keyservice_and(|| Ok(())).await
    }

    /// Kills KeyService at once, does something to its state as a hostile host may, and starts it again.
    ///
    /// # Errors
    /// [`StackError`] if it does not start again.
    pub async fn crash_keyservice_and(
        &mut self,
        meanwhile: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<(), StackError> {
        let port = |address: String| address.rsplit(':').next().and_then(|p| p.parse().ok());
        let unusable = || StackError::Answer("KeyService");
        let listen = port(self.keyservice.text("address")?).ok_or_else(unusable)?;
        let admin = port(self.keyservice.text("admin")?).ok_or_else(unusable)?;
        self.keyservice.kill_announced().await?;
        let state = Layout(&self.options.state).keys();
        meanwhile().map_err(|e| StackError::File(state, e))?;
        self.keyservice = self.options.start_keyservice(listen, admin).await?;
        Ok(())
    }

    /// The command that starts one more SeMIRT in the simulated TEE, as the platform does, for whoever wants to talk to it directly.
    ///
    /// # Errors
    /// [`StackError::NoBinary`].
    pub fn instance(&self) -> Result<Command, StackError> {
        let (options, engine) = (&self.options, &self.options.engine);
        let mut command = Command::new(options.binary("simtee")?);
        command
            .args(["run", "--die-with-parent", "--state"])
            .arg(Layout(&options.state).platform());
        for library in engine.libraries() {
            command.arg("--library").arg(library);
        }
        command
            .arg("--")
            .arg(options.binary(engine.program())?)
            .args(options.image_args(&self.facts));
        Ok(command)
    }

    /// Where the stack's logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        Layout(&self.options.state).logs()
    }

    /// Where everything that the host saw of requests is, if it was asked to write it down.
    #[must_use]
    pub fn tap(&self) -> PathBuf {
        Layout(&self.options.state).tap()
    }

    /// Returns when a part ends by itself, with what is known about it.
    pub async fn watch(&mut self) -> StackError {
        tokio::select! {
            error = self.keyservice.ended() => error,
            error = self.gateway.ended() => error,
        }
    }

    /// Drains and stops all parts: the gateway with its instances first, then KeyService.
    ///
    /// # Errors
    /// [`StackError`] if a part had to be killed or ended with an error.
    pub async fn stop(mut self) -> Result<(), StackError> {
        let gateway = self.gateway.stop(STOP).await;
        let keyservice = self.keyservice.stop(STOP).await;
        gateway.and(keyservice)
    }
}

impl StackOptions {
    fn binary(&self, name: &str) -> Result<PathBuf, StackError> {
        let path = self.binaries.join(name);
        if path.is_file() {
            Ok(path)
        } else {
            Err(StackError::NoBinary(path))
        }
    }

    async fn start_keyservice(&self, port: u16, admin: u16) -> Result<Child, StackError> {
        let layout = Layout(&self.state);
        let mut command = Command::new(self.binary("simtee")?);
        command
            .args(["run", "--die-with-parent", "--state"])
            .arg(layout.platform())
            .arg("--")
            .arg(self.binary("sesemi-keyservice")?)
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--admin-listen", &format!("127.0.0.1:{admin}"), "--state"])
            .arg(layout.keys())
            .arg("--simulated-root")
            .arg(layout.root())
            .arg("--endorsements")
            .arg(layout.endorsements());
        if let Some(policy) = &self.policy {
            command.arg("--policy").arg(policy);
        }
        if let Some(traces) = &self.traces {
            command.arg("--traces").arg(traces);
        }
        let log = layout.logs().join("keyservice.log");
        Child::start("KeyService", command, &log, START).await
    }

    async fn start_gateway(&self, facts: &Facts, semirt: &Path) -> Result<Child, StackError> {
        let layout = Layout(&self.state);
        // The launcher is one flag that is split into words as a shell does, so its parts are quoted.
        let libraries = self.engine.libraries().iter();
        let libraries: String = libraries
            .map(|library| format!(" --library {}", quoted(library)))
            .collect();
        let launcher = format!(
            "{} run --die-with-parent --state {}{libraries} --",
            quoted(&self.binary("simtee")?),
            quoted(&layout.platform())
        );
        let mut command = Command::new(self.binary("sesemi-fnpacker")?);
        command
            .args(["serve", "--die-with-parent"])
            .args(["--listen", &format!("127.0.0.1:{}", self.gateway_port)])
            .args(["--launcher", &launcher, "--image"])
            .arg(semirt)
            .args(["--endpoints", &self.endpoints.to_string()])
            .args(["--slots", "2", "--memory-mib", "512"])
            .args(["--user-memory-mib", &self.user_memory_mib.to_string()])
            .args(["--idle-timeout", &self.idle_timeout_secs.to_string()])
            .args(["--image-env", "RTEN_NUM_THREADS=1", "--log-dir"])
            .arg(layout.logs());
        for value in self.image_args(facts) {
            let mut arg = OsString::from("--image-arg=");
            arg.push(value);
            command.arg(arg);
        }
        if let Some(traces) = &self.traces {
            command.arg("--traces").arg(traces);
        }
        if self.tap {
            command.arg("--tap").arg(layout.tap());
        }
        if let Some((listen, auth)) = &self.openwhisk {
            command
                .args(["--openwhisk-listen", &listen.to_string()])
                .args(["--openwhisk-image", IMAGE, "--openwhisk-auth"])
                .arg(auth);
        }
        let log = layout.logs().join("fnpacker.log");
        Child::start("FnPacker", command, &log, START).await
    }
}

impl StackOptions {
    /// What SeMIRT is told.
    fn image_args(&self, facts: &Facts) -> Vec<OsString> {
        let paths = [
            ("--store", &facts.store),
            ("--simulated-root", &facts.simulated_root),
            ("--endorsements", &facts.endorsements),
        ];
        let batch_window_ms = self.batch_window_ms.to_string();
        let texts = [
            ("--listen", "127.0.0.1:0"),
            ("--keyservice", &facts.keyservice),
            ("--keyservice-id", &facts.keyservice_id),
            ("--keyservice-code", &facts.keyservice_code),
            ("--batch-window-ms", &batch_window_ms),
        ];
        let mut args = vec![OsString::from("serve")];
        args.extend(
            texts
                .iter()
                .flat_map(|(flag, value)| [flag, value].map(OsString::from)),
        );
        for (flag, path) in paths {
            args.extend([flag.into(), path.into()]);
        }
        if let Some(traces) = &self.traces {
            args.extend(["--traces".into(), traces.into()]);
        }
        args
    }
}

/// A path as one word for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

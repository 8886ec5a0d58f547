//! Where a run happens: simulated machines, the program that is killed, its state folder, and how clients know it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sesemi_attest::channel::Connector;
use sesemi_attest::{AppraisalPolicy, SystemClock};
use sesemi_protocol::{CodeIdentityDigest, SystemEntropy};
use sesemi_simtee::{Image, Machine, Measurement};
use sesemi_testkit::enclave::{self, Enclave};
use tempfile::TempDir;

use crate::error::{CrashError, io};

/// The programs that a run needs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `sesemi-keyservice`.
    pub keyservice: PathBuf,
    /// `simtee`.
    pub simtee: PathBuf,
}

impl Programs {
    /// Those in the folder that `cargo xtask build` fills.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            keyservice: folder.join("sesemi-keyservice"),
            simtee: folder.join("simtee"),
        }
    }
}

/// One state folder, and the machine that it is used on.
pub struct Lab {
    /// The programs.
    pub programs: Programs,
    folder: TempDir,
    state: PathBuf,
    keyservice: Measurement,
    /// The machine. The state's TEE key is this machine's: on another one the state is locked.
    machine: Arc<Machine>,
    machines: u32,
}

impl core::fmt::Debug for Lab {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Lab").field(&self.folder.path()).finish()
    }
}

impl Lab {
    /// A new machine, and a state folder that is not there yet.
    ///
    /// # Errors
    /// [`CrashError`] if the programs or the disk cannot be used.
    pub fn new(programs: &Programs) -> Result<Self, CrashError> {
        let folder = tempfile::tempdir().map_err(io("a temporary folder"))?;
        let machine = Machine::create(&folder.path().join("machine-0"), SystemTime::now())?;
        Ok(Self {
            programs: programs.clone(),
            keyservice: Image::load(&programs.keyservice)?.measurement().clone(),
            machine: Arc::new(machine),
            machines: 1,
            state: folder.path().join("state"),
            folder,
        })
    }

    /// Moves the state to another machine, where nothing that the first one sealed can be opened.
    ///
    /// # Errors
    /// [`CrashError::Machine`].
    pub fn move_to_new_machine(&mut self) -> Result<(), CrashError> {
        let folder = self
            .folder
            .path()
            .join(format!("machine-{}", self.machines));
        self.machine = Arc::new(Machine::create(&folder, SystemTime::now())?);
        self.machines += 1;
        Ok(())
    }

    /// The machine's folder.
    #[must_use]
    pub fn machine_folder(&self) -> &Path {
        self.machine.directory()
    }

    /// The service's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// The next services use another state folder on the same machine.
    pub fn use_state(&mut self, folder: PathBuf) {
        self.state = folder;
    }

    /// Where the service writes its log for people.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("keyservice.log")
    }

    /// How principals connect to the service on this machine.
    ///
    /// # Errors
    /// [`CrashError`].
    pub fn principals(&self) -> Result<Connector, CrashError> {
        Ok(Connector::for_principal(
            enclave::verifier(&self.machine),
            self.service_policy()?,
            AppraisalPolicy::per_release().digest()?,
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::new()),
        )?)
    }

    /// How an enclave with the code [`Lab::enclave_code`] connects to it.
    ///
    /// # Errors
    /// [`CrashError`].
    pub fn enclaves(&self) -> Result<Connector, CrashError> {
        Ok(Connector::for_enclave(
            enclave::verifier(&self.machine),
            self.service_policy()?,
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::new()),
            Arc::new(self.enclave()),
        )?)
    }

    /// The code of the enclaves that ask for keys.
    #[must_use]
    pub fn enclave_code(&self) -> CodeIdentityDigest {
        self.enclave().code()
    }

    fn service_policy(&self) -> Result<AppraisalPolicy, CrashError> {
        let code = enclave::code(&self.machine, &self.keyservice);
        Ok(AppraisalPolicy::reference_values([code])?)
    }

    /// What stands for SeMIRT: its keys are never used, so any code will do.
    fn enclave(&self) -> Enclave {
        Enclave::new(self.machine.clone(), Measurement::of_elf(b"SeMIRT"))
    }
}

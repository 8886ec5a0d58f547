//! Evidence of a confidential virtual machine, through Linux: configfs-tsm, the same for every vendor.
//!
//! A program makes an entry of its own, writes 64 bytes of report data into it and reads the report out of it. The kernel
//! counts the writes to an entry (`generation`). That number is compared twice: after the writes, because a write takes
//! effect when its file is closed and an error then is told to nobody; and after the report was read, because any other
//! program may write to the entry too. If it is not what it must be, all is done again with a new entry.
//!
//! The work is done by the device's own thread, within a deadline: behind the kernel stands a host who may not answer.
//!
//! Source: Linux, Documentation/ABI/testing/configfs-tsm-report (6.7 and later).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sesemi_protocol::SystemEntropy;
use sesemi_protocol::entropy::random;

use super::certificate_table::MAX_TABLE;
use super::device::Device;
use super::files::{self, Files};
use super::snp::{DerivedKeySource, Snp};
use super::tdx::Tdx;
use crate::attester::{Attester, AttesterError};
use crate::evidence::{EvidenceError, MAX_EVIDENCE};

/// What the kernel answers where no driver of a TEE has registered: "no such device or address".
const ENXIO: i32 = 6;

/// What bounds the work on one report.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often all is tried, at most.
    pub attempts: u32,
    /// How long to wait before the second attempt; before each further one twice as long.
    pub pause: Duration,
    /// How long a caller waits, all in all.
    pub deadline: Duration,
}

impl Default for Limits {
    /// A report of SEV-SNP takes milliseconds, a quote of TDX up to a few seconds.
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(100),
            deadline: Duration::from_secs(10),
        }
    }
}

/// Which driver makes the reports, and so their format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Tdx,
    Snp,
}

/// A report, unverified.
#[derive(Debug)]
pub(super) struct Report {
    /// The report or quote, at most [`MAX_EVIDENCE`] bytes.
    pub(super) report: Vec<u8>,
    /// SEV-SNP: the host's table of certificates, at most [`MAX_TABLE`] bytes.
    pub(super) certificates: Vec<u8>,
}

/// The TEE whose reports the folder `root` offers; `None` if no driver of a TEE is there. An SEV-SNP guest has its sealing
/// keys from `keys`.
///
/// # Errors
/// [`AttesterError::UnknownProvider`] for a TEE that is not known here; [`AttesterError::Unusable`] if this program may
/// not write to the folder; another [`AttesterError`] if the kernel does not answer as it should.
pub fn open(
    root: &Path,
    files: Arc<dyn Files>,
    limits: Limits,
    keys: Arc<dyn DerivedKeySource>,
) -> Result<Option<Arc<dyn Attester>>, AttesterError> {
    let device = Device::start(limits.deadline)?;
    let tsm = Tsm {
        folder: Folder {
            root: root.to_owned(),
            files,
            limits,
        },
        device,
    };
    let folder = tsm.folder.clone();
    let provider = tsm
        .device
        .call("say which TEE it is", move |_| folder.provider())?;
    Ok(match provider {
        None => None,
        Some(Provider::Tdx) => Some(Arc::new(Tdx::new(tsm))),
        Some(Provider::Snp) => Some(Arc::new(Snp::new(tsm, keys))),
    })
}

/// The kernel's interface and the thread that uses it.
pub(super) struct Tsm {
    folder: Folder,
    device: Device,
}

impl Tsm {
    /// A report of this provider about `report_data`. Whether it is about that is for the caller to see.
    pub(super) fn report(
        &self,
        provider: Provider,
        report_data: &[u8; 64],
    ) -> Result<Report, AttesterError> {
        let (folder, report_data) = (self.folder.clone(), *report_data);
        self.device.call("give a report", move |until| {
            folder.report(provider, &report_data, until)
        })
    }

    /// The thread, for other work with the same hardware.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}

#[derive(Clone)]
struct Folder {
    root: PathBuf,
    files: Arc<dyn Files>,
    limits: Limits,
}

/// What stopped an attempt.
enum Stopped {
    /// It may pass.
    Now(AttesterError),
    /// It will not.
    ForGood(AttesterError),
}

impl<E: Into<AttesterError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        match error.into() {
            AttesterError::Device(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ResourceBusy | ErrorKind::WouldBlock | ErrorKind::AlreadyExists
                ) =>
            {
                Self::Now(error.into())
            }
            AttesterError::Raced => Self::Now(AttesterError::Raced),
            error => Self::ForGood(error),
        }
    }
}

impl Folder {
    fn provider(&self) -> Result<Option<Provider>, AttesterError> {
        match self.make_entry() {
            Ok(entry) => entry.provider().map(Some),
            Err(AttesterError::Device(error)) if error.raw_os_error() == Some(ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn report(
        &self,
        provider: Provider,
        report_data: &[u8; 64],
        until: Instant,
    ) -> Result<Report, AttesterError> {
        let mut pause = self.limits.pause;
        let mut attempt = 1;
        loop {
            match self.attempt(provider, report_data) {
                Ok(report) => return Ok(report),
                Err(Stopped::ForGood(error)) => return Err(error),
                Err(Stopped::Now(error)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if attempt >= self.limits.attempts || left <= pause {
                        return Err(error);
                    }
                }
            }
            attempt = attempt.saturating_add(1);
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2);
        }
    }

    fn attempt(&self, provider: Provider, report_data: &[u8; 64]) -> Result<Report, Stopped> {
        let entry = self.make_entry()?;
        if entry.provider()? != provider {
            return Err(AttesterError::Contract("its provider changed").into());
        }
        let mut generation = entry.generation()?;
        if provider == Provider::Snp && entry.lower_privilege_level()? {
            generation = generation.wrapping_add(1);
        }
        entry.write("inblob", report_data)?;
        generation = generation.wrapping_add(1);
        entry.require_generation(generation)?;
        let report = entry
            .read("outblob", MAX_EVIDENCE)?
            .ok_or(EvidenceError::TooLong(MAX_EVIDENCE))?;
        let certificates = match provider {
            Provider::Tdx => Vec::new(),
            Provider::Snp => entry.certificates()?,
        };
        entry.require_generation(generation)?;
        Ok(Report {
            report,
            certificates,
        })
    }

    /// An entry that no other program has, and that none can guess: its name is random.
    fn make_entry(&self) -> Result<Entry<'_>, AttesterError> {
        let name = random(&SystemEntropy::new())
            .map_err(|error| AttesterError::Device(io::Error::other(error)))?;
        let path = self
            .root
            .join(format!("sesemi-{:016x}", u64::from_ne_bytes(name)));
        match self.files.make_dir(&path) {
            Ok(()) => Ok(Entry {
                files: &*self.files,
                path,
            }),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Err(AttesterError::Unusable {
                    tee: "configfs-tsm",
                    hint: "this program may not write to /sys/kernel/config/tsm/report: run it as root, and in a container mount configfs writable",
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An entry in the folder of reports. It goes with this value, whatever happened.
struct Entry<'a> {
    files: &'a dyn Files,
    path: PathBuf,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // If it cannot be removed nothing is wrong with the report; the kernel keeps a few bytes more.
        let _ = self.files.remove_dir(&self.path);
    }
}

impl Entry<'_> {
    fn provider(&self) -> Result<Provider, AttesterError> {
        let name = self
            .text("provider")?
            .ok_or(AttesterError::Contract("its provider is no name"))?;
        match name.as_str() {
            "tdx_guest" => Ok(Provider::Tdx),
            "sev_guest" => Ok(Provider::Snp),
            _ => Err(AttesterError::UnknownProvider(name)),
        }
    }

    /// How many writes there were. The kernel's counter wraps.
    fn generation(&self) -> Result<u64, AttesterError> {
        self.text("generation")?
            .and_then(|number| number.parse().ok())
            .ok_or(AttesterError::Contract("its generation is no number"))
    }

    fn require_generation(&self, expected: u64) -> Result<(), AttesterError> {
        if self.generation()? == expected {
            Ok(())
        } else {
            Err(AttesterError::Raced)
        }
    }

    /// Asks for a report about privilege level (VMPL) 0, the only one that verifiers accept. Says whether there was
    /// something to write.
    fn lower_privilege_level(&self) -> Result<bool, AttesterError> {
        let floor = match self.text("privlevel_floor") {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        match floor.as_deref() {
            Some("0") => {}
            Some(_) => {
                return Err(AttesterError::Unusable {
                    tee: "snp",
                    hint: "this guest runs above privilege level (VMPL) 0, under an SVSM, which is not supported",
                });
            }
            None => return Err(AttesterError::Contract("its privlevel_floor is no number")),
        }
        self.write("privlevel", b"0")?;
        Ok(true)
    }

    fn certificates(&self) -> Result<Vec<u8>, AttesterError> {
        match self.read("auxblob", MAX_TABLE) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other?.ok_or(AttesterError::Contract(
                "its table of certificates is too long",
            )),
        }
    }

    fn text(&self, file: &str) -> io::Result<Option<String>> {
        files::read_text(self.files, &self.path.join(file))
    }

    fn read(&self, file: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        files::read(self.files, &self.path.join(file), limit)
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.write(&self.path.join(file), bytes)
    }
}

//! Which TEE a program finds: by what the machine offers. Real files, in temporary folders.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sesemi_attest::tee::configfs::{self, Limits};
use sesemi_attest::tee::files::{Files, SystemFiles};
use sesemi_attest::tee::{Roots, detect_in};
use sesemi_attest::{Attester, AttesterError};
use tempfile::TempDir;

use crate::gramine::Folder;
use crate::sealing::NoKeys;
use crate::{SOON, in_time, patiently, report_data};

/// A machine's folders.
struct Machine {
    dev: TempDir,
    sys: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self {
            dev: TempDir::new().unwrap(),
            sys: TempDir::new().unwrap(),
        }
    }

    fn detect(&self, input: BorrowedFd<'_>) -> Result<Arc<dyn Attester>, AttesterError> {
        detect_in(&Roots {
            dev: self.dev.path(),
            tsm: &self.sys.path().join("report"),
            input,
        })
    }
}

fn no_input() -> File {
    File::open("/dev/null").unwrap()
}

/// A socket with a simulator behind it that answers what is needed to be found.
fn simulator() -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let quote = crate::sgx_quote(&[0; 64], 1);
    theirs.write_all(b"\0\0\0\0\x08simtee/1").unwrap();
    theirs.write_all(&[0]).unwrap();
    let length = u32::try_from(quote.len()).unwrap();
    theirs.write_all(&length.to_be_bytes()).unwrap();
    theirs.write_all(&quote).unwrap();
    // It stays open as long as the socket that is returned.
    std::thread::spawn(move || io::copy(&mut theirs, &mut io::sink()));
    ours
}

#[test]
fn a_machine_without_any_is_told_so() {
    assert!(matches!(
        Machine::new().detect(no_input().as_fd()),
        Err(AttesterError::NoTee)
    ));
}

#[test]
fn a_simulator_is_found_where_there_is_no_hardware() {
    let socket = simulator();
    let tee = Machine::new().detect(socket.as_fd()).unwrap();
    assert_eq!(tee.name(), "simulated");
}

#[test]
fn gramine_is_found_before_a_simulator() {
    let machine = Machine::new();
    let gramine = Folder::new();
    std::os::unix::fs::symlink(gramine.path(), machine.dev.path().join("attestation")).unwrap();
    let socket = simulator();
    assert_eq!(machine.detect(socket.as_fd()).unwrap().name(), "sgx");
}

#[test]
fn hardware_that_cannot_be_used_is_an_error_and_never_the_simulator() {
    let socket = simulator();
    let built_without = Machine::new();
    let attestation = built_without.dev.path().join("attestation");
    fs::create_dir(&attestation).unwrap();
    fs::write(attestation.join("attestation_type"), "none").unwrap();
    assert!(matches!(
        built_without.detect(socket.as_fd()),
        Err(AttesterError::Unusable { tee: "Gramine", .. })
    ));

    for (device, name) in [("tdx_guest", "tdx"), ("sev-guest", "snp")] {
        let without_configfs = Machine::new();
        fs::write(without_configfs.dev.path().join(device), "").unwrap();
        let result = without_configfs.detect(socket.as_fd());
        let Err(AttesterError::Unusable { tee, hint }) = result else {
            panic!("{device} was overlooked");
        };
        assert_eq!(tee, name);
        assert!(hint.contains("configfs"), "{hint}");
    }

    // A folder that is no configfs: the kernel fills no entry that is made in it.
    let not_configfs = Machine::new();
    let report = not_configfs.sys.path().join("report");
    fs::create_dir(&report).unwrap();
    assert!(matches!(
        not_configfs.detect(socket.as_fd()),
        Err(AttesterError::Device(_))
    ));
    assert_eq!(fs::read_dir(&report).unwrap().count(), 0);
}

/// Real files whose entries are filled as a kernel fills them; the report is a pipe that nobody writes to.
struct Filled;

impl Files for Filled {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        SystemFiles.make_dir(path)?;
        fs::write(path.join("provider"), "tdx_guest\n")?;
        fs::write(path.join("generation"), "0\n")?;
        fs::write(path.join("inblob"), "")?;
        let pipe = path.join("outblob");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        SystemFiles.open(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        SystemFiles.write(path, bytes)?;
        fs::write(path.with_file_name("generation"), "1\n")
    }
}

#[test]
fn a_real_file_that_nobody_ever_fills_does_not_hang_a_guest() {
    let sys = TempDir::new().unwrap();
    let limits = Limits {
        deadline: SOON,
        ..Limits::default()
    };
    let guest = patiently(|| {
        in_time(configfs::open(
            sys.path(),
            Arc::new(Filled),
            limits,
            Arc::new(NoKeys),
        ))
    })
    .unwrap();
    wait_until_empty(sys.path());
    assert!(matches!(
        guest.evidence(&report_data(1)),
        Err(AttesterError::TimedOut("give a report"))
    ));
    let entry = fs::read_dir(sys.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(
        fs::read(entry.path().join("inblob")).unwrap(),
        report_data(1)
    );
    // Whoever reads the pipe finds its end, and no quote in it; then the entry goes.
    drop(
        OpenOptions::new()
            .write(true)
            .open(entry.path().join("outblob"))
            .unwrap(),
    );
    wait_until_empty(sys.path());
}

fn wait_until_empty(folder: &Path) {
    patiently(|| fs::read_dir(folder).unwrap().next().is_none().then_some(()));
}

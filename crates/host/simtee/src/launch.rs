//! Starting a measured program, and what can be done with it while it runs.
//!
//! The program gets the [`device`](crate::device) socket as its standard input, so that it finds it without being told a
//! number; its standard output and error are the launcher's. It runs in a process group of its own, so that a Ctrl-C at
//! the terminal reaches it once, through the launcher, and not twice.
//!
//! Libraries that were measured with it are open files from descriptor 3 on. It inherits no other descriptor, so that what it
//! finds there was measured, and no variable that makes its dynamic linker load something else.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal};

use crate::device::{self, DeviceError};
use crate::{Image, Machine, Measured, SimteeError, Tee};

/// Longest that is waited for the device once its enclave has ended.
const MOMENT: Duration = Duration::from_secs(2);

/// The descriptor at which a program finds its first library.
pub const FIRST_LIBRARY: i32 = 3;
/// Beginnings of the names of variables that the dynamic linker and the C library read: they would load or do something else.
const OF_THE_LINKER: [&str; 2] = ["LD_", "GLIBC_"];

/// A running simulated enclave. Dropping it kills it.
#[derive(Debug)]
pub struct Enclave {
    child: Child,
    signaller: Signaller,
    measured: Measured,
    device: Option<JoinHandle<Result<(), DeviceError>>>,
}

/// Sends signals to an enclave from any thread. It names the process, not its number, so that a signal that comes too
/// late reaches nobody else.
#[derive(Debug)]
pub struct Signaller {
    process: OwnedFd,
}

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Image {
    /// Starts the sealed program with these arguments as an SGX enclave and serves it the device on a thread of its own.
    ///
    /// # Errors
    ///
    /// Those of [`Image::launch_in`], which see also for who ends the enclave.
    pub fn launch<A: AsRef<OsStr>>(
        &self,
        machine: Arc<Machine>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Enclave, SimteeError> {
        self.launch_in(Tee::Sgx, machine, arguments)
    }

    /// Starts the sealed program with these arguments in this kind of TEE.
    ///
    /// The kernel kills the enclave when the **thread** that calls this ends, which includes the end of the process,
    /// however it comes about. Call it from a thread that outlives the enclave.
    ///
    /// # Errors
    ///
    /// [`SimteeError::Launch`] if the program cannot be started.
    pub fn launch_in<A: AsRef<OsStr>>(
        &self,
        tee: Tee,
        machine: Arc<Machine>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Enclave, SimteeError> {
        let failed = |source| SimteeError::Launch {
            path: self.path.clone(),
            source,
        };
        let (host, enclave) = UnixStream::pair().map_err(failed)?;
        let handed = Handed::over(self).map_err(failed)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", handed.program.as_raw_fd()));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if OF_THE_LINKER.iter().any(|it| name.starts_with(it)) {
                command.env_remove(&*name);
            }
        }
        command
            .arg0(&self.path)
            .args(arguments)
            .stdin(OwnedFd::from(enclave))
            .process_group(0);
        die_with_this_thread(&mut command);
        handed.into_places(&mut command).map_err(failed)?;

        // The device comes first: should the start fail, it sees the socket closed and ends by itself.
        let measured = self.measured(tee)?;
        let answered = measured.clone();
        let device = std::thread::Builder::new()
            .name("simtee-device".to_owned())
            .spawn(move || device::serve(&machine, answered, host))
            .map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        // The command still holds the enclave's end of the socket, and would keep it open after the enclave's death.
        drop(command);
        match Signaller::of(&child) {
            Ok(signaller) => Ok(Enclave {
                child,
                signaller,
                measured,
                device: Some(device),
            }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(failed(error))
            }
        }
    }
}

impl Enclave {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The measurement for which the device answers.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    /// A handle with which another thread can signal the enclave while this one waits for it.
    pub fn signaller(&self) -> Result<Signaller, SimteeError> {
        let process = self
            .signaller
            .process
            .try_clone()
            .map_err(SimteeError::Signal)?;
        Ok(Signaller { process })
    }

    /// Waits until the enclave has ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Why the device stopped serving, if it has stopped and the enclave was at fault. Once the enclave has ended its socket
    /// is closed, which the device needs a moment to see; it is given that.
    pub fn device_failure(&mut self) -> Option<DeviceError> {
        let ended = matches!(self.child.try_wait(), Ok(Some(_)));
        let begun = Instant::now();
        while ended
            && begun.elapsed() < MOMENT
            && self.device.as_ref().is_some_and(|it| !it.is_finished())
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let device = self.device.take_if(|device| device.is_finished())?;
        device.join().ok()?.err()
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        // Both fail only if the enclave has ended and was waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Signaller {
    fn of(child: &Child) -> io::Result<Self> {
        // The child has not been waited for, so its number cannot have been given to another process.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is out of range"))?;
        Ok(Self {
            process: pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    /// Asks the enclave to stop. One that has already ended is not an error.
    pub fn send(&self, signal: StopSignal) -> Result<(), SimteeError> {
        let signal = match signal {
            StopSignal::Terminate => Signal::TERM,
            StopSignal::Interrupt => Signal::INT,
        };
        match pidfd_send_signal(&self.process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(SimteeError::Signal(error.into())),
        }
    }
}

/// The program and its libraries as open files that are out of the way of the places where the libraries belong.
struct Handed {
    program: OwnedFd,
    libraries: Vec<OwnedFd>,
    /// What keeps those places taken until the program was started, so that nothing of the launcher's own is there.
    placeholders: Vec<OwnedFd>,
}

impl Handed {
    fn over(image: &Image) -> io::Result<Self> {
        let beyond = FIRST_LIBRARY.saturating_add(image.libraries.len() as i32);
        let program = fcntl_dupfd_cloexec(&image.sealed, beyond)?;
        let libraries = image.libraries.iter();
        let libraries = libraries.map(|library| fcntl_dupfd_cloexec(&library.sealed, beyond));
        let libraries = libraries.collect::<Result<Vec<_>, _>>()?;
        let mut placeholders = Vec::new();
        for _ in FIRST_LIBRARY..beyond {
            placeholders.push(fcntl_dupfd_cloexec(&program, FIRST_LIBRARY)?);
        }
        Ok(Self {
            program,
            libraries,
            placeholders,
        })
    }

    /// Has the child find its libraries, and no other file of this process.
    fn into_places(self, command: &mut Command) -> io::Result<()> {
        close_at_exec()?;
        give(command, self);
        Ok(())
    }
}

/// Has every descriptor but the standard ones close when a program is started: those that this process inherited itself as
/// well.
#[allow(unsafe_code)]
fn close_at_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number: Option<RawFd> = entry?.file_name().to_str().and_then(|it| it.parse().ok());
        let Some(number) = number.filter(|number| *number >= FIRST_LIBRARY) else {
            continue;
        };
        // SAFETY: it is borrowed for one call only, which changes a flag. If somebody closed it meanwhile the call fails, and
        // if another file was opened there, that one wants the flag as well.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts each library at its place in the child. Whatever is handed over lives as long as the command.
#[allow(unsafe_code)]
fn give(command: &mut Command, handed: Handed) {
    // SAFETY: the closure runs between fork and exec. It makes plain system calls; the descriptors that it names are in the child's
    // own table, where nothing but placeholders are at these places, and it does not close them twice.
    unsafe {
        command.pre_exec(move || {
            for (library, place) in handed.libraries.iter().zip(FIRST_LIBRARY..) {
                let mut place = std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(place));
                rustix::io::dup2(library, &mut place)?;
            }
            let _ = (&handed.program, &handed.placeholders);
            Ok(())
        });
    }
}

/// Has the kernel kill the child when the current thread ends: an enclave must not outlive its processor.
#[allow(unsafe_code)]
fn die_with_this_thread(command: &mut Command) {
    let launcher = getpid();
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed. It makes two
    // plain system calls, allocates nothing, takes no lock and touches no state of this process but a copied number.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // A launcher that died before the line above can no longer cause the signal.
            if getppid() == Some(launcher) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

//! What this machine offers, found out without taking any measure, for `sesemi doctor`.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Measure, State, files, in_library_os, syscalls};
use crate::secret_memory::{Placement, placement};
use crate::sys;

/// Locked memory that is enough for all keys that are ever hidden, in bytes.
const ENOUGH_LOCKED: u64 = 1024 * 1024;

/// Looks at this machine. Nothing is changed, but that one page of key memory may be set up.
#[must_use]
pub fn probe() -> Vec<Measure> {
    let mut measures = vec![kernel(), keys(), locked_memory(), swap()];
    if in_library_os() {
        let detail = "Gramine's manifest decides";
        let left = |name| Measure::new(name, State::LeftToLibraryOs, detail);
        measures.extend([files::NAME, syscalls::NAME].map(left));
    } else {
        measures.extend([landlock(), seccomp(), no_new_privs(), yama()]);
    }
    measures
}

fn kernel() -> Measure {
    let name = rustix::system::uname();
    let (system, release) = (name.sysname(), name.release());
    let detail = format!("{} {}", system.to_string_lossy(), release.to_string_lossy());
    Measure::new("kernel", State::Offered, detail)
}

fn keys() -> Measure {
    let placement = placement();
    let state = match placement {
        Placement::Hidden => State::Offered,
        Placement::Locked { .. } => State::Weak,
        Placement::Ordinary { .. } => State::NotOffered,
    };
    Measure::new("key memory", state, placement.to_string())
}

fn locked_memory() -> Measure {
    const NAME: &str = "locked memory";
    match getrlimit(Resource::Memlock).current {
        None => Measure::new(NAME, State::Offered, "no limit"),
        Some(bytes) if bytes >= ENOUGH_LOCKED => {
            Measure::new(NAME, State::Offered, format!("{} KiB", bytes >> 10))
        }
        Some(bytes) => {
            let kib = bytes >> 10;
            let detail = format!(
                "{kib} KiB; with many keys some stay unhidden: raise RLIMIT_MEMLOCK to 1 MiB"
            );
            Measure::new(NAME, State::Weak, detail)
        }
    }
}

fn swap() -> Measure {
    const NAME: &str = "swap";
    // The first line is the heading.
    match fs::read_to_string("/proc/swaps").map(|it| it.lines().count()) {
        Ok(0 | 1) => Measure::new(NAME, State::Offered, "off"),
        Ok(_) => {
            let detail =
                "on: models and requests may be written to disk; turn it off, or encrypt it";
            Measure::new(NAME, State::Weak, detail)
        }
        Err(error) => Measure::new(NAME, State::NotOffered, format!("cannot tell: {error}")),
    }
}

fn landlock() -> Measure {
    match sys::landlock_version() {
        Ok(version @ ..3) => {
            let detail = format!("version {version}; from Linux 6.2 on it covers truncation too");
            Measure::new(files::NAME, State::Weak, detail)
        }
        Ok(version) => Measure::new(files::NAME, State::Offered, format!("version {version}")),
        Err(error) => {
            let detail = format!("{error}; use Linux 5.13 or later, booted with lsm=landlock,…");
            Measure::new(files::NAME, State::NotOffered, detail)
        }
    }
}

fn seccomp() -> Measure {
    match rustix::thread::secure_computing_mode() {
        Ok(_) => Measure::new(syscalls::NAME, State::Offered, "filters"),
        Err(_) => {
            let detail = "use a kernel with CONFIG_SECCOMP_FILTER";
            Measure::new(syscalls::NAME, State::NotOffered, detail)
        }
    }
}

fn no_new_privs() -> Measure {
    const NAME: &str = "no_new_privs";
    match rustix::thread::no_new_privs() {
        Ok(_) => Measure::new(NAME, State::Offered, "there since Linux 3.5"),
        Err(error) => Measure::new(NAME, State::NotOffered, error.to_string()),
    }
}

fn yama() -> Measure {
    const NAME: &str = "yama";
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if scope.trim() == "0" => {
            let detail =
                "processes of one user may trace each other; set kernel.yama.ptrace_scope=1";
            Measure::new(NAME, State::Weak, detail)
        }
        Ok(scope) => {
            let detail = format!("kernel.yama.ptrace_scope={}", scope.trim());
            Measure::new(NAME, State::Offered, detail)
        }
        Err(_) => {
            let detail =
                "this kernel has none; services are not dumpable, so only root can trace them";
            Measure::new(NAME, State::NotOffered, detail)
        }
    }
}

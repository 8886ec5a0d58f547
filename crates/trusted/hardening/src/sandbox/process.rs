//! Attributes of the process itself.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, PTracer, Resource, Rlimit, getrlimit, set_dumpable_behavior, set_ptracer,
    setrlimit, umask,
};
use rustix::thread::set_no_new_privs;

use super::{HardenError, Measure, State, refused};

pub(super) const NAME: &str = "process";
/// Files and sockets that a service may have open at once, if the hard limit lets it.
const OPEN_FILES: u64 = 16 * 1024;
/// What KeyService's bounds add up to, and some.
const ENOUGH_FILES: u64 = 2048;

/// Takes each measure. All are older than any kernel that runs us; only Yama is a choice of whoever built the kernel.
pub(super) fn harden() -> Result<Vec<Measure>, HardenError> {
    let enforced = |name, detail: &str| Measure::new(name, State::Enforced, detail);
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("core limit"))?;
    // Also takes /proc/PID/{mem,environ,maps,…} and ptrace from everyone but root.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("not dumpable"))?;
    let yama = match set_ptracer(PTracer::None) {
        Ok(()) => enforced("ptracer", "no process may ask to trace this one"),
        Err(Errno::INVAL) => Measure::new(
            "ptracer",
            State::NotOffered,
            "this kernel has no Yama; that the process is not dumpable keeps all but root away",
        ),
        Err(error) => return Err(refused("ptracer")(error)),
    };
    set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    Ok(vec![
        enforced("umask", "files are made for their owner alone"),
        enforced("core limit", "no core dump"),
        enforced("not dumpable", "no core dump, no debugger but root's"),
        yama,
        enforced("no_new_privs", "no program started from here gains rights"),
        raise_open_files(),
    ])
}

/// The usual soft limit of 1024 is for programs that call `select(2)`; a service's own bounds are above it, and one that runs out
/// of descriptors refuses everybody.
fn raise_open_files() -> Measure {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        // Who may not has what was there before.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    match getrlimit(Resource::Nofile).current {
        Some(now) if now < ENOUGH_FILES => Measure::new(
            "open files",
            State::Weak,
            format!(
                "{now} files and connections at once; a service wants {ENOUGH_FILES}: raise the hard limit (LimitNOFILE)"
            ),
        ),
        now => {
            let detail = match now {
                Some(now) => format!("{now} files and connections at once"),
                None => "as many files and connections as there is memory for".to_owned(),
            };
            Measure::new("open files", State::Enforced, detail)
        }
    }
}

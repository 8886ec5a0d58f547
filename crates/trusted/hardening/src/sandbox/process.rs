//! Attributes of the process itself.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, PTracer, Resource, Rlimit, set_dumpable_behavior, set_ptracer, setrlimit,
    umask,
};
use rustix::thread::set_no_new_privs;

use super::{HardenError, Measure, State, refused};

pub(super) const NAME: &str = "process";

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
    ])
}

//! seccomp: which system calls can be made.
//!
//! Three filters, of which the kernel takes the strictest answer:
//! 1. what only an attacker would do ends the process at once;
//! 2. `clone3` is said to be missing: its flags are in memory, which a filter cannot read. The C library then makes threads
//!    with `clone`, whose flags are checked, so that threads can be started and processes cannot;
//! 3. what a service is known to need is allowed, some of it only with certain arguments; the rest fails with `EPERM`, which
//!    every caller must expect, so that a library's attempt at something new is an error and not the end.
//!
//! The list was made by tracing the deployed programs through all of their work (`strace -f`), and the calls that their
//! libraries fall back to on other kernels.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::{HardenError, Measure, State};

pub(super) const NAME: &str = "seccomp";

/// What only an attacker would do: start a program, look into a process, change the kernel, or reach it by its widest doors.
#[rustfmt::skip]
const HOSTILE: &[c_long] = &[
    libc::SYS_execve, libc::SYS_execveat,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd, libc::SYS_kcmp,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_reboot,
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_open_by_handle_at,
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const HOSTILE_HERE: &[c_long] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const HOSTILE_HERE: &[c_long] = &[];

/// What a service needs, with any arguments.
#[rustfmt::skip]
const NEEDED: &[c_long] = &[
    // Memory. Making it executable is below.
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_mlock, libc::SYS_munlock,
    libc::SYS_memfd_secret,
    // Files. Which ones, Landlock decides.
    libc::SYS_openat, libc::SYS_close, libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev,
    libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_lseek,
    libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs,
    libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_flock,
    libc::SYS_fcntl, libc::SYS_dup, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_readlinkat,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_mkdirat, libc::SYS_unlinkat,
    libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_fadvise64,
    // Connections. Making a socket is below.
    libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt,
    libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_shutdown,
    // Waiting.
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2,
    libc::SYS_ppoll, libc::SYS_eventfd2, libc::SYS_pipe2, libc::SYS_futex,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres,
    libc::SYS_gettimeofday, libc::SYS_sched_yield, libc::SYS_restart_syscall,
    // Threads and signals. Starting a thread is below.
    libc::SYS_clone3, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_membarrier, libc::SYS_gettid,
    libc::SYS_getpid, libc::SYS_sched_getaffinity, libc::SYS_getcpu, libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_exit, libc::SYS_exit_group,
    // Facts.
    libc::SYS_getrandom, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrusage,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
];

/// Older forms of the same, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const NEEDED_HERE: &[c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_mkdir,
    libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_renameat, libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_pipe,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const NEEDED_HERE: &[c_long] = &[];

/// The requests to devices that are allowed: those of sockets and terminals, which are the same numbers on every
/// architecture here, and those of TEEs for evidence (linux/sev-guest.h, linux/tdx-guest.h).
#[rustfmt::skip]
const DEVICE_REQUESTS: [u64; 8] = [
    0x5421, 0x5451, 0x5401, 0x5413,        // FIONBIO, FIOCLEX, TCGETS, TIOCGWINSZ
    0xc020_5300, 0xc020_5301, 0xc020_5302, // SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT
    0xc440_5401,                           // TDX_CMD_GET_REPORT0
];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

pub(super) fn restrict() -> Result<Measure, HardenError> {
    if rustix::thread::secure_computing_mode().is_err() {
        let detail = "all system calls stay reachable; use a kernel with CONFIG_SECCOMP_FILTER";
        return Ok(Measure::new(NAME, State::NotOffered, detail));
    }
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        let detail = "no filter is known for this processor";
        return Ok(Measure::new(NAME, State::NotOffered, detail));
    };
    for program in programs(architecture).map_err(|error| failed(&error))? {
        apply_filter_all_threads(&program).map_err(|error| failed(&error))?;
    }
    let detail =
        "no program, no process, no executable memory; only the calls that a service needs";
    Ok(Measure::new(NAME, State::Enforced, detail))
}

fn programs(architecture: TargetArch) -> Result<Vec<BpfProgram>, BackendError> {
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let any = |calls: [&[c_long]; 2]| calls.concat().into_iter().map(|it| (it, vec![]));
    let hostile: Rules = any([HOSTILE, HOSTILE_HERE]).collect();
    let missing: Rules = any([&[libc::SYS_clone3], &[]]).collect();
    let mut needed: Rules = any([NEEDED, NEEDED_HERE]).collect();
    needed.extend(with_certain_arguments()?);
    let filters = [
        (hostile, SeccompAction::Allow, SeccompAction::KillProcess),
        (missing, SeccompAction::Allow, errno(libc::ENOSYS)),
        (needed, errno(libc::EPERM), SeccompAction::Allow),
    ];
    filters
        .into_iter()
        .map(|(rules, otherwise, matched)| {
            SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()
        })
        .collect()
}

/// Calls that are allowed with these arguments only.
fn with_certain_arguments() -> Result<Rules, BackendError> {
    let not_executable = || either([without(2, libc::PROT_EXEC)?]);
    // Sockets within this machine as pairs only: one of its own could reach whatever else listens here, which landlock does
    // not cover.
    let sockets = || either(equal(0, [libc::AF_INET, libc::AF_INET6])?);
    let pairs = || either(equal(0, [libc::AF_UNIX])?);
    let this_process = std::process::id().cast_signed();
    Ok(BTreeMap::from([
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_socket, sockets()?),
        (libc::SYS_socketpair, pairs()?),
        (
            libc::SYS_clone,
            either([SeccompCondition::new(
                0,
                SeccompCmpArgLen::Qword,
                SeccompCmpOp::MaskedEq(wide(libc::CLONE_THREAD)),
                wide(libc::CLONE_THREAD),
            )?])?,
        ),
        (libc::SYS_prctl, either(equal(0, [libc::PR_SET_NAME])?)?),
        (libc::SYS_tgkill, either(equal(0, [this_process])?)?),
        // Reading a limit, not setting it.
        (libc::SYS_prlimit64, either([null(2)?])?),
        (libc::SYS_ioctl, either(device_requests()?)?),
    ]))
}

fn device_requests() -> Result<Vec<SeccompCondition>, BackendError> {
    let equal =
        |request| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    DEVICE_REQUESTS.into_iter().map(equal).collect()
}

/// One rule for each condition, one of which must hold.
fn either(
    conditions: impl IntoIterator<Item = SeccompCondition>,
) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |condition| SeccompRule::new(vec![condition]);
    conditions.into_iter().map(rule).collect()
}

fn equal<const N: usize>(
    argument: u8,
    values: [i32; N],
) -> Result<Vec<SeccompCondition>, BackendError> {
    let equal = |value| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            wide(value),
        )
    };
    values.into_iter().map(equal).collect()
}

fn without(argument: u8, bit: i32) -> Result<SeccompCondition, BackendError> {
    let no = SeccompCmpOp::MaskedEq(wide(bit));
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, no, 0)
}

fn null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

fn wide(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn failed(error: &dyn std::error::Error) -> HardenError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    HardenError::Refused {
        measure: NAME,
        reason,
    }
}

//! Every measure really holds: each test starts this program again in a role, which gives up its rights and then tries what
//! must fail. Without the usual harness, because that starts threads and rights must be given up before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{SeccompAction, SeccompFilter};
use sesemi_hardening::sandbox::{HardenError, Paths, Report, State, harden, probe};
use sesemi_hardening::secret_memory::{Placement, SecretBytes32, usage};

const ROLE: &str = "SESEMI_TEST_ROLE";
const FOLDER: &str = "SESEMI_TEST_FOLDER";

type Test = (&'static str, fn());
type Role = (&'static str, fn(&Path));

const TESTS: &[Test] = &[
    ("every_measure_that_is_offered_is_enforced", || {
        survives("report")
    }),
    ("the_kernel_itself_says_that_rights_are_gone", || {
        survives("status")
    }),
    ("no_right_can_be_taken_back", || survives("take_back")),
    ("a_low_soft_limit_on_open_files_is_raised", || {
        survives("few_files")
    }),
    ("a_low_hard_limit_on_open_files_is_said", || {
        survives("no_more_files")
    }),
    (
        "files_outside_cannot_be_opened_and_those_inside_can",
        || survives("files"),
    ),
    ("what_may_be_read_cannot_be_written", || {
        survives("read_only")
    }),
    ("what_a_service_does_still_works", || survives("work")),
    ("threads_that_are_started_later_have_no_more_rights", || {
        survives("threads")
    }),
    ("no_process_can_be_started", || survives("spawn")),
    ("no_memory_can_be_made_executable", || {
        survives("executable_memory")
    }),
    (
        "sockets_other_than_those_of_the_internet_and_pairs_cannot_be_made",
        || survives("sockets"),
    ),
    ("replacing_the_program_ends_it", || is_killed("exec")),
    ("tracing_ends_the_process", || is_killed("ptrace")),
    ("reading_another_process_ends_the_process", || {
        is_killed("read_process")
    }),
    ("loading_a_program_into_the_kernel_ends_the_process", || {
        is_killed("bpf")
    }),
    (
        "a_second_thread_is_refused_before_anything_is_given_up",
        || survives("second_thread"),
    ),
    ("a_path_that_is_missing_is_named", || {
        survives("missing_path")
    }),
    ("keys_are_locked_where_the_kernel_hides_no_memory", || {
        survives("no_hidden_memory")
    }),
    (
        "keys_are_on_the_heap_where_memory_cannot_even_be_locked",
        || survives("no_locked_memory"),
    ),
    ("looking_changes_nothing", || survives("probe")),
];

const ROLES: &[Role] = &[
    ("report", role_report),
    ("few_files", role_few_files),
    ("no_more_files", role_no_more_files),
    ("status", role_status),
    ("take_back", role_take_back),
    ("files", role_files),
    ("read_only", role_read_only),
    ("work", role_work),
    ("threads", role_threads),
    ("spawn", role_spawn),
    ("executable_memory", role_executable_memory),
    ("sockets", role_sockets),
    ("exec", role_exec),
    ("ptrace", role_ptrace),
    ("read_process", role_read_process),
    ("bpf", role_bpf),
    ("second_thread", role_second_thread),
    ("missing_path", role_missing_path),
    ("no_hidden_memory", role_no_hidden_memory),
    ("no_locked_memory", role_no_locked_memory),
    ("probe", role_probe),
];

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let (_, play) = ROLES.iter().find(|(name, _)| *name == role).unwrap();
        play(&folder);
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let mut filters = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    println!("test result: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn play(role: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for name in ["read", "write", "outside"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), name).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    output
}

fn survives(role: &str) {
    let output = play(role);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

fn is_killed(role: &str) {
    let output = play(role);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("skipped") {
        println!("{said}");
        return;
    }
    assert_eq!(
        output.status.signal(),
        Some(libc::SIGSYS),
        "{}: {said}",
        output.status
    );
}

fn hardened(folder: &Path) -> Report {
    harden(&Paths {
        read: vec![folder.join("read"), "/proc".into()],
        write: vec![folder.join("write")],
    })
    .unwrap()
}

/// Gives up rights; if this kernel lacks what the role is about, says so and returns false.
fn hardened_with(folder: &Path, measure: &str) -> bool {
    let report = hardened(folder);
    let found = report.measures.iter().find(|it| it.name == measure);
    let enforced = found.unwrap().state == State::Enforced;
    if !enforced {
        eprintln!("skipped: {found:?}");
    }
    enforced
}

fn role_report(folder: &Path) {
    let offered: Vec<_> = probe()
        .into_iter()
        .filter(|it| matches!(it.state, State::Offered | State::Weak))
        .map(|it| it.name)
        .collect();
    let report = hardened(folder);
    for measure in &report.measures {
        println!("{}: {} ({})", measure.name, measure.state, measure.detail);
    }
    let enforced: Vec<_> = report.in_state(State::Enforced).map(|it| it.name).collect();
    for always in ["umask", "core limit", "not dumpable", "no_new_privs"] {
        assert!(enforced.contains(&always), "{always}");
    }
    for measure in ["landlock", "seccomp"] {
        assert_eq!(
            enforced.contains(&measure),
            offered.contains(&measure),
            "{measure}"
        );
    }
}

/// What is said of open files under these limits, and the soft limit afterwards.
fn open_files(folder: &Path, soft: u64, hard: u64) -> (State, Option<u64>) {
    let limit = Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let report = hardened(folder);
    let measure = report.measures.iter().find(|it| it.name == "open files");
    (measure.unwrap().state, getrlimit(Resource::Nofile).current)
}

fn role_few_files(folder: &Path) {
    assert_eq!(open_files(folder, 256, 4096), (State::Enforced, Some(4096)));
}

fn role_no_more_files(folder: &Path) {
    assert_eq!(open_files(folder, 256, 512), (State::Weak, Some(512)));
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

fn role_status(folder: &Path) {
    assert_eq!(
        (status("NoNewPrivs:"), status("Seccomp:")),
        ("0".into(), "0".into())
    );
    if hardened_with(folder, "seccomp") {
        assert_eq!(
            (status("NoNewPrivs:"), status("Seccomp:")),
            ("1".into(), "2".into())
        );
        assert_eq!(status("Umask:"), "0077");
    }
}

fn role_take_back(folder: &Path) {
    if !hardened_with(folder, "seccomp") {
        return;
    }
    let none = Some(0);
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (none, none));
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    assert_eq!(
        setrlimit(Resource::Core, limit),
        Err(rustix::io::Errno::PERM)
    );
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    let set = rustix::process::set_dumpable_behavior(dumpable);
    assert_eq!(set, Err(rustix::io::Errno::PERM));
}

fn refused<T: std::fmt::Debug>(result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

fn role_files(folder: &Path) {
    if !hardened_with(folder, "landlock") {
        return;
    }
    assert_eq!(fs::read(folder.join("read/file")).unwrap(), b"read");
    assert_eq!(fs::read(folder.join("write/file")).unwrap(), b"write");
    refused(fs::read(folder.join("outside/file")));
    refused(fs::read_dir(folder));
    refused(fs::read("/etc/passwd"));
    refused(fs::write(folder.join("outside/new"), ""));
    refused(fs::read(folder.join("read/../outside/file")));
}

fn role_read_only(folder: &Path) {
    if !hardened_with(folder, "landlock") {
        return;
    }
    let file = folder.join("read/file");
    refused(fs::OpenOptions::new().append(true).open(&file));
    refused(fs::File::create(&file));
    refused(fs::remove_file(&file));
    refused(fs::write(folder.join("read/new"), ""));
    refused(fs::rename(&file, folder.join("write/stolen")));
    // By another error: Landlock lets nothing be linked from one folder into another.
    fs::hard_link(&file, folder.join("write/stolen")).unwrap_err();
    refused(std::os::unix::fs::symlink(
        "/etc",
        folder.join("write/link"),
    ));
    assert_eq!(fs::read(&file).unwrap(), b"read");
}

fn role_work(folder: &Path) {
    hardened(folder);
    let path = folder.join("write/state");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"state").unwrap();
    file.lock().unwrap();
    file.sync_all().unwrap();
    file.set_len(3).unwrap();
    drop(file);
    fs::rename(&path, folder.join("write/other")).unwrap();
    assert_eq!(fs::read(folder.join("write/other")).unwrap(), b"sta");
    // How an object store puts an object where none is.
    fs::hard_link(folder.join("write/other"), folder.join("write/linked")).unwrap();
    assert!(fs::hard_link(folder.join("write/other"), folder.join("write/linked")).is_err());
    fs::remove_file(folder.join("write/linked")).unwrap();
    fs::create_dir(folder.join("write/inner")).unwrap();
    fs::remove_dir(folder.join("write/inner")).unwrap();
    fs::remove_file(folder.join("write/other")).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    client.set_nonblocking(false).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    drop(server);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");

    // Nothing is waited for: the filter must allow the system call.
    std::thread::sleep(std::time::Duration::from_millis(1));
    // More keys than one mapping has places for.
    let keys: Vec<_> = (0..1000)
        .map(|_| SecretBytes32::from_bytes([1; 32]))
        .collect();
    assert!(keys.iter().all(|key| key.expose() == &[1; 32]));
    let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(())));
    caught.unwrap_err();
}

fn role_threads(folder: &Path) {
    if !hardened_with(folder, "landlock") {
        return;
    }
    let outside = folder.join("outside/file");
    let thread = std::thread::Builder::new().name("later".into());
    let thread = thread.spawn(move || refused(fs::read(outside))).unwrap();
    thread.join().unwrap();
}

fn role_spawn(folder: &Path) {
    if hardened_with(folder, "seccomp") {
        refused(Command::new("/bin/true").status());
    }
}

#[allow(unsafe_code)]
fn role_executable_memory(folder: &Path) {
    if !hardened_with(folder, "seccomp") {
        return;
    }
    let map = |access| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping where the kernel likes; nothing that is in use changes.
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) }
    };
    let (data, code) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_EXEC);
    assert_eq!(map(data | code), libc::MAP_FAILED);
    let page = map(data);
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the page was mapped just now and nothing refers to it.
    assert_eq!(unsafe { libc::mprotect(page, 4096, code) }, -1);
}

#[allow(unsafe_code)]
fn role_sockets(folder: &Path) {
    if !hardened_with(folder, "seccomp") {
        return;
    }
    for (domain, allowed) in [
        (libc::AF_INET, true),
        (libc::AF_UNIX, false),
        (libc::AF_NETLINK, false),
        (libc::AF_ALG, false),
        (libc::AF_VSOCK, false),
    ] {
        // SAFETY: no memory is involved.
        let made = unsafe { libc::socket(domain, libc::SOCK_DGRAM, 0) };
        assert_eq!(made >= 0, allowed, "{domain}");
        if !allowed {
            refused::<()>(Err(std::io::Error::last_os_error()));
        }
    }
    // A pair reaches nobody else.
    std::os::unix::net::UnixStream::pair().unwrap();
}

fn role_exec(folder: &Path) {
    if hardened_with(folder, "seccomp") {
        let error = Command::new("/bin/true").exec();
        panic!("still here: {error}");
    }
}

/// Makes a call that must not return.
#[allow(unsafe_code)]
fn last_call(folder: &Path, number: libc::c_long) {
    if hardened_with(folder, "seccomp") {
        // SAFETY: zeros are no valid arguments to these calls, so they would change nothing.
        let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
        panic!("still here: {result}");
    }
}

fn role_ptrace(folder: &Path) {
    last_call(folder, libc::SYS_ptrace);
}

fn role_read_process(folder: &Path) {
    last_call(folder, libc::SYS_process_vm_readv);
}

fn role_bpf(folder: &Path) {
    last_call(folder, libc::SYS_bpf);
}

fn role_second_thread(folder: &Path) {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let error = harden(&Paths::default()).unwrap_err();
    assert!(matches!(error, HardenError::Threads(2)), "{error}");
    assert_eq!(fs::read(folder.join("outside/file")).unwrap(), b"outside");
    assert_eq!(status("NoNewPrivs:"), "0");
    drop(stop);
    let _ = thread.join();
}

fn role_missing_path(folder: &Path) {
    let missing = folder.join("missing");
    let paths = Paths {
        read: vec![missing.clone()],
        write: vec![],
    };
    match harden(&paths) {
        Err(HardenError::Path { path, .. }) => assert_eq!(path, missing),
        Ok(report) => {
            let landlock = report.measures.iter().find(|it| it.name == "landlock");
            assert_eq!(landlock.unwrap().state, State::NotOffered);
            eprintln!("skipped: {landlock:?}");
        }
        Err(other) => panic!("{other}"),
    }
}

/// Makes this kernel seem to be one that lacks these calls.
fn without(calls: &[(libc::c_long, i32)]) {
    for (call, errno) in calls {
        let program: seccompiler::BpfProgram = SeccompFilter::new(
            [(*call, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        )
        .unwrap()
        .try_into()
        .unwrap();
        seccompiler::apply_filter(&program).unwrap();
    }
}

fn role_no_hidden_memory(_: &Path) {
    without(&[(libc::SYS_memfd_secret, libc::ENOSYS)]);
    let key = SecretBytes32::from_bytes([5; 32]);
    let Placement::Locked { reason } = key.placement() else {
        panic!("{}", key.placement());
    };
    assert!(reason.contains("secretmem.enable=1"), "{reason}");
    assert_eq!(key.clone().expose(), &[5; 32]);
    assert_eq!((usage().hidden, usage().locked), (0, 1));
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let locked = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"))
        .filter(|flags| ["lo", "dd", "wf"].iter().all(|it| flags.contains(it)));
    assert_eq!(locked.count(), 1, "locked, not dumped, wiped on fork");
}

fn role_no_locked_memory(_: &Path) {
    without(&[
        (libc::SYS_memfd_secret, libc::EAGAIN),
        (libc::SYS_mlock, libc::ENOMEM),
    ]);
    let key = SecretBytes32::from_bytes([6; 32]);
    let Placement::Ordinary { reason } = key.placement() else {
        panic!("{}", key.placement());
    };
    assert!(reason.contains("RLIMIT_MEMLOCK"), "{reason}");
    assert_eq!(key.clone().expose(), &[6; 32]);
    assert_eq!(usage().ordinary, 1);
}

fn role_probe(folder: &Path) {
    let measures = probe();
    for measure in &measures {
        println!("{}: {} ({})", measure.name, measure.state, measure.detail);
        assert!(!measure.detail.is_empty());
    }
    assert_eq!(measures.len(), 8);
    assert_eq!(
        (status("NoNewPrivs:"), status("Seccomp:")),
        ("0".into(), "0".into())
    );
    assert_eq!(fs::read(folder.join("outside/file")).unwrap(), b"outside");
}

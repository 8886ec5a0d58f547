//! The `simtee` program, from its command line to a running enclave.
//!
//! The enclave that these tests start is this test program itself: its functions called `role_…` are ignored in an
//! ordinary run and play the enclave when `simtee run` starts them by name. They do nothing if their standard input is
//! not a socket, so that a run that includes ignored tests is harmless.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::quote::Quote;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use sesemi_simtee::{Image, Machine, Measured, Measurement, SimteeError, TdMeasurement};
use signal_hook::iterator::Signals;

const REPORT_DATA: [u8; 64] = [0x42; 64];
/// Starts each line that a role prints, because the test harness around it prints as well.
const MARK: &str = "role says: ";

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn simtee(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simtee"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn initialised() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    assert!(
        simtee(&["init", "--state", text(state.path())])
            .output()
            .unwrap()
            .status
            .success()
    );
    state
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn run_role(state: &Path, role: &str) -> Command {
    run_role_with(state, &[], role)
}

fn run_role_with(state: &Path, options: &[&str], role: &str) -> Command {
    let program = this_program();
    let mut command = simtee(&["run", "--state", text(state)]);
    command.args(options).args(["--", text(&program)]).args([
        "--ignored",
        "--nocapture",
        "--exact",
        role,
    ]);
    command
}

/// Applies a fault as another process would.
fn fault(state: &Path, arguments: &[&str]) {
    let output = simtee(&["fault", "--state", text(state)])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A `simtee run` in the background; ended with the test, and its enclave with it.
struct Running {
    simtee: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(state: &Path, role: &str) -> Self {
        Self::start_with(state, &[], role)
    }

    fn start_with(state: &Path, options: &[&str], role: &str) -> Self {
        let mut simtee = run_role_with(state, options, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(simtee.stdout.take().unwrap());
        Self { simtee, stdout }
    }

    /// The next thing that the role says.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "the role ended without a word"
            );
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.simtee.id()), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.simtee.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.simtee.kill();
        let _ = self.simtee.wait();
    }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

fn say(words: &str) {
    // The harness has printed the beginning of a line.
    println!("\n{MARK}{words}");
}

fn is_an_enclave() -> bool {
    let stdin = rustix::fs::fstat(std::io::stdin()).unwrap();
    FileType::from_raw_mode(stdin.st_mode) == FileType::Socket
}

fn device() -> UnixStream {
    let stdin: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    UnixStream::from(stdin)
}

fn ask(device: &mut UnixStream, operation: u8, payload: &[u8]) -> Vec<u8> {
    let (status, answer) = ask_in_vain(device, operation, payload);
    assert_eq!(status, 0);
    answer
}

/// The status, and the answer or the reason.
fn ask_in_vain(device: &mut UnixStream, operation: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap();
    device
        .write_all(&[&[operation], length.to_be_bytes().as_slice(), payload].concat())
        .unwrap();
    let mut head = [0; 5];
    device.read_exact(&mut head).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize];
    device.read_exact(&mut answer).unwrap();
    (head[0], answer)
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_asks_the_device() {
    if !is_an_enclave() {
        return;
    }
    let mut device = device();
    say(&String::from_utf8(ask(&mut device, 0, &[])).unwrap());
    say(&hex::encode(ask(&mut device, 1, &REPORT_DATA)));
    say(&hex::encode(ask(&mut device, 2, &[0])));
    std::process::exit(7);
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_asks_the_device_of_a_trust_domain() {
    if !is_an_enclave() {
        return;
    }
    let mut device = device();
    say(&hex::encode(ask(&mut device, 1, &REPORT_DATA)));
    let (status, reason) = ask_in_vain(&mut device, 2, &[0]);
    say(&format!("{status} {}", String::from_utf8(reason).unwrap()));
    std::process::exit(0);
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_quotes_before_and_after_a_signal() {
    if !is_an_enclave() {
        return;
    }
    let mut signals = Signals::new([signal_hook::consts::SIGTERM]).unwrap();
    let mut device = device();
    say(&hex::encode(ask(&mut device, 1, &REPORT_DATA)));
    signals.forever().next();
    say(&hex::encode(ask(&mut device, 1, &REPORT_DATA)));
    std::process::exit(0);
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_exits_with_the_number_of_a_signal() {
    if !is_an_enclave() {
        return;
    }
    let mut signals =
        Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT]).unwrap();
    say("ready");
    std::process::exit(signals.forever().next().unwrap());
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_never_ends() {
    if !is_an_enclave() {
        return;
    }
    say(&std::process::id().to_string());
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_kills_itself() {
    if !is_an_enclave() {
        return;
    }
    kill_process(pid(std::process::id()), Signal::KILL).unwrap();
}

#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_breaks_the_protocol() {
    if !is_an_enclave() {
        return;
    }
    let mut device = device();
    device.write_all(&[1, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let mut answer = Vec::new();
    device.read_to_end(&mut answer).unwrap();
}

#[test]
fn an_enclave_gets_a_quote_that_names_the_file_it_was_started_from() {
    let state = initialised();
    let mut running = Running::start(state.path(), "role_that_asks_the_device");
    assert_eq!(running.hear(), "simtee/1");
    let quote = hex::decode(running.hear()).unwrap();
    let seal_key = hex::decode(running.hear()).unwrap();
    assert_eq!(running.exit_code(), Some(7));

    // Verified with nothing but the public files, as a verifier elsewhere would.
    let public = |name: &str| std::fs::read(state.path().join("public").join(name)).unwrap();
    let collateral: QuoteCollateralV3 = serde_json::from_slice(&public("collateral.json")).unwrap();
    let now = now();
    let claims = QuoteVerifier::new(public("root.der"))
        .verify_with_policy(&quote, &collateral, now, &QuotePolicy::strict(now))
        .unwrap();
    let expected = Measurement::of_elf(&std::fs::read(this_program()).unwrap());
    let report = claims.report.as_sgx().unwrap();
    assert_eq!(
        (report.mr_enclave, report.report_data),
        (expected.mr_enclave, REPORT_DATA)
    );

    let machine = Machine::load(state.path()).unwrap();
    assert_eq!(
        seal_key,
        machine.seal_key(&expected, sesemi_simtee::SealPolicy::Measurement)
    );
}

#[test]
fn a_trust_domain_gets_a_quote_that_names_its_file_and_no_sealing_key() {
    let state = initialised();
    let mut running = Running::start_with(
        state.path(),
        &["--tee", "tdx"],
        "role_that_asks_the_device_of_a_trust_domain",
    );
    let quote = hex::decode(running.hear()).unwrap();
    let refusal = running.hear();
    assert_eq!(running.exit_code(), Some(0));
    assert!(refusal.starts_with("1 TDX 1.5 has no sealing keys"));

    let public = |name: &str| std::fs::read(state.path().join("public").join(name)).unwrap();
    let collateral: QuoteCollateralV3 =
        serde_json::from_slice(&public("collateral-tdx.json")).unwrap();
    let now = now();
    let claims = QuoteVerifier::new(public("root.der"))
        .verify_with_policy(&quote, &collateral, now, &QuotePolicy::strict(now))
        .unwrap();
    let expected = TdMeasurement::of_elf(&std::fs::read(this_program()).unwrap());
    let report = claims.report.as_td10().unwrap();
    assert_eq!(
        (report.mr_td, report.rt_mr0, report.report_data),
        (expected.mr_td, [0; 48], REPORT_DATA)
    );
}

#[test]
fn a_fault_applied_while_an_enclave_runs_shows_in_its_next_quote() {
    let state = initialised();
    let mut running = Running::start(state.path(), "role_that_quotes_before_and_after_a_signal");
    let before = Quote::parse(&hex::decode(running.hear()).unwrap()).unwrap();
    fault(state.path(), &["debug"]);
    running.signal(Signal::TERM);
    let after = Quote::parse(&hex::decode(running.hear()).unwrap()).unwrap();
    assert_eq!(running.exit_code(), Some(0));
    let debug = |quote: &Quote| quote.report.as_sgx().unwrap().attributes[0] & 2 != 0;
    assert!(!debug(&before) && debug(&after));
}

#[test]
fn running_on_a_machine_with_faults_says_so() {
    let state = initialised();
    fault(state.path(), &["smt"]);
    let output = run_role(state.path(), "role_that_kills_itself")
        .output()
        .unwrap();
    assert!(stderr(&output).contains("misbehaves on purpose"));
}

#[test]
fn the_launcher_gives_an_enclave_its_security_version() {
    let state = initialised();
    let options = ["--isv-svn", "3"];
    let mut running = Running::start_with(state.path(), &options, "role_that_asks_the_device");
    running.hear();
    let quote = Quote::parse(&hex::decode(running.hear()).unwrap()).unwrap();
    assert_eq!(quote.report.as_sgx().unwrap().isv_svn, 3);

    let options = ["--tee", "tdx", "--isv-svn", "3"];
    let output = run_role_with(state.path(), &options, "role_that_kills_itself")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a trust domain has no security version"));
}

#[test]
fn sigterm_and_sigint_are_forwarded_and_the_exit_code_comes_back() {
    let state = initialised();
    for (signal, code) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let mut running =
            Running::start(state.path(), "role_that_exits_with_the_number_of_a_signal");
        assert_eq!(running.hear(), "ready");
        running.signal(signal);
        assert_eq!(running.exit_code(), Some(code));
    }
}

#[test]
fn an_enclave_that_a_signal_ends_gives_128_and_the_number_of_the_signal() {
    let state = initialised();
    let output = run_role(state.path(), "role_that_kills_itself")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128 + 9));
}

#[test]
fn killing_simtee_kills_the_enclave() {
    let state = initialised();
    let mut running = Running::start(state.path(), "role_that_never_ends");
    let enclave = pidfd_open(pid(running.hear().parse().unwrap()), PidfdFlags::empty()).unwrap();
    running.signal(Signal::KILL);
    // A process handle becomes readable when the process ends.
    let mut ended = [PollFd::new(&enclave, PollFlags::IN)];
    let deadline = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut ended, Some(&deadline)).unwrap(),
        1,
        "the enclave outlived its processor"
    );
}

#[test]
fn an_enclave_that_breaks_the_protocol_is_reported() {
    let state = initialised();
    let output = run_role(state.path(), "role_that_breaks_the_protocol")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("announced 4294967295 bytes"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_was_measured_runs_even_if_the_file_changes_afterwards() {
    let state = initialised();
    let machine = Arc::new(Machine::load(state.path()).unwrap());
    let copy = state.path().join("enclave");
    std::fs::copy(this_program(), &copy).unwrap();
    let image = Image::load(&copy).unwrap();
    std::fs::write(&copy, "something else").unwrap();
    let arguments = ["--ignored", "--exact", "role_that_kills_itself"];
    let mut enclave = image.launch(machine, arguments).unwrap();
    assert_eq!(enclave.wait().unwrap().signal(), Some(9));
    assert_eq!(
        enclave.measured(),
        &Measured::from(&Measurement::of_elf(
            &std::fs::read(this_program()).unwrap()
        ))
    );
}

#[test]
fn a_dropped_enclave_is_killed() {
    let state = initialised();
    let machine = Arc::new(Machine::load(state.path()).unwrap());
    let image = Image::load(&this_program()).unwrap();
    let enclave = image
        .launch(machine, ["--ignored", "--exact", "role_that_never_ends"])
        .unwrap();
    let process = pidfd_open(pid(enclave.id()), PidfdFlags::empty()).unwrap();
    drop(enclave);
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    assert_eq!(
        poll(
            &mut ended,
            Some(&Timespec {
                tv_sec: 30,
                tv_nsec: 0
            })
        )
        .unwrap(),
        1
    );
}

#[test]
fn a_dynamically_linked_program_is_named_as_such() {
    let state = initialised();
    let output = run_role(state.path(), "role_that_kills_itself")
        .output()
        .unwrap();
    let dynamic = Image::load(&this_program())
        .unwrap()
        .interpreter()
        .is_some();
    assert_eq!(stderr(&output).contains("is dynamically linked"), dynamic);
}

#[test]
fn a_script_is_refused_in_one_sentence() {
    let state = initialised();
    let script = state.path().join("script.sh");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    assert!(matches!(
        Image::load(&script),
        Err(SimteeError::NotAnEnclave { .. })
    ));
    let output = simtee(&["run", "--state", text(state.path()), "--", text(&script)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("it is not an ELF file") && said.contains("statically linked"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
}

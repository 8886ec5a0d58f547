//! Libraries that a program is given: measured with it, found where they belong, and nothing else beside them.
//!
//! As in `run.rs`, the enclave is this test program itself, in the role of a function that is ignored in an ordinary run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::FileType;
use serde_json::Value;

const MARK: &str = "role says: ";

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn simtee(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simtee"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn measured(options: &[&str]) -> Value {
    let program = this_program();
    let mut command = simtee(&["measure", "--json"]);
    let output = command.args(options).arg(&program).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn library(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// Runs the role with these options, and gives the lines that it says.
fn run(options: &[&str], prepare: impl FnOnce(&mut Command)) -> Vec<String> {
    let state = tempfile::tempdir().unwrap();
    let initialised = simtee(&["init", "--state", text(state.path())]).output();
    assert!(initialised.unwrap().status.success());
    let mut command = simtee(&["run", "--state", text(state.path())]);
    let program = this_program();
    command.args(options).args(["--", text(&program)]).args([
        "--ignored",
        "--nocapture",
        "--exact",
        "role_that_shows_what_it_was_given",
    ]);
    prepare(&mut command);
    let Output { stdout, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stdout).unwrap();
    let lines: Vec<String> = said
        .lines()
        .filter_map(|line| line.split_once(MARK))
        .map(|(_, said)| said.to_owned())
        .collect();
    assert!(!lines.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    lines
}

/// Content of the descriptors from 3 on, until there is none, and variables of the linker.
#[test]
#[ignore = "plays an enclave for the other tests"]
fn role_that_shows_what_it_was_given() {
    let stdin = rustix::fs::fstat(std::io::stdin()).unwrap();
    if FileType::from_raw_mode(stdin.st_mode) != FileType::Socket {
        return;
    }
    println!();
    for number in 3..12 {
        let Ok(mut file) = std::fs::File::open(format!("/proc/self/fd/{number}")) else {
            continue;
        };
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        println!("{MARK}{number} {content}");
    }
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("LD_")) {
        println!("{MARK}{name} {value}");
    }
    println!("{MARK}end");
    std::process::exit(0);
}

#[test]
fn a_program_finds_the_libraries_in_their_order_and_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let one = library(folder.path(), "one.so", "the first");
    let two = library(folder.path(), "two.so", "the second");
    let options = ["--library", text(&one), "--library", text(&two)];
    assert_eq!(
        run(&options, |_| {}),
        ["3 the first", "4 the second", "end"]
    );
    assert_eq!(run(&[], |_| {}), ["end"]);
}

#[test]
fn what_the_launcher_inherited_is_not_passed_on_nor_are_variables_of_the_linker() {
    let folder = tempfile::tempdir().unwrap();
    let unmeasured = library(folder.path(), "unmeasured.so", "somebody else's");
    let file = std::fs::File::open(&unmeasured).unwrap();
    let lines = run(&[], |command| {
        // A shell hands it over as descriptors 3 and 5, which stay open in whatever it starts.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let own = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "from=$1; shift; exec \"$@\" 3<$from 5<$from",
                "sh",
                &own,
            ])
            .arg(command.get_program())
            .args(arguments)
            .env("LD_LIBRARY_PATH", folder.path())
            .stdin(Stdio::null());
        *command = shell;
    });
    assert_eq!(lines, ["end"]);
}

#[test]
fn the_measurement_names_every_library_by_name_and_content() {
    let folder = tempfile::tempdir().unwrap();
    let one = library(folder.path(), "one.so", "content");
    let two = library(folder.path(), "two.so", "content");
    let three = library(folder.path(), "three.so", "other content");
    let sgx = |libraries: &[&PathBuf]| {
        let options = libraries.iter().flat_map(|it| ["--library", text(it)]);
        let options: Vec<&str> = options.collect();
        let tdx = [&options[..], &["--tee", "tdx"]].concat();
        let measured = (measured(&options), measured(&tdx));
        (
            measured.0["mr_enclave"].to_string(),
            measured.1["mr_td"].to_string(),
        )
    };
    let all = [
        sgx(&[]),
        sgx(&[&one]),
        sgx(&[&two]),
        sgx(&[&three]),
        sgx(&[&one, &three]),
        sgx(&[&three, &one]),
    ];
    for (index, (enclave, domain)) in all.iter().enumerate() {
        for (other_enclave, other_domain) in &all[..index] {
            assert_ne!((enclave, domain), (other_enclave, other_domain));
            assert!(enclave != other_enclave && domain != other_domain);
        }
    }
    assert_eq!(sgx(&[&one]), all[1], "and nothing else");
}

#[test]
fn a_library_that_is_not_there_is_named() {
    let output = simtee(&["measure", "--library", "/nowhere/x.so"])
        .arg(this_program())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/nowhere/x.so"), "{said}");
}

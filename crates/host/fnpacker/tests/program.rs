//! The program as its operator meets it: started, asked, told to end; and told nonsense.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../../platform/tests/instance/mod.rs"]
mod instance;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use instance::within;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sesemi-fnpacker");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn fails_with(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = within(output, "the program to end").await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).unwrap()
}

/// A program that serves the test instance.
fn serving(directory: &Path) -> Command {
    let (image, arguments) = instance::command();
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--endpoints", "1"])
        .arg("--log-dir")
        .arg(directory.join("logs"));
    command
        .arg("--image")
        .arg(image)
        .args(["--launcher", "env ADDED=yes"]);
    for argument in arguments {
        command.arg("--image-arg").arg(argument);
    }
    command
        .arg("--image-env")
        .arg(format!("{}=good", instance::MODE))
        .env("SESEMI_FNPACKER_SLOTS", "2");
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The line in which a program says where it listens.
async fn listening(program: &mut Child) -> serde_json::Value {
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    let mut line = String::new();
    within(stdout.read_line(&mut line), "the listening line")
        .await
        .unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "listening");
    event
}

/// Sends a request, and gives back all that is answered.
async fn exchange(address: &serde_json::Value, request: &str) -> String {
    let mut stream = TcpStream::connect(address.as_str().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer), "the answer")
        .await
        .unwrap();
    answer
}

#[tokio::test]
async fn openwhisks_clients_are_told_where_to_go_and_need_the_key_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let auth = directory.path().join("auth");
    // Much like the example of RFC 7617, so that no base64 is needed here.
    std::fs::write(&auth, "Aladdin:opensesame").unwrap();
    std::fs::set_permissions(&auth, PermissionsExt::from_mode(0o600)).unwrap();
    let mut program = serving(directory.path())
        .args(["--openwhisk-listen", "127.0.0.1:0", "--openwhisk-auth"])
        .arg(&auth)
        .spawn()
        .unwrap();
    let event = listening(&mut program).await;
    let request = |authorization: &str, method: &str, path: &str, body: &str| {
        format!(
            "{method} /api/v1/namespaces{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             {authorization}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let openwhisk = &event["openwhisk"];
    let refused = exchange(openwhisk, &request("", "GET", "", "")).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let known = "authorization: Basic QWxhZGRpbjpvcGVuc2VzYW1l\r\n";
    let exec = r#"{"exec":{"kind":"blackbox","image":"semirt"}}"#;
    let made = exchange(openwhisk, &request(known, "PUT", "/_/actions/a", exec)).await;
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    let path = "/_/actions/a?blocking=true&result=true";
    let ran = exchange(openwhisk, &request(known, "POST", path, "{\"k\":1}")).await;
    assert!(
        ran.starts_with("HTTP/1.1 200") && ran.contains("/guest/a"),
        "{ran}"
    );
    kill_process(
        Pid::from_raw(program.id().unwrap() as i32).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    let status = within(program.wait(), "the program to end").await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn it_says_where_it_listens_serves_and_ends_well_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = serving(directory.path()).spawn().unwrap();
    let event = listening(&mut program).await;
    assert!(event["openwhisk"].is_null());
    let request = format!(
        "POST /v1/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\nsesemi-model: private-model\r\n\
         traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ncontent-length: 9\r\n\r\nenv ADDED"
    );
    let answer = exchange(&event["address"], &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("yes"),
        "{answer}"
    );

    kill_process(
        Pid::from_raw(program.id().unwrap() as i32).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    let status = within(program.wait(), "the program to end").await.unwrap();
    assert_eq!(status.code(), Some(0));
    let mut log = String::new();
    program
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .await
        .unwrap();
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
    assert!(log.contains(TRACE), "the trace is not in the log: {log}");
    assert!(
        !log.contains("private-model") && !log.contains("env ADDED"),
        "{log}"
    );
}

#[tokio::test]
async fn a_configuration_at_fault_is_refused_with_the_line_or_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fnpacker.toml");
    std::fs::write(&file, "image = \"x\"\nslotz = 3\n").unwrap();
    let message = fails_with(&["serve", "--config", file.to_str().unwrap()]).await;
    assert!(
        message.contains("fnpacker.toml")
            && message.contains("line 2")
            && message.contains("slotz"),
        "{message}"
    );
    let message = fails_with(&["serve", "--slots", "none"]).await;
    assert!(message.contains("--slots"), "{message}");
    let message = fails_with(&["serve", "--image", "x"]).await;
    assert!(message.contains("log-dir is missing"), "{message}");
}

#[tokio::test]
async fn help_explains_with_examples() {
    let output = Command::new(PROGRAM)
        .args(["serve", "--help"])
        .output()
        .await
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for needed in [
        "Examples:",
        "--image-env <KEY=VALUE>",
        "SESEMI_FNPACKER_IDLE_TIMEOUT",
        "curl",
    ] {
        assert!(help.contains(needed), "{needed} is not in:\n{help}");
    }
}

//! A new instance opens its line to KeyService before anybody asks it anything, and its first request uses that line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use sesemi::{Client, Grant, IsolationChange, ModelRef};
use sesemi_cli::stack::Stack;
use support::{input, join, push, rows, scope, semirt, start};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const LONGEST: Duration = Duration::from_secs(60);

/// A stack, and a user who may use a model.
async fn ready() -> (TempDir, Stack, Client, ModelRef) {
    let (folder, stack) = start().await;
    let mut owner = join(&stack.facts).await;
    let mut user = join(&stack.facts).await;
    let model = push(&stack.facts, &mut owner).await;
    let code = semirt(&stack.facts);
    let grant = Grant::of(&model, user.id(), code);
    owner.grant(grant).await.unwrap();
    let isolation = IsolationChange::default();
    let deposited = user.deposit_key(&scope(&model), [code], isolation).await;
    deposited.unwrap();
    (folder, stack, user, model)
}

/// Stands between an instance and KeyService, and counts the connections.
async fn counting(keyservice: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut instance, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut service = TcpStream::connect(&keyservice).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut instance, &mut service).await });
        }
    });
    (address, count)
}

/// An instance of its own, and its address. It ends with this test.
async fn instance(stack: &Stack, state: &Path, keyservice: SocketAddr) -> (Child, String) {
    let binaries = sesemi_testkit::binaries();
    let facts = &stack.facts;
    let mut command = Command::new(binaries.join("simtee"));
    command
        .args(["run", "--die-with-parent", "--state"])
        .arg(state.join("platform"))
        .arg("--")
        .arg(binaries.join("sesemi-semirt"))
        .args(["serve", "--listen", "127.0.0.1:0", "--keyservice"])
        .arg(keyservice.to_string())
        .args(["--keyservice-id", &facts.keyservice_id])
        .args(["--keyservice-code", &facts.keyservice_code, "--store"])
        .arg(&facts.store)
        .arg("--simulated-root")
        .arg(&facts.simulated_root)
        .arg("--endorsements")
        .arg(&facts.endorsements);
    let command = command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = timeout(LONGEST, lines.next_line()).await.unwrap().unwrap();
        let said: Json = serde_json::from_str(&line.unwrap()).unwrap_or_default();
        if let Some(address) = said["address"].as_str() {
            return (child, format!("http://{address}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_finds_a_line_that_was_opened_before_anybody_asked() {
    let (folder, stack, user, model) = ready().await;

    let (between, connections) = counting(stack.facts.keyservice.clone()).await;
    let state = folder.path().join("state");
    let (_instance, address) = instance(&stack, &state, between).await;
    let opened = async {
        while connections.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONGEST, opened).await.expect("nobody has asked");

    let row = [input(&rows()[0])];
    user.infer(&address, model, &row).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1, "there is one line");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_cannot_open_its_line_listens_all_the_same_and_opens_it_for_a_request() {
    let (folder, stack, user, model) = ready().await;

    // The first connection is closed at once.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = listener.local_addr().unwrap();
    let state = folder.path().join("state");
    let (_instance, address) = instance(&stack, &state, between).await;
    let (first, _) = timeout(LONGEST, listener.accept()).await.unwrap().unwrap();
    drop(first);
    let keyservice = stack.facts.keyservice.clone();
    tokio::spawn(async move {
        let (mut instance, _) = listener.accept().await.unwrap();
        let mut service = TcpStream::connect(&keyservice).await.unwrap();
        copy_bidirectional(&mut instance, &mut service).await
    });
    let row = [input(&rows()[0])];
    user.infer(&address, model, &row).await.unwrap();
}

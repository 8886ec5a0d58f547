//! A running stack of the deployed binaries, and principals who use it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code; each test uses a part of it"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use sesemi::{
    Client, CodeIdentityDigest, Identity, Isolation, KeyScope, ModelRef, ObjectStore, Tensor,
};
use sesemi_cli::demo::{data, trust};
use sesemi_cli::stack::{Facts, Stack, StackOptions};
use tempfile::TempDir;

/// Starts a stack whose state lives as long as the folder.
pub async fn start() -> (TempDir, Stack) {
    start_in(tempfile::tempdir().unwrap()).await
}

/// Starts a stack on whatever state is in the folder already.
pub async fn start_in(folder: TempDir) -> (TempDir, Stack) {
    let state = folder.path().join("state");
    let options = StackOptions {
        tap: true,
        traces: Some(state.join("traces")),
        ..StackOptions::new(sesemi_testkit::binaries(), state)
    };
    let stack = Stack::start(options, |_| {}).await.unwrap();
    (folder, stack)
}

pub fn keyservice(facts: &Facts) -> SocketAddr {
    facts.keyservice.parse().unwrap()
}

/// A whole answer, with its head.
pub fn get(url: &str) -> Vec<u8> {
    let rest = url.trim_start_matches("http://");
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut tcp = TcpStream::connect(host).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        tcp,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{url}");
    answer
}

pub async fn join(facts: &Facts) -> Client {
    let identity = Identity::generate().unwrap();
    Client::connect(identity, keyservice(facts), trust(facts).unwrap())
        .await
        .unwrap()
}

pub fn semirt(facts: &Facts) -> CodeIdentityDigest {
    facts.semirt_code.parse().unwrap()
}

pub fn store(facts: &Facts) -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new_with_prefix(&facts.store).unwrap())
}

pub async fn push(facts: &Facts, owner: &mut Client) -> ModelRef {
    let (manifest, forms) = (data::manifest(), data::forms());
    owner
        .push_model(
            &store(facts),
            "breast-cancer",
            1,
            &manifest,
            &forms,
            Isolation::default(),
        )
        .await
        .unwrap()
}

/// The scope of a request key for all versions of a model.
pub fn scope(model: &ModelRef) -> KeyScope {
    KeyScope::Model(model.model.clone())
}

pub fn rows() -> Vec<data::Row> {
    data::parse_csv(data::HELD_OUT).unwrap()
}

pub fn input(row: &data::Row) -> Tensor {
    Tensor::fp32("features", &[1, 30], &row.features).unwrap()
}

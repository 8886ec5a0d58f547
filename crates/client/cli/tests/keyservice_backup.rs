//! A backup is a whole copy or none: what was there before stays until the new one has come to its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "support/services.rs"]
#[allow(dead_code)]
mod services;

use std::path::Path;

use clap::Parser as _;
use services::{scripted, success};
use sesemi_cli::args::{Cli, Command};
use sesemi_cli::commands;
use sesemi_cli::error::CliError;

async fn backup(admin: &str, out: &Path) -> Result<(), CliError> {
    let out = out.to_str().unwrap();
    let line = [
        "sesemi",
        "keyservice",
        "backup",
        "--admin",
        admin,
        "--out",
        out,
    ];
    match Cli::try_parse_from(line).unwrap().command {
        Command::Keyservice { command } => commands::keyservice(*command).await,
        other => panic!("{other:?}"),
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_whole_copy_takes_the_place_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("it.backup");
    std::fs::write(&out, "older").unwrap();
    let copy: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let sent = copy.clone();
    let admin = scripted(move |target| {
        assert_eq!(target, "/backup");
        success(&sent)
    })
    .await;
    backup(&admin, &out).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == copy);
    assert_eq!(files(folder.path()), 1, "nothing is left beside it");
}

#[tokio::test]
async fn a_copy_that_broke_off_or_was_refused_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("it.backup");
    std::fs::write(&out, "older").unwrap();
    let cut =
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nconnection: close\r\n\r\nonly this".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let refused =
        b"HTTP/1.1 409 Conflict\r\ncontent-length: 16\r\n\r\nanother \x1b[1mruns\n".to_vec();
    for (answer, why) in [
        (cut, "broke off"),
        (chunked, "broke off"),
        (refused, "answered 409: another [1mruns"),
        (success(b""), "sent nothing"),
    ] {
        let admin = scripted(move |_| answer.clone()).await;
        let error = backup(&admin, &out).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(std::fs::read(&out).unwrap(), b"older");
        assert_eq!(files(folder.path()), 1, "nothing is left beside it");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_how_to_write_one() {
    let folder = tempfile::tempdir().unwrap();
    for admin in ["127.0.0.1:7401", "https://127.0.0.1:7401", "nonsense", ""] {
        let error = backup(admin, &folder.path().join("it.backup")).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("http://HOST:PORT"), "{admin}: {error}");
    }
}

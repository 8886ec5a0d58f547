//! `cargo xtask conformance openwhisk`: OpenWhisk's own client, and OpenWhisk's cases for action containers.
//!
//! [`client`]: the official JavaScript client makes an action of SeMIRT's image at the REST interface of a stack in the simulated TEE,
//! invokes it, reads its records, and meets the errors. [`container`]: what OpenWhisk's own tests ask of an action container
//! (`BasicActionRunnerTests`), asked of a SeMIRT in the simulated TEE. On both ways a user's sealed request goes through, and the answer
//! is opened and compared with the plain model's.

mod client;
mod container;
mod message;
mod party;
mod report;

use std::path::PathBuf;

use clap::Args;
use sesemi::in_one_line;
use sesemi_cli::stack::{Stack, StackOptions};

use self::party::Party;
use self::report::Report;
use crate::Outcome;

/// Arguments of `openwhisk`.
#[derive(Debug, Args)]
pub(crate) struct OpenWhiskArgs {
    /// Where to write the result.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder of the product's binaries.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Succeed although the client could not be had or run.
    #[arg(long)]
    allow_skips: bool,
}

/// Fails unless every case ends as it should.
pub(crate) async fn run(args: &OpenWhiskArgs) -> Outcome<()> {
    let folder = tempfile::tempdir().map_err(in_one_line)?;
    let state = folder.path().join("state");
    let auth = state.join("openwhisk.auth");
    let options = StackOptions {
        openwhisk: Some((([127, 0, 0, 1], 0).into(), auth)),
        ..StackOptions::new(args.bin_dir.clone(), state)
    };
    eprintln!("starting a stack");
    let stack = Stack::start(options, |_| {}).await.map_err(in_one_line)?;
    let mut report = Report::default();
    let tried = cases(&stack, folder.path(), &mut report).await;
    if let Err(error) = stack.stop().await {
        eprintln!("note: {error}");
    }
    tried?;
    println!("{report}");
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    report.verdict(args.allow_skips)
}

async fn cases(stack: &Stack, folder: &std::path::Path, report: &mut Report) -> Outcome<()> {
    let party = Party::join(&stack.facts).await?;
    eprintln!("trying OpenWhisk's cases for action containers");
    container::cases(stack, &party, report).await?;
    eprintln!("trying OpenWhisk's JavaScript client");
    client::cases(stack, &party, folder, report).await
}

//! `simtee serve`: the collateral over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use sesemi_simtee::{Machine, serve_collateral};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, die_with_parent, output};

pub(crate) fn serve(state: &Path, listen: SocketAddr, with_parent: bool) -> Outcome {
    die_with_parent(with_parent)?;
    let machine = Arc::new(Machine::load(state)?);
    // Answers are copies of what is in memory; one thread is plenty.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let (mut terminate, mut interrupt) = (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            );
            let stopped = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            let listener = TcpListener::bind(listen)
                .await
                .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
            let address = listener.local_addr()?;
            output::print(
                &json!({ "event": "listening", "address": address.to_string() }).to_string(),
            )?;
            serve_collateral(machine, listener, stopped).await;
            Ok(ExitCode::SUCCESS)
        })
}

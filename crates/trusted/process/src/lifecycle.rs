//! Start and stop: logs, the line that says where we listen, signals, and what a person reads when it fails.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Starts structured logs on standard error, filtered by `SESEMI_LOG` (default `info`).
pub fn start_logs() {
    let filter = EnvFilter::try_from_env("SESEMI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error, and what cannot be written there is a panic: a full disk under a log file would
        // end the process.
        .log_internal_errors(false)
        .init();
    // A panic's own message may quote the data that caused it, and the host reads our output: only the place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place = place.unwrap_or_default(), "panicked");
    }));
}

/// One sentence, the chain of causes, and the exit code.
#[must_use]
pub fn exit_code(result: Result<(), impl Error>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "error: {}", printable(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(out, "  caused by: {}", printable(&error.to_string()));
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// An error may quote what somebody else wrote, and control characters would let that write all over a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect()
}

/// Prints the one line of JSON that tells whoever started us where we listen.
///
/// # Errors
/// [`std::io::Error`] if standard output is closed.
pub fn announce(facts: &serde_json::Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{facts}")?;
    out.flush()
}

/// Turns true at SIGTERM or Ctrl-C.
///
/// # Errors
/// [`std::io::Error`] if signals cannot be watched.
pub fn stop_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        let _ = stop.send(true);
        // Kept, so that receivers wait for a change rather than see the channel closed.
        stop.closed().await;
    });
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_quotes_cannot_write_all_over_a_terminal() {
        assert_eq!(
            printable("a\u{1b}[1A\u{1b}[2Kb\rc\nd\u{9b}"),
            "a[1A[2Kbc\nd"
        );
    }
}

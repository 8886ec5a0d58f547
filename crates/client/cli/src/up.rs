//! `sesemi up`: a local stack in the foreground, on fixed ports, until Ctrl-C.

use std::path::{Path, PathBuf};

use anstream::{eprintln, println};

use crate::args::UpArgs;
use crate::engines;
use crate::error::{CliError, file};
use crate::stack::{Facts, Stack, StackOptions};

/// Runs the stack until Ctrl-C or SIGTERM, or until a part of it ends.
///
/// # Errors
/// [`CliError::Stack`] if a part does not start, ends by itself, or does not stop.
pub async fn run(args: UpArgs) -> Result<(), CliError> {
    let state = std::path::absolute(&args.state).map_err(file(&args.state))?;
    is_of_a_stack(&state)?;
    let policy = match &args.policy {
        Some(path) => Some(std::path::absolute(path).map_err(file(path))?),
        None => None,
    };
    let traces = match &args.traces {
        Some(path) => Some(std::path::absolute(path).map_err(file(path))?),
        None => None,
    };
    let auth = match &args.openwhisk_auth {
        Some(path) => std::path::absolute(path).map_err(file(path))?,
        None => state.join("openwhisk.auth"),
    };
    let options = StackOptions {
        keyservice_port: args.keyservice_port,
        admin_port: args.admin_port,
        gateway_port: args.gateway_port,
        endpoints: args.endpoints,
        user_memory_mib: args.user_memory_mib,
        idle_timeout_secs: args.idle_timeout,
        batch_window_ms: args.batch_window_ms,
        tap: args.tap,
        policy,
        traces,
        openwhisk: args.openwhisk_listen.map(|listen| (listen, auth)),
        engine: engines::chosen(args.engine)?,
        ..StackOptions::new(binaries(args.bin_dir)?, state.clone())
    };
    let stack = tokio::select! {
        stack = Stack::start(options, |step| eprintln!("{step} ...")) => stack?,
        stopped = stop_signal() => return stopped,
    };
    let path = state.join("stack.toml");
    std::fs::write(&path, facts_as_toml(&stack.facts)?).map_err(file(&path))?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({"stack": path, "facts": stack.facts, "locked": stack.is_locked()})
        );
    } else if stack.is_locked() {
        println!("{}", describe_locked(&path));
    } else {
        println!("{}", describe(&stack.facts, &path));
    }
    keep_running(stack).await
}

/// A restored state of KeyService is not a stack's folder: a new, empty service beside it would look as if all were lost.
fn is_of_a_stack(state: &Path) -> Result<(), CliError> {
    if state.join("state.redb").exists() {
        return Err(CliError::Input(format!(
            "{} is a state folder of KeyService, not of a stack: put it where a stack keeps it, as `keyservice` in the stack's folder",
            state.display()
        )));
    }
    Ok(())
}

/// Waits for Ctrl-C or a part that ends, then stops everything.
///
/// # Errors
/// [`CliError::Stack`].
pub async fn keep_running(mut stack: Stack) -> Result<(), CliError> {
    let ended = tokio::select! {
        error = stack.watch() => Err(error.into()),
        stopped = stop_signal() => stopped,
    };
    eprintln!("stopping ...");
    let stopped = stack.stop().await;
    match ended {
        Err(CliError::Interrupted) => Ok(stopped?),
        other => other,
    }
}

/// Returns [`CliError::Interrupted`] at Ctrl-C, SIGTERM or SIGHUP.
///
/// # Errors
/// Always.
pub async fn stop_signal() -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| CliError::Process("signals", e);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    // The terminal was closed or the connection to it was lost: as good as Ctrl-C.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = hangup.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed.map_err(failed)?,
    }
    Err(CliError::Interrupted)
}

/// The folder of the binaries: the given one, or that of this binary.
///
/// # Errors
/// [`CliError::Process`] if this binary's place is unknown.
pub fn binaries(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    if let Some(folder) = given {
        return Ok(folder);
    }
    let own = std::env::current_exe().map_err(|e| CliError::Process("this binary's path", e))?;
    Ok(own.parent().map(PathBuf::from).unwrap_or_default())
}

/// The facts as the settings file of the other commands.
///
/// # Errors
/// [`CliError::Input`] if a path cannot be written as TOML.
pub fn facts_as_toml(facts: &Facts) -> Result<String, CliError> {
    toml::to_string(facts)
        .map(|text| {
            format!("# Written by `sesemi up`. Simulated TEE: it protects nothing.\n{text}")
        })
        .map_err(|e| CliError::Input(format!("the stack's facts cannot be written: {e}")))
}

/// How to talk to a running stack.
#[must_use]
pub fn describe(facts: &Facts, stack: &Path) -> String {
    let openwhisk = match (&facts.openwhisk, &facts.openwhisk_auth) {
        (Some(address), Some(auth)) => format!(
            "\n\nOpenWhisk's clients are welcome at {address} with the key in {}: their actions run the image {:?}.",
            auth.display(),
            crate::stack::IMAGE
        ),
        _ => String::new(),
    };
    format!(
        "The stack is running with a SIMULATED TEE, which protects nothing. Stop it with Ctrl-C.\n\n  \
         KeyService   {}   service {}\n  gateway      {}\n  health       {}/health/ready\n\n\
         In another terminal:\n  \
         export SESEMI_STACK={}\n  \
         sesemi identity new owner.identity && sesemi identity new user.identity\n  \
         sesemi register --identity user.identity\n  \
         sesemi model push MODEL.onnx --name my-model --identity owner.identity\n  \
         sesemi access grant OWNER/my-model@1 USER --identity owner.identity\n  \
         sesemi key deposit OWNER/my-model --identity user.identity\n  \
         sesemi infer OWNER/my-model@1 --identity user.identity --csv ROWS.csv\n  \
         sesemi status{openwhisk}",
        facts.keyservice,
        facts.keyservice_id,
        facts.gateway,
        facts.admin,
        stack.display()
    )
}

/// What to do if this machine, or this code, cannot open KeyService's state.
#[must_use]
fn describe_locked(stack: &Path) -> String {
    format!(
        "KeyService is LOCKED: this machine and this code have no key to its state. Nothing else works until enough of its \
         custodians have run, together or one after the other:\n\n  \
         export SESEMI_STACK={}\n  \
         sesemi keyservice recover --share FILE\n\n\
         Stop it with Ctrl-C.",
        stack.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_of_keyservice_is_not_taken_for_a_stacks() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_of_a_stack(folder.path()).is_ok());
        std::fs::write(folder.path().join("state.redb"), b"").unwrap();
        let error = is_of_a_stack(folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("state folder of KeyService"),
            "{error}"
        );
    }
}

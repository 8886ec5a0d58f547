//! Where results go: standard output and JSON files. A full disk is a failure like any other, not a panic.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::Outcome;

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever read our output has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("cannot write to standard output: {error}")),
    }
}

/// One value as indented JSON, with a newline at the end.
pub(crate) fn json(value: &impl Serialize) -> Outcome<String> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| format!("cannot write JSON: {error}"))?;
    text.push('\n');
    Ok(text)
}

/// Writes `value` to `file`, and makes the folder it is in.
pub(crate) fn write_json(file: &Path, value: &impl Serialize) -> Outcome<()> {
    let text = json(value)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, text))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}

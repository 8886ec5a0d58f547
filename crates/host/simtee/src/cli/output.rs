//! Results go to the standard output, warnings and errors, a line each, to the standard error.

use std::error::Error;
use std::io::Write;

pub(crate) fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// Nothing can be done if the standard error is closed.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "simtee: warning: {text}");
}

/// One line: the error, then the chain of its causes.
pub(crate) fn report(error: &dyn Error) {
    let mut text = format!("simtee: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

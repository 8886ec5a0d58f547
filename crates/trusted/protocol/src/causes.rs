//! An error as people read it: with its causes, which libraries keep apart from it.

use core::error::Error;

/// An error and its causes, in one line: `cannot use model.onnx: permission denied`.
pub fn in_one_line(error: impl Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::in_one_line;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn an_error_is_told_with_all_its_causes() {
        let inner = io::Error::other(Outer("in between", io::Error::other("no space is left")));
        let error = Outer("cannot write", inner);
        assert_eq!(
            in_one_line(&error),
            "cannot write: in between: no space is left"
        );
        assert_eq!(in_one_line(io::Error::other("alone")), "alone");
    }
}

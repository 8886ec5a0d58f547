//! How many lines of our own Rust a crate has.
//!
//! The counter is simple, so that everyone can check it: the lines of each `.rs` file under `src/` that are not blank
//! and do not begin with `//`. Tests do not count: files called `tests.rs`, folders called `tests`, and in every other
//! file all that follows a line `#[cfg(test)]` with `mod tests {` on the next.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Outcome;

/// The lines of the crate in `folder`.
pub(crate) fn of_crate(folder: &Path) -> Outcome<usize> {
    let source = folder.join("src");
    let files = rust_files(&source)
        .map_err(|error| format!("cannot list {}: {error}", source.display()))?;
    let counts = files.into_iter().map(|file| {
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(of_text(&text))
    });
    counts.sum()
}

fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "tests" {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|it| it == "rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    Ok(files)
}

fn of_text(text: &str) -> usize {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair == ["#[cfg(test)]", "mod tests {"]);
    let own = lines.iter().take(tests.unwrap_or(lines.len()));
    own.filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_comments_and_tests_do_not_count() {
        let text = "//! About.\n\nfn a() {\n    // Why.\n    b(); // Also why.\n}\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
        assert_eq!(of_text(text), 3);
    }

    #[test]
    fn a_test_only_item_does_not_end_the_file() {
        assert_eq!(of_text("#[cfg(test)]\nuse a::B;\nfn c() {}\n"), 3);
        assert_eq!(of_text("fn a() {}\n#[cfg(test)]\nmod tests;\n"), 3);
    }
}

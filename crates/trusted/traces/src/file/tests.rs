use std::io::Write;

use super::*;
use crate::Export;

const NO_LIMIT: u64 = u64::MAX;

/// A disk that takes some bytes, then is full once, then has room again.
struct Full {
    room: Option<usize>,
    written: Vec<u8>,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = match self.room.take() {
            None => bytes.len(),
            Some(0) => return Err(ErrorKind::StorageFull.into()),
            Some(room) => {
                self.room = Some(0);
                room.min(bytes.len())
            }
        };
        self.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Full {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.written.len() as u64)
    }
}

#[test]
fn a_line_that_was_cut_off_by_a_full_disk_costs_no_other_line() {
    let full = Full {
        room: Some(5),
        written: Vec::new(),
    };
    let mut lines = Lines::new(full, true, NO_LIMIT);
    lines.put("{\"lost\":1}\n").unwrap_err();
    lines.put("{\"kept\":2}\n").unwrap();
    lines.put("{\"kept\":3}\n").unwrap();
    assert_eq!(lines.out.written, b"{\"los\n{\"kept\":2}\n{\"kept\":3}\n");
}

#[test]
fn a_file_is_appended_to_after_a_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    std::fs::write(&path, "{\"resourceSpans\":[]}\n{\"cut o").unwrap();
    let mut lines = Lines::open(&path, NO_LIMIT).unwrap();
    assert!(!lines.whole);
    lines.put("{}\n").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\"resourceSpans\":[]}\n{\"cut o\n{}\n");
    assert!(Lines::open(&path, NO_LIMIT).unwrap().whole);
}

#[test]
fn a_file_gets_as_long_as_it_may_to_the_byte_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    let mut lines = Lines::open(&path, 9).unwrap();
    let text = || std::fs::read_to_string(&path).unwrap();
    lines.put("{1}\n").unwrap();
    lines.put("{22}\n").unwrap();
    let refused = lines.put("\n").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
    assert_eq!(text(), "{1}\n{22}\n");
    // Turned over, as `copytruncate` does.
    let other = File::options().write(true).open(&path).unwrap();
    other.set_len(0).unwrap();
    lines.put("{3333}\n").unwrap();
    lines.put("{4}\n").unwrap_err();
    assert_eq!(text(), "{3333}\n");
    // The end of a cut line needs room too.
    std::fs::write(&path, "{cut").unwrap();
    let mut lines = Lines::open(&path, 8).unwrap();
    lines.put("{5}\n").unwrap_err();
    lines.put("{}\n").unwrap();
    assert_eq!(text(), "{cut\n{}\n");
}

#[test]
fn a_file_may_get_256_mib_long_if_nobody_says_otherwise() {
    let max = |mib| Export::new(Some("t".into()), None, mib).unwrap().max_bytes;
    assert_eq!(max(None), 256 * 1024 * 1024);
    assert_eq!(max(core::num::NonZeroU32::new(1)), 1024 * 1024);
    assert_eq!(max(Some(core::num::NonZeroU32::MAX)), (1 << 52) - (1 << 20));
}

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use serde_json::Value as Json;

use super::*;
use crate::{Key, Kind, Outcome, Span, TraceContext};

const NO_LIMIT: u64 = u64::MAX;
const RESOURCE: Resource = Resource {
    service: "test",
    version: "0",
    instance: 1,
    tee: None,
};

/// A file in memory, which a test looks into.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Memory {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

fn spans(text: &str) -> Vec<Json> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .flat_map(|data| {
            let spans = &data["resourceSpans"][0]["scopeSpans"][0]["spans"];
            spans.as_array().unwrap().clone()
        })
        .collect()
}

impl Memory {
    fn spans(&self) -> Vec<Json> {
        spans(std::str::from_utf8(&self.0.lock().unwrap()).unwrap())
    }
}

fn recorded(ratio: Ratio, work: impl FnOnce(&Tracer)) -> Vec<Json> {
    let memory = Memory::default();
    let out = Lines::new(memory.clone(), true, NO_LIMIT);
    let (tracer, running) = start(out, RESOURCE, ratio, QUEUE).unwrap();
    work(&tracer);
    running.finish();
    assert_eq!(tracer.dropped(), 0);
    memory.spans()
}

fn named<'a>(spans: &'a [Json], name: &str) -> &'a Json {
    spans.iter().find(|span| span["name"] == name).unwrap()
}

const CALLER: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn work_its_parts_and_its_steps_are_one_tree_below_the_caller() {
    let spans = recorded(Ratio(0), |tracer| {
        let caller = TraceContext::parse(CALLER);
        let mut work = Span::begin(tracer, "work", Kind::Server, caller);
        let from = Instant::now();
        {
            let mut part = work.child("part", Kind::Client);
            part.set(Key::HttpStatus, 200_u64);
            part.end(Outcome::Done);
            assert_ne!(part.context(), work.context());
        }
        work.step("step", from, Instant::now());
        work.end(Outcome::Refused("busy"));
    });
    assert_eq!(spans.len(), 3);
    for span in &spans {
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
    }
    let work = named(&spans, "work");
    assert_eq!(work["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(named(&spans, "part")["parentSpanId"], work["spanId"]);
    assert_eq!(named(&spans, "step")["parentSpanId"], work["spanId"]);
    let ids: HashSet<_> = spans.iter().map(|span| span["spanId"].as_str()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn what_the_caller_does_not_record_is_not_recorded_and_passed_on_as_it_came() {
    let quiet = CALLER.to_ascii_lowercase();
    let quiet = TraceContext::parse(&[&quiet[..53], b"00"].concat());
    let spans = recorded(Ratio::ALL, |tracer| {
        let work = Span::begin(tracer, "work", Kind::Server, quiet);
        assert_eq!(work.context(), quiet);
        let part = work.child("part", Kind::Client);
        assert_eq!(part.context(), quiet);
        part.step("step", Instant::now(), Instant::now());
    });
    assert_eq!(spans, Vec::<Json>::new());
}

#[test]
fn of_traces_that_begin_here_the_ratio_is_recorded_and_who_is_called_is_told() {
    for (ratio, expected) in [(0.0, 0..=0), (0.5, 350..=650), (1.0, 1000..=1000)] {
        let spans = recorded(ratio.try_into().unwrap(), |tracer| {
            for _ in 0..1000 {
                let work = Span::begin(tracer, "work", Kind::Internal, None);
                let told = work.context().unwrap().is_sampled();
                assert_eq!(told, work.recording_there());
            }
        });
        assert!(expected.contains(&spans.len()), "{ratio}: {}", spans.len());
        assert!(spans.iter().all(|span| span["parentSpanId"].is_null()));
    }
    for bad in ["-0.1", "1.1", "NaN", "much", ""] {
        assert!(bad.parse::<Ratio>().is_err(), "{bad}");
    }
}

#[test]
fn work_that_nobody_ended_was_abandoned() {
    let spans = recorded(Ratio::ALL, |tracer| {
        drop(Span::begin(tracer, "work", Kind::Server, None));
    });
    assert_eq!(spans[0]["status"]["code"], 2);
    assert_eq!(
        spans[0]["attributes"][0]["value"]["stringValue"],
        "abandoned"
    );
}

/// A disk that takes each line only when it is told to.
struct Slow {
    asked: Sender<()>,
    go: Receiver<()>,
    memory: Memory,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.asked.send(());
        // A sender that is gone says: go on.
        let _ = self.go.recv();
        self.memory.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Slow {
    fn length(&self) -> std::io::Result<u64> {
        self.memory.length()
    }
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_and_what_does_not_fit_is_counted() {
    const PLACES: usize = 8;
    let (asked, was_asked) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel();
    let memory = Memory::default();
    let slow = Slow {
        asked,
        go: may_go,
        memory: memory.clone(),
    };
    let (tracer, running) = start(
        Lines::new(slow, true, NO_LIMIT),
        RESOURCE,
        Ratio::ALL,
        PLACES,
    )
    .unwrap();
    let work = || drop(Span::begin(&tracer, "work", Kind::Internal, None));
    work();
    was_asked.recv().unwrap();
    // The thread hangs with one span in its hand; the queue is empty.
    for _ in 0..PLACES + 100 {
        work();
    }
    assert_eq!(tracer.dropped(), 100);
    drop(go);
    running.finish();
    assert_eq!(memory.spans().len(), PLACES + 1);
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Full {
    fn length(&self) -> std::io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn spans_that_cannot_be_written_are_counted() {
    let full = Lines::new(Full, true, NO_LIMIT);
    let (tracer, running) = start(full, RESOURCE, Ratio::ALL, QUEUE).unwrap();
    drop(Span::begin(&tracer, "work", Kind::Internal, None));
    running.finish();
    assert_eq!(tracer.dropped(), 1);
}

#[test]
fn spans_for_which_the_file_has_no_room_are_lost_until_it_is_turned_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    let text = || std::fs::read_to_string(&path).unwrap();
    let lines = |max_bytes| Lines::open(&path, max_bytes).unwrap();
    let one = |lines| {
        let (tracer, running) = start(lines, RESOURCE, Ratio::ALL, QUEUE).unwrap();
        drop(Span::begin(&tracer, "work", Kind::Internal, None));
        running.finish();
        tracer.dropped()
    };
    assert_eq!(one(lines(NO_LIMIT)), 0);
    let before = text();
    let full = before.len() as u64;
    // No room, and the file stays as it is.
    assert_eq!(one(lines(full)), 1);
    assert_eq!(text(), before);
    // Opened while it is full, turned over as `copytruncate` does.
    let open = lines(full.saturating_mul(2));
    std::fs::write(&path, before.repeat(2)).unwrap();
    let turned_over = File::options().write(true).open(&path).unwrap();
    turned_over.set_len(0).unwrap();
    assert_eq!(one(open), 0);
    assert_eq!(spans(&text()).len(), 1);
}

#[test]
fn after_the_end_spans_are_lost_and_counted() {
    let memory = Memory::default();
    let lines = Lines::new(memory.clone(), true, NO_LIMIT);
    let (tracer, running) = start(lines, RESOURCE, Ratio::ALL, QUEUE).unwrap();
    drop(Span::begin(&tracer, "work", Kind::Internal, None));
    running.finish();
    drop(Span::begin(&tracer, "late", Kind::Internal, None));
    assert_eq!(tracer.dropped(), 1);
    assert_eq!(memory.spans().len(), 1);
}

#[test]
fn a_span_that_is_discarded_is_neither_written_nor_lost() {
    let spans = recorded(Ratio::ALL, |tracer| {
        let work = Span::begin(tracer, "work", Kind::Server, None);
        work.discard();
        drop(Span::begin(tracer, "kept", Kind::Server, None));
    });
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0]["name"], "kept");
}

#[test]
fn in_a_folder_each_process_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let export = Export::new(Some(folder.path().to_owned()), None, None).unwrap();
    let _opened = [export.open("test").unwrap(), export.open("test").unwrap()];
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let open = |path: &str| {
        let export = Export::new(Some(path.into()), None, None).unwrap();
        export.open("test").unwrap_err().to_string()
    };
    assert!(open("/dev/null").contains("/dev/null"));
    assert!(open("/no/such/folder/traces.jsonl").contains("/no/such/folder"));
}

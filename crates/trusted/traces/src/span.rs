//! What is recorded of one piece of work: when it began and ended, how, and a few facts about it.
//!
//! There is no way to put text into a span that was not written in the program's source: every text is `&'static str`, every
//! other value a number or a bit, the names of attributes are a closed list.

use std::num::{NonZeroU64, NonZeroU128};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sesemi_protocol::Entropy;
use sesemi_protocol::entropy::random;

use crate::context::TraceContext;
use crate::export::Tracer;

/// Attributes of one span, at most; further ones are left out.
pub const MAX_ATTRIBUTES: usize = 12;

/// Which side of a call a span is (the numbers are those of OTLP's `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within a program.
    Internal = 1,
    /// A call that was answered.
    Server = 2,
    /// A call that was made.
    Client = 3,
}

/// What may be said about a span. Those without `sesemi` are of OpenTelemetry's semantic conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The request's method.
    HttpMethod,
    /// The path, as the server knows it; never what a client wrote.
    HttpRoute,
    /// The answer's status.
    HttpStatus,
    /// Which protocol of calls.
    RpcSystem,
    /// Which call.
    RpcMethod,
    /// `cold`, `warm` or `hot`.
    Path,
    /// What a peer proved to be: `enclave` or `principal`.
    Peer,
    /// Releases that one call asks for.
    Asked,
    /// Those of them that were refused.
    Refused,
    /// Entries of one durable write.
    Entries,
    /// Milliseconds until the platform gave the request to an instance.
    WaitMillis,
    /// Milliseconds that a new instance took to be ready.
    InitMillis,
    /// Which TEE made evidence.
    Tee,
}

impl Key {
    /// The attribute's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpMethod => "http.request.method",
            Self::HttpRoute => "http.route",
            Self::HttpStatus => "http.response.status_code",
            Self::RpcSystem => "rpc.system",
            Self::RpcMethod => "rpc.method",
            Self::Path => "sesemi.path",
            Self::Peer => "sesemi.peer",
            Self::Asked => "sesemi.releases.asked",
            Self::Refused => "sesemi.releases.refused",
            Self::Entries => "sesemi.log.entries",
            Self::WaitMillis => "sesemi.platform.wait_ms",
            Self::InitMillis => "sesemi.platform.init_ms",
            Self::Tee => "sesemi.tee",
        }
    }
}

/// An attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A word of the program's own.
    Word(&'static str),
    /// A number.
    Count(u64),
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// It was refused, with this code, and that is the caller's affair: no error of the server's.
    Refused(&'static str),
    /// It failed, with this code.
    Failed(&'static str),
}

/// What a span is when its client left, or its time ran out, before it ended.
const ABANDONED: Outcome = Outcome::Failed("abandoned");

/// A span that has ended.
#[derive(Debug)]
pub struct Finished {
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<Parent>,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Nanoseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: Vec<(Key, Value)>,
    pub(crate) outcome: Outcome,
}

/// The span above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) span_id: NonZeroU64,
    /// Whether it is another program's.
    pub(crate) remote: bool,
}

/// Work under way. It is recorded when it is dropped, if it is recorded at all: without [`Span::end`] as abandoned.
#[derive(Debug)]
pub struct Span {
    /// What is passed on; that of the caller if nothing is recorded here.
    context: Option<TraceContext>,
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    tracer: Tracer,
    context: TraceContext,
    parent: Option<Parent>,
    name: &'static str,
    kind: Kind,
    began: Instant,
    /// What the host's clock said then, in nanoseconds since 1970. The length is measured with the other clock.
    wall: u64,
    attributes: Vec<(Key, Value)>,
    outcome: Outcome,
    discarded: bool,
}

impl Span {
    /// Work that nobody asked for, or that its caller gives no context for: a root, in this process's traces.
    #[must_use]
    pub fn root(name: &'static str, kind: Kind) -> Self {
        Self::of(name, kind, None)
    }

    /// Work for a caller. With a context it is recorded if the caller asks for it; without one it is a root.
    #[must_use]
    pub fn of(name: &'static str, kind: Kind, caller: Option<TraceContext>) -> Self {
        match crate::export::tracer() {
            Some(tracer) => Self::begin(tracer, name, kind, caller),
            None => Self {
                context: caller,
                recording: None,
            },
        }
    }

    /// As [`Span::of`], with a tracer of the caller's choice.
    #[must_use]
    pub fn begin(
        tracer: &Tracer,
        name: &'static str,
        kind: Kind,
        caller: Option<TraceContext>,
    ) -> Self {
        let unrecorded = Self {
            context: caller,
            recording: None,
        };
        let Some(span_id) = span_id(tracer.entropy()) else {
            return unrecorded;
        };
        let context = match caller {
            Some(caller) if caller.is_sampled() => caller.with_span(span_id),
            Some(_) => return unrecorded,
            None => {
                let Some(trace_id) = trace_id(tracer.entropy()) else {
                    return unrecorded;
                };
                let sampled = tracer.samples(trace_id);
                TraceContext::new(trace_id, span_id, sampled)
            }
        };
        let parent = caller.map(|caller| Parent {
            span_id: caller.span_id,
            remote: true,
        });
        let recording = context
            .is_sampled()
            .then(|| Recording::new(tracer, context, parent, name, kind));
        Self {
            context: Some(context),
            recording,
        }
    }

    /// A part of this work.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind) -> Self {
        let recorded = self.recording.as_deref().and_then(|above| {
            let context = above.context.with_span(span_id(above.tracer.entropy())?);
            let parent = Some(above.as_parent());
            let mut part = Recording::new(&above.tracer, context, parent, name, kind);
            // One look at the host's clock for all of it: set in between, it would put parts outside of the whole.
            part.wall = above.at(part.began);
            Some((context, part))
        });
        match recorded {
            Some((context, recording)) => Self {
                context: Some(context),
                recording: Some(recording),
            },
            None => Self {
                context: self.context,
                recording: None,
            },
        }
    }

    /// Records a part of this work that has ended: nothing of it is under way any more.
    pub fn step(&self, name: &'static str, from: Instant, to: Instant) {
        let Some(above) = self.recording.as_deref() else {
            return;
        };
        let Some(span_id) = span_id(above.tracer.entropy()) else {
            return;
        };
        above.tracer.hand_in(Finished {
            context: above.context.with_span(span_id),
            parent: Some(above.as_parent()),
            name,
            kind: Kind::Internal,
            start: above.at(from),
            end: above.at(to),
            attributes: Vec::new(),
            outcome: Outcome::Done,
        });
    }

    /// Says something about it.
    pub fn set(&mut self, key: Key, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording
            && recording.attributes.len() < MAX_ATTRIBUTES
        {
            recording.attributes.push((key, value.into()));
        }
    }

    /// Says how it ended. It ends when it is dropped.
    pub fn end(&mut self, outcome: Outcome) {
        if let Some(recording) = &mut self.recording {
            recording.outcome = outcome;
        }
    }

    /// Ends it unrecorded. Its parts that have ended are recorded already.
    pub fn discard(mut self) {
        if let Some(recording) = &mut self.recording {
            recording.discarded = true;
        }
    }

    /// What to pass on to whoever is called for this work.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    #[cfg(test)]
    pub(crate) fn recording_there(&self) -> bool {
        self.recording.is_some()
    }
}

impl Recording {
    fn new(
        tracer: &Tracer,
        context: TraceContext,
        parent: Option<Parent>,
        name: &'static str,
        kind: Kind,
    ) -> Box<Self> {
        Box::new(Self {
            tracer: tracer.clone(),
            context,
            parent,
            name,
            kind,
            began: Instant::now(),
            wall: wall_clock(),
            attributes: Vec::new(),
            outcome: ABANDONED,
            discarded: false,
        })
    }

    fn as_parent(&self) -> Parent {
        Parent {
            span_id: self.context.span_id,
            remote: false,
        }
    }

    /// The time of an instant, in nanoseconds since 1970.
    fn at(&self, instant: Instant) -> u64 {
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let after = nanos(instant.saturating_duration_since(self.began));
        let before = nanos(self.began.saturating_duration_since(instant));
        self.wall.saturating_add(after).saturating_sub(before)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.discarded {
            return;
        }
        let finished = Finished {
            context: self.context,
            parent: self.parent,
            name: self.name,
            kind: self.kind,
            start: self.wall,
            end: self.at(Instant::now()),
            attributes: std::mem::take(&mut self.attributes),
            outcome: self.outcome,
        };
        self.tracer.hand_in(finished);
    }
}

/// The host's clock: it says where a span is drawn, and nothing else depends on it.
fn wall_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn span_id(entropy: &dyn Entropy) -> Option<NonZeroU64> {
    NonZeroU64::new(u64::from_be_bytes(random(entropy).ok()?))
}

fn trace_id(entropy: &dyn Entropy) -> Option<NonZeroU128> {
    NonZeroU128::new(u128::from_be_bytes(random(entropy).ok()?))
}

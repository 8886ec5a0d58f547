//! Traces of what a server did with a request and how long each step took, for OpenTelemetry, without a network exporter and
//! without the OpenTelemetry libraries.
//!
//! A span is made of literals and numbers: its name, its attributes' names and every text in it are `&'static str`, so what came
//! with a request, or was opened in it, does not fit in. That is why spans are not those of the crate `tracing`, into which
//! any library and any later log line may put whatever it has at hand. The one thing from outside is a caller's two ids
//! ([`TraceContext`]): numbers, which decide nothing but where the span hangs.
//!
//! - [`context`]: the `traceparent` header (W3C Trace Context);
//! - [`span`]: what is recorded;
//! - [`otlp`]: how it is written;
//! - [`mod@file`]: to what, and how much;
//! - [`export`]: the bounded queue before the file and the thread that writes;
//! - [`settings`]: what an operator says of all this; `metrics` (a feature): what is told back.
//!
//! Both the trusted servers and the gateway use it; it holds no secret and sees none.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod context;
pub mod export;
pub mod file;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod otlp;
pub mod settings;
pub mod span;

pub use context::TraceContext;
pub use export::{TracesError, dropped, server};
pub use settings::{Export, Ratio};
pub use span::{Key, Kind, Outcome, Span, Value};

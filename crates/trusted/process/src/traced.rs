//! A TEE whose evidence is a span: making it is the slowest step of a connection, and the only one that hardware takes.

use std::sync::Arc;

use sesemi_attest::code_identity::TeeKind;
use sesemi_attest::{Attester, AttesterError, Evidence, SealBinding};
use sesemi_protocol::SecretKey;
use sesemi_traces::{Key, Kind, Outcome, Span};

/// An attester that records how long its evidence took.
struct Traced(Arc<dyn Attester>);

/// `attester`, with a span for each piece of evidence. They are roots: evidence is for a connection, which serves many requests.
#[must_use]
pub fn evidence(attester: Arc<dyn Attester>) -> Arc<dyn Attester> {
    Arc::new(Traced(attester))
}

impl Attester for Traced {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn tee(&self) -> TeeKind {
        self.0.tee()
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let mut span = Span::root("tee.evidence", Kind::Client);
        span.set(Key::Tee, self.0.name());
        let made = self.0.evidence(report_data);
        span.end(match &made {
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed("no_evidence"),
        });
        made
    }

    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError> {
        self.0.sealing_key(binding)
    }
}

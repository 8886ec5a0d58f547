//! What the operator may count of traces, the same in every server.

use core::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

/// Looks at the count of this process whenever it is read.
#[derive(Debug)]
struct SpansLost;

impl EncodeMetric for SpansLost {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        ConstCounter::new(crate::dropped()).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Registers `spans_lost`: the spans of this process that were not written.
pub fn register(registry: &mut Registry) {
    registry.register(
        "spans_lost",
        "Spans that were not written to the file for traces",
        SpansLost,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_has_the_servers_prefix_and_says_what_was_lost() {
        let mut registry = Registry::with_prefix("sesemi_test");
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("# TYPE sesemi_test_spans_lost counter"));
        // Nothing writes traces in this process.
        assert!(
            text.contains("\nsesemi_test_spans_lost_total 0\n"),
            "{text}"
        );
    }
}

//! Records of activations that have ended, in OpenWhisk's form.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::conclude::{Conclusion, Status};
use super::entity::{Action, ActionLimits, KIND, KeyValue};
use crate::ActivationId;

/// What is kept of an activation.
pub(super) struct Record {
    pub(super) id: ActivationId,
    pub(super) name: String,
    namespace: String,
    version: String,
    limits: ActionLimits,
    /// Milliseconds since 1970.
    pub(super) start: u64,
    end: u64,
    conclusion: Conclusion,
}

/// A record as it is told. In lists, without what may be large.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordView<'a> {
    namespace: &'a str,
    name: &'a str,
    version: &'a str,
    activation_id: String,
    start: u64,
    end: u64,
    /// Milliseconds.
    duration: u64,
    status_code: u8,
    annotations: Vec<KeyValue>,
    publish: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[&'static str; 0]>,
}

/// The result of an activation, and what OpenWhisk says of it.
#[derive(Serialize)]
pub(super) struct ResponseView<'a> {
    status: &'static str,
    success: bool,
    result: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
}

impl Record {
    pub(super) fn new(
        id: ActivationId,
        action: &Action,
        namespace: &str,
        [start, end]: [u64; 2],
        conclusion: Conclusion,
    ) -> Self {
        Self {
            id,
            name: action.name.as_str().to_owned(),
            namespace: namespace.to_owned(),
            version: action.version(),
            limits: action.limits,
            start,
            end: end.max(start),
            conclusion,
        }
    }

    /// The status of an answer to whoever waited for it.
    pub(super) fn http_status(&self) -> StatusCode {
        self.conclusion.http_status()
    }

    pub(super) fn result(&self) -> &RawValue {
        &self.conclusion.result
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.result().get().len() + self.name.len() + 512
    }

    pub(super) fn response(&self) -> ResponseView<'_> {
        let Conclusion { status, size, .. } = self.conclusion;
        ResponseView {
            status: status.as_str(),
            success: status == Status::Success,
            result: self.result(),
            size,
        }
    }

    pub(super) fn view(&self) -> RecordView<'_> {
        RecordView {
            subject: Some(&self.namespace),
            response: Some(self.response()),
            logs: Some([]),
            ..self.summary()
        }
    }

    pub(super) fn summary(&self) -> RecordView<'_> {
        RecordView {
            namespace: &self.namespace,
            name: &self.name,
            version: &self.version,
            activation_id: self.id.to_string(),
            start: self.start,
            end: self.end,
            duration: self.end - self.start,
            status_code: self.conclusion.status as u8,
            annotations: self.annotations(),
            publish: false,
            subject: None,
            response: None,
            logs: None,
        }
    }

    fn annotations(&self) -> Vec<KeyValue> {
        let path = format!("{}/{}", self.namespace, self.name);
        let told = &self.conclusion;
        let init_time = told
            .init_ms
            .and_then(|init_ms| KeyValue::new("initTime", &init_ms));
        [
            KeyValue::new("path", &path),
            KeyValue::new("kind", &KIND),
            KeyValue::new("limits", &self.limits),
            KeyValue::new("timeout", &told.timed_out),
            told.wait_ms
                .and_then(|wait_ms| KeyValue::new("waitTime", &wait_ms)),
            init_time,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

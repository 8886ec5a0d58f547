//! What OpenWhisk makes of an instance's answer to `/run`, or of there being none.
//!
//! | answer | status of the record |
//! |---|---|
//! | 200 and a JSON object or array | success |
//! | 200 and an object with the key `error` | application error |
//! | 200 and more than the payload limit | application error, with the beginning of it |
//! | 200 and anything else, or another status | action developer error; the instance goes |
//! | none: it did not start, broke off, or ran out of its time | action developer error |
//! | none: it never had an instance | whisk internal error |

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::millis;
use crate::{Activation, PlatformError, Stage};

/// Most of what an instance said that is repeated in an error, in bytes.
const SAID: usize = 512;

/// How an activation ended, by OpenWhisk's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success = 0,
    ApplicationError = 1,
    DeveloperError = 2,
    InternalError = 3,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ApplicationError => "application error",
            Self::DeveloperError => "action developer error",
            Self::InternalError => "whisk internal error",
        }
    }
}

/// What came of an activation.
pub(super) struct Conclusion {
    pub(super) status: Status,
    pub(super) result: Box<RawValue>,
    /// Size of the instance's own answer, in bytes.
    pub(super) size: Option<usize>,
    pub(super) wait_ms: Option<u64>,
    pub(super) init_ms: Option<u64>,
    /// Whether it ran out of its time.
    pub(super) timed_out: bool,
    /// Why the platform did not run it, if that is for the caller to know.
    refused: Option<StatusCode>,
}

impl Conclusion {
    pub(super) fn http_status(&self) -> StatusCode {
        match self.status {
            Status::Success => StatusCode::OK,
            Status::ApplicationError | Status::DeveloperError => StatusCode::BAD_GATEWAY,
            Status::InternalError => self.refused.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn new(status: Status, result: Box<RawValue>) -> Self {
        Self {
            status,
            result,
            size: None,
            wait_ms: None,
            init_ms: None,
            timed_out: false,
            refused: None,
        }
    }

    fn error(status: Status, error: &str) -> Self {
        Self::new(status, object(error))
    }
}

/// What comes of an activation of an action with this time limit; `most` is the payload limit, in bytes.
pub(super) fn conclude(
    outcome: Result<Activation, PlatformError>,
    limit: Duration,
    most: usize,
) -> Conclusion {
    match outcome {
        Ok(activation) => Conclusion {
            size: Some(activation.body.len()),
            wait_ms: Some(millis(activation.wait_time)),
            init_ms: activation.init_time.map(millis),
            ..answered(activation.status, &activation.body, most)
        },
        Err(error) => failed(&error, limit),
    }
}

fn answered(status: u16, body: &[u8], most: usize) -> Conclusion {
    if status != 200 {
        return not_well(status, body);
    }
    if body.len() > most {
        let (length, beginning) = (body.len(), said(body));
        let error = format!(
            "the result has {length} bytes, and {most} are passed on; it begins: {beginning}"
        );
        return Conclusion::error(Status::ApplicationError, &error);
    }
    let developer_error = || {
        let error = format!(
            "the action's answer is no JSON object or array: {}",
            said(body)
        );
        Conclusion::error(Status::DeveloperError, &error)
    };
    let Ok(result) = serde_json::from_slice::<&RawValue>(body) else {
        return developer_error();
    };
    let status = if result.get().starts_with('[') {
        Status::Success
    } else {
        match serde_json::from_str::<BTreeMap<String, &RawValue>>(result.get()) {
            Ok(fields) if fields.contains_key("error") => Status::ApplicationError,
            Ok(_) => Status::Success,
            Err(_) => return developer_error(),
        }
    };
    Conclusion::new(status, result.to_owned())
}

/// Another status than 200. An instance that says why, in an object with `error`, is repeated.
fn not_well(status: u16, body: &[u8]) -> Conclusion {
    let fields: Option<BTreeMap<String, Box<RawValue>>> = serde_json::from_slice(body).ok();
    let error = fields.and_then(|mut fields| fields.remove("error"));
    let result = error
        .filter(|error| error.get().len() <= SAID)
        .and_then(|error| to_raw_value(&json_object(&error)).ok());
    match result {
        Some(result) => Conclusion::new(Status::DeveloperError, result),
        None => {
            let error = format!("the action answered with status {status}: {}", said(body));
            Conclusion::error(Status::DeveloperError, &error)
        }
    }
}

fn failed(error: &PlatformError, limit: Duration) -> Conclusion {
    match error {
        PlatformError::DeadlineExceeded {
            stage: Stage::Running,
        } => Conclusion {
            timed_out: true,
            ..Conclusion::error(
                Status::DeveloperError,
                &format!(
                    "the action did not end within its limit of {} milliseconds",
                    limit.as_millis()
                ),
            )
        },
        PlatformError::StartFailed { cause, .. } => Conclusion::error(
            Status::DeveloperError,
            &format!("an instance of the action did not start: {cause}"),
        ),
        PlatformError::InstanceFailed { cause, .. } => Conclusion::error(
            Status::DeveloperError,
            &format!("the action's instance failed: {cause}"),
        ),
        PlatformError::UnknownAction { .. } => Conclusion::error(
            Status::InternalError,
            "the action was deleted before an instance had the activation",
        ),
        PlatformError::ResponseTooLarge { .. } => {
            Conclusion::error(Status::ApplicationError, &error.to_string())
        }
        _ => Conclusion {
            refused: match error {
                PlatformError::QueueFull { .. } => Some(StatusCode::TOO_MANY_REQUESTS),
                PlatformError::ShuttingDown => Some(StatusCode::SERVICE_UNAVAILABLE),
                _ => None,
            },
            ..Conclusion::error(Status::InternalError, &error.to_string())
        },
    }
}

fn json_object(error: &RawValue) -> BTreeMap<&'static str, &RawValue> {
    [("error", error)].into()
}

fn object(error: &str) -> Box<RawValue> {
    // An object with one text is always JSON.
    to_raw_value(&json!({ "error": error })).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The beginning of what an instance said, as far as it is text.
fn said(body: &[u8]) -> String {
    let beginning = body.get(..body.len().min(SAID)).unwrap_or_default();
    let text = String::from_utf8_lossy(beginning);
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{ActionName, ActivationId, InstanceId, StartFailure};

    fn of(status: u16, body: &'static str) -> (Status, serde_json::Value) {
        let activation = Activation {
            id: ActivationId::from_u128(1),
            status,
            content_type: None,
            body: Bytes::from_static(body.as_bytes()),
            wait_time: Duration::from_millis(5),
            init_time: None,
            instance: None,
        };
        let it = conclude(Ok(activation), Duration::from_secs(1), 100);
        (it.status, serde_json::from_str(it.result.get()).unwrap())
    }

    fn of_error(error: PlatformError) -> (Status, StatusCode, bool) {
        let it = conclude(Err(error), Duration::from_secs(1), 100);
        (it.status, it.http_status(), it.timed_out)
    }

    #[test]
    fn an_object_or_an_array_is_a_success_and_an_error_in_it_the_applications() {
        assert_eq!(of(200, r#"{"a":1}"#), (Status::Success, json!({"a": 1})));
        assert_eq!(of(200, " [1] "), (Status::Success, json!([1])));
        assert_eq!(
            of(200, r#"{"error":{"code":"busy"},"a":1}"#),
            (
                Status::ApplicationError,
                json!({"error": {"code": "busy"}, "a": 1})
            )
        );
        // An error further down is the caller's to understand.
        assert_eq!(of(200, r#"{"a":{"error":1}}"#).0, Status::Success);
    }

    #[test]
    fn anything_else_is_the_developers_error() {
        for bad in [
            "", "1", "\"x\"", "null", "not json", "{", "{} {}", "[1", "{\"a\":}",
        ] {
            let (status, result) = of(200, bad);
            assert_eq!(status, Status::DeveloperError, "{bad}");
            assert!(result["error"].as_str().unwrap().contains(bad), "{bad}");
        }
        assert_eq!(
            of(500, r#"{"error":{"why":1},"more":2}"#),
            (Status::DeveloperError, json!({"error": {"why": 1}}))
        );
        let (status, result) = of(503, "gone");
        assert_eq!(status, Status::DeveloperError);
        assert!(result["error"].as_str().unwrap().contains("503: gone"));
    }

    #[test]
    fn a_result_above_the_limit_is_cut_off_and_an_application_error() {
        let long: &'static str = Box::leak(format!("{{\"a\":\"{}\"}}", "x".repeat(2000)).into());
        let (status, result) = of(200, long);
        assert_eq!(status, Status::ApplicationError);
        let error = result["error"].as_str().unwrap();
        assert!(error.contains("2008 bytes") && error.len() < 700, "{error}");
    }

    #[test]
    fn what_the_platform_could_not_do_is_told_apart_from_what_the_action_did_wrong() {
        let running = Stage::Running;
        assert_eq!(
            of_error(PlatformError::DeadlineExceeded { stage: running }),
            (Status::DeveloperError, StatusCode::BAD_GATEWAY, true)
        );
        assert_eq!(
            of_error(PlatformError::StartFailed {
                action: ActionName::new("a").unwrap(),
                instance: InstanceId(1),
                cause: Arc::new(StartFailure::InitRefused(403)),
            }),
            (Status::DeveloperError, StatusCode::BAD_GATEWAY, false)
        );
        let waiting = Stage::Waiting;
        let internal = Status::InternalError;
        for (error, status) in [
            (PlatformError::QueueFull { capacity: 1 }, 429),
            (PlatformError::ShuttingDown, 503),
            (PlatformError::DeadlineExceeded { stage: waiting }, 500),
        ] {
            let (is, http, timed_out) = of_error(error);
            assert_eq!((is, http.as_u16(), timed_out), (internal, status, false));
        }
    }
}

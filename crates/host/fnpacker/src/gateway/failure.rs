//! What a client is told when no instance answered: `{"error": sentence, "code": snake_case}` and a status that says whether
//! it makes sense to try again.

use sesemi_platform::PlatformError;

use super::routes::{Answer, json};
use crate::packing::Refusal;
use crate::pool::NoSlot;

/// Why there is no answer of an instance.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this path takes {0} only")]
    MethodNotAllowed(&'static str),
    #[error(
        "the header sesemi-model is missing, given twice, or not 1 to 256 visible ASCII characters"
    )]
    BadModel,
    #[error(
        "the header sesemi-timeout-ms is not a positive whole number of milliseconds, or given twice"
    )]
    BadTimeout,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body did not arrive within the request's time")]
    BodyTooSlow,
    #[error("the body broke off or is malformed")]
    BodyBroken,
    #[error("all slots are taken and the queue is full: try again in {retry_after} seconds")]
    QueueFull { retry_after: u64 },
    #[error("no endpoint is free, and the pool's policy knows no waiting: try again")]
    NoPlace,
    #[error("the request's time does not suffice for its place in the queue")]
    TooLate,
    #[error("the request's time ran out while it waited for a slot")]
    WaitedTooLong,
    #[error("the gateway is shutting down: use another one")]
    ShuttingDown,
    #[error("{0}")]
    Platform(#[from] PlatformError),
    #[error("the instance answered with a status that ends no request")]
    BadStatus,
    #[error("the metrics could not be written")]
    Metrics(#[from] std::fmt::Error),
}

impl Failure {
    /// A stable word for programs; also the outcome in the metrics.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BadModel => "bad_model",
            Self::BadTimeout => "bad_timeout",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyBroken => "body_broken",
            Self::QueueFull { .. } => "queue_full",
            Self::NoPlace => "no_place",
            Self::TooLate => "deadline_too_short",
            Self::WaitedTooLong => "deadline_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::Platform(error) => error.code(),
            Self::BadStatus => "instance_failed",
            Self::Metrics(_) => "internal",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::BadModel | Self::BadTimeout | Self::BodyBroken => 400,
            Self::BodyTooSlow => 408,
            Self::BodyTooLarge(_) => 413,
            Self::QueueFull { .. } => 429,
            Self::NoPlace | Self::TooLate | Self::ShuttingDown => 503,
            Self::WaitedTooLong => 504,
            Self::BadStatus => 502,
            Self::Metrics(_) => 500,
            Self::Platform(error) => platform_status(error),
        }
    }

    pub(super) fn answer(&self) -> Answer {
        let body = serde_json::json!({"error": self.to_string(), "code": self.code()});
        let mut answer = json(self.status(), &body);
        let headers = answer.headers_mut();
        match self {
            Self::QueueFull { retry_after } => {
                headers.insert(hyper::header::RETRY_AFTER, (*retry_after).into());
            }
            Self::MethodNotAllowed(allowed) => {
                headers.insert(
                    hyper::header::ALLOW,
                    hyper::header::HeaderValue::from_static(allowed),
                );
            }
            _ => {}
        }
        answer
    }
}

impl From<NoSlot> for Failure {
    fn from(no_slot: NoSlot) -> Self {
        match no_slot {
            NoSlot::Refused(Refusal::Full { retry_after }) => Self::QueueFull { retry_after },
            NoSlot::Refused(Refusal::TooLate) => Self::TooLate,
            NoSlot::Refused(Refusal::NoPlace) => Self::NoPlace,
            NoSlot::Expired => Self::WaitedTooLong,
        }
    }
}

fn platform_status(error: &PlatformError) -> u16 {
    match error {
        PlatformError::QueueFull { .. } | PlatformError::Throttled { .. } => 429,
        PlatformError::RequestTooLarge { .. } | PlatformError::PayloadRefused { .. } => 413,
        PlatformError::DeadlineExceeded { .. } => 504,
        PlatformError::StartFailed { .. }
        | PlatformError::InstanceFailed { .. }
        | PlatformError::ActivationFailed { .. }
        | PlatformError::Unreachable { .. }
        | PlatformError::Unexpected { .. }
        | PlatformError::ResponseTooLarge { .. } => 502,
        PlatformError::ShuttingDown | PlatformError::UnknownAction { .. } => 503,
        _ => 500,
    }
}

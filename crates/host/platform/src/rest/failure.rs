//! What a caller is told when a request is not done: `{"error": sentence, "code": the request's id}`.

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::answer::json;
use crate::http::Answer;
use crate::{ActivationId, PlatformError};

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("Basic authentication with the server's UUID and key is needed")]
    Unauthorized,
    #[error("these credentials are for the namespace {0:?} alone")]
    ForeignNamespace(String),
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("this path takes {0} only")]
    MethodNotAllowed(&'static str),
    #[error("{0}")]
    BadRequest(String),
    #[error("there is no action of this name")]
    NoSuchAction,
    #[error("there are no packages here: name the action without one")]
    NoPackages,
    #[error(
        "there is no record of this activation: it runs still, it was long ago, or it never was"
    )]
    NoSuchActivation,
    #[error("there is an action of this name already; overwrite=true replaces it")]
    AlreadyExists,
    #[error("somebody else has changed the action meanwhile; look at it and try again")]
    Changed,
    #[error("the body is larger than {0} bytes; send large inputs by reference")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("{0} actions are there already, and no more are taken")]
    TooManyActions(usize),
    #[error("{0} activations run or wait already: try again later")]
    TooManyActivations(usize),
    #[error("{0}")]
    Platform(#[from] PlatformError),
    #[error("the activation was given up")]
    GivenUp,
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForeignNamespace(_) => StatusCode::FORBIDDEN,
            Self::NoSuchPath | Self::NoSuchAction | Self::NoPackages | Self::NoSuchActivation => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::AlreadyExists | Self::Changed => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyActions(_) | Self::TooManyActivations(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Platform(PlatformError::ShuttingDown) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Platform(
                PlatformError::NotEnoughMemory { .. } | PlatformError::InvalidSpec { .. },
            ) => StatusCode::BAD_REQUEST,
            Self::Platform(_) | Self::GivenUp => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the request may have a body that was not read to its end.
    pub(super) fn comes_before_the_body(&self) -> bool {
        !matches!(
            self,
            Self::NoSuchAction
                | Self::AlreadyExists
                | Self::Changed
                | Self::TooManyActions(_)
                | Self::TooManyActivations(_)
                | Self::Platform(_)
                | Self::GivenUp
        )
    }

    /// The answer to the request of this id.
    pub(super) fn answer(&self, request: ActivationId) -> Answer {
        let body = serde_json::json!({"error": self.to_string(), "code": request.to_string()});
        let mut answer = json(self.status(), &body);
        let header = match self {
            Self::Unauthorized => Some((
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"OpenWhisk\", charset=\"UTF-8\""),
            )),
            Self::MethodNotAllowed(allowed) => Some((ALLOW, HeaderValue::from_static(allowed))),
            Self::TooManyActivations(_) => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => None,
        };
        answer.headers_mut().extend(header);
        answer
    }
}

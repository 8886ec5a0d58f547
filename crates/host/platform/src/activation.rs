//! Invocations and what comes of them. A body is opaque: `Debug` shows its length, never its bytes, so that no log line
//! can hold one by accident.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sesemi_traces::TraceContext;

/// How an instance is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The body is sealed bytes, which an instance gets as they are: `POST /v1/infer`.
    #[default]
    Sealed,
    /// The body is a JSON object or array, which an instance gets as the `value` of OpenWhisk's `POST /run`. Whoever invokes has
    /// checked that it is JSON.
    Whisk,
}

/// One request to an action.
#[derive(Clone)]
pub struct Invocation {
    /// Sent to the instance as it is.
    pub body: Bytes,
    /// How.
    pub form: Form,
    /// When the caller stops waiting. The instance is told how much of it is left.
    pub deadline: Instant,
    /// Where the instance's spans hang: it is told, as far as the platform has a way to.
    pub trace: Option<TraceContext>,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("body_len", &self.body.len())
            .field("form", &self.form)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// The number of one activation, 32 lower-case hex digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivationId(u128);

/// Text that is no [`ActivationId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an activation id has 32 lower-case hex digits")]
pub struct InvalidActivationId;

impl ActivationId {
    /// The id of this number.
    pub fn from_u128(number: u128) -> Self {
        Self(number)
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ActivationId {
    type Err = InvalidActivationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32
            && text
                .bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if !digits {
            return Err(InvalidActivationId);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| InvalidActivationId)
    }
}

/// The number of one instance, unique in its platform's life and counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub(crate) u64);

impl InstanceId {
    /// The bare number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an instance answered.
#[derive(Clone)]
pub struct Activation {
    /// Which activation this was.
    pub id: ActivationId,
    /// The instance's HTTP status, whatever it is.
    pub status: u16,
    /// The instance's content type.
    pub content_type: Option<String>,
    /// The instance's answer, as it is.
    pub body: Bytes,
    /// Time from the invocation's arrival until an instance took it, without `init_time`.
    pub wait_time: Duration,
    /// Time until the instance was ready, if this activation started it (a cold start).
    pub init_time: Option<Duration>,
    /// Who answered, if the platform tells.
    pub instance: Option<InstanceId>,
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("id", &self.id)
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("body_len", &self.body.len())
            .field("wait_time", &self.wait_time)
            .field("init_time", &self.init_time)
            .field("instance", &self.instance)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activation_id_is_32_hex_digits_both_ways() {
        let id = ActivationId::from_u128(0xab);
        assert_eq!(id.to_string(), format!("{}ab", "0".repeat(30)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"A".repeat(32), &"+".repeat(32), &"0".repeat(33)] {
            assert_eq!(
                bad.parse::<ActivationId>(),
                Err(InvalidActivationId),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn debug_output_shows_no_body() {
        let invocation = Invocation {
            body: Bytes::from_static(b"opaque"),
            form: Form::Sealed,
            deadline: Instant::now(),
            trace: None,
        };
        let activation = Activation {
            id: ActivationId::from_u128(1),
            status: 200,
            content_type: None,
            body: Bytes::from_static(b"opaque"),
            wait_time: Duration::ZERO,
            init_time: None,
            instance: Some(InstanceId(1)),
        };
        let shown = format!("{invocation:?} {activation:?}");
        assert!(
            !shown.contains("opaque") && shown.contains("body_len: 6"),
            "{shown}"
        );
    }
}

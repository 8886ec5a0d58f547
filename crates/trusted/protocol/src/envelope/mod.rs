//! Sealed requests and responses: what a user sends through the untrusted host, and what comes back.
//!
//! Each message is a `COSE_Encrypt0` under a key of its own: HKDF-SHA-256 of the user's request key, with the request id as
//! salt and the *binding* as info. The binding names user, model, version, key epoch, request id and direction,
//! and for a response the digest of its request; it is also the additional data. Neither side reads it from the message it
//! opens: SeMIRT takes it from the lease it holds, the client from what it asked.
//!
//! The [route] is the only part that the host can read.

mod content;
pub mod request;
pub mod response;
pub mod route;

pub use content::ContentError;
pub use request::{
    OpenedRequest, ParsedRequest, RequestContent, SealedRequest, parse_request, seal_request,
};
pub use response::{Answer, Path, PendingResponse, Report, Responder, Steps};
pub use route::Route;

use minicbor::Encoder;

use crate::cose::CoseError;
use crate::id::Digest;
use crate::kdf::{DeriveError, derive};
use crate::secret::SecretKey;

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The COSE message is malformed or not authentic.
    #[error(transparent)]
    Cose(#[from] CoseError),
    /// The route is not of the expected form.
    #[error("the route of the request is malformed")]
    Route,
    /// The plaintext is not of the expected form, although it is authentic: the peer's software is at fault.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The provider failed.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}

/// What one message is bound to; its encoding is both the HKDF info and the additional data.
struct Binding<'a> {
    route: &'a Route,
    /// `None`: a request. `Some`: the response to the request with this digest.
    answers: Option<Digest>,
}

impl Binding<'_> {
    /// Deterministic CBOR: `[label, user, [owner, name], version or alias, [scope, epoch], request id]`, and the request's
    /// digest at the end of a response's.
    fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let mut e = Encoder::new(Vec::new());
        let Route {
            user,
            model,
            request,
            key,
        } = self.route;
        let label = match self.answers {
            None => "sesemi/v1/request",
            Some(_) => "sesemi/v1/response",
        };
        e.array(if self.answers.is_some() { 7 } else { 6 })
            .and_then(|e| e.str(label))
            .and_then(|e| e.encode(user))
            .and_then(|e| e.encode(&model.model))
            .and_then(|e| e.encode(&model.version))
            .and_then(|e| e.encode(key))
            .and_then(|e| e.encode(request))
            .map_err(|_| EnvelopeError::Route)?;
        if let Some(digest) = &self.answers {
            e.encode(digest).map_err(|_| EnvelopeError::Route)?;
        }
        Ok(e.into_writer())
    }

    /// The key of this one message.
    fn key(&self, request_key: &SecretKey, encoded: &[u8]) -> Result<SecretKey, EnvelopeError> {
        Ok(derive(
            request_key.expose(),
            self.route.request.as_bytes(),
            encoded,
        )?)
    }
}

#[cfg(test)]
mod tests;

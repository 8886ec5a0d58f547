//! A user's request: sealed by the client, opened by SeMIRT.

use core::ops::Range;

use minicbor::{Decode, Encode};
use ring::digest::{Context, SHA256};

use super::content::{self, TensorInfo};
use super::response::{PendingResponse, Responder};
use super::{Binding, EnvelopeError, Route};
use sesemi_hardening::wiped::Wiped;

use crate::cbor;
use crate::cose::CoseError;
use crate::cose::encrypt0::{self, Draft, Sealed};
use crate::entropy::Entropy;
use crate::id::Digest;
use crate::receipt::StatePoint;
use crate::secret::SecretKey;
use crate::tensor::TensorView;

/// What a user asks: inputs, and the state of KeyService it has seen.
#[derive(Debug)]
pub struct RequestContent<'a> {
    /// The model's inputs.
    pub inputs: &'a [TensorView<'a>],
    /// Names of the outputs that are wanted, in that order; empty means all.
    pub outputs: &'a [String],
    /// The newest state of KeyService that the user has a receipt for. A KeyService that is behind it must not serve.
    pub seen: StatePoint,
}

/// The head of a request's plaintext.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    inputs: Vec<TensorInfo>,
    #[n(1)]
    outputs: Vec<String>,
    #[n(2)]
    seen: StatePoint,
}

/// A sealed request, ready to be sent, with what is needed to open its response.
#[derive(Debug)]
pub struct SealedRequest {
    /// The `COSE_Encrypt0` message.
    pub bytes: Vec<u8>,
    /// Opens the response to this request and no other.
    pub pending: PendingResponse,
}

/// Seals a request under the user's request key.
///
/// # Errors
/// [`EnvelopeError::Content`] if the tensors are inconsistent or too large.
pub fn seal_request(
    request_key: &SecretKey,
    route: Route,
    content: &RequestContent<'_>,
    entropy: &dyn Entropy,
) -> Result<SealedRequest, EnvelopeError> {
    let head = Head {
        inputs: content.inputs.iter().map(TensorInfo::of).collect(),
        outputs: content.outputs.to_vec(),
        seen: content.seen,
    };
    let head = cbor::encode(&head).map_err(content::ContentError::from)?;
    let layout = content::lay_out(&head, content.inputs)?;

    let binding = Binding {
        route: &route,
        answers: None,
    };
    let external = binding.encode()?;
    let key = binding.key(request_key, &external)?;
    let mut draft = Draft::new(route.to_protected()?, layout.padded, entropy)?;
    layout.write(content.inputs, draft.plaintext())?;
    let bytes = draft.seal(&key, &external)?;
    let digest = request_digest(&encrypt0::parse(&bytes)?, &bytes)?;
    let pending = PendingResponse::new(request_key, route, digest)?;
    Ok(SealedRequest { bytes, pending })
}

/// A request whose form was checked and whose content is still sealed.
#[derive(Debug)]
pub struct ParsedRequest {
    /// Who asks for what: authenticated only once the request is opened.
    pub route: Route,
    sealed: Sealed,
}

/// Checks the form of a request and reads its route.
///
/// # Errors
/// [`EnvelopeError::Cose`] or [`EnvelopeError::Route`].
pub fn parse_request(bytes: &[u8]) -> Result<ParsedRequest, EnvelopeError> {
    let sealed = encrypt0::parse(bytes)?;
    let protected = bytes
        .get(sealed.protected.clone())
        .ok_or(EnvelopeError::Route)?;
    Ok(ParsedRequest {
        route: Route::from_protected(protected)?,
        sealed,
    })
}

/// A request that was opened: its plaintext, which is wiped on drop, and the means to answer it.
pub struct OpenedRequest {
    message: Wiped,
    head: Head,
    inputs: Vec<Range<usize>>,
    /// Seals the response.
    pub responder: Responder,
}

impl core::fmt::Debug for OpenedRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpenedRequest").finish_non_exhaustive()
    }
}

impl ParsedRequest {
    /// Opens the request in the buffer it came in. Everything the key and the additional data are bound to is taken from
    /// the route that the caller looked the key up by, and the tag then proves that the sender meant the same.
    ///
    /// # Errors
    /// [`EnvelopeError::Cose`] with [`CoseError::NotAuthentic`] if it was made with another key or changed;
    /// [`EnvelopeError::Content`] if the authentic content is malformed.
    pub fn open(
        self,
        mut message: Vec<u8>,
        request_key: &SecretKey,
    ) -> Result<OpenedRequest, EnvelopeError> {
        let digest = request_digest(&self.sealed, &message)?;
        let binding = Binding {
            route: &self.route,
            answers: None,
        };
        let external = binding.encode()?;
        let key = binding.key(request_key, &external)?;
        let place = self.sealed.open(&mut message, &key, &external)?;
        let message = Wiped(message);
        let plaintext = message
            .get(place.clone())
            .ok_or(content::ContentError::Layout)?;
        let head: Head = content::decode_head(plaintext)?;
        let inputs = content::find(plaintext, &head.inputs)?
            .into_iter()
            .map(|range| {
                let start = range.start.saturating_add(place.start);
                start..range.end.saturating_add(place.start)
            })
            .collect();
        let responder = Responder::new(request_key, self.route, digest)?;
        Ok(OpenedRequest {
            message,
            head,
            inputs,
            responder,
        })
    }
}

impl OpenedRequest {
    /// The inputs, as views into the message.
    pub fn inputs(&self) -> impl Iterator<Item = TensorView<'_>> {
        let views = self.head.inputs.iter().zip(&self.inputs);
        views.map(|(info, place)| TensorView {
            name: &info.name,
            data_type: info.data_type,
            shape: &info.shape,
            data: self.message.get(place.clone()).unwrap_or_default(),
        })
    }

    /// Names of the outputs that are wanted; empty means all.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        &self.head.outputs
    }

    /// The newest state of KeyService that the user has seen.
    #[must_use]
    pub fn seen(&self) -> StatePoint {
        self.head.seen
    }
}

/// SHA-256 over everything before the ciphertext, and the tag. The tag stands for the ciphertext (see
/// [`Sealed::fingerprint`]).
fn request_digest(sealed: &Sealed, message: &[u8]) -> Result<Digest, EnvelopeError> {
    let parts = sealed
        .fingerprint(message)
        .ok_or(CoseError::Malformed("COSE_Encrypt0"))?;
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = Digest([0; 32]);
    for (to, from) in digest.0.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Ok(digest)
}

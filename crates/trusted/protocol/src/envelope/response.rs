//! The response to one request: sealed by SeMIRT, opened by the client that asked.

use minicbor::{Decode, Encode};

use super::content::{self, TensorInfo};
use super::route::{check_response_protected, response_protected};
use super::{Binding, EnvelopeError, Route};
use sesemi_hardening::wiped::Wiped;

use crate::cbor;
use crate::cose::encrypt0::{self, Draft};
use crate::entropy::Entropy;
use crate::id::{Digest, ModelVersion};
use crate::refusal::Refusal;
use crate::secret::SecretKey;
use crate::tensor::{Tensor, TensorView};

/// Which way a request took through SeMIRT (the paper's section on SeMIRT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Path {
    /// The first request that this instance ever served.
    #[n(0)]
    Cold,
    /// The instance was up, but a key, the model or an execution buffer was missing.
    #[n(1)]
    Warm,
    /// Key, model and execution buffers were all there.
    #[n(2)]
    Hot,
}

impl Path {
    /// `cold`, `warm` or `hot`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Hot => "hot",
        }
    }
}

/// How long each step took, in microseconds; 0 where the step was not needed. Sealing is not among them: an answer cannot say
/// how long it will take to seal it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Steps {
    /// Waiting for the enclave, if it may not be shared, and for an execution slot.
    #[n(0)]
    pub queue_us: u64,
    /// Attestation and key release, or waiting for another request that did it.
    #[n(1)]
    pub key_us: u64,
    /// Until the last byte of the model's ciphertext had come, or waiting for another request that did it.
    #[n(2)]
    pub fetch_us: u64,
    /// From then until all of it was decrypted; most of it is while it comes.
    #[n(3)]
    pub decrypt_us: u64,
    /// Loading the model into the engine.
    #[n(4)]
    pub load_us: u64,
    /// Opening the request.
    #[n(5)]
    pub open_us: u64,
    /// Running the model.
    #[n(6)]
    pub run_us: u64,
}

/// What SeMIRT says about how it served a request. Only the user reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// Cold, warm or hot.
    #[n(0)]
    pub path: Path,
    /// Where the time went.
    #[n(1)]
    pub steps: Steps,
    /// The version that served it: what an alias meant.
    #[n(2)]
    pub version: ModelVersion,
}

/// The head of a response's plaintext.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    outputs: Vec<TensorInfo>,
    #[n(1)]
    report: Report,
    #[n(2)]
    refusal: Option<Refusal>,
}

/// What a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The outputs, or why there are none.
    pub outcome: Result<Vec<Tensor>, Refusal>,
    /// How the request was served.
    pub report: Report,
}

/// Seals the response to one opened request.
pub struct Responder(Ends);

/// Opens the response to one sent request.
pub struct PendingResponse(Ends);

/// What both ends of a response hold: its key and its additional data.
struct Ends {
    key: SecretKey,
    external: Vec<u8>,
}

impl Ends {
    fn new(request_key: &SecretKey, route: &Route, digest: Digest) -> Result<Self, EnvelopeError> {
        let binding = Binding {
            route,
            answers: Some(digest),
        };
        let external = binding.encode()?;
        let key = binding.key(request_key, &external)?;
        Ok(Self { key, external })
    }
}

impl core::fmt::Debug for Responder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Responder(..)")
    }
}

impl core::fmt::Debug for PendingResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PendingResponse(..)")
    }
}

impl Responder {
    pub(super) fn new(
        request_key: &SecretKey,
        route: Route,
        digest: Digest,
    ) -> Result<Self, EnvelopeError> {
        Ends::new(request_key, &route, digest).map(Self)
    }

    /// Seals the outputs, or the refusal, and the report.
    ///
    /// # Errors
    /// [`EnvelopeError::Content`] if the outputs are inconsistent or too large.
    pub fn seal(
        &self,
        outcome: Result<&[TensorView<'_>], Refusal>,
        report: Report,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let (outputs, refusal) = match outcome {
            Ok(outputs) => (outputs, None),
            Err(refusal) => (&[][..], Some(refusal)),
        };
        let head = Head {
            outputs: outputs.iter().map(TensorInfo::of).collect(),
            report,
            refusal,
        };
        let head = cbor::encode(&head).map_err(content::ContentError::from)?;
        let layout = content::lay_out(&head, outputs)?;
        let mut draft = Draft::new(response_protected()?, layout.padded, entropy)?;
        layout.write(outputs, draft.plaintext())?;
        Ok(draft.seal(&self.0.key, &self.0.external)?)
    }
}

impl PendingResponse {
    pub(super) fn new(
        request_key: &SecretKey,
        route: Route,
        digest: Digest,
    ) -> Result<Self, EnvelopeError> {
        Ends::new(request_key, &route, digest).map(Self)
    }

    /// Opens the response, which must answer exactly the request that this was made for.
    ///
    /// # Errors
    /// [`EnvelopeError::Cose`] if it is malformed, changed, or answers another request; [`EnvelopeError::Content`] if
    /// the authentic content is malformed.
    pub fn open(&self, mut bytes: Vec<u8>) -> Result<Answer, EnvelopeError> {
        let sealed = encrypt0::parse(&bytes)?;
        check_response_protected(bytes.get(sealed.protected.clone()))?;
        let place = sealed.open(&mut bytes, &self.0.key, &self.0.external)?;
        let bytes = Wiped(bytes);
        let plaintext = bytes.get(place).ok_or(content::ContentError::Layout)?;
        let head: Head = content::decode_head(plaintext)?;
        let places = content::find(plaintext, &head.outputs)?;
        let outcome = match head.refusal {
            Some(_) if !head.outputs.is_empty() => {
                return Err(content::ContentError::Layout.into());
            }
            Some(refusal) => Err(refusal),
            None => Ok(head
                .outputs
                .into_iter()
                .zip(places)
                .map(|(info, place)| Tensor {
                    name: info.name,
                    data_type: info.data_type,
                    shape: info.shape,
                    data: plaintext.get(place).unwrap_or_default().to_vec(),
                })
                .collect()),
        };
        Ok(Answer {
            outcome,
            report: head.report,
        })
    }
}

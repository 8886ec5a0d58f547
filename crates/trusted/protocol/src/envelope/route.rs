//! The readable part of a request: who asks for which model version. It stands in the protected header, so it is
//! authenticated, and the host may read it, because something must tell SeMIRT which keys to use.

use minicbor::{Decode, Decoder, Encode, Encoder};

use super::EnvelopeError;
use crate::cbor;
use crate::cose::{ALG_A256GCM, CoseError, LABEL_ALG};
use crate::id::{ModelTarget, PrincipalId, RequestId};
use crate::release::RequestKeyName;

/// COSE header label of the route: in the private-use range (below -65536) of the COSE header registry.
const LABEL_ROUTE: i64 = -65537;
/// The one algorithm: AES-256-GCM.
const ALG: (i64, i64) = (LABEL_ALG, ALG_A256GCM);
/// A route is short: two ids, a name and three numbers.
const MAX_ROUTE: usize = 512;

/// Who asks for what.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Route {
    /// The user whose request key seals the message.
    #[n(0)]
    pub user: PrincipalId,
    /// What to run: a version of a model, by its number or by an alias.
    #[n(1)]
    pub model: ModelTarget,
    /// This request; random, and never used twice by a correct client.
    #[n(2)]
    pub request: RequestId,
    /// Which of the user's request keys.
    #[n(3)]
    pub key: RequestKeyName,
}

impl Route {
    /// The encoded protected header of a request: `{alg: A256GCM, -65537: route}`.
    pub(super) fn to_protected(&self) -> Result<Vec<u8>, EnvelopeError> {
        let mut e = Encoder::new(Vec::new());
        e.map(2)
            .and_then(|e| e.i64(ALG.0)?.i64(ALG.1))
            .and_then(|e| e.i64(LABEL_ROUTE)?.encode(self))
            .map_err(|_| EnvelopeError::Route)?;
        Ok(e.into_writer())
    }

    /// Reads the protected header of a request.
    pub(super) fn from_protected(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ROUTE {
            return Err(EnvelopeError::Route);
        }
        let mut d = Decoder::new(bytes);
        let route = (|| {
            let entries = d.map()?;
            let alg = (d.i64()?, d.i64()?);
            let label = d.i64()?;
            let route: Self = d.decode()?;
            if (entries, alg, label) != (Some(2), ALG, LABEL_ROUTE) {
                return Err(minicbor::decode::Error::message("not a request header"));
            }
            Ok(route)
        })()
        .map_err(|_| EnvelopeError::Route)?;
        if route.to_protected()? != bytes {
            return Err(EnvelopeError::Route);
        }
        Ok(route)
    }
}

/// The encoded protected header of a response: `{alg: A256GCM}`. What it answers is known to whoever may open it.
pub(super) fn response_protected() -> Result<Vec<u8>, EnvelopeError> {
    #[derive(Encode)]
    #[cbor(map)]
    struct Header {
        #[n(1)]
        alg: i64,
    }
    let bytes = cbor::encode(&Header { alg: ALG.1 }).map_err(|_| EnvelopeError::Route)?;
    Ok(bytes.to_vec())
}

/// Checks the protected header of a response.
pub(super) fn check_response_protected(bytes: Option<&[u8]>) -> Result<(), EnvelopeError> {
    if bytes != Some(response_protected()?.as_slice()) {
        return Err(CoseError::Malformed("response header").into());
    }
    Ok(())
}

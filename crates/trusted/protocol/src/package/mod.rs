//! The encrypted model package: a small plain header, then Tink's streaming AEAD over manifest and parts.
//!
//! ```text
//! "SESEMIPK" | version u16 = 2 | header length u16 | header (CBOR: model reference) | Tink AES256_GCM_HKDF_1MB ciphertext
//! plaintext: u32 little-endian: length of the manifest | manifest (CBOR) | 0.. to 4096 | part | 0.. to 4096 | part ...
//! ```
//! Integers outside CBOR and Tink are big-endian in the header, which is for people and tools, and little-endian inside. A
//! package holds one or more *forms* of the model, each of one or more *parts*. Parts start at multiples of a page in the
//! plaintext, so that they can be used where they were decrypted, and a reader fetches the segments of one form only. The model
//! reference is the associated data of the ciphertext: a package cannot pass for another model or version, and the header
//! need not be believed.

mod manifest;
mod open;
mod seal;
pub mod stream;
mod weights;

pub use manifest::{
    Dimension, Form, FormContent, InstructionSet, Manifest, Memory, ModelFormat, TensorSpec,
    WEIGHTS,
};
pub use open::{FormPlace, HEAD, OpenPackage, Package, parse_header};
pub use seal::seal;
pub use weights::{NOWHERE, WEIGHT_ALIGNMENT, Weight, WeightList, WeightListError};

use minicbor::Encoder;

use crate::cbor::{self, CborError};
use crate::id::{Digest, ModelRef};
use stream::StreamError;

const MAGIC: &[u8; 8] = b"SESEMIPK";
const FORMAT_VERSION: u16 = 2;
/// Magic, version and length of the header.
const FIXED_HEADER: usize = 12;

/// Why a package is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// The plain header is not that of a package.
    #[error("not a model package: {0}")]
    Header(&'static str),
    /// The header names another model than the one asked for.
    #[error("the package is of {found}, not of {expected}")]
    OtherModel {
        /// What was asked for.
        expected: Box<ModelRef>,
        /// What the header says.
        found: Box<ModelRef>,
    },
    /// The ciphertext does not open.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The plaintext is not laid out as it should be, although it is authentic.
    #[error("the content of the package is malformed: {0}")]
    Content(&'static str),
    /// The manifest is malformed.
    #[error("the manifest of the package is malformed: {0}")]
    Manifest(#[from] CborError),
    /// The manifest is not the one that the owner registered.
    #[error("the package's manifest is not the one that its owner registered")]
    OtherManifest,
}

impl From<manifest::ContentError> for PackageError {
    fn from(error: manifest::ContentError) -> Self {
        Self::Content(error.0)
    }
}

/// Where a model's package lies in an object store. Every part is validated and holds no separator.
#[must_use]
pub fn object_path(model: &ModelRef) -> String {
    let ModelRef { model, version } = model;
    format!("{}/{}/{version}.sesemi", model.owner, model.name)
}

/// The digest of a manifest, as registered at KeyService.
///
/// # Errors
/// [`PackageError::Manifest`] if it cannot be encoded.
pub fn manifest_digest(manifest: &Manifest) -> Result<Digest, PackageError> {
    Ok(Digest::of(&cbor::encode(manifest)?))
}

/// Deterministic CBOR of `["sesemi/v1/model-package", [owner, name], version]`.
fn associated_data(model: &ModelRef) -> Result<Vec<u8>, PackageError> {
    let mut e = Encoder::new(Vec::new());
    e.array(3)
        .and_then(|e| e.str("sesemi/v1/model-package"))
        .and_then(|e| e.encode(&model.model))
        .and_then(|e| e.encode(model.version))
        .map_err(|_| PackageError::Header("model reference"))?;
    Ok(e.into_writer())
}

/// Where the first part starts in the plaintext, after a manifest of this length.
fn parts_start(manifest: usize) -> Option<u64> {
    (manifest as u64)
        .checked_add(4)?
        .checked_next_multiple_of(manifest::ALIGNMENT)
}

#[cfg(test)]
mod tests;

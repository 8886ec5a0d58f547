//! The encrypted model package: a small plain header, then Tink's streaming AEAD over manifest and model.
//!
//! ```text
//! "SESEMIPK" | version u16 = 1 | header length u16 | header (CBOR: model reference) | Tink AES256_GCM_HKDF_1MB ciphertext
//! plaintext: u32 little-endian: length of the manifest | manifest (CBOR) | 0.. to 4096 | model
//! ```
//! Integers outside CBOR and Tink are big-endian in the header, which is for people and tools, and little-endian inside. The
//! model starts at a multiple of a page in the plaintext, so that it can be used where it was decrypted. The model
//! reference is the associated data of the ciphertext: a package cannot pass for another model or version, and the header
//! need not be believed.

mod manifest;
pub mod stream;

pub use manifest::{Dimension, Manifest, ModelFormat, TensorSpec};

use minicbor::Encoder;
use zeroize::Zeroizing;

use crate::cbor::{self, CborError};
use crate::entropy::Entropy;
use crate::id::{Digest, ModelRef};
use crate::limits::{MAX_MANIFEST, MAX_PACKAGE_HEADER};
use crate::secret::SecretKey;
use stream::{Opener, StreamError};

const MAGIC: &[u8; 8] = b"SESEMIPK";
const FORMAT_VERSION: u16 = 1;
/// Magic, version and length of the header.
const FIXED_HEADER: usize = 12;
/// Alignment of the model within the plaintext, in bytes.
const MODEL_ALIGNMENT: usize = 4096;

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

/// Encrypts a model. The manifest's digest goes to KeyService along with `key`.
///
/// # Errors
/// [`PackageError`] if the manifest is too long or randomness is missing.
pub fn seal(
    key: &SecretKey,
    model: &ModelRef,
    manifest: &Manifest,
    bytes: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, PackageError> {
    let encoded = cbor::encode(manifest)?;
    if encoded.len() > MAX_MANIFEST {
        return Err(PackageError::Content("manifest too long"));
    }
    let length =
        u32::try_from(encoded.len()).map_err(|_| PackageError::Content("manifest too long"))?;
    let starts = model_starts(encoded.len()).ok_or(PackageError::Content("manifest too long"))?;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(starts.saturating_add(bytes.len())));
    plaintext.extend_from_slice(&length.to_le_bytes());
    plaintext.extend_from_slice(&encoded);
    plaintext.resize(starts, 0);
    plaintext.extend_from_slice(bytes);

    let mut package = header(model)?;
    stream::seal(
        key,
        &associated_data(model)?,
        &plaintext,
        entropy,
        &mut package,
    )?;
    Ok(package)
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

/// A package on its way in: takes ciphertext in pieces of any size, decrypts each segment into its final place.
pub struct PackageReader {
    expected: ModelRef,
    manifest: Digest,
    limit: u64,
    key: SecretKey,
    state: ReaderState,
}

enum ReaderState {
    /// Collecting the plain header.
    Header(Vec<u8>),
    /// Decrypting the stream.
    Stream(Box<Opener>),
}

/// An opened model package. Wiped on drop until the model is taken out.
pub struct Package {
    /// What the owner says about the model.
    pub manifest: Manifest,
    plaintext: Zeroizing<Vec<u8>>,
    model_starts: usize,
}

impl PackageReader {
    /// Expects the package of `model` under `key` with this manifest digest; at most `limit` bytes may be plaintext.
    #[must_use]
    pub fn new(key: SecretKey, model: ModelRef, manifest: Digest, limit: u64) -> Self {
        Self {
            expected: model,
            manifest,
            limit,
            key,
            state: ReaderState::Header(Vec::new()),
        }
    }

    /// The same reader with a smaller limit, for whoever learns the size before the first piece.
    #[must_use]
    pub fn limited_to(mut self, limit: u64) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`PackageError`]; the reader is then of no more use.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), PackageError> {
        if let ReaderState::Header(collected) = &mut self.state {
            // Byte counts first: at most the longest header is ever collected.
            let room = FIXED_HEADER
                .saturating_add(MAX_PACKAGE_HEADER)
                .saturating_sub(collected.len());
            let (taken, rest) = piece.split_at(room.min(piece.len()));
            collected.extend_from_slice(taken);
            let Some((model, header_length)) = parse_header(collected)? else {
                return Ok(());
            };
            if model != self.expected {
                return Err(PackageError::OtherModel {
                    expected: Box::new(self.expected.clone()),
                    found: Box::new(model),
                });
            }
            let mut opener = Opener::new(
                self.key.clone(),
                associated_data(&self.expected)?,
                self.limit,
            );
            opener.push(collected.get(header_length..).unwrap_or_default())?;
            self.state = ReaderState::Stream(Box::new(opener));
            piece = rest;
        }
        match &mut self.state {
            ReaderState::Stream(opener) => Ok(opener.push(piece)?),
            ReaderState::Header(_) => Ok(()),
        }
    }

    /// Says that the last piece was pushed.
    ///
    /// # Errors
    /// [`PackageError`] if the package is cut short, not authentic, or not the registered one.
    pub fn finish(self) -> Result<Package, PackageError> {
        let ReaderState::Stream(opener) = self.state else {
            return Err(PackageError::Header("cut short"));
        };
        let plaintext = opener.finish()?;
        let (field, rest) = plaintext
            .split_first_chunk::<4>()
            .ok_or(PackageError::Content("no manifest"))?;
        let length = usize::try_from(u32::from_le_bytes(*field))
            .ok()
            .filter(|length| *length <= MAX_MANIFEST)
            .ok_or(PackageError::Content("manifest too long"))?;
        let encoded = rest
            .get(..length)
            .ok_or(PackageError::Content("manifest cut short"))?;
        if Digest::of(encoded) != self.manifest {
            return Err(PackageError::OtherManifest);
        }
        let manifest: Manifest = cbor::decode(encoded, MAX_MANIFEST)?;
        let model_starts = model_starts(length)
            .filter(|starts| *starts <= plaintext.len())
            .ok_or(PackageError::Content("model missing"))?;
        let gap = rest.get(length..model_starts.saturating_sub(4));
        if !gap.unwrap_or_default().iter().all(|byte| *byte == 0) {
            return Err(PackageError::Content("padding is not zero"));
        }
        Ok(Package {
            manifest,
            plaintext,
            model_starts,
        })
    }
}

impl Package {
    /// The model's bytes.
    #[must_use]
    pub fn model(&self) -> &[u8] {
        self.plaintext.get(self.model_starts..).unwrap_or_default()
    }

    /// The model's bytes, alone at the start of their buffer, for engines that take the buffer over. From then on wiping
    /// is up to the engine.
    #[must_use]
    pub fn into_model(mut self) -> Vec<u8> {
        let mut plaintext = core::mem::take(&mut *self.plaintext);
        plaintext.drain(..self.model_starts.min(plaintext.len()));
        plaintext
    }
}

impl core::fmt::Debug for PackageReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PackageReader")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Package {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Package").finish_non_exhaustive()
    }
}

fn model_starts(manifest: usize) -> Option<usize> {
    manifest
        .checked_add(4)?
        .checked_next_multiple_of(MODEL_ALIGNMENT)
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

fn header(model: &ModelRef) -> Result<Vec<u8>, PackageError> {
    let encoded = cbor::encode(model)?;
    let length = u16::try_from(encoded.len()).map_err(|_| PackageError::Header("too long"))?;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&encoded);
    Ok(out)
}

/// The model that a package's plain header names, and the header's length; `None` while bytes are missing.
///
/// # Errors
/// [`PackageError::Header`] if this is no package.
pub fn parse_header(bytes: &[u8]) -> Result<Option<(ModelRef, usize)>, PackageError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_HEADER>() else {
        return Ok(None);
    };
    let [m @ .., v1, v0, l1, l0] = fixed;
    if m != MAGIC {
        return Err(PackageError::Header("the first bytes are not SESEMIPK"));
    }
    if u16::from_be_bytes([*v1, *v0]) != FORMAT_VERSION {
        return Err(PackageError::Header("unknown format version"));
    }
    let length = usize::from(u16::from_be_bytes([*l1, *l0]));
    if length > MAX_PACKAGE_HEADER {
        return Err(PackageError::Header("header too long"));
    }
    let Some(encoded) = rest.get(..length) else {
        return Ok(None);
    };
    let model = cbor::decode(encoded, MAX_PACKAGE_HEADER)
        .map_err(|_| PackageError::Header("model reference"))?;
    Ok(Some((model, FIXED_HEADER.saturating_add(length))))
}

#[cfg(test)]
mod tests;

//! Writing a package, on its owner's machine.

use zeroize::Zeroizing;

use super::manifest::laid_out;
use super::{
    FORMAT_VERSION, FormContent, MAGIC, Manifest, PackageError, associated_data, parts_start,
    stream,
};
use crate::cbor;
use crate::entropy::Entropy;
use crate::id::ModelRef;
use crate::limits::MAX_MANIFEST;
use crate::secret::SecretKey;

/// Encrypts the forms of a model under the manifest that describes them ([`Manifest::describing`]). The manifest's digest
/// goes to KeyService along with `key`.
///
/// # Errors
/// [`PackageError::Content`] if the manifest is too long or describes something else, [`PackageError::Stream`] if
/// randomness is missing.
pub fn seal(
    key: &SecretKey,
    model: &ModelRef,
    manifest: &Manifest,
    forms: &[FormContent<'_>],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, PackageError> {
    let inputs = manifest.inputs.clone();
    let outputs = manifest.outputs.clone();
    let described = Manifest::describing(inputs, outputs, forms).with_batch(manifest.batch);
    if described != *manifest {
        return Err(PackageError::Content("the manifest describes other forms"));
    }
    manifest.check_tensors()?;
    let (_, end) = manifest.places()?;
    let encoded = cbor::encode(manifest)?;
    let too_long = PackageError::Content("manifest too long");
    if encoded.len() > MAX_MANIFEST {
        return Err(too_long);
    }
    let starts = parts_start(encoded.len()).and_then(|starts| usize::try_from(starts).ok());
    let (Some(starts), Ok(length), Ok(end)) =
        (starts, u32::try_from(encoded.len()), usize::try_from(end))
    else {
        return Err(too_long);
    };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(starts.saturating_add(end)));
    plaintext.extend_from_slice(&length.to_le_bytes());
    plaintext.extend_from_slice(&encoded);
    plaintext.resize(starts, 0);
    for piece in laid_out(forms.iter().flat_map(|form| form.parts.iter().copied())) {
        plaintext.extend_from_slice(piece);
    }

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

fn header(model: &ModelRef) -> Result<Vec<u8>, PackageError> {
    let encoded = cbor::encode(model)?;
    let length = u16::try_from(encoded.len()).map_err(|_| PackageError::Header("too long"))?;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&encoded);
    Ok(out)
}

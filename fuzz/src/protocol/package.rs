//! Model packages, from outside and from inside.

use minicbor::Encoder;
use sesemi_protocol::limits::{MAX_MANIFEST, MAX_PACKAGE_HEADER};
use sesemi_protocol::package::{
    self, Dimension, Manifest, ModelFormat, Package, PackageError, PackageReader, TensorSpec,
    manifest_digest, parse_header, stream,
};
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{Digest, SecretKey, cbor};

use crate::input::Input;
use crate::samples::{self, Fixed, key, model};

const KEY: u8 = 6;
const LIMIT: u64 = 4 << 20;

/// Reads the bytes as the header of a package. What is accepted is what the one who seals would have written.
pub fn package_header(bytes: &[u8]) {
    let Ok(Some((model, length))) = parse_header(bytes) else {
        return;
    };
    assert!(length <= 12 + MAX_PACKAGE_HEADER);
    assert_eq!(cbor::encode(&model).unwrap().as_slice(), &bytes[12..length]);
    for cut in 0..length {
        assert_eq!(parse_header(&bytes[..cut]), Ok(None));
    }
}

/// Reads the bytes as a package, in pieces whose length the first byte says. Only the one that was sealed opens, only with
/// its key, and it makes no difference how it was cut.
pub fn package(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let piece = 1 + 64 * usize::from(input.byte());
    let bytes = input.rest();
    let digest = manifest_digest(&sample_manifest()).unwrap();
    let whole = read(bytes, bytes.len().max(1), key(KEY), digest);
    let cut = read(bytes, piece, key(KEY), digest);
    assert!(whole.is_ok() || bytes != sample_package());
    match (whole, cut) {
        (Ok(package), Ok(other)) => {
            assert_eq!(package.manifest, sample_manifest());
            assert_eq!(seal_model(package.model()), bytes);
            assert_eq!(package.model(), other.into_model());
        }
        (Err(error), Err(other)) => assert_eq!(error, other),
        (whole, cut) => panic!("whole {whole:?}, cut {cut:?}"),
    }
    assert!(read(bytes, piece, key(9), digest).is_err(), "another key");
    assert!(
        read(bytes, piece, key(KEY), Digest([0; 32])).is_err(),
        "another manifest"
    );
}

/// Seals the bytes as the plaintext of a package. What is accepted is what an owner would have sealed.
pub fn package_content(bytes: &[u8]) {
    let digest = bytes
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize))
        .map_or(Digest([0; 32]), Digest::of);
    let sealed = seal(bytes);
    let opened = match read(&sealed, sealed.len(), key(KEY), digest) {
        Ok(opened) => opened,
        Err(PackageError::Stream(error)) => panic!("the seal of this target: {error}"),
        Err(_) => return,
    };
    assert_eq!(manifest_digest(&opened.manifest).unwrap(), digest);
    assert!(cbor::encode(&opened.manifest).unwrap().len() <= MAX_MANIFEST);
    let again = package::seal(
        &key(KEY),
        &model(),
        &opened.manifest,
        opened.model(),
        &Fixed,
    );
    assert_eq!(again.unwrap(), sealed);
}

fn read(
    bytes: &[u8],
    piece: usize,
    key: SecretKey,
    manifest: Digest,
) -> Result<Package, PackageError> {
    let mut reader = PackageReader::new(key, model(), manifest, LIMIT);
    for piece in bytes.chunks(piece) {
        reader.push(piece)?;
    }
    reader.finish()
}

/// A package around any plaintext, as spec/model-package.md says.
fn seal(plaintext: &[u8]) -> Vec<u8> {
    let sample = sample_package();
    let (_, header) = parse_header(&sample).unwrap().unwrap();
    let mut sealed = sample[..header].to_vec();
    let mut e = Encoder::new(Vec::new());
    e.array(3).unwrap().str("sesemi/v1/model-package").unwrap();
    e.encode(&model().model).unwrap();
    e.encode(model().version).unwrap();
    stream::seal(&key(KEY), e.writer(), plaintext, &Fixed, &mut sealed).unwrap();
    sealed
}

const SAMPLE_MODEL: &[u8] = b"not a real model";

pub(crate) fn sample_manifest() -> Manifest {
    let spec = |name: &str, extent| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    };
    Manifest {
        format: ModelFormat::Onnx,
        inputs: vec![spec("features", 30)],
        outputs: vec![spec("probabilities", 2)],
    }
}

fn seal_model(bytes: &[u8]) -> Vec<u8> {
    package::seal(&key(KEY), &model(), &sample_manifest(), bytes, &Fixed).unwrap()
}

fn sample_package() -> Vec<u8> {
    seal_model(SAMPLE_MODEL)
}

pub(crate) fn header_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::PACKAGE, &["header"]);
    let (_, length) = parse_header(&sample_package()).unwrap().unwrap();
    seeds.push(sample_package()[..length].to_vec());
    seeds
}

pub(crate) fn package_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::PACKAGE, &["bytes"]);
    // Two segments: the second shows what becomes of the first.
    seeds.push(seal_model(&vec![1; stream::SEGMENT + 100]));
    seeds.push(sample_package());
    samples::tagged(255, seeds)
}

pub(crate) fn content_seeds() -> Vec<Vec<u8>> {
    let manifest = cbor::encode(&sample_manifest()).unwrap();
    let mut plaintext = (manifest.len() as u32).to_le_bytes().to_vec();
    plaintext.extend_from_slice(&manifest);
    plaintext.resize(4096, 0);
    let without_model = plaintext.clone();
    plaintext.extend_from_slice(SAMPLE_MODEL);
    vec![plaintext, without_model]
}

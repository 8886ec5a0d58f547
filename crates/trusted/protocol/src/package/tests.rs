//! Packages read back as written; whatever is changed, cut, swapped or meant for another model is refused.

use proptest::prelude::*;

use super::stream::{HEADER, Opener, SEGMENT, StreamError};
use super::*;
use crate::entropy::SystemEntropy;
use crate::id::{ModelName, ModelVersion, PrincipalId};
use crate::tensor::DataType;

fn model(version: u32) -> ModelRef {
    ModelRef::new(
        PrincipalId([1; 32]),
        ModelName::new("m").unwrap(),
        ModelVersion::new(version).unwrap(),
    )
}

fn manifest() -> Manifest {
    Manifest {
        format: ModelFormat::Onnx,
        inputs: vec![TensorSpec {
            name: "features".into(),
            data_type: DataType::Fp32,
            shape: vec![Dimension::Dynamic, Dimension::Fixed(30)],
        }],
        outputs: vec![],
    }
}

fn key() -> SecretKey {
    SecretKey::from_bytes([8; 32])
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    seal(&key(), &model(1), &manifest(), bytes, &SystemEntropy::new()).unwrap()
}

fn open_in_pieces(package: &[u8], piece: usize, limit: u64) -> Result<Package, PackageError> {
    let digest = manifest_digest(&manifest()).unwrap();
    let mut reader = PackageReader::new(key(), model(1), digest, limit);
    for part in package.chunks(piece) {
        reader.push(part)?;
    }
    reader.finish()
}

fn open(package: &[u8]) -> Result<Package, PackageError> {
    open_in_pieces(package, 4096, 1 << 30)
}

#[test]
fn a_package_reads_back_as_written_whatever_its_size() {
    let first = SEGMENT - 16 - HEADER - 4096;
    for length in [
        0,
        1,
        first - 1,
        first,
        first + 1,
        first + SEGMENT - 16,
        first + SEGMENT,
        3 * SEGMENT + 7,
    ] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let package = open_in_pieces(&sealed(&bytes), 300_001, 1 << 30).unwrap();
        assert!(package.model() == bytes, "{length}");
        assert_eq!(package.manifest, manifest());
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let package = sealed(b"weights");
    // The content is padded to a page: flip every bit of head and tail, and a bit of each byte between.
    for byte in 0..package.len() {
        for bit in 0..8 {
            if (200..package.len() - 100).contains(&byte) && bit != byte % 8 {
                continue;
            }
            let mut changed = package.clone();
            changed[byte] ^= 1 << bit;
            assert!(open(&changed).is_err(), "byte {byte} bit {bit}");
        }
    }
    for length in 0..package.len() {
        assert!(open(&package[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn segments_cannot_be_cut_off_swapped_or_repeated() {
    let package = sealed(&vec![7; 4 * SEGMENT]);
    let (_, header) = parse_header(&package).unwrap().unwrap();
    let segment = |n: usize| header + n * SEGMENT..header + (n + 1) * SEGMENT;

    assert!(
        open(&package[..segment(2).end]).is_err(),
        "cut at a boundary"
    );
    let mut swapped = package.clone();
    swapped[segment(1)].copy_from_slice(&package[segment(2)]);
    swapped[segment(2)].copy_from_slice(&package[segment(1)]);
    assert!(open(&swapped).is_err(), "swapped");
    let mut repeated = package.clone();
    repeated[segment(2)].copy_from_slice(&package[segment(1)]);
    assert!(open(&repeated).is_err(), "repeated");
}

#[test]
fn a_package_of_another_version_is_refused_even_under_the_same_key() {
    let package = seal(&key(), &model(2), &manifest(), b"w", &SystemEntropy::new()).unwrap();
    assert!(matches!(
        open(&package),
        Err(PackageError::OtherModel { .. })
    ));
    // ... and if the host rewrites the plain header to match:
    let mut forged = header(&model(1)).unwrap();
    let (_, length) = parse_header(&package).unwrap().unwrap();
    forged.extend_from_slice(&package[length..]);
    assert!(matches!(open(&forged), Err(PackageError::Stream(_))));
}

#[test]
fn a_package_with_another_manifest_than_the_registered_one_is_refused() {
    let other = Manifest {
        inputs: vec![],
        ..manifest()
    };
    let package = seal(&key(), &model(1), &other, b"w", &SystemEntropy::new()).unwrap();
    assert!(matches!(open(&package), Err(PackageError::OtherManifest)));
}

#[test]
fn a_package_above_the_limit_is_refused_before_it_is_held() {
    let package = sealed(&vec![0; 3 * SEGMENT]);
    assert!(matches!(
        open_in_pieces(&package, 1 << 16, 1 << 20),
        Err(PackageError::Stream(StreamError::TooLarge { .. }))
    ));
}

#[test]
fn the_header_of_the_stream_is_as_long_as_its_first_byte_says() {
    let mut out = Vec::new();
    stream::seal(&key(), b"", b"", &SystemEntropy::new(), &mut out).unwrap();
    assert_eq!(usize::from(out[0]), HEADER);
    assert_eq!(out.len(), HEADER + 16);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
        let _ = open_in_pieces(&bytes, piece, 1 << 20);
        let mut opener = Opener::new(key(), vec![], 1 << 20);
        let _ = opener.push(&bytes);
        let _ = opener.finish();
    }

    #[test]
    fn pieces_of_any_size_give_the_same_model(piece in 1usize..5000, model in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(open_in_pieces(&sealed(&model), piece, 1 << 30).unwrap().model() == model);
    }
}

//! Model packages, from outside and from inside.

use core::ops::Range;
use std::sync::LazyLock;

use minicbor::Encoder;
use sesemi_protocol::limits::{MAX_FORMS, MAX_MANIFEST, MAX_PACKAGE_HEADER};
use sesemi_protocol::package::{
    self, Dimension, FormContent, HEAD, Manifest, ModelFormat, OpenPackage, Package, PackageError,
    TensorSpec, WEIGHT_ALIGNMENT, Weight, WeightList, manifest_digest, parse_header, stream,
};
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{Digest, cbor};

use crate::input::Input;
use crate::samples::{self, Fixed, key, model};

const KEY: u8 = 6;

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

/// Reads the bytes as the list of so many bytes of weights. In what is accepted no two weights share a byte, none lies outside, and
/// there is one spelling of it.
pub fn weight_list(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let length = input.number();
    let bytes = input.rest();
    let Ok(list) = WeightList::decode(bytes, length) else {
        return;
    };
    let mut end = 0;
    for weight in &list.weights {
        let range = weight.range();
        assert!(range.start >= end && range.start.is_multiple_of(WEIGHT_ALIGNMENT));
        assert!(range.end > range.start && range.end <= length);
        let elements: u64 = weight.shape.iter().product();
        assert_eq!(
            range.end - range.start,
            elements * weight.data_type.size().unwrap() as u64
        );
        end = range.end;
    }
    assert_eq!(end, length);
    assert_eq!(list.encode(length).unwrap(), bytes);
}

/// Reads the bytes as a package, as a whole and one form at a time. Only the ones that were sealed open, only with their key,
/// and only as long as they are.
pub fn package(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let lie = u64::from(input.byte());
    let bytes = input.rest();
    let mut genuine = false;
    for sample in &*SAMPLES {
        let whole = Package::open(&key(KEY), &model(), &sample.digest, bytes);
        let forms = read_forms(bytes, bytes.len() as u64, &sample.digest);
        if bytes == sample.sealed {
            genuine = true;
            assert_eq!(whole.unwrap().manifest, sample.manifest);
            forms.unwrap();
        } else {
            whole.unwrap_err();
            forms.unwrap_err();
        }
        if lie != 0 {
            let length = bytes.len() as u64 + lie;
            head(bytes, length, &sample.digest).unwrap_err();
        }
        let other_key = Package::open(&key(9), &model(), &sample.digest, bytes);
        assert!(other_key.is_err(), "another key");
    }
    let unknown = Package::open(&key(KEY), &model(), &Digest([0; 32]), bytes);
    match unknown {
        Err(PackageError::OtherManifest) => assert!(genuine, "it was not sealed"),
        Err(_) => {}
        Ok(_) => panic!("another manifest"),
    }
}

/// Seals the bytes as the plaintext of a package. What is accepted is what an owner would have sealed.
pub fn package_content(bytes: &[u8]) {
    let digest = bytes
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize))
        .map_or(Digest([0; 32]), Digest::of);
    let sealed = seal(bytes);
    let forms = read_forms(&sealed, sealed.len() as u64, &digest);
    let opened = match Package::open(&key(KEY), &model(), &digest, &sealed) {
        Ok(opened) => opened,
        Err(PackageError::Stream(error)) => panic!("the seal of this target: {error}"),
        Err(_) => return,
    };
    assert_eq!(manifest_digest(&opened.manifest).unwrap(), digest);
    assert!(cbor::encode(&opened.manifest).unwrap().len() <= MAX_MANIFEST);
    assert!((1..=MAX_FORMS).contains(&opened.forms.len()));
    let parts: Vec<Vec<&[u8]>> = opened
        .forms
        .iter()
        .map(|parts| parts.iter().map(|part| part.as_slice()).collect())
        .collect();
    assert_eq!(forms.unwrap(), parts);
    let contents: Vec<FormContent<'_>> = opened
        .manifest
        .forms
        .iter()
        .zip(&parts)
        .map(|(form, parts)| FormContent::of(form, parts))
        .collect();
    let again = package::seal(&key(KEY), &model(), &opened.manifest, &contents, &Fixed);
    assert_eq!(again.unwrap(), sealed);
}

fn head(bytes: &[u8], length: u64, manifest: &Digest) -> Result<OpenPackage, PackageError> {
    let head = &bytes[..HEAD.min(bytes.len())];
    OpenPackage::new(&key(KEY), &model(), manifest, length, head)
}

/// Reads each form from its own segments, as SeMIRT does.
fn read_forms(
    bytes: &[u8],
    length: u64,
    manifest: &Digest,
) -> Result<Vec<Vec<Vec<u8>>>, PackageError> {
    let opened = head(bytes, length, manifest)?;
    let forms = 0..opened.manifest().forms.len();
    forms.map(|form| read_form(&opened, bytes, form)).collect()
}

fn read_form(
    opened: &OpenPackage,
    bytes: &[u8],
    form: usize,
) -> Result<Vec<Vec<u8>>, PackageError> {
    let place = opened.place(form).unwrap();
    let (mut plaintext, mut from) = (Vec::new(), place.plaintext.start);
    for segment in opened.segments(&place.plaintext) {
        let mut sealed = bytes[within(&opened.sealed(segment))].to_vec();
        let holds = opened.opened(segment);
        let found = opened.open(segment, &mut sealed)?;
        assert_eq!(found.len() as u64, holds.end - holds.start);
        if plaintext.is_empty() {
            from -= holds.start;
        }
        plaintext.extend_from_slice(found);
    }
    let length = place.plaintext.end - place.plaintext.start;
    let form: &[u8] = match length {
        0 => &[],
        _ => &plaintext[within(&(from..from + length))],
    };
    place.check_gaps(form)?;
    let parts = place.parts.iter();
    Ok(parts.map(|part| form[part.clone()].to_vec()).collect())
}

fn within(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// A package around any plaintext, as spec/model-package.md says.
fn seal(plaintext: &[u8]) -> Vec<u8> {
    let sample = &SAMPLES[0].sealed;
    let (_, header) = parse_header(sample).unwrap().unwrap();
    let mut sealed = sample[..header].to_vec();
    let mut e = Encoder::new(Vec::new());
    e.array(3).unwrap().str("sesemi/v1/model-package").unwrap();
    e.encode(&model().model).unwrap();
    e.encode(model().version).unwrap();
    stream::seal(&key(KEY), e.writer(), plaintext, &Fixed, &mut sealed).unwrap();
    sealed
}

const SAMPLE_MODEL: &[u8] = b"not a real model";
const SAMPLE_PARTS: [&[u8]; 4] = [SAMPLE_MODEL, b"a graph", b"", b"its weights"];

struct Sample {
    manifest: Manifest,
    digest: Digest,
    sealed: Vec<u8>,
}

/// A package with the first part as its portable form, and with the others, if there are any, as another: two as weights and
/// graph, three as a compiled one.
fn sample(parts: &[&[u8]]) -> Sample {
    let spec = |name: &str, extent| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    };
    let (portable, compiled) = parts.split_at(1);
    let mut forms = vec![FormContent::portable(ModelFormat::Onnx, portable)];
    if !compiled.is_empty() {
        let format = match compiled.len() {
            2 => ModelFormat::OnnxWithWeights,
            _ => ModelFormat::OnnxRuntimeCompiled,
        };
        forms.push(FormContent::portable(format, compiled));
    }
    let inputs = vec![spec("features", 30)];
    let manifest = Manifest::describing(inputs, vec![spec("probabilities", 2)], &forms);
    Sample {
        digest: manifest_digest(&manifest).unwrap(),
        sealed: package::seal(&key(KEY), &model(), &manifest, &forms, &Fixed).unwrap(),
        manifest,
    }
}

/// One form, two, and one of two segments: the second shows what becomes of the first. Then weights apart from their graph.
static SAMPLES: LazyLock<[Sample; 4]> = LazyLock::new(|| {
    let large = vec![1; stream::SEGMENT + 100];
    [
        sample(&[SAMPLE_MODEL]),
        sample(&SAMPLE_PARTS),
        sample(&[&large]),
        sample(&SAMPLE_PARTS[..3]),
    ]
});

pub(crate) fn header_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::PACKAGE, &["header"]);
    let sample = &SAMPLES[0].sealed;
    let (_, length) = parse_header(sample).unwrap().unwrap();
    seeds.push(sample[..length].to_vec());
    seeds
}

pub(crate) fn weight_list_seeds() -> Vec<Vec<u8>> {
    let weight = |name: &str, data_type, shape: &[u64], offset, length| Weight {
        name: name.into(),
        data_type,
        shape: shape.to_vec(),
        offset,
        length,
    };
    let lists = [
        (0, vec![]),
        (4, vec![weight("w", DataType::Fp32, &[], 0, 4)]),
        (
            210,
            vec![
                weight("conv/w", DataType::Fp32, &[2, 3, 2], 0, 48),
                weight("b", DataType::Int8, &[65], 64, 65),
                weight("scale", DataType::Fp16, &[3, 3], 192, 18),
            ],
        ),
    ];
    let seed = |(length, weights): (u64, Vec<Weight>)| {
        let list = WeightList { weights }.encode(length).unwrap();
        [&length.to_le_bytes()[..], &list].concat()
    };
    lists.into_iter().map(seed).collect()
}

pub(crate) fn package_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::PACKAGE, &["bytes"]);
    seeds.extend(SAMPLES.iter().map(|sample| sample.sealed.clone()));
    samples::tagged(255, seeds)
}

pub(crate) fn content_seeds() -> Vec<Vec<u8>> {
    let plaintext = |parts: &[&[u8]]| {
        let manifest = cbor::encode(&sample(parts).manifest).unwrap();
        let mut plaintext = (manifest.len() as u32).to_le_bytes().to_vec();
        plaintext.extend_from_slice(&manifest);
        for part in parts {
            plaintext.resize(plaintext.len().next_multiple_of(4096), 0);
            plaintext.extend_from_slice(part);
        }
        plaintext
    };
    let mut without_parts = plaintext(&[SAMPLE_MODEL]);
    without_parts.truncate(4096);
    vec![
        plaintext(&[SAMPLE_MODEL]),
        plaintext(&SAMPLE_PARTS),
        plaintext(&SAMPLE_PARTS[..3]),
        without_parts,
    ]
}

//! Model packages: `package.json`. A small one in full; larger ones by their SHA-256 and a rule for the model's bytes.

use std::ops::Range;
use std::sync::OnceLock;

use minicbor::Encoder;
use serde_json::{Value, json};
use sesemi_protocol::package::stream::{HEADER, Layout, Opener};
use sesemi_protocol::package::{
    FormContent, HEAD, Manifest, OpenPackage, Package, PackageError, manifest_digest, parse_header,
    seal,
};
use sesemi_protocol::{Digest, ModelRef, cbor};

use crate::package_refused::refused_recipes;
use crate::support::{
    Fixed, assert_remade, bytes, counting, list, named, parsed, text, vectors, with,
};
use crate::values::{OwnedForm, forms, manifest, model_text, secret};

/// Packages below this many bytes are in the file as a whole.
const SMALL: usize = 8192;

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("package.json", || {
            let packages: Vec<Value> = recipes().iter().map(fill).collect();
            let packages = Value::Array(packages);
            json!({
                "about": "Model packages: spec/model-package.md. A part given by a rule has 'length' bytes, byte i being \
                          i plus 'start' modulo 'modulus'. 'content' is the digest of all that follows the manifest. \
                          'refused_as' is the first check that fails.",
                "refused": refused_recipes(&packages),
                "packages": packages,
            })
        })
    })
}

fn recipes() -> Vec<Value> {
    let tensors = json!({
        "inputs": [{ "name": "features", "data_type": "FP32", "shape": [null, 30] }],
        "outputs": [
            { "name": "label", "data_type": "INT64", "shape": [null] },
            { "name": "probabilities", "data_type": "FP32", "shape": [null, 2] },
        ],
    });
    let no_tensors = json!({ "inputs": [], "outputs": [] });
    let base = |name: &str, version: u32, tensors: &Value, forms: Value| {
        let base = json!({
            "name": name,
            "key": counting(0x10, 32),
            "model": model_text(version),
            "forms": forms,
            "batch": null,
            "salt": counting(0x30, 32),
            "nonce_prefix": counting(0x50, 7),
        });
        with(&base, tensors.clone())
    };
    let nothing_measured = json!({ "loaded": 0, "run": 0 });
    let onnx = |part: Value| {
        json!({
            "format": "onnx", "instruction_set": "any", "memory": nothing_measured, "prepack": false, "parts": [part],
        })
    };
    let compiled = |instruction_set: &str, prepack: bool, parts: [Value; 3]| {
        let memory = json!({ "loaded": 123_456_789, "run": 65_536 });
        json!({
            "format": "onnxruntime-compiled", "instruction_set": instruction_set, "memory": memory, "prepack": prepack,
            "parts": parts,
        })
    };
    let weights = || json!(hex::encode(b"not a real model, but bytes like any other"));
    let rule =
        |length: usize, start: u64| json!({ "length": length, "start": start, "modulus": 251 });
    // Plaintext of the first segment: 1 MiB less 40 bytes of header and 16 of tag. The first part starts at 4096 in it.
    let first = (1 << 20) - 40 - 16 - 4096;
    let mib = 1 << 20;
    let portable_and_compiled = json!([
        compiled(
            "x86-64-avx512",
            true,
            [json!(""), json!("0a0b"), rule(100, 7)]
        ),
        compiled(
            "x86-64-avx2",
            false,
            [json!("01"), rule(4096, 8), rule(4097, 9)]
        ),
        onnx(weights()),
    ]);
    let across_segments = json!([
        onnx(rule(2 * mib + mib / 2, 1)),
        compiled(
            "x86-64-avx2",
            false,
            [rule(5000, 2), json!("02"), rule(mib + 4321, 3)]
        ),
    ]);
    let weights_apart = json!([{
        "format": "onnx-with-weights", "instruction_set": "any", "memory": nothing_measured, "prepack": false,
        "parts": [rule(6000, 4), json!("0c0d0e")],
    }]);
    vec![
        base("a small model", 1, &tensors, json!([onnx(weights())])),
        base(
            "a model of no bytes",
            2,
            &no_tensors,
            json!([onnx(json!(""))]),
        ),
        base(
            "one full segment and not one byte more",
            3,
            &no_tensors,
            json!([onnx(rule(first, 0))]),
        ),
        base(
            "one byte into the second segment",
            4,
            &no_tensors,
            json!([onnx(rule(first + 1, 0))]),
        ),
        base(
            "three segments",
            5,
            &tensors,
            json!([onnx(rule(2 * mib + 12_345, 0))]),
        ),
        base("three forms", 6, &tensors, portable_and_compiled),
        base("two forms across segments", 7, &tensors, across_segments),
        base("weights apart from the graph", 8, &tensors, weights_apart),
        with(
            &base("rows of a batch", 9, &tensors, json!([onnx(weights())])),
            json!({ "batch": 64 }),
        ),
    ]
}

fn with_contents<T>(forms: &[OwnedForm], then: impl FnOnce(&[FormContent<'_>]) -> T) -> T {
    let parts: Vec<Vec<&[u8]>> = forms
        .iter()
        .map(|form| form.parts.iter().map(Vec::as_slice).collect())
        .collect();
    let contents: Vec<FormContent<'_>> = forms
        .iter()
        .zip(&parts)
        .map(|(form, parts)| FormContent::of(&form.form, parts))
        .collect();
    then(&contents)
}

pub(crate) fn manifest_of(case: &Value) -> Manifest {
    with_contents(&forms(case), |forms| manifest(case, forms))
}

/// Spec: `["sesemi/v1/model-package", [owner, name], version]`.
fn associated_data(model: &ModelRef) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(3).unwrap().str("sesemi/v1/model-package").unwrap();
    e.array(2)
        .unwrap()
        .bytes(model.model.owner.as_bytes())
        .unwrap();
    e.str(model.model.name.as_str()).unwrap();
    e.u32(model.version.get()).unwrap();
    e.into_writer()
}

fn make(case: &Value) -> Vec<u8> {
    let entropy = Fixed::new(&[&bytes(case, "salt"), &bytes(case, "nonce_prefix")]);
    let (key, model) = (secret(case, "key"), parsed(case, "model"));
    let package = with_contents(&forms(case), |forms| {
        seal(&key, &model, &manifest(case, forms), forms, &entropy)
    });
    entropy.assert_used_up();
    package.unwrap()
}

fn fill(case: &Value) -> Value {
    let package = make(case);
    let model: ModelRef = parsed(case, "model");
    let (_, header) = parse_header(&package).unwrap().unwrap();
    let manifest = manifest_of(case);
    let filled = with(
        case,
        json!({
            "header": hex::encode(&package[..header]),
            "associated_data": hex::encode(associated_data(&model)),
            "content": manifest.content.to_string(),
            "manifest_cbor": hex::encode(&*cbor::encode(&manifest).unwrap()),
            "manifest_digest": manifest_digest(&manifest).unwrap().to_string(),
            "length": package.len(),
            "sha256": Digest::of(&package).to_string(),
        }),
    );
    if package.len() < SMALL {
        with(&filled, json!({ "bytes": hex::encode(package) }))
    } else {
        filled
    }
}

fn open(case: &Value, package: &[u8]) -> Result<Package, PackageError> {
    let (model, digest) = (parsed(case, "model"), parsed(case, "manifest_digest"));
    Package::open(&secret(case, "key"), &model, &digest, package)
}

#[test]
fn every_package_is_remade_byte_for_byte() {
    assert_remade(&file()["packages"], &recipes(), fill);
}

#[test]
fn every_package_opens_to_manifest_and_parts() {
    for case in list(file(), "packages") {
        let package = open(case, &make(case)).unwrap();
        assert_eq!(package.manifest, manifest_of(case));
        let forms = forms(case);
        assert_eq!(package.forms.len(), forms.len());
        for (found, form) in package.forms.iter().zip(forms) {
            let found: Vec<Vec<u8>> = found.iter().map(|part| part.to_vec()).collect();
            assert!(found == form.parts, "{}", case["name"]);
        }
    }
}

fn within(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

#[test]
fn every_form_opens_from_its_own_segments() {
    for case in list(file(), "packages") {
        let package = make(case);
        let (model, digest) = (parsed(case, "model"), parsed(case, "manifest_digest"));
        let head = &package[..HEAD.min(package.len())];
        let length = package.len() as u64;
        let opened = OpenPackage::new(&secret(case, "key"), &model, &digest, length, head).unwrap();
        for (number, form) in forms(case).iter().enumerate() {
            let place = opened.place(number).unwrap();
            let (mut plaintext, mut starts) = (Vec::new(), None);
            for segment in opened.segments(&place.plaintext) {
                let mut sealed = package[within(&opened.sealed(segment))].to_vec();
                plaintext.extend_from_slice(opened.open(segment, &mut sealed).unwrap());
                starts.get_or_insert(opened.opened(segment).start);
            }
            let skipped = starts.map_or(0, |starts| place.plaintext.start - starts);
            let plaintext = &plaintext[usize::try_from(skipped).unwrap()..];
            for (range, part) in place.parts.iter().zip(&form.parts) {
                assert!(
                    plaintext[range.clone()] == *part,
                    "{} {number}",
                    case["name"]
                );
            }
        }
    }
}

#[test]
fn the_associated_data_opens_the_ciphertext() {
    for case in list(file(), "packages") {
        let package = make(case);
        let stream = &package[bytes(case, "header").len()..];
        let layout = Layout::of_length(stream.len() as u64).unwrap();
        let header: &[u8; HEADER] = stream.first_chunk().unwrap();
        let associated_data = bytes(case, "associated_data");
        let opener = Opener::new(&secret(case, "key"), &associated_data, header, layout).unwrap();
        let mut plaintext = Vec::new();
        for segment in 0..layout.segments() {
            let mut sealed = stream[within(&layout.sealed(segment))].to_vec();
            plaintext.extend_from_slice(opener.open(segment, &mut sealed).unwrap());
        }
        let last = forms(case).pop().and_then(|mut form| form.parts.pop());
        assert!(plaintext.ends_with(&last.unwrap()), "{}", case["name"]);
    }
}

fn reason(error: &PackageError) -> &'static str {
    match error {
        PackageError::Header(_) => "header",
        PackageError::OtherModel { .. } => "other model",
        PackageError::Stream(_) => "stream",
        PackageError::OtherManifest => "other manifest",
        PackageError::Content(_) | PackageError::Manifest(_) => "content",
    }
}

#[test]
fn every_package_that_must_be_refused_is_refused_for_the_reason_given() {
    let expected = refused_recipes(&file()["packages"]);
    assert_eq!(file()["refused"], expected, "cases are missing");
    for case in list(file(), "refused") {
        let of = named(&file()["packages"], text(case, "package"));
        let expectations = with(of, case.clone());
        let error = open(&expectations, &bytes(case, "bytes")).unwrap_err();
        assert_eq!(reason(&error), text(case, "refused_as"), "{}", case["name"]);
    }
}

//! Model packages: `package.json`. A small one in full; larger ones by their SHA-256 and a rule for the model's bytes.

use std::sync::OnceLock;

use minicbor::Encoder;
use serde_json::{Value, json};
use sesemi_protocol::package::stream;
use sesemi_protocol::package::{
    Package, PackageError, PackageReader, manifest_digest, parse_header, seal,
};
use sesemi_protocol::{Digest, ModelRef, cbor};

use crate::support::{
    Fixed, array, assert_remade, bytes, counting, list, named, number, parsed, text, vectors, with,
};
use crate::values::{manifest, model_text, secret};

const LIMIT: u64 = 64 << 20;

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("package.json", || {
            let packages: Vec<Value> = recipes().iter().map(fill).collect();
            let packages = Value::Array(packages);
            json!({
                "about": "Model packages: spec/model-package.md. A model given by 'model_rule' has 'length' bytes, byte i \
                          being i modulo 'modulus'. 'refused_as' is the first check that fails.",
                "refused": refused_recipes(&packages),
                "packages": packages,
            })
        })
    })
}

fn recipes() -> Vec<Value> {
    let small_manifest = json!({
        "format": "onnx",
        "inputs": [{ "name": "features", "data_type": "FP32", "shape": [null, 30] }],
        "outputs": [
            { "name": "label", "data_type": "INT64", "shape": [null] },
            { "name": "probabilities", "data_type": "FP32", "shape": [null, 2] },
        ],
    });
    let bare_manifest = json!({ "format": "onnx", "inputs": [], "outputs": [] });
    let base = |name: &str, version: u32, manifest: &Value| {
        json!({
            "name": name,
            "key": counting(0x10, 32),
            "model": model_text(version),
            "manifest": manifest,
            "salt": counting(0x30, 32),
            "nonce_prefix": counting(0x50, 7),
        })
    };
    let weights = hex::encode(b"not a real model, but bytes like any other");
    // Plaintext of the first segment: 1 MiB less 40 bytes of header and 16 of tag. The model starts at 4096 in it.
    let first = (1 << 20) - 40 - 16 - 4096;
    let rule = |length: usize| json!({ "model_rule": { "length": length, "modulus": 251 } });
    vec![
        with(
            &base("a small model", 1, &small_manifest),
            json!({ "model_bytes": weights }),
        ),
        with(
            &base("a model of no bytes", 2, &bare_manifest),
            json!({ "model_bytes": "" }),
        ),
        with(
            &base("one full segment and not one byte more", 3, &bare_manifest),
            rule(first),
        ),
        with(
            &base("one byte into the second segment", 4, &bare_manifest),
            rule(first + 1),
        ),
        with(
            &base("three segments", 5, &small_manifest),
            rule(2 * (1 << 20) + 12_345),
        ),
    ]
}

fn model_bytes(case: &Value) -> Vec<u8> {
    match case.get("model_bytes") {
        Some(_) => bytes(case, "model_bytes"),
        None => {
            let rule = &case["model_rule"];
            let modulus: u64 = number(rule, "modulus");
            let length: u64 = number(rule, "length");
            (0..length)
                .map(|i| u8::try_from(i % modulus).unwrap())
                .collect()
        }
    }
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
    let package = seal(
        &secret(case, "key"),
        &parsed(case, "model"),
        &manifest(&case["manifest"]),
        &model_bytes(case),
        &entropy,
    );
    entropy.assert_used_up();
    package.unwrap()
}

fn fill(case: &Value) -> Value {
    let package = make(case);
    let model: ModelRef = parsed(case, "model");
    let (_, header) = parse_header(&package).unwrap().unwrap();
    let manifest = manifest(&case["manifest"]);
    let filled = with(
        case,
        json!({
            "header": hex::encode(&package[..header]),
            "associated_data": hex::encode(associated_data(&model)),
            "manifest_cbor": hex::encode(&*cbor::encode(&manifest).unwrap()),
            "manifest_digest": manifest_digest(&manifest).unwrap().to_string(),
            "length": package.len(),
            "sha256": Digest::of(&package).to_string(),
        }),
    );
    if case.get("model_bytes").is_some() {
        with(&filled, json!({ "bytes": hex::encode(package) }))
    } else {
        filled
    }
}

fn open(case: &Value, package: &[u8]) -> Result<Package, PackageError> {
    let mut reader = PackageReader::new(
        secret(case, "key"),
        parsed(case, "model"),
        parsed(case, "manifest_digest"),
        LIMIT,
    );
    for piece in package.chunks(300_007) {
        reader.push(piece)?;
    }
    reader.finish()
}

#[test]
fn every_package_is_remade_byte_for_byte() {
    assert_remade(&file()["packages"], &recipes(), fill);
}

#[test]
fn every_package_opens_to_manifest_and_model() {
    for case in list(file(), "packages") {
        let package = open(case, &make(case)).unwrap();
        assert_eq!(package.manifest, manifest(&case["manifest"]));
        assert!(package.model() == model_bytes(case), "{}", case["name"]);
    }
}

#[test]
fn the_associated_data_opens_the_ciphertext() {
    for case in list(file(), "packages") {
        let package = make(case);
        let mut opener =
            stream::Opener::new(secret(case, "key"), bytes(case, "associated_data"), LIMIT);
        opener
            .push(&package[bytes(case, "header").len()..])
            .unwrap();
        assert!(opener.finish().unwrap().ends_with(&model_bytes(case)));
    }
}

fn refused_recipes(packages: &Value) -> Value {
    let small = named(packages, "a small model");
    let good = bytes(small, "bytes");
    let header = bytes(small, "header");
    let stream_starts = header.len();
    let edit = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut edited = good.clone();
        change(&mut edited);
        edited
    };
    let other = named(packages, "a model of no bytes");
    let relabelled = {
        let other_header = bytes(other, "header");
        [&header[..], &bytes(other, "bytes")[other_header.len()..]].concat()
    };
    let case = |name: &str, refused_as: &str, package: Vec<u8>| {
        json!({
            "name": name, "package": "a small model", "refused_as": refused_as, "bytes": hex::encode(package),
        })
    };
    json!([
        case("no bytes", "header", vec![]),
        case(
            "another magic",
            "header",
            b"SESEMIPQ\x00\x01\x00\x00".to_vec()
        ),
        case(
            "format version 2",
            "header",
            edit(&|p| p[9] = 2)[..stream_starts].to_vec()
        ),
        case(
            "a header above 1024 bytes",
            "header",
            b"SESEMIPK\x00\x01\x04\x01".to_vec()
        ),
        case(
            "cut within the header",
            "header",
            good[..stream_starts - 1].to_vec()
        ),
        case(
            "a header that is no model reference",
            "header",
            b"SESEMIPK\x00\x01\x00\x01\xf6".to_vec()
        ),
        case(
            "the package of another version",
            "other model",
            bytes(other, "bytes")
        ),
        case(
            "the package of another version under this one's header",
            "stream",
            relabelled
        ),
        case(
            "cut within the stream's header",
            "stream",
            good[..stream_starts + 39].to_vec()
        ),
        case(
            "cut after the stream's header",
            "stream",
            good[..stream_starts + 40].to_vec()
        ),
        case(
            "another length of the stream's header",
            "stream",
            edit(&|p| p[stream_starts] = 41)
        ),
        case(
            "a bit of the salt is changed",
            "stream",
            edit(&|p| p[stream_starts + 1] ^= 1)
        ),
        case(
            "a bit of the nonce prefix is changed",
            "stream",
            edit(&|p| p[stream_starts + 33] ^= 1)
        ),
        case(
            "a bit of the ciphertext is changed",
            "stream",
            edit(&|p| p[stream_starts + 40] ^= 1)
        ),
        case("cut by one byte", "stream", good[..good.len() - 1].to_vec()),
        case("a byte follows", "stream", [&good[..], &[0]].concat()),
        with(
            &case(
                "the manifest is not the registered one",
                "other manifest",
                good.clone()
            ),
            json!({ "manifest_digest": counting(0x77, 32) }),
        ),
        with(
            &case("another key", "stream", good.clone()),
            json!({ "key": counting(0x11, 32) }),
        ),
        case(
            "the manifest's length is beyond the content",
            "content",
            sealed(small, &[0xff, 0, 0, 0])
        ),
        case(
            "the manifest is above 1 MiB",
            "content",
            sealed(small, &[1, 0, 0x10, 0])
        ),
        case(
            "the plaintext has no manifest",
            "content",
            sealed(small, &[0, 0, 0])
        ),
        case("the plaintext ends before the model's page", "content", {
            let manifest = bytes(small, "manifest_cbor");
            let length = u32::try_from(manifest.len()).unwrap();
            sealed(small, &[&length.to_le_bytes()[..], &manifest].concat())
        }),
    ])
}

/// A package with the right header and key and any plaintext, from a writer that errs.
fn sealed(case: &Value, plaintext: &[u8]) -> Vec<u8> {
    let mut package = bytes(case, "header");
    let entropy = Fixed::new(&[
        &array::<32>(case, "salt"),
        &array::<7>(case, "nonce_prefix"),
    ]);
    stream::seal(
        &secret(case, "key"),
        &bytes(case, "associated_data"),
        plaintext,
        &entropy,
        &mut package,
    )
    .unwrap();
    package
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

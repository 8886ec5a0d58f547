//! Packages that must be refused: changed on the way, of others, or from a writer that errs.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use sesemi_protocol::package::{Dimension, Form, Manifest, ModelFormat, stream};
use sesemi_protocol::{Digest, cbor};

use crate::package::manifest_of;
use crate::support::{Fixed, array, bytes, counting, named, with};
use crate::values::{forms, secret};

pub(crate) fn refused_recipes(packages: &Value) -> Value {
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
    let mut cases = json!([
        case("no bytes", "header", vec![]),
        case(
            "another magic",
            "header",
            b"SESEMIPQ\x00\x02\x00\x00".to_vec()
        ),
        case(
            "format version 1",
            "header",
            edit(&|p| p[9] = 1)[..stream_starts].to_vec()
        ),
        case(
            "a header above 1024 bytes",
            "header",
            b"SESEMIPK\x00\x02\x04\x01".to_vec()
        ),
        case(
            "cut within the header",
            "header",
            good[..stream_starts - 1].to_vec()
        ),
        case(
            "a header that is no model reference",
            "header",
            b"SESEMIPK\x00\x02\x00\x01\xf6".to_vec()
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
            "the manifest is above 512 KiB",
            "content",
            sealed(small, &[1, 0, 8, 0])
        ),
        case(
            "the plaintext has no manifest",
            "content",
            sealed(small, &[0, 0, 0])
        ),
        case(
            "the plaintext ends before the first part's page",
            "content",
            {
                let manifest = bytes(small, "manifest_cbor");
                let length = u32::try_from(manifest.len()).unwrap();
                sealed(small, &[&length.to_le_bytes()[..], &manifest].concat())
            }
        ),
    ]);
    let misdescribed = misdescribed(small).into_iter();
    let misdescribed = misdescribed.map(|(name, package, digest)| {
        let case = case(name, "content", package);
        with(&case, json!({ "manifest_digest": digest.to_string() }))
    });
    cases.as_array_mut().unwrap().extend(misdescribed);
    cases
}

/// Packages whose authentic manifest and content do not fit each other, or this format.
fn misdescribed(small: &Value) -> Vec<(&'static str, Vec<u8>, Digest)> {
    let manifest = manifest_of(small);
    let part = forms(small).remove(0).parts.remove(0);
    let length = part.len() as u64;
    let made = |name, change: &dyn Fn(&mut Manifest), gap: u8, content: &[u8]| {
        let mut manifest = manifest.clone();
        manifest.content = Digest::of(content);
        change(&mut manifest);
        let encoded = cbor::encode(&manifest).unwrap();
        let mut plaintext = u32::try_from(encoded.len()).unwrap().to_le_bytes().to_vec();
        plaintext.extend_from_slice(&encoded);
        plaintext.push(gap);
        plaintext.resize(4096, 0);
        plaintext.extend_from_slice(content);
        (name, sealed(small, &plaintext), Digest::of(&encoded))
    };
    let as_is = |_: &mut Manifest| {};
    let longer = [&part[..], b"."].concat();
    let paged = |gap: u8, rest: &[u8]| {
        let mut content = [&part[..], &[gap]].concat();
        content.resize(4096, 0);
        [&content[..], rest].concat()
    };
    let with_parts = |parts: &[u64]| {
        let parts = parts.to_vec();
        move |manifest: &mut Manifest| {
            manifest.forms[0].format = ModelFormat::OnnxRuntimeCompiled;
            manifest.forms[0].parts = parts.clone();
        }
    };
    let two_forms = |manifest: &mut Manifest| {
        let form = manifest.forms[0].clone();
        manifest.forms.push(form);
    };
    vec![
        made("a byte follows the last part", &as_is, 0, &longer),
        made("the last part is cut short", &as_is, 0, &part[1..]),
        made("a gap before the first part", &as_is, 1, &part),
        made(
            "a gap between two parts",
            &with_parts(&[length, 3, 0]),
            0,
            &paged(1, &[&[5; 3][..], &[0; 4093]].concat()),
        ),
        made("a gap between two forms", &two_forms, 0, &paged(1, &part)),
        made(
            "the content has another digest",
            &|manifest| manifest.content = Digest([7; 32]),
            0,
            &part,
        ),
        made("no forms", &|manifest| manifest.forms.clear(), 0, &[]),
        made(
            "nine forms",
            &|manifest| {
                let empty = Form {
                    parts: vec![0],
                    ..manifest.forms[0].clone()
                };
                manifest.forms = vec![empty; 9];
            },
            0,
            &[],
        ),
        made(
            "one part where the format has three",
            &with_parts(&[length]),
            0,
            &part,
        ),
        made(
            "two parts where the format has one",
            &|manifest| manifest.forms[0].parts.push(0),
            0,
            &paged(0, &[]),
        ),
        made(
            "two inputs of the same name",
            &|manifest| manifest.inputs.push(manifest.inputs[0].clone()),
            0,
            &part,
        ),
        made(
            "a shape of nine dimensions",
            &|manifest| manifest.outputs[0].shape.resize(9, Dimension::Dynamic),
            0,
            &part,
        ),
        made(
            "a batch of which an output has no rows",
            &|manifest| {
                manifest.batch = NonZeroU32::new(8);
                manifest.outputs[0].shape[0] = Dimension::Fixed(1);
            },
            0,
            &part,
        ),
        made(
            "a batch of which an output has no dimensions",
            &|manifest| {
                manifest.batch = NonZeroU32::new(8);
                manifest.outputs[0].shape.clear();
            },
            0,
            &part,
        ),
        made(
            "a batch of 4097 rows",
            &|manifest| manifest.batch = NonZeroU32::new(4097),
            0,
            &part,
        ),
        made(
            "a batch without inputs",
            &|manifest| {
                manifest.batch = NonZeroU32::new(8);
                manifest.inputs.clear();
            },
            0,
            &part,
        ),
        made(
            "a tensor's name of 129 bytes",
            &|manifest| manifest.outputs[0].name = "n".repeat(129),
            0,
            &part,
        ),
        made(
            "parts that end beyond 2^63",
            &with_parts(&[u64::MAX - 4095, 4096, length]),
            0,
            &part,
        ),
    ]
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

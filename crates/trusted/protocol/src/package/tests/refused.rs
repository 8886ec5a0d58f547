//! What is refused: changed and cut packages, those of others, lies about their length, and what a writer that errs or lies
//! can seal under the right key.

use super::*;

/// A package with the right header and key around any plaintext.
pub(super) fn around(plaintext: &[u8]) -> Vec<u8> {
    let mut package = sealed(&onnx(vec![]));
    let (model, header) = parse_header(&package).unwrap().unwrap();
    package.truncate(header);
    let associated = associated_data(&model).unwrap();
    let entropy = SystemEntropy::new();
    stream::seal(&key(), &associated, plaintext, &entropy, &mut package).unwrap();
    package
}

/// A package with this manifest and content whether or not they fit, and the manifest's digest.
fn forged(manifest: &Manifest, content: &[u8]) -> (Vec<u8>, Digest) {
    let encoded = cbor::encode(manifest).unwrap();
    let mut plaintext = u32::try_from(encoded.len()).unwrap().to_le_bytes().to_vec();
    plaintext.extend_from_slice(&encoded);
    plaintext.resize(plaintext.len().next_multiple_of(4096), 0);
    plaintext.extend_from_slice(content);
    (around(&plaintext), manifest_digest(manifest).unwrap())
}

/// The content of a package of these forms.
fn content(forms: &Forms) -> Vec<u8> {
    let mut content = Vec::new();
    for part in forms.iter().flat_map(|(_, parts)| parts) {
        content.resize(content.len().next_multiple_of(4096), 0);
        content.extend_from_slice(part);
    }
    content
}

fn refusal(package: &[u8], digest: &Digest) -> &'static str {
    match open(package, digest) {
        Err(PackageError::Content(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let forms = onnx(b"weights".to_vec());
    let digest = registered(&forms);
    let package = sealed(&forms);
    // The content is padded to a page: flip every bit of head and tail, and a bit of each byte between.
    for byte in 0..package.len() {
        for bit in 0..8 {
            if (200..package.len() - 100).contains(&byte) && bit != byte % 8 {
                continue;
            }
            let mut changed = package.clone();
            changed[byte] ^= 1 << bit;
            assert!(open(&changed, &digest).is_err(), "byte {byte} bit {bit}");
        }
    }
    for length in 0..package.len() {
        assert!(
            open(&package[..length], &digest).is_err(),
            "cut to {length}"
        );
    }
}

#[test]
fn segments_cannot_be_cut_off_swapped_or_repeated() {
    let forms = two_forms([SEGMENT, 100, SEGMENT, 2 * SEGMENT]);
    let digest = registered(&forms);
    let package = sealed(&forms);
    let (_, header) = parse_header(&package).unwrap().unwrap();
    let segment = |n: usize| header + n * SEGMENT..header + (n + 1) * SEGMENT;
    let all_refuse = |package: &[u8], what: &str| {
        assert!(open(package, &digest).is_err(), "{what}");
        let opened = head(package, &digest, package.len() as u64);
        let Ok(opened) = opened else { return };
        assert!(open_form(&opened, package, 1).is_err(), "{what}");
    };

    all_refuse(&package[..segment(2).end], "cut at a boundary");
    let mut swapped = package.clone();
    swapped[segment(1)].copy_from_slice(&package[segment(2)]);
    swapped[segment(2)].copy_from_slice(&package[segment(1)]);
    all_refuse(&swapped, "swapped");
    let mut repeated = package.clone();
    repeated[segment(2)].copy_from_slice(&package[segment(1)]);
    all_refuse(&repeated, "repeated");
    // The same model under the same key, sealed once more: its segments are of another stream.
    let mut mixed = package.clone();
    mixed[segment(2)].copy_from_slice(&sealed(&forms)[segment(2)]);
    all_refuse(&mixed, "mixed");
}

#[test]
fn a_package_of_another_version_is_refused_even_under_the_same_key() {
    let forms = onnx(b"w".to_vec());
    let digest = registered(&forms);
    let package = seal_as(2, &forms);
    let refused = open(&package, &digest);
    assert!(matches!(refused, Err(PackageError::OtherModel { .. })));
    // ... and if the host rewrites the plain header to match:
    let genuine = sealed(&forms);
    let (_, length) = parse_header(&package).unwrap().unwrap();
    let forged = [&genuine[..length], &package[length..]].concat();
    assert!(matches!(
        open(&forged, &digest),
        Err(PackageError::Stream(_))
    ));
}

#[test]
fn a_package_with_another_manifest_than_the_registered_one_is_refused() {
    let registered = registered(&onnx(b"w".to_vec()));
    // Other weights of the same length are another manifest, too.
    let package = sealed(&onnx(b"v".to_vec()));
    assert!(matches!(
        open(&package, &registered),
        Err(PackageError::OtherManifest)
    ));
    let opened = head(&package, &registered, package.len() as u64);
    assert!(matches!(opened, Err(PackageError::OtherManifest)));
}

#[test]
fn packages_of_the_first_format_are_refused() {
    let forms = onnx(b"w".to_vec());
    let mut package = sealed(&forms);
    package[9] = 1;
    assert_eq!(
        open(&package, &registered(&forms)).unwrap_err(),
        PackageError::Header("unknown format version")
    );
}

/// Lengths near the truth and near every boundary, besides absurd ones; not the truth.
fn lies(length: u64, stream: u64) -> Vec<u64> {
    let segment = SEGMENT as u64;
    let boundaries = (0..6).map(|n| stream + n * segment);
    let near = boundaries
        .chain([length, length + segment, length.saturating_sub(segment)])
        .flat_map(|at| {
            [-57i64, -56, -17, -16, -1, 0, 1, 16, 17, 56, 57].map(|d| at.saturating_add_signed(d))
        });
    let mut lies: Vec<u64> = near.chain([0, 1, 1 << 40, 1 << 52, u64::MAX]).collect();
    lies.retain(|lie| *lie != length);
    lies
}

#[test]
fn a_lie_about_the_length_is_refused_with_the_head() {
    let first = SEGMENT - 16 - HEADER - 4096;
    for length in [
        0,
        first,
        first + 1,
        2 * SEGMENT + 9,
        first + 2 * (SEGMENT - 16),
    ] {
        let forms = onnx(bytes(length, 3));
        let package = sealed(&forms);
        let digest = registered(&forms);
        let (_, header) = parse_header(&package).unwrap().unwrap();
        let truth = package.len() as u64;
        head(&package, &digest, truth).unwrap();
        for lie in lies(truth, header as u64) {
            assert!(head(&package, &digest, lie).is_err(), "{lie} for {truth}");
        }
        // The store gives as many bytes as it said, so that even the first segment is another one.
        let longer = [&package[..], &bytes(100, 5)].concat();
        assert!(open(&longer, &digest).is_err());
    }
}

#[test]
fn a_segment_opens_to_its_own_plaintext_whatever_the_length_is_said_to_be() {
    let plaintext = bytes(2 * SEGMENT + 1000, 6);
    let mut sealed = Vec::new();
    stream::seal(&key(), b"", &plaintext, &SystemEntropy::new(), &mut sealed).unwrap();
    let truth = sealed.len() as u64;
    let header = sealed.first_chunk::<HEADER>().unwrap();
    let mut opened = 0;
    for length in lies(truth, 0).into_iter().filter(|lie| *lie < 8 << 20) {
        let Ok(layout) = Layout::of_length(length) else {
            continue;
        };
        let opener = Opener::new(&key(), b"", header, layout).unwrap();
        let mut as_said = sealed.clone();
        as_said.resize(usize::try_from(length).unwrap(), 0);
        for segment in 0..layout.segments() {
            let mut bytes = as_said[place_in(&layout.sealed(segment))].to_vec();
            match opener.open(segment, &mut bytes) {
                Ok(found) => {
                    assert_eq!(&*found, &plaintext[place_in(&layout.opened(segment))]);
                    opened += 1;
                }
                Err(error) => assert_eq!(error, StreamError::NotAuthentic(segment)),
            }
        }
        let last = layout.segments() - 1;
        let mut bytes = as_said[place_in(&layout.sealed(last))].to_vec();
        assert!(
            opener.open(last, &mut bytes).is_err(),
            "the end is not {length}"
        );
    }
    assert!(opened > 10, "segments before the end open: {opened}");
}

#[test]
fn what_was_put_between_the_parts_is_refused() {
    let forms = two_forms([10, 20, 30, 40]);
    let good = content(&forms);
    let (package, digest) = forged(&manifest(&forms), &good);
    open(&package, &digest).unwrap();
    let at = |place: usize| {
        let mut content = good.clone();
        content[place] = 1;
        // Who errs or lies here describes what he wrote.
        let manifest = Manifest {
            content: Digest::of(&content),
            ..manifest(&forms)
        };
        forged(&manifest, &content)
    };
    // After the first form's part, after the second form's first and second.
    for place in [10, 4095, 4096 + 20, 2 * 4096 + 30, 3 * 4096 - 1] {
        let (package, digest) = at(place);
        assert_eq!(refusal(&package, &digest), "padding is not zero", "{place}");
    }
    // Who reads one form sees what is between its own parts.
    for (place, form) in [(4096 + 20, 1), (2 * 4096 + 30, 1)] {
        let (package, digest) = at(place);
        let opened = head(&package, &digest, package.len() as u64).unwrap();
        let refused = open_form(&opened, &package, form);
        assert_eq!(refused, Err(PackageError::Content("padding is not zero")));
        let cut = opened.place(1).unwrap().check_gaps(&[0; 4096]);
        assert_eq!(cut, Err(PackageError::Content("a form cut short")));
    }
}

#[test]
fn what_was_put_between_manifest_and_parts_is_refused() {
    let forms = onnx(b"weights".to_vec());
    let manifest = manifest(&forms);
    let encoded = cbor::encode(&manifest).unwrap();
    let digest = manifest_digest(&manifest).unwrap();
    for place in [4 + encoded.len(), 4095] {
        let mut plaintext = u32::try_from(encoded.len()).unwrap().to_le_bytes().to_vec();
        plaintext.extend_from_slice(&encoded);
        plaintext.resize(4096, 0);
        plaintext.extend_from_slice(b"weights");
        open(&around(&plaintext), &digest).unwrap();
        plaintext[place] = 1;
        let package = around(&plaintext);
        assert_eq!(refusal(&package, &digest), "padding is not zero");
        let opened = head(&package, &digest, package.len() as u64);
        assert_eq!(
            opened.unwrap_err(),
            PackageError::Content("padding is not zero")
        );
    }
}

#[test]
fn a_content_that_is_not_that_of_the_manifest_is_refused_by_who_reads_it_all() {
    let forms = onnx(b"weights".to_vec());
    let (package, digest) = forged(&manifest(&forms), b"weightz");
    assert_eq!(
        refusal(&package, &digest),
        "not what the manifest's digest says"
    );
}

#[test]
fn forms_with_another_number_of_parts_than_their_format_has_are_refused() {
    let with = |format: ModelFormat, parts: Vec<u64>| {
        let mut manifest = manifest(&onnx(vec![7; 9]));
        manifest.forms[0].format = format;
        manifest.forms[0].parts = parts;
        let (package, digest) = forged(&manifest, &[7; 9]);
        open(&package, &digest)
    };
    with(ModelFormat::Onnx, vec![9]).unwrap();
    for (format, parts) in [
        (ModelFormat::Onnx, vec![]),
        (ModelFormat::Onnx, vec![9, 0]),
        (ModelFormat::OnnxRuntimeCompiled, vec![9]),
        (ModelFormat::OnnxRuntimeCompiled, vec![9, 0]),
        (ModelFormat::OnnxRuntimeCompiled, vec![0, 0, 0, 9]),
    ] {
        let refused = with(format, parts).unwrap_err();
        let why = "a form has another number of parts than its format";
        assert_eq!(refused, PackageError::Content(why));
    }
}

#[test]
fn two_tensors_of_one_name_and_descriptions_beyond_the_limits_are_refused() {
    let features = |name: String, rank: usize| TensorSpec {
        name,
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic; rank],
    };
    let two = |second: TensorSpec| vec![features("n".into(), 1), second];
    let (unique, double) = (two(features("m".into(), 8)), two(features("n".into(), 2)));
    let (long, deep) = (
        two(features("n".repeat(129), 1)),
        two(features("m".into(), 9)),
    );
    let forms = onnx(b"weights".to_vec());
    let try_with = |inputs: &[TensorSpec], outputs: &[TensorSpec]| {
        let manifest = Manifest {
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            ..manifest(&forms)
        };
        let sealed = with_contents(&forms, |forms| {
            seal(&key(), &model(1), &manifest, forms, &SystemEntropy::new()).map(drop)
        });
        let (package, digest) = forged(&manifest, &content(&forms));
        assert_eq!(open(&package, &digest).map(drop), sealed);
        sealed
    };
    try_with(&unique, &unique).unwrap();
    for (wrong, why) in [
        (double, "two tensors have the same name"),
        (long, "a tensor's name is too long"),
        (deep, "a tensor has too many dimensions"),
    ] {
        let refused = Err(PackageError::Content(why));
        assert_eq!(try_with(&wrong, &unique), refused);
        assert_eq!(try_with(&unique, &wrong), refused);
    }
}

#[test]
fn no_forms_and_too_many_are_refused() {
    for count in [0, MAX_FORMS + 1, 1000] {
        let mut manifest = manifest(&onnx(vec![]));
        let form = manifest.forms.remove(0);
        manifest.forms.resize(count, form);
        let (package, digest) = forged(&manifest, &[]);
        assert_eq!(refusal(&package, &digest), "a package has 1 to 8 forms");
    }
}

#[test]
fn lengths_that_overflow_or_do_not_add_up_are_refused() {
    let with = |parts: [u64; 3]| {
        let mut manifest = manifest(&two_forms([0, 1, 0, 0]));
        manifest.forms.remove(0);
        manifest.forms[0].parts = parts.to_vec();
        let (package, digest) = forged(&manifest, &[7; 9]);
        refusal(&package, &digest)
    };
    for parts in [
        [u64::MAX, 0, 0],
        [u64::MAX - 4094, 0, 0],
        [u64::MAX - 4095, 4096, 0],
        [1 << 63, 0, 0],
        [(1 << 63) - 1, 1, 0],
        [1 << 62, 1 << 62, 0],
        [1, u64::MAX - 4096, 4097],
    ] {
        assert_eq!(with(parts), "parts too long", "{parts:?}");
    }
    for parts in [
        [8, 0, 0],
        [9, 0, 0],
        [10, 0, 0],
        [1 << 62, 0, 0],
        [(1 << 63) - 4096, 0, 0],
    ] {
        let why = "its length is not what its parts add up to";
        assert_eq!(with(parts), why, "{parts:?}");
    }
}

#[test]
fn manifests_above_the_limit_or_beyond_the_plaintext_are_refused() {
    let with = |length: u32, plaintext: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(4 + plaintext, 0);
        refusal(&around(&bytes), &Digest::of(&[]))
    };
    assert_eq!(with(u32::MAX, 100), "manifest too long");
    let limit = u32::try_from(MAX_MANIFEST).unwrap();
    assert_eq!(with(limit + 1, MAX_MANIFEST + 1), "manifest too long");
    assert_eq!(with(101, 100), "manifest cut short");
    assert_eq!(refusal(&around(&[0; 3]), &Digest::of(&[])), "no manifest");
}

//! Packages read back as written, as a whole and one form at a time; whatever is changed, cut, swapped or meant for another
//! model is refused.

use core::ops::Range;

use proptest::prelude::*;

use super::stream::{HEADER, Layout, Opener, SEGMENT, StreamError};
use super::*;
use crate::entropy::SystemEntropy;
use crate::id::{ModelName, ModelVersion, PrincipalId};
use crate::limits::{MAX_FORMS, MAX_MANIFEST};
use crate::secret::SecretKey;
use crate::tensor::DataType;

mod layout;
mod refused;

/// The parts of each form.
type Forms = Vec<(ModelFormat, Vec<Vec<u8>>)>;

fn model(version: u32) -> ModelRef {
    ModelRef::new(
        PrincipalId([1; 32]),
        ModelName::new("m").unwrap(),
        ModelVersion::new(version).unwrap(),
    )
}

fn key() -> SecretKey {
    SecretKey::from_bytes([8; 32])
}

/// Bytes that differ from those a page, a segment or a part further on.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let period: Vec<u8> = (0..251).map(|i: u8| i.wrapping_mul(7) ^ seed).collect();
    let mut bytes = Vec::with_capacity(length + period.len());
    while bytes.len() < length {
        bytes.extend_from_slice(&period);
    }
    bytes.truncate(length);
    bytes
}

fn onnx(part: Vec<u8>) -> Forms {
    vec![(ModelFormat::Onnx, vec![part])]
}

/// A form of one part and one of three, of these lengths.
fn two_forms(lengths: [usize; 4]) -> Forms {
    let [first, rest @ ..] = lengths;
    let rest = rest.into_iter().zip(2..);
    let rest = rest.map(|(length, seed)| bytes(length, seed)).collect();
    vec![
        (ModelFormat::Onnx, vec![bytes(first, 1)]),
        (ModelFormat::OnnxRuntimeCompiled, rest),
    ]
}

fn with_contents<T>(forms: &Forms, then: impl FnOnce(&[FormContent<'_>]) -> T) -> T {
    let parts: Vec<Vec<&[u8]>> = forms
        .iter()
        .map(|(_, parts)| parts.iter().map(Vec::as_slice).collect())
        .collect();
    let contents: Vec<FormContent<'_>> = forms
        .iter()
        .zip(&parts)
        .map(|((format, _), parts)| FormContent::portable(*format, parts))
        .collect();
    then(&contents)
}

fn describing(forms: &[FormContent<'_>]) -> Manifest {
    let features = TensorSpec {
        name: "features".into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(30)],
    };
    Manifest::describing(vec![features], vec![], forms)
}

fn manifest(forms: &Forms) -> Manifest {
    with_contents(forms, describing)
}

fn registered(forms: &Forms) -> Digest {
    manifest_digest(&manifest(forms)).unwrap()
}

fn seal_as(version: u32, forms: &Forms) -> Vec<u8> {
    with_contents(forms, |contents| {
        let manifest = describing(contents);
        let entropy = SystemEntropy::new();
        seal(&key(), &model(version), &manifest, contents, &entropy).unwrap()
    })
}

fn sealed(forms: &Forms) -> Vec<u8> {
    seal_as(1, forms)
}

fn open(package: &[u8], manifest: &Digest) -> Result<Package, PackageError> {
    Package::open(&key(), &model(1), manifest, package)
}

fn head(package: &[u8], manifest: &Digest, length: u64) -> Result<OpenPackage, PackageError> {
    let head = &package[..HEAD.min(package.len())];
    OpenPackage::new(&key(), &model(1), manifest, length, head)
}

fn place_in(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// As SeMIRT reads: the head, then the segments of one form, each to its place, the last one first.
fn open_form(
    opened: &OpenPackage,
    package: &[u8],
    form: usize,
) -> Result<Vec<Vec<u8>>, PackageError> {
    let place = opened.place(form).unwrap();
    let wanted = &place.plaintext;
    let mut plaintext = vec![0xaa; place_in(wanted).len()];
    for segment in opened.segments(wanted).rev() {
        let mut sealed = package[place_in(&opened.sealed(segment))].to_vec();
        let found = opened.open(segment, &mut sealed)?;
        let holds = opened.opened(segment);
        assert_eq!(found.len(), place_in(&holds).len());
        let common = holds.start.max(wanted.start)..holds.end.min(wanted.end);
        let of =
            |range: &Range<u64>| place_in(&(common.start - range.start..common.end - range.start));
        plaintext[of(wanted)].copy_from_slice(&found[of(&holds)]);
    }
    place.check_gaps(&plaintext)?;
    let parts = place.parts.iter();
    Ok(parts.map(|part| plaintext[part.clone()].to_vec()).collect())
}

fn assert_reads_back(forms: &Forms) {
    let package = sealed(forms);
    let whole = open(&package, &registered(forms)).unwrap();
    assert_eq!(whole.manifest, manifest(forms));
    assert_eq!(whole.forms.len(), forms.len());
    for (found, (_, parts)) in whole.forms.iter().zip(forms) {
        assert_eq!(found.len(), parts.len());
        // Not assert_eq, which would print megabytes.
        assert!(
            found
                .iter()
                .zip(parts)
                .all(|(found, part)| **found == *part)
        );
    }
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
        assert_reads_back(&onnx(bytes(length, 0)));
    }
}

#[test]
fn several_forms_of_several_parts_read_back_also_empty_ones() {
    assert_reads_back(&two_forms([10_000, 4096, 0, 2 * SEGMENT]));
    assert_reads_back(&two_forms([0, 0, 0, 0]));
    let most = (0..MAX_FORMS).flat_map(|form| onnx(bytes(form * 3000, 9)));
    assert_reads_back(&most.collect());
}

#[test]
fn what_a_form_needs_is_in_the_manifest() {
    let parts = [&b"graph"[..], b"list", b"weights"];
    let form = FormContent {
        instruction_set: InstructionSet::X86Avx512,
        memory: Memory {
            loaded: 12,
            run: 34,
        },
        prepack: true,
        ..FormContent::portable(ModelFormat::OnnxRuntimeCompiled, &parts)
    };
    let manifest = describing(&[form]);
    let digest = manifest_digest(&manifest).unwrap();
    let package = seal(&key(), &model(1), &manifest, &[form], &SystemEntropy::new()).unwrap();
    let opened = head(&package, &digest, package.len() as u64).unwrap();
    let found = &opened.manifest().forms[0];
    assert_eq!(found.instruction_set, InstructionSet::X86Avx512);
    assert_eq!((found.memory.loaded, found.memory.run), (12, 34));
    assert!(found.prepack);
    assert_eq!(found.parts, [5, 4, 7]);
}

#[test]
fn parts_start_at_pages_of_the_plaintext() {
    let forms = two_forms([5000, 1, 4096, 4097]);
    let package = sealed(&forms);
    let opened = head(&package, &registered(&forms), package.len() as u64).unwrap();
    let places: Vec<FormPlace> = (0..2).map(|form| opened.place(form).unwrap()).collect();
    assert_eq!(places[0].plaintext, 4096..4096 + 5000);
    assert_eq!(places[0].parts.first(), Some(&(0..5000)));
    assert_eq!(places[1].plaintext, 3 * 4096..5 * 4096 + 4097);
    assert_eq!(places[1].parts, [0..1, 4096..8192, 8192..8192 + 4097]);
    assert_eq!(opened.place(2), None);
}

#[test]
fn the_content_digest_is_of_all_that_follows_the_manifest() {
    let forms = two_forms([1, 2, 0, 3]);
    let mut content = bytes(1, 1);
    content.resize(4096, 0);
    content.extend_from_slice(&bytes(2, 2));
    content.resize(2 * 4096, 0);
    content.extend_from_slice(&bytes(3, 4));
    assert_eq!(manifest(&forms).content, Digest::of(&content));
    let changed = two_forms([1, 2, 0, 4]);
    assert_ne!(registered(&forms), registered(&changed));
}

#[test]
fn nothing_is_sealed_under_a_manifest_that_describes_something_else() {
    let forms = onnx(b"weights".to_vec());
    let others = [
        manifest(&onnx(b"weightz".to_vec())),
        Manifest {
            forms: vec![],
            ..manifest(&forms)
        },
    ];
    for other in others {
        let entropy = SystemEntropy::new();
        let sealed = with_contents(&forms, |forms| {
            seal(&key(), &model(1), &other, forms, &entropy)
        });
        assert!(matches!(sealed, Err(PackageError::Content(_))));
    }
}

#[test]
fn nothing_is_sealed_that_no_reader_would_take() {
    let long_name = TensorSpec {
        name: "n".repeat(MAX_MANIFEST),
        data_type: DataType::Fp32,
        shape: vec![],
    };
    let try_to_seal = |inputs: Vec<TensorSpec>, forms: &Forms| {
        with_contents(forms, |forms| {
            let manifest = Manifest::describing(inputs, vec![], forms);
            seal(&key(), &model(1), &manifest, forms, &SystemEntropy::new()).map(drop)
        })
    };
    let one = onnx(vec![1]);
    try_to_seal(vec![], &one).unwrap();
    let refused = [
        try_to_seal(vec![long_name], &one),
        try_to_seal(vec![], &vec![]),
        try_to_seal(vec![], &(0..=MAX_FORMS).flat_map(|_| one.clone()).collect()),
        try_to_seal(vec![], &vec![(ModelFormat::Onnx, vec![vec![1], vec![2]])]),
        try_to_seal(
            vec![],
            &vec![(ModelFormat::OnnxRuntimeCompiled, vec![vec![1]])],
        ),
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(PackageError::Content(_))),
            "{refused:?}"
        );
    }
}

/// Lengths around the ends of pages and segments, when a part begins at a page.
fn border() -> impl Strategy<Value = usize> {
    let first = SEGMENT - 16 - HEADER;
    let bases = vec![
        0,
        4096,
        2 * 4096,
        first - 2 * 4096,
        first - 4096,
        first,
        SEGMENT - 16,
        SEGMENT,
        first - 4096 + SEGMENT - 16,
    ];
    (prop::sample::select(bases), 0usize..5).prop_map(|(base, off)| (base + off).saturating_sub(2))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_form_is_right_when_only_its_segments_are_read(lengths in [border(), border(), border(), border()]) {
        let forms = two_forms(lengths);
        let package = sealed(&forms);
        let digest = registered(&forms);
        let whole = open(&package, &digest).unwrap();
        let opened = head(&package, &digest, package.len() as u64).unwrap();
        for (form, (_, parts)) in forms.iter().enumerate() {
            let wanted = opened.segments(&opened.place(form).unwrap().plaintext);
            let mut partly = package.clone();
            for other in (0..opened.segments(&(0..u64::MAX)).end).filter(|n| !wanted.contains(n)) {
                partly[place_in(&opened.sealed(other))].fill(0);
            }
            let found = open_form(&opened, &partly, form).unwrap();
            prop_assert!(found == *parts);
            prop_assert!(whole.forms[form].iter().zip(&found).all(|(a, b)| **a == *b));
            // And none of them is superfluous.
            for segment in wanted {
                let mut changed = package.clone();
                changed[place_in(&opened.sealed(segment)).start] ^= 1;
                let refused = open_form(&opened, &changed, form);
                prop_assert_eq!(refused, Err(StreamError::NotAuthentic(segment).into()));
            }
        }
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), length in any::<u64>()) {
        let digest = Digest([0; 32]);
        let _ = open(&bytes, &digest);
        let _ = head(&bytes, &digest, length);
    }

    #[test]
    fn no_manifest_panics(encoded in prop::collection::vec(any::<u8>(), 0..300), more in 0usize..9000) {
        let mut plaintext = u32::try_from(encoded.len()).unwrap().to_le_bytes().to_vec();
        plaintext.extend_from_slice(&encoded);
        plaintext.resize(plaintext.len() + more, 0);
        prop_assert!(open(&refused::around(&plaintext), &Digest::of(&encoded)).is_err());
    }
}

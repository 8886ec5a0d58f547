//! Ids as people write them, descriptions of tensors, and lengths.

use core::fmt::{Debug, Display};
use core::str::FromStr;

use sesemi_protocol::package::{Dimension, TensorSpec};
use sesemi_protocol::padding::{MIN_BUCKET, padded_length};
use sesemi_protocol::tensor::{self, DataType, Elements, TensorError, TensorView};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    ModelVersion, PrincipalId, RequestId, ServiceId, VersionSelector,
};

use crate::input::Input;
use crate::samples;

/// Reads the bytes as each kind of id. What is accepted is written the same way again.
pub fn ids(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    one_spelling::<PrincipalId>(text);
    one_spelling::<ServiceId>(text);
    one_spelling::<CodeIdentityDigest>(text);
    one_spelling::<Digest>(text);
    one_spelling::<RequestId>(text);
    one_spelling::<ModelName>(text);
    one_spelling::<AliasName>(text);
    one_spelling::<GroupName>(text);
    one_spelling::<ModelVersion>(text);
    one_spelling::<VersionSelector>(text);
    one_spelling::<ModelId>(text);
    one_spelling::<ModelRef>(text);
    one_spelling::<ModelTarget>(text);
    let is = |exact: bool, alias: bool| {
        assert!(!(exact && alias), "{text} is a version and an alias");
        assert_eq!(text.parse::<VersionSelector>().is_ok(), exact || alias);
    };
    let version = text.parse::<ModelVersion>();
    is(version.is_ok(), text.parse::<AliasName>().is_ok());
}

fn one_spelling<T: FromStr<Err: Debug + Display> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string(), text),
        Err(error) => assert!(error.to_string().len() < 1024, "an error repeats its input"),
    }
}

/// A length is never padded to less, and a bucket is its own bucket.
pub fn padding(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [a, b] = [(); 2].map(|()| usize::from_le_bytes(input.array()));
    let padded = |length| {
        let padded = padded_length(length)?;
        assert!(padded >= length.max(MIN_BUCKET));
        assert_eq!(padded_length(padded), Some(padded));
        assert!(length <= MIN_BUCKET || padded - length <= length / 8);
        Some(padded)
    };
    if let (Some(small), Some(large)) = (padded(a.min(b)), padded(a.max(b))) {
        assert!(small <= large);
    }
}

/// Checks a description of a tensor. What is accepted is as large as it says.
pub fn tensor_description(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let data_type = DataType::ALL[usize::from(input.byte()) % DataType::ALL.len()];
    let name = input.text();
    let rank = usize::from(input.byte() % 12);
    let shape: Vec<u64> = (0..rank).map(|_| input.number()).collect();
    let length = input.number();
    if tensor::check(&name, data_type, &shape, length).is_ok() {
        let elements: u128 = shape.iter().map(|extent| u128::from(*extent)).product();
        match data_type.size() {
            Some(size) => assert_eq!(elements * size as u128, u128::from(length)),
            // Each element has at least its length.
            None => assert!(elements * 4 <= u128::from(length)),
        }
    }
    let data = input.rest();
    let view = TensorView {
        name: &name,
        data_type,
        shape: &shape,
        data,
    };
    let described = tensor::check(&name, data_type, &shape, data.len() as u64);
    if data_type == DataType::Bytes {
        bytes_elements(&view, described);
    } else {
        assert_eq!(view.check(), described);
    }
    let spec = |dimension: fn(u64) -> Dimension| TensorSpec {
        name: name.clone(),
        data_type,
        shape: shape.iter().copied().map(dimension).collect(),
    };
    for spec in [spec(Dimension::Fixed), spec(|_| Dimension::Dynamic)] {
        assert!(spec.fits(data_type, &shape));
        assert!(spec.describe().starts_with(data_type.as_str()));
    }
}

/// Whatever is accepted as BYTES is the elements that are read of it, written again.
fn bytes_elements(view: &TensorView<'_>, described: Result<(), TensorError>) {
    let elements: Result<Vec<&[u8]>, _> = Elements::of(view.data).collect();
    let mut extents = view.shape.iter();
    let count = extents.try_fold(1u64, |count, extent| count.checked_mul(*extent));
    let read = elements.as_ref().ok().map(|it| it.len() as u64);
    let fits = count.is_some() && read == count;
    assert_eq!(view.check().is_ok(), described.is_ok() && fits);
    let mut written = Vec::new();
    for element in elements.unwrap_or_default() {
        tensor::append(&mut written, element).unwrap();
    }
    assert!(written.is_empty() || written == view.data);
}

pub(crate) fn id_seeds() -> Vec<Vec<u8>> {
    samples::vectors(samples::IDS, &["text"])
}

pub(crate) fn padding_seeds() -> Vec<Vec<u8>> {
    let lengths = [0, 512, 513, 4097, 1 << 20, 1 << 26, usize::MAX];
    let seed = |length: &usize| [length.to_le_bytes(), (length / 2).to_le_bytes()].concat();
    lengths.iter().map(seed).collect()
}

pub(crate) fn tensor_seeds() -> Vec<Vec<u8>> {
    let seed = |data_type: u8, shape: &[u64], length: u64| {
        let mut bytes = vec![data_type, 1, b'x', shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|extent| extent.to_le_bytes()));
        bytes.extend(length.to_le_bytes());
        bytes.resize(bytes.len() + length as usize, 0);
        bytes
    };
    // Two elements of BYTES: one byte, and none.
    let texts = [
        &[13, 1, b'x', 1][..],
        &2u64.to_le_bytes(),
        &9u64.to_le_bytes(),
        &[1, 0, 0, 0, b'a', 0, 0, 0, 0],
    ];
    vec![
        texts.concat(),
        seed(13, &[3], 12),
        seed(10, &[1, 30], 120),
        seed(0, &[], 1),
        seed(8, &[0, u64::MAX], 0),
        seed(11, &[1; 8], 8),
        seed(2, &[1 << 62, 8], 0),
    ]
}
